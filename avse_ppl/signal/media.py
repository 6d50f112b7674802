"""Media files: opened, read by libsndfile or else by FFmpeg.

`audio.load_audio` stands on it. Recordings are read by libsndfile (`sound_file`), the sound of
videos by FFmpeg (`container`); `whole_file` refuses what was cut short.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np

from avse_ppl.signal.container import read_with_ffmpeg
from avse_ppl.signal.sound_file import read_with_soundfile
from avse_ppl.signal.whole_file import count_missing_bytes, truncated_error

Readable: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview


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


def read_media(source: Readable) -> tuple[np.ndarray, int]:
    """Read ``(channel, sample)`` float32 and the rate in Hz; see `audio.load_audio`."""
    with open_media(source) as (handle, name):
        missing = count_missing_bytes(handle)
        if missing:
            raise truncated_error(name, f"{missing} or more bytes are missing at its end")
        result = read_with_soundfile(handle, name)
        if result is None:
            handle.seek(0)
            result = read_with_ffmpeg(handle, name)
        return result
