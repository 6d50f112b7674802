"""Demuxing by FFmpeg (PyAV): containers opened, their tracks chosen, their packets read.

FFmpeg is never given a name: it would take ``14:05 meeting.mp4`` for a protocol. It reads through a
file of ours, which keeps what goes wrong in reading, and so raises a broken disk as itself.
"""

from __future__ import annotations

import errno
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from avse_ppl.utils.interrupts import delay_interrupt

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

_Track = TypeVar("_Track", "AudioStream", "VideoStream")

_DURATION = re.compile(r"(\d+):(\d+):(\d+(?:\.\d*)?)")  # Matroska: hours:minutes:seconds


class GuardedFile:
    """Binary file for FFmpeg, which keeps what is raised while it is read.

    FFmpeg calls `read` from C, where an exception is lost or printed beside others. Here the file
    seems to end instead, and `raise_error` raises the exception once FFmpeg has returned.

    Parameters
    ----------
    handle
        The file.
    label
        Its name for messages.
    """

    def __init__(self, handle: BinaryIO, label: str) -> None:
        self.handle, self.label = handle, label
        self.error: BaseException | None = None
        path = getattr(handle, "name", "")
        suffix = Path(path).suffix if isinstance(path, str) else ""
        self.name = f"recording{suffix}"  # raw formats are known by their ending

    def read(self, size: int) -> bytes:
        """Read some bytes; none after an error."""
        if self.error is not None:
            return b""
        try:
            return self.handle.read(size)
        except BaseException as error:
            self.error = error
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; -1 where that is none."""
        if self.error is not None:
            return -1
        try:
            return self.handle.seek(offset, whence)
        except BaseException as error:
            damaged = isinstance(error, (ValueError, OverflowError)) or (
                isinstance(error, OSError) and error.errno == errno.EINVAL
            )  # a header that points outside of the file
            self.error = None if damaged else error
            return -1

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self.handle.tell()

    def raise_error(self) -> None:
        """Raise what was raised while the file was read, with its name.

        Raises
        ------
        OSError, BaseException
            As it was raised; an error of the disk with the name of the file.
        """
        if isinstance(self.error, OSError) and self.error.errno and self.error.filename is None:
            self.error.filename = self.label.strip("'")
        if self.error is not None:
            raise self.error


@dataclass(frozen=True)
class Media:
    """An open container.

    Parameters
    ----------
    container
        Of PyAV.
    file
        What it is read from.
    name
        For messages.
    """

    container: InputContainer
    file: GuardedFile
    name: str

    @property
    def audio_tracks(self) -> list[AudioStream]:
        """Audio tracks, in the order of the file."""
        return list(self.container.streams.audio)

    @property
    def video_tracks(self) -> list[VideoStream]:
        """Video tracks, without still images such as covers and thumbnails."""
        from av.stream import Disposition

        still = Disposition.attached_pic | Disposition.timed_thumbnails
        return [one for one in self.container.streams.video if not one.disposition & still]

    def read_packets(self, track: AudioStream | VideoStream) -> Iterator[Packet]:
        """Packets of a track; the last ones are empty and make its decoder return what is left.

        Raises
        ------
        FFmpegError
            If the container is damaged.
        OSError, KeyboardInterrupt
            What was raised while the file was read.
        """
        from av.error import FFmpegError

        packets = self.container.demux(track)
        while True:
            try:
                packet = delay_interrupt(lambda: next(packets, None))
            except FFmpegError:
                self.file.raise_error()
                raise
            self.file.raise_error()
            if packet is None:
                return
            yield packet


@contextmanager
def open_container(handle: BinaryIO, name: str, expected: str) -> Iterator[Media]:
    """Open a container, within the context.

    Parameters
    ----------
    handle
        A seekable binary file.
    name
        Of the file, for messages.
    expected
        What is looked for, for messages: ``"video"``.

    Raises
    ------
    ValueError
        If it is no container.
    OSError, KeyboardInterrupt
        What is raised while the file is read.
    """
    import av
    from av.error import FFmpegError

    handle.seek(0)
    file = GuardedFile(handle, name)

    def open_it() -> InputContainer:
        # A playlist that calls itself a video must not make FFmpeg open what it lists.
        options = {"protocol_whitelist": "none"}
        return av.open(file, mode="r", container_options=options, metadata_errors="replace")

    try:
        container = delay_interrupt(open_it)
    except (FFmpegError, IndexError) as error:
        file.raise_error()
        raise ValueError(
            f"expected {expected} in {name}, found {'none' if expected == 'video' else 'neither'} "
            f"({describe_ffmpeg_error(error)}); is it another kind of file, or cut short?"
        ) from error
    with container:
        file.raise_error()
        yield Media(container, file, name)


def describe_ffmpeg_error(error: Exception) -> str:
    """Reason of an error of FFmpeg, without its number and the name that it was given."""
    return getattr(error, "strerror", None) or str(error)


def choose_track(
    tracks: Sequence[_Track], number: int | None, kind: str, name: str, *, quiet: bool = False
) -> _Track:
    """Track of a number, or the default one: flagged as that, else the first.

    Parameters
    ----------
    tracks
        One or more, of one kind.
    number
        Which one, from 0; None for the default one.
    kind
        ``"audio"`` or ``"video"``.
    name
        Of the file, for messages.
    quiet
        Whether to leave out the warning.

    Raises
    ------
    ValueError
        If there is no such track, or no decoder for it.

    Warns
    -----
    UserWarning
        Which one of several was taken, where no number is given.
    """
    from av.stream import Disposition

    if number is not None and not (isinstance(number, int) and 0 <= number < len(tracks)):
        raise ValueError(
            f"expected {kind} track {number!r} (from 0) in {name}, found {len(tracks)}: "
            f"{list_tracks(tracks)}; choose another number"
        )
    flagged = [i for i, one in enumerate(tracks) if one.disposition & Disposition.default]
    chosen = number if number is not None else (flagged or [0])[0]
    if number is None and len(tracks) > 1 and not quiet:
        why = "flagged as the default" if chosen in flagged else "the first"
        message = (
            f"{len(tracks)} {kind} tracks in {name}: {list_tracks(tracks)}; took number {chosen}, "
            f"{why}; choose another one by {kind}_track= (--{kind}-track)"
        )
        warnings.warn(message, UserWarning, stacklevel=3)
    track = tracks[chosen]
    if track.codec_context is None:
        raise ValueError(
            f"the {kind} of {name} is encoded in a way that FFmpeg does not know; convert it with "
            "the program that it is from"
        )
    limit_threads(track)
    return track


def list_tracks(tracks: Sequence[AudioStream | VideoStream]) -> str:
    """Numbers of tracks with their languages, titles and sizes."""
    listed = []
    for number, track in enumerate(tracks):
        context = track.codec_context
        size = ""
        if track.type == "audio" and context is not None:
            channels = track.channels  # type: ignore[union-attr]
            size = f"{channels} channel{'s' if channels != 1 else ''}"
        elif context is not None:
            size = f"{track.width}x{track.height}"  # type: ignore[union-attr]
        title = track.metadata.get("title") or track.metadata.get("handler_name")
        language = track.language if track.language != "und" else None
        words = [language, f"'{title}'" if title else None, size]
        listed.append(f"{number} ({', '.join(word for word in words if word)})")
    return ", ".join(listed)


def limit_threads(track: AudioStream | VideoStream) -> None:
    """Decode with all cores, or with one thread where FFmpeg's log goes to Python.

    Threads of a decoder that log wait for Python's lock, which PyAV holds while it waits for these
    threads to end: for ever.
    """
    import av.logging

    if av.logging.get_level() is not None:
        track.codec_context.thread_count = 1
        track.codec_context.thread_type = "NONE"
    elif track.type == "video":
        track.codec_context.thread_type = "AUTO"


def get_stated_end(track: AudioStream | VideoStream) -> float | None:
    """Return when a track ends as its container states, seconds on its clock; None if it does not.

    Matroska has it in a tag, which other programs also use for the length: then it is early.
    """
    if track.duration is not None and track.time_base is not None:
        return float(((track.start_time or 0) + track.duration) * track.time_base)
    tag = _DURATION.fullmatch(track.metadata.get("DURATION", "").strip())
    if tag is None:  # none, or nonsense
        return None
    hours, minutes, seconds = map(float, tag.groups())
    end_s = 3600 * hours + 60 * minutes + seconds
    return end_s if math.isfinite(end_s) else None


def get_start(track: AudioStream | VideoStream) -> float | None:
    """Return when a track starts, seconds on the clock of its container; None if unknown."""
    if track.start_time is None or track.time_base is None:
        return None
    return float(track.start_time * track.time_base)
