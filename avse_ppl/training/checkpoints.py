"""Checkpoints of a training: written atomically, and checked before they are resumed from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from avse_ppl.utils.files import atomic_path

_PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written as `atomic_path` writes and read as `read_checkpoint`.

    Lightning itself writes them in the folder for temporary files first, and moves them, which
    between two disks is a copy that a killed process leaves half done.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; see `read_checkpoint`."""
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a training, of tensors and plain values only.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is damaged, or is none of a training.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        missing = [part for part in _PARTS if part not in found]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
    except Exception as error:  # a damaged file can raise nearly anything here
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} is not a checkpoint to go on from ({reason}); delete it, or start over with "
            "--no-resume (resume=False)"
        ) from None
    return found
