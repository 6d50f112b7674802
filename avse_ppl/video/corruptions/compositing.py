"""Compositing of a crop onto the video frame that it was cut out of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from avse_ppl.video.lips import Lips
from avse_ppl.video.mouth_alignment import CROP_PX, estimate_crop_transform, smooth_trajectories

_FADE_PX = 4.0  # at the border of the crop

Place = Callable[[int, tuple[int, int]], np.ndarray]
"""From row and size of the video frame to ``(2, 3)``, from its pixels to those of the crop."""


def make_placement(lips: Lips) -> Place:
    """Return where each crop was cut out: by the keypoints, or the whole frame if it has none.

    Examples
    --------
    >>> lips = Lips.from_crops(np.full((5, 88, 88), 90, dtype=np.uint8), rate_hz=25)
    >>> make_placement(lips)(0, (96, 96)).tolist()
    [[1.0, 0.0, -4.0], [0.0, 1.0, -4.0]]
    """
    if not np.isfinite(lips.keypoints).any():
        return lambda _, size_px: place_ready_made_crop(size_px[0])
    steady = smooth_trajectories(lips.keypoints, lips.time_s)
    return lambda row, _: estimate_crop_transform(steady[row])


def place_ready_made_crop(size_px: int) -> np.ndarray:
    """Return the transform of ready-made crops: of 96 pixels the central 88, 67 enlarged."""
    if size_px >= CROP_PX:
        margin = (size_px - CROP_PX) / 2
        return np.array([[1.0, 0.0, -margin], [0.0, 1.0, -margin]])
    scale = CROP_PX / size_px
    middle = (scale - 1) / 2
    return np.array([[scale, 0.0, middle], [0.0, scale, middle]])


def composite_crop(
    colour: np.ndarray, before: np.ndarray, after: np.ndarray, place: np.ndarray
) -> np.ndarray:
    """Composite what changed in a crop onto the video frame.

    The lightness becomes that of the crop where the crop was changed, and stays everywhere else;
    hues stay.

    Parameters
    ----------
    colour
        ``(height, width, 3)`` uint8.
    before, after
        ``(88, 88)`` uint8.
    place
        ``(2, 3)`` from pixels of the video frame to pixels of the crop.

    Examples
    --------
    >>> picture, crop = np.full((88, 88, 3), 90, np.uint8), np.full((88, 88), 90, np.uint8)
    >>> after = crop.copy()
    >>> after[40:50, 40:50] = 200
    >>> composite_crop(picture, crop, after, np.eye(2, 3))[45, 45].tolist()
    [200, 200, 200]
    """
    import cv2

    size = colour.shape[1::-1]

    def place_onto(values: np.ndarray) -> np.ndarray:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(values.astype(np.float32), place, size, flags=flags)

    away = np.minimum(np.arange(CROP_PX), np.arange(CROP_PX)[::-1]) / _FADE_PX
    inside = np.minimum.outer(away, away).clip(0.0, 1.0)
    touched = cv2.dilate((before != after).astype(np.uint8), np.ones((3, 3), np.uint8))
    share = place_onto(touched * inside)
    grey = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY).astype(np.float32)
    lift = share * (place_onto(after) - grey)
    return np.clip(np.rint(colour + lift[..., None]), 0, 255).astype(np.uint8)
