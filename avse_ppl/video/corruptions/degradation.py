"""Corruptions of the image: blur, noise, darkness, compression, pixelation."""

from __future__ import annotations

import numpy as np

from avse_ppl.video.corruptions.base import Change, CorruptionContext, compute_falloff
from avse_ppl.video.corruptions.tracker_columns import replace_crops
from avse_ppl.video.mouth_alignment import CROP_PX

_BLOCK = 8
_SENSOR = 2.0  # grey levels of noise in the dark


def blur(context: CorruptionContext) -> Change:
    r"""Out of focus by a Gaussian of :math:`\sigma = 12 s` pixels; r is a half at 4 pixels."""
    import cv2

    sigma = max(12.0 * context.severity, 0.05)
    roi = [cv2.GaussianBlur(crop, (0, 0), sigma) for crop in context.lips.roi[context.rows]]
    return _change(context, np.stack(roi), compute_falloff(sigma, 4.0, 3.0))


def noise(context: CorruptionContext) -> Change:
    """Noise of 100 s grey levels in each pixel of each frame; r is a half at 40."""
    level = 100.0 * context.severity
    crops = context.lips.roi[context.rows]
    return _change(
        context,
        crops + level * context.rng.standard_normal(crops.shape),
        compute_falloff(level, 40.0, 2.0),
    )


def dark(context: CorruptionContext) -> Change:
    """Light that falls to 100 to the power -s, with the sensor's noise; r is a half at 0.08."""
    light = 10.0 ** (-2.0 * context.severity)
    crops = context.lips.roi[context.rows] * light
    grain = _SENSOR * context.severity * context.rng.standard_normal(crops.shape)
    return _change(context, crops + grain, compute_falloff(0.08, light, 2.0))


def compression(context: CorruptionContext) -> Change:
    """Cosine transforms of 8x8 blocks rounded to steps of 200 s² grey levels; r half at 80."""
    from scipy.fft import dctn, idctn

    step = 200.0 * context.severity**2
    count = CROP_PX // _BLOCK
    crops = context.lips.roi[context.rows].astype(np.float32)
    blocks = crops.reshape(-1, count, _BLOCK, count, _BLOCK)
    waves = np.asarray(dctn(blocks, axes=(2, 4), norm="ortho"))
    mean = waves[:, :, :1, :, :1].copy()
    waves = np.round(waves / max(step, 1.0)) * max(step, 1.0)
    waves[:, :, :1, :, :1] = mean
    roi = np.asarray(idctn(waves, axes=(2, 4), norm="ortho")).reshape(crops.shape)
    return _change(context, roi, compute_falloff(step, 80.0, 2.0))


def motion_blur(context: CorruptionContext) -> Change:
    """Smeared along a line of 40 s pixels; r is a half at 20."""
    import cv2

    length = 40.0 * context.severity
    angle = context.rng.uniform(0, np.pi)
    side = 2 * int(np.ceil(length / 2)) + 1
    places = np.linspace(-length / 2, length / 2, 4 * side)
    kernel = np.zeros((side, side), np.float32)
    rows, columns = (np.rint(side // 2 + places * f(angle)).astype(int) for f in (np.sin, np.cos))
    np.add.at(kernel, (rows.clip(0, side - 1), columns.clip(0, side - 1)), 1.0 / len(places))
    roi = [cv2.filter2D(crop, -1, kernel) for crop in context.lips.roi[context.rows]]
    return _change(context, np.stack(roi), compute_falloff(length, 20.0, 3.0))


def pixelation(context: CorruptionContext) -> Change:
    """Shown in squares of 1 + 23 s pixels; r is a half at 12."""
    import cv2

    square = 1.0 + 23.0 * context.severity
    small = max(round(CROP_PX / square), 1)
    roi = [
        cv2.resize(
            cv2.resize(crop, (small, small), interpolation=cv2.INTER_AREA),
            (CROP_PX, CROP_PX),
            interpolation=cv2.INTER_NEAREST,
        )
        for crop in context.lips.roi[context.rows]
    ]
    return _change(context, np.stack(roi), compute_falloff(square - 1.0, 11.0, 3.0))


def dead_pixels(context: CorruptionContext) -> Change:
    """A share of 0.8 s of the pixels black or white, others in each frame; r is a half at 0.4."""
    share = 0.8 * context.severity
    crops = context.lips.roi[context.rows].copy()
    hit = context.rng.random(crops.shape) < share
    crops[hit] = 255 * context.rng.integers(0, 2, int(hit.sum()), dtype=np.uint8)
    return _change(context, crops, compute_falloff(share, 0.4, 2.0))


def _change(context: CorruptionContext, roi: np.ndarray, reliability: float) -> Change:
    return Change(
        replace_crops(context, roi, 1.0 - reliability), np.full(len(context), reliability)
    )
