"""Tracker outputs of corrupted crops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from avse_ppl.video.corruptions.base import CorruptionContext
from avse_ppl.video.lips import Lips
from avse_ppl.video.mouth_alignment import compute_sharpness

_SCORE_LOSS, _POSE_LOSS = 0.3, 0.4  # at most, of a mouth that is gone altogether
_POSE_NOISE_DEG = 3.0


def replace_crops(
    context: CorruptionContext, roi: np.ndarray, harm: np.ndarray | float = 0.0
) -> Lips:
    """Replace the crops of the span, and lower the tracker's confidence by up to `harm`.

    Detectors notice some of what harms a mouth, and some not at all: in half of the cases only the
    sharpness changes.

    Parameters
    ----------
    context
        What is corrupted.
    roi
        ``(frame of the span, 88, 88)``.
    harm
        ``(frame of the span,)`` in [0, 1].
    """
    lips, rows = context.lips, context.rows
    seen = lips.found[rows]
    crops = np.where(seen[:, None, None], np.clip(np.rint(roi), 0, 255), 0).astype(np.uint8)
    share = float(context.rng.random() * (context.rng.random() < 0.5)) * np.asarray(harm)
    values = {
        "roi": crops,
        "blur": np.where(seen, [compute_sharpness(crop) for crop in crops], 0.0),
        "score": lips.score[rows] * (1.0 - _SCORE_LOSS * share),
        "pose_confidence": lips.pose_confidence[rows] * (1.0 - _POSE_LOSS * share),
    }
    return replace_columns(context, **values)


def replace_columns(context: CorruptionContext, **columns: np.ndarray) -> Lips:
    """Replace the rows of the span, column by column."""
    whole = {}
    for name, values in columns.items():
        column = np.array(getattr(context.lips, name))
        column[context.rows] = values
        whole[name] = column
    return replace(context.lips, **whole)


def turn_head(context: CorruptionContext, roi: np.ndarray, axis: int, degrees: float) -> Lips:
    """Replace crops by those of a turned head; the pose shows it in half of the cases."""
    lips = replace_crops(context, roi, min(abs(degrees) / 60.0, 1.0))
    if context.rng.random() < 0.5:
        return lips
    pose = lips.pose_deg[context.rows].copy()
    pose[:, axis] += degrees + _POSE_NOISE_DEG * context.rng.standard_normal(len(context))
    return replace_columns(replace_lips(context, lips), pose_deg=pose)


def lose_face(context: CorruptionContext, gone: np.ndarray) -> Lips:
    """Lose the face in frames of the span, ``(frame of the span,)`` bool."""
    lips, rows = context.lips, context.rows
    crops = np.where(gone[:, None, None], 0, lips.roi[rows])

    def blank(values: np.ndarray, empty: float) -> np.ndarray:
        return np.where(gone.reshape(-1, *[1] * (values.ndim - 1)), empty, values)

    return replace_columns(
        context,
        roi=crops,
        found=lips.found[rows] & ~gone,
        interpolated=lips.interpolated[rows] & ~gone,
        score=blank(lips.score[rows], 0.0),
        keypoints=blank(lips.keypoints[rows], np.nan),
        pose_deg=blank(lips.pose_deg[rows], np.nan),
        pose_confidence=blank(lips.pose_confidence[rows], 0.0),
        blur=blank(lips.blur[rows], 0.0),
    )


def bridge_face(context: CorruptionContext, lips: Lips) -> Lips:
    """Mark the face of the span as not detected, and bridged."""
    zeros = np.zeros(len(context))
    return replace_columns(
        replace_lips(context, lips),
        interpolated=lips.found[context.rows],
        score=zeros,
        pose_confidence=zeros,
    )


def take_frames(context: CorruptionContext, source: Lips, index: np.ndarray) -> Lips:
    """Take other frames into the span, with all tracker outputs."""
    names = ("roi", "found", "interpolated", "score", "pose_deg", "pose_confidence", "blur")
    columns = {name: np.asarray(getattr(source, name))[index] for name in names}
    return replace_columns(context, **columns)


def replace_lips(context: CorruptionContext, lips: Lips) -> CorruptionContext:
    """Go on with lips that are changed already."""
    return replace(context, lips=lips)
