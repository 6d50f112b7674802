"""Media files: opened, read by libsndfile or else by FFmpeg.

`audio.load_audio` stands on it. A file is split into the recordings joined in it (`joined_files`),
headers are put right (`sound_header`, `ogg`), and what was cut short is refused (`whole_file`).
Recordings are then read by libsndfile (`sound_file`), MP3 and the sound of videos by FFmpeg
(`container`).
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np

from avse_ppl.signal.container import read_with_ffmpeg
from avse_ppl.signal.joined_files import split_joined
from avse_ppl.signal.ogg import mend_ogg
from avse_ppl.signal.sound_file import (
    SeekableSound,
    open_seekable_sound,
    read_with_soundfile,
)
from avse_ppl.signal.sound_header import mend_header
from avse_ppl.signal.whole_file import count_missing_bytes, truncated_error

Readable: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview


def name_source(source: Readable) -> str:
    """Name a path, or the bytes of a file, for messages."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the bytes given"
    return f"'{os.fspath(source)}'"


@contextmanager
def open_media(source: Readable) -> Iterator[tuple[BinaryIO, str]]:
    """Open a path or the bytes of a file; yields a seekable handle and a name for messages.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If the path cannot be opened.
    ValueError
        If the file is empty.
    """
    name = name_source(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        handle = io.BytesIO(source)
    else:
        if not Path(source).exists():
            raise FileNotFoundError(f"expected a recording at {name}, found nothing there")
        if Path(source).is_dir():
            raise IsADirectoryError(f"expected a recording at {name}, found a folder")
        handle = open(source, "rb")  # noqa: SIM115 - closed below, with the other kind
    try:
        with handle:
            if not handle.seekable():  # a pipe, such as /dev/stdin
                handle = io.BytesIO(handle.read())
            if handle.seek(0, os.SEEK_END) == 0:
                raise ValueError(f"expected a recording in {name}, found it empty (0 bytes)")
            yield handle, name
    except OSError as error:
        if error.errno is not None and error.filename is None:  # of the disk, while it was read
            error.filename = os.fspath(source) if isinstance(source, (str, os.PathLike)) else name
        raise


def read_media(source: Readable, track: int | None = None) -> tuple[np.ndarray, int]:
    """Read ``(channel, sample)`` float32 and the rate in Hz; see `audio.load_audio`."""
    with open_media(source) as (handle, name):
        parts = split_joined(handle, name)
        sounds = [read_recording(part, name, track) for part in parts]
        kinds = sorted({(rate_hz, len(samples)) for samples, rate_hz in sounds})
        if len(kinds) > 1:
            found = ", ".join(f"{channels} at {rate_hz} Hz" for rate_hz, channels in kinds)
            raise ValueError(
                f"{name} is {len(parts)} recordings joined end to end, of different kinds "
                f"(channels: {found}); split it, and convert them to one rate and number"
            )
        samples, rate_hz = sounds[0]
        if len(parts) > 1:
            message = f"{name} is {len(parts)} recordings joined end to end; all are read"
            warnings.warn(message, UserWarning, stacklevel=2)
            samples = np.concatenate([samples for samples, _ in sounds], axis=1)
        if samples.shape[1] == 0:
            raise ValueError(
                f"{name}: the recording is empty: it holds 0 samples; record or copy it again"
            )
        return samples, rate_hz


def read_recording(handle: BinaryIO, name: str, track: int | None = None) -> tuple[np.ndarray, int]:
    """Read one recording of a file, by libsndfile or else by FFmpeg.

    Warns
    -----
    UserWarning
        If its header had to be put right, or it has no end mark, so that some of it may be missing.
    """
    whole = mend_recording(handle, name)
    # What libsndfile reads has one track; FFmpeg says so where another is asked for.
    result = None if track else read_with_soundfile(whole, name)
    if result is None:
        whole.seek(0)
        result = read_with_ffmpeg(whole, name, track)
    return result


def mend_recording(handle: BinaryIO, name: str) -> BinaryIO:
    """Put the header of a recording right; refuse one that is cut short."""
    whole = mend_ogg(mend_header(handle, name), name)
    missing = count_missing_bytes(whole)
    if missing:
        raise truncated_error(name, f"{missing} or more bytes are missing at its end")
    return whole


def open_seekable(source: Readable) -> SeekableSound | None:
    """Open a recording to read spans of it without the rest; None where it has to be read whole.

    That is where samples cannot be sought exactly (see `open_seekable_sound`), and where several
    recordings are joined in the file.

    Raises
    ------
    OSError, ValueError
        As `read_media` does, as far as that shows without decoding.

    Warns
    -----
    UserWarning
        If the header had to be put right.
    """
    with ExitStack() as stack:
        handle, name = stack.enter_context(open_media(source))
        if len(split_joined(handle, name)) > 1:
            return None
        resources = ExitStack()
        sound = open_seekable_sound(mend_recording(handle, name), name, resources)
        if sound is not None:
            resources.push(stack.pop_all())
        return sound
