"""What is inverted at once: chunks of recordings, of like length together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from avse_ppl.posterior.chunks import split_chunks
from avse_ppl.signal.audio import Audio

_BATCH_SAMPLES = 60 * 16000  # inverted at once: bounds the memory
_MAX_PADDING = 0.1  # of a batch, where recordings of different length share it


@dataclass(frozen=True)
class Chunk:
    """What is inverted at once: a chunk of one channel of one recording."""

    recording: int
    channel: int
    number: int  # of the recording's pieces
    begin: int
    end: int

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return self.end - self.begin

    @property
    def span(self) -> slice:
        """Where it lies in the recording."""
        return slice(self.begin, self.end)


def split_recordings(index: int, audio: Audio, hop: int) -> list[Chunk]:
    """Chunks of every channel of a recording that is not silent there."""
    spans = split_chunks(audio.n_samples, audio.sample_rate_hz, hop)
    heard = [
        (c, span)
        for c, channel in enumerate(audio.channels())
        for span in spans
        if channel.samples[slice(*span)].any()
    ]
    return [Chunk(index, c, number, *span) for number, (c, span) in enumerate(heard)]


def group_chunks(pieces: Sequence[Chunk]) -> list[list[Chunk]]:
    """Pieces of similar length together, a bounded amount of audio in each batch."""
    batches: list[list[Chunk]] = []
    for piece in sorted(pieces, key=lambda p: -p.n_samples):
        last = batches[-1] if batches else []
        longest = last[0].n_samples if last else 0
        fits = longest * (len(last) + 1) <= _BATCH_SAMPLES
        if last and fits and piece.n_samples >= (1 - _MAX_PADDING) * longest:
            last.append(piece)
        else:
            batches.append([piece])
    return batches
