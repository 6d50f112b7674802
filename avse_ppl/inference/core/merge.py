"""Posteriors of several runs as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from avse_ppl.inference.core.convergence import assess_chains
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.fit_info import fit_to_attrs
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Frames, Spectrogram


def merge(posteriors: Sequence[Posterior], scene: Scene | None = None) -> Posterior:
    r"""Chains of several runs of one routine on the same mixture, as one posterior.

    .. math:: E[s|x] = \overline{m_r}, \qquad
        \mathrm{Var}[s|x] = \overline{v_r} + \overline{|m_r - \overline m|^2}

    over the runs r, weighted by their number of chains.

    Parameters
    ----------
    posteriors
        Of runs with different seeds.
    scene
        What they inverted: with it the chains are compared with each other, and
        ``posterior.warnings`` are those of all chains together; without it they are what the runs
        said themselves.

    Raises
    ------
    ValueError
        If there is none, or if they are of different mixtures, kinds, latents, or lengths of their
        chains.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import NUTS, ComplexNormal, GaussianSpeech, Scene
    >>> wave = np.random.default_rng(0).normal(size=3000).astype("float32")
    >>> scene = Scene(GaussianSpeech(), lambda frames: ComplexNormal(0.0, 0.3))
    >>> short = NUTS(draws=4, warmup=4, chains=1, init="prior")
    >>> merge([short(scene, wave, seed=0), short(scene, wave, seed=1)], scene).speech.shape
    (2, 4, 1, 3000)
    """
    if not posteriors:
        raise ValueError("expected at least one posterior to merge, found none")
    for other in posteriors[1:]:
        _check_alike(posteriors[0], other)
    first = posteriors[0]
    weights = np.array([_chains(p) for p in posteriors], dtype=np.float64)
    weights = (weights / weights.sum())[:, None, None, None]
    means = np.stack([p.mean for p in posteriors])
    mean = (weights * means).sum(0)
    spread = (weights * np.abs(means - mean) ** 2).sum(0)
    within = (weights * np.stack([p.variance for p in posteriors])).sum(0)
    merged = replace(
        first,
        mean=mean.astype(first.mean.dtype),
        variance=(within + spread).astype(first.variance.dtype),
        speech=np.concatenate([p.speech for p in posteriors]),
        latents=_side_by_side([p.latents for p in posteriors]),
        stats=_side_by_side([p.stats for p in posteriors]),
        trace={},
        attrs=_attrs(posteriors),
    )
    return merged if scene is None else _judged(merged, scene)


def _side_by_side(groups: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}


def _attrs(posteriors: Sequence[Posterior]) -> dict[str, Any]:
    """Those of the first run, the seeds of all, and the warnings of all."""
    rows = [
        list(dict.fromkeys(text for p in posteriors for text in _texts(p, r)))
        for r in range(posteriors[0].recordings)
    ]
    kept = {k: v for k, v in posteriors[0].attrs.items() if k != "diagnostics"}  # of one run
    return {
        **kept,
        "chains": sum(_chains(p) for p in posteriors),
        "merged_seeds": [p.attrs.get("seed") for p in posteriors],
        "warnings": rows,
    }


def _texts(posterior: Posterior, recording: int) -> list[str]:
    rows = posterior.attrs.get("warnings", [])
    return list(rows[recording]) if rows else []


def _judged(posterior: Posterior, scene: Scene) -> Posterior:
    """Replace warnings and figures by what all chains say together."""
    chains, length = next(iter(posterior.latents.values())).shape[:2]
    fit = []
    for r in range(posterior.recordings):
        one = posterior.select(r)
        draws = [
            {name: torch.from_numpy(value[c, d].copy()) for name, value in one.latents.items()}
            for c in range(chains)
            for d in range(length)
        ]
        fit += assess_chains(scene, _spectrogram(one), draws, one.stats, chains)
    return replace(posterior, attrs={**posterior.attrs, **fit_to_attrs(fit)})


def _spectrogram(posterior: Posterior) -> Spectrogram:
    """The mixture again, for its grid; its scale is not known any more."""
    stft, values = posterior.stft, torch.from_numpy(posterior.mixture.copy())
    frames: Frames = stft.frames(max(posterior.n_samples))
    return Spectrogram(values, frames, posterior.n_samples, torch.ones(len(values)), stft)


def _chains(posterior: Posterior) -> int:
    return posterior.speech.shape[0]


def _check_alike(one: Posterior, other: Posterior) -> None:
    """Raise unless two posteriors are of the same thing."""
    same_mixture = (
        one.stft == other.stft
        and one.n_samples == other.n_samples
        and np.allclose(one.mixture, other.mixture, rtol=1e-4, atol=1e-6)
    )
    if not same_mixture:
        raise ValueError("expected posteriors of the same mixture; these are of different ones")
    if one.kind != other.kind:
        raise ValueError(
            f"expected posteriors of one kind, found {one.kind!r} and {other.kind!r}; merge runs "
            "of the same routine with the same tempering"
        )
    for what in ("latents", "stats"):
        _check_arrays(what, getattr(one, what), getattr(other, what))
    _check_arrays("draws", {"speech": one.speech}, {"speech": other.speech})


def _check_arrays(what: str, one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    if set(one) != set(other):
        raise ValueError(f"expected the same {what}, found {sorted(one)} and {sorted(other)}")
    for name, value in one.items():
        if value.shape[1] != other[name].shape[1]:
            raise ValueError(
                f"chains must be equally long to be merged, found {value.shape[1]} and "
                f"{other[name].shape[1]} draws of {name!r}; run both with the same draws"
            )
        if value.shape[2:] != other[name].shape[2:]:
            raise ValueError(
                f"expected {name!r} of one shape, found {value.shape[2:]} and "
                f"{other[name].shape[2:]}; merge runs of the same scene"
            )
