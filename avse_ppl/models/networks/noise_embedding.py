"""Noise embedding: Fourier features of the noise level of a diffusion."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_WAVES = 16


class NoiseEmbedding(nn.Module):
    r"""Vector for a noise level: sines and cosines of :math:`\log \sigma`, through two layers.

    Parameters
    ----------
    size
        Of the vector.

    Examples
    --------
    >>> NoiseEmbedding(8)(torch.tensor([0.1, 1.0])).shape
    torch.Size([2, 8])
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.Sequential(
            nn.Linear(2 * _WAVES, size), nn.GELU(), nn.Linear(size, size), nn.GELU()
        )

    def forward(self, sigma: Tensor) -> Tensor:
        """``(recording,)`` to ``(recording, size)``."""
        # Periods from a sixth of a nat to some twenty: fine steps, and the whole range.
        rates = torch.logspace(-1, 1, _WAVES, device=sigma.device, dtype=sigma.dtype) * math.pi / 2
        angle = torch.log(sigma)[:, None] * rates
        return self.layers(torch.cat((angle.sin(), angle.cos()), -1))
