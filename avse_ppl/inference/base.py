"""The contract of an inference method, with what all methods share.

A method is a frozen dataclass of settings. Called with a scene and a mixture, it returns a
`Posterior`. All that a new one writes is ``_run``, from a `Problem` to its `Draws`: arguments are
checked, devices chosen, random numbers seeded, threads and memory seen to, time taken, waveforms
drawn and the posterior put together here.

Examples
--------
A complete method, importance sampling from a normal law fitted to the prior:

>>> import numpy as np
>>> from avse_ppl import GaussianSpeech, Scene, stationary
>>> from avse_ppl.inference.core.log_density import LogDensity
>>> from avse_ppl.inference.core.psis import psis
>>> @dataclass(frozen=True)
... class ImportanceSampling(InferenceMethod):
...     proposals: int = 100
...     name: ClassVar[str] = "importance"
...
...     def _run(self, problem: Problem) -> Draws:
...         density = LogDensity(problem.scene, problem.spectrogram)
...         proposals, log_ratios = [], []
...         for _ in range(self.proposals):
...             unit = {s.name: problem.streams.normal(s.shape, self.dtype) for s in density.sites}
...             u = {s.name: s.start + s.spread * unit[s.name] for s in density.sites}
...             log_q = sum(-0.5 * x.square().flatten(1).sum(1) for x in unit.values())
...             proposals.append(u)
...             log_ratios.append(density(u, self.tempering) - log_q)
...         log_weights, k_hat = psis(torch.stack(log_ratios, dim=1).numpy())
...         picked = [
...             torch.multinomial(row.exp(), self.draws, replacement=True, generator=generator)
...             for row, generator in zip(torch.from_numpy(log_weights), problem.streams.generators)
...         ]
...         values = []
...         for draw in torch.stack(picked, dim=1).tolist():  # a proposal for each recording
...             u = {
...                 name: torch.stack([proposals[i][name][r] for r, i in enumerate(draw)])
...                 for name in proposals[0]
...             }
...             values.append(density.constrain(u)[0])
...         fit = [FitInfo(k_hat=float(k)) for k in k_hat]
...         return Draws(values, Approximation("importance sampling"), fit=fit)
>>> waves = np.random.default_rng(0).normal(size=(2, 4000)).astype("float32")
>>> method = ImportanceSampling(draws=6, tempering=0.25)
>>> posterior = method(Scene(GaussianSpeech(), stationary), waves, seed=0)
>>> posterior.kind, posterior.speech.shape
('importance sampling, tempered 0.25', (1, 6, 2, 4000))
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.build_posterior import build_posterior
from avse_ppl.inference.core.initialization import condition_on_encoder
from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.core.resources import explain_out_of_memory, limit_threads
from avse_ppl.inference.core.setup import (
    Mixture,
    RandomStreams,
    Seed,
    analyse_mixture,
    check_seed,
    resolve_device,
)
from avse_ppl.inference.core.video import condition_on_video
from avse_ppl.models.handlers import serialise
from avse_ppl.models.predictors.predictor import Predictor, condition_on_predictor
from avse_ppl.models.scene import Scene
from avse_ppl.models.validation import check_count, check_positive
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.combine import stack_recordings
from avse_ppl.posterior.fit_info import FitInfo, merge_rows, seed_of_recording
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.observed_bins import describe_band
from avse_ppl.signal.stft import Spectrogram
from avse_ppl.utils.run_time import RunClock, TimeLimitReached

_UNUSED = (
    "the prediction was not used: it does not agree with the mixture, is silent, leaves the noise "
    "in, or is the mixture itself, so that it cannot be told from a failure; the posterior is that "
    "without a predictor"
)
Progress = Callable[[int, int], None]  # called with (step, steps)


@dataclass(frozen=True)
class Problem:
    """A scene and what was observed of it, checked and on one device, with random numbers.

    Parameters
    ----------
    scene
        Speech prior and noise model, on the device.
    spectrogram
        The mixture of each recording, conditioned on its video if there is one.
    streams
        A stream of random numbers for each recording.
    seed
        Of the streams: one number, or one for each recording.
    clock
        Called with (step, steps) after each step; raises `TimeLimitReached` when the time is over.
    asked
        Predictor that was asked. The scene has none where its answer is not used.
    doubts
        Why the answer about a recording is not used, by its number; warned of.
    """

    scene: Scene
    spectrogram: Spectrogram
    streams: RandomStreams
    seed: int | list[int]
    clock: RunClock = field(default_factory=RunClock)
    asked: Predictor | None = None
    doubts: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        scene: Scene,
        mixture: Mixture,
        video: Any = None,
        *,
        seed: Seed = 0,
        device: str = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> Problem:
        """Check the arguments of an inference method, move them to a device, and seed.

        Raises
        ------
        ValueError
            If the seed is not a whole number, or not one for each recording, the device is unknown
            or absent, video is given to an audio-only prior, or the waveforms are not usable.
        """
        seeds = check_seed(seed)
        target = resolve_device(device)
        spectrogram = analyse_mixture(scene, mixture)
        if video is not None:
            spectrogram = condition_on_video(scene, spectrogram, video)
        spectrogram = spectrogram.to(target, dtype)
        if not isinstance(seeds, int) and len(seeds) != spectrogram.recordings:
            raise ValueError(
                f"{len(seeds)} seeds for {spectrogram.recordings} recordings; give one whole "
                "number, or as many as there are recordings"
            )
        streams = RandomStreams(seeds, spectrogram.recordings, target)
        return cls(scene.to(target, dtype), spectrogram, streams, seeds)

    @property
    def recordings(self) -> int:
        """Number of recordings."""
        return self.spectrogram.recordings

    def select(self, recording: int) -> Problem:
        """The problem of one recording; drawing from its stream moves the batch's on."""
        streams = copy(self.streams)
        streams.generators = [self.streams.generators[recording]]
        seed = seed_of_recording(self.seed, recording)
        one = self.spectrogram.select(recording)
        doubts = {0: self.doubts[recording]} if recording in self.doubts else {}
        return Problem(self.scene, one, streams, seed or 0, self.clock, self.asked, doubts)

    @contextmanager
    def resources(self) -> Iterator[None]:
        """Use as many threads as the mixture can feed; explain a lack of memory."""
        with limit_threads(self.spectrogram), explain_out_of_memory(self.spectrogram):
            yield


@dataclass(frozen=True)
class Draws:
    """Result of a method, from which `build_posterior` makes the posterior over speech.

    Parameters
    ----------
    values
        Values of all latents on their supports, one mapping a draw, ``(recording, ...)`` each; the
        draws of the first chain first.
    kind
        What the method approximates; its tempering is the method's unless it is set.
    chains
        How many chains of equal length the draws are from.
    laws
        Posterior distribution of speech in each draw, where it is not the scene's own.
    moments
        Mean and variance of speech, ``(recording, freq, time)``, where they are known better than
        from the draws.
    moment_draws
        How many draws of each chain mean and variance are averaged over, by default all.
    waveforms
        Waveforms of each chain; by default as many as the method's settings say.
    trace
        Logged at each step, ``(step, recording)`` each.
    stats
        Of each draw, ``(chain, draw, recording)`` each, under arviz's names.
    fit
        Facts about each recording; seeds are filled in.
    attrs
        Further entries of ``posterior.attrs``: cost, and settings that the run has changed.
    ended_early
        What a run that was interrupted, or came to its time limit, got to; flagged in
        ``posterior.kind``, ``attrs["interrupted"]`` and the warnings of each recording.
    problem
        The problem as it was solved, where the method changed it.
    check
        Called when everything else has been drawn, for facts whose computation needs random numbers
        of its own, so that checking does not change what is checked.
    """

    values: Sequence[Values]
    kind: Approximation
    chains: int = 1
    laws: Sequence[ComplexNormal] | None = None
    moments: tuple[Tensor, Tensor] | None = None
    moment_draws: int | None = None
    waveforms: int | None = None
    trace: dict[str, np.ndarray] = field(default_factory=dict)
    stats: dict[str, np.ndarray] = field(default_factory=dict)
    fit: Sequence[FitInfo] = ()
    attrs: dict[str, Any] = field(default_factory=dict)
    ended_early: str | None = None
    problem: Problem | None = None
    check: Callable[[], Sequence[FitInfo]] | None = None


@dataclass(frozen=True, kw_only=True)
class InferenceMethod(ABC):
    """Takes a scene and a mixture, and returns the posterior over speech.

    Parameters
    ----------
    draws
        Draws in the posterior.
    waveforms
        True for a waveform with each draw, False for none, or how many in all: needed for
        intervals, left out for speed.
    tempering
        Power of the likelihood; anything but 1 is flagged in ``posterior.kind``.
    device, dtype
        ``"cpu"``, ``"cuda"`` or ``"auto"``, and ``torch.float32`` or ``float64``.
    progress
        Called with (step, steps) after each step.
    time_limit_s
        Seconds after which the method ends with what there is, which ``posterior.kind`` and
        ``posterior.warnings`` then say; None for no limit. It is looked at after each step, so that
        a run takes the rest of a step longer, and drawing waveforms comes on top.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    draws: int = 50
    waveforms: bool | int = True
    tempering: float = 1.0
    device: str = "auto"
    dtype: torch.dtype = torch.float32
    progress: Progress | None = None
    time_limit_s: float | None = None

    name: ClassVar[str]
    uses_encoder: ClassVar[bool] = True  # whether speech priors may measure by their encoders
    takes_predictor: ClassVar[bool] = True  # whether a predictor may be evidence about speech
    faster: ClassVar[str] = ""  # what is, said where a run takes long

    def __post_init__(self) -> None:
        check_count("draws", self.draws)
        if not isinstance(self.waveforms, bool):
            check_count("waveforms", self.waveforms)
        check_positive("tempering", self.tempering)
        if self.time_limit_s is not None:
            check_positive("time_limit_s", self.time_limit_s)

    @property
    def full_name(self) -> str:
        """Name of the method and its variant, as ``posterior.attrs["routine"]`` keeps it."""
        return self.name

    def draws_all_latents(self, scene: Scene) -> bool:
        """Whether the posterior of a scene holds draws of all latents, none a point estimate."""
        return True

    @property
    def n_waveforms(self) -> int:
        """Number of waveforms asked for."""
        return self.draws * self.waveforms if isinstance(self.waveforms, bool) else self.waveforms

    @serialise
    def __call__(
        self,
        scene: Scene,
        mixture: Mixture,
        video: Any = None,
        *,
        seed: Seed = 0,
    ) -> Posterior:
        """Infer the posterior over the speech in a mixture.

        Parameters
        ----------
        scene
            Speech prior and noise model.
        mixture
            Waveform(s) at the prior's rate, an ``Audio``, a path, bytes, or a ``Spectrogram``.
        video
            Only with audio-visual priors; see `condition_on_video`.
        seed
            Of everything random: a whole number, or one for each recording.

        Returns
        -------
        Posterior
            Its ``warnings`` are about this run. Whether the models describe the recording, without
            which its bands are far too narrow, is told by ``diagnose(posterior, scene)``;
            `avse_ppl.enhance` and the command line ask that of each recording, as far as it is
            cheap.

        Raises
        ------
        ValueError
            If the arguments do not fit each other, or the posterior is improper.
        MemoryError
            If the memory is not likely to be enough, or was spent.
        TimeoutError
            If there is nothing usable yet when the time limit is reached.
        """
        return self.infer(self.pose(scene, mixture, video, seed))

    def pose(self, scene: Scene, mixture: Mixture, video: Any, seed: Seed) -> Problem:
        """Check the arguments of a call; a method that infers a part of them first adds it here."""
        device, dtype = self.device, self.dtype
        problem = Problem.of(scene, mixture, video, seed=seed, device=device, dtype=dtype)
        predicted, doubts = condition_on_predictor(problem.scene, problem.spectrogram), {}
        if predicted is not problem.spectrogram:  # answers that come with it were checked before
            from avse_ppl.inference.prediction_check import leave_out_useless  # which infers, too

            predicted, doubts = leave_out_useless(problem.scene, predicted)
        problem = replace(
            problem, spectrogram=predicted, asked=problem.scene.predictor, doubts=doubts
        )
        if predicted.frames.predicted is not None and not bool(
            predicted.frames.predicted[:, 3].any()
        ):
            # None counts: the same random numbers as without a predictor, and the same posterior.
            problem = replace(problem, scene=replace(problem.scene, predictor=None))
        if not self.uses_encoder:
            return problem
        return replace(
            problem, spectrogram=condition_on_encoder(problem.scene, problem.spectrogram)
        )

    @serialise
    def infer(self, problem: Problem) -> Posterior:
        """Posterior of a problem that is checked, seeded and on its device."""
        with problem.resources():
            begin = time.perf_counter()
            clock = RunClock(self.time_limit_s, self.progress, self.full_name, self.faster)
            problem = replace(problem, clock=clock)
            try:
                result = self._run(problem)
            except TimeLimitReached as error:
                raise TimeoutError(
                    f"{error}, and {self.full_name} has nothing usable yet; give it more time, or "
                    f"take what is faster{': ' + self.faster if self.faster else ''}"
                ) from None
            attrs = {
                "routine": self.full_name,
                "seed": problem.seed,
                "inference_s": round(time.perf_counter() - begin, 3),
            }
            if isinstance(result, Draws):
                return self._build(problem, result, attrs)
            posteriors = [
                self._build(problem.select(r), draws, attrs) for r, draws in enumerate(result)
            ]
            return stack_recordings(posteriors)

    @abstractmethod
    def _run(self, problem: Problem) -> Draws | Sequence[Draws]:
        """Draw from the posterior of all recordings, or of one after the other."""

    def _build(self, problem: Problem, draws: Draws, attrs: dict[str, Any]) -> Posterior:
        kind, waveforms, fit = draws.kind, draws.waveforms, draws.fit
        if kind.tempering == 1.0:
            kind = kind.with_fields(tempering=self.tempering)
        if problem.spectrogram.frames.encoded is not None:
            kind = kind.with_fields(amortised=True)
        predicted = problem.spectrogram.frames.predicted
        if predicted is not None:
            kind = kind.with_fields(pooled=problem.scene.predictor is not None)
            unused = (predicted[:, 3].flatten(1).amax(1) == 0).tolist()
            texts = [problem.doubts.get(r, _UNUSED if one else "") for r, one in enumerate(unused)]
            rows = [FitInfo(warnings=(text,) if text else ()) for text in texts]
            fit = merge_rows(rows, fit)
        if waveforms is None:
            waveforms = -(-self.n_waveforms // draws.chains)
        seeds = [
            FitInfo(seed_of_recording(problem.seed, r), describe_band(problem.spectrogram, r))
            for r in range(problem.recordings)
        ]
        attrs = {**attrs, "tempering": kind.tempering, **draws.attrs}
        if draws.ended_early is not None:
            kind = kind.with_fields(ended_early=True)
            attrs["interrupted"] = True
            fit = merge_rows([FitInfo(warnings=(draws.ended_early,))] * problem.recordings, fit)
        draws = replace(
            draws, kind=kind, waveforms=waveforms, attrs=attrs, fit=merge_rows(seeds, fit)
        )
        posterior = build_posterior(draws.problem or problem, draws)
        if draws.check is not None:
            posterior = replace(posterior, fit=merge_rows(posterior.fit, draws.check()))
        return posterior
