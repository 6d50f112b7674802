"""What is computed of one clip, kept in a file of its own until the corpus is complete."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from avse_ppl.data.clips import Clip
from avse_ppl.data.decoding import decode
from avse_ppl.data.lips_cache import LIPS_HZ, lips_piece
from avse_ppl.data.roi import ROI_HZ, read_roi
from avse_ppl.utils.files import atomic_path

if TYPE_CHECKING:
    from avse_ppl.video import Lips
    from avse_ppl.video.face_detector import FaceDetector

_FORMAT = 1
UNREADABLE = (ValueError, OSError, EOFError)


@dataclass(frozen=True)
class FeatureSettings:
    """What is computed of a clip.

    Parameters
    ----------
    sample_rate_hz : int
        Of the sound.
    highpass_hz : float or None
        Corner of the high-pass that speech goes through; ``None`` for no filter.
    lips : bool
        Whether the mouth is followed where there is video.
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
    """How it went with one clip: what was wrong with its sound and its video, and remarks."""

    sound_error: str = ""
    lips_error: str = ""
    remarks: tuple[str, ...] = ()


def sound_file(folder: Path, clip: Clip, features: FeatureSettings) -> Path:
    """Name the file for the sound of a clip: by its path, size and what the sound depends on.

    Speaker and split are not part of the name, so that a corpus can be split anew without
    decoding it again.
    """
    highpass_hz = None if clip.is_noise else features.highpass_hz
    return _file(folder, "sound", _stamp(clip.path), features.sample_rate_hz, highpass_hz)


def lips_file(folder: Path, clip: Clip, features: FeatureSettings) -> Path:
    """Name the file for the mouth of a clip, which has a video or crops."""
    if clip.video is None and clip.roi is not None:
        return _file(folder, "lips", _stamp(clip.roi), _stamp(clip.path), LIPS_HZ)
    model = _stamp(Path(features.face_model))[1:] if features.face_model else None
    video = _stamp(clip.video or clip.path)
    return _file(folder, "lips", video, _stamp(clip.path), model, features.face, LIPS_HZ)


def with_twin(clip: Clip) -> list[Clip]:
    """List a clip and, where there is one, its noisy twin."""
    return [clip] if clip.noisy is None else [clip, replace(clip, path=clip.noisy, video=None)]


def make_pieces(clip: Clip, folder: Path, features: FeatureSettings) -> Outcome:
    """Compute what is not there yet of one clip.

    Parameters
    ----------
    clip : Clip
        What to read.
    folder : Path
        Where the pieces are kept.
    features : Features
        What to compute.

    Returns
    -------
    Outcome
        A clip that cannot be read is an outcome, not an error.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        sound_error = _attempt(lambda: _make_sounds(clip, folder, features))
        with_lips = features.lips and clip.has_mouth and not sound_error
        lips_error = _attempt(lambda: _make_lips(clip, folder, features)) if with_lips else ""
    remarks = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    return Outcome(sound_error, lips_error, remarks)


def is_made(clip: Clip, folder: Path, features: FeatureSettings) -> bool:
    """Whether all pieces of a clip are there; raises ``OSError`` for a clip that is not."""
    made = all(sound_file(folder, each, features).is_file() for each in with_twin(clip))
    if features.lips and clip.has_mouth:
        made = made and lips_file(folder, clip, features).is_file()
    return made


def read_piece(path: Path) -> dict[str, np.ndarray] | None:
    """Read a piece; None for one that is missing or damaged, which is then removed."""
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        return None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        path.unlink(missing_ok=True)
        return None


def _attempt(make: Callable[[], None]) -> str:
    try:
        make()
    except _StoreError as error:
        raise OSError(str(error)) from error
    except UNREADABLE as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def _make_sounds(clip: Clip, folder: Path, features: FeatureSettings) -> None:
    for each in with_twin(clip):
        path = sound_file(folder, each, features)
        if not path.is_file():
            samples = decode(each, features.sample_rate_hz, features.highpass_hz)
            _store(path, {"samples": samples.astype("<f2")})


def _make_lips(clip: Clip, folder: Path, features: FeatureSettings) -> None:
    path = lips_file(folder, clip, features)
    if path.is_file():
        return
    sound = read_piece(sound_file(folder, clip, features))
    if sound is None:
        raise ValueError(f"the stored sound of {clip.path} is damaged; prepare the corpus again")
    duration_s = sound["samples"].size / features.sample_rate_hz
    _store(path, lips_piece(_read_mouth(clip, features).resample(LIPS_HZ, duration_s)))


def _read_mouth(clip: Clip, features: FeatureSettings) -> Lips:
    from avse_ppl.video import Lips, read_lips

    if clip.video is not None:
        detector = _detector(features.face_model)
        return read_lips(clip.video, face_model=detector, face=features.face)
    return Lips.from_crops(read_roi(clip.roi or clip.path), ROI_HZ)


@lru_cache(maxsize=1)
def _detector(face_model: str | None) -> FaceDetector:
    """Open the face detector once in each process."""
    from avse_ppl.video.face_detector import find_face_model, load_detector

    return load_detector(find_face_model(face_model))


class _StoreError(Exception):
    """A piece could not be written, which is no fault of its clip."""


def _store(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        raise _StoreError(f"cannot write '{path}': {error}") from error


def _file(folder: Path, kind: str, *parts: object) -> Path:
    digest = hashlib.sha256(json.dumps([_FORMAT, kind, *parts]).encode()).hexdigest()
    return folder / digest[:2] / f"{digest[2:26]}.{kind}.npz"


def _stamp(path: Path) -> tuple[str, int]:
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; copy the corpus again or take it off the list")
    return str(path.resolve()), path.stat().st_size
