"""Training on several devices of one machine: a process each, which Lightning starts.

Each process runs the whole training on its share of the batches, and gradients are averaged
(distributed data parallel), so that the weights are the same in all. The first process writes what
is to stay; the others write what they read again themselves, as a teacher, to a scratch folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from avse_ppl.training.datasets.loaders import make_loader


def get_rank() -> int:
    """Number of this process among those of a training, from 0; 0 where there is one only."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def choose_strategy(devices: int) -> str:
    """Lightning's name for how the processes work together.

    Examples
    --------
    >>> choose_strategy(1)
    'auto'
    """
    # Networks that see lips, or are causal now and then, leave parameters out of some steps.
    return "auto" if devices == 1 else "ddp_find_unused_parameters_true"


def check_devices(devices: int, kind: str) -> None:
    """Raise ``ValueError`` unless a machine has so many devices of a kind.

    Examples
    --------
    >>> check_devices(0, "cpu")
    Traceback (most recent call last):
    ValueError: expected one device or more to train on, found 0
    """
    if devices < 1:
        raise ValueError(f"expected one device or more to train on, found {devices}")
    if kind == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(
            f"expected at most {torch.cuda.device_count()} devices, which are the GPUs of this "
            f"machine, found {devices}"
        )


def choose_folder(output: Path) -> Path:
    """Folder for what this process writes: the output in the first, otherwise a scratch folder."""
    if get_rank() == 0:
        return output
    scratch = tempfile.mkdtemp(prefix="avse-ppl-train-")
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return Path(scratch)


class SharedBatches(Sampler[list[Any]]):
    """Share of the batches of a sampler that is for this process: every so many-th of them.

    Batches at the end that are too few for all processes are left out.

    Parameters
    ----------
    batches
        Sampler of all batches, the same in each process.
    devices
        Number of processes.
    rank
        Of this one.

    Raises
    ------
    ValueError
        If there are fewer batches than processes.

    Examples
    --------
    >>> [list(SharedBatches([[0], [1], [2], [3], [4]], 2, rank)) for rank in (0, 1)]
    [[[0], [2]], [[1], [3]]]
    """

    def __init__(self, batches: Any, devices: int, rank: int) -> None:
        if len(batches) < devices:
            raise ValueError(
                f"an epoch has {len(batches)} batches, fewer than the {devices} devices; train on "
                "fewer devices, or more data"
            )
        self.batches, self.devices, self.rank = batches, devices, rank

    @property
    def sampler(self) -> Any:
        """What Lightning tells the epoch to."""
        return self.batches

    def __len__(self) -> int:
        """Count the batches of this process."""
        return len(self.batches) // self.devices

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield the batches of the current epoch that are for this process."""
        for number, batch in enumerate(self.batches):
            if number // self.devices >= len(self):
                return
            if number % self.devices == self.rank:
                yield batch


def share_batches(loader: DataLoader, devices: int) -> DataLoader:
    """Loader of the batches that are for this process."""
    if devices == 1:
        return loader
    batches = SharedBatches(loader.batch_sampler, devices, get_rank())
    return make_loader(loader.dataset, batches, loader.num_workers, loader.collate_fn)
