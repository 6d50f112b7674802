"""Variations of mouth crops that make few speakers stand for more."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

_Uniform = Callable[..., Tensor]


def vary_crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, turn, scale, mirror, relight and cover normalised crops, one way for each clip.

    Parameters
    ----------
    images
        ``(clip, picture, height, width)``, normalised.
    generator
        Of the variations, on the CPU.

    Examples
    --------
    >>> vary_crops(torch.zeros(2, 5, 44, 44), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 5, 44, 44])
    """
    clips = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(clips, *shape, generator=generator)
        return (low + (high - low) * drawn).to(images.device)

    moved = _moved(images, uniform)
    gain, offset = uniform(0.6, 1.5, 1, 1, 1), uniform(-0.8, 0.8, 1, 1, 1)
    grain = torch.randn(images.shape, generator=generator).to(images.device)
    lit = moved * gain + offset + uniform(0.0, 0.15, 1, 1, 1) * grain
    return _covered(lit, uniform)


def _moved(images: Tensor, uniform: _Uniform) -> Tensor:
    angle = uniform(-1.0, 1.0) * math.radians(10)
    scale = uniform(0.85, 1.15)
    mirror = torch.where(uniform(0.0, 1.0) < 0.5, -1.0, 1.0)
    rows = (
        torch.stack((mirror * scale * angle.cos(), -scale * angle.sin(), uniform(-0.15, 0.15)), -1),
        torch.stack((mirror * scale * angle.sin(), scale * angle.cos(), uniform(-0.15, 0.15)), -1),
    )
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def _covered(images: Tensor, uniform: _Uniform) -> Tensor:
    """In a quarter of the clips, a flat patch over a part of the pictures."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device)[:, None] / height
    columns = torch.arange(width, device=images.device) / width
    top, left = uniform(-0.2, 0.9, 1, 1), uniform(-0.2, 0.9, 1, 1)
    tall, wide = uniform(0.1, 0.4, 1, 1), uniform(0.1, 0.4, 1, 1)
    inside = (rows > top) & (rows < top + tall) & (columns > left) & (columns < left + wide)
    chosen = uniform(0.0, 1.0, 1, 1) < 0.25
    return torch.where((inside & chosen)[:, None], uniform(-2.0, 2.0, 1, 1, 1), images)
