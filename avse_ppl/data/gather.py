"""Gather the pieces of all clips into the caches that training reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from avse_ppl.data.cache import (
    SpeechCache,
    cache_checksum,
    load_cache,
    stored_checksum,
    write_cache,
)
from avse_ppl.data.clips import Clip
from avse_ppl.data.lips_cache import (
    LipsCache,
    load_lips,
    no_lips,
    stored_lips_checksum,
    write_lips,
)
from avse_ppl.data.pieces import (
    FeatureSettings,
    lips_file,
    make_pieces,
    read_piece,
    sound_file,
    with_twin,
)


def assemble_cache(
    clips: Sequence[Clip], blind: set[Path], folder: Path, out_path: Path, features: FeatureSettings
) -> None:
    """Write the caches that are not there yet out of the pieces."""
    rate_hz, missing = features.sample_rate_hz, stale(clips, blind, out_path, features)

    def sounds(which: int) -> Iterator[np.ndarray]:
        for clip in clips:
            path = sound_file(folder, with_twin(clip)[which], features)
            yield _piece(clip, path, folder, features)["samples"]

    def mouths() -> Iterator[dict[str, np.ndarray]]:
        for clip in clips:
            if not clip.has_mouth or clip.path in blind:
                yield no_lips()
            else:
                yield _piece(clip, lips_file(folder, clip, features), folder, features)

    for which, path in enumerate((out_path, _noisy_path(out_path))):
        if path in missing:
            write_cache(clips, sounds(which), path, rate_hz, missing[path])
    if (path := _lips_path(out_path)) in missing:
        write_lips(clips, mouths(), out_path, missing[path])


def _piece(
    clip: Clip, path: Path, folder: Path, features: FeatureSettings
) -> dict[str, np.ndarray]:
    """Read a piece; one that was damaged since it was made is made again."""
    piece = read_piece(path)
    if piece is None:
        outcome = make_pieces(clip, folder, features)
        piece = read_piece(path)
        if piece is None:
            reason = outcome.sound_error or outcome.lips_error or "its piece cannot be read back"
            raise OSError(f"{clip.path}: {reason}; prepare the corpus again")
    return piece


def stale(
    clips: Sequence[Clip], blind: set[Path], out_path: Path, features: FeatureSettings
) -> dict[Path, str]:
    """Find the caches that are missing or were made of something else, with their checksums."""
    checksum = cache_checksum(clips, features.sample_rate_hz, features.highpass_hz)
    found = {}
    for path in (out_path, _noisy_path(out_path)):
        wanted = path == out_path or _have_twins(clips)
        if wanted and stored_checksum(path) != checksum:
            found[path] = checksum
    if _have_lips(clips, features):
        model = Path(features.face_model).name if features.face_model else ""
        seen = [clip.has_mouth and clip.path not in blind for clip in clips]
        text = json.dumps([checksum, model, features.face, seen])
        checksum = hashlib.sha256(text.encode()).hexdigest()
        if stored_lips_checksum(out_path) != checksum:
            found[_lips_path(out_path)] = checksum
    return found


def load(
    clips: Sequence[Clip], out_path: Path, features: FeatureSettings
) -> tuple[SpeechCache, LipsCache | None, SpeechCache | None]:
    """Map sound, mouths and noisy twins."""
    lips = load_lips(out_path) if _have_lips(clips, features) else None
    noisy = load_cache(_noisy_path(out_path)) if _have_twins(clips) else None
    return load_cache(out_path), lips, noisy


def _have_lips(clips: Sequence[Clip], features: FeatureSettings) -> bool:
    return features.lips and any(clip.has_mouth for clip in clips)


def _have_twins(clips: Sequence[Clip]) -> bool:
    return all(clip.noisy is not None for clip in clips)


def _noisy_path(out_path: Path) -> Path:
    return out_path.with_name(out_path.name + ".noisy")


def _lips_path(out_path: Path) -> Path:
    return out_path.with_name(out_path.name + ".lips")
