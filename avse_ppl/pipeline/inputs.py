"""Recordings and videos made ready for inference: each loaded, checked, resampled, tracked once."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from avse_ppl.inference.core.video import check_audio_visual, encode_video, score_frames
from avse_ppl.models.protocols import is_audio_visual
from avse_ppl.models.scene import Scene
from avse_ppl.models.visual.reliability import audio_only, ungated
from avse_ppl.pipeline.batching import Chunk
from avse_ppl.pipeline.catalog import resolve_speech
from avse_ppl.signal.audio import Audio, AudioLike, as_audio, check_audio, convert_rate
from avse_ppl.signal.demuxer import open_container
from avse_ppl.signal.infrasound import remove_infrasound
from avse_ppl.signal.media import open_media
from avse_ppl.signal.observed_bins import mark_observed
from avse_ppl.signal.stft import Spectrogram, Stft

if TYPE_CHECKING:
    from torch import Tensor

    from avse_ppl.video import Lips

_Key = TypeVar("_Key")

_NOTICEABLE_OFFSET_S = 0.06  # one and a half video frames: less is neither visible nor audible
_MIN_CONFIDENCE = 0.5  # in an estimated offset, above which it is reported
_LENGTH_TOLERANCE_S = 0.5  # by which video and audio may differ without a warning


@dataclass(frozen=True)
class VideoOptions:
    """How a video is turned into lips in time with the audio.

    Parameters
    ----------
    face_model
        Weights of the face detector; see `avse_ppl.video.read_lips`.
    face
        Which of several faces: a number from the left, ``"largest"`` or ``"auto"``.
    frontalise
        Whether crops of turned faces are rendered as seen from the front.
    offset_s
        How much later the audio is than the lips, seconds; ``"auto"`` estimates and corrects it,
        None estimates it and warns where it is noticeable.
    optional
        Whether a recording whose video cannot be used is enhanced audio-only, with a warning.
    track
        Which video track of several, from 0; None: the one that is flagged as the default.
    audio_track
        Which audio track of a recording that has several, from 0; None as above.

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
    track: int | None = None
    audio_track: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.offset_s, str) and self.offset_s != "auto":
            raise ValueError(
                f"offset_s must be a number of seconds, 'auto' or None, not {self.offset_s!r}"
            )


@dataclass(frozen=True)
class Observation:
    """A recording and the lips of its speaker, ready for inference.

    Parameters
    ----------
    audio
        Checked, at the sampling rate of the speech prior.
    lips
        In time with the audio; None without video.
    """

    audio: Audio
    lips: Lips | None = None

    def lips_from(self, begin: int) -> Lips | None:
        """Lips on the clock of a chunk that begins at a sample."""
        if self.lips is None or begin == 0:
            return self.lips
        return self.lips.shifted(-begin / self.audio.sample_rate_hz)


def observe(
    noisy: AudioLike,
    stft: Stft,
    video: Any = None,
    options: VideoOptions | None = None,
    *,
    sample_rate_hz: int | None = None,
) -> Observation:
    """Load, resample and check a recording; track the lips in its video and bring them in time.

    Parameters
    ----------
    noisy
        Path, the bytes of a file, an ``Audio``, or an array with its ``sample_rate_hz``.
    stft
        Of the speech prior; gives the sampling rate and the least number of samples.
    video
        ``Lips``, the path or bytes of a video, or None.
    options
        How the video is read.
    sample_rate_hz
        Rate of an array, Hz.

    Raises
    ------
    ValueError, OSError
        If the recording cannot be used; and what `prepare_lips` raises.

    Warns
    -----
    UserWarning
        If the recording is resampled, clipped, silent or has an offset; and what `prepare_lips`
        warns of.

    Examples
    --------
    >>> import numpy as np
    >>> observe(np.ones(4000, "float32"), Stft(), sample_rate_hz=16000).audio.duration_s
    0.25
    """
    options = options or VideoOptions()
    audio = as_audio(noisy, sample_rate_hz, track=options.audio_track)
    audio = check_audio(convert_rate(audio, stft.sample_rate_hz), min_samples=stft.n_fft)
    audio = Audio(remove_infrasound(audio.samples, audio.sample_rate_hz), audio.sample_rate_hz)
    paths = [one for one in (noisy, video) if isinstance(one, (str, os.PathLike))]
    if len(paths) == 2 and Path(paths[0]) != Path(paths[1]):  # another file has tracks of its own
        options = replace(options, audio_track=None)
    return Observation(audio, prepare_lips(video, audio, options))


def observe_all(
    recordings: Sequence[AudioLike],
    stft: Stft,
    video: Any = None,
    options: VideoOptions | None = None,
) -> list[Observation]:
    """`observe` several recordings; all are checked before any video is tracked.

    Parameters
    ----------
    recordings, stft, options
        As in `observe`.
    video
        A list with one for each recording, None for those without; or one for one recording.

    Raises
    ------
    ValueError
        If there are not as many videos as recordings; and as `observe` does.
    """
    options = options or VideoOptions()
    audios = [observe(one, stft, options=options).audio for one in recordings]
    if video is None:
        return [Observation(audio) for audio in audios]
    several = isinstance(video, Sequence) and not isinstance(video, (str, bytes))
    videos = list(video) if several else [video]
    if len(videos) != len(audios):
        raise ValueError(
            f"{len(videos)} videos for {len(audios)} recordings; give one for each, with None "
            "for those without"
        )
    return [
        Observation(audio, prepare_lips(one, audio, options))
        for one, audio in zip(videos, audios, strict=True)
    ]


@dataclass(frozen=True)
class ObservedChunks:
    """STFT of chunks, and the lips in each of them.

    Parameters
    ----------
    spectrogram
        One chunk a row.
    lips
        One for each chunk, on its clock; None without video.
    """

    spectrogram: Spectrogram
    lips: tuple[Lips | None, ...]

    @cached_property
    def scores(self) -> Tensor:
        """Scores of the reliability network, ``(chunk, time)``; computed once for all scenes."""
        return score_frames(self.lips, self.spectrogram)

    def encode(self, scene: Scene) -> Tensor | None:
        """Visual features as a scene takes them; None without video."""
        if all(one is None for one in self.lips):
            return None
        gated = scene.reliability not in (None, ungated, audio_only)
        return encode_video(
            scene, self.spectrogram, self.lips, scores=self.scores if gated else None
        )


def analyse_chunks(
    stft: Stft, observations: Sequence[Observation], chunks: Sequence[Chunk]
) -> ObservedChunks:
    """STFT of each chunk, with the lips on its clock.

    Parameters
    ----------
    stft
        Of the speech prior.
    observations
        What the chunks are from, by index.
    chunks
        From `split_channels`.
    """
    of = [(observations[chunk.recording], chunk) for chunk in chunks]
    waves = [one.audio.channels()[c.channel].samples[c.begin : c.end] for one, c in of]
    spectrogram = mark_observed(stft.analyse(waves))
    return ObservedChunks(spectrogram, tuple(one.lips_from(c.begin) for one, c in of))


def prepare_lips(video: Any, audio: Audio, options: VideoOptions) -> Lips | None:
    """Lips of the speaker of a recording, in time with it; None where there is no video.

    Parameters
    ----------
    video
        ``Lips``, the path or bytes of a video, or None.
    audio
        The recording.
    options
        How the video is read.

    Raises
    ------
    ValueError, OSError, ModuleNotFoundError
        What `read_lips` raises, unless the video is optional.

    Warns
    -----
    UserWarning
        If video and audio are of different length or out of sync; if an optional video cannot be
        used.
    """
    if video is None:
        return None
    from avse_ppl.video import Lips, read_lips

    # Track the face.
    if isinstance(video, Lips):
        lips = video
    elif not isinstance(video, (str, os.PathLike, bytes, bytearray, memoryview)):
        raise ValueError(
            f"expected a video as a path, the bytes of a file or Lips, found {type(video).__name__}"
        )
    else:
        settings = {
            "face": options.face, "frontalise": options.frontalise,
            "track": options.track, "audio_track": options.audio_track,
        }  # fmt: skip
        try:
            lips = read_lips(video, face_model=options.face_model, **settings)  # type: ignore[arg-type]
        except (ValueError, OSError, ModuleNotFoundError) as error:
            if not options.optional:
                raise
            _warn(f"the video is left out and the recording enhanced audio-only: {error}")
            return None

    # Compare the lengths.
    end_s = float(lips.time_s[-1]) + 0.04 if len(lips) else 0.0
    if abs(end_s - audio.duration_s) > _LENGTH_TOLERANCE_S:
        rest = "the rest is enhanced audio-only" if end_s < audio.duration_s else "the rest is cut"
        _warn(f"the video lasts {end_s:.2f} s, the audio {audio.duration_s:.2f} s: {rest}")
    return _synchronise(lips, audio, options.offset_s)


def _synchronise(lips: Lips, audio: Audio, offset_s: float | str | None) -> Lips:
    """Shift lips by an offset, or by the estimated one; warn of one that is left."""
    if isinstance(offset_s, (int, float)):
        return lips.shifted(float(offset_s))
    from avse_ppl.video import estimate_offset

    try:
        estimate_s, confidence = estimate_offset(lips, audio.audible_mono())
    except ValueError:  # too short to tell
        return lips
    if abs(estimate_s) < _NOTICEABLE_OFFSET_S or confidence < _MIN_CONFIDENCE:
        return lips
    side = "later" if estimate_s > 0 else "earlier"
    remark = f"the audio seems {abs(estimate_s) * 1e3:.0f} ms {side} than the lips"
    if offset_s is None:
        _warn(f"{remark}; correct it with an offset of {estimate_s:+.2f} s, or 'auto'")
        return lips
    _warn(f"{remark}: corrected")
    return lips.shifted(estimate_s)


def find_video(recording: Path, video: Path | None) -> Path | None:
    """Video of a recording: the one that was given, or the recording itself if it is one."""
    return video or (recording if has_video_stream(recording) else None)


def match_prior_to_videos(
    speech: Any, videos: Mapping[_Key, Path | None], given: Path | None
) -> tuple[Any, dict[_Key, Path | None]]:
    """Speech prior, and the videos that condition it: none of them if it is audio-only.

    Parameters
    ----------
    speech
        As in `enhance`; None: the default with video, or without.
    videos
        From `find_video`.
    given
        The video that was asked for, and not only found in a recording.

    Raises
    ------
    ValueError
        If the prior is unknown, or would ignore the video given.
    """
    prior = resolve_speech(speech, with_video=any(path is not None for path in videos.values()))
    check_audio_visual(prior, given)
    return prior, {of: path if is_audio_visual(prior) else None for of, path in videos.items()}


def has_video_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds a video stream, and not only a cover image."""
    try:
        with open_media(path) as (handle, name), open_container(handle, name, "video") as media:
            return bool(media.video_tracks)
    except (ValueError, OSError):  # said by what reads it
        return False


def has_audio_stream(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds an audio stream; False for what cannot be read."""
    try:
        with open_media(path) as (handle, name), open_container(handle, name, "audio") as media:
            return bool(media.audio_tracks)
    except (ValueError, OSError):
        return False


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=4)
