"""Noise whose level moves slowly: an AR(1) gain, and gusts of wind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from pyroapi import distributions as dist
from pyroapi import ops, pyro
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.noise.basic import stationary
from avse_ppl.models.noise.sum import (
    NoiseModelBase,
    initial_values,
    noise_floor,
    scaled,
    with_site,
)
from avse_ppl.models.protocols import NoiseModel, move_model
from avse_ppl.models.validation import check_positive
from avse_ppl.signal.stft import Frames

_DB = math.log(10) / 10
_QUIET = 1e-8  # keeps the power of wind above 0 at high frequencies


@dataclass(frozen=True)
class AR1Gain(NoiseModelBase):
    r"""Noise of fixed character whose level wanders: appliances, traffic, a swaying microphone.

    .. math:: v_{ft} = u_{ft}\, 10^{\sigma g_t / 10}, \quad
        g_t = \rho g_{t-1} + \sqrt{1 - \rho^2}\, \epsilon_t, \quad g_1 = \epsilon_1, \quad
        \epsilon_t \sim N(0, 1), \quad \rho = e^{-H / \tau}

    with :math:`u` the power of another noise model and H the hop, seconds: ``g`` is stationary
    with variance 1 and autocorrelation :math:`e^{-|t - t'| H / \tau}`. Sites
    ``noise.innovations``, :math:`\epsilon`, ``(1, time)``; ``noise.gain_sd_db``,
    :math:`\log \sigma \sim N(\log 6, 0.7^2)`, and ``noise.correlation_s``,
    :math:`\log \tau \sim N(\log 0.2, 1)`, one a recording, where they are not given; and those of
    the other model.

    Parameters
    ----------
    gain_sd_db
        :math:`\sigma`, dB; None if it is to be learned.
    correlation_s
        :math:`\tau`, seconds; None if it is to be learned, which takes a matrix of frames by frames
        for each recording at each step.
    noise
        Model of u; by default one unknown spectrum.
    site
        What the names of the latents begin with.

    Raises
    ------
    ValueError
        If a number is not positive.

    References
    ----------
    Godsill and Rayner, "Digital audio restoration", Springer 1998 (chapter 4: autoregressions).
    Papaspiliopoulos, Roberts and Sköld, "A general framework for the parametrization of
    hierarchical models", Statistical Science 2007.

    Examples
    --------
    >>> AR1Gain()(Frames(freq=5, time=7)).power.shape
    torch.Size([5, 7])
    """

    gain_sd_db: float | None = None
    correlation_s: float | None = 0.2
    noise: NoiseModel = stationary
    site: str = "noise"

    def __post_init__(self) -> None:
        """Check the numbers; names of the inner latents begin as those of the gain do."""
        for what in ("gain_sd_db", "correlation_s"):
            _check_known(what, getattr(self, what))
        object.__setattr__(self, "noise", with_site(self.noise, self.site))

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample the gain, return the law of the noise, ``(freq, time)``."""
        law = self.noise(frames)
        gain = log_gain(frames, self.site, self.gain_sd_db, 6.0, self.correlation_s)
        return scaled(law, ops.exp(gain))

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Start of the inner model."""
        return initial_values(self.noise, power, speech_power, generator)

    def to(self, device: torch.device, dtype: torch.dtype) -> AR1Gain:
        """Return the same model with what it holds on another device or dtype."""
        noise = move_model(self.noise, device, dtype)
        return AR1Gain(self.gain_sd_db, self.correlation_s, noise, self.site)


@dataclass(frozen=True)
class Wind(NoiseModelBase):
    r"""Wind at the microphone: rumble that falls off with frequency, and comes in gusts.

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
        """Check the numbers."""
        for what in ("gain_sd_db", "correlation_s"):
            _check_known(what, getattr(self, what))

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample roll-off and gusts, return the law of the noise, ``(freq, time)``."""
        level = _log_normal(frames, f"{self.site}.level", math.exp(2.0), 2.0)
        slope = _log_normal(frames, f"{self.site}.slope", 3.0, 0.3)
        corner_hz = _log_normal(frames, f"{self.site}.corner_hz", 80.0, 0.7)
        gain = log_gain(frames, self.site, self.gain_sd_db, 8.0, self.correlation_s)
        roll_off = -0.5 * slope * ops.log(1.0 + (frames.freq_hz / corner_hz) ** 2)
        return ComplexNormal(0.0, level * ops.exp(roll_off + gain) + _QUIET)

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Start at the floor of the lowest bins."""
        return {f"{self.site}.level": noise_floor(power)[:, 1:5].mean(-2, keepdim=True)}


def log_gain(
    frames: Frames, site: str, sd_db: float | None, usual_db: float, correlation_s: float | None
) -> Any:
    """Log of a gain that is an AR(1) sequence, nepers of power, ``(1, time)``."""
    sd: Any = sd_db
    if sd is None:
        sd = _log_normal(frames, f"{site}.gain_sd_db", usual_db, 0.7)
    memory_s: Any = correlation_s
    if memory_s is None:
        memory_s = _log_normal(frames, f"{site}.correlation_s", 0.2, 1.0)
    with pyro.plate("time", frames.time, dim=-1):
        innovations = pyro.sample(f"{site}.innovations", dist.Normal(frames.number(0.0), 1.0))
    return _DB * sd * (innovations @ _memory(frames, memory_s))


def _memory(frames: Frames, memory_s: Any) -> Any:
    r"""Matrix that makes an AR(1) sequence of its innovations, ``(from, to)``.

    :math:`\rho^{t - s}` for :math:`s \le t`, times :math:`\sqrt{1 - \rho^2}` except where s is
    the first frame: all at once, where a loop over frames would be slow.
    """
    time_s = frames.time_s
    lag_s = time_s[None, :] - time_s[:, None]
    past = ops.exp(-ops.abs(lag_s) / memory_s) * (lag_s >= 0)
    hop_s = frames.hop / frames.sample_rate_hz
    fresh = ops.sqrt(1.0 - ops.exp(frames.number(-2.0 * hop_s) / memory_s))
    return past * ops.where(time_s[:, None] > 0, fresh, frames.number(1.0))


def _log_normal(frames: Frames, site: str, median: float, sd: float) -> Any:
    return pyro.sample(site, dist.LogNormal(frames.number(math.log(median)), sd))


def _check_known(what: str, value: float | None) -> None:
    if value is not None:
        check_positive(what, value)


wind = Wind()
