"""Corruptions of time: pictures that stay, go missing, come late, or are of somebody else."""

from __future__ import annotations

import numpy as np

from avse_ppl.video.corruptions.base import Change, CorruptionContext
from avse_ppl.video.corruptions.tracker_columns import (
    lose_face,
    replace_crops,
    replace_lips,
    take_frames,
)
from avse_ppl.video.lips import Lips

_STALE = 4  # frames, after which a picture tells nothing of the mouth
_SHIFT_S = (0.2, 1.0)
_RESTLESS = 2.0  # grey levels of what compression leaves moving in a frozen picture


def frozen_frames(scene: CorruptionContext) -> np.ndarray:
    """Index of the frame before the span, for each of its frames."""
    return np.full(len(scene), max(scene.start - 1, 0))


def shifted_frames(scene: CorruptionContext) -> np.ndarray:
    """Index of frames 0.2 + 0.8 s seconds earlier, or later."""
    low, high = _SHIFT_S
    frames = max(round((low + (high - low) * scene.severity) / scene.lips.step_s), 1)
    late = frames if scene.rng.random() < 0.5 else -frames
    return _reflected(np.arange(scene.start, scene.stop) - late, len(scene.lips))


def donor_frames(scene: CorruptionContext) -> np.ndarray:
    """Index of frames of the donor, from a place drawn at random."""
    donor = _donor(scene)
    begin = int(scene.rng.integers(len(donor)))
    return _reflected(begin + np.arange(len(scene)), len(donor))


def stuttered_frames(scene: CorruptionContext) -> np.ndarray:
    """Index of every so many frames, each held until the next."""
    every = _every(scene)
    return scene.start + np.arange(len(scene)) // every * every


def backward_frames(scene: CorruptionContext) -> np.ndarray:
    """Index of the frames of the span from its end."""
    return np.arange(scene.stop - 1, scene.start - 1, -1)


def dropped_frames(scene: CorruptionContext) -> np.ndarray:
    """-1 for all: nothing is shown."""
    return np.full(len(scene), -1)


def flickering_frames(scene: CorruptionContext) -> np.ndarray:
    """-1 for a share of s of the frames."""
    gone = scene.rng.random(len(scene)) < scene.severity
    return np.where(gone, -1, np.arange(scene.start, scene.stop))


def freeze(scene: CorruptionContext) -> Change:
    """The picture before the span stays: r is 0.

    Of the severity depends how still it is: at 1 to the bit, below with traces of compression.
    """
    lips = take_frames(scene, scene.lips, frozen_frames(scene))
    level = _RESTLESS * (1.0 - scene.severity)
    if level > 0:
        crops = lips.roi[scene.rows]
        roi = crops + level * scene.rng.standard_normal(crops.shape)
        lips = replace_crops(replace_lips(scene, lips), roi)
    return Change(lips, np.zeros(len(scene)))


def drop(scene: CorruptionContext) -> Change:
    """No face is found: r is 0."""
    return Change(lose_face(scene, dropped_frames(scene) < 0), np.zeros(len(scene)))


def flicker(scene: CorruptionContext) -> Change:
    """The face is lost in a share of s of the frames, here and there."""
    gone = flickering_frames(scene) < 0
    return Change(lose_face(scene, gone), np.where(gone, 0.0, 1.0))


def shift(scene: CorruptionContext) -> Change:
    """Pictures 0.2 + 0.8 s seconds early or late: r is 0.

    The whole clip is meant to be shifted; in a span, its frames are those of another time.
    """
    return Change(take_frames(scene, scene.lips, shifted_frames(scene)), np.zeros(len(scene)))


def other_speaker(scene: CorruptionContext) -> Change:
    """The lips of another clip, from a place drawn at random: r is 0."""
    return Change(take_frames(scene, _donor(scene), donor_frames(scene)), np.zeros(len(scene)))


def stutter(scene: CorruptionContext) -> Change:
    """A new picture every 2 + 13 s frames only.

    Each frame that a picture stays takes a quarter off; r is the mean of what that leaves.
    """
    left = np.maximum(1.0 - np.arange(_every(scene)) / _STALE, 0.0).mean()
    index = stuttered_frames(scene)
    return Change(take_frames(scene, scene.lips, index), np.full(len(scene), left))


def backwards(scene: CorruptionContext) -> Change:
    """The pictures of the span run backwards: r is 0."""
    return Change(take_frames(scene, scene.lips, backward_frames(scene)), np.zeros(len(scene)))


def _every(scene: CorruptionContext) -> int:
    return 2 + round(13 * scene.severity)


def _donor(scene: CorruptionContext) -> Lips:
    if scene.donor is None:
        raise ValueError(
            "other-speaker shows the lips of another clip; give it as donor=Lips "
            "(on the command line --with FILE)"
        )
    return scene.donor


def _reflected(index: np.ndarray, count: int) -> np.ndarray:
    """Frames beyond an end are taken backwards from there."""
    period = max(2 * count - 2, 1)
    index = np.mod(index, period)
    return np.where(index < count, index, period - index)
