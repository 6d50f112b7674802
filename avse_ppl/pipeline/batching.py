"""Chunks of long recordings, and batches of recordings or chunks of similar length.

Everything that is split is split by `split_recording`, and everything that is inferred or loaded
together is grouped by `group_by_length`; the constants here are the only ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from avse_ppl.signal.audio import Audio

LONG_S = 15.0  # recordings up to here are inferred whole
CHUNK_S = 10.0  # of longer ones, about
OVERLAP_S = 1.0  # of neighbouring chunks, where they are cross-faded
BATCH_S = 60.0  # of audio in a batch, padding included: bounds the memory
MAX_PADDING = 0.1  # share of a batch, where recordings of different length share it

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Chunk:
    """A stretch of one channel of one recording, which is inferred in one go.

    Parameters
    ----------
    recording, channel
        Index of the recording in what is enhanced together, and of its channel.
    number
        Index among the stretches of the recording. Channels share it, and with it their seed, so
        that alike channels come out alike.
    begin, end
        First sample, and the one after the last.
    """

    recording: int
    channel: int
    number: int
    begin: int
    end: int

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return self.end - self.begin


def split_recording(
    n_samples: int, sample_rate_hz: int, hop: int = 1, overlap_s: float = OVERLAP_S
) -> list[tuple[int, int]]:
    """Begin and end of each chunk of a recording, samples.

    Parameters
    ----------
    n_samples, sample_rate_hz
        Of the recording. Up to `LONG_S` it is one chunk; otherwise chunks last about `CHUNK_S`.
    hop
        Samples from frame to frame: overlapping chunks begin on frames.
    overlap_s
        By how much neighbours overlap, seconds; 0 for chunks side by side.

    Examples
    --------
    >>> split_recording(16000 * 12, 16000, 256)
    [(0, 192000)]
    >>> split_recording(16000 * 20, 16000, 256)
    [(0, 168320), (152064, 320000)]
    >>> split_recording(16000 * 20, 16000, overlap_s=0.0)
    [(0, 160000), (160000, 320000)]
    """
    if n_samples <= LONG_S * sample_rate_hz:
        return [(0, n_samples)]
    overlap = round(overlap_s * sample_rate_hz)
    count = int(np.ceil((n_samples - overlap) / (CHUNK_S * sample_rate_hz)))
    if not overlap:
        lengths = [len(part) for part in np.array_split(np.empty(n_samples, bool), count)]
        ends = np.cumsum(lengths).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))
    step = (n_samples - overlap) / count
    begins = [round(i * step / hop) * hop for i in range(count)]
    ends = [begin + overlap + hop for begin in begins[1:]] + [n_samples]
    return list(zip(begins, (min(end, n_samples) for end in ends), strict=True))


def split_channels(
    audio: Audio,
    hop: int = 1,
    *,
    recording: int = 0,
    overlap_s: float = OVERLAP_S,
    channels: Collection[int] | None = None,
) -> list[Chunk]:
    """Chunks of some channels of a recording, by default all, without those that are silent."""
    spans = split_recording(audio.n_samples, audio.sample_rate_hz, hop, overlap_s)
    samples = np.atleast_2d(audio.samples)
    spans = [(begin, end) for begin, end in spans if samples[:, begin:end].any()]
    return [
        Chunk(recording, c, number, begin, end)
        for c in (range(audio.n_channels) if channels is None else channels)
        for number, (begin, end) in enumerate(spans)
        if samples[c, begin:end].any()
    ]


def group_by_length(
    items: Iterable[_Item], length_s: Callable[[_Item], float]
) -> list[list[_Item]]:
    """Batches of items of similar length, the longest first: at most `BATCH_S` in each.

    Parameters
    ----------
    items
        Recordings, chunks or files.
    length_s
        Length of an item, seconds.

    Examples
    --------
    >>> group_by_length([12.0, 30.0, 29.0, 11.5], lambda item: item)
    [[30.0, 29.0], [12.0, 11.5]]
    """
    batches: list[list[_Item]] = []
    longest = 0.0  # of the current batch
    for length, item in sorted(
        ((length_s(item), item) for item in items), key=lambda pair: -pair[0]
    ):
        fits = batches and longest * (len(batches[-1]) + 1) <= BATCH_S
        if fits and length >= (1 - MAX_PADDING) * longest:
            batches[-1].append(item)
        else:
            batches.append([item])
            longest = length
    return batches
