"""Sound of media containers by FFmpeg (PyAV), in time with their video frames."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from avse_ppl.signal.demuxer import (
    Media,
    choose_track,
    describe_ffmpeg_error,
    get_start,
    get_stated_end,
    open_container,
)
from avse_ppl.signal.time_stamps import apply_jumps, check_silence, find_jumps
from avse_ppl.signal.whole_file import check_duration, damaged_error

if TYPE_CHECKING:
    from av.audio.stream import AudioStream

_OFFSET_S = 0.02  # half a video frame: nobody sees or hears less
_RAW = {"aac", "ac3", "amr", "dts", "eac3", "loas", "mlp", "mp3", "truehd"}
_LONGEST_BLOCK_S = 0.15  # of a lossy codec: by so much do containers count its delay in or out


def read_with_ffmpeg(
    handle: BinaryIO, name: str, track: int | None = None
) -> tuple[np.ndarray, int]:
    """Decode an audio track by FFmpeg, aligned with the first video frame if there is one.

    Parameters
    ----------
    handle
        A seekable binary file.
    name
        Of the file, for messages.
    track
        Number of the audio track, from 0; None for the one that is flagged as the default.

    Raises
    ------
    ValueError
        If the file is of no known kind, has no sound or no such track, is damaged, or has time
        stamps that cannot be right.
    OSError, KeyboardInterrupt
        What is raised while the file is read.

    Warns
    -----
    UserWarning
        If one of several tracks was taken; if there are gaps in the sound, or it starts earlier or
        later than the video frames; if it changes its rate or channels.
    """
    with open_container(handle, name, "audio or video") as media:
        if not media.audio_tracks:
            raise ValueError(
                f"expected sound in {name}, found no audio track; "
                "give a recording, or a video that was saved with its sound"
            )
        sound = choose_track(media.audio_tracks, track, "audio", name)
        runs, times_s, lengths_s = decode_runs(media, sound)

        # Gaps.
        samples, rate_hz = join_runs(runs, name)
        edges = np.round(np.concatenate([[0.0], np.cumsum(lengths_s)]) * rate_hz).astype(int)
        jumps = [] if is_raw(media) else find_jumps(times_s, np.diff(edges).tolist(), rate_hz)
        samples = apply_jumps(samples, jumps, rate_hz, name)

        # Length. Where the clock was set back, the last time stamp is early.
        first_s = next((time for time in times_s if time is not None), None)
        stated_s = None if is_length_guessed(media, sound) else get_stated_end(sound)
        if stated_s is not None and first_s is not None:
            end_s = first_s + samples.shape[1] / rate_hz
            if times_s[-1] is not None:
                end_s = max(end_s, times_s[-1] + lengths_s[-1])
            delay_s = 0.0 if sound.duration is not None else min(lengths_s[-1], _LONGEST_BLOCK_S)
            if stated_s - end_s > delay_s:
                check_duration(end_s, stated_s, name)

        # Start: together with the first video frame.
        if media.video_tracks and first_s is not None:
            start_s = get_start(choose_track(media.video_tracks, None, "video", name, quiet=True))
            if start_s is not None:
                samples = align_start(samples, rate_hz, first_s - start_s, name)
    return samples, rate_hz


def is_raw(media: Media) -> bool:
    """Whether a file is a bare stream of packets, of which FFmpeg guesses times and length."""
    return media.container.format.name in _RAW


def is_length_guessed(media: Media, track: AudioStream) -> bool:
    """Whether the length of a bare stream is the size of the file over the bit rate of its start.

    An MP3 file may have a header that counts its frames; cut short, it is too small for them.
    """
    if not is_raw(media) or not track.duration or not track.bit_rate:
        return is_raw(media)
    by_size_s = 8 * media.file.seek(0, os.SEEK_END) / track.bit_rate
    return media.container.format.name != "mp3" or (
        by_size_s >= 0.98 * float(track.duration * (track.time_base or 0))
    )


@dataclass
class Run:
    """Successive blocks of one rate, layout and sample format.

    Parameters
    ----------
    rate_hz
        Sampling rate.
    layout
        Of the channels, as FFmpeg names it.
    sample_format
        As FFmpeg names it.
    blocks
        ``(channel, sample)`` float32 each.
    """

    rate_hz: int
    layout: str
    sample_format: str
    blocks: list[np.ndarray]

    @property
    def duration_s(self) -> float:
        """Length, seconds."""
        return sum(block.shape[1] for block in self.blocks) / self.rate_hz


def decode_runs(
    media: Media, track: AudioStream
) -> tuple[list[Run], list[float | None], list[float]]:
    """Decode an audio track to float32.

    Returns
    -------
    tuple
        Runs of equal format; the time stamp of each decoded block in seconds, None where it has
        none; the length of each block in seconds.

    Raises
    ------
    ValueError
        If the track is damaged or holds no sound.
    """
    from av import AudioResampler
    from av.error import FFmpegError

    runs: list[Run] = []
    times_s: list[float | None] = []
    lengths_s: list[float] = []
    to_float = None
    try:
        for packet in media.read_packets(track):
            for frame in packet.decode():
                if frame.samples == 0:
                    continue
                kind = (frame.sample_rate, frame.layout.name, frame.format.name)
                last = runs[-1] if runs else None
                if last is None or kind != (last.rate_hz, last.layout, last.sample_format):
                    to_float = AudioResampler(format="fltp")
                    runs.append(Run(*kind, blocks=[]))
                times_s.append(frame.time)
                lengths_s.append(frame.samples / frame.sample_rate)
                blocks = to_float.resample(frame)  # type: ignore[union-attr]
                runs[-1].blocks.extend(block.to_ndarray() for block in blocks)
    except FFmpegError as error:
        raise damaged_error(media.name, describe_ffmpeg_error(error)) from error
    if not runs:
        raise damaged_error(media.name, "its audio track holds no sound")
    return runs, times_s, lengths_s


def join_runs(runs: Sequence[Run], name: str) -> tuple[np.ndarray, int]:
    """Join runs to ``(channel, sample)``, all at the rate and layout that most of the sound has.

    Warns
    -----
    UserWarning
        If they differ.
    """
    from av import AudioFrame, AudioResampler

    lasting: Counter[tuple[int, str]] = Counter()
    for run in runs:
        lasting[run.rate_hz, run.layout] += run.duration_s  # type: ignore[assignment]
    rate_hz, layout = max(lasting, key=lambda kind: lasting[kind])
    joined, at_s = [], 0.0
    for run in runs:
        samples = np.concatenate(run.blocks, axis=1)
        if (run.rate_hz, run.layout) != (rate_hz, layout):
            frame = AudioFrame.from_ndarray(samples, format="fltp", layout=run.layout)
            frame.sample_rate = run.rate_hz
            convert = AudioResampler(format="fltp", layout=layout, rate=rate_hz)
            parts = [*convert.resample(frame), *convert.resample(None)]
            samples = np.concatenate([part.to_ndarray() for part in parts], axis=1)
        end_s = at_s + run.duration_s
        length = round(end_s * rate_hz) - round(at_s * rate_hz)
        missing = max(0, length - samples.shape[1])
        joined.append(np.pad(samples[:, :length], ((0, 0), (0, missing))))
        at_s = end_s
    if len(lasting) > 1:
        kinds = ", ".join(f"{rate} Hz {channels}" for rate, channels in lasting)
        message = (
            f"the sound of {name} changes on its way ({kinds}); all of it was converted to "
            f"{rate_hz} Hz {layout}"
        )
        warnings.warn(message, UserWarning, stacklevel=3)
    return np.concatenate(joined, axis=1), rate_hz


def align_start(samples: np.ndarray, rate_hz: int, offset_s: float, name: str) -> np.ndarray:
    """Pad or trim ``(channel, sample)`` that starts `offset_s` after the first video frame.

    Raises
    ------
    ValueError
        If the offset is implausibly long, or the sound ends before the video begins.

    Warns
    -----
    UserWarning
        If the offset is more than half a video frame: less is left as it is.
    """
    if abs(offset_s) <= _OFFSET_S:
        return samples
    length_s = samples.shape[1] / rate_hz
    check_silence(offset_s, length_s, "starts after the first video frame by", name)
    if length_s + offset_s <= 0:
        raise ValueError(
            f"the sound of {name} ends {-offset_s - length_s:.0f} s before its first video frame: "
            "one of their clocks is wrong; save the sound as a WAV file, and give the video beside "
            "it with an offset"
        )
    shift = round(offset_s * rate_hz)
    done = "padded with silence" if shift > 0 else "trimmed"
    side = "after" if shift > 0 else "before"
    message = (
        f"the sound of {name} starts {abs(offset_s) * 1e3:.0f} ms {side} its video frames; "
        f"{done} so that both start together"
    )
    warnings.warn(message, UserWarning, stacklevel=2)
    return np.pad(samples, ((0, 0), (max(shift, 0), 0)))[:, max(-shift, 0) :]
