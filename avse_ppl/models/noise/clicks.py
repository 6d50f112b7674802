"""Clicks: rare broadband bursts with horseshoe amplitudes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pyroapi import distributions as dist
from pyroapi import pyro
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.noise.sum import NoiseModelBase, noise_floor
from avse_ppl.signal.stft import Frames

_SILENT = 1e-8  # between the clicks: keeps the power above 0


@dataclass(frozen=True)
class Clicks(NoiseModelBase):
    r"""Rare broadband bursts: ticks, knocks, cutlery, rain on a window.

    .. math:: v_{ft} = c_f\, a_t^2, \quad a_t \sim \mathrm{C}^+(0, 1), \quad
        \log c_f \sim N(2 \log \tan(\pi r / 2), 2^2)

    Half-Cauchy amplitudes (the prior of the horseshoe) are mostly small and sometimes huge:
    :math:`P(c a_t^2 > q) = 1 - \tfrac{2}{\pi} \arctan \sqrt{q / c}`, which falls as
    :math:`q^{-1/2}`. At the median of c a share r of the frames has a power above 1, the mean of
    the recording. There is nothing between the clicks: add a floor, ``stationary + clicks``. Sites
    ``noise.colour`` (c), ``(freq, 1)``; ``noise.clicks`` (a), ``(1, time)``.

    Parameters
    ----------
    rate
        r, the expected share of frames with a click.
    site
        What the names of the latents begin with.

    Raises
    ------
    ValueError
        If the rate is not between 0 and 1.

    References
    ----------
    Carvalho, Polson and Scott, "The horseshoe estimator for sparse signals", Biometrika 2010.

    Examples
    --------
    >>> Clicks()(Frames(freq=5, time=7)).power.shape
    torch.Size([5, 7])
    """

    rate: float = 0.05
    site: str = "noise"

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise ValueError(f"rate must be a share of frames between 0 and 1, not {self.rate!r}")

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample colour and amplitudes; the distribution of the noise, ``(freq, time)``."""
        middle = 2.0 * math.log(math.tan(0.5 * math.pi * self.rate))
        with pyro.plate("freq", frames.freq, dim=-2):
            colour = pyro.sample(f"{self.site}.colour", dist.LogNormal(frames.number(middle), 2.0))
        with pyro.plate("time", frames.time, dim=-1):
            clicks = pyro.sample(f"{self.site}.clicks", dist.HalfCauchy(frames.number(1.0)))
        return ComplexNormal(0.0, colour * clicks**2 + _SILENT)

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Initial amplitudes: the loudness of each frame over the noise floor."""
        excess = (power / noise_floor(power).clamp_min(1e-6)).log1p().mean(-2, keepdim=True)
        amplitude = excess / excess.median(-1, keepdim=True).values
        return {f"{self.site}.clicks": amplitude.clamp(0.1, 100.0)}


clicks = Clicks()
