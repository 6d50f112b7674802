"""Ready-made mouth crops, as other programs and corpora hold them."""

from __future__ import annotations

import numpy as np

from avse_ppl.video.mouth_alignment import CROP_PX

SIZES_PX = (67, 88, 96)

_GREY_OF_RGB = np.array([0.299, 0.587, 0.114])


def convert_crops(array: np.ndarray) -> np.ndarray:
    """Bring crops to ``(frame, 88, 88)`` uint8; see `Lips.from_crops`.

    Raises
    ------
    ValueError
        If they are not square crops of 67, 88 or 96 pixels with values of uint8 or in [0, 1].

    Examples
    --------
    >>> convert_crops(np.ones((2, 96, 96))).shape
    (2, 88, 88)
    """
    square = array.ndim in (3, 4) and len(array) > 0 and array.shape[1] == array.shape[2]
    if not square or array.shape[1] not in SIZES_PX or array.shape[3:] not in ((), (1,), (3,)):
        raise ValueError(
            f"expected mouth crops of shape (frame, size, size) or (frame, size, size, 3) with "
            f"size {', '.join(map(str, SIZES_PX))}, found {array.shape}; read_lips cuts them out "
            "of whole pictures"
        )
    levels = _to_levels(array)
    if levels.ndim == 4:
        levels = levels[..., 0] if levels.shape[3] == 1 else levels @ _GREY_OF_RGB
    return np.stack([_to_size(crop) for crop in levels.round().astype(np.uint8)])


def _to_levels(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array.astype(np.float64)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"expected crops of uint8 or floats in [0, 1], found {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(
            f"expected crops of uint8 or floats in [0, 1], found values from {low:g} to {high:g}; "
            "undo their normalisation"
        )
    return array.astype(np.float64) * 255.0


def _to_size(crop: np.ndarray) -> np.ndarray:
    import cv2

    edge = (len(crop) - CROP_PX) // 2
    if edge >= 0:
        return crop[edge : edge + CROP_PX, edge : edge + CROP_PX]
    return cv2.resize(crop, (CROP_PX, CROP_PX), interpolation=cv2.INTER_LINEAR)
