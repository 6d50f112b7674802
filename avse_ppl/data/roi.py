"""Mouth crops that a corpus brings itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

ROI_HZ = 30.0
_SIDE = 67


def read_roi(path: str | Path) -> np.ndarray:
    """Read the mouth crops of one NTCD-TIMIT clip.

    Parameters
    ----------
    path : str or Path
        ``.mat`` (MATLAB 7.3) or ``.npy`` with one array, ``(4489, frame)`` or ``(frame, 4489)``:
        each frame 67 x 67 pixels, column by column, in [0, 1] or [0, 255].

    Returns
    -------
    numpy.ndarray
        Shape ``(frame, 67, 67)``, uint8, upright; 30 frames a second.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no mouth crops in {path}; copy the corpus again")
    pixels = np.load(path) if path.suffix.lower() == ".npy" else _read_mat(path)
    if pixels.ndim != 2 or _SIDE**2 not in pixels.shape:
        raise ValueError(
            f"{path} holds an array of the shape {pixels.shape}; expected (frame, {_SIDE**2}) or "
            f"({_SIDE**2}, frame), which are crops of {_SIDE} x {_SIDE} pixels"
        )
    pixels = pixels if pixels.shape[1] == _SIDE**2 else pixels.T
    if not np.isfinite(pixels).all():
        raise ValueError(f"{path} has NaN or infinite pixels; copy the corpus again")
    scale = 255.0 if pixels.size and pixels.max() <= 1.0 else 1.0
    upright = pixels.reshape(-1, _SIDE, _SIDE).transpose(0, 2, 1)  # MATLAB goes down columns
    return np.clip(np.round(upright * scale), 0, 255).astype(np.uint8)


def _read_mat(path: Path) -> np.ndarray:
    import h5py

    try:
        with h5py.File(path) as file:
            arrays = [np.asarray(item) for item in file.values() if isinstance(item, h5py.Dataset)]
    except OSError as error:
        raise ValueError(f"{path} is no file of MATLAB 7.3: {error}") from error
    if len(arrays) != 1:
        raise ValueError(f"{path} holds {len(arrays)} arrays; expected the mouth crops only")
    return arrays[0]
