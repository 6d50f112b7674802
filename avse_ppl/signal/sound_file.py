"""Sound files by libsndfile: read WAV, FLAC, OGG, AIFF and Opus, write WAV, FLAC and OGG.

A file is read in blocks, from its start to its end, so that nothing is allocated because a header
says so. The library calls back for the bytes. Python cannot raise in such a call, and an interrupt
that arrives there would be lost: so the library works in a thread of its own, which no signal
reaches, and reads by a `GuardedFile`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np

from avse_ppl.signal.file_view import GuardedFile
from avse_ppl.signal.mpeg import is_mpeg
from avse_ppl.signal.ogg import replace_serial
from avse_ppl.signal.sound_header import walk_chunks
from avse_ppl.signal.whole_file import check_duration, damaged_error, truncated_error
from avse_ppl.utils.files import atomic_path

_BLOCK = 65536  # samples: libsndfile's Vorbis encoder crashes on long recordings given at once
_UNKNOWN_FRAMES = 2**62  # and above: a FLAC file that was written to a pipe
_MOST_PER_BYTE = 8  # samples, where the file is not FLAC, ALAC, Vorbis or Opus: GSM has 5
_DENSE = ("FLAC", "OGG")
_TO_FFMPEG = ("MP3", "VOC")
# Where libsndfile goes to the very sample that is asked for.
_EXACT = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "FLAC")
_EXACT_SUBTYPES = ("PCM_", "FLOAT", "DOUBLE")

_Result = TypeVar("_Result")


def read_with_soundfile(handle: BinaryIO, name: str) -> tuple[np.ndarray, int] | None:
    """Read what libsndfile can; None for what is left to FFmpeg.

    That are the formats that it does not know; MP3, of which it guesses the length where the frames
    are not counted, and reads no further; VOC, where it takes the headers of blocks for samples.

    Parameters
    ----------
    handle
        A seekable binary file.
    name
        What messages call it.

    Returns
    -------
    tuple of numpy.ndarray and int
        ``(channel, sample)`` float32, and the rate in Hz.

    Raises
    ------
    ValueError
        If the file is damaged or cut short.
    OSError, KeyboardInterrupt
        What happened while it was read, unchanged.
    """
    if is_mpeg(handle):
        return None
    guarded = GuardedFile(handle)
    return run_guarded(guarded, name, lambda: decode_blocks(guarded, name))


def run_guarded(guarded: GuardedFile, name: str, work: Callable[[], _Result]) -> _Result | None:
    """Run what calls libsndfile, in a thread; None where the file only ended for an error of ours.

    Raises
    ------
    ValueError
        If libsndfile finds the file damaged.
    OSError, KeyboardInterrupt
        What happened while it was read, unchanged.
    """
    import soundfile

    with ThreadPoolExecutor(1) as thread:
        task = thread.submit(work)
        try:
            result = task.result()
        except soundfile.LibsndfileError as error:
            if guarded.error is None:
                raise damaged_error(name, error) from error
            result = None
        except BaseException as error:
            guarded.stop(error)
            raise
    if isinstance(guarded.error, ValueError):
        raise damaged_error(name, guarded.error) from guarded.error
    if guarded.error is not None:
        raise guarded.error
    return result


def decode_blocks(guarded: GuardedFile, name: str) -> tuple[np.ndarray, int] | None:
    """Decode a file block by block; see `read_with_soundfile`."""
    import soundfile

    class SoundStream(soundfile.SoundFile):
        """A sound file that is read once through: seeking after each block changes Opus."""

        def seekable(self) -> bool:
            """Whether to seek: no."""
            return False

    try:
        file = SoundStream(cast("BinaryIO", guarded))
    except soundfile.LibsndfileError:
        return None
    with file:
        if file.format in _TO_FFMPEG:
            return None
        rate_hz, n_frames = file.samplerate, file.frames
        dense = file.format in _DENSE or file.subtype.startswith("ALAC")
        known = n_frames < _UNKNOWN_FRAMES
        if known and not dense and n_frames * file.channels > _MOST_PER_BYTE * guarded.size:
            promised = f"it promises {n_frames / rate_hz:.0f} s of sound in {guarded.size} bytes"
            raise truncated_error(name, promised)
        blocks: list[np.ndarray] = [np.zeros((0, file.channels), np.float32)]
        left = n_frames
        while left > 0:
            length = min(left, max(1, _BLOCK // file.channels))
            blocks.append(file.read(length, dtype="float32", always_2d=True))
            left -= len(blocks[-1])
            if len(blocks[-1]) < length:
                break
    samples = np.empty((blocks[0].shape[1], sum(map(len, blocks))), np.float32)
    np.concatenate([block.T for block in blocks], axis=1, out=samples)
    if known and guarded.error is None:
        check_duration(samples.shape[1] / rate_hz, n_frames / rate_hz, name)
    return samples, rate_hz


class SeekableSound:
    """A sound file in which samples are sought, so that a span is read without the rest.

    Parameters
    ----------
    file
        Of soundfile, on the guarded one.
    guarded
        The bytes, as libsndfile reads them.
    name
        What messages call it.
    resources
        Closed with it: the file that the bytes are in.
    """

    def __init__(self, file: Any, guarded: GuardedFile, name: str, resources: ExitStack) -> None:
        self.file, self.guarded, self.name, self.resources = file, guarded, name, resources
        self.rate_hz: int = file.samplerate
        self.n_samples: int = file.frames

    def read(self, begin: int, end: int) -> np.ndarray:
        """Read ``(channel, sample)`` float32 from one sample up to another.

        Raises
        ------
        ValueError
            If the file is damaged there, or cut short before.
        """

        def read_rows() -> np.ndarray:
            self.file.seek(begin)
            return self.file.read(end - begin, dtype="float32", always_2d=True)

        rows = run_guarded(self.guarded, self.name, read_rows)
        if rows is None or len(rows) < end - begin:
            raise truncated_error(
                self.name,
                f"it promises {self.n_samples / self.rate_hz:.2f} s, and its samples from "
                f"{begin / self.rate_hz:.2f} s to {end / self.rate_hz:.2f} s are not all there",
            )
        return np.ascontiguousarray(rows.T)

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        self.resources.close()


def open_seekable_sound(handle: BinaryIO, name: str, resources: ExitStack) -> SeekableSound | None:
    """Open a sound file to read spans of it; None where that is not exact to the sample.

    It is exact for WAV, RF64, W64, AIFF, AU and FLAC whose samples are integers or floats, and
    whose header states a length that fits the size of the file.

    Parameters
    ----------
    handle, name
        As in `read_with_soundfile`.
    resources
        What is closed with the sound.
    """
    import soundfile

    if is_mpeg(handle):
        return None
    guarded = GuardedFile(handle)

    def open_file() -> Any:
        try:
            return soundfile.SoundFile(cast("BinaryIO", guarded))
        except soundfile.LibsndfileError:
            return None

    file = run_guarded(guarded, name, open_file)
    if file is None:
        return None
    exact = file.format in _EXACT and file.subtype.startswith(_EXACT_SUBTYPES)
    most = _UNKNOWN_FRAMES if file.format == "FLAC" else _MOST_PER_BYTE * guarded.size + 1
    if not exact or file.frames * file.channels >= most:
        file.close()
        return None
    return SeekableSound(file, guarded, name, resources)


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
    """Write ``(sample,)`` or ``(channel, sample)`` atomically; the same samples, the same bytes."""
    import soundfile

    rows = np.atleast_2d(samples).T
    try:
        with atomic_path(path) as temporary:
            with soundfile.SoundFile(
                temporary, "w", rate_hz, rows.shape[1], subtype, format=file_format
            ) as file:
                for start in range(0, len(rows), _BLOCK):
                    file.write(rows[start : start + _BLOCK])
            erase_time(temporary, file_format)
    except soundfile.LibsndfileError as error:
        raise OSError(f"cannot write '{path}': {error}") from error


def erase_time(path: Path, file_format: str) -> None:
    """Set to 0 what libsndfile takes from the clock: the time of peaks, the number of a stream."""
    with open(path, "r+b") as handle:
        if file_format == "OGG":
            for at, page in replace_serial(handle, 0):
                handle.seek(at)
                handle.write(page)
        elif file_format == "WAV":
            for name, at, _ in walk_chunks(handle, "<"):
                if name == b"PEAK":  # version, time, and the peak of each channel
                    handle.seek(at + 4)
                    handle.write(bytes(4))
