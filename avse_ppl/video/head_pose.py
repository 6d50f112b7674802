r"""Head pose by robust rigid alignment of face keypoints.

A mean face in three dimensions, turned by :math:`R`, scaled by :math:`s` and moved by :math:`t`,
explains the five keypoints :math:`x_j` of a video frame up to errors with heavy tails,

.. math:: x_j = s \, (R \, X_j)_{1,2} + t + s \, e_j, \qquad e_j \sim \text{Student-t}(0, σ, ν),

so that one misplaced keypoint does not turn the head. Each video frame is solved by iteratively
reweighted least squares (EM for the Student-t); the poses then follow a random walk over time,
which a Kalman smoother averages by how certain each is.

References
----------
Z. Kang, M. Sadeghi, R. Horaud and X. Alameda-Pineda, "Expression-preserving face frontalization
improves visually assisted speech processing", International Journal of Computer Vision, 2023.
K. L. Lange, R. J. A. Little and J. M. G. Taylor, "Robust statistical modeling using the t
distribution", JASA 84, 1989.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avse_ppl.video.mouth_alignment import MEAN_FACE, find_runs

# Depth of eyes, nose tip and corners of the mouth, px of the crop, away from the viewer.
_DEPTH = np.array([0.0, 0.0, -26.0, -2.0, -2.0])
SOLID_FACE = np.column_stack([MEAN_FACE - [44.0, 10.0], _DEPTH])
"""``(5, 3)`` px of the crop, from a point between the eyes and the mouth: the mean face."""

_ERROR_PX = 1.5  # σ: of a keypoint, in px of the crop
_FREEDOM = 3.0  # ν
_ITERATIONS = 12
_TURN_PRIOR = np.deg2rad(40.0)  # keeps yaw and pitch off profile views
# Random walk: standard deviation after one second, of three angles, log scale, and two px of crop.
_WALK = np.array([1.0, 1.0, 1.0, 0.5, 100.0, 100.0])


@dataclass(frozen=True, eq=False)
class Poses:
    """Rigid alignment of a face over time.

    Parameters
    ----------
    parameters
        ``(frame, 6)``: roll, pitch, yaw (radians), log scale, and the place in pixels of the
        video frame; NaN where no face was found.
    confidence
        ``(frame,)`` mean weight of the keypoints, in [0, 1]; 0 where no face was found.
    """

    parameters: np.ndarray
    confidence: np.ndarray

    @property
    def degrees(self) -> np.ndarray:
        """``(frame, 3)`` yaw, pitch and roll."""
        return np.rad2deg(self.parameters[:, 2::-1])


def estimate_poses(keypoints: np.ndarray, time_s: np.ndarray) -> Poses:
    """Head pose over time, by robust rigid alignment of keypoints.

    The shape is adapted once to the speaker: by the median of what no pose explains.

    Parameters
    ----------
    keypoints
        ``(frame, 5, 2)`` pixels; NaN where no face was found.
    time_s
        ``(frame,)`` seconds.

    Examples
    --------
    >>> turned = project_points(SOLID_FACE, np.array([[0.1, 0.0, 0.3, 0.0, 100.0, 80.0]] * 9))
    >>> poses = estimate_poses(turned, np.arange(9) / 25)
    >>> poses.degrees[4].round().tolist(), poses.confidence[4].round(2).item()
    ([17.0, -0.0, 6.0], 1.0)
    """
    n_frames = len(keypoints)
    parameters, confidence = np.full((n_frames, 6), np.nan), np.zeros(n_frames)
    present = np.asarray(np.isfinite(keypoints).all(axis=(1, 2)))
    if not present.any():
        return Poses(parameters, confidence)
    points = keypoints[present].astype(np.float64)
    first, _, _ = fit_poses(points, SOLID_FACE, initialise_poses(points))

    # Shape of the speaker: the median over time of the residuals, turned back to the mean face.
    error = points - project_points(SOLID_FACE, first)
    error = error / np.exp(first[:, 3])[:, None, None]
    back = np.einsum("fij,fpi->fpj", compute_rotation(first)[:, :2], error)
    shape = SOLID_FACE + np.median(back, axis=0)

    # Second fit with that shape, then smoothed between gaps.
    found, certainty, weights = fit_poses(points, shape, first)
    parameters[present], confidence[present] = found, weights.mean(axis=1)
    information = np.zeros((n_frames, 6, 6))
    information[present] = certainty
    for start, stop in find_runs(present):
        part = slice(start, stop)
        parameters[part] = smooth_poses(parameters[part], information[part], time_s[part])
    return Poses(parameters, confidence)


def compute_rotation(parameters: np.ndarray) -> np.ndarray:
    """Rotation matrices ``(frame, 3, 3)``: yaw, then pitch, then roll."""
    (sin_r, sin_p, sin_y), (cos_r, cos_p, cos_y) = (
        function(parameters[:, :3].T) for function in (np.sin, np.cos)
    )
    # The nose points to -z: positive yaw and pitch move it right and up, so both turn backwards.
    sin_p, sin_y = -sin_p, -sin_y
    zero, one = np.zeros_like(sin_r), np.ones_like(sin_r)
    roll = np.array([[cos_r, -sin_r, zero], [sin_r, cos_r, zero], [zero, zero, one]])
    pitch = np.array([[one, zero, zero], [zero, cos_p, -sin_p], [zero, sin_p, cos_p]])
    yaw = np.array([[cos_y, zero, sin_y], [zero, one, zero], [-sin_y, zero, cos_y]])
    return np.einsum("ijf,jkf,klf->fil", roll, pitch, yaw)


def project_points(points: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Scaled orthographic projection of ``(point, 3)``, ``(frame, point, 2)`` pixels."""
    turned = np.einsum("fij,pj->fpi", compute_rotation(parameters)[:, :2], points)
    return np.exp(parameters[:, 3])[:, None, None] * turned + parameters[:, None, 4:]


def initialise_poses(points: np.ndarray) -> np.ndarray:
    """Initial parameters ``(frame, 6)``: roll, scale and place of a frontal face."""
    across = points[:, 1] - points[:, 0]
    down = points[:, 3:].mean(axis=1) - points[:, :2].mean(axis=1)
    roll = np.arctan2(across[:, 1] - down[:, 0], across[:, 0] + down[:, 1])
    shape = SOLID_FACE[:, :2]
    size = np.linalg.norm(points - points.mean(axis=1, keepdims=True), axis=(1, 2))
    scale = np.log(size / np.linalg.norm(shape - shape.mean(axis=0)))
    place = points.mean(axis=1)
    return np.column_stack([roll, 0 * roll, 0 * roll, scale, place])


def fit_poses(
    points: np.ndarray, shape: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Student-t fit: parameters ``(frame, 6)``, information ``(frame, 6, 6)`` and weights."""
    parameters = start.copy()
    prior = np.diag([0.0, _TURN_PRIOR**-2, _TURN_PRIOR**-2, 0.0, 0.0, 0.0])
    weights = np.ones(points.shape[:2])
    information = np.tile(np.eye(6), (len(points), 1, 1))
    for _ in range(_ITERATIONS):
        scale = np.exp(parameters[:, 3])[:, None, None] * _ERROR_PX
        error = (points - project_points(shape, parameters)) / scale
        weights = (_FREEDOM + 2.0) / (_FREEDOM + (error**2).sum(axis=2))
        slopes = differentiate_projection(shape, parameters) / scale[..., None]
        information = np.einsum("fpia,fp,fpib->fab", slopes, weights, slopes) + prior
        pull = np.einsum("fpia,fp,fpi->fa", slopes, weights, error) - parameters @ prior
        damped = information + 1e-3 * information * np.eye(6)
        step = np.linalg.solve(damped, pull[..., None])[..., 0]
        step[:, :3] = step[:, :3].clip(-0.3, 0.3)
        parameters = parameters + step
    return parameters, information, (weights / (1.0 + 2.0 / _FREEDOM)).clip(max=1.0)


def differentiate_projection(
    shape: np.ndarray, parameters: np.ndarray, step: float = 1e-5
) -> np.ndarray:
    """Jacobian of the projection by central differences, ``(frame, point, 2, 6)``."""
    changes = step * np.eye(6)
    ahead = [project_points(shape, parameters + change) for change in changes]
    behind = [project_points(shape, parameters - change) for change in changes]
    return (np.stack(ahead, axis=-1) - np.stack(behind, axis=-1)) / (2.0 * step)


def smooth_poses(mean: np.ndarray, information: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    """Kalman smoother of a random walk; ``(frame, 6)`` estimates with their information."""
    mean = mean.copy()
    mean[:, 0] = np.unwrap(mean[:, 0])
    walk = np.diag(_WALK**2)
    walk[4:, 4:] *= np.exp(2.0 * np.median(mean[:, 3]))
    filtered, spread, predicted = [mean[0]], [np.linalg.inv(information[0])], [np.eye(6)]
    for now in range(1, len(mean)):
        ahead = spread[-1] + walk * (time_s[now] - time_s[now - 1])
        after = np.linalg.inv(np.linalg.inv(ahead) + information[now])
        filtered.append(filtered[-1] + after @ information[now] @ (mean[now] - filtered[-1]))
        spread.append(after)
        predicted.append(ahead)
    smoothed = [filtered[-1]]
    for now in range(len(mean) - 2, -1, -1):
        gain = spread[now] @ np.linalg.inv(predicted[now + 1])
        smoothed.append(filtered[now] + gain @ (smoothed[-1] - filtered[now]))
    return np.array(smoothed[::-1])
