"""Enhancement of standard input to standard output, sample by sample as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from avse_ppl.pipeline.stream import StreamBlock, StreamEnhancer, choose_network
from avse_ppl.signal.wav_stream import (
    SampleStream,
    encode_samples,
    make_wav_header,
    read_sample_blocks,
    read_wav_header,
)


@dataclass
class StreamProgress:
    """How much of a stream was enhanced, and how long the computing took, seconds."""

    sound_s: float = 0.0
    computing_s: float = 0.0

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing for each second of sound."""
        return self.computing_s / self.sound_s if self.sound_s else 0.0


def enhance_pipe(
    source: Any,
    sink: BinaryIO,
    *,
    raw: SampleStream | None = None,
    predictor: str | Path | None = None,
    band: float | None = None,
    on_start: Callable[[SampleStream, StreamEnhancer], object] | None = None,
    progress: StreamProgress | None = None,
) -> StreamProgress:
    """Enhance a WAV file or raw samples from one pipe into another, each channel by itself.

    Integers of up to 16 bits go out with 16, others as float. A WAV header states the length that
    the one that came in stated, which may be "unknown".

    Parameters
    ----------
    source
        A buffered binary file, such as ``sys.stdin.buffer``.
    sink
        Written and flushed whenever samples are finished.
    raw
        What the samples are, where there is no header; none is written then either.
    predictor
        See `StreamEnhancer`.
    band
        Probability of the credible band; its ends follow each channel as two more. None: without.
    on_start
        Called with what comes in, and how it is enhanced, before the first sample.
    progress
        Kept up to date.

    Raises
    ------
    ValueError
        If the header or a sample is not what was expected, or there are no samples.

    Warns
    -----
    UserWarning
        If the samples end early.

    Examples
    --------
    >>> import io
    >>> source, sink = io.BytesIO(bytes(2 * 1600)), io.BytesIO()
    >>> enhance_pipe(source, sink, raw=SampleStream(16000)).sound_s
    0.1
    >>> len(sink.getvalue())
    3200
    """
    progress = StreamProgress() if progress is None else progress
    network = choose_network(predictor)  # before anything is waited for
    given = read_wav_header(source) if raw is None else raw
    settings: dict[str, Any] = {} if band is None else {"probability": band}
    streams = [
        StreamEnhancer(given.sample_rate_hz, predictor=network, **settings)
        for _ in range(given.channels)
    ]
    code = "s16" if given.code in ("u8", "s16") else "f32"
    rows = 1 if band is None else 3
    if on_start is not None:
        on_start(given, streams[0])
    if raw is None:
        sink.write(make_wav_header(replace(given, code=code, channels=rows * given.channels)))
        sink.flush()

    def write(found: list[StreamBlock]) -> None:
        samples = np.stack([row for block in found for row in block[:rows]])
        if samples.size:
            sink.write(encode_samples(samples.T, code))
            sink.flush()

    for block in read_sample_blocks(source, given):
        begin = time.perf_counter()
        found = [stream.process(row) for stream, row in zip(streams, block, strict=True)]
        progress.computing_s += time.perf_counter() - begin
        progress.sound_s += block.shape[1] / given.sample_rate_hz
        write(found)
    if not progress.sound_s:
        raise ValueError("stdin held no samples")
    write([stream.flush() for stream in streams])
    return progress
