"""Spans of recordings, such as the cuts of a corpus: each recording is read once for its spans."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from avse_ppl.pipeline.inputs import Observation, VideoOptions, observe
from avse_ppl.signal.audio import Audio, check_audio, check_decoded, load_audio
from avse_ppl.signal.media import open_seekable
from avse_ppl.signal.sound_file import SeekableSound
from avse_ppl.signal.stft import Stft

_ROUNDING_S = 0.02  # how far a span may end after its recording, by rounding
_Read = TypeVar("_Read")


def find_span(
    n_samples: int, rate_hz: int, start_s: float, duration_s: float | None
) -> tuple[int, int]:
    """First sample of a span of a recording, and the one after its last.

    The ends of spans are often rounded: one that ends up to 20 ms after the recording ends with
    it, and so does one that begins with the recording and ends up to 10 ms before it.

    Parameters
    ----------
    n_samples, rate_hz
        Of the recording.
    start_s, duration_s
        The span, seconds; a duration of None goes to the end.

    Raises
    ------
    ValueError
        If the span is not within the recording.

    Examples
    --------
    >>> find_span(16000, 16000, 0.25, 0.5)
    (4000, 12000)
    """
    begin = round(start_s * rate_hz)
    end = n_samples if duration_s is None else round((start_s + duration_s) * rate_hz)
    beyond_s = (end - n_samples) / rate_hz
    if begin >= n_samples or beyond_s > _ROUNDING_S:
        until = "the end" if duration_s is None else f"{start_s + duration_s:g} s"
        raise ValueError(
            f"the span from {start_s:g} s to {until} is not within the recording, which is "
            f"{n_samples / rate_hz:g} s long; is the manifest of another version of it?"
        )
    if beyond_s > 0 or (begin == 0 and beyond_s >= -_ROUNDING_S / 2):
        end = n_samples
    return begin, end


def cut_span(audio: Audio, start_s: float, duration_s: float | None) -> Audio:
    """Cut a span out of a recording; see `find_span`.

    Examples
    --------
    >>> import numpy as np
    >>> cut_span(Audio(np.zeros(16000, "float32"), 16000), 0.25, 0.5).n_samples
    8000
    """
    begin, end = find_span(audio.n_samples, audio.sample_rate_hz, start_s, duration_s)
    return Audio(audio.samples[..., begin:end], audio.sample_rate_hz)


@dataclass(frozen=True)
class OpenRecording:
    """The recording that a `SpanReader` holds.

    Parameters
    ----------
    key
        What it was read from, and how.
    content
        A sound file in which samples are sought, the whole recording, or it and its lips.
    remarks
        Warnings that came with it; they are given with each of its spans.
    """

    key: Any
    content: SeekableSound | Audio | Observation
    remarks: tuple[str, ...]


class SpanReader:
    """Reader of spans that holds one recording at a time.

    Samples are sought in WAV, FLAC, AIFF and the like, of which no more than the span is in memory.
    Other recordings are decoded once for the spans that are read of them in turn; with video, their
    lips are tracked once. Close it, or use it in a ``with``.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from avse_ppl import Audio, Stft, save_audio
    >>> with tempfile.TemporaryDirectory() as folder, SpanReader() as reader:
    ...     path = save_audio(f"{folder}/a.wav", Audio(np.ones(32000, "float32"), 16000))
    ...     [
    ...         reader.observe(path, Stft(), start_s=t, duration_s=0.5).audio.n_samples
    ...         for t in (0, 1)
    ...     ]
    [8000, 8000]
    """

    def __init__(self) -> None:
        self.held: OpenRecording | None = None

    def __enter__(self) -> SpanReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the recording that is held."""
        if self.held is not None and isinstance(self.held.content, SeekableSound):
            self.held.content.close()
        self.held = None

    def observe(
        self,
        noisy: str | os.PathLike[str],
        stft: Stft,
        video: Any = None,
        options: VideoOptions | None = None,
        *,
        start_s: float = 0.0,
        duration_s: float | None = None,
    ) -> Observation:
        """`observe` a span of a recording.

        Parameters
        ----------
        noisy, stft, video, options
            As in `avse_ppl.pipeline.inputs.observe`; the video is that of the whole recording.
        start_s, duration_s
            The span, seconds; a duration of None goes to the end. See `find_span`.

        Raises
        ------
        ValueError, OSError
            As `observe` and `find_span` do.

        Warns
        -----
        UserWarning
            As `observe` does.
        """
        options = options or VideoOptions()
        if start_s == 0.0 and duration_s is None:
            return observe(noisy, stft, video, options)
        if video is not None:
            # Sound and lips are brought in time as wholes, and then cut together.
            whole: Any = self.hold(
                (noisy, video, options, stft), lambda: observe(noisy, stft, video, options)
            )
            cut = cut_span(whole.audio, start_s, duration_s)
            begin = round(start_s * cut.sample_rate_hz)
            return Observation(check_audio(cut, min_samples=stft.n_fft), whole.lips_from(begin))
        track = options.audio_track
        found: Any = self.hold(
            (noisy, track),
            lambda: (None if track else open_seekable(noisy)) or load_audio(noisy, track=track),
        )
        if isinstance(found, SeekableSound):
            span = find_span(found.n_samples, found.rate_hz, start_s, duration_s)
            cut = check_decoded(found.read(*span), found.rate_hz, found.name)
        else:
            cut = cut_span(found, start_s, duration_s)
        return observe(cut, stft, options=options)

    def hold(self, key: Any, read: Callable[[], _Read]) -> _Read:
        """Content of a recording: the one that is held, or read in place of it."""
        if self.held is None or self.held.key != key:
            self.close()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                content: Any = read()
            remarks = [str(w.message) for w in caught if w.category is UserWarning]
            self.held = OpenRecording(key, content, tuple(dict.fromkeys(remarks)))
        for text in self.held.remarks:
            warnings.warn(text, UserWarning, stacklevel=3)
        content: Any = self.held.content
        return content
