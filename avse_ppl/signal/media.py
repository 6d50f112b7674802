"""Samples out of media files, and into them.

What `audio.load_audio` and `audio.save_audio` stand on: libsndfile for recordings, FFmpeg (PyAV)
for the sound of videos, and the questions that a damaged file must answer.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np

from avse_ppl.signal.truncation import missing_bytes
from avse_ppl.utils.files import atomic_path

if TYPE_CHECKING:
    from av import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

Readable: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview

_SHORTFALL_S = 0.05  # headers of lossy formats are this exact about their length
_BLOCK = 65536  # samples: libsndfile's Vorbis encoder crashes on long recordings given at once
_OFFSET_S = 0.02  # half a video frame: nobody sees or hears less


def read_media(source: Readable) -> tuple[np.ndarray, int]:
    """Read ``(channel, sample)`` float32 and the rate in Hz; see `audio.load_audio`."""
    with _opened(source) as (handle, name):
        missing = missing_bytes(handle)
        if missing:
            raise _truncated(name, f"{missing} or more bytes are missing at its end")
        found = _read_with_soundfile(handle, name)
        if found is None:
            handle.seek(0)
            found = _read_with_av(handle, name)
        return found


@contextmanager
def _opened(
    source: Readable,
) -> Iterator[tuple[BinaryIO, str]]:
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, handle = "the bytes given", io.BytesIO(source)
    else:
        name = f"'{os.fspath(source)}'"
        if not Path(source).exists():
            raise FileNotFoundError(f"expected a recording at {name}, found nothing there")
        if Path(source).is_dir():
            raise IsADirectoryError(f"expected a recording at {name}, found a folder")
        handle = open(source, "rb")  # noqa: SIM115 - closed two lines below, with the other kind
    with handle:
        if handle.seek(0, os.SEEK_END) == 0:
            raise ValueError(f"expected a recording in {name}, found it empty (0 bytes)")
        yield handle, name


def _truncated(name: str, detail: str) -> ValueError:
    return ValueError(f"{name} is cut short: {detail}; copy or record it again")


def _damaged(name: str, detail: object) -> ValueError:
    return ValueError(f"{name} is damaged or cut short: {detail}; copy or record it again")


def _read_with_soundfile(handle: BinaryIO, name: str) -> tuple[np.ndarray, int] | None:
    """Read what libsndfile can; None for a format that it does not know."""
    import soundfile

    try:
        file = soundfile.SoundFile(handle)
    except soundfile.LibsndfileError:
        return None
    with file:
        try:
            samples = file.read(dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise _damaged(name, error) from error
        _check_length(len(samples) / file.samplerate, file.frames / file.samplerate, name)
        return samples.T, file.samplerate


def _check_length(found_s: float, promised_s: float, name: str) -> None:
    if promised_s - found_s > _SHORTFALL_S:
        raise _truncated(name, f"it promises {promised_s:.2f} s, {found_s:.2f} s are there")


def _read_with_av(handle: BinaryIO, name: str) -> tuple[np.ndarray, int]:
    import av
    from av.error import FFmpegError

    try:
        container = av.open(handle, mode="r")
    except (FFmpegError, IndexError) as error:
        raise ValueError(
            f"expected audio or video in {name}, found neither ({error}); "
            "is it another kind of file, or cut short?"
        ) from error
    with container:
        if not container.streams.audio:
            raise ValueError(
                f"expected sound in {name}, found no audio track; "
                "give a recording, or a video that was saved with its sound"
            )
        try:
            return _decode(container, name)
        except FFmpegError as error:
            raise _damaged(name, error) from error


def _decode(container: InputContainer, name: str) -> tuple[np.ndarray, int]:
    from av import AudioResampler

    track = container.streams.audio[0]
    to_float = AudioResampler(format="fltp")
    blocks: list[np.ndarray] = []
    first = last = None
    for frame in container.decode(track):
        first, last = first or frame, frame
        blocks.extend(block.to_ndarray() for block in to_float.resample(frame))
    if first is None or last is None:
        raise _damaged(name, "its audio track holds no sound")
    samples, rate_hz = np.concatenate(blocks, axis=1), first.sample_rate
    _check_length(_end_s(last), _promised_end_s(track, first), name)
    return _start_with_video(samples, rate_hz, _offset_s(container, first), name), rate_hz


def _end_s(frame: AudioFrame) -> float:
    """When a frame ends; infinite, and so never too soon, where the file tells no times."""
    return math.inf if frame.time is None else frame.time + frame.samples / frame.sample_rate


def _promised_end_s(track: AudioStream, first: AudioFrame) -> float:
    """When a track ends by what the container states, seconds; 0 where it states nothing."""
    if track.duration is not None and track.time_base is not None:
        return (first.time or 0.0) + float(track.duration * track.time_base)
    tag = track.metadata.get("DURATION", "0:0:0").split(":")  # Matroska: hours:minutes:seconds
    return sum(float(part) * unit for part, unit in zip(tag, (3600, 60, 1), strict=True))


def _offset_s(container: InputContainer, first: AudioFrame) -> float:
    """How much later than the first picture the first sound comes, seconds."""
    from av.stream import Disposition

    tracks = container.streams.video
    moving = [track for track in tracks if not track.disposition & Disposition.attached_pic]
    if not moving or moving[0].start_time is None or first.time is None:
        return 0.0
    return first.time - float(moving[0].start_time * (moving[0].time_base or 0))


def _start_with_video(samples: np.ndarray, rate_hz: int, offset_s: float, name: str) -> np.ndarray:
    if abs(offset_s) <= _OFFSET_S:
        return samples
    shift = round(offset_s * rate_hz)
    done = "padded with silence" if shift > 0 else "trimmed"
    side = "after" if shift > 0 else "before"
    message = (
        f"the sound of {name} starts {abs(offset_s) * 1e3:.0f} ms {side} its pictures; "
        f"{done} so that both start together"
    )
    warnings.warn(message, UserWarning, stacklevel=2)
    return np.pad(samples, ((0, 0), (max(shift, 0), 0)))[:, max(-shift, 0) :]


def check_subtype(file_format: str, subtype: str) -> None:
    """Refuse a sample format that the file format does not have."""
    import soundfile

    if subtype not in soundfile.available_subtypes(file_format):
        raise ValueError(
            f"{file_format} files hold no '{subtype}' samples; expected one of "
            f"{', '.join(soundfile.available_subtypes(file_format))}"
        )


def write_media(
    path: Path, samples: np.ndarray, rate_hz: int, file_format: str, subtype: str
) -> None:
    """Write ``(sample,)`` or ``(channel, sample)`` atomically."""
    import soundfile

    rows = np.atleast_2d(samples).T
    try:
        with (
            atomic_path(path) as temporary,
            soundfile.SoundFile(
                temporary, "w", rate_hz, rows.shape[1], subtype, format=file_format
            ) as file,
        ):
            for start in range(0, len(rows), _BLOCK):
                file.write(rows[start : start + _BLOCK])
    except soundfile.LibsndfileError as error:
        raise OSError(f"cannot write '{path}': {error}") from error
