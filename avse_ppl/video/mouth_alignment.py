r"""Mouth alignment: smooth keypoints, similarity transform, crop.

The convention of the field (LRW, AV-HuBERT): each face is turned and scaled onto a mean face, and
a square around the mouth is cut out. In the crop of 88x88 pixels the mean face has its eyes 58
pixels apart and 64 above the mouth, which is 45 wide and sits at the centre.
"""

from __future__ import annotations

import numpy as np

CROP_PX = 88
MEAN_FACE = np.array(
    [[15.0, -21.3], [73.0, -21.3], [44.0, 10.5], [21.3, 42.5], [66.7, 42.5]]
)  # px of the crop: eyes, nose tip, corners of the mouth

_SMOOTH_S = 0.1  # passes motion of the head, holds back that of the mouth and the detector's noise
_MOUTH = slice(3, 5)


def smooth_trajectories(
    points: np.ndarray, time_s: np.ndarray, width_s: float = _SMOOTH_S
) -> np.ndarray:
    """Smooth trajectories by local lines with Gaussian weights.

    Parameters
    ----------
    points
        ``(frame, ...)``; NaN where there is nothing, and nothing is smoothed across.
    time_s
        ``(frame,)`` growing, seconds.
    width_s
        Standard deviation of the weights, seconds.

    Examples
    --------
    >>> time_s = np.arange(50) / 25.0
    >>> line = 3.0 * time_s[:, None]
    >>> bool(np.allclose(smooth_trajectories(line, time_s), line))
    True
    """
    flat = points.reshape(len(points), -1).astype(np.float64)
    out = np.full_like(flat, np.nan)
    for start, stop in find_runs(np.asarray(np.isfinite(flat).all(axis=1))):
        times = time_s[start:stop]
        firsts = np.searchsorted(times, times - 3.0 * width_s)
        lasts = np.searchsorted(times, times + 3.0 * width_s, side="right")
        for row, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
            near = slice(start + first, start + last)
            out[start + row] = _local_line(flat[near], time_s[near] - times[row], width_s)
    return out.reshape(points.shape)


def _local_line(values: np.ndarray, away_s: np.ndarray, width_s: float) -> np.ndarray:
    """Value at 0 of the line fitted to ``(frame, value)`` with Gaussian weights."""
    weights = np.exp(-0.5 * (away_s / width_s) ** 2)
    weights = weights / weights.sum()
    centre = weights @ away_s
    spread = weights @ (away_s - centre) ** 2
    slope = (weights * (away_s - centre)) @ values / spread if spread > 0 else 0.0
    return weights @ values - slope * centre


def find_runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return where the stretches of True start and stop.

    Examples
    --------
    >>> find_runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def estimate_crop_transform(keypoints: np.ndarray) -> np.ndarray:
    """Return the similarity that brings a face onto the mean face, mouth at the centre.

    Turn and scale are the least squares fit to eyes, nose tip and middle of the mouth (which
    hardly change with speech); the middle of the mouth then comes to where the mean face has it.

    Parameters
    ----------
    keypoints
        ``(5, 2)`` pixels of the video frame.

    Returns
    -------
    ``(2, 3)``, from pixels of the video frame to pixels of the crop.

    Examples
    --------
    >>> bool(
    ...     np.allclose(
    ...         estimate_crop_transform(MEAN_FACE * 2.0), [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]
    ...     )
    ... )
    True
    """
    source, target = _rigid_points(keypoints), _rigid_points(MEAN_FACE)
    from_px = (source - source.mean(axis=0)) @ [1.0, 1.0j]
    to_px = (target - target.mean(axis=0)) @ [1.0, 1.0j]
    turn = np.vdot(from_px, to_px) / max(np.vdot(from_px, from_px).real, 1e-9)
    matrix = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.column_stack([matrix, target[-1] - matrix @ source[-1]])


def _rigid_points(keypoints: np.ndarray) -> np.ndarray:
    return np.vstack([keypoints[:3], keypoints[_MOUTH].mean(axis=0)])


def cut_crop(picture: np.ndarray, transform: np.ndarray, size_px: int = CROP_PX) -> np.ndarray:
    """Cut a crop out of a video frame, averaging over pixels where it shrinks.

    Parameters
    ----------
    picture
        ``(height, width)`` or ``(height, width, 3)`` uint8.
    transform
        ``(2, 3)``, from pixels of the video frame to pixels of the crop.
    size_px
        Width and height of the crop.

    Returns
    -------
    ``(size_px, size_px[, 3])`` uint8. What lies outside the video frame repeats its edge.
    """
    import cv2

    transform = np.asarray(transform, dtype=np.float64)
    shrink = int(1.0 / max(np.hypot(transform[0, 0], transform[1, 0]), 1e-6))
    if shrink >= 2:
        shrink = min(shrink, *picture.shape[:2])
        picture, transform = _shrunk(picture, transform, size_px, shrink)
    return cv2.warpAffine(
        picture,
        transform,
        (size_px, size_px),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _shrunk(
    picture: np.ndarray, transform: np.ndarray, size_px: int, factor: int
) -> tuple[np.ndarray, np.ndarray]:
    """Average blocks of ``factor x factor`` pixels, around the crop only."""
    import cv2

    corners = np.array([[0, 0], [size_px, 0], [0, size_px], [size_px, size_px]], dtype=np.float64)
    corners = (corners - transform[:, 2]) @ np.linalg.inv(transform[:, :2]).T
    limit = np.array(picture.shape[1::-1]) - factor
    left, top = np.clip(corners.min(axis=0) // 1 - 2 * factor, 0, limit).astype(int)
    right, bottom = np.clip(corners.max(axis=0) // 1 + 2 * factor, 0, limit).astype(int) + factor
    width, height = max((right - left) // factor, 1), max((bottom - top) // factor, 1)
    part = picture[top : top + height * factor, left : left + width * factor]
    small = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    middle = (factor - 1) / 2.0  # pixel 0 of the small video frame lies here in the large one
    moved = transform[:, :2] @ (np.array([left, top]) + middle) + transform[:, 2]
    return small, np.column_stack([transform[:, :2] * factor, moved])


def compute_sharpness(crop: np.ndarray) -> float:
    r"""Variance of the Laplacian of a crop, in grey levels squared; small where it is blurred.

    References
    ----------
    J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative
    study", ICPR 2000.
    """
    import cv2

    return float(cv2.Laplacian(crop, cv2.CV_32F).var())
