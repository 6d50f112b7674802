"""Batches that depend on the seed and the epoch only, and the loaders that read them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Generic, NamedTuple, Self, TypeVar

from torch.utils.data import DataLoader, Dataset, Sampler

T = TypeVar("T")


class EpochSampler(Sampler[list[T]], Generic[T]):
    """Batch sampler whose epoch ``n`` is the same whether reached at once or resumed.

    A subclass draws the batches of `epoch` in its ``__iter__``, seeded by `seed` and `epoch`.

    Parameters
    ----------
    seed
        With the epoch, fixes the batches.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.epoch = seed, 0

    @property
    def sampler(self) -> Self:
        """Itself: Lightning tells the epoch to a batch sampler's sampler only."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each one."""
        self.epoch = epoch


class Loaders(NamedTuple):
    """Loaders of the batches to train on, and of those to validate on."""

    train: DataLoader
    dev: DataLoader


def make_loader(
    dataset: Dataset, batches: Sampler, workers: int = 0, collate: Callable | None = None
) -> DataLoader:
    """Load the batches of a sampler, in further processes where there are workers.

    Parameters
    ----------
    dataset, batches
        Examples, and which of them make a batch.
    workers
        Processes that make the examples; 0 makes them in this one.
    collate
        Makes a batch of a list of examples; None stacks them.
    """
    # JAX, where it is loaded, has threads that a fork would leave behind.
    context = "spawn" if workers and "jax" in sys.modules else None
    return DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0,
        multiprocessing_context=context, collate_fn=collate,
    )  # fmt: skip
