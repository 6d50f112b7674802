"""Stationary noise and non-negative matrix factorisation (NMF).

Writing another takes a dozen lines: sample what you do not know, on ``plate("freq", frames.freq,
dim=-2)`` and ``plate("time", frames.time, dim=-1)`` where it varies, and return a
``ComplexNormal``. The mixture has unit mean power, so a power of 1 is as loud as the recording.
All models of this folder are called in the same way, and can be added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pyroapi import distributions as dist
from pyroapi import pyro
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.noise.sum import NoiseModelBase, noise_floor, residual_spectrum
from avse_ppl.signal.stft import Frames

_TINY = 1e-8


@dataclass(frozen=True)
class Stationary(NoiseModelBase):
    r"""Stationary noise of unknown spectrum; `stationary` is one, ready for use.

    .. math:: b_{ft} \sim N_c(0, v_f), \quad \log v_f \sim N(-2, 2^2)

    Site ``noise.power``: ``(freq, 1)``.

    Parameters
    ----------
    site
        What the name of the latent begins with.

    Examples
    --------
    >>> stationary(Frames(freq=5, time=7)).power.shape
    torch.Size([5, 1])
    """

    site: str = "noise"
    name: ClassVar[str] = "stationary"

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample the spectrum; the distribution of the noise, ``(freq, 1)``."""
        with pyro.plate("freq", frames.freq, dim=-2):
            power = pyro.sample(f"{self.site}.power", dist.LogNormal(frames.number(-2.0), 2.0))
        return ComplexNormal(0.0, power)

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Initial spectrum: what is left over beside speech."""
        return {f"{self.site}.power": residual_spectrum(power, speech_power)}

    def initial_below(self, power: Tensor) -> dict[str, Tensor]:
        """Initial spectrum as a part of a sum: the noise floor."""
        return {f"{self.site}.power": noise_floor(power)}


stationary = Stationary()


@dataclass(frozen=True)
class NMF(NoiseModelBase):
    r"""Non-negative matrix factorisation of the noise power: spectra times activations.

    .. math:: b_{ft} \sim N_c(0, (W H)_{ft}), \quad W_{fk} \sim \mathrm{Exp}(1), \quad
        H_{kt} \sim \mathrm{Exp}(K)

    Sites ``noise.spectra`` (W), ``(freq, component)``, and ``noise.activations`` (H),
    ``(component, time)``. The components may be permuted and W, H rescaled against each other:
    only their product is identified.

    Parameters
    ----------
    rank
        Number of components K; many explain speech, too (4 was best on the development set, with
        speech that its encoder measures; 2 without).
    site
        What the names of the latents begin with.

    Raises
    ------
    ValueError
        If ``rank`` is not a positive whole number.

    References
    ----------
    Févotte, Bertin and Durrieu, "Nonnegative matrix factorization with the Itakura-Saito
    divergence", Neural Computation 2009.

    Examples
    --------
    >>> NMF(rank=2)(Frames(freq=5, time=7)).power.shape
    torch.Size([5, 7])
    """

    rank: int = 4
    site: str = "noise"

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank must be a positive whole number, not {self.rank!r}")

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample W and H; the distribution of the noise, ``(freq, time)``."""
        one, rate = frames.number(1.0), frames.number(float(self.rank))
        with (
            pyro.plate("freq", frames.freq, dim=-2),
            pyro.plate("component", self.rank, dim=-1),
        ):
            spectra = pyro.sample(self._w, dist.Exponential(one))
        with (
            pyro.plate("component", self.rank, dim=-2),
            pyro.plate("time", frames.time, dim=-1),
        ):
            activations = pyro.sample(self._h, dist.Exponential(rate))
        return ComplexNormal(0.0, spectra @ activations + _TINY)

    def maximise(
        self,
        values: Mapping[str, Tensor],
        power: Tensor,
        speech_power: Tensor,
        tempering: float = 1.0,
    ) -> dict[str, Tensor]:
        r"""One monotone step up the log posterior of W and H, speech power given.

        Multiplicative updates with exponent 1/2 (majorise-minimise), averaged over draws of the
        speech power; the exponential priors add their rates to the denominators.

        .. math:: H \leftarrow H \left(\frac{W^T (V / \hat V^2)}{W^T \hat V^{-1} + \lambda}
            \right)^{1/2}, \quad \hat V = S + W H

        Parameters
        ----------
        values
            Current ``noise.spectra`` and ``noise.activations``, ``(recording, ...)``.
        power
            ``|x|^2``, ``(recording, freq, time)``; zero weight where masked.
        speech_power
            ``(draw, recording, freq, time)``.
        tempering
            Power of the likelihood.

        Returns
        -------
        dict
            The new values.
        """
        w, h = values[self._w], values[self._h]
        ratio, inverse = _ratios(w @ h, power, speech_power)
        h = (h * (w.mT @ ratio / (w.mT @ inverse + self.rank / tempering)).sqrt()).clamp_min(_TINY)
        ratio, inverse = _ratios(w @ h, power, speech_power)
        w = (w * (ratio @ h.mT / (inverse @ h.mT + 1.0 / tempering)).sqrt()).clamp_min(_TINY)
        return {self._w: w, self._h: h}

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Random factors, scaled to the noise floor."""
        recordings, freq, time = power.shape
        options = {"generator": generator, "device": power.device, "dtype": power.dtype}
        w = 0.5 + torch.rand(recordings, freq, self.rank, **options)
        h = 0.5 + torch.rand(recordings, self.rank, time, **options)
        # A geometric mean over time ignores bursts of speech: each bin starts at its floor.
        return {self._w: w * noise_floor(power), self._h: h / self.rank}

    @property
    def _w(self) -> str:
        return f"{self.site}.spectra"

    @property
    def _h(self) -> str:
        return f"{self.site}.activations"


def _ratios(noise: Tensor, power: Tensor, speech_power: Tensor) -> tuple[Tensor, Tensor]:
    """``V / Vhat^2`` and ``1 / Vhat``, averaged over draws of the speech power."""
    inverse = 1.0 / (speech_power + (noise + _TINY))
    return (power * inverse.square()).mean(0), inverse.mean(0)
