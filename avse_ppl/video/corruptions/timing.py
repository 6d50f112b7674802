"""Corruptions of time: frozen, dropped, shifted or reversed video frames, another speaker."""

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

_STALE = 4  # frames, after which a video frame tells nothing of the mouth
_SHIFT_S = (0.2, 1.0)
_RESTLESS = 2.0  # grey levels of what compression leaves moving in a frozen video frame


def frozen_frames(context: CorruptionContext) -> np.ndarray:
    """Index of the frame before the span, for each of its frames."""
    return np.full(len(context), max(context.start - 1, 0))


def shifted_frames(context: CorruptionContext) -> np.ndarray:
    """Index of frames 0.2 + 0.8 s seconds earlier, or later."""
    low, high = _SHIFT_S
    frames = max(round((low + (high - low) * context.severity) / context.lips.step_s), 1)
    late = frames if context.rng.random() < 0.5 else -frames
    return reflect_index(np.arange(context.start, context.stop) - late, len(context.lips))


def donor_frames(context: CorruptionContext) -> np.ndarray:
    """Index of frames of the donor, from a place drawn at random."""
    donor = _donor(context)
    begin = int(context.rng.integers(len(donor)))
    return reflect_index(begin + np.arange(len(context)), len(donor))


def stuttered_frames(context: CorruptionContext) -> np.ndarray:
    """Index of every so many frames, each held until the next."""
    every = count_repeats(context)
    return context.start + np.arange(len(context)) // every * every


def backward_frames(context: CorruptionContext) -> np.ndarray:
    """Index of the frames of the span from its end."""
    return np.arange(context.stop - 1, context.start - 1, -1)


def dropped_frames(context: CorruptionContext) -> np.ndarray:
    """-1 for all: nothing is shown."""
    return np.full(len(context), -1)


def flickering_frames(context: CorruptionContext) -> np.ndarray:
    """-1 for a share of s of the frames."""
    gone = context.rng.random(len(context)) < context.severity
    return np.where(gone, -1, np.arange(context.start, context.stop))


def freeze(context: CorruptionContext) -> Change:
    """The video frame before the span stays: r is 0.

    Of the severity depends how still it is: at 1 to the bit, below with traces of compression.
    """
    lips = take_frames(context, context.lips, frozen_frames(context))
    level = _RESTLESS * (1.0 - context.severity)
    if level > 0:
        crops = lips.roi[context.rows]
        roi = crops + level * context.rng.standard_normal(crops.shape)
        lips = replace_crops(replace_lips(context, lips), roi)
    return Change(lips, np.zeros(len(context)))


def drop(context: CorruptionContext) -> Change:
    """No face is found: r is 0."""
    return Change(lose_face(context, dropped_frames(context) < 0), np.zeros(len(context)))


def flicker(context: CorruptionContext) -> Change:
    """The face is lost in a share of s of the frames, here and there."""
    gone = flickering_frames(context) < 0
    return Change(lose_face(context, gone), np.where(gone, 0.0, 1.0))


def shift(context: CorruptionContext) -> Change:
    """Pictures 0.2 + 0.8 s seconds early or late: r is 0.

    The whole clip is meant to be shifted; in a span, its frames are those of another time.
    """
    return Change(
        take_frames(context, context.lips, shifted_frames(context)), np.zeros(len(context))
    )


def other_speaker(context: CorruptionContext) -> Change:
    """The lips of another clip, from a place drawn at random: r is 0."""
    return Change(
        take_frames(context, _donor(context), donor_frames(context)), np.zeros(len(context))
    )


def stutter(context: CorruptionContext) -> Change:
    """A new video frame every 2 + 13 s frames only.

    Each frame that a video frame stays takes a quarter off; r is the mean of what that leaves.
    """
    left = np.maximum(1.0 - np.arange(count_repeats(context)) / _STALE, 0.0).mean()
    index = stuttered_frames(context)
    return Change(take_frames(context, context.lips, index), np.full(len(context), left))


def backwards(context: CorruptionContext) -> Change:
    """The video frames of the span run backwards: r is 0."""
    return Change(
        take_frames(context, context.lips, backward_frames(context)), np.zeros(len(context))
    )


def count_repeats(context: CorruptionContext) -> int:
    """Count the frames for which one video frame stays."""
    return 2 + round(13 * context.severity)


def _donor(context: CorruptionContext) -> Lips:
    if context.donor is None:
        raise ValueError(
            "other-speaker shows the lips of another clip; give it as donor=Lips "
            "(on the command line --with FILE)"
        )
    return context.donor


def reflect_index(index: np.ndarray, count: int) -> np.ndarray:
    """Frames beyond an end are taken backwards from there."""
    period = max(2 * count - 2, 1)
    index = np.mod(index, period)
    return np.where(index < count, index, period - index)
