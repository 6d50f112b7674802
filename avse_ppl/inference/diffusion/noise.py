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
from avse_ppl.inference.core.initialization import limit_log_sd, warm_start
from avse_ppl.inference.core.log_density import LogDensity, Values, noise_log_prior
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.diffusion.mala import MetropolisLangevin
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
    their own updates (a point estimate). Others go up the evidence lower bound of a normal guide by
    Adam, one draw a step, to where the posterior is (`fit`): the guide wanders about it by more
    than its width, so that from there on the draws are those of a Markov chain (`sample`), see
    `avse_ppl.inference.diffusion.mala`.

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
        self.chain: MetropolisLangevin | None = None

    @property
    def inference(self) -> NoiseInference:
        """How the latents are inferred."""
        if not self.location:
            return "known"
        return "point estimate" if self.optimiser is None else "sampled"

    def fit(self, law: ComplexNormal, updates: int) -> None:
        """Update so many times, given the distribution of speech ``(row, freq, time)``."""
        self.set_speech(law)
        for _ in range(updates if self.location else 0):
            if self.optimiser is None:
                self.location |= maximise_noise(
                    self.density, self.location, law.power[None], self.tempering
                )
                continue

            # One step up the evidence lower bound.
            joint = self.log_density(self.draw_unconstrained())
            entropy = sum(s.flatten(1).sum(1) for s in self.log_sd.values())
            self.optimiser.clear_gradients()
            (-(joint + entropy).sum()).backward()
            self.optimiser.step(_LEARNING_RATE)
            for name, limit in limit_log_sd(self.density).items():
                self.log_sd[name].data.clamp_(max=limit)

    def sample(self, law: ComplexNormal, updates: int) -> None:
        """Draw the latents given the distribution of speech, by so many moves of a chain.

        A point estimate is updated as by `fit`.
        """
        if self.optimiser is None or not updates:
            return self.fit(law, updates)
        self.set_speech(law)
        if self.chain is None:
            scale = {name: s.detach().exp() for name, s in self.log_sd.items()}
            self.chain = MetropolisLangevin(self.location, scale, self.streams)
        return self.chain.move(self.log_density, updates)

    def set_speech(self, law: ComplexNormal) -> None:
        """Give the distribution of speech, ``(row, freq, time)``."""
        self.speech.law = law
        residual = replace(self.mixture.with_visual(None), values=self.mixture.values - law.mean)
        self.density.mixture = residual

    def log_density(self, unconstrained: Values) -> Tensor:
        """Log joint density of latents on the real line and the mixture, ``(row,)``."""
        values, log_jacobian = self.density.constrain(unconstrained)
        prior, noise = noise_log_prior(self.density, values)
        with pyro.validation_enabled(False):
            law = ComplexNormal(noise.mean, self.speech.law.power + noise.power)
            terms = law.log_prob(self.density.mixture.values)
        if self.mixture.mask is not None:
            terms = torch.where(self.mixture.mask, terms, terms.new_zeros(()))
        return self.tempering * terms.flatten(1).sum(1) + prior + log_jacobian

    def draw(self) -> tuple[Values, ComplexNormal]:
        """Latents on their supports, and the noise given them: of the chain, or the guide."""
        with torch.no_grad():
            values, _ = self.density.constrain(self.draw_unconstrained())
            return values, self.density.scene.laws_given(values, self.density.mixture).noise

    def draw_unconstrained(self) -> Values:
        """Latents on the real line."""
        if self.chain is not None:
            return self.chain.values
        if self.optimiser is None:
            return self.location
        return {
            name: mean + self.log_sd[name].exp() * self.streams.normal(mean.shape, mean.dtype)
            for name, mean in self.location.items()
        }
