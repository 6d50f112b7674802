"""Corruptions of the video frames of a file; its audio is copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from avse_ppl.signal.demuxer import Media, get_start
from avse_ppl.utils.files import atomic_path
from avse_ppl.video.corruptions.base import Corrupted, CorruptionContext
from avse_ppl.video.corruptions.compositing import composite_crop, make_placement
from avse_ppl.video.corruptions.registry import KINDS, corrupt
from avse_ppl.video.frames import open_video, read_video_frames
from avse_ppl.video.lips import Lips

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

SUFFIXES = (".mkv", ".mp4", ".mov", ".avi")
_TICK = Fraction(1, 12800)  # seconds
# Without assembly: with it, one encoding in some 300 differs from the others of the same pictures.
_QUALITY: dict[str, object] = {
    "crf": "16",
    "preset": "veryfast",
    "threads": "1",
    "x264-params": "no-asm=1",
}


@dataclass(frozen=True, eq=False)
class CorruptedVideo:
    """What was written, and what is true of it.

    Parameters
    ----------
    path
        The file.
    known
        Crops, reliability and cause of each video frame.
    start, stop
        First video frame that is corrupted, and the one after the last.
    """

    path: Path
    known: Corrupted
    start: int
    stop: int


def corrupt_video(
    source: str | Path,
    output: str | Path,
    kind: str,
    lips: Lips,
    *,
    severity: float = 1.0,
    start_s: float = 0.0,
    end_s: float | None = None,
    seed: int = 0,
    other: tuple[str | Path, Lips] | None = None,
) -> CorruptedVideo:
    """Write a video that is corrupted in a known way.

    What covers or degrades the mouth is drawn onto the square around it that a tracker cuts out;
    what concerns time changes whole video frames. They are written upright, with square pixels.

    Parameters
    ----------
    source, output
        Video files; the output ends in .mkv, .mp4, .mov or .avi. It is written beside its place,
        then renamed; of one seed it is the same file each time.
    kind
        One of `avse_ppl.video.corruptions.kinds`, but not those that are a tracker's mistakes.
    lips
        What `avse_ppl.video.read_lips` read from the source, not resampled.
    severity, seed
        As for `corrupt`.
    start_s, end_s
        The span, seconds; None for the end of the video.
    other
        For ``"other-speaker"``: another video, and its lips.

    Returns
    -------
    CorruptedVideo
        The file with its truth.

    Raises
    ------
    ValueError
        If the kind is unknown, is a tracker's mistake, or lacks `other`; if the severity is not in
        [0, 1]; or if no video frame lies between start and end.
    OSError
        If the output cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from avse_ppl.video import read_lips
    >>> mouth = "examples/data/mouth.mkv"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = corrupt_video(mouth, f"{folder}/a.mkv", "hand", read_lips(mouth), end_s=1.0)
    >>> made.start, made.stop
    (0, 25)
    """
    from avse_ppl.utils.files import check_writable

    output = check_writable(output, suffixes=SUFFIXES)
    donor = None if other is None else other[1]
    span = find_span(lips, start_s, end_s)
    check_kind(kind, severity, other is not None)
    known = corrupt(lips, kind, severity=severity, span=span, seed=seed, donor=donor)
    frames = KINDS[kind].frames
    if frames is None:
        shown = paint_crops(source, lips, known.lips, span)
    else:
        context = CorruptionContext(
            lips, *span, float(severity), np.random.default_rng(seed), donor
        )
        shown = exchange_frames(source, None if other is None else other[0], frames(context), span)
    _write(Path(source), output, shown)
    return CorruptedVideo(output, known, *span)


def find_span(lips: Lips, start_s: float, end_s: float | None) -> tuple[int, int]:
    """First video frame from `start_s` on, and the first not before `end_s`.

    Raises
    ------
    ValueError
        If there is none between.
    """
    end_s = lips.duration_s if end_s is None else end_s
    if not end_s > start_s:
        raise ValueError(f"expected an end after the start, found {start_s:g} s to {end_s:g} s")
    start, stop = (int(np.searchsorted(lips.time_s, t - 1e-6)) for t in (start_s, end_s))
    if start_s < 0 or stop <= start:
        raise ValueError(
            f"expected a span within the video, 0 to {lips.duration_s:.2f} s, found {start_s:g} s "
            f"to {end_s:g} s"
        )
    return start, stop


def check_kind(kind: str, severity: float, has_other: bool) -> None:
    """Refuse what cannot be done, before long work.

    Raises
    ------
    ValueError
        If the kind is unknown, is a tracker's mistake or lacks another video, or the severity is
        not in [0, 1].
    """
    known = [name for name, one in KINDS.items() if not one.of_tracker]
    if kind not in KINDS:
        from avse_ppl.models.validation import unknown_name

        raise unknown_name("corruption", kind, known)
    if kind not in known:
        raise ValueError(
            f"'{kind}' is a mistake of the tracker, which no video can hold; expected one of "
            f"{', '.join(known)}"
        )
    if KINDS[kind].needs_donor and not has_other:
        raise ValueError(
            f"'{kind}' shows the lips of another video; give it with other=, on the command line "
            "with --with FILE"
        )
    if not 0.0 <= severity <= 1.0:
        raise ValueError(f"expected a severity from 0 to 1, found {severity:g}")


def paint_crops(
    source: str | Path, lips: Lips, after: Lips, span: tuple[int, int]
) -> Iterator[tuple[np.ndarray, float]]:
    """Pictures with their crops painted over."""
    places = make_placement(lips)
    for picture in read_video_frames(source):
        colour, row = picture.colour(), picture.index
        if span[0] <= row < span[1] and lips.found[row]:
            place = places(row, picture.size_px)
            colour = composite_crop(colour, lips.roi[row], after.roi[row], place)
        yield colour, picture.time_s


def exchange_frames(
    source: str | Path, other: str | Path | None, index: np.ndarray, span: tuple[int, int]
) -> Iterator[tuple[np.ndarray, float]]:
    """Pictures of the span exchanged for others, or for black ones."""
    import cv2

    wanted = {int(i) for i in index if i >= 0}
    held = {
        picture.index: picture.colour()
        for picture in read_video_frames(other or source, quiet=True)
        if picture.index in wanted
    }
    for picture in read_video_frames(source):
        colour, row = picture.colour(), picture.index - span[0]
        if 0 <= row < len(index):
            taken = held.get(int(index[row]))
            colour = np.zeros_like(colour) if taken is None else taken
            size = picture.size_px
            if colour.shape[1::-1] != size:
                colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
        yield colour, picture.time_s


def _write(source: Path, output: Path, shown: Iterator[tuple[np.ndarray, float]]) -> None:
    """Encode video frames, and copy the sound."""
    import av
    from av.error import FFmpegError

    file_format = output.suffix.lower().removeprefix(".").replace("mkv", "matroska")
    try:
        with (
            atomic_path(output) as temporary,
            open_video(source, quiet=True) as (media, video),
            av.open(
                # Absolute: FFmpeg takes a name with a colon for a protocol.
                str(temporary.absolute()), mode="w", format=file_format,
                options={"fflags": "+bitexact"},
            ) as made,
        ):  # fmt: skip
            begin_s = get_start(video) or 0.0
            sound = _sound(media, made)
            first, time_s = next(shown)
            track = _track(made, video, first)
            _encode(made, track, first, time_s + begin_s)
            for colour, time_s in shown:
                _encode(made, track, colour, time_s + begin_s)
            made.mux(track.encode(None))
            _copy(media, made, sound)
    except FFmpegError as error:
        raise OSError(f"cannot write '{output}': {error}; try another ending") from error


def _track(made: OutputContainer, source: VideoStream, first: np.ndarray) -> VideoStream:
    import av

    rate = source.average_rate or 25
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    track = cast("VideoStream", made.add_stream(codec, rate=rate))
    track.height, track.width = (side - side % 2 for side in first.shape[:2])
    track.pix_fmt = "yuv420p"
    track.options = dict(_QUALITY) if codec == "libx264" else {"qscale": "2"}
    track.codec_context.time_base = _TICK
    return track


def _encode(made: OutputContainer, track: VideoStream, colour: np.ndarray, time_s: float) -> None:
    import av

    even = np.ascontiguousarray(colour[: track.height, : track.width])
    frame = av.VideoFrame.from_ndarray(even, format="bgr24")
    frame.pts, frame.time_base = round(time_s / _TICK), _TICK
    made.mux(track.encode(frame))


def _sound(media: Media, made: OutputContainer) -> list[tuple[Any, Any]]:
    return [(track, made.add_stream_from_template(track)) for track in media.audio_tracks]


def _copy(media: Media, made: OutputContainer, sound: list[tuple[Any, Any]]) -> None:
    for track, copy in sound:
        media.container.seek(0)
        for packet in media.read_packets(track):
            if packet.dts is not None:
                packet.stream = copy
                made.mux(packet)
