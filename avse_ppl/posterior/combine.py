"""Posteriors of recordings, chunks and runs combined into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from avse_ppl.posterior.fit_info import FitInfo, combine_chunks
from avse_ppl.posterior.posterior import Posterior


def stack_recordings(parts: Sequence[Posterior]) -> Posterior:
    """Stack posteriors of different recordings, or channels, to that of a batch.

    Shorter recordings are padded: with zeros, and their latents with NaN, since nothing was drawn
    there; so are traces that stopped earlier. ``Posterior.select`` takes the padding off.

    Examples
    --------
    >>> from avse_ppl import Exact, ComplexNormal, GaussianSpeech, Scene
    >>> scene = Scene(GaussianSpeech(), lambda frames: ComplexNormal(0.0, 1.0))
    >>> waves = [np.random.default_rng(0).normal(size=n).astype("float32") for n in (2000, 3000)]
    >>> both = stack_recordings([Exact(draws=2)(scene, wave, seed=0) for wave in waves])
    >>> both.n_samples, both.speech.shape
    ((2000, 3000), (1, 2, 2, 3000))
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    grids = {
        name: _stack_padded([getattr(part, name) for part in parts], axis=0)
        for name in ("mean", "variance", "mixture")
    }
    return replace(
        first,
        **grids,
        speech=_stack_padded([part.speech for part in parts], axis=2),
        latents={
            name: _stack_padded([part.latents[name] for part in parts], axis=2, padding=np.nan)
            for name in first.latents
        },
        n_samples=tuple(n for part in parts for n in part.n_samples),
        trace={
            name: _stack_padded([part.trace[name] for part in parts], axis=1, padding=np.nan)
            for name in first.trace
        },
        stats={
            name: np.concatenate([part.stats[name] for part in parts], axis=2)
            for name in first.stats
        },
        fit=tuple(info for part in parts for info in part.fit),
    )


def _stack_padded(arrays: Sequence[np.ndarray], axis: int, padding: float = 0.0) -> np.ndarray:
    """Concatenate along an axis, all other axes padded to the longest."""
    longest = np.max([array.shape for array in arrays], axis=0)
    rows = []
    for array in arrays:
        missing = longest - array.shape
        missing[axis] = 0
        widths = [(0, int(after)) for after in missing]
        rows.append(np.pad(array, widths, constant_values=padding) if missing.any() else array)
    return np.concatenate(rows, axis=axis)


def compute_fade_weights(spans: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Weight of each chunk at each of its positions: linear cross-fades that add up to 1.

    The outer tenths of an overlap are left to the other chunk: there, frames reach past the end of
    this one.

    Examples
    --------
    >>> first, second = compute_fade_weights([(0, 4), (2, 6)])
    >>> first, second
    (array([1.  , 1.  , 0.75, 0.25], dtype=float32), array([0.25, 0.75, 1.  , 1.  ], dtype=float32))
    """

    def ramp(n: int) -> np.ndarray:
        margin = n // 10
        return np.clip((np.arange(n) + 0.5 - margin) / (n - 2 * margin), 0.0, 1.0)

    weights = []
    for i, (begin, end) in enumerate(spans):
        weight = np.ones(end - begin, np.float32)
        n = spans[i - 1][1] - begin if i > 0 else 0
        if n > 0:
            weight[:n] = ramp(n)
        n = end - spans[i + 1][0] if i + 1 < len(spans) else 0
        if n > 0:
            weight[-n:] = 1.0 - ramp(n)
        weights.append(weight)
    return weights


def scale_posterior(posterior: Posterior, factor: float) -> Posterior:
    """Posterior of the speech in a mixture that is so many times as large.

    Latents stay as they are: they are relative to the power of the mixture.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> posterior = SVI(steps=5, draws=2)(Scene(GaussianSpeech(), stationary), wave, seed=0)
    >>> bool(np.allclose(scale_posterior(posterior, -2.0).enhance(), -2.0 * posterior.enhance()))
    True
    """
    return replace(
        posterior,
        mean=np.float32(factor) * posterior.mean,
        variance=np.float32(factor**2) * posterior.variance,
        mixture=np.float32(factor) * posterior.mixture,
        speech=np.float32(factor) * posterior.speech,
    )


def crossfade_waves(
    waves: Sequence[np.ndarray], spans: Sequence[tuple[int, int]], n_samples: int
) -> np.ndarray:
    """Cross-fade waveforms, ``(..., sample)`` each; zero where no chunk lies.

    Examples
    --------
    >>> crossfade_waves([np.ones(4), np.zeros(4)], [(0, 4), (2, 6)], 6)
    array([1.  , 1.  , 0.75, 0.25, 0.  , 0.  ])
    """
    total = np.zeros((*waves[0].shape[:-1], n_samples), waves[0].dtype)
    for wave, (begin, end), fade in zip(waves, spans, compute_fade_weights(spans), strict=True):
        total[..., begin:end] += wave * fade
    return total


def crossfade_chunks(
    parts: Sequence[Posterior], spans: Sequence[tuple[int, int]], n_samples: int
) -> Posterior:
    """Cross-fade the posteriors of chunks to that of a long recording.

    Means are cross-faded. Deviations from the mean are cross-faded with the square roots of the
    weights, since chunks are inferred independently: their variances add. Latents are dropped, as
    each chunk has its own, but for the mean of the visual gate where every chunk has one.

    Parameters
    ----------
    parts
        One posterior a chunk, of one recording each.
    spans
        Begin and end of each chunk, in samples; silent chunks may be left out.
    n_samples
        Length of the recording.
    """
    first = parts[0]
    if len(parts) == 1 and first.n_samples == (n_samples,):
        return first

    # On the grid of the whole recording.
    hop = first.stft.hop
    count = first.stft.count_frames(n_samples)
    frames = [
        (begin // hop, begin // hop + part.mean.shape[-1])
        for (begin, _), part in zip(spans, parts, strict=True)
    ]
    grids = {
        name: crossfade_waves([getattr(part, name) for part in parts], frames, count)
        for name in ("mean", "variance", "mixture")
    }
    gates = [gate for part in parts if (gate := part.reliability) is not None]
    latents = {}
    if len(gates) == len(parts):
        latents["reliability"] = crossfade_waves(gates, frames, count)[None, None]

    # Waveform draws.
    speech = np.zeros((*first.speech.shape[:-1], n_samples), np.float32)
    for part, (begin, end), fade in zip(parts, spans, compute_fade_weights(spans), strict=True):
        mean = part.enhance()
        speech[..., begin:end] += fade * mean + np.sqrt(fade) * (part.speech - mean)

    return replace(
        first,
        **grids,
        speech=speech,
        latents=latents,
        axes={"reliability": ("time",)},
        n_samples=(n_samples,),
        attrs={**first.attrs, "chunks": len(parts)},
        fit=(combine_chunks([info for part in parts for info in part.fit]),),
        trace={},
        stats={},
    )


def merge_chains(posteriors: Sequence[Posterior]) -> Posterior:
    r"""Chains of several runs of one method on the same mixture, as one posterior.

    .. math:: E[s|x] = \overline{m_r}, \qquad
        \mathrm{Var}[s|x] = \overline{v_r} + \overline{|m_r - \overline m|^2}

    over the runs r, weighted by their number of chains. Warnings are those of all runs; figures of
    chains are dropped, as they are of one run.

    Raises
    ------
    ValueError
        If there is none, or if they are of different mixtures, kinds, latents, or lengths of their
        chains.
    """
    if not posteriors:
        raise ValueError("expected at least one posterior to merge, found none")
    first = posteriors[0]
    for other in posteriors[1:]:
        _check_mergeable(first, other)
    chains = [posterior.speech.shape[0] for posterior in posteriors]

    # Law of total variance.
    weights = np.array(chains, dtype=np.float64)
    weights = (weights / weights.sum())[:, None, None, None]
    means = np.stack([p.mean for p in posteriors])
    mean = (weights * means).sum(0)
    between = (weights * np.abs(means - mean) ** 2).sum(0)
    within = (weights * np.stack([p.variance for p in posteriors])).sum(0)

    def merge_fit(rows: Sequence[FitInfo]) -> FitInfo:
        texts = dict.fromkeys(text for info in rows for text in info.warnings)
        return replace(rows[0], warnings=tuple(texts), chain_figures=None)

    return replace(
        first,
        mean=mean.astype(first.mean.dtype),
        variance=(within + between).astype(first.variance.dtype),
        speech=np.concatenate([p.speech for p in posteriors]),
        latents={k: np.concatenate([p.latents[k] for p in posteriors]) for k in first.latents},
        stats={k: np.concatenate([p.stats[k] for p in posteriors]) for k in first.stats},
        trace={},
        attrs={
            **first.attrs,
            "chains": sum(chains),
            "merged_seeds": [p.attrs.get("seed") for p in posteriors],
        },
        fit=tuple(merge_fit(rows) for rows in zip(*(p.fit for p in posteriors), strict=True)),
    )


def _check_mergeable(one: Posterior, other: Posterior) -> None:
    """Raise unless two posteriors are of the same scene, mixture, kind and length of chains."""
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
            "of the same method with the same tempering"
        )
    pairs = {
        "latents": (one.latents, other.latents),
        "stats": (one.stats, other.stats),
        "draws": ({"speech": one.speech}, {"speech": other.speech}),
    }
    for what, (mine, theirs) in pairs.items():
        if set(mine) != set(theirs):
            raise ValueError(f"expected the same {what}, found {sorted(mine)} and {sorted(theirs)}")
        for name in mine:
            found, expected = theirs[name].shape, mine[name].shape
            if found[1] != expected[1]:
                raise ValueError(
                    f"chains must be equally long to be merged, found {expected[1]} and "
                    f"{found[1]} draws of {name!r}; run both with the same draws"
                )
            if found[2:] != expected[2:]:
                raise ValueError(
                    f"expected {name!r} of one shape, found {expected[2:]} and {found[2:]}; merge "
                    "runs of the same scene"
                )
