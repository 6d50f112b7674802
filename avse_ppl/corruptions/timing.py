"""Corruptions of time: pictures that stay, go missing, come late, or are of somebody else."""

from __future__ import annotations

import numpy as np

from avse_ppl.corruptions.columns import lost, taken, with_crops
from avse_ppl.corruptions.kind import Change, Scene

_STALE = 4  # frames, after which a picture tells nothing of the mouth
_SHIFT_S = (0.2, 1.0)
_RESTLESS = 2.0  # grey levels of what compression leaves moving in a frozen picture


def freeze(scene: Scene) -> Change:
    """The picture before the span stays: r is 0.

    Of the severity depends how still it is: at 1 to the bit, below with traces of compression.
    """
    held = max(scene.start - 1, 0)
    lips = taken(scene, scene.lips, np.full(len(scene), held))
    level = _RESTLESS * (1.0 - scene.severity)
    if level > 0:
        crops = lips.roi[scene.rows]
        roi = crops + level * scene.rng.standard_normal(crops.shape)
        lips = with_crops(Scene(lips, scene.start, scene.stop, scene.severity, scene.rng), roi)
    return Change(lips, np.zeros(len(scene)))


def drop(scene: Scene) -> Change:
    """No face is found: r is 0."""
    return Change(lost(scene, np.ones(len(scene), bool)), np.zeros(len(scene)))


def flicker(scene: Scene) -> Change:
    """The face is lost in a share of s of the frames, here and there."""
    gone = scene.rng.random(len(scene)) < max(scene.severity, 1e-9)
    return Change(lost(scene, gone), np.where(gone, 0.0, 1.0))


def shift(scene: Scene) -> Change:
    """Pictures 0.2 + 0.8 s seconds early or late: r is 0.

    The whole clip is meant to be shifted; in a span, its frames are those of another time.
    """
    low, high = _SHIFT_S
    frames = max(round((low + (high - low) * scene.severity) / scene.lips.step_s), 1)
    late = frames if scene.rng.random() < 0.5 else -frames
    index = np.arange(scene.start, scene.stop) - late
    return Change(taken(scene, scene.lips, _reflected(index, len(scene.lips))), _zeros(scene))


def other_speaker(scene: Scene) -> Change:
    """The lips of another clip, from a place drawn at random: r is 0."""
    if scene.donor is None:
        raise ValueError(
            "other-speaker shows the lips of another clip; give it as donor=Lips "
            "(on the command line --with FILE)"
        )
    begin = int(scene.rng.integers(len(scene.donor)))
    index = _reflected(begin + np.arange(len(scene)), len(scene.donor))
    return Change(taken(scene, scene.donor, index), _zeros(scene))


def stutter(scene: Scene) -> Change:
    """A new picture every 2 + 13 s frames only.

    Each frame that a picture stays takes a quarter off; r is the mean of what that leaves.
    """
    every = 2 + round(13 * scene.severity)
    index = scene.start + np.arange(len(scene)) // every * every
    left = np.maximum(1.0 - np.arange(every) / _STALE, 0.0).mean()
    return Change(taken(scene, scene.lips, index), np.full(len(scene), left))


def backwards(scene: Scene) -> Change:
    """The pictures of the span run backwards: r is 0."""
    index = np.arange(scene.stop - 1, scene.start - 1, -1)
    return Change(taken(scene, scene.lips, index), _zeros(scene))


def _zeros(scene: Scene) -> np.ndarray:
    return np.zeros(len(scene))


def _reflected(index: np.ndarray, count: int) -> np.ndarray:
    """Frames beyond an end are taken backwards from there."""
    period = max(2 * count - 2, 1)
    index = np.mod(index, period)
    return np.where(index < count, index, period - index)
