"""Long recordings in pieces: cut into overlapping chunks, and cross-faded back together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from avse_ppl.posterior.posterior import Posterior

CHUNK_S = 10.0
OVERLAP_S = 1.0
LONG_S = 15.0  # recordings up to here are inverted whole
_WORST = ("k_hat", "elbo_rise")  # figures of a fit, of which a whole has the largest


def split_chunks(n_samples: int, sample_rate_hz: int, hop: int) -> list[tuple[int, int]]:
    """Begin and end of each chunk, in samples; begins lie on frames.

    Examples
    --------
    >>> split_chunks(16000 * 12, 16000, 256)
    [(0, 192000)]
    >>> split_chunks(16000 * 20, 16000, 256)
    [(0, 168320), (152064, 320000)]
    """
    if n_samples <= LONG_S * sample_rate_hz:
        return [(0, n_samples)]
    overlap = round(OVERLAP_S * sample_rate_hz)
    count = int(np.ceil((n_samples - overlap) / (CHUNK_S * sample_rate_hz)))
    step = (n_samples - overlap) / count
    begins = [round(i * step / hop) * hop for i in range(count)]
    ends = [begin + overlap + hop for begin in begins[1:]] + [n_samples]
    return list(zip(begins, (min(end, n_samples) for end in ends), strict=True))


def fades(spans: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Weight of each chunk at each of its positions: linear cross-fades that add up to 1.

    The outer tenths of an overlap are left to the other chunk: there, frames reach past the end of
    this one.
    """
    weights = []
    for i, (begin, end) in enumerate(spans):
        weight = np.ones(end - begin, np.float32)
        n = spans[i - 1][1] - begin if i > 0 else 0
        if n > 0:
            weight[:n] = _rise(n)
        n = end - spans[i + 1][0] if i + 1 < len(spans) else 0
        if n > 0:
            weight[-n:] = 1.0 - _rise(n)
        weights.append(weight)
    return weights


def _rise(n: int) -> np.ndarray:
    margin = n // 10
    return np.clip((np.arange(n) + 0.5 - margin) / (n - 2 * margin), 0.0, 1.0)


def crossfade_waves(
    waves: Sequence[np.ndarray], spans: Sequence[tuple[int, int]], n_samples: int
) -> np.ndarray:
    """Cross-fade waveforms, ``(..., sample)`` each; zero where no chunk lies."""
    total = np.zeros((*waves[0].shape[:-1], n_samples), waves[0].dtype)
    for wave, (begin, end), fade in zip(waves, spans, fades(spans), strict=True):
        total[..., begin:end] += wave * fade
    return total


def crossfade_chunks(
    parts: Sequence[Posterior], spans: Sequence[tuple[int, int]], n_samples: int
) -> Posterior:
    """One posterior over a long recording from those of its chunks.

    Means are cross-faded. Deviations from the mean are cross-faded with the square roots of the
    weights, since chunks are inferred independently: their variances add. Latents stay behind, as
    each chunk has its own, but for how far the lips counted.

    Parameters
    ----------
    parts
        One posterior a chunk, of one recording each.
    spans
        From `split_chunks`; silent chunks may be left out.
    n_samples
        Length of the recording.
    """
    first = parts[0]
    if len(parts) == 1 and first.n_samples == (n_samples,):
        return first
    hop = first.stft.hop
    count = first.stft.count_frames(n_samples)
    frames = [
        (begin // hop, begin // hop + part.mean.shape[-1])
        for (begin, _), part in zip(spans, parts, strict=True)
    ]
    return replace(
        first,
        mean=crossfade_waves([part.mean for part in parts], frames, count),
        variance=crossfade_waves([part.variance for part in parts], frames, count),
        mixture=crossfade_waves([part.mixture for part in parts], frames, count),
        speech=_stitch_draws(parts, spans, n_samples),
        latents=_stitched_gate(parts, frames, count),
        axes={"reliability": ("time",)},
        n_samples=(n_samples,),
        attrs={**_merged(parts), "chunks": len(parts)},
        trace={},
        stats={},
    )


def _stitched_gate(
    parts: Sequence[Posterior], frames: Sequence[tuple[int, int]], count: int
) -> dict[str, np.ndarray]:
    """How far the lips counted, on average over the draws, where every chunk says so."""
    gates = [gate for part in parts if (gate := part.reliability) is not None]
    if len(gates) < len(parts):
        return {}
    return {"reliability": crossfade_waves(gates, frames, count)[None, None]}


def stack_channels(channels: Sequence[Posterior]) -> Posterior:
    """Posteriors of equally long recordings as one with a recording for each."""
    first = channels[0]
    if len(channels) == 1:
        return first
    return replace(
        first,
        mean=np.concatenate([c.mean for c in channels]),
        variance=np.concatenate([c.variance for c in channels]),
        mixture=np.concatenate([c.mixture for c in channels]),
        speech=np.concatenate([c.speech for c in channels], axis=2),
        latents={
            name: np.concatenate([c.latents[name] for c in channels], axis=2)
            for name in first.latents
        },
        n_samples=tuple(n for c in channels for n in c.n_samples),
        attrs={**first.attrs, **_listed(channels)},
        trace={key: _side_by_side([c.trace[key] for c in channels]) for key in first.trace},
        stats={
            key: np.concatenate([c.stats[key] for c in channels], axis=2) for key in first.stats
        },
    )


def _merged(parts: Sequence[Posterior]) -> dict[str, Any]:
    """Attributes of the whole: those of the first part, the warnings of all, the worst figures.

    Figures about chains stay behind with the latents.
    """
    texts = list(dict.fromkeys(text for part in parts for text in part.warnings))
    merged = {**parts[0].attrs, "warnings": [texts]} if texts else dict(parts[0].attrs)
    merged.pop("diagnostics", None)
    for name in _WORST:
        if name in merged:
            merged[name] = [max(value for part in parts for value in part.attrs[name])]
    return merged


def _listed(channels: Sequence[Posterior]) -> dict[str, Any]:
    """Warnings and figures about the fit or the chains of each channel, where there are any."""
    rows = [list(channel.warnings) for channel in channels]
    listed: dict[str, Any] = {"warnings": rows} if any(rows) else {}
    for name in (*_WORST, "diagnostics"):
        if all(name in channel.attrs for channel in channels):
            listed[name] = [row for channel in channels for row in channel.attrs[name]]
    return listed


def _side_by_side(traces: Sequence[np.ndarray]) -> np.ndarray:
    """``(step, recording)`` each; NaN where a channel of another batch stopped earlier."""
    steps = max(len(trace) for trace in traces)
    rows = [
        np.pad(t, ((0, steps - len(t)), (0, 0)), constant_values=np.nan) if len(t) < steps else t
        for t in traces
    ]
    return np.concatenate(rows, axis=1)


def _stitch_draws(
    parts: Sequence[Posterior], spans: Sequence[tuple[int, int]], n_samples: int
) -> np.ndarray:
    shape = parts[0].speech.shape[:-1]
    total = np.zeros((*shape, n_samples), np.float32)
    for part, (begin, end), fade in zip(parts, spans, fades(spans), strict=True):
        mean = part.enhance()
        total[..., begin:end] += fade * mean + np.sqrt(fade) * (part.speech - mean)
    return total
