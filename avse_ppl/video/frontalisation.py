"""Frontalisation: mouth crops of a turned face rendered as seen from the front.

The lower face is a rigid 3-D surface (a bent sheet with a nose on it), turned by the head pose;
each pixel of the frontal crop is taken from where that point of the surface projects to in the
video frame.
"""

from __future__ import annotations

import numpy as np

from avse_ppl.video.head_pose import SOLID_FACE, project_points
from avse_ppl.video.mouth_alignment import CROP_PX, MEAN_FACE, cut_crop, estimate_crop_transform

_FINE = 2.0  # the video frame is first brought to this many times the resolution of the crop
_EDGE_PX = 40  # of the crop, around it
_BEND = 0.0155  # depth of the cheeks, px of the crop over px squared from the middle
_LIPS_DEPTH = -10.0  # at the middle; the corners of the mouth then lie at -2, as in SOLID_FACE
_NOSE_PX = 9.0


def build_face_surface() -> np.ndarray:
    """Points of the lower face under the pixels of the crop, ``(88 * 88, 3)``."""
    across, down = np.meshgrid(np.arange(CROP_PX), np.arange(CROP_PX))
    depth = _LIPS_DEPTH + _BEND * (across - 44.0) ** 2
    nose = MEAN_FACE[2]
    away = (across - nose[0]) ** 2 + (down - nose[1]) ** 2
    depth = depth + (SOLID_FACE[2, 2] - _LIPS_DEPTH) * np.exp(-0.5 * away / _NOSE_PX**2)
    return np.column_stack([across.ravel() - 44.0, down.ravel() - 10.0, depth.ravel()])


def cut_frontal_crop(
    picture: np.ndarray, keypoints: np.ndarray, parameters: np.ndarray
) -> np.ndarray:
    """Mouth crop of a turned face, rendered in frontal view.

    Parameters
    ----------
    picture
        ``(height, width)`` uint8.
    keypoints
        ``(5, 2)`` pixels: the mouth comes to the middle of the crop.
    parameters
        ``(6,)`` of the pose, see `head_pose.Poses`.

    Returns
    -------
    ``(88, 88)`` uint8.
    """
    import cv2

    mouth = np.vstack([build_face_surface(), SOLID_FACE[3:]])
    projected = project_points(mouth, parameters[None])[0]
    projected = projected + keypoints[3:].mean(axis=0) - projected[-2:].mean(axis=0)
    transform = estimate_crop_transform(keypoints)
    transform[:, 2] += _EDGE_PX
    transform *= _FINE
    chip = cut_crop(picture, transform, int(_FINE * (CROP_PX + 2 * _EDGE_PX)))
    places = (projected[:-2] @ transform[:, :2].T + transform[:, 2]).astype(np.float32)
    places = places.reshape(CROP_PX, CROP_PX, 2)
    return cv2.remap(
        chip, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
