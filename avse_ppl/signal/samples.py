"""What arrays of samples must be, and how they get there."""

from __future__ import annotations

from numbers import Integral

import numpy as np

MIN_SAMPLE_RATE_HZ = 4000
MAX_CHANNELS_LAST = 8  # an array (n, k) with k up to this many columns is (sample, channel)

_INTEGERS = {"int16": (0.0, 2.0**15), "int32": (0.0, 2.0**31), "uint8": (128.0, 128.0)}


def check_rate(rate_hz: object) -> int:
    """Return a usable rate as int, or say what is wrong with it."""
    if not isinstance(rate_hz, Integral) or isinstance(rate_hz, bool):
        raise TypeError(
            f"expected sample_rate_hz to be a whole number of Hz, found {rate_hz!r}; "
            "for example sample_rate_hz=16000"
        )
    if rate_hz < MIN_SAMPLE_RATE_HZ:
        raise ValueError(
            f"expected sample_rate_hz to be at least {MIN_SAMPLE_RATE_HZ}, found {rate_hz}; "
            "is the rate given in kHz, or exchanged with another argument?"
        )
    return int(rate_hz)


def to_float(samples: np.ndarray) -> np.ndarray:
    """Return ``(sample,)`` or ``(channel, sample)`` float32 with full scale at 1."""
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and len(samples) == 0):
        raise ValueError(
            f"expected samples of shape (sample,) or (channel, sample), found {samples.shape}; "
            "pass one recording at a time"
        )
    if samples.dtype.name in _INTEGERS:
        zero, full_scale = _INTEGERS[samples.dtype.name]
        samples = (samples.astype(np.float64) - zero) / full_scale
    if samples.dtype.kind != "f":
        raise TypeError(
            f"expected real samples as float, int16, int32 or uint8, found {samples.dtype.name}; "
            "convert them to float with full scale at 1 (a spectrogram must be inverted first)"
        )
    samples = samples[0] if samples.ndim == 2 and len(samples) == 1 else samples
    with np.errstate(over="ignore"):  # what overflows becomes inf, and `check_audio` says so
        return np.ascontiguousarray(samples, dtype=np.float32)


def channels_first(samples: np.ndarray) -> np.ndarray:
    """Turn ``(sample, channel)`` round, where that is what it must be."""
    if samples.ndim != 2 or samples.shape[0] <= samples.shape[1]:
        return samples
    if samples.shape[1] > MAX_CHANNELS_LAST:
        raise ValueError(
            f"cannot tell channels from samples in an array of shape {samples.shape}; "
            "expected (channel, sample): transpose it"
        )
    return samples.T


def check_finite(samples: np.ndarray) -> None:
    """Refuse NaN and infinite samples."""
    bad = int(np.count_nonzero(~np.isfinite(samples)))
    if bad:
        raise ValueError(
            f"expected finite samples, found {bad} of {samples.size} NaN or infinite; "
            "look at what wrote the recording"
        )


def clipped_runs(samples: np.ndarray) -> int:
    """Count the runs of three or more samples at the peak, if that is at full scale."""
    magnitude = np.abs(samples)
    peak = magnitude.max()
    if peak < 0.99:
        return 0
    at_peak = magnitude >= peak - 2.0**-14  # 16-bit full scale is 1 below zero, 1 - 2^-15 above
    three = at_peak[:-2] & at_peak[1:-1] & at_peak[2:]
    return int(np.count_nonzero(np.diff(three.astype(np.int8), prepend=0) == 1))
