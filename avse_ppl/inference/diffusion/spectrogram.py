"""Reverse diffusion of spectrograms with an exact data step in each bin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.resources import free_memory
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.diffusion.chains import GibbsSweep
from avse_ppl.inference.diffusion.noise import NoiseFit
from avse_ppl.models.predictors.predictor import ERROR, Predictor, mode_of_error
from avse_ppl.models.protocols import Denoiser
from avse_ppl.models.scene import Laws, Scene
from avse_ppl.models.speech.diffusion import renoising_coefficients
from avse_ppl.models.speech.gaussian import GaussianSpeech
from avse_ppl.models.speech.score import GaussianScore
from avse_ppl.signal.stft import Frames, Spectrogram

# Numbers that a denoiser holds at once for each bin: 40 measured of the shipped one, in float32.
_HELD = 60
_SHARE = 0.5  # of what memory is free


def use_gaussian_score(scene: Scene, frames: Frames) -> Scene:
    """Scene whose Gaussian prior, if its power is known, is replaced by its denoiser."""
    speech = scene.speech
    if isinstance(speech, GaussianSpeech) and speech.gain_sd_db == 0:
        return replace(scene, speech=GaussianScore.of(speech, frames))
    return scene


def diffuse_spectrogram(
    prior: Denoiser,
    mixture: Spectrogram,
    noise: NoiseFit,
    sigmas: Sequence[float],
    state: Tensor,
    streams: RandomStreams,
    *,
    noise_updates: int,
    noise_retention: float,
    tempering: float = 1.0,
    predictor: Predictor | None = None,
) -> Iterator[GibbsSweep]:
    r"""Go down the noise levels, from :math:`y = c + \sigma_0 \epsilon`.

    At each level, with :math:`x = s + b` and :math:`b \sim N_c(m^b, B)`:

    .. math:: c | y \approx N_c(m, v), \quad s | y \approx N_c(m', v')
        \text{ (moments of the expanded } c \text{)}

    .. math:: s_0 \sim p(s | y, x) = N_c\left(m' + \tfrac{v'}{v' + B}(x - m' - m^b),\;
        \tfrac{v' B}{v' + B}\right)

    .. math:: y \leftarrow c_0 + \kappa (y - c_0) + \sqrt{\sigma'^2 - \kappa^2 \sigma^2}\,\epsilon,
        \quad c_0 = |s_0|^{1/2} e^{i \angle s_0}, \quad \kappa = \eta\, \sigma' / \sigma

    Whatever :math:`\kappa`, y has its exact law at the next level if the bins are independent and
    Gaussian given y; what is kept of the old noise, :math:`\kappa`, decides how much is lost where
    they are not. Where a level is repeated, this is a Gibbs sampler of y and s.

    With a predictor, the law of s given y takes the part of the prior in its pool, the error of
    the prediction as its law expects it.

    Parameters
    ----------
    prior
        The denoiser.
    mixture
        Of all chains, one row each, with visual features.
    noise
        The noise model, fitted on the way.
    sigmas
        Noise levels :math:`\sigma`, not rising.
    state
        y at the first of them.
    streams
        Random numbers of each row.
    noise_updates
        Of the noise at each level.
    noise_retention
        :math:`\eta` in [0, 1].
    tempering
        Power of the likelihood.
    predictor
        That of the scene, its prediction in ``mixture``.

    Raises
    ------
    ValueError
        If the denoiser returns what is not a number.

    References
    ----------
    Song, Vahdat, Mardani and Kautz, "Pseudoinverse-guided diffusion models for inverse problems",
    ICLR 2023. Zhu et al., "Denoising diffusion models for plug-and-play image restoration", CVPR
    Workshops 2023. Zhang et al., "Improving diffusion inverse problem solving with decoupled noise
    annealing", CVPR 2025.
    """
    compression = prior.compression
    belief = None if predictor is None else predictor.weigh(mixture.frames)
    for step, sigma in enumerate(sigmas):
        mean, variance = denoise_rows(prior, mixture, state, sigma)
        check_finite(mean, variance, step, sigmas)
        speech = compression.law(mean, variance)
        update = noise.sample if step and sigma == sigmas[-1] else noise.fit
        evidence = None
        if predictor is not None and belief is not None:
            evidence = predictor.pool(speech, belief)
        update(speech if evidence is None else evidence.plug_in, noise_updates)
        values, law = noise.draw()
        if predictor is not None and predictor.informs_latents:
            values = {**values, ERROR: mode_of_error(mixture)}
        tempered = ComplexNormal(law.mean, law.power / tempering, validate_args=False)
        laws = Laws(speech, tempered, evidence)
        posterior = condition_on_observed(laws.speech, laws.widened_noise, mixture)
        yield GibbsSweep(posterior, values, Laws(posterior, law))
        if step + 1 == len(sigmas):
            return
        unit = streams.normal(posterior.mean.shape, posterior.mean.dtype)
        clean = compression.compress(posterior.mean + posterior.power.sqrt() * unit)
        kept, fresh = renoising_coefficients(sigma, sigmas[step + 1], noise_retention)
        state = clean + kept * (state - clean)
        state = state + fresh * streams.normal(state.shape, state.dtype)


def condition_on_observed(
    speech: ComplexNormal, noise: ComplexNormal, mixture: Spectrogram
) -> ComplexNormal:
    """Law of speech given the mixture, and its own law in bins that are not observed."""
    posterior = speech.condition(noise, mixture.values)
    if mixture.observed is None:
        return posterior
    shape = mixture.values.shape
    mean = torch.where(mixture.observed, posterior.mean, speech.mean.expand(shape))
    power = torch.where(mixture.observed, posterior.power, speech.power.expand(shape))
    return ComplexNormal(mean, power, validate_args=False)


def denoise_rows(
    prior: Denoiser, mixture: Spectrogram, state: Tensor, sigma: float
) -> tuple[Tensor, Tensor]:
    """Mean and variance of all rows; as many at once as memory bears."""
    free = free_memory(state.device)
    row = _HELD * state[0].numel() * state.real.element_size()
    at_once = len(state) if free is None else max(1, int(_SHARE * free / row))
    visual: Any = mixture.frames.visual
    parts = []
    for begin in range(0, len(state), at_once):
        rows = slice(begin, begin + at_once)
        features = None if visual is None else visual[rows]
        sigmas = state.real.new_full((len(state[rows]),), sigma)
        parts.append(prior.denoise(state[rows], sigmas, features))
    means, variances = zip(*parts, strict=True)
    return torch.cat(means), torch.cat(variances)


def check_finite(mean: Tensor, variance: Tensor, step: int, sigmas: Sequence[float]) -> None:
    """Raise ValueError unless a denoiser's answer is numbers."""
    numbers = torch.isfinite(torch.view_as_real(mean)).all() & torch.isfinite(variance).all()
    if bool(numbers):
        return
    raise ValueError(
        f"the denoiser returned NaN or infinity at step {step + 1} of {len(sigmas)} (noise level "
        f"{sigmas[step]:.3g}); expected finite numbers. Take a lower sigma_start, or other weights"
    )
