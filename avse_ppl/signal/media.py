"""Media files: decoding by libsndfile and FFmpeg, encoding, and checks that a file is whole.

`audio.load_audio` and `audio.save_audio` stand on it. Recordings are read by libsndfile, the sound
of videos by FFmpeg (PyAV). Both play half a file without a word, and a recording that was cut while
it was copied would then be enhanced as if it were whole: so headers are compared with the size of
the file first (`count_missing_bytes`), and stated with decoded durations after.
"""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np

from avse_ppl.utils.files import atomic_path

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

Readable: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview

_SHORTFALL_S = 0.05  # headers of lossy formats are this exact about their length
_BLOCK = 65536  # samples: libsndfile's Vorbis encoder crashes on long recordings given at once
_OFFSET_S = 0.02  # half a video frame: nobody sees or hears less

_UNKNOWN_LENGTH = 0x7FFFF000  # and above: what programs write when they stream to a pipe
_LARGEST_OGG_PAGE = 27 + 255 + 255 * 255
_SEGMENT = b"\x18\x53\x80\x67"
_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"styp", b"sidx")


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
            raise _truncated(name, f"{missing} or more bytes are missing at its end")
        result = read_with_soundfile(handle, name)
        if result is None:
            handle.seek(0)
            result = read_with_ffmpeg(handle, name)
        return result


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
            raise _damaged(name, error) from error
        check_duration(len(samples) / file.samplerate, file.frames / file.samplerate, name)
        return samples.T, file.samplerate


def read_with_ffmpeg(handle: BinaryIO, name: str) -> tuple[np.ndarray, int]:
    """Decode the first audio track by FFmpeg, aligned with the first video frame if there is one.

    Raises
    ------
    ValueError
        If the file is of no known kind, has no sound, or is damaged.
    """
    import av
    from av import AudioResampler
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
        track = container.streams.audio[0]
        to_float = AudioResampler(format="fltp")
        blocks: list[np.ndarray] = []
        first = last = None
        try:
            for frame in container.decode(track):
                first, last = first or frame, frame
                blocks.extend(block.to_ndarray() for block in to_float.resample(frame))
        except FFmpegError as error:
            raise _damaged(name, error) from error
        if first is None or last is None:
            raise _damaged(name, "its audio track holds no sound")
        samples, rate_hz = np.concatenate(blocks, axis=1), first.sample_rate

        # Length: infinite, and so never too short, where the file states no times.
        end_s = math.inf if last.time is None else last.time + last.samples / last.sample_rate
        stated_s = get_stated_duration(track)
        if track.duration is not None and track.time_base is not None:
            stated_s += first.time or 0.0
        check_duration(end_s, stated_s, name)

        # Start: together with the first video frame.
        videos = list_video_tracks(container)
        if videos and videos[0].start_time is not None and first.time is not None:
            start_s = float(videos[0].start_time * (videos[0].time_base or 0))
            samples = align_start(samples, rate_hz, first.time - start_s, name)
    return samples, rate_hz


def list_video_tracks(container: InputContainer) -> list[VideoStream]:
    """List the video tracks of a container, without still images such as covers."""
    from av.stream import Disposition

    return [
        track
        for track in container.streams.video
        if not track.disposition & Disposition.attached_pic
    ]


def get_stated_duration(track: AudioStream | VideoStream) -> float:
    """Return the duration that a container states for a track, seconds; 0 if it states none."""
    if track.duration is not None and track.time_base is not None:
        return float(track.duration * track.time_base)
    tag = track.metadata.get("DURATION", "0:0:0").split(":")  # Matroska: hours:minutes:seconds
    return sum(float(part) * unit for part, unit in zip(tag, (3600, 60, 1), strict=True))


def align_start(samples: np.ndarray, rate_hz: int, offset_s: float, name: str) -> np.ndarray:
    """Pad or trim ``(channel, sample)`` that starts `offset_s` after the first video frame.

    Warns
    -----
    UserWarning
        If the offset is more than half a video frame: less is left as it is.
    """
    if abs(offset_s) <= _OFFSET_S:
        return samples
    shift = round(offset_s * rate_hz)
    done = "padded with silence" if shift > 0 else "trimmed"
    side = "after" if shift > 0 else "before"
    message = (
        f"the sound of {name} starts {abs(offset_s) * 1e3:.0f} ms {side} its video frames; "
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


# --- whole files ----------------------------------------------------------------------------------


def check_duration(decoded_s: float, stated_s: float, name: str) -> None:
    """Refuse a file of which less could be decoded than it states."""
    if stated_s - decoded_s > _SHORTFALL_S:
        raise _truncated(name, f"it promises {stated_s:.2f} s, {decoded_s:.2f} s are there")


def count_missing_bytes(handle: BinaryIO) -> int:
    """Count the bytes that the headers of a file promise and the file lacks.

    Understands WAV, AIFF, AVI, Ogg, Matroska / WebM and MP4 / MOV. Formats that do not state their
    length, and files written to a pipe, are taken as complete.

    Parameters
    ----------
    handle
        A seekable binary file; left at its start.

    Returns
    -------
    int
        0 for a file that is whole (or of a kind that does not state its length). An Ogg file that
        lacks its last page counts as lacking 1 byte at least, since it does not say how many.

    Examples
    --------
    >>> import io
    >>> count_missing_bytes(io.BytesIO(b"RIFF" + bytes([100, 0, 0, 0]) + b"AVI " + bytes(50)))
    46
    """
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    head = handle.read(12)
    end = 0
    if len(head) < 12:
        pass
    elif head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:] == b"WAVE":
        end = find_wav_end(handle, ">" if head[:4] == b"RIFX" else "<", size)
    elif head[:4] in (b"RIFF", b"FORM"):  # AVI; AIFF
        length = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
        end = 0 if length >= _UNKNOWN_LENGTH else 8 + length
    elif head[:4] == b"OggS":
        end = find_ogg_end(handle, size)
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        end = find_matroska_end(handle)
    elif head[4:8] in _BOXES:
        end = find_mp4_end(handle, size)
    handle.seek(0)
    return max(0, end - size)


def find_wav_end(handle: BinaryIO, order: str, size: int) -> int:
    """Find where the data chunk of a WAV file should end; 0 if it does not state that."""
    at, long_length = 12, 0
    while at + 8 <= size:
        handle.seek(at)
        name, length = struct.unpack(f"{order}4sI", handle.read(8))
        if name == b"ds64":  # RF64: lengths over 4 GB are written here
            long_length = struct.unpack(f"{order}Q", handle.read(16)[8:].ljust(8, b"\0"))[0]
        if name == b"data" and length >= _UNKNOWN_LENGTH:
            return at + 8 + long_length if long_length else 0
        if name == b"data":
            return at + 8 + length
        at += 8 + length + length % 2
    return 0


def find_ogg_end(handle: BinaryIO, size: int) -> int:
    """Find where the last Ogg page ends; one past the file if the stream is not closed there."""
    start = handle.seek(max(0, size - _LARGEST_OGG_PAGE))
    tail = handle.read()
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return size + 1
    segments = tail[page + 27 : page + 27 + tail[page + 26]]
    if len(segments) < tail[page + 26]:
        return size + 1
    is_last = tail[page + 5] & 4
    return start + page + 27 + len(segments) + sum(segments) if is_last else size + 1


def find_matroska_end(handle: BinaryIO) -> int:
    """Find where the segment of a Matroska file should end; 0 if it does not state that."""
    handle.seek(4)
    header = read_ebml_integer(handle)
    handle.seek(header or 0, os.SEEK_CUR)
    if handle.read(4) != _SEGMENT:
        return 0
    length = read_ebml_integer(handle)
    return 0 if length is None else handle.tell() + length


def read_ebml_integer(handle: BinaryIO) -> int | None:
    """Read an EBML integer: as many leading zero bits as bytes follow; None for "unknown"."""
    first = (handle.read(1) or b"\0")[0]
    more = 8 - first.bit_length()
    mask = (1 << (7 * (more + 1))) - 1
    value = int.from_bytes(bytes([first]) + handle.read(more), "big") & mask
    return None if value == mask else value


def find_mp4_end(handle: BinaryIO, size: int) -> int:
    """Find where the last top-level box of an MP4 file should end."""
    at = end = 0
    while at + 8 <= size:
        handle.seek(at)
        length, name = struct.unpack(">I4s", handle.read(8))
        if length == 1:  # a 64-bit length follows
            length = int.from_bytes(handle.read(8), "big")
        if length < 8:  # 0: up to the end of the file
            break
        at += length
        end = at if name in _BOXES else end
    return end


def _truncated(name: str, detail: str) -> ValueError:
    return ValueError(f"{name} is cut short: {detail}; copy or record it again")


def _damaged(name: str, detail: object) -> ValueError:
    return ValueError(f"{name} is damaged or cut short: {detail}; copy or record it again")
