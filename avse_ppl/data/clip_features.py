"""Features of one clip: its audio and its mouth crops, each in a file of its own.

`prepare` keeps these files until the corpus is complete, so that a run that was cut off goes on.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from avse_ppl.data.array_files import read_npz
from avse_ppl.data.cache import LIPS_HZ, make_lips_arrays
from avse_ppl.data.clips import Clip
from avse_ppl.data.decoding import decode
from avse_ppl.data.readers.ntcd_timit import ROI_HZ, read_roi
from avse_ppl.utils.files import atomic_path

if TYPE_CHECKING:
    from avse_ppl.video.face_detector import FaceDetector

_FORMAT = 1
UNREADABLE = (ValueError, OSError, EOFError)


@dataclass(frozen=True)
class FeatureSettings:
    """Settings of the features of a clip.

    Parameters
    ----------
    sample_rate_hz : int
        Of the audio.
    highpass_hz : float or None
        Corner of the high-pass that speech goes through; ``None`` for no filter.
    lips : bool
        Whether the mouth is tracked where there is video.
    face_model : str or None
        File of the face detector; ``None`` for the default of `read_lips`.
    face : int or str
        Which face, as `read_lips` takes it.
    """

    sample_rate_hz: int = 16000
    highpass_hz: float | None = 70.0
    lips: bool = True
    face_model: str | None = None
    face: int | Literal["largest", "auto"] = "auto"


@dataclass(frozen=True)
class Outcome:
    """Errors of reading the audio and the video of a clip, and remarks."""

    audio_error: str = ""
    lips_error: str = ""
    remarks: tuple[str, ...] = ()


def name_audio_file(folder: Path, clip: Clip, features: FeatureSettings) -> Path:
    """Name the file for the audio of a clip: by its path, size and what the audio depends on.

    Speaker and split are not part of the name, so that a corpus can be split anew without
    decoding it again.
    """
    highpass_hz = None if clip.is_noise else features.highpass_hz
    return name_file(folder, "sound", sign(clip.path), features.sample_rate_hz, highpass_hz)


def name_lips_file(folder: Path, clip: Clip, features: FeatureSettings) -> Path:
    """Name the file for the mouth of a clip, which has a video or crops."""
    if clip.video is None and clip.roi is not None:
        return name_file(folder, "lips", sign(clip.roi), sign(clip.path), LIPS_HZ)
    model = sign(Path(features.face_model))[1:] if features.face_model else None
    video = sign(clip.video or clip.path)
    return name_file(folder, "lips", video, sign(clip.path), model, features.face, LIPS_HZ)


def name_file(folder: Path, kind: str, *dependencies: object) -> Path:
    """Name a file by a checksum of all that its content depends on."""
    digest = hashlib.sha256(json.dumps([_FORMAT, kind, *dependencies]).encode()).hexdigest()
    return folder / digest[:2] / f"{digest[2:26]}.{kind}.npz"


def sign(path: Path) -> tuple[str, int]:
    """File signature: its path and size; raises ``FileNotFoundError`` if it is missing."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; copy the corpus again or take it off the list")
    return str(path.resolve()), path.stat().st_size


def list_recordings(clip: Clip) -> list[Clip]:
    """List a clip and, where there is one, its paired noisy recording."""
    return [clip] if clip.noisy is None else [clip, replace(clip, path=clip.noisy, video=None)]


def compute_clip_features(clip: Clip, folder: Path, features: FeatureSettings) -> Outcome:
    """Compute the features of one clip that are not there yet.

    Parameters
    ----------
    clip : Clip
        What to read.
    folder : Path
        Where the files are kept.
    features : FeatureSettings
        What to compute.

    Returns
    -------
    Outcome
        A clip that cannot be read is an outcome, not an error.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    audio_error = lips_error = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            try:
                compute_audio_features(clip, folder, features)
            except UNREADABLE as error:
                audio_error = describe_error(error)
            try:
                if features.lips and clip.has_mouth and not audio_error:
                    compute_lips_features(clip, folder, features)
            except UNREADABLE as error:
                lips_error = describe_error(error)
        except CannotStoreError as error:
            raise OSError(str(error)) from error
    remarks = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    return Outcome(audio_error, lips_error, remarks)


def compute_audio_features(clip: Clip, folder: Path, features: FeatureSettings) -> None:
    """Decode a clip and its paired noisy recording, unless that is done."""
    for each in list_recordings(clip):
        path = name_audio_file(folder, each, features)
        if not path.is_file():
            samples = decode(each, features.sample_rate_hz, features.highpass_hz)
            store_features(path, {"samples": samples.astype("<f2")})


def compute_lips_features(clip: Clip, folder: Path, features: FeatureSettings) -> None:
    """Track the mouth of a clip over the length of its audio, unless that is done.

    Raises
    ------
    ValueError
        If the video shows no face, or the audio that was stored is damaged.
    """
    path = name_lips_file(folder, clip, features)
    if path.is_file():
        return
    audio = read_features(name_audio_file(folder, clip, features))
    if audio is None:
        raise ValueError(f"the stored audio of {clip.path} is damaged; prepare the corpus again")
    from avse_ppl.video import Lips, read_lips

    if clip.video is not None:
        detector = open_detector(features.face_model)
        lips = read_lips(clip.video, face_model=detector, face=features.face)
    else:
        lips = Lips.from_crops(read_roi(clip.roi or clip.path), ROI_HZ)
    duration_s = audio["samples"].size / features.sample_rate_hz
    store_features(path, make_lips_arrays(lips.resample(LIPS_HZ, duration_s)))


def has_clip_features(clip: Clip, folder: Path, features: FeatureSettings) -> bool:
    """Whether all features of a clip are there; False for a clip that is missing."""
    try:
        files = [name_audio_file(folder, each, features) for each in list_recordings(clip)]
        if features.lips and clip.has_mouth:
            files.append(name_lips_file(folder, clip, features))
    except OSError:
        return False
    return all(file.is_file() for file in files)


def read_features(path: Path) -> dict[str, np.ndarray] | None:
    """Read a file of features; None for one that is missing or damaged, which is then removed."""
    try:
        arrays = read_npz(path)
    except FileNotFoundError:
        return None
    if arrays is None:
        path.unlink(missing_ok=True)
    return arrays


@lru_cache(maxsize=1)
def open_detector(face_model: str | None) -> FaceDetector:
    """Open the face detector, once in each process."""
    from avse_ppl.video.face_detector import find_face_model, load_detector

    return load_detector(find_face_model(face_model))


class CannotStoreError(Exception):
    """Features could not be written, which is no fault of their clip."""


def store_features(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file of features atomically; raises `CannotStoreError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        raise CannotStoreError(f"cannot write '{path}': {error}") from error


def describe_error(error: Exception) -> str:
    """Text of an error in a line, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
