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

from avse_ppl.signal.demuxer import (
    Media,
    choose_track,
    get_start,
    get_stated_end,
    open_container,
)
from avse_ppl.signal.media import Readable, open_media
from avse_ppl.signal.time_stamps import MAX_OVERLAP_S, MAX_SILENCE_S, count_times

if TYPE_CHECKING:
    import av
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


def read_video_frames(
    source: Readable, *, track: int | None = None, quiet: bool = False
) -> Iterator[VideoFrame]:
    """Decode the frames of a video one after the other.

    Parameters
    ----------
    source
        A path, or the bytes of an encoded file.
    track
        Number of the video track, from 0; None for the one that is flagged as the default.
    quiet
        Whether to leave out the warnings (for a second reading).

    Yields
    ------
    VideoFrame
        In the order of their times, which always grow. Damaged frames are left out.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If the path cannot be opened.
    OSError, KeyboardInterrupt
        What is raised while it is read.
    ValueError
        If the file is empty, holds no video, none of its frames can be decoded, or its time stamps
        cannot be right.

    Warns
    -----
    UserWarning
        If some frames are damaged, fewer are there than the file promises, their clock is set back,
        or one of several tracks was taken.

    Examples
    --------
    >>> next(read_video_frames("examples/data/speech.mkv")).size_px
    (360, 288)
    """
    with open_video(source, track, quiet=quiet) as (media, video):
        name, faults, restarts = media.name, [0], 0
        start_s, period_s = get_start(video) or 0.0, 1 / float(video.average_rate or _RATE_HZ)
        last_s, index = -np.inf, 0
        for frame in decode_frames(media, video, faults):
            time_s = index * period_s if frame.time is None else frame.time - start_s
            if time_s < last_s - MAX_OVERLAP_S:  # the clock was set back: go on where it was
                start_s -= last_s + period_s - time_s
                time_s, restarts = last_s + period_s, restarts + 1
            if index and time_s - last_s > MAX_SILENCE_S:
                raise ValueError(
                    f"the video of {name} shows nothing from {last_s:.0f} s to {time_s:.0f} s: its "
                    "time stamps cannot be right; save it anew, or cut it there"
                )
            if time_s <= last_s:
                continue
            yield VideoFrame(index, time_s, frame, float(video.sample_aspect_ratio or 1))
            last_s, index = time_s, index + 1
        if index == 0:
            raise ValueError(
                f"{name} is damaged: none of its video frames can be decoded; "
                "copy or record it again"
            )
        if quiet:
            return
        if faults[0]:
            message = f"{faults[0]} video frames of {name} are damaged and were left out"
            warnings.warn(message, UserWarning, stacklevel=2)
        if restarts:
            message = (
                f"the video of {name} has time stamps that go back {count_times(restarts)} (joined "
                "recordings?): what follows was put right after"
            )
            warnings.warn(message, UserWarning, stacklevel=2)
        promised_s = (get_stated_end(video) or 0.0) - (get_start(video) or 0.0)
        if promised_s - last_s > _SHORTFALL_S:
            message = (
                f"the video of {name} is cut short: it promises {promised_s:.2f} s, and ends "
                f"at {last_s:.2f} s"
            )
            warnings.warn(message, UserWarning, stacklevel=2)


def count_video_frames(source: Readable, *, track: int | None = None) -> int:
    """Count the frames that a container states or its length suggests; 0 if neither.

    Examples
    --------
    >>> count_video_frames("examples/data/speech.mkv")
    75
    """
    with open_video(source, track, quiet=True) as (media, video):
        if video.frames:
            return video.frames
        end_s = get_stated_end(video)
        if end_s is None:
            length_s = (media.container.duration or 0) / 1e6
        else:
            length_s = end_s - (get_start(video) or 0.0)
        return max(0, round(length_s * float(video.average_rate or 0)))


@contextmanager
def open_video(
    source: Readable, track: int | None = None, *, quiet: bool = False
) -> Iterator[tuple[Media, VideoStream]]:
    """Container and video track of a source, open within the context.

    Parameters
    ----------
    source, track, quiet
        As in `read_video_frames`.

    Raises
    ------
    ValueError
        If it is no container, or holds no video or no such track.
    """
    with open_media(source) as (handle, name), open_container(handle, name, "video") as media:
        if not media.video_tracks:
            raise ValueError(
                f"expected video in {name}, found no video track; "
                "give the video of the speaker, or enhance the sound without video"
            )
        yield media, choose_track(media.video_tracks, track, "video", name, quiet=quiet)


def decode_frames(media: Media, track: VideoStream, faults: list[int]) -> Iterator[av.VideoFrame]:
    """Decode the frames of a track, and count in `faults[0]` the damaged ones."""
    from av.error import FFmpegError

    packets = media.read_packets(track)
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
                yield frame  # type: ignore[misc]
