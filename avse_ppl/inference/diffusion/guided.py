"""Guided diffusion: the reverse of a diffusion, bent towards the mixture."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

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
from avse_ppl.inference.diffusion.latent import LatentRun
from avse_ppl.inference.diffusion.noise import NoiseFit
from avse_ppl.inference.diffusion.spectrogram import GibbsSweep, reverse_run
from avse_ppl.inference.diffusion.warm_start import (
    check_visual_encoder,
    compute_warm_start,
    find_switch,
    infer_gate,
    load_base_prior,
)
from avse_ppl.inference.vi.svi import SVI
from avse_ppl.models.scene import Scene
from avse_ppl.models.speech.diffusion import denoises, noise_levels
from avse_ppl.models.speech.gaussian import GaussianSpeech
from avse_ppl.models.speech.score import GaussianScore
from avse_ppl.models.validation import check_count, check_front_end, check_positive
from avse_ppl.models.visual.reliability import soft
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram

_SILENCE = 1e-12  # variance of a bin that is said to be known


class _Plan(NamedTuple):
    """How a run goes down the noise levels; see `GuidedDiffusion`."""

    steps: int
    rounds: int
    sigma_start: float
    sigma_last: float
    memory: float = 1.0

    @property
    def levels(self) -> list[float]:
        """Noise level of each step and of each round after the last one."""
        down = noise_levels(self.sigma_start, self.sigma_last, self.steps)
        return down + [down[-1]] * (self.rounds - 1)


@dataclass(frozen=True)
class GuidedDiffusion:
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
    last level has been reached it is repeated: a Gibbs sampler, whose rounds are the draws and
    over whose posterior laws mean and variance are taken.

    Parameters
    ----------
    steps
        Noise levels on the way down, each with one call of the denoiser. By default 16; of bins
        from a warm start 4, of latents that an encoder guesses 2.
    rounds
        Rounds at the last level that count, the first of them its first visit. By default, of bins
        4, or 8 from a warm start; of latents 10.
    chains
        Runs from different noise, all at once.
    sigma_start, sigma_last
        First and last noise level. By default, of bins the prior's highest, or 0.2 from a warm
        start, and 0.1; of latents 0.5 and 0.3. Bins are compressed amplitudes of a mixture of unit
        power; latents have about unit variance.
    memory
        :math:`\eta` in [0, 1]: how much of the noise of one level is kept at the next. By default,
        of bins all, of latents none.
    start
        Another speech prior, or its name: where bins are diffused, the run starts from its
        posterior under a few steps of `SVI`, or of this routine if it is a diffusion itself, with
        its noise: so near to it that the result leans on it, which `kind` says. One that sees has
        to see through the same visual encoder. Latents start where their own encoder says.
    start_seeing
        The same where there is video; of a latent diffusion, too, which then starts where the
        encoder of that prior says, of the same latents. Under the reliability ``markov`` how far
        the lips count is what a few steps of `SVI` find out under this prior.
    updates
        Of the noise at each level.
    moves, move_size
        Langevin steps at each level, and their size, where latents are diffused.
    draws, waveforms
        Waveforms in the posterior, spread over the chains, and whether to draw them at all.
    tempering
        Power of the likelihood; flagged in ``posterior.kind`` unless 1.
    device, dtype, progress
        As for `SVI`.

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
    >>> routine = GuidedDiffusion(steps=5, rounds=2, draws=4)
    >>> posterior = routine(Scene(GaussianSpeech(), stationary), wave, seed=0)
    >>> posterior.speech.shape, posterior.kind
    ((2, 2, 1, 4000), 'guided diffusion of latents, noise variational')
    """

    steps: int | None = None
    rounds: int | None = None
    chains: int = 2
    sigma_start: float | None = None
    sigma_last: float | None = None
    memory: float | None = None
    start: Any = None
    start_seeing: Any = None
    updates: int = 5
    moves: int = 1
    move_size: float = 0.5
    draws: int = 50
    waveforms: bool = True
    tempering: float = 1.0
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        for what in ("steps", "rounds", "chains", "moves", "draws"):
            if getattr(self, what) is not None:
                check_count(what, getattr(self, what))
        check_count("updates", self.updates, minimum=0)
        for what in ("move_size", "tempering"):
            check_positive(what, getattr(self, what))
        for what in ("sigma_start", "sigma_last"):
            if getattr(self, what) is not None:
                check_positive(what, getattr(self, what))
        last = self.sigma_last or 0.0
        if self.sigma_start is not None and not self.sigma_start >= last:
            raise ValueError(
                f"sigma_start must be at least sigma_last={last:g}, found {self.sigma_start!r}"
            )
        if self.memory is not None and not 0.0 <= self.memory <= 1.0:
            raise ValueError(f"memory must be within [0, 1], found {self.memory!r}")

    def draws_all_latents(self, scene: Scene) -> bool:
        """Whether the prior has latents, and the noise model no M-step that estimates its own."""
        return not (denoises(scene.speech) or hasattr(scene.noise, "maximise"))

    def __call__(
        self,
        scene: Scene,
        mixture: Mixture,
        video: Any = None,
        *,
        seed: Seed = 0,
    ) -> Posterior:
        """Invert a scene; see `SVI` for the arguments."""
        switch = None if video is None else find_switch(scene, self.start_seeing)
        if switch is not None:
            scene = replace(scene, reliability=soft)
        scene, spectrogram, randoms = prepare(scene, mixture, video, seed, self.device, self.dtype)
        with limit_threads(spectrogram), explain_out_of_memory(spectrogram):
            if switch is not None and spectrogram.frames.visual is not None:
                speech = load_base_prior(self.start_seeing)
                first = Scene(speech, scene.noise, switch)
                spectrogram = infer_gate(first, spectrogram, self._first(speech), check_seed(seed))
            return self._invert(scene, spectrogram, randoms, check_seed(seed))

    def _invert(
        self, scene: Scene, spectrogram: Spectrogram, randoms: RandomStreams, seed: int | list[int]
    ) -> Posterior:
        begin = time.perf_counter()
        check_front_end(scene, spectrogram)
        if isinstance(scene.speech, GaussianSpeech) and scene.speech.gain_sd_db == 0:
            scene = replace(scene, speech=GaussianScore.of(scene.speech, spectrogram.frames))
        given, looking = gate_once(scene, spectrogram)
        rows = repeat_for_chains(looking, self.chains)
        own = streams_of_chains(randoms, self.chains)
        run = self._bins if denoises(scene.speech) else self._latents
        kind, plan, kept = run(given, rows, own, looking, seed)
        attrs = {
            "routine": "guided", "seed": seed, "steps": plan.steps, "rounds": plan.rounds,
            "tempering": self.tempering, "inference_s": round(time.perf_counter() - begin, 3),
        }  # fmt: skip
        if len(kept) < plan.rounds:
            texts = [[_cut(len(kept), plan.rounds)] for _ in range(spectrogram.recordings)]
            attrs |= {"warnings": texts, "interrupted": True}
        return build_from_sweeps(
            scene, spectrogram, kept, randoms, self.chains,
            kind=kind_of(f"guided diffusion of {kind}", self.tempering), attrs=attrs,
            waveforms=-(-self.draws // self.chains) * self.waveforms,
        )  # fmt: skip

    def _bins(
        self, scene: Scene, rows: Spectrogram, own: RandomStreams, one: Spectrogram,
        seed: int | list[int],
    ) -> tuple[str, _Plan, list[GibbsSweep]]:  # fmt: skip
        prior: Any = scene.speech
        sees = one.frames.visual is not None
        start = (self.start_seeing if sees else None) or self.start
        warm = start is not None
        plan = self._plan(_Plan(4, 8, 0.2, 0.1) if warm else _Plan(16, 4, prior.sigma_max, 0.1))
        levels, started = plan.levels, None
        if start is not None:
            speech = load_base_prior(start)
            started = compute_warm_start(speech, self._first(speech), scene, one, seed)
        clean = rows.values.new_zeros(rows.values.shape)
        law = ComplexNormal(0.0, rows.power.clamp_min(_SILENCE))
        if started is not None:
            clean = prior.compression.compress(started.mean.repeat(self.chains, 1, 1))
            law = ComplexNormal(0.0, started.power.repeat(self.chains, 1, 1))
        latents = None if started is None else started.noise
        latents = latents and {n: v.repeat(self.chains, 1, 1) for n, v in latents.items()}
        noise = NoiseFit(scene.noise, rows, own, law, self.tempering, latents)
        state = clean + levels[0] * own.normal(clean.shape, clean.dtype)
        rounds = reverse_run(
            prior, rows, noise, levels, state, own, updates=self.updates, memory=plan.memory,
            tempering=self.tempering,
        )  # fmt: skip
        whence = "" if started is None else f" from {started.name}"
        return f"bins{whence}, {noise.kind}", plan, self._kept(rounds, plan)

    def _latents(
        self, scene: Scene, rows: Spectrogram, own: RandomStreams, one: Spectrogram,
        _seed: int | list[int],
    ) -> tuple[str, _Plan, list[GibbsSweep]]:  # fmt: skip
        steps = 2 if hasattr(scene.speech, "encode") else 16  # from a guess it is not far
        plan = self._plan(_Plan(steps, 10, 0.5, 0.3, memory=0.0))
        start = None if one.frames.visual is None else load_base_prior(self.start_seeing)
        if start is not None:
            check_visual_encoder(start, scene)
        run = LatentRun(scene, rows, own, self.tempering, self.move_size, start)
        rounds = run.run(plan.levels, self.moves, self.updates, plan.memory)
        return f"latents, {run.noise.kind}", plan, self._kept(rounds, plan)

    def _kept(self, rounds: Iterator[GibbsSweep], plan: _Plan) -> list[GibbsSweep]:
        """Go through the rounds, and keep those that count; interrupted, those that there are."""
        kept: list[GibbsSweep] = []
        try:
            for step, found in enumerate(rounds):
                if step >= plan.steps - 1:
                    kept.append(found)
                if self.progress is not None:
                    self.progress(step + 1, len(plan.levels))
        except KeyboardInterrupt:
            if not kept:
                raise
            warnings.warn(_cut(len(kept), plan.rounds), UserWarning, stacklevel=5)
        return kept

    def _plan(self, usual: _Plan) -> _Plan:
        """What is usual for what is diffused, where nothing else was asked for."""
        asked = {name: getattr(self, name) for name in _Plan._fields}
        plan = usual._replace(**{name: value for name, value in asked.items() if value is not None})
        return plan._replace(sigma_last=min(plan.sigma_last, plan.sigma_start))

    def _first(self, speech: Any) -> Any:
        """Routine of a few steps for the prior that this run is to start from."""
        own: dict[str, Any] = {
            "tempering": self.tempering, "device": self.device,
            "dtype": self.dtype, "waveforms": False,
        }  # fmt: skip
        short: Any = SVI(steps=13, draws=10, k_hat_draws=0, **own)
        if hasattr(getattr(speech, "network", None), "denoise"):
            short = GuidedDiffusion(chains=self.chains, **own)
        return short


def _cut(rounds: int, planned: int) -> str:
    return f"interrupted after {rounds} of {planned} rounds; the result is of those"
