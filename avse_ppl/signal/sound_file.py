"""Sound files by libsndfile: read WAV, FLAC, OGG, MP3, AIFF and Opus, write WAV, FLAC and OGG."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from avse_ppl.signal.whole_file import check_duration, damaged_error
from avse_ppl.utils.files import atomic_path

_BLOCK = 65536  # samples: libsndfile's Vorbis encoder crashes on long recordings given at once


def read_with_soundfile(handle: BinaryIO, name: str) -> tuple[np.ndarray, int] | None:
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
            raise damaged_error(name, error) from error
        check_duration(len(samples) / file.samplerate, file.frames / file.samplerate, name)
        return samples.T, file.samplerate


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
