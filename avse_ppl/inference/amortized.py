"""Amortized posterior: the law that a network states of speech in a mixture, in one pass."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.base import Draws, InferenceMethod, Problem
from avse_ppl.inference.core.setup import Mixture, Seed
from avse_ppl.models.predictors.checks import GuardedEnhancer
from avse_ppl.models.predictors.network import AV_PREDICTOR, NetworkPredictor, load_predictor
from avse_ppl.models.predictors.predictor import (
    Predictor,
    describe_failure,
    shares_visual_encoder,
)
from avse_ppl.models.protocols import name_of
from avse_ppl.models.scene import Scene
from avse_ppl.models.weights.io import is_shipped
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.fit_info import FitInfo
from avse_ppl.signal.stft import Frames
from avse_ppl.utils.run_time import TimeLimitReached

load_once = cache(load_predictor)


@dataclass(frozen=True)
class Amortized(InferenceMethod):
    r"""One pass of a network that maps a mixture to a complex Gaussian law of speech.

    .. math:: s_{ft} \mid x \sim N_c\left(\hat s_{ft}(x),\; e_{ft}(x)\right)

    independent over bins, with both functions learned from pairs of speech and mixtures, or of
    those and lips. Nothing is fitted to the recording: speech prior and noise model are not used
    (only the STFT and the visual encoder of the scene are), there are no latents, and what the law
    covers is what it covered on the data that the network was trained with. ``posterior.attrs`` has
    ``"unused"`` for the names of speech and noise.

    Lips count as far as they are reliable, as they do for a predictor in the scene; where they are
    not, the answer is that of the same network without.

    Parameters
    ----------
    predictor
        The network. None: that of the scene's predictor if it has one of this kind, else the
        weights that are shipped: of a network that sees the lips where there are some and the
        speech prior has its visual encoder, otherwise of one that hears. It hears the whole
        recording, whether it could stream or not.
    draws, waveforms, device, dtype, progress, time_limit_s
        Common to all methods; see `avse_ppl.inference.base.InferenceMethod`. The network runs on
        the CPU, waveforms are drawn on the device.
    tempering
        Not to be set: there is no likelihood.

    Raises
    ------
    ValueError
        If a setting is out of range or, when called, the scene has another hop or sampling rate
        than the network.
    FileNotFoundError
        When called, if no network is given and none is shipped.

    References
    ----------
    Cranmer, Brehmer and Louppe, "The frontier of simulation-based inference", PNAS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import GaussianSpeech, Scene, Stft, stationary
    >>> from avse_ppl.models.networks.tcn import TcnNetwork
    >>> network = TcnNetwork(freq=257, widths=(4, 8), inner=12, repeats=1, dilations=2)
    >>> method = Amortized(NetworkPredictor(network, Stft(512, 256)), draws=3)
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> posterior = method(Scene(GaussianSpeech(), stationary), wave)
    >>> posterior.kind, posterior.speech.shape
    ('amortized, one pass of a network', (1, 3, 1, 4000))
    """

    predictor: NetworkPredictor | None = None
    _: KW_ONLY

    name: ClassVar[str] = "amortized"
    uses_encoder: ClassVar[bool] = False
    takes_predictor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tempering != 1.0:
            raise ValueError(
                f"tempering must be 1 for 'amortized', which has no likelihood; got "
                f"{self.tempering:g}"
            )

    def draws_all_latents(self, scene: Scene) -> bool:
        """No latents are inferred."""
        return False

    def pose(self, scene: Scene, mixture: Mixture, video: Any, seed: Seed) -> Problem:
        """Check the arguments of a call, without a run of the scene's predictor or encoder."""
        device, dtype = self.device, self.dtype
        problem = Problem.of(scene, mixture, video, seed=seed, device=device, dtype=dtype)
        heard = problem.spectrogram
        frames = replace(heard.frames, predicted=None, encoded=None)  # of other methods
        return replace(problem, spectrogram=replace(heard, frames=frames))

    def _run(self, problem: Problem) -> Draws:
        predictor = self.choose_predictor(problem)
        sees = can_see(problem, predictor)
        unused, rows, fit = describe_unused(problem, predictor), [], []
        for r in range(problem.recordings):
            one = problem.spectrogram.select(r).to(torch.device("cpu"), torch.float32)
            visual = one.frames.visual if sees else None
            shown = predictor if visual is None else show_lips(predictor, visual[0])
            mean, log_error = shown.predict_on(one)
            failure = describe_failure(one, mean)
            failed = (
                () if failure is None else (f"the network failed on this recording: {failure}",)
            )
            fit.append(FitInfo(warnings=(*unused, *failed)))
            rows.append(fit_time(mean, log_error, problem.spectrogram.frames.time))
            try:
                problem.clock(r + 1, problem.recordings)
            except TimeLimitReached:
                if r + 1 < problem.recordings:
                    raise
        mixture = problem.spectrogram
        mean = torch.cat([row[0] for row in rows]).to(mixture.values)
        power = torch.cat([row[1] for row in rows]).to(mixture.scale).exp()
        law = ComplexNormal(mean, power, validate_args=False)
        # Nothing of the scene is evaluated: its latents would be draws from their priors.
        bare = replace(problem, scene=Scene(unused_model, unused_model))
        return Draws(
            [{}] * self.draws,
            Approximation("amortized, one pass of a network"),
            laws=[law] * self.draws,
            moments=(mean, power),
            moment_draws=1,
            fit=fit,
            attrs={"predictor": predictor.name},
            problem=bare,
        )

    def choose_predictor(self, problem: Problem) -> NetworkPredictor:
        """The network that is run: this method's own, the scene's, or one that is shipped."""
        found = self.predictor or find_network(problem.scene)
        if found is None and problem.spectrogram.frames.visual is not None:
            seeing = load_once(AV_PREDICTOR) if is_shipped(AV_PREDICTOR) else None
            found = seeing if seeing is not None and can_see(problem, seeing) else None
        return replace(found or load_once(), causal=False)


@dataclass(frozen=True)
class SeeingPredictor(NetworkPredictor):
    """Network beside the lips of one recording.

    Parameters
    ----------
    seen
        Reliability and features of the lips, ``(1 + feature, time)``.
    """

    seen: Tensor | None = None

    def predict_law(self, wave: Tensor, visual: Tensor | None = None) -> ComplexNormal:
        """Law of speech on the network's own grid, given the mixture and the lips."""
        shown = self.seen if visual is None else visual
        return super().predict_law(wave, self.take_visual(shown, len(wave)))


def show_lips(predictor: NetworkPredictor, visual: Tensor) -> SeeingPredictor:
    """The same network beside lips, ``(1 + feature, time)``."""
    return SeeingPredictor(**vars(predictor), seen=visual.to("cpu", torch.float32))


def can_see(problem: Problem, predictor: NetworkPredictor) -> bool:
    """Whether a network takes the visual features that the mixtures come with."""
    alone = replace(problem.scene, predictor=Predictor(replace(predictor, causal=False)))
    return problem.spectrogram.frames.visual is not None and shares_visual_encoder(alone)


def find_network(scene: Scene) -> NetworkPredictor | None:
    """The network of a scene's predictor, if it is one that states its law."""
    found: Any = None if scene.predictor is None else scene.predictor.enhance
    if isinstance(found, GuardedEnhancer):
        found = found.enhance
    return found if isinstance(found, NetworkPredictor) else None


def unused_model(frames: Frames, visual: Any = None) -> ComplexNormal:
    """Stand for a speech prior or a noise model that nothing is inferred with."""
    return ComplexNormal(0.0, torch.ones(frames.freq, 1, device=frames.device, dtype=frames.dtype))


unused_model.__name__ = "unused"  # as ``posterior.attrs`` names the models


def describe_unused(problem: Problem, predictor: NetworkPredictor) -> tuple[str, ...]:
    """Warnings about what was given and changes nothing."""
    found, given, own = [], problem.scene.predictor, find_network(problem.scene)
    if problem.spectrogram.frames.visual is not None and not can_see(problem, predictor):
        prior = name_of(problem.scene.speech)
        why = (
            f"the speech prior {prior!r} has another visual encoder than its network"
            if predictor.uses_lips
            else f"the network {predictor.name!r} only hears"
        )
        found.append(f"the video was not used: {why}")
    if given is not None and (own is None or own.network is not predictor.network):
        found.append(
            f"the predictor {given.name!r} was not used: 'amortized' takes the law of the network "
            f"{predictor.name!r}"
        )
    return tuple(found)


def fit_time(mean: Tensor, log_error: Tensor, time: int) -> tuple[Tensor, Tensor]:
    """Mean and log error ``(1, freq, time)`` with as many frames as the longest of a batch.

    Beyond the end of a recording there is nothing to hear; the error stays what it was.
    """
    more = time - mean.shape[-1]
    if more == 0:
        return mean, log_error
    last = log_error[..., -1:].expand(*log_error.shape[:-1], more)
    return torch.nn.functional.pad(mean, (0, more)), torch.cat((log_error, last), -1)
