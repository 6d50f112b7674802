"""Geometric corruptions: the head turns, or the crop drifts off the mouth."""

from __future__ import annotations

import numpy as np

from avse_ppl.video.corruptions.base import (
    Change,
    CorruptionContext,
    compute_falloff,
    compute_turn_reliability,
)
from avse_ppl.video.corruptions.tracker_columns import bridge_face, replace_crops, turn_head
from avse_ppl.video.mouth_alignment import CROP_PX

_RADIUS_PX = 65.0  # of a head whose eyes are 58 pixels apart
_SPREAD_PX = 16.0
_ROLL_HALF_DEG = 35.0
_SETTLES = 4  # frames


def yaw(context: CorruptionContext) -> Change:
    """The head turns to a side by 80 s degrees: a cylinder is turned under the video frame."""
    return turn_cylinder(context, axis=0, degrees=80.0 * context.severity)


def pitch(context: CorruptionContext) -> Change:
    """The head nods by 80 s degrees: a cylinder that lies is turned under the video frame."""
    return turn_cylinder(context, axis=1, degrees=80.0 * context.severity)


def roll(context: CorruptionContext) -> Change:
    """The crop is turned in its plane by 90 s degrees; r is a half at 35."""
    import cv2

    degrees = 90.0 * context.severity * context.rng.choice([-1.0, 1.0])
    matrix = cv2.getRotationMatrix2D((CROP_PX / 2 - 0.5,) * 2, degrees, 1.0)
    roi = warp_crops(context, np.broadcast_to(matrix, (len(context), 2, 3)))
    left = np.full(len(context), compute_turn_reliability(degrees, _ROLL_HALF_DEG))
    return Change(turn_head(context, roi, 2, degrees), left, degrees)


def drift(context: CorruptionContext) -> Change:
    """The crop slides off the mouth by up to 60 s pixels, as when a tracker loses it.

    r falls as a normal law with the distance, 16 pixels its spread. In half of the cases the
    tracker knows that it only guesses.
    """
    angle = context.rng.uniform(0, 2 * np.pi)
    pace = np.minimum((np.arange(len(context)) + 1) / _SETTLES, 1.0)
    away = 60.0 * context.severity * pace
    matrices = np.zeros((len(context), 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = 1.0
    matrices[:, :, 2] = away[:, None] * [np.cos(angle), np.sin(angle)]
    left = np.exp(-0.5 * (away / _SPREAD_PX) ** 2)
    lips = replace_crops(context, warp_crops(context, matrices), 1.0 - left)
    return Change(bridge_face(context, lips) if context.rng.random() < 0.5 else lips, left)


def zoom(context: CorruptionContext) -> Change:
    """The crop is too wide or too narrow by a factor of up to four; r is a half at two."""
    import cv2

    octaves = 2.0 * context.severity
    factor = 2.0 ** (octaves * context.rng.choice([-1.0, 1.0]))
    matrix = cv2.getRotationMatrix2D((CROP_PX / 2 - 0.5,) * 2, 0.0, factor)
    roi = warp_crops(context, np.broadcast_to(matrix, (len(context), 2, 3)))
    left = compute_falloff(octaves, 1.0, 3.0)
    return Change(replace_crops(context, roi, 1.0 - left), np.full(len(context), left))


def warp_crops(context: CorruptionContext, matrices: np.ndarray) -> np.ndarray:
    """Warp each crop by its matrix; what lies outside repeats or mirrors the edge."""
    import cv2

    border = cv2.BORDER_REFLECT_101 if context.rng.random() < 0.5 else cv2.BORDER_REPLICATE
    crops = context.lips.roi[context.rows]
    pairs = zip(crops, matrices, strict=True)
    return np.stack(
        [cv2.warpAffine(crop, m, (CROP_PX, CROP_PX), borderMode=border) for crop, m in pairs]
    )


def turn_cylinder(context: CorruptionContext, axis: int, degrees: float) -> Change:
    """Turn the head about the axis of a cylinder; the mouth stays in the middle of the crop."""
    import cv2

    rng = context.rng
    degrees = degrees * float(rng.choice([-1.0, 1.0]))
    behind = float(rng.uniform(20, 220))
    bent, beyond = map_cylinder(np.deg2rad(degrees), float(rng.uniform(0.0, 0.6)))
    straight = np.arange(CROP_PX, dtype=np.float32)
    across, down = np.meshgrid(*((bent, straight) if axis == 0 else (straight, bent)))
    outside = np.broadcast_to(beyond if axis == 0 else beyond[:, None], (CROP_PX, CROP_PX))
    maps = across.astype(np.float32), down.astype(np.float32)
    roi = np.stack(
        [
            cv2.remap(crop, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
            for crop in context.lips.roi[context.rows]
        ]
    )
    roi = np.where(outside, behind, roi)
    left = np.full(len(context), compute_turn_reliability(degrees))
    return Change(turn_head(context, roi, axis, degrees), left, degrees)


def map_cylinder(angle: float, enlarged: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Where each column comes from, and which show what is behind the head.

    A point at angle :math:`\phi` of a head of radius R is seen at :math:`R \sin(\phi + \theta)`,
    :math:`R \sin\theta` being the middle of the mouth. Trackers enlarge a turned face, since its
    eyes are nearer together: `enlarged` is the share of that.
    """
    middle = CROP_PX / 2 - 0.5
    scale = max(np.cos(angle), 0.5) ** enlarged
    seen = (np.arange(CROP_PX) - middle) * scale / _RADIUS_PX + np.sin(angle)
    source = _RADIUS_PX * np.sin(np.arcsin(np.clip(seen, -1, 1)) - angle) + middle
    return source, np.abs(seen) > 1.0
