"""Constant offset and infrasound: high-pass at 20 Hz, below what anyone hears or says."""

from __future__ import annotations

import warnings

import numpy as np

_CUTOFF_HZ = 20.0
_ORDER = 2
_SHARE = 0.2  # of the energy: less does no harm
_EDGE_S = 0.2  # how long the filter rings
_BLOCK_S = 0.025  # the mean of blocks as long holds what is below 20 Hz


def measure_infrasound(samples: np.ndarray, sample_rate_hz: int) -> float:
    """Share of a waveform's energy that lies below 20 Hz, a constant offset among it, in [0, 1].

    From the means of blocks of 25 ms, in which an offset is whole, and little is left of 40 Hz.

    Parameters
    ----------
    samples
        ``(sample,)``.
    sample_rate_hz
        Its rate, Hz.

    Examples
    --------
    >>> tone = np.sin(np.arange(16000) / 5)
    >>> round(measure_infrasound(tone, 16000), 2), round(measure_infrasound(tone + 2, 16000), 2)
    (0.0, 0.89)
    """
    block = max(1, round(_BLOCK_S * sample_rate_hz))
    whole = samples[: len(samples) // block * block].astype(np.float64)
    energy = float(np.mean(whole**2)) if len(whole) else 0.0
    if energy == 0.0:
        return 0.0
    return float(np.mean(whole.reshape(-1, block).mean(1) ** 2)) / energy


def remove_infrasound(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Waveform without what lies below 20 Hz, where that is a fifth of its energy or more.

    A second-order Butterworth filter, forwards and backwards, so that nothing moves in time. Other
    waveforms come back as they are.

    Parameters
    ----------
    samples
        ``(sample,)`` or ``(channel, sample)``, finite.
    sample_rate_hz
        Its rate, Hz.

    Warns
    -----
    UserWarning
        If anything is removed.

    Examples
    --------
    >>> tone = np.sin(np.arange(16000, dtype="float32") / 5)
    >>> remove_infrasound(tone, 16000) is tone
    True
    >>> with warnings.catch_warnings(action="ignore"):
    ...     cleaned = remove_infrasound(tone + 2, 16000)
    >>> bool(np.abs(cleaned - tone)[2000:-2000].max() < 0.01)
    True
    """
    rows = np.atleast_2d(samples)
    shares = [measure_infrasound(row, sample_rate_hz) for row in rows]
    # A waveform that is nothing but an offset is left for the checks of silence.
    affected = [s >= _SHARE and bool(np.ptp(row)) for s, row in zip(shares, rows, strict=True)]
    if not any(affected):
        return samples
    from scipy.signal import butter, sosfiltfilt

    warnings.warn(
        f"{max(shares):.0%} of the recording's energy is a constant offset or lies below 20 Hz: "
        "removed by a high-pass filter; look at the sound card's input",
        UserWarning,
        stacklevel=2,
    )
    filters = butter(_ORDER, _CUTOFF_HZ, "highpass", fs=sample_rate_hz, output="sos")
    edge, last = round(_EDGE_S * sample_rate_hz), rows.shape[1] - 1
    cleaned = rows.copy()
    for row in np.flatnonzero(affected):
        # The mean goes first, and the ends are mirrored: they would ring otherwise.
        centred = rows[row] - rows[row].mean()
        cleaned[row] = sosfiltfilt(filters, centred, padtype="even", padlen=min(edge, last))
    return cleaned.reshape(samples.shape)
