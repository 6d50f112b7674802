"""What a tracker would have said of corrupted crops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from avse_ppl.video.corruptions.kind import CorruptionContext
from avse_ppl.video.lips import Lips
from avse_ppl.video.mouth_alignment import sharpness

_SCORE_LOSS, _POSE_LOSS = 0.3, 0.4  # at most, of a mouth that is gone altogether
_POSE_NOISE_DEG = 3.0


def with_crops(scene: CorruptionContext, roi: np.ndarray, harm: np.ndarray | float = 0.0) -> Lips:
    """Put crops into the span, and lower the tracker's confidence by up to `harm`.

    Detectors were found to notice some of what harms a mouth, and some not at all: in half of the
    cases nothing but the sharpness changes.

    Parameters
    ----------
    scene
        What is corrupted.
    roi
        ``(frame of the span, 88, 88)``.
    harm
        ``(frame of the span,)`` in [0, 1].
    """
    lips, rows = scene.lips, scene.rows
    seen = lips.found[rows]
    crops = np.where(seen[:, None, None], np.clip(np.rint(roi), 0, 255), 0).astype(np.uint8)
    share = float(scene.rng.random() * (scene.rng.random() < 0.5)) * np.asarray(harm)
    values = {
        "roi": crops,
        "blur": np.where(seen, [sharpness(crop) for crop in crops], 0.0),
        "score": lips.score[rows] * (1.0 - _SCORE_LOSS * share),
        "pose_confidence": lips.pose_confidence[rows] * (1.0 - _POSE_LOSS * share),
    }
    return changed(scene, **values)


def changed(scene: CorruptionContext, **columns: np.ndarray) -> Lips:
    """Put values into the rows of the span, column by column."""
    whole = {}
    for name, values in columns.items():
        column = np.array(getattr(scene.lips, name))
        column[scene.rows] = values
        whole[name] = column
    return replace(scene.lips, **whole)


def turned(scene: CorruptionContext, roi: np.ndarray, axis: int, degrees: float) -> Lips:
    """Put crops of a turned head into the span; a known pose says so in half of the cases."""
    lips = with_crops(scene, roi, min(abs(degrees) / 60.0, 1.0))
    if scene.rng.random() < 0.5:
        return lips
    pose = lips.pose_deg[scene.rows].copy()
    pose[:, axis] += degrees + _POSE_NOISE_DEG * scene.rng.standard_normal(len(scene))
    return changed(replace_lips(scene, lips), pose_deg=pose)


def lost(scene: CorruptionContext, gone: np.ndarray) -> Lips:
    """Take the face away from frames of the span, ``(frame of the span,)`` bool."""
    lips, rows = scene.lips, scene.rows
    crops = np.where(gone[:, None, None], 0, lips.roi[rows])

    def without(values: np.ndarray, empty: float) -> np.ndarray:
        return np.where(gone.reshape(-1, *[1] * (values.ndim - 1)), empty, values)

    return changed(
        scene,
        roi=crops,
        found=lips.found[rows] & ~gone,
        interpolated=lips.interpolated[rows] & ~gone,
        score=without(lips.score[rows], 0.0),
        keypoints=without(lips.keypoints[rows], np.nan),
        pose_deg=without(lips.pose_deg[rows], np.nan),
        pose_confidence=without(lips.pose_confidence[rows], 0.0),
        blur=without(lips.blur[rows], 0.0),
    )


def bridged(scene: CorruptionContext, lips: Lips) -> Lips:
    """Say of the span that the face was not seen, and placed between others."""
    zeros = np.zeros(len(scene))
    return changed(
        replace_lips(scene, lips),
        interpolated=lips.found[scene.rows],
        score=zeros,
        pose_confidence=zeros,
    )


def taken(scene: CorruptionContext, source: Lips, index: np.ndarray) -> Lips:
    """Show other frames in the span, with all that the tracker said of them."""
    names = ("roi", "found", "interpolated", "score", "pose_deg", "pose_confidence", "blur")
    columns = {name: np.asarray(getattr(source, name))[index] for name in names}
    return changed(scene, **columns)


def replace_lips(scene: CorruptionContext, lips: Lips) -> CorruptionContext:
    """Go on with lips that are changed already."""
    return replace(scene, lips=lips)
