"""Wind at the microphone: low-frequency rumble in gusts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pyroapi import ops
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.noise.modulated import check_known, sample_log_gain, sample_log_normal
from avse_ppl.models.noise.sum import NoiseModelBase, noise_floor
from avse_ppl.signal.stft import Frames

_QUIET = 1e-8  # keeps the power above 0 at high frequencies


@dataclass(frozen=True)
class Wind(NoiseModelBase):
    r"""Wind noise: low-frequency rumble with a low-pass spectrum and gusts of AR(1) gain.

    .. math:: v_{ft} = \lambda \left(1 + (f / f_c)^2\right)^{-k / 2} 10^{\sigma g_t / 10}

    with g the AR(1) sequence of `AR1Gain`. Above the corner the power falls as :math:`f^{-k}`. It
    holds next to nothing at high frequencies: add a floor, ``stationary + wind``. Sites
    ``noise.level``, :math:`\log \lambda \sim N(2, 2^2)`; ``noise.slope``,
    :math:`\log k \sim N(\log 3, 0.3^2)`; ``noise.corner_hz``,
    :math:`\log f_c \sim N(\log 80, 0.7^2)`; ``noise.gain_sd_db``,
    :math:`\log \sigma \sim N(\log 8, 0.7^2)`, one a recording each; ``noise.innovations``,
    ``(1, time)``.

    Parameters
    ----------
    gain_sd_db
        :math:`\sigma`, dB; None if it is to be learned.
    correlation_s
        How long gusts last, seconds; None if it is to be learned.
    site
        What the names of the latents begin with.

    Raises
    ------
    ValueError
        If a number is not positive.

    References
    ----------
    Nelke and Vary, "Measurement, analysis and simulation of wind noise signals for mobile
    communication devices", IWAENC 2014.

    Examples
    --------
    >>> Wind()(Frames(freq=513, time=7)).power.shape
    torch.Size([513, 7])
    """

    gain_sd_db: float | None = None
    correlation_s: float | None = 0.5
    site: str = "noise"

    def __post_init__(self) -> None:
        check_known("gain_sd_db", self.gain_sd_db)
        check_known("correlation_s", self.correlation_s)

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample roll-off and gusts; the distribution of the noise, ``(freq, time)``."""
        level = sample_log_normal(frames, f"{self.site}.level", math.exp(2.0), 2.0)
        slope = sample_log_normal(frames, f"{self.site}.slope", 3.0, 0.3)
        corner_hz = sample_log_normal(frames, f"{self.site}.corner_hz", 80.0, 0.7)
        gain = sample_log_gain(frames, self.site, self.gain_sd_db, 8.0, self.correlation_s)
        roll_off = -0.5 * slope * ops.log(1.0 + (frames.freq_hz / corner_hz) ** 2)
        return ComplexNormal(0.0, level * ops.exp(roll_off + gain) + _QUIET)

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Initial level at the noise floor of the lowest bins."""
        return {f"{self.site}.level": noise_floor(power)[:, 1:5].mean(-2, keepdim=True)}


wind = Wind()
