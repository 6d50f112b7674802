"""Which model of noise, or of the trust in lips, explains a recording, by how much, and where."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avse_ppl.evaluation.comparison import Comparison, stacking_weights
from avse_ppl.evaluation.loo import FEWEST_DRAWS, Loo, check_kind, loo
from avse_ppl.inference.core.setup import check_seeds, prepare
from avse_ppl.inference.core.video import check_audio_visual, condition_on_video
from avse_ppl.models.scene import NoiseModel, Scene, SpeechPrior, VisualReliability
from avse_ppl.models.validation import check_count, name_of
from avse_ppl.pipeline.catalog import (
    resolve_inference,
    resolve_noise,
    resolve_reliability,
    resolve_speech,
)
from avse_ppl.pipeline.video_input import VideoOptions, prepare_lips
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.audio import Audio, AudioLike, as_audio, check_audio, convert_rate
from avse_ppl.signal.stft import Spectrogram, Stft

if TYPE_CHECKING:
    from avse_ppl.video import Lips

NoiseModels = Sequence[str | NoiseModel] | Mapping[str, str | NoiseModel]
Belief = str | VisualReliability | None
Beliefs = Belief | Sequence[str | VisualReliability] | Mapping[str, str | VisualReliability]

_PIECE_S = 10.0  # recordings over 15 s are compared in pieces of about this length
_LONG_S = 15.0
# Of SVI, all of them: short of convergence, the model that is fitted faster wins. Where every bin
# has a latent, the bound is so noisy that a stop by its rise comes too early.
_STEPS = 400
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
    device: str = "cpu",
    draws: int = 200,
    sample_rate_hz: int | None = None,
    viewing: VideoOptions | None = None,
    reliability: Beliefs = None,
) -> Comparison:
    """Compare noise models on one recording, everything else being the same.

    With video, models of reliability too: how far the lips are to be believed.

    Each is inverted together with the speech prior, and judged by how well it predicts each
    time-frequency bin from all others that share no samples with it (PSIS-LOO).

    Parameters
    ----------
    noisy
        As in `enhance`; one channel. Over 15 s it is cut into pieces of about 10 s, inverted one
        by one, whose densities add up.
    noise
        Two models or more: names, ``"module:function"``, or functions of frames; or a mapping of
        names of your own to any of these.
    video, speech, inference, seed, device, sample_rate_hz, viewing
        As in `enhance`. A routine by name gets ``draws`` draws, and SVI 400 steps.
    draws
        Draws of the latents, at least 100: more give steadier weights.
    reliability
        As in `enhance`; or several, as for ``noise``, of which one model is then enough. Of several
        of both, all pairs are compared.

    Returns
    -------
    Comparison
        The best model first.

    Raises
    ------
    ValueError
        If there are fewer than two models or two of one name, a name is unknown, the routine makes
        point estimates, the draws are too few, or the recording has several channels. If the prior
        would ignore the video, or several models of reliability have none to judge.

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
    [seed] = check_seeds([seed])
    check_count("draws", draws, minimum=FEWEST_DRAWS)
    routine = _routine(inference, draws, device)
    prior = resolve_speech(speech, sees=video is not None)
    check_audio_visual(prior, video)
    beliefs = _beliefs(reliability)
    models = named_models(noise, least=1 if len(beliefs) > 1 else 2)
    _check_seen(beliefs, video)
    stft = Scene(prior, next(iter(models.values()))).stft
    audio = _mono(noisy, sample_rate_hz, stft)
    lips = prepare_lips(video, audio, viewing or VideoOptions())
    _check_seen(beliefs, lips)
    scenes = _scenes(prior, models, beliefs, sees=lips is not None)
    pieces = _pieces(audio, stft, lips)
    shown = {
        name: [condition_on_video(scene, *piece) for piece in pieces]
        for name, scene in scenes.items()
    }
    found = {
        name: [_judged(scene, routine, piece, seed + i, device)
               for i, piece in enumerate(shown[name])]
        for name, scene in scenes.items()
    }  # fmt: skip
    attrs = {"seed": seed, "draws": draws, "pieces": len(pieces), "video": lips is not None}
    return _comparison(found, [piece for piece, _ in pieces], attrs)


@dataclass(frozen=True)
class _Judged:
    """One model on one piece."""

    loo: Loo
    elbo: float | None
    kind: str
    warnings: tuple[str, ...]


def named_models(noise: NoiseModels, least: int = 2) -> dict[str, NoiseModel]:
    """Models by name, each name once.

    Raises
    ------
    ValueError
        If there are fewer than ``least`` (1 or 2), a name is unknown, or stands twice.

    Examples
    --------
    >>> sorted(named_models(["nmf", "stationary"]))
    ['nmf', 'stationary']
    """
    named = _named("noise model", noise, "noise={'nmf 2': NMF(2), 'nmf 4': NMF(4)}")
    if len(named) < least:
        raise ValueError(
            f"expected two noise models or more to compare, found {len(named)}: "
            f"{', '.join(named) or 'none'}; give for instance noise=['stationary', 'nmf']"
        )
    return {name: resolve_noise(model) for name, model in named.items()}


def _named(what: str, given: Any, example: str) -> dict[str, Any]:
    """Models by the names they have, or are given; a single one may stand by itself."""
    if isinstance(given, Mapping):
        return dict(given)
    models = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    names = [model if isinstance(model, str) else name_of(model) for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{what} {twice[0]!r} stands twice; name each once, or give a mapping of names of your "
            f"own: {example}"
        )
    return dict(zip(names, models, strict=True))


def _beliefs(reliability: Beliefs) -> dict[str, Any]:
    """Models of reliability by name."""
    named = _named("model of reliability", reliability, "reliability={'slow': Markov(0.99), ...}")
    return {name: resolve_reliability(model) for name, model in named.items()}


def _check_seen(beliefs: Mapping[str, Any], video: Any) -> None:
    """Raise if there is nothing to be believed more or less."""
    if len(beliefs) > 1 and video is None:
        raise ValueError(
            f"models of reliability are to be compared ({', '.join(beliefs)}), but there is no "
            "video that they could be about; give a video, or at most one of them"
        )


def _scenes(
    prior: Any, models: Mapping[str, NoiseModel], beliefs: Mapping[str, Any], sees: bool
) -> dict[str, Scene]:
    """Each noise model with each model of reliability, named after what there are several of."""
    several = len(models) > 1, len(beliefs) > 1
    return {
        ", ".join(compress((name, how), several)): Scene(prior, model, belief if sees else None)
        for name, model in models.items()
        for how, belief in beliefs.items()
    }


def _routine(inference: Any, draws: int, device: str) -> Any:
    if inference in ("em", "em-langevin"):
        raise ValueError(
            f"inference {inference!r} makes a point estimate of the noise: leaving a bin out needs "
            "draws of all latents; use 'svi', 'exact' or a sampler"
        )
    of_svi = {"steps": _STEPS, "tolerance": 0.0, "moment_draws": 1}
    settings: dict[str, Any] = of_svi if inference == "svi" else {}
    return resolve_inference(inference, draws=draws, device=device, waveforms=False, **settings)


def _mono(noisy: AudioLike, sample_rate_hz: int | None, stft: Stft) -> Audio:
    audio = convert_rate(as_audio(noisy, sample_rate_hz), stft.sample_rate_hz)
    if audio.n_channels > 1:
        raise ValueError(
            f"expected one channel to compare models on, found {audio.n_channels}; pass one of "
            "audio.channels()"
        )
    return check_audio(audio, min_samples=stft.n_fft)


def _pieces(audio: Audio, stft: Stft, lips: Lips | None) -> list[tuple[Spectrogram, Lips | None]]:
    """Spectrograms and lips of about 10 s each, or of the whole if it is under 15 s."""
    count = 1 if audio.duration_s <= _LONG_S else math.ceil(audio.duration_s / _PIECE_S)
    parts = np.array_split(audio.channels()[0].samples, count)
    begins_s = np.cumsum([0, *map(len, parts)]) / audio.sample_rate_hz
    return [
        (stft.analyse(part), lips if lips is None or not begin_s else lips.shifted(-begin_s))
        for part, begin_s in zip(parts, begins_s.tolist(), strict=False)
        if part.any()
    ]


def _judged(scene: Scene, routine: Any, piece: Spectrogram, seed: int, device: str) -> _Judged:
    posterior = routine(scene, piece, seed=seed)
    check_kind(posterior)
    scene, mixture, _ = prepare(scene, piece, None, seed, device, piece.scale.dtype)
    elbo = posterior.trace.get("elbo")
    bound = None if elbo is None else float(np.mean(elbo[-_LAST:, 0]))
    result = loo(scene, mixture, posterior, seed=seed)
    return _Judged(result, bound, posterior.kind, posterior.warnings)


def _comparison(
    found: Mapping[str, Sequence[_Judged]], pieces: Sequence[Spectrogram], attrs: dict[str, Any]
) -> Comparison:
    def joined(name: str, what: str) -> np.ndarray:
        return np.concatenate([getattr(one.loo, what) for one in found[name]], axis=-1)

    elpd = {name: joined(name, "elpd") for name in found}
    order = sorted(found, key=lambda name: -elpd[name].sum())
    stacked = np.stack([elpd[name] for name in order])
    bounds = [[one.elbo for one in found[name]] for name in order]
    first = found[order[0]][0]
    return Comparison(
        models=tuple(order),
        elpd=stacked,
        k_hat=np.stack([joined(name, "k_hat") for name in order]),
        p_loo=tuple(sum(one.loo.p_loo for one in found[name]) for name in order),
        good_k=min(one.loo.good_k for some in found.values() for one in some),
        weights=tuple(stacking_weights(stacked.reshape(len(order), -1)).tolist()),
        elbo=tuple(None if None in row else float(np.sum(np.array(row))) for row in bounds),
        power=np.concatenate([piece.power[0].numpy() for piece in pieces], axis=-1),
        stft=pieces[0].stft,
        kind=first.kind,
        warnings=tuple(_warnings(order, found)),
        attrs=attrs,
    )


def _warnings(order: Sequence[str], found: Mapping[str, Sequence[_Judged]]) -> list[str]:
    texts = []
    for name in order:
        share = float(np.mean([one.loo.bad_share for one in found[name]]))
        if share > _BAD_SHARE:
            texts.append(
                f"{name}: Pareto k-hat above {found[name][0].loo.good_k:.2f} in {share:.1%} of the "
                "bins, so that its elpd is not to be relied on; use more draws"
            )
        said = [text for one in found[name] for text in one.warnings]
        texts += [f"{name}: {text}" for text in dict.fromkeys(said)]
    return texts
