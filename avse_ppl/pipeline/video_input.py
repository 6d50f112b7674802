"""How the video of a recording is looked at before it is enhanced."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from avse_ppl.signal.audio import Audio

if TYPE_CHECKING:
    from avse_ppl.video import Lips

_Of = TypeVar("_Of")

_NOTICED_S = 0.06  # one and a half pictures: less is neither seen nor heard
_BELIEVED = 0.5  # confidence in an offset, above which it is spoken of
_LENGTH_S = 0.5  # by which video and sound may differ before it is said


@dataclass(frozen=True)
class VideoOptions:
    """Settings of the way from a video to lips.

    Parameters
    ----------
    face_model
        Weights of the face detector; see `avse_ppl.video.read_lips`.
    face
        Which of several faces: a number from the left, ``"largest"`` or ``"auto"``.
    frontalise
        Whether turned faces are shown from the front.
    offset_s
        How much later the sound is than the lips, seconds; ``"auto"`` estimates and corrects it,
        None estimates it and says so where it is noticeable.
    optional
        Whether a recording whose video cannot be used is enhanced by ear alone, with a warning.

    Examples
    --------
    >>> VideoOptions(offset_s="soon")
    Traceback (most recent call last):
    ValueError: offset_s must be a number of seconds, 'auto' or None, not 'soon'
    """

    face_model: str | os.PathLike[str] | Any = None
    face: Any = "auto"
    frontalise: bool = False
    offset_s: float | str | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        """Check the offset."""
        if isinstance(self.offset_s, str) and self.offset_s != "auto":
            raise ValueError(
                f"offset_s must be a number of seconds, 'auto' or None, not {self.offset_s!r}"
            )


def prepare_lips(video: Any, audio: Audio, viewing: VideoOptions) -> Lips | None:
    """Lips of the speaker of a recording, in time with it; None where there is no video.

    Parameters
    ----------
    video
        ``Lips``, the path or bytes of a video, or None.
    audio
        The recording.
    viewing
        How to look.

    Raises
    ------
    ValueError, OSError, ModuleNotFoundError
        What `read_lips` raises, unless the video is optional.

    Warns
    -----
    UserWarning
        If video and sound are of different length or apart in time; if an optional video cannot be
        used.
    """
    if video is None:
        return None
    try:
        lips = _read(video, viewing)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if not viewing.optional:
            raise
        _warn(f"the video is left out and the sound enhanced alone: {error}")
        return None
    _compare_lengths(lips, audio)
    return _in_time(lips, audio, viewing.offset_s)


def prepare_all_lips(
    video: Any, recordings: Sequence[Audio], viewing: VideoOptions
) -> list[Lips | None]:
    """Lips of each recording; ``video`` is a list, one for each, or one for a single recording.

    Raises
    ------
    ValueError
        If there are not as many videos as recordings; and as `prepare_lips` does.
    """
    if video is None:
        return [None] * len(recordings)
    several = isinstance(video, Sequence) and not isinstance(video, (str, bytes))
    videos = list(video) if several else [video]
    if len(videos) != len(recordings):
        raise ValueError(
            f"{len(videos)} videos for {len(recordings)} recordings; give one for each, with None "
            "for those without"
        )
    return [
        prepare_lips(one, audio, viewing) for one, audio in zip(videos, recordings, strict=True)
    ]


def video_of(recording: Path, given: Path | None) -> Path | None:
    """The video of a recording: the one given, or the recording itself if it is one."""
    return given or (recording if has_pictures(recording) else None)


def speech_for(
    speech: Any, videos: Mapping[_Of, Path | None], given: Path | None
) -> tuple[Any, dict[_Of, Path | None]]:
    """Speech prior, and the videos that it is shown: none, where it does not see.

    Parameters
    ----------
    speech
        As in `enhance`; None: what suits recordings with video, or without.
    videos
        From `video_of`.
    given
        The video that was asked to be looked at, and not only found in a recording.

    Raises
    ------
    ValueError
        If the prior is unknown, or would ignore the video given.
    """
    from avse_ppl.inference.core.video import check_audio_visual
    from avse_ppl.pipeline.catalog import resolve_speech

    prior = resolve_speech(speech, sees=any(path is not None for path in videos.values()))
    check_audio_visual(prior, given)
    sees = getattr(prior, "lips", None) is not None
    return prior, {of: path if sees else None for of, path in videos.items()}


def has_pictures(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds moving pictures, and not only a cover."""
    from av import open as open_media
    from av.error import FFmpegError
    from av.stream import Disposition

    try:
        with open_media(str(path)) as container:
            tracks = container.streams.video
            return any(not track.disposition & Disposition.attached_pic for track in tracks)
    except (FFmpegError, OSError, IndexError):
        return False


def _read(video: Any, viewing: VideoOptions) -> Lips:
    from avse_ppl.video import Lips, read_lips

    if isinstance(video, Lips):
        return video
    if not isinstance(video, (str, Path, os.PathLike, bytes, bytearray, memoryview)):
        raise ValueError(
            f"expected a video as a path, the bytes of a file or Lips, found {type(video).__name__}"
        )
    return read_lips(
        video, face_model=viewing.face_model, face=viewing.face, frontalise=viewing.frontalise
    )


def _compare_lengths(lips: Lips, audio: Audio) -> None:
    end_s = float(lips.time_s[-1]) + 0.04 if len(lips) else 0.0
    if abs(end_s - audio.duration_s) > _LENGTH_S:
        which = "what comes after it is enhanced by ear" if end_s < audio.duration_s else "cut off"
        _warn(f"the video lasts {end_s:.2f} s, the sound {audio.duration_s:.2f} s: {which}")


def _in_time(lips: Lips, audio: Audio, offset_s: float | str | None) -> Lips:
    if isinstance(offset_s, (int, float)):
        return lips.shifted(float(offset_s))
    from avse_ppl.video import estimate_offset

    try:
        found_s, confidence = estimate_offset(lips, audio.mono())
    except ValueError:  # too short to say
        return lips
    if abs(found_s) < _NOTICED_S or confidence < _BELIEVED:
        return lips
    side = "later" if found_s > 0 else "earlier"
    said = f"the sound seems {abs(found_s) * 1e3:.0f} ms {side} than the lips"
    if offset_s is None:
        _warn(f"{said}; correct it with an offset of {found_s:+.2f} s, or 'auto'")
        return lips
    _warn(f"{said}: corrected")
    return lips.shifted(found_s)


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=4)
