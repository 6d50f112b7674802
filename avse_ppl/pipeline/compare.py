"""Comparison of noise or reliability models on one recording, by leave-one-out densities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.evaluation.comparison import Comparison, compute_stacking_weights
from avse_ppl.evaluation.loo import FEWEST_DRAWS, Loo, check_kind, loo
from avse_ppl.inference.amortized import Amortized
from avse_ppl.inference.base import InferenceMethod, Problem, Progress
from avse_ppl.inference.core.setup import check_seeds
from avse_ppl.inference.core.video import check_audio_visual, condition_on_video
from avse_ppl.models.protocols import name_of
from avse_ppl.models.scene import NoiseModel, Scene, SpeechPrior, VisualReliability
from avse_ppl.models.validation import check_count, check_positive
from avse_ppl.pipeline.batching import split_channels
from avse_ppl.pipeline.catalog import (
    resolve_inference,
    resolve_noise,
    resolve_reliability,
    resolve_speech,
    set_time,
)
from avse_ppl.pipeline.inputs import VideoOptions, analyse_chunks, observe
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.audio import AudioLike, as_audio
from avse_ppl.signal.stft import Spectrogram

NoiseModels = Sequence[str | NoiseModel] | Mapping[str, str | NoiseModel]
ReliabilityModels = (
    str
    | VisualReliability
    | None
    | Sequence[str | VisualReliability]
    | Mapping[str, str | VisualReliability]
)

_LAST = 25  # steps that the ELBO is averaged over
_BAD_SHARE = 0.01  # of the bins, above which a model's figures come with a warning


def compare(
    noisy: AudioLike,
    noise: NoiseModels = ("stationary", "nmf"),
    *,
    video: Any = None,
    speech: str | Path | SpeechPrior | None = None,
    inference: str | Callable[..., Posterior] = "svi",
    seed: int = 0,
    device: str = "auto",
    draws: int = 200,
    sample_rate_hz: int | None = None,
    video_options: VideoOptions | None = None,
    reliability: ReliabilityModels = None,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare noise models on one recording by their expected log predictive density (PSIS-LOO).

    With video, models of visual reliability too. Each is inferred together with the speech prior,
    and scored by how well it predicts each time-frequency bin from all others that share no samples
    with it.

    Parameters
    ----------
    noisy
        As in `enhance`; one channel. Over 15 s it is split into chunks of about 10 s, inferred one
        by one, whose densities add up.
    noise
        Two models or more: names, ``"module:function"``, or functions of frames; or a mapping of
        names of your own to any of these.
    video, speech, inference, seed, device, sample_rate_hz, video_options
        As in `enhance`. An inference method by name gets ``draws`` draws. It has
        to draw all latents: a point estimate of the noise is refused.
    draws
        Draws of the latents, at least 100: more give steadier weights.
    reliability
        As in `enhance`; or several, as for ``noise``, of which one model is then enough. Of several
        of both, all pairs are compared.
    time_limit_s
        Seconds that the inference of each model may take, all chunks together; one that ends early
        is scored by what there is, with a warning.
    progress
        Called with (step, steps) after each step of the inference of a chunk.

    Returns
    -------
    Comparison
        The best model first.

    Raises
    ------
    ValueError
        If there are fewer than two models or two of one name, a name is unknown, the method makes
        point estimates, the draws are too few, or the recording has several channels. If the prior
        would ignore the video, or several models of reliability have none to gate.

    References
    ----------
    Vehtari, Gelman and Gabry, "Practical Bayesian model evaluation using leave-one-out
    cross-validation and WAIC", Statistics and Computing 2017. Yao, Vehtari, Simpson and Gelman,
    "Using stacking to average Bayesian predictive distributions", Bayesian Analysis 2018.

    Examples
    --------
    >>> hiss = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> models = ["stationary", "hum"]  # the second has nothing between its lines
    >>> comparison = compare(hiss, models, speech="gaussian", sample_rate_hz=16000)
    >>> comparison.best, comparison.elpd.shape
    ('stationary', (2, 513, 17))
    """
    # Check the models and the method.
    [seed] = check_seeds([seed])
    check_count("draws", draws, minimum=FEWEST_DRAWS)
    if time_limit_s is not None:
        check_positive("time_limit_s", time_limit_s)
    of_svi = {"moment_draws": 1} if inference == "svi" else {}
    method = resolve_inference(inference, draws=draws, device=device, waveforms=False, **of_svi)
    prior = resolve_speech(speech, with_video=video is not None)
    check_audio_visual(prior, video)
    gates = name_reliability_models(reliability)
    models = name_noise_models(noise, least=1 if len(gates) > 1 else 2)
    check_has_video(gates, video)
    for scene in pair_models(prior, models, gates, with_video=False).values():
        check_draws_all(method, scene)

    # Prepare the recording once, for all models.
    track = None if video_options is None else video_options.audio_track
    audio = as_audio(noisy, sample_rate_hz, track=track)
    if audio.n_channels > 1:
        raise ValueError(
            f"expected one channel to compare models on, found {audio.n_channels}; take one of "
            "them, or their average (audio.channels(), audio.mono(); 'ffmpeg -i in.wav -ac 1 "
            "out.wav' on a command line)"
        )
    stft = Scene(prior, next(iter(models.values()))).stft
    observation = observe(audio, stft, video, video_options)
    check_has_video(gates, observation.lips)
    with_video = observation.lips is not None
    scenes = pair_models(prior, models, gates, with_video)
    chunks = split_channels(observation.audio, overlap_s=0.0)
    observed = [analyse_chunks(stft, [observation], [chunk]) for chunk in chunks]
    conditioned = {
        name: [condition_on_video(scene, one.spectrogram, one.encode(scene)) for one in observed]
        for name, scene in scenes.items()
    }

    # Infer and score each model on each chunk.
    limit_s = None if time_limit_s is None else time_limit_s / len(chunks)
    method = set_time(method, limit_s, progress)
    fits = {
        name: [
            fit_model(scene, method, chunk, seed + i, device)
            for i, chunk in enumerate(conditioned[name])
        ]
        for name, scene in scenes.items()
    }
    attrs = {"seed": seed, "draws": draws, "chunks": len(chunks), "video": with_video}
    return collect_comparison(fits, [chunk.spectrogram for chunk in observed], attrs)


@dataclass(frozen=True)
class ModelFit:
    """One model on one chunk: its leave-one-out densities, ELBO, and remarks."""

    loo: Loo
    elbo: float | None
    kind: str
    warnings: tuple[str, ...]


def fit_model(
    scene: Scene, method: Any, chunk: Spectrogram, seed: int, device: str = "auto"
) -> ModelFit:
    """Infer a scene on a chunk, and compute its leave-one-out densities."""
    posterior = method(scene, chunk, seed=seed)
    check_kind(posterior)
    problem = Problem.of(scene, chunk, seed=seed, device=device, dtype=chunk.scale.dtype)
    elbo = posterior.trace.get("elbo")
    bound = None if elbo is None else float(np.mean(elbo[-_LAST:, 0]))
    return ModelFit(
        loo(problem.scene, problem.spectrogram, posterior, seed=seed),
        bound,
        posterior.kind,
        posterior.warnings,
    )


def check_draws_all(method: Any, scene: Scene) -> None:
    """Raise unless an inference method draws all latents of a scene.

    Raises
    ------
    ValueError
        If some are point estimates, or none are inferred. Functions are taken to draw all; their
        posterior says.
    """
    if isinstance(method, Amortized):
        raise ValueError(
            "'amortized' does not use the noise model: leaving a bin out needs draws of its "
            "latents; use the method 'svi', 'exact' or a sampler"
        )
    if isinstance(method, InferenceMethod) and (not method.draws_all_latents(scene)):
        raise ValueError(
            f"{type(method).__name__} makes a point estimate of the noise {name_of(scene.noise)!r}:"
            " leaving a bin out needs draws of all latents, not a point estimate; use "
            "the method 'svi', 'exact' or a sampler"
        )


def name_noise_models(noise: NoiseModels, least: int = 2) -> dict[str, NoiseModel]:
    """Noise models by name, each name once.

    Raises
    ------
    ValueError
        If there are fewer than ``least`` (1 or 2), a name is unknown, or stands twice.

    Examples
    --------
    >>> sorted(name_noise_models(["nmf", "stationary"]))
    ['nmf', 'stationary']
    """
    named = name_models("noise model", noise, "noise={'nmf 2': NMF(2), 'nmf 4': NMF(4)}")
    if len(named) < least:
        raise ValueError(
            f"expected two noise models or more to compare, found {len(named)}: "
            f"{', '.join(named) or 'none'}; give for instance 'stationary' and 'nmf'"
        )
    return {name: resolve_noise(model) for name, model in named.items()}


def name_reliability_models(reliability: ReliabilityModels) -> dict[str, Any]:
    """Reliability models by name, each name once."""
    example = "reliability={'slow': Switching(0.99), ...}"
    named = name_models("model of reliability", reliability, example)
    return {name: resolve_reliability(model) for name, model in named.items()}


def name_models(what: str, given: Any, example: str) -> dict[str, Any]:
    """Models by the names they have, or are given; a single one may stand by itself."""
    if isinstance(given, Mapping):
        return dict(given)
    models = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    names = [model if isinstance(model, str) else name_of(model) for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{what} {twice[0]!r} stands twice; name each once, or in Python give a mapping of "
            f"names of your own: {example}"
        )
    return dict(zip(names, models, strict=True))


def pair_models(
    prior: Any, models: Mapping[str, NoiseModel], gates: Mapping[str, Any], with_video: bool
) -> dict[str, Scene]:
    """Scene of each noise model with each reliability model, by what there are several of."""
    several = len(models) > 1, len(gates) > 1
    return {
        ", ".join(compress((name, how), several)): Scene(prior, model, gate if with_video else None)
        for name, model in models.items()
        for how, gate in gates.items()
    }


def check_has_video(gates: Mapping[str, Any], video: Any) -> None:
    """Raise if several reliability models are to be compared without a video to gate."""
    if len(gates) > 1 and video is None:
        raise ValueError(
            f"models of reliability are to be compared ({', '.join(gates)}), but there is no "
            "video that they could be about; give a video, or at most one of them"
        )


def collect_comparison(
    fits: Mapping[str, Sequence[ModelFit]], chunks: Sequence[Spectrogram], attrs: dict[str, Any]
) -> Comparison:
    """Comparison from the fits of each model, the best model first.

    Parameters
    ----------
    fits
        By model, one for each chunk.
    chunks
        Their spectrograms.
    attrs
        Settings to keep.
    """
    elpd, k_hat = (
        {
            name: np.concatenate([getattr(fit.loo, what) for fit in row], axis=-1)
            for name, row in fits.items()
        }
        for what in ("elpd", "k_hat")
    )
    order = sorted(fits, key=lambda name: -elpd[name].sum())
    stacked = np.stack([elpd[name] for name in order])
    bounds = [[fit.elbo for fit in fits[name]] for name in order]

    # Remarks on each model, each once.
    texts: list[str] = []
    for name in order:
        share = float(np.mean([fit.loo.bad_share for fit in fits[name]]))
        if share > _BAD_SHARE:
            texts.append(
                f"{name}: Pareto k-hat above {fits[name][0].loo.good_k:.2f} in {share:.1%} of the "
                "bins, so that its elpd is not to be relied on; use more draws"
            )
        remarks = [text for fit in fits[name] for text in fit.warnings]
        texts += [f"{name}: {text}" for text in dict.fromkeys(remarks)]

    return Comparison(
        models=tuple(order),
        elpd=stacked,
        k_hat=np.stack([k_hat[name] for name in order]),
        p_loo=tuple(sum(fit.loo.p_loo for fit in fits[name]) for name in order),
        good_k=min(fit.loo.good_k for row in fits.values() for fit in row),
        weights=tuple(compute_stacking_weights(stacked.reshape(len(order), -1)).tolist()),
        elbo=tuple(None if None in row else float(np.sum(np.array(row))) for row in bounds),
        power=np.concatenate([chunk.power[0].numpy() for chunk in chunks], axis=-1),
        stft=chunks[0].stft,
        kind=fits[order[0]][0].kind,
        warnings=tuple(texts),
        attrs=attrs,
    )
