"""Mouth motion: opening and principal components, to be correlated with the audio."""

from __future__ import annotations

import numpy as np

_BLUR_PX = 1.5
# Rows and columns of the halved crop (44 x 44).
_CHIN, _NOSE = (slice(24, 40), slice(12, 32)), (slice(0, 12), slice(12, 32))
_LOWER, _UPPER = (slice(21, 28), slice(14, 30)), (slice(14, 20), slice(14, 30))
_MOUTH = (slice(20, 76), slice(8, 80))  # of the whole crop
_MOUTH_PX = (18, 14)
_COMPONENTS = 6


def measure_mouth_opening(roi: np.ndarray) -> np.ndarray:
    """Opening of the mouth, ``(frame,)`` from ``(frame, 88, 88)``.

    What chin and lower lip move down against nose and upper lip, by dense optical flow, summed
    over time; each of the two has unit variance. It drifts: take out what is slow.

    References
    ----------
    G. Farnebäck, "Two-frame motion estimation based on polynomial expansion", SCIA 2003.
    """
    import cv2

    small = [cv2.GaussianBlur(crop, (0, 0), _BLUR_PX)[::2, ::2] for crop in roi]
    steps = np.zeros((len(roi), 2))
    for row in range(1, len(roi)):
        flow = np.zeros((*small[0].shape, 2), np.float32)
        flow = cv2.calcOpticalFlowFarneback(
            small[row - 1], small[row], flow, 0.5, 2, 11, 2, 5, 1.1, 0
        )
        down = flow[..., 1]
        steps[row, 0] = down[_CHIN].mean() - down[_NOSE].mean()
        steps[row, 1] = down[_LOWER].mean() - down[_UPPER].mean()
    spread = np.maximum(steps.std(axis=0), 1e-6)
    return np.cumsum(steps / spread, axis=0).sum(axis=1)


def compute_mouth_components(roi: np.ndarray) -> np.ndarray:
    """Principal components over time of the mouth, ``(frame, 6)`` from ``(frame, 88, 88)``."""
    import cv2

    rows, columns = _MOUTH
    small = [
        cv2.resize(crop[rows, columns], _MOUTH_PX, interpolation=cv2.INTER_AREA) for crop in roi
    ]
    pixels = np.stack(small).reshape(len(roi), -1).astype(np.float64)
    pixels = pixels - pixels.mean(axis=1, keepdims=True)
    pixels = pixels - pixels.mean(axis=0)
    directions, sizes, _ = np.linalg.svd(pixels, full_matrices=False)
    return (directions * sizes)[:, :_COMPONENTS]
