"""Speed and length of waveforms."""

from __future__ import annotations

import numpy as np


def change_speed(wave: np.ndarray, speed: float) -> np.ndarray:
    """Resample a waveform so that it plays at some speed, higher and shorter or lower and longer.

    Examples
    --------
    >>> change_speed(np.ones(1100, "float32"), 1.1).shape
    (1000,)
    """
    import soxr

    return wave if speed == 1.0 else soxr.resample(wave, speed, 1.0)


def undo_speed(wave: np.ndarray, speed: float, samples: int) -> np.ndarray:
    """Bring a waveform that plays at some speed back to its own, and to a number of samples.

    Examples
    --------
    >>> undo_speed(np.ones(1000, "float32"), 1.1, 1100).shape
    (1100,)
    """
    return fit_length(change_speed(wave, 1.0 / speed), samples)


def fit_length(wave: np.ndarray, samples: int) -> np.ndarray:
    """Cut a waveform to a number of samples, or add zeros.

    Examples
    --------
    >>> fit_length(np.ones(2), 3).tolist()
    [1.0, 1.0, 0.0]
    """
    return np.pad(wave, (0, max(0, samples - len(wave))))[:samples]
