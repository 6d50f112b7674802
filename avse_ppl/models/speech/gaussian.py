"""Gaussian reference prior, whose exact posterior is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pyroapi import distributions as dist
from pyroapi import ops, pyro
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.signal.stft import Frames, Stft


@dataclass(frozen=True)
class GaussianSpeech:
    r"""Gaussian speech of known spectrum and unknown gain in each frame.

    .. math:: s_{ft} \sim N_c(0, S_f\, 10^{\sigma z_t / 10}), \quad z_t \sim N(0, 1)

    With ``gain_sd_db=0`` there is no latent and the posterior is one Wiener filter; otherwise it
    is a one-dimensional integral per frame. ``Exact`` computes both, and every other method is
    measured against it.

    Parameters
    ----------
    spectrum
        ``S_f``, ``(freq,)``; by default the long-term average of speech, 0 dB up to 500 Hz and
        -9 dB per octave above, with unit mean.
    gain_sd_db
        :math:`\sigma`, standard deviation of the frame gain, dB.
    stft
        Front end.

    Raises
    ------
    ValueError
        If the spectrum is not positive or of the wrong shape, or the deviation negative.

    Examples
    --------
    >>> GaussianSpeech()(Frames(freq=513, time=4)).power.shape
    torch.Size([513, 4])
    """

    spectrum: Tensor | None = None
    gain_sd_db: float = 10.0
    stft: Stft = field(default_factory=Stft)
    receptive_field: ClassVar[int] = 0  # frames to either side whose law a frame's latent changes

    def __post_init__(self) -> None:
        if not 0 <= self.gain_sd_db < math.inf:
            raise ValueError(f"gain_sd_db must be finite and at least 0, not {self.gain_sd_db}")
        if self.spectrum is None:
            return
        if self.spectrum.shape != (self.stft.freq,) or not bool((self.spectrum > 0).all()):
            raise ValueError(
                f"spectrum must be positive and of shape ({self.stft.freq},), found shape "
                f"{tuple(self.spectrum.shape)} with minimum {float(self.spectrum.min()):.3g}"
            )

    def __call__(self, frames: Frames, visual: Tensor | None = None) -> ComplexNormal:
        """Sample the gains; the distribution of speech."""
        if self.spectrum is not None:
            given = self.spectrum.cpu().numpy()[:, None]
            spectrum: Any = ops.asarray(given, device=frames.device, dtype=frames.dtype)
        else:
            octaves = ops.log2(ops.clip(frames.freq_hz, 500.0, None) / 500.0)
            spectrum = 10 ** (-0.9 * octaves)
            spectrum = spectrum / spectrum.mean()
        if self.gain_sd_db == 0:
            return ComplexNormal(0.0, spectrum)
        with pyro.plate("time", frames.time, dim=-1):
            z = pyro.sample("speech.gain", dist.Normal(frames.number(0.0), 1.0))
        return ComplexNormal(0.0, spectrum * ops.exp(math.log(10) / 10 * self.gain_sd_db * z))
