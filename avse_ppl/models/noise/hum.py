"""Mains hum: lines at the multiples of one frequency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pyroapi import distributions as dist
from pyroapi import ops, pyro

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.noise.sum import NoiseModelBase
from avse_ppl.models.validation import check_count, check_positive
from avse_ppl.signal.stft import Frames

_QUIET = 1e-8  # between the lines: keeps the power above 0


@dataclass(frozen=True)
class Hum(NoiseModelBase):
    r"""Mains hum: steady lines at the multiples of 50 or 60 Hz.

    .. math:: v_f = \sum_{k=1}^K h_k\, W\!\left(\frac{f - k (f_0 + \sigma d)}{F}\right), \quad
        \log h_k \sim N(-1, 3^2), \quad d \sim N(0, 1)

    F is the distance of two bins and W the squared magnitude of the transform of the sine window,
    1 at its peak: :math:`W(\delta) = (\cos \pi \delta / (1 - 4 \delta^2))^2`. The phases of the
    lines are not known, hence their mean is 0. Between the lines there is nothing: add a floor,
    ``NMF(2) + hum(50)``. Sites ``noise.lines`` (h), ``(harmonic, 1)``; ``noise.drift`` (d), one a
    recording.

    Parameters
    ----------
    freq_hz
        :math:`f_0`, Hz: 50 or 60.
    harmonics
        K, at most; those above half the sample rate are left out.
    drift_hz
        :math:`\sigma`, how far the mains may be off, Hz.
    site
        What the names of the latents begin with.

    Raises
    ------
    ValueError
        If a number is not positive, or ``freq_hz`` lies above half the sample rate.

    References
    ----------
    Harris, "On the use of windows for harmonic analysis with the discrete Fourier transform",
    Proc. IEEE 1978 (the transforms of windows).

    Examples
    --------
    >>> Hum(freq_hz=60, harmonics=10)(Frames(freq=513, time=7)).power.shape
    torch.Size([513, 1])
    """

    freq_hz: float = 50.0
    harmonics: int = 20
    drift_hz: float = 0.1
    site: str = "noise"

    def __post_init__(self) -> None:
        check_positive("freq_hz", self.freq_hz)
        check_count("harmonics", self.harmonics)
        check_positive("drift_hz", self.drift_hz)

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample the lines and their drift; the distribution of the noise, ``(freq, 1)``."""
        rate_hz = frames.sample_rate_hz
        count = min(self.harmonics, math.ceil(0.5 * rate_hz / self.freq_hz) - 1)
        if count < 1:
            raise ValueError(
                f"hum at {self.freq_hz:g} Hz lies above half the sample rate of {rate_hz} Hz; "
                "expected the frequency of the mains, 50 or 60"
            )
        drift = pyro.sample(f"{self.site}.drift", dist.Normal(frames.number(0.0), 1.0))
        with pyro.plate("harmonic", count, dim=-2):
            lines = pyro.sample(f"{self.site}.lines", dist.LogNormal(frames.number(-1.0), 3.0))
        number = 1.0 + ops.arange(count, device=frames.device, dtype=frames.dtype)
        lines_hz = number * (self.freq_hz + self.drift_hz * drift)  # (..., 1, harmonic)
        bins = (frames.freq_hz - lines_hz) * (frames.n_fft / frames.sample_rate_hz)
        return ComplexNormal(0.0, line_shape(bins) @ lines + _QUIET)


def hum(freq_hz: float = 50.0, harmonics: int = 20, drift_hz: float = 0.1) -> Hum:
    """Mains hum at a frequency; see `Hum`.

    Raises
    ------
    TypeError
        If it is used as a noise model itself.

    Examples
    --------
    >>> hum(60).freq_hz
    60
    """
    if isinstance(freq_hz, Frames):
        raise TypeError("hum is not a noise model, hum(50) is: it wants the frequency of the mains")
    return Hum(freq_hz, harmonics, drift_hz)


def line_shape(bins: Any) -> Any:
    r"""Power spectrum of the sine window, at a distance in bins, 1 at 0.

    :math:`\cos \pi \delta / (1 - 4 \delta^2)` is the sum of two ``sinc``, which are finite
    everywhere.
    """
    return (0.25 * math.pi * (ops.sinc(bins - 0.5) + ops.sinc(bins + 0.5))) ** 2
