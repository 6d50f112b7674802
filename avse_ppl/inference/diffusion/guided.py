"""Guided diffusion: posterior sampling by the reverse diffusion of the speech prior."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.base import Draws, InferenceMethod, Problem
from avse_ppl.inference.core.convergence import ESS_PER_CHAIN
from avse_ppl.inference.core.setup import Mixture, Seed
from avse_ppl.inference.core.video import gate_once
from avse_ppl.inference.diffusion.chains import (
    GibbsSweep,
    collect_sweeps,
    repeat_for_chains,
    split_streams,
)
from avse_ppl.inference.diffusion.latent import LatentDiffusion
from avse_ppl.inference.diffusion.noise import NoiseFit
from avse_ppl.inference.diffusion.spectrogram import diffuse_spectrogram, use_gaussian_score
from avse_ppl.inference.diffusion.warm_start import (
    SILENCE,
    check_visual_encoder,
    compute_warm_start,
    find_switch,
    infer_gate,
    load_base_prior,
)
from avse_ppl.inference.vi.svi import SVI
from avse_ppl.models.protocols import (
    Denoiser,
    HasEncoder,
    HasMStep,
    LatentDenoisingNetwork,
    network_of,
)
from avse_ppl.models.scene import Scene
from avse_ppl.models.speech.diffusion import noise_levels
from avse_ppl.models.speech.score import GaussianScore
from avse_ppl.models.validation import check_count, check_front_end, check_positive
from avse_ppl.models.visual.reliability import soft
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.utils.run_time import TimeLimitReached


class NoiseSchedule(NamedTuple):
    """Noise levels of a run and what is retained between them; see `GuidedDiffusion`."""

    steps: int
    sweeps: int
    sigma_start: float
    sigma_last: float
    noise_retention: float = 1.0

    @property
    def sigmas(self) -> list[float]:
        """Noise level of each step, and of each sweep after the last one."""
        down = noise_levels(self.sigma_start, self.sigma_last, self.steps)
        return down + [down[-1]] * (self.sweeps - 1)


class ReverseRun(NamedTuple):
    """A reverse diffusion that is ready to run: what it approximates, its levels, its sweeps."""

    kind: Approximation
    schedule: NoiseSchedule
    sweeps: Iterator[GibbsSweep]


def name_method(diffused: str, schedule: NoiseSchedule, predicts: bool = False) -> str:
    """What a run approximates, in words: no step of it is accepted or refused, and it is short.

    Examples
    --------
    >>> name_method("latents", NoiseSchedule(steps=2, sweeps=10, sigma_start=0.5, sigma_last=0.3))
    'guided diffusion of latents in short unadjusted chains'
    """
    length = "short unadjusted" if schedule.sweeps < ESS_PER_CHAIN else "unadjusted"
    error = ", error of the predictor as its law" if predicts else ""
    return f"guided diffusion of {diffused} in {length} chains{error}"


@dataclass(frozen=True)
class GuidedDiffusion(InferenceMethod):
    r"""Draws from the posterior by running the prior's diffusion backwards.

    Two kinds of speech prior run under it, with any noise model:

    - score priors (``score``), which denoise the spectrogram: the mixture enters each step by the
      exact posterior of a bin, see `avse_ppl.inference.diffusion.spectrogram`;
    - priors with normal latents that are independent of each other (``gaussian``, ``vae``,
      ``rvae``, ``tcvae``, ``av-cvae``) by their closed-form scores, and ``latent-diffusion`` by
      its denoiser: see `avse_ppl.inference.diffusion.latent`.

    What it approximates: that clean bins (or latents), given noisy ones, are independent and
    normal, with the mean and variance of the denoiser, and that the run starts and ends at finite
    noise. The noise model is fitted on the way, see `avse_ppl.inference.diffusion.noise`. After the
    last level has been reached it is repeated: a Gibbs sampler, whose sweeps are the draws and
    over whose conditional posteriors mean and variance are taken. The error of a predictor is that
    of its law: ``predictor.error`` stays at 0, the mode of its prior, in all draws.

    Parameters
    ----------
    steps
        Noise levels on the way down, each with one call of the denoiser. By default 16; of bins
        from a warm start 4, of latents that an encoder guesses 2.
    sweeps
        Gibbs sweeps at the last level, the first of them its first visit. By default, of bins 4, or
        8 from a warm start; of latents that an encoder guesses 10; of a Gaussian prior 24.
    chains
        Runs from different noise, all at once.
    sigma_start, sigma_last
        First and last noise level. By default, of bins the prior's highest, or 0.2 from a warm
        start, and 0.1 (2 of a Gaussian prior); of latents that an encoder guesses 0.5 and 0.3, of
        others 3 and 3. Bins are compressed amplitudes of a mixture of unit
        power; latents have about unit variance.
    noise_retention
        :math:`\eta` in [0, 1]: how much of the noise of one level is kept at the next. By default,
        of bins all, of latents none.
    base_prior
        Another speech prior, or its name: where bins are diffused, a warm start from its posterior
        by a few steps of `SVI`, or of this method if it is a diffusion itself, with its noise: so
        near to it that the result leans on it, which `kind` says. An audio-visual one needs the
        same visual encoder. Latents start at the guess of their own encoder.
    base_prior_av
        The same where there is video; of a latent diffusion, too, which then starts at the guess of
        this prior's encoder, of the same latents. Under the reliability ``switching`` the gate is
        the posterior probability of the switch under this prior, by a few steps of `SVI`.
    noise_updates
        Of the noise at each level: of an M-step, of a guide by Adam on the way down, or of the
        Metropolis-adjusted moves that draw its latents at the last level.
    langevin_steps, langevin_step_size
        Langevin moves at each level, and their size h, where latents are diffused; see
        `avse_ppl.inference.diffusion.latent.LatentDiffusion`.
    draws, waveforms, tempering, device, dtype, progress
        Common to all methods; see `avse_ppl.inference.base.InferenceMethod`. Draws are spread over
        the chains.

    Raises
    ------
    ValueError
        If a setting is out of range; when called, if the speech prior cannot be diffused, or a
        denoiser or a gradient returns what is not a number.

    References
    ----------
    Song et al., ICLR 2021 (reverse diffusions). Song, Vahdat, Mardani and Kautz, "Pseudoinverse-
    guided diffusion models for inverse problems", ICLR 2023. Zhang et al., "Improving diffusion
    inverse problem solving with decoupled noise annealing", CVPR 2025. Nortier, Sadeghi and
    Serizel, "Unsupervised speech enhancement with diffusion-based generative models", ICASSP 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> method = GuidedDiffusion(steps=5, sweeps=2, draws=4)
    >>> posterior = method(Scene(GaussianSpeech(), stationary), wave, seed=0)
    >>> posterior.speech.shape, posterior.kind
    ((2, 2, 1, 4000), 'guided diffusion of latents in short unadjusted chains, noise sampled')
    """

    steps: int | None = None
    sweeps: int | None = None
    chains: int = 2
    sigma_start: float | None = None
    sigma_last: float | None = None
    noise_retention: float | None = None
    base_prior: Any = None
    base_prior_av: Any = None
    noise_updates: int = 5
    langevin_steps: int = 2
    langevin_step_size: float = 0.7

    name: ClassVar[str] = "guided"
    uses_encoder: ClassVar[bool] = False
    faster: ClassVar[str] = "fewer steps, sweeps or chains, a base_prior to start from, or a GPU"

    def __post_init__(self) -> None:
        super().__post_init__()
        for what in ("steps", "sweeps", "chains", "langevin_steps"):
            if getattr(self, what) is not None:
                check_count(what, getattr(self, what))
        check_count("noise_updates", self.noise_updates, minimum=0)
        for what in ("langevin_step_size", "sigma_start", "sigma_last"):
            if getattr(self, what) is not None:
                check_positive(what, getattr(self, what))
        last = self.sigma_last or 0.0
        if self.sigma_start is not None and not self.sigma_start >= last:
            raise ValueError(
                f"sigma_start must be at least sigma_last={last:g}, found {self.sigma_start!r}"
            )
        if self.noise_retention is not None and not 0.0 <= self.noise_retention <= 1.0:
            raise ValueError(
                f"noise_retention must be within [0, 1], found {self.noise_retention!r}"
            )

    def draws_all_latents(self, scene: Scene) -> bool:
        """Whether the prior has latents, and neither noise nor predictor one that is estimated."""
        if scene.predictor is not None:
            return False
        return not isinstance(scene.speech, Denoiser) and not isinstance(scene.noise, HasMStep)

    def pose(self, scene: Scene, mixture: Mixture, video: Any, seed: Seed) -> Problem:
        """Problem whose visual gate, under a switch, is inferred with the base prior."""
        switch = None if video is None else find_switch(scene, self.base_prior_av)
        if switch is None:
            return super().pose(scene, mixture, video, seed)
        problem = super().pose(replace(scene, reliability=soft), mixture, video, seed)
        if problem.spectrogram.frames.visual is None:
            return problem
        speech = load_base_prior(self.base_prior_av)
        switching = Scene(speech, problem.scene.noise, switch, problem.scene.predictor)
        with problem.resources():
            gated = infer_gate(
                switching, problem.spectrogram, self.make_base_method(speech), problem.seed
            )
        return replace(problem, spectrogram=gated)

    def _run(self, problem: Problem) -> Draws:
        """Draws from the sweeps at the last noise level; Ctrl-C keeps those that there are."""
        check_front_end(problem.scene, problem.spectrogram)
        scene = use_gaussian_score(problem.scene, problem.spectrogram.frames)
        problem = replace(problem, scene=scene)
        scene, mixture = gate_once(scene, problem.spectrogram)
        gated = replace(problem, scene=scene, spectrogram=mixture)
        diffuses_bins = isinstance(scene.speech, Denoiser)
        run = self.prepare_bins(gated) if diffuses_bins else self.prepare_latents(gated)

        # Go down the noise levels; sweeps at the last one count.
        schedule, kept = run.schedule, []
        attrs: dict[str, Any] = {"steps": schedule.steps, "sweeps": schedule.sweeps}
        ended_early = None
        try:
            for step, sweep in enumerate(run.sweeps):
                if step >= schedule.steps - 1:
                    kept.append(sweep)
                problem.clock(step + 1, schedule.steps + schedule.sweeps - 1)
        except (KeyboardInterrupt, TimeLimitReached) as error:
            if not kept:
                raise
            ended_early = (
                f"{str(error) or 'interrupted'} after {len(kept)} of {schedule.sweeps} sweeps; the "
                "result is of those"
            )
            if isinstance(error, KeyboardInterrupt):
                warnings.warn(ended_early, UserWarning, stacklevel=4)
        return collect_sweeps(
            problem, kept, self.chains, run.kind, attrs=attrs, ended_early=ended_early
        )

    def prepare_bins(self, problem: Problem) -> ReverseRun:
        """Reverse diffusion of the spectrogram, from noise or from a warm start."""
        scene, mixture = problem.scene, problem.spectrogram
        prior: Any = scene.speech
        rows = repeat_for_chains(mixture, self.chains)
        streams = split_streams(problem.streams, self.chains)
        has_video = mixture.frames.visual is not None
        base_prior = (self.base_prior_av if has_video else None) or self.base_prior
        if base_prior is None:
            exact = isinstance(
                prior, GaussianScore
            )  # at each level, and at a high one mixes soonest
            sweeps, last = (24, 2.0) if exact else (4, 0.1)
            schedule = self.schedule(NoiseSchedule(16, sweeps, prior.sigma_max, last))
            origin, init = "", None
            clean = rows.values.new_zeros(rows.values.shape)
            law = ComplexNormal(0.0, rows.power.clamp_min(SILENCE))
        else:
            schedule = self.schedule(NoiseSchedule(4, 8, 0.2, 0.1))
            speech = load_base_prior(base_prior)
            method = self.make_base_method(speech)
            start = compute_warm_start(speech, method, scene, mixture, problem.seed)
            origin = f" from {start.name}"
            clean = prior.compression.compress(start.mean.repeat(self.chains, 1, 1))
            law = ComplexNormal(0.0, start.power.repeat(self.chains, 1, 1))
            init = {name: v.repeat(self.chains, 1, 1) for name, v in start.noise.items()}
        noise = NoiseFit(scene.noise, rows, streams, law, self.tempering, init)
        sigmas = schedule.sigmas
        state = clean + sigmas[0] * streams.normal(clean.shape, clean.dtype)
        sweeps = diffuse_spectrogram(
            prior, rows, noise, sigmas, state, streams, noise_updates=self.noise_updates,
            noise_retention=schedule.noise_retention, tempering=self.tempering,
            predictor=scene.predictor,
        )  # fmt: skip
        name = name_method(f"bins{origin}", schedule, scene.predictor is not None)
        kind = Approximation(name, noise=noise.inference)
        return ReverseRun(kind, schedule, sweeps)

    def prepare_latents(self, problem: Problem) -> ReverseRun:
        """Reverse diffusion of the latents, from the guess of an encoder or the prior's median."""
        scene, mixture = problem.scene, problem.spectrogram
        rows = repeat_for_chains(mixture, self.chains)
        streams = split_streams(problem.streams, self.chains)
        if isinstance(scene.speech, HasEncoder):  # from its guess it is not far
            default = NoiseSchedule(2, 10, 0.5, 0.3, noise_retention=0.0)
        else:  # a score in closed form has no error, and at a high level chains mix soonest
            default = NoiseSchedule(16, 24, 3.0, 3.0, noise_retention=0.0)
        schedule = self.schedule(default)
        has_video = mixture.frames.visual is not None
        base_prior = load_base_prior(self.base_prior_av) if has_video else None
        if base_prior is not None:
            check_visual_encoder(base_prior, scene)
        diffusion = LatentDiffusion(
            scene, rows, streams, self.tempering, self.langevin_step_size, base_prior
        )
        sweeps = diffusion.run(
            schedule.sigmas, self.langevin_steps, self.noise_updates, schedule.noise_retention
        )
        name = name_method("latents", schedule, scene.predictor is not None)
        kind = Approximation(name, noise=diffusion.noise.inference)
        return ReverseRun(kind, schedule, sweeps)

    def schedule(self, default: NoiseSchedule) -> NoiseSchedule:
        """Fill in the settings over the default of what is diffused."""
        asked = {name: getattr(self, name) for name in NoiseSchedule._fields}
        filled = default._replace(**{k: value for k, value in asked.items() if value is not None})
        return filled._replace(sigma_last=min(filled.sigma_last, filled.sigma_start))

    def make_base_method(self, speech: Any) -> InferenceMethod:
        """Inference method of a few steps for a base prior."""
        common: dict[str, Any] = {
            "tempering": self.tempering, "device": self.device, "dtype": self.dtype,
            "waveforms": False,
        }  # fmt: skip
        if isinstance(network_of(speech), LatentDenoisingNetwork):
            return GuidedDiffusion(chains=self.chains, **common)
        return SVI(steps=13, draws=10, k_hat_draws=0, **common)
