"""Gradient descent for small fits that need no checkpoints."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def descend(
    module: nn.Module,
    measure_loss: Callable[[], Tensor],
    steps: int,
    learning_rate: float,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Adam with gradients clipped to a norm of 1, its rate falling to 0 along a cosine.

    Parameters
    ----------
    module
        What is fitted, in place.
    measure_loss
        Called at each step.
    steps, learning_rate
        How many, and the rate of the first.
    progress
        Called with (step, steps).

    Examples
    --------
    >>> line = nn.Linear(1, 1)
    >>> descend(line, lambda: (line(torch.ones(1, 1)) - 3.0).square().sum(), 200, 0.1)
    >>> round(float(line(torch.ones(1, 1)).detach()), 1)
    3.0
    """
    optimiser = torch.optim.Adam(module.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        loss = measure_loss()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
