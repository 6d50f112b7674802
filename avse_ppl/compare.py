"""Which noise model explains a recording, by how much, and where."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.audio import Audio, AudioLike, as_audio, check_audio, to_rate
from avse_ppl.checks import check_count, name_of
from avse_ppl.comparison import Comparison, stacking_weights
from avse_ppl.inference.setup import check_seeds, prepare
from avse_ppl.loo import FEWEST_DRAWS, Loo, check_kind, loo
from avse_ppl.names import resolve_inference, resolve_noise, resolve_speech
from avse_ppl.posterior import Posterior
from avse_ppl.scene import NoiseModel, Scene, SpeechPrior
from avse_ppl.stft import Spectrogram, Stft

NoiseModels = Sequence[str | NoiseModel] | Mapping[str, str | NoiseModel]

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
    speech: str | Path | SpeechPrior = "tcvae",
    inference: str | Callable[..., Posterior] = "svi",
    seed: int = 0,
    device: str = "cpu",
    draws: int = 200,
    sample_rate_hz: int | None = None,
) -> Comparison:
    """Compare noise models on one recording, everything else being the same.

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
    speech, inference, seed, device, sample_rate_hz
        As in `enhance`. A routine by name gets ``draws`` draws, and SVI 400 steps.
    draws
        Draws of the latents, at least 100: more give steadier weights.

    Returns
    -------
    Comparison
        The best model first.

    Raises
    ------
    ValueError
        If there are fewer than two models or two of one name, a name is unknown, the routine makes
        point estimates, the draws are too few, or the recording has several channels.

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
    models = named_models(noise)
    [seed] = check_seeds([seed])
    check_count("draws", draws, minimum=FEWEST_DRAWS)
    routine = _routine(inference, draws, device)
    prior = resolve_speech(speech)
    scenes = {name: Scene(prior, model) for name, model in models.items()}
    stft = next(iter(scenes.values())).stft
    pieces = _pieces(_mono(noisy, sample_rate_hz, stft), stft)
    found = {
        name: [_judged(scene, routine, piece, seed + i, device) for i, piece in enumerate(pieces)]
        for name, scene in scenes.items()
    }
    return _comparison(found, pieces, {"seed": seed, "draws": draws, "pieces": len(pieces)})


@dataclass(frozen=True)
class _Judged:
    """One model on one piece."""

    loo: Loo
    elbo: float | None
    kind: str
    warnings: tuple[str, ...]


def named_models(noise: NoiseModels) -> dict[str, NoiseModel]:
    """Models by name, each name once and two at least.

    Raises
    ------
    ValueError
        If there are fewer than two, a name is unknown, or stands twice.

    Examples
    --------
    >>> sorted(named_models(["nmf", "stationary"]))
    ['nmf', 'stationary']
    """
    if isinstance(noise, str):
        noise = [noise]
    pairs = list(noise.items()) if isinstance(noise, Mapping) else [
        (model if isinstance(model, str) else name_of(model), model) for model in noise
    ]  # fmt: skip
    names = [name for name, _ in pairs]
    if len(names) < 2:
        raise ValueError(
            f"expected two noise models or more to compare, found {len(names)}: "
            f"{', '.join(names) or 'none'}; give for instance noise=['stationary', 'nmf']"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"noise model {twice[0]!r} stands twice; name each once, or give a mapping of names "
            "of your own: noise={'nmf 2': NMF(2), 'nmf 4': NMF(4)}"
        )
    return {name: resolve_noise(model) for name, model in pairs}


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
    audio = to_rate(as_audio(noisy, sample_rate_hz), stft.sample_rate_hz)
    if audio.n_channels > 1:
        raise ValueError(
            f"expected one channel to compare models on, found {audio.n_channels}; pass one of "
            "audio.channels()"
        )
    return check_audio(audio, min_samples=stft.n_fft)


def _pieces(audio: Audio, stft: Stft) -> list[Spectrogram]:
    """Spectrograms of about 10 s each, or of the whole if it is under 15 s."""
    count = 1 if audio.duration_s <= _LONG_S else math.ceil(audio.duration_s / _PIECE_S)
    samples = audio.channels()[0].samples
    return [stft.analyse(part) for part in np.array_split(samples, count) if part.any()]


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
