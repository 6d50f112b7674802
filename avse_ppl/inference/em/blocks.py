"""Blocks of speech latents that a Metropolis step proposes to change and accepts together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from avse_ppl.inference.em.frame_density import FrameLogDensity

_BLOCK_FRAMES = 8  # where the receptive field of a prior is not bounded
_FRAME_STEPS = 3  # for each step of the latents without a time, where all frames change at once


@dataclass(frozen=True)
class BlockSchedule:
    """Which latents a Metropolis step changes, and which of them are accepted together.

    Parameters
    ----------
    blocks
        Index of the block that each frame belongs to, ``(time,)``.
    active
        Which frames change, ``(time,)``.
    shared
        Whether the latents without a time change.
    blocks_independent
        Whether changes in one block leave the log joint of all other blocks as it is.
    """

    blocks: Tensor
    active: Tensor
    shared: bool
    blocks_independent: bool

    @property
    def count(self) -> int:
        """Number of blocks."""
        return int(self.blocks[-1]) + 1

    def sum(self, frames: Tensor) -> Tensor:
        """Add ``(recording, time)`` up to ``(recording, block)``."""
        sums = frames.new_zeros(len(frames), self.count)
        return sums.index_add_(1, self.blocks, frames)

    def mean(self, blocks: Tensor) -> Tensor:
        """Mean of ``(recording, block)`` over the blocks in which something changes."""
        if self.shared:
            return blocks.mean(1)
        changing = self.sum(self.active.to(blocks.dtype)[None]).clamp(max=1.0)
        return (blocks * changing).sum(1) / changing.sum()


def single_block(time: int, device: torch.device, frames: bool = True) -> BlockSchedule:
    """One block of everything, or of the latents without a time only."""
    zeros = torch.zeros(time, dtype=torch.long, device=device)
    return BlockSchedule(
        zeros, torch.full((time,), frames, device=device), shared=True, blocks_independent=True
    )


def striped_blocks(
    time: int, length: int, blocks_independent: bool, device: torch.device
) -> list[BlockSchedule]:
    """Schedules that between them change every frame once: in each, the middle of every block."""
    frames = torch.arange(time, device=device)
    schedules = []
    for offset in range(length):
        place = frames + offset
        active = place % length == length // 2
        if bool(active.any()):
            blocks = place // length - offset // length
            schedules.append(BlockSchedule(blocks, active, False, blocks_independent))
    return schedules


def choose_blocks(
    log_density: FrameLogDensity, receptive_field: int | None, gradients: bool
) -> list[BlockSchedule]:
    """Schedules of one cycle of Metropolis steps.

    Parameters
    ----------
    log_density
        Of the speech latents.
    receptive_field
        How many frames to either side a latent of one frame changes the distribution of speech;
        None if that is not known to be bounded.
    gradients
        Whether proposals follow the gradient: then all frames change together unless they are
        independent. Without, in so many dimensions, steps would have to be tiny.
    """
    density = log_density.density
    time, device = density.mixture.frames.time, density.mixture.values.device
    framed = [log_density.per_frame(site) for site in log_density.sites]
    if gradients and receptive_field != 0:
        return [single_block(time, device)]
    shared = [single_block(time, device, frames=False)] if not all(framed) else []
    if not any(framed):
        return shared
    if receptive_field == 0:
        return striped_blocks(time, 1, True, device) * _FRAME_STEPS + shared
    length = _BLOCK_FRAMES if receptive_field is None else 2 * receptive_field + 1
    return striped_blocks(time, length, receptive_field is not None, device) + shared
