"""Ready-made mouth crops, as other programs and corpora hold them."""

from __future__ import annotations

import numpy as np

from avse_ppl.video.mouth_alignment import CROP_PX

SIZES_PX = (67, 88, 96)

_GREY_OF_RGB = np.array([0.299, 0.587, 0.114])


def convert_crops(array: np.ndarray) -> np.ndarray:
    """Mouth crops of any supported format as ``(frame, 88, 88)`` uint8; see `Lips.from_crops`.

    Raises
    ------
    ValueError
        If they are not square crops of 67, 88 or 96 pixels with values of uint8 or in [0, 1].

    Examples
    --------
    >>> convert_crops(np.ones((2, 96, 96))).shape
    (2, 88, 88)
    """
    import cv2

    square = array.ndim in (3, 4) and len(array) > 0 and array.shape[1] == array.shape[2]
    if not square or array.shape[1] not in SIZES_PX or array.shape[3:] not in ((), (1,), (3,)):
        raise ValueError(
            f"expected mouth crops of shape (frame, size, size) or (frame, size, size, 3) with "
            f"size {', '.join(map(str, SIZES_PX))}, found {array.shape}; read_lips cuts them out "
            "of whole video frames"
        )

    # Grey levels, 0 to 255.
    if array.dtype == np.uint8:
        levels = array.astype(np.float64)
    elif not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"expected crops of uint8 or floats in [0, 1], found {array.dtype}")
    else:
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):
            raise ValueError(
                "expected crops of uint8 or floats in [0, 1], found values from "
                f"{low:g} to {high:g}; undo their normalisation"
            )
        levels = array.astype(np.float64) * 255.0
    if levels.ndim == 4:
        levels = levels[..., 0] if levels.shape[3] == 1 else levels @ _GREY_OF_RGB

    # The centre of larger crops; smaller ones are enlarged.
    grey, edge = levels.round().astype(np.uint8), (array.shape[1] - CROP_PX) // 2
    if edge >= 0:
        inner = slice(edge, edge + CROP_PX)
        return np.stack([crop[inner, inner] for crop in grey])
    return np.stack(
        [cv2.resize(crop, (CROP_PX, CROP_PX), interpolation=cv2.INTER_LINEAR) for crop in grey]
    )
