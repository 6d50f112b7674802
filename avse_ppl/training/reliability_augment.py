"""Variations of a clip of lips that leave its reliability as it is."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from avse_ppl.video.lips import Lips
from avse_ppl.video.mouth_alignment import CROP_PX, sharpness

_TURN_DEG, _SCALE, _SHIFT_PX = 7.0, 0.1, 5.0
_CONTRAST, _LEVEL, _GRAIN = (0.55, 1.4), (-30.0, 30.0), 4.0
_NOISES = 40
_READY_MADE = 0.3  # share of the clips of which no tracker says anything
_RETIMED = 0.15  # share of the clips that were brought from another rate


def vary_lips(lips: Lips, rng: np.random.Generator) -> Lips:
    """Mirror, turn, scale, shift and relight a clip, one way for all of its frames.

    A third of the clips lose what a tracker would know, as ready-made crops do; some repeat or
    leave out a frame now and then, as videos of another rate do.

    Examples
    --------
    >>> lips = Lips.from_crops(np.full((30, 88, 88), 90, dtype=np.uint8), rate_hz=25)
    >>> vary_lips(lips, np.random.default_rng(0)).roi.shape
    (30, 88, 88)
    """
    if rng.random() < _RETIMED:
        lips = _retimed(lips, rng)
    mirrored = bool(rng.random() < 0.5)
    roi = _relit(_moved(lips.roi, mirrored, rng), rng)
    roi[~lips.found] = 0
    pose = lips.pose_deg * (np.array([-1.0, 1.0, -1.0]) if mirrored else 1.0)
    blur = np.where(lips.found, [sharpness(crop) for crop in roi], 0.0)
    varied = replace(lips, roi=roi, pose_deg=pose, blur=blur)
    return _ready_made(varied) if rng.random() < _READY_MADE else varied


def _retimed(lips: Lips, rng: np.random.Generator) -> Lips:
    """Repeat (or skip) one frame in twenty or so; the clip keeps its length and its time."""
    pace = 1.0 + rng.uniform(-0.06, 0.06)
    steps = np.arange(len(lips))
    index = np.rint(np.floor(steps * pace + rng.random()) / pace).astype(int).clip(0, len(lips) - 1)
    columns = ("roi", "found", "interpolated", "score", "pose_deg", "pose_confidence", "blur")
    return replace(lips, **{name: getattr(lips, name)[index] for name in columns})


def _moved(roi: np.ndarray, mirrored: bool, rng: np.random.Generator) -> np.ndarray:
    import cv2

    centre = (CROP_PX / 2 - 0.5,) * 2
    matrix = cv2.getRotationMatrix2D(
        centre, rng.uniform(-_TURN_DEG, _TURN_DEG), 1.0 + rng.uniform(-_SCALE, _SCALE)
    )
    matrix[:, 2] += rng.uniform(-_SHIFT_PX, _SHIFT_PX, 2)
    if mirrored:
        matrix = matrix @ np.array([[-1, 0, CROP_PX - 1], [0, 1, 0], [0, 0, 1.0]])
    return np.stack(
        [
            cv2.warpAffine(c, matrix, (CROP_PX, CROP_PX), borderMode=cv2.BORDER_REPLICATE)
            for c in roi
        ]
    )


def _relit(roi: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    import cv2

    if rng.random() < 0.3:
        sigma = rng.uniform(0.3, 1.3)
        roi = np.stack([cv2.GaussianBlur(crop, (0, 0), sigma) for crop in roi])
    level = float(roi[:: max(len(roi) // 8, 1)].mean())
    table = (np.arange(256) - level) * rng.uniform(*_CONTRAST) + level * rng.uniform(0.6, 1.3)
    table = np.clip(np.rint(table + rng.uniform(*_LEVEL)), 1, 255).astype(np.uint8)
    lit = cv2.LUT(roi, table)
    if rng.random() >= 0.4:
        return lit
    # The same few pictures of noise, from a place and with a level drawn anew.
    begin = int(rng.integers(len(_noise())))
    grain = np.float32(rng.uniform(0, _GRAIN)) * np.roll(_noise(), -begin, axis=0)
    return np.clip(lit + np.resize(grain, lit.shape), 1, 255).astype(np.uint8)


@functools.cache
def _noise() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((_NOISES, CROP_PX, CROP_PX), dtype=np.float32)


def _ready_made(lips: Lips) -> Lips:
    """As `Lips.from_crops` would describe the crops; the truth of the pose stays in the crops."""
    return replace(
        lips,
        score=lips.found.astype(np.float32),
        interpolated=np.zeros(len(lips), bool),
        pose_deg=np.full((len(lips), 3), np.nan),
        pose_confidence=np.zeros(len(lips)),
    )
