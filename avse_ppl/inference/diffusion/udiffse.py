"""The published guided diffusion, as the setting that others are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.build_posterior import kind_of
from avse_ppl.inference.core.resources import explain_out_of_memory, limit_threads
from avse_ppl.inference.core.setup import Mixture, RandomStreams, Seed, check_seed, prepare
from avse_ppl.inference.core.video import gate_once
from avse_ppl.inference.diffusion.chains import (
    build_from_sweeps,
    repeat_for_chains,
    streams_of_chains,
)
from avse_ppl.inference.diffusion.noise import NoiseFit
from avse_ppl.inference.diffusion.spectrogram import GibbsSweep, check_finite, denoised
from avse_ppl.models.scene import Scene
from avse_ppl.models.speech.diffusion import Ouve, Sde, denoises
from avse_ppl.models.speech.gaussian import GaussianSpeech
from avse_ppl.models.speech.score import GaussianScore
from avse_ppl.models.validation import check_count, check_front_end, check_positive, name_of
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram

_POINT = 1e-8  # variance of speech that is taken as known


@dataclass(frozen=True)
class UDiffSE:
    r"""Posterior sampling and expectation-maximisation in turns, as in UDiffSE.

    Everything happens in the compressed domain, as if speech and noise added up there. A round
    runs the diffusion backwards, a predictor and a corrector each step, and every other step

    .. math:: s \leftarrow s + \lambda\, g_t^2 \Delta t\, \frac{1}{d_t}
        \frac{x - s / d_t}{sig_t^2 / d_t^2 + B}

    Then the noise is fitted to :math:`|x - \hat s|^2`. The first round has no guidance. The mean of
    the chains is the result, their spread its variance: neither is that of the posterior. The
    likelihood is tempered by :math:`\lambda`, its variance at time t is one of a prior without
    structure, and what the denoiser is unsure of is taken for noise.

    Parameters
    ----------
    rounds, steps, chains
        Rounds of EM, steps of each, and runs at once.
    guidance
        :math:`\lambda`.
    every
        Guidance once in so many steps.
    corrector
        Signal-to-noise ratio of the corrector's Langevin step; 0 leaves it out.
    t_last
        Where in (0, 1) a run ends.
    sde
        The diffusion.
    updates
        Of the noise after each round.
    device, dtype, progress
        As for `SVI`.

    Raises
    ------
    ValueError
        If a setting is out of range; when called, if the speech prior is no score prior, or the
        denoiser returns what is not a number.

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
    >>> UDiffSE(rounds=2, steps=4)(scene, wave, seed=0).kind
    'UDiffSE, spread of chains, tempered 1.5'
    """

    rounds: int = 5
    steps: int = 30
    chains: int = 2
    guidance: float = 1.5
    every: int = 2
    corrector: float = 0.5
    t_last: float = 0.03
    sde: Sde = field(default_factory=Ouve)
    updates: int = 20
    waveforms: bool = True
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        for what in ("rounds", "steps", "chains", "every", "updates"):
            check_count(what, getattr(self, what))
        check_positive("guidance", self.guidance)
        if not self.corrector >= 0.0:
            raise ValueError(f"corrector must be at least 0, found {self.corrector!r}")
        if not 0.0 < self.t_last < 1.0:
            raise ValueError(f"t_last must be within (0, 1), found {self.t_last!r}")

    def draws_all_latents(self, scene: Scene) -> bool:
        """Return False: the noise is a point estimate."""
        return False

    def __call__(
        self,
        scene: Scene,
        mixture: Mixture,
        video: Any = None,
        *,
        seed: Seed = 0,
    ) -> Posterior:
        """Invert a scene; see `SVI` for the arguments."""
        scene, spectrogram, randoms = prepare(scene, mixture, video, seed, self.device, self.dtype)
        if isinstance(scene.speech, GaussianSpeech) and scene.speech.gain_sd_db == 0:
            scene = replace(scene, speech=GaussianScore.of(scene.speech, spectrogram.frames))
        if not denoises(scene.speech):
            raise ValueError(
                f"UDiffSE wants a score prior, as load_speech('score'); {name_of(scene.speech)!r} "
                "is none. GuidedDiffusion also diffuses latents"
            )
        with limit_threads(spectrogram), explain_out_of_memory(spectrogram):
            return self._invert(scene, spectrogram, randoms, check_seed(seed))

    def _invert(
        self, scene: Scene, spectrogram: Spectrogram, randoms: RandomStreams, seed: int | list[int]
    ) -> Posterior:
        begin = time.perf_counter()
        check_front_end(scene, spectrogram)
        prior: Any = scene.speech
        rows = repeat_for_chains(gate_once(scene, spectrogram)[1], self.chains)
        rows = replace(rows, values=prior.compression.compress(rows.values))
        own = streams_of_chains(randoms, self.chains)
        law = ComplexNormal(0.0, rows.power.clamp_min(_POINT))
        noise = NoiseFit(scene.noise, rows, own, law)
        clean = rows.values
        for index in range(self.rounds):
            clean = self._run(prior, rows, noise, own, guided=index > 0, first=index)
            known = torch.full_like(clean.real, _POINT)
            noise.fit(ComplexNormal(clean, known), self.updates)
        values, _ = noise.draw()
        point = ComplexNormal(prior.compression.expand(clean), torch.full_like(clean.real, _POINT))
        attrs = {
            "routine": "guided-udiffse", "seed": seed, "steps": self.steps, "rounds": self.rounds,
            "tempering": self.guidance, "inference_s": round(time.perf_counter() - begin, 3),
        }  # fmt: skip
        return build_from_sweeps(
            scene, spectrogram, [GibbsSweep(point, values)], randoms, self.chains,
            kind=kind_of("UDiffSE, spread of chains", self.guidance), attrs=attrs,
            waveforms=int(self.waveforms),
        )  # fmt: skip

    def _run(
        self, prior: Any, rows: Spectrogram, noise: NoiseFit, own: RandomStreams, *, guided: bool,
        first: int,
    ) -> Tensor:  # fmt: skip
        """One reverse run, from the mixture under noise; the denoised end of it."""
        sde, stride = self.sde, (1.0 - self.t_last) / self.steps
        power = noise.draw()[1].power
        state = sde.scale(1.0) * rows.values
        state = state + sde.spread(1.0) * own.normal(state.shape, state.dtype)
        clean = state
        for step in range(self.steps):
            t = 1.0 - step * stride
            score, clean = self._score(prior, rows, state, t, step)
            squared = sde.diffusion(t) ** 2 * stride
            unit = own.normal(state.shape, state.dtype)
            state = state + stride * sde.decay(t) * state + squared * score + squared**0.5 * unit
            if guided and step % self.every == 0:
                state = state + self.guidance * squared * _pull(rows.values, state, sde, t, power)
            if self.corrector:
                score, clean = self._score(prior, rows, state, t, step)
                size = 2.0 * (self.corrector * sde.spread(t)) ** 2
                unit = own.normal(state.shape, state.dtype)
                state = state + size * score + (2.0 * size) ** 0.5 * unit
            if self.progress is not None:
                self.progress(first * self.steps + step + 1, self.rounds * self.steps)
        return clean

    def _score(
        self, prior: Any, rows: Spectrogram, state: Tensor, t: float, step: int
    ) -> tuple[Tensor, Tensor]:
        """Score of the state, and what it is denoised to."""
        scale, spread = self.sde.scale(t), self.sde.spread(t)
        mean, variance = denoised(prior, rows, state / scale, spread / scale)
        check_finite(mean, variance, step, [spread / scale] * self.steps)
        return (scale * mean - state) / spread**2, mean


def _pull(mixture: Tensor, state: Tensor, sde: Sde, t: float, power: Tensor) -> Tensor:
    """Gradient of the likelihood in the state, the clean values taken as ``state / scale``."""
    scale, spread = sde.scale(t), sde.spread(t)
    return (mixture - state / scale) / scale / ((spread / scale) ** 2 + power)
