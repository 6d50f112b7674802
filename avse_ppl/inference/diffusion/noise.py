"""Noise inference inside a guided diffusion, given what the denoiser knows of speech."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.adam import Adam
from avse_ppl.inference.core.initialization import warm_start
from avse_ppl.inference.core.log_density import LogDensity, Values, noise_log_prior
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.em.m_step import maximise_noise
from avse_ppl.models.protocols import HasMStep, NoiseModel
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.approximation import NoiseInference
from avse_ppl.signal.stft import Frames, Spectrogram, Stft

_LEARNING_RATE = 0.1
_BETAS = (0.5, 0.9)


class FixedSpeech:
    """Speech prior without latents: the distribution that a denoiser has just given."""

    def __init__(self, law: ComplexNormal, stft: Stft, name: str) -> None:
        self.law, self.stft, self.name = law, stft, name

    def __call__(self, frames: Frames, visual: Any = None) -> ComplexNormal:
        """Return it."""
        return self.law


class NoiseFit:
    r"""Posterior of the latents b of a noise model, speech given as :math:`N_c(m, v)`.

    .. math:: \log p(x | m, v, b) = \sum_{ft} \log N_c(x_{ft};\; m_{ft} + m^b_{ft},\;
        v_{ft} + B_{ft}(b))

    that is, of the mixture itself and not of a cleaned one: the variance of the denoiser takes the
    part in it that Tweedie's formula says it must. Models with an M-step, as NMF, maximise it by
    their own updates (a point estimate); others by Adam on the evidence lower bound of a normal
    guide, one draw a step.

    Parameters
    ----------
    noise
        The model.
    mixture
        Of all chains, one row each.
    streams
        Random numbers of each row.
    law
        First distribution of speech, of zero mean.
    tempering
        Power of the likelihood.
    init
        Initial values of latents in place of the library's own.
    """

    def __init__(
        self, noise: NoiseModel, mixture: Spectrogram, streams: RandomStreams, law: ComplexNormal,
        tempering: float = 1.0, init: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.speech, self.mixture = FixedSpeech(law, mixture.stft, "speech"), mixture
        self.noise, self.streams, self.tempering = noise, streams, tempering
        self.density = LogDensity(Scene(self.speech, noise), mixture.with_visual(None))
        location, log_sd = warm_start(self.density, streams, init)
        self.location = {name: u.detach() for name, u in location.items()}
        self.log_sd = {name: s.detach().clone() for name, s in log_sd.items()}
        self.optimiser: Adam | None = None
        if self.location and not isinstance(noise, HasMStep):
            parameters = [*self.location.values(), *self.log_sd.values()]
            for parameter in parameters:
                parameter.requires_grad_()
            self.optimiser = Adam(parameters, _BETAS)

    @property
    def inference(self) -> NoiseInference:
        """How the latents are inferred."""
        if not self.location:
            return "known"
        return "point estimate" if self.optimiser is None else "variational"

    def fit(self, law: ComplexNormal, updates: int) -> None:
        """Update so many times, given the distribution of speech ``(row, freq, time)``."""
        self.speech.law = law
        residual = replace(self.mixture.with_visual(None), values=self.mixture.values - law.mean)
        self.density.mixture = residual
        for _ in range(updates if self.location else 0):
            if self.optimiser is None:
                self.location |= maximise_noise(
                    self.density, self.location, law.power[None], self.tempering
                )
                continue

            # One step up the evidence lower bound.
            values, log_jacobian = self.density.constrain(self.draw_unconstrained())
            prior, noise = noise_log_prior(self.density, values)
            with pyro.validation_enabled(False):
                terms = ComplexNormal(noise.mean, law.power + noise.power).log_prob(residual.values)
            if self.mixture.mask is not None:
                terms = torch.where(self.mixture.mask, terms, terms.new_zeros(()))
            entropy = sum(s.flatten(1).sum(1) for s in self.log_sd.values())
            bound = self.tempering * terms.flatten(1).sum(1) + prior + log_jacobian + entropy
            self.optimiser.clear_gradients()
            (-bound.sum()).backward()
            self.optimiser.step(_LEARNING_RATE)

    def draw(self) -> tuple[Values, ComplexNormal]:
        """Latents on their supports, and the noise given them: of the guide if there is one."""
        with torch.no_grad():
            values, _ = self.density.constrain(self.draw_unconstrained())
            return values, self.density.scene.laws_given(values, self.density.mixture).noise

    def draw_unconstrained(self) -> Values:
        """Latents on the real line."""
        if self.optimiser is None:
            return self.location
        return {
            name: mean + self.log_sd[name].exp() * self.streams.normal(mean.shape, mean.dtype)
            for name, mean in self.location.items()
        }
