"""Video frames of any container, with their presentation times.

FFmpeg (PyAV) decodes; handled here is what containers do to frames: rotation of phones, pixels that
are not square, variable rate, damaged packets.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from avse_ppl.signal.container import get_stated_duration, list_video_tracks
from avse_ppl.signal.media import Readable, open_media

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream

_SHORTFALL_S = 0.5  # containers count the last frame, or the audio, each in its way
_RATE_HZ = 25.0  # of a container that states neither times nor a rate


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One decoded video frame.

    Parameters
    ----------
    index
        Which frame of the video it is, from 0.
    time_s
        When it is shown, seconds after the first one.
    frame
        What FFmpeg decoded.
    aspect
        Width of a pixel divided by its height.
    """

    index: int
    time_s: float
    frame: av.VideoFrame
    aspect: float = 1.0

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height as shown: upright, with square pixels."""
        width, height = round(self.frame.width * self.aspect), self.frame.height
        return (height, width) if self.quarter_turns % 2 else (width, height)

    @property
    def quarter_turns(self) -> int:
        """Rotation that the container asks for, in turns of 90 degrees, 0 to 3."""
        return round(getattr(self.frame, "rotation", 0) / 90) % 4

    def grey(self, scale: float = 1.0) -> np.ndarray:
        """Return ``(height, width)`` uint8, full range, `scale` times as large."""
        return self.convert("gray", scale)

    def colour(self, scale: float = 1.0) -> np.ndarray:
        """Return ``(height, width, 3)`` uint8 in the order blue, green, red."""
        return self.convert("bgr24", scale)

    def convert(self, pixels: str, scale: float) -> np.ndarray:
        """Upright array in a pixel format of FFmpeg, `scale` times as large."""
        width = max(round(self.frame.width * self.aspect * scale), 1)
        height = max(round(self.frame.height * scale), 1)
        array = self.frame.reformat(width=width, height=height, format=pixels).to_ndarray()
        return np.ascontiguousarray(np.rot90(array, self.quarter_turns))


def read_video_frames(source: Readable, *, quiet: bool = False) -> Iterator[VideoFrame]:
    """Decode the frames of a video one after the other.

    Parameters
    ----------
    source
        A path, or the bytes of an encoded file.
    quiet
        Whether to leave out the warning about damaged frames (for a second reading).

    Yields
    ------
    VideoFrame
        In the order of their times, which always grow. Damaged frames are left out.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If the path cannot be opened.
    ValueError
        If the file is empty, holds no video, or none of its frames can be decoded.

    Warns
    -----
    UserWarning
        If some frames are damaged, or fewer are there than the file promises.

    Examples
    --------
    >>> next(read_video_frames("examples/data/speech.mkv")).size_px
    (360, 288)
    """
    with open_video(source) as (container, track, name):
        faults = [0]
        last_s, index = -np.inf, 0
        for frame in decode_frames(container, track, faults):
            if frame.time is None:
                time_s = index / float(track.average_rate or _RATE_HZ)
            else:
                time_s = frame.time - float((track.start_time or 0) * (track.time_base or 0))
            if time_s <= last_s:
                continue
            yield VideoFrame(index, time_s, frame, float(track.sample_aspect_ratio or 1))
            last_s, index = time_s, index + 1
        promised_s = get_stated_duration(track)
        if index == 0:
            raise ValueError(
                f"{name} is damaged: none of its video frames can be decoded; "
                "copy or record it again"
            )
        if faults[0] and not quiet:
            message = f"{faults[0]} video frames of {name} are damaged and were left out"
            warnings.warn(message, UserWarning, stacklevel=2)
        if promised_s - last_s > _SHORTFALL_S and not quiet:
            message = (
                f"the video of {name} is cut short: it promises {promised_s:.2f} s, and ends "
                f"at {last_s:.2f} s"
            )
            warnings.warn(message, UserWarning, stacklevel=2)


def count_video_frames(source: Readable) -> int:
    """Count the frames that a container states or its length suggests; 0 if neither.

    Examples
    --------
    >>> count_video_frames("examples/data/speech.mkv")
    75
    """
    with open_video(source) as (container, track, _):
        if track.frames:
            return track.frames
        rate_hz = float(track.average_rate or 0)
        return round((container.duration or 0) / 1e6 * rate_hz)


@contextmanager
def open_video(source: Readable) -> Iterator[tuple[InputContainer, VideoStream, str]]:
    """Container, first video track and name of a source, open within the context.

    Raises
    ------
    ValueError
        If it is no container, or holds no video.
    """
    import av
    from av.error import FFmpegError

    with open_media(source) as (handle, name):
        handle.seek(0)
        try:
            container = av.open(handle, mode="r")
        except (FFmpegError, IndexError) as error:
            raise ValueError(
                f"expected video in {name}, found none ({error}); "
                "is it another kind of file, or cut short?"
            ) from error
        with container:
            moving = list_video_tracks(container)
            if not moving:
                raise ValueError(
                    f"expected video in {name}, found no video track; "
                    "give the video of the speaker, or enhance the sound without video"
                )
            moving[0].thread_type = "AUTO"
            yield container, moving[0], name


def decode_frames(
    container: InputContainer, track: VideoStream, faults: list[int]
) -> Iterator[av.VideoFrame]:
    """Decode the frames of a track, and count in `faults[0]` the damaged ones."""
    from av.error import FFmpegError

    packets = container.demux(track)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except FFmpegError:
            faults[0] += 1
            return
        try:
            frames = packet.decode()
        except FFmpegError:
            faults[0] += 1
            continue
        for frame in frames:
            if frame.is_corrupt:
                faults[0] += 1
            else:
                yield frame
