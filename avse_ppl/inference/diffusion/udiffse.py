"""UDiffSE, the published guided diffusion, as the setting that others are compared with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.base import Draws, InferenceMethod, Problem
from avse_ppl.inference.core.setup import Mixture, Seed
from avse_ppl.inference.core.video import gate_once
from avse_ppl.inference.diffusion.chains import (
    GibbsSweep,
    collect_sweeps,
    repeat_for_chains,
    split_streams,
)
from avse_ppl.inference.diffusion.noise import NoiseFit
from avse_ppl.inference.diffusion.spectrogram import check_finite, denoise_rows, use_gaussian_score
from avse_ppl.models.protocols import Denoiser, name_of
from avse_ppl.models.scene import Scene
from avse_ppl.models.speech.diffusion import Ouve, Sde
from avse_ppl.models.validation import check_count, check_front_end, check_positive
from avse_ppl.posterior.approximation import Approximation

_POINT = 1e-8  # variance of speech that is taken as known


@dataclass(frozen=True)
class UDiffSE(InferenceMethod):
    r"""Posterior sampling and expectation-maximisation in turns, as in UDiffSE.

    Everything happens in the compressed domain, as if speech and noise added up there. The E-step
    runs the diffusion backwards, a predictor and a corrector each step, and every other step

    .. math:: s \leftarrow s + \lambda\, g_t^2 \Delta t\, \frac{1}{d_t}
        \frac{x - s / d_t}{sig_t^2 / d_t^2 + B}

    The M-step fits the noise to :math:`|x - \hat s|^2`. The first E-step has no guidance. The mean
    of the chains is the result, their variance its variance: neither is that of the posterior. The
    likelihood is tempered by :math:`\lambda`, its variance at time t is one of a prior without
    structure, and what the denoiser is unsure of is taken for noise.

    Parameters
    ----------
    em_iterations, steps, chains
        Iterations of EM, reverse steps of each E-step, and runs at once.
    guidance_weight
        :math:`\lambda`.
    guidance_interval
        Guidance once in so many steps.
    corrector_snr
        Signal-to-noise ratio of the corrector's Langevin step; 0 leaves it out.
    t_epsilon
        Time in (0, 1) at which the reverse diffusion ends.
    sde
        The diffusion.
    noise_updates
        Of the noise in each M-step.
    waveforms, device, dtype, progress
        Common to all methods; see `avse_ppl.inference.base.InferenceMethod`.

    Raises
    ------
    ValueError
        If a setting is out of range; when called, if the speech prior is no score prior, the scene
        has a predictor, or the denoiser returns what is not a number.

    References
    ----------
    Nortier, Sadeghi and Serizel, "Unsupervised speech enhancement with diffusion-based generative
    models", ICASSP 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> scene = Scene(GaussianSpeech(gain_sd_db=0), stationary)
    >>> UDiffSE(em_iterations=2, steps=4)(scene, wave, seed=0).kind
    'UDiffSE, spread of chains, tempered 1.5'
    """

    em_iterations: int = 5
    steps: int = 30
    chains: int = 2
    guidance_weight: float = 1.5
    guidance_interval: int = 2
    corrector_snr: float = 0.5
    t_epsilon: float = 0.03
    sde: Sde = field(default_factory=Ouve)
    noise_updates: int = 20

    name: ClassVar[str] = "guided-udiffse"
    uses_encoder: ClassVar[bool] = False
    takes_predictor: ClassVar[bool] = False
    faster: ClassVar[str] = "fewer steps or em_iterations, 'guided', or a GPU"
    # No settings here: each chain leaves one draw, and lambda tempers.
    draws: ClassVar[int] = 1  # type: ignore[misc]
    tempering: ClassVar[float] = 1.0  # type: ignore[misc]

    def __post_init__(self) -> None:
        super().__post_init__()
        for what in ("em_iterations", "steps", "chains", "guidance_interval", "noise_updates"):
            check_count(what, getattr(self, what))
        check_positive("guidance_weight", self.guidance_weight)
        if not self.corrector_snr >= 0.0:
            raise ValueError(f"corrector_snr must be at least 0, found {self.corrector_snr!r}")
        if not 0.0 < self.t_epsilon < 1.0:
            raise ValueError(f"t_epsilon must be within (0, 1), found {self.t_epsilon!r}")

    def draws_all_latents(self, scene: Scene) -> bool:
        """Return False: the noise is a point estimate."""
        return False

    def pose(self, scene: Scene, mixture: Mixture, video: Any, seed: Seed) -> Problem:
        """Refuse a predictor before it runs."""
        if scene.predictor is not None:
            raise ValueError(
                "UDiffSE, as published, takes no predictor; take 'svi', 'em', 'nuts' or 'guided', "
                "or leave the predictor out"
            )
        return super().pose(scene, mixture, video, seed)

    def _run(self, problem: Problem) -> Draws:
        scene = use_gaussian_score(problem.scene, problem.spectrogram.frames)
        if not isinstance(scene.speech, Denoiser):
            raise ValueError(
                f"UDiffSE wants a score prior, as load_speech('score'); {name_of(scene.speech)!r} "
                "is none. GuidedDiffusion also diffuses latents"
            )
        check_front_end(scene, problem.spectrogram)
        prior: Any = scene.speech
        rows = repeat_for_chains(gate_once(scene, problem.spectrogram)[1], self.chains)
        rows = replace(rows, values=prior.compression.compress(rows.values))
        streams = split_streams(problem.streams, self.chains)
        law = ComplexNormal(0.0, rows.power.clamp_min(_POINT))
        noise = NoiseFit(scene.noise, rows, streams, law)
        sde, dt = self.sde, (1.0 - self.t_epsilon) / self.steps

        clean = rows.values
        for iteration in range(self.em_iterations):
            # E-step: one reverse run, from the mixture under noise to its denoised end.
            power = noise.draw()[1].power
            state = sde.scale(1.0) * rows.values
            state = state + sde.marginal_sd(1.0) * streams.normal(state.shape, state.dtype)
            for step in range(self.steps):
                t = 1.0 - step * dt
                scale, sd = sde.scale(t), sde.marginal_sd(t)
                for corrects in (False, True) if self.corrector_snr else (False,):
                    clean, variance = denoise_rows(prior, rows, state / scale, sd / scale)
                    check_finite(clean, variance, step, [sd / scale] * self.steps)
                    score = (scale * clean - state) / sd**2
                    unit = streams.normal(state.shape, state.dtype)
                    if corrects:
                        size = 2.0 * (self.corrector_snr * sd) ** 2
                        state = state + size * score + (2.0 * size) ** 0.5 * unit
                        continue
                    squared = sde.diffusion(t) ** 2 * dt
                    drift = dt * sde.decay(t) * state
                    state = state + drift + squared * score + squared**0.5 * unit
                    if iteration > 0 and step % self.guidance_interval == 0:
                        # Gradient of the likelihood, the clean values taken as state / scale.
                        gap = (rows.values - state / scale) / scale
                        if rows.observed is not None:
                            gap = gap * rows.observed
                        gradient = gap / ((sd / scale) ** 2 + power)
                        state = state + self.guidance_weight * squared * gradient
                problem.clock(iteration * self.steps + step + 1, self.em_iterations * self.steps)

            # M-step: speech taken as known.
            noise.fit(ComplexNormal(clean, torch.full_like(clean.real, _POINT)), self.noise_updates)

        values, _ = noise.draw()
        point = ComplexNormal(prior.compression.expand(clean), torch.full_like(clean.real, _POINT))
        return collect_sweeps(
            replace(problem, scene=scene),
            [GibbsSweep(point, values)],
            self.chains,
            Approximation("UDiffSE, spread of chains", tempering=self.guidance_weight),
            waveforms=int(bool(self.waveforms)),
            attrs={"steps": self.steps, "em_iterations": self.em_iterations},
        )
