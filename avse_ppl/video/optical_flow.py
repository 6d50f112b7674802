"""Keypoints propagated from one video frame to the next by optical flow."""

from __future__ import annotations

import numpy as np

_LEVELS = 3
_WINDOW_PX = (9, 41)
_RETURN_ERROR = 0.06  # of the eye distance: there and back must come out at the same place
_NEEDED = 3


def measure_eye_distance(keypoints: np.ndarray) -> float:
    """Size of a face, pixels: the mean of eye to eye and 0.9 of eyes to mouth.

    Both are about equal for a frontal face, and of a turned face one stays.
    """
    eyes, mouth = keypoints[:2].mean(axis=0), keypoints[3:].mean(axis=0)
    across = np.linalg.norm(keypoints[1] - keypoints[0])
    return float(max(across, 0.9 * np.linalg.norm(mouth - eyes)))


def track_keypoints(
    before: np.ndarray, after: np.ndarray, keypoints: np.ndarray
) -> np.ndarray | None:
    """Keypoints tracked by pyramidal Lucas-Kanade flow, with a forward-backward check.

    Points that do not come back to where they were move with the others.

    Parameters
    ----------
    before, after
        ``(height, width)`` uint8, the two video frames.
    keypoints
        ``(5, 2)`` pixels in the first.

    Returns
    -------
    ``(5, 2)`` pixels in the second, or None where fewer than three can be followed.

    References
    ----------
    J.-Y. Bouguet, "Pyramidal implementation of the Lucas Kanade feature tracker", Intel, 2000.
    Z. Kalal, K. Mikolajczyk and J. Matas, "Forward-backward error", ICPR 2010.
    """
    import cv2

    size = measure_eye_distance(keypoints)
    side = int(np.clip(size * 0.6, *_WINDOW_PX)) | 1
    start = keypoints.astype(np.float32).reshape(-1, 1, 2)
    window, guess = (side, side), np.empty_like(start)
    there, ok_there, _ = cv2.calcOpticalFlowPyrLK(
        before, after, start, guess, winSize=window, maxLevel=_LEVELS
    )
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(
        after, before, there, np.empty_like(start), winSize=window, maxLevel=_LEVELS
    )
    off = np.linalg.norm((back - start).reshape(-1, 2), axis=1)
    good = (ok_there.ravel() > 0) & (ok_back.ravel() > 0) & (off < max(_RETURN_ERROR * size, 0.5))
    if good.sum() < _NEEDED:
        return None
    moved = there.reshape(-1, 2).astype(np.float64)
    shift = np.median(moved[good] - keypoints[good], axis=0)
    stray = np.linalg.norm(moved - keypoints - shift, axis=1) > 0.25 * size
    return np.where((good & ~stray)[:, None], moved, keypoints + shift)
