"""The noise inside a guided diffusion: fitted to what the denoiser leaves of the mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.initialization import warm_start
from avse_ppl.inference.core.log_density import LogDensity, Values, noise_log_prior
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.em.m_step import maximise_noise
from avse_ppl.models.scene import NoiseModel, Scene
from avse_ppl.signal.stft import Frames, Spectrogram, Stft

_RATE = 0.1  # Adam's
_BETAS = (0.5, 0.9)


class FixedSpeech:
    """Speech prior without latents: the law that a denoiser has just given."""

    def __init__(self, law: ComplexNormal, stft: Stft, name: str) -> None:
        """Start with a first law."""
        self.law, self.stft, self.name = law, stft, name

    def __call__(self, frames: Frames, visual: Any = None) -> ComplexNormal:
        """Return it."""
        return self.law


class NoiseFit:
    r"""Latents b of a noise model, the law of speech :math:`N_c(m, v)` being given.

    .. math:: \log p(x | m, v, b) = \sum_{ft} \log N_c(x_{ft};\; m_{ft} + m^b_{ft},\;
        v_{ft} + B_{ft}(b))

    that is, of the mixture itself and not of a cleaned one: the variance of the denoiser takes the
    part in it that Tweedie's formula says it must. Models with ``maximise``, as NMF, go up it by
    their own updates (a point estimate); others by Adam on the evidence lower bound of a normal
    guide, one draw a step.

    Parameters
    ----------
    noise
        The model.
    mixture
        Of all chains, one row each.
    randoms
        One generator a row.
    law
        First law of speech, of zero mean.
    tempering
        Power of the likelihood.
    start
        Values of latents to start from in place of the library's own.
    """

    def __init__(
        self, noise: NoiseModel, mixture: Spectrogram, randoms: RandomStreams, law: ComplexNormal,
        tempering: float = 1.0, start: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        """Check the model and start its latents."""
        self.said, self.mixture = FixedSpeech(law, mixture.stft, "speech"), mixture
        self.noise, self.randoms, self.tempering = noise, randoms, tempering
        self.density = LogDensity(Scene(self.said, noise), mixture.with_visual(None))
        location, log_sd = warm_start(self.density, randoms, start)
        self.own = hasattr(noise, "maximise")
        self.location = {name: u.detach() for name, u in location.items()}
        self.log_sd = {name: s.detach().clone() for name, s in log_sd.items()}
        self.adam: torch.optim.Adam | None = None
        if self.location and not self.own:
            parameters = [*self.location.values(), *self.log_sd.values()]
            for parameter in parameters:
                parameter.requires_grad_()
            self.adam = torch.optim.Adam(parameters, _RATE, betas=_BETAS)

    @property
    def kind(self) -> str:
        """What is known of the latents afterwards."""
        if not self.location:
            return "noise known"
        return "noise a point estimate" if self.own else "noise variational"

    def fit(self, law: ComplexNormal, updates: int) -> None:
        """Go up so many times, given the law of speech ``(row, freq, time)``."""
        self.said.law = law
        residual = replace(self.mixture.with_visual(None), values=self.mixture.values - law.mean)
        self.density.mixture = residual
        for _ in range(updates if self.location else 0):
            if self.adam is not None:
                self._climb(law, self.adam)
            else:
                self.location |= maximise_noise(
                    self.density, self.location, law.power[None], self.tempering
                )

    def draw(self) -> tuple[Values, ComplexNormal]:
        """Latents on their supports, and the law of the noise: of the guide if there is one."""
        with torch.no_grad():
            values, _ = self.density.constrain(self._drawn())
            return values, self.density.scene.laws_given(values, self.density.mixture).noise

    def _drawn(self) -> Values:
        if self.adam is None:
            return self.location
        return {
            name: mean + self.log_sd[name].exp() * self.randoms.normal(mean.shape, mean.dtype)
            for name, mean in self.location.items()
        }

    def _climb(self, law: ComplexNormal, adam: torch.optim.Adam) -> None:
        values, log_jacobian = self.density.constrain(self._drawn())
        prior, noise = noise_log_prior(self.density, values)
        with pyro.validation_enabled(False):
            terms = ComplexNormal(noise.mean, law.power + noise.power).log_prob(
                self.density.mixture.values
            )
        mask = self.mixture.mask
        if mask is not None:
            terms = torch.where(mask, terms, terms.new_zeros(()))
        entropy = sum(s.flatten(1).sum(1) for s in self.log_sd.values())
        bound = self.tempering * terms.flatten(1).sum(1) + prior + log_jacobian + entropy
        adam.zero_grad()
        (-bound.sum()).backward()
        adam.step()
