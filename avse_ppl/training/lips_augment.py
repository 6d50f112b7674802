"""Variations of mouth crops that make few speakers stand for more."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

_Uniform = Callable[..., Tensor]


def vary_crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move, mirror, blur, relight and cover normalised crops, one way for each clip.

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

    moved = _blurred(_moved(images, uniform), uniform)
    curved = moved.sign() * moved.abs().clamp(min=1e-4) ** uniform(0.7, 1.4, 1, 1, 1)
    gain, offset = uniform(0.6, 1.5, 1, 1, 1), uniform(-0.8, 0.8, 1, 1, 1)
    grain = torch.randn(images.shape, generator=generator).to(images.device)
    lit = curved * gain + offset + uniform(0.0, 0.15, 1, 1, 1) * grain
    return _covered(lit + _shade(images, uniform, generator), uniform)


def _moved(images: Tensor, uniform: _Uniform) -> Tensor:
    """Turned, mirrored, shifted, sheared, and scaled in width and height apart."""
    angle = uniform(-1.0, 1.0) * math.radians(10)
    across, down = uniform(0.75, 1.3), uniform(0.75, 1.3)
    mirror = torch.where(uniform(0.0, 1.0) < 0.5, -1.0, 1.0)
    sheared = uniform(-0.15, 0.15)
    rows = (
        torch.stack(
            (mirror * across * angle.cos(), sheared - down * angle.sin(), uniform(-0.15, 0.15)), -1
        ),
        torch.stack((mirror * across * angle.sin(), down * angle.cos(), uniform(-0.15, 0.15)), -1),
    )
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def _blurred(images: Tensor, uniform: _Uniform) -> Tensor:
    """Three clips in ten, a little."""
    return torch.where(uniform(0.0, 1.0, 1, 1, 1) < 0.3, avg_pool2d(images, 3, 1, 1), images)


def _shade(images: Tensor, uniform: _Uniform, generator: torch.Generator) -> Tensor:
    """A smooth pattern that stays for the clip: other skin, other light, another beard."""
    coarse = torch.randn(len(images), 1, 6, 6, generator=generator).to(images.device)
    smooth = interpolate(coarse, size=images.shape[-2:], mode="bicubic", align_corners=False)
    return uniform(0.0, 0.8, 1, 1, 1) * smooth


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
