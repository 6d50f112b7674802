"""Which speech latents a Metropolis move proposes to change, and which it accepts together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from avse_ppl.inference.em.frame_density import FrameLogDensity

_WINDOW = 8  # frames from one that moves to the next, where a prior reaches over the recording
_FRAME_MOVES = 3  # for each move of the latents without a time, where all frames move at once


@dataclass(frozen=True)
class BlockSchedule:
    """What moves, and what is accepted together.

    Parameters
    ----------
    windows
        Number of the window that each frame belongs to, ``(time,)``.
    active
        Which frames move, ``(time,)``.
    shared
        Whether the latents without a time move.
    certain
        Whether what a window's move changes is seen in that window only.
    """

    windows: Tensor
    active: Tensor
    shared: bool
    certain: bool

    @property
    def count(self) -> int:
        """Number of windows."""
        return int(self.windows[-1]) + 1

    def sum(self, frames: Tensor) -> Tensor:
        """Add ``(recording, time)`` up to ``(recording, window)``."""
        sums = frames.new_zeros(len(frames), self.count)
        return sums.index_add_(1, self.windows, frames)

    def mean(self, windows: Tensor) -> Tensor:
        """Mean of ``(recording, window)`` over the windows in which something moves."""
        if self.shared:
            return windows.mean(1)
        moving = self.sum(self.active.to(windows.dtype)[None]).clamp(max=1.0)
        return (windows * moving).sum(1) / moving.sum()


def single_block(time: int, device: torch.device, frames: bool = True) -> BlockSchedule:
    """One window: everything moves and is accepted together, or only what has no time."""
    zeros = torch.zeros(time, dtype=torch.long, device=device)
    return BlockSchedule(
        zeros, torch.full((time,), frames, device=device), shared=True, certain=True
    )


def striped_blocks(
    time: int, window: int, certain: bool, device: torch.device
) -> list[BlockSchedule]:
    """Plans that between them move every frame once: in each, the middle of every window."""
    frames = torch.arange(time, device=device)
    plans = []
    for offset in range(window):
        place = frames + offset
        active = place % window == window // 2
        if bool(active.any()):
            plans.append(BlockSchedule(place // window - offset // window, active, False, certain))
    return plans


def choose_blocks(
    score: FrameLogDensity, reach: int | None, gradients: bool
) -> list[BlockSchedule]:
    """Plans of one round of moves.

    Parameters
    ----------
    score
        Knows the latents.
    reach
        How many frames to either side a latent of one frame changes the law of speech; None if
        that is not known to be bounded.
    gradients
        Whether proposals follow the gradient: then all frames move together unless each stands
        for itself. Without, in so many dimensions, steps would have to be tiny.
    """
    time, device = score.density.mixture.frames.time, score.density.mixture.values.device
    framed = [score.per_frame(site) for site in score.sites]
    if gradients and reach != 0:
        return [single_block(time, device)]
    shared = [single_block(time, device, frames=False)] if not all(framed) else []
    if not any(framed):
        return shared
    if reach == 0:
        return striped_blocks(time, 1, True, device) * _FRAME_MOVES + shared
    window = _WINDOW if reach is None else 2 * reach + 1
    return striped_blocks(time, window, reach is not None, device) + shared
