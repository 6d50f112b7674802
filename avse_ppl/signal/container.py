"""Media containers by FFmpeg (PyAV): the sound of videos, in time with their frames."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from avse_ppl.signal.whole_file import check_duration, damaged_error

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

_OFFSET_S = 0.02  # half a video frame: nobody sees or hears less


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
            raise damaged_error(name, error) from error
        if first is None or last is None:
            raise damaged_error(name, "its audio track holds no sound")
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
