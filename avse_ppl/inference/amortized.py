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
from avse_ppl.models.predictors.network import NetworkPredictor, load_predictor
from avse_ppl.models.predictors.predictor import describe_failure
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.fit_info import FitInfo
from avse_ppl.signal.stft import Frames
from avse_ppl.utils.run_time import TimeLimitReached

load_once = cache(load_predictor)


@dataclass(frozen=True)
class Amortized(InferenceMethod):
    r"""One pass of a network that maps a mixture to a complex Gaussian law of speech.

    .. math:: s_{ft} \mid x \sim N_c\left(\hat s_{ft}(x),\; e_{ft}(x)\right)

    independent over bins, with both functions learned from pairs of speech and mixtures. Nothing is
    fitted to the recording: speech prior, noise model, and video of the scene are not used (only
    its STFT is), there are no latents, and what the law covers is what it covered on the data that
    the network was trained with. ``posterior.attrs`` has ``"unused"`` for the names of speech and
    noise.

    Parameters
    ----------
    predictor
        The network. None: that of the scene's predictor if it has one of this kind, else the
        weights that are shipped. It hears the whole recording, whether it could stream or not.
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
        predictor = self.choose_predictor(problem.scene)
        unused, rows, fit = describe_unused(problem, predictor), [], []
        for r in range(problem.recordings):
            one = problem.spectrogram.select(r).to(torch.device("cpu"), torch.float32)
            mean, log_error = predictor.predict_on(one)
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

    def choose_predictor(self, scene: Scene) -> NetworkPredictor:
        """The network that is run: this method's own, the scene's, or the one shipped."""
        return replace(self.predictor or find_network(scene) or load_once(), causal=False)


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
    if problem.spectrogram.frames.visual is not None:
        found.append("the video was not used: the network of 'amortized' only hears")
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
