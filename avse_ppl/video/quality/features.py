"""Input features of the reliability network: tracker outputs and log-mel energies."""

from __future__ import annotations

import functools

import numpy as np

from avse_ppl.models.networks.av_sync import BANDS, STEPS
from avse_ppl.video.lips import Lips

SOUND_HZ = 16000
VIDEO_RATE_HZ = 25.0
_STEP, _WINDOW, _FFT = SOUND_HZ // 100, 400, 512
_LOWEST_HZ, _HIGHEST_HZ = 80.0, 7600.0
_FLOOR = 1e-4  # of the mean power
_ANGLE_DEG = 45.0
_GAP = 5.0  # frames, over which a gap is remembered


def compute_tracker_columns(lips: Lips) -> np.ndarray:
    """Tracker columns and image statistics of the crops, scaled to about 1.

    Returns
    -------
    numpy.ndarray
        ``(frame, 13)`` float32: found, bridged, score, whether the pose is known, yaw, pitch and
        roll over 45 degrees, confidence of the pose, log sharpness, log mean change since the
        frame before, mean level, contrast, nearness of a gap. No NaN: what is not known is 0.

    Examples
    --------
    >>> lips = Lips.from_crops(np.full((5, 88, 88), 90, dtype=np.uint8), rate_hz=25)
    >>> compute_tracker_columns(lips).shape, compute_tracker_columns(lips)[0, :4].tolist()
    ((5, 13), [1.0, 0.0, 1.0, 0.0])
    """
    found = lips.found.astype(np.float32)
    known = np.isfinite(lips.pose_deg).all(axis=1)
    pose = np.nan_to_num(lips.pose_deg / _ANGLE_DEG).clip(-3, 3)
    small = lips.roi[:, ::2, ::2].astype(np.float32)
    change = np.zeros(len(lips))
    change[1:] = np.abs(np.diff(small, axis=0)).mean(axis=(1, 2)) * found[1:] * found[:-1]
    mean, contrast = small.mean(axis=(1, 2)) / 255.0, small.std(axis=(1, 2)) / 64.0

    # Nearness of a gap: falls from 1 at frames without a face to 0 far away from any.
    nearness, gaps, place = np.zeros(len(lips)), np.flatnonzero(~lips.found), np.arange(len(lips))
    if len(gaps):
        after = gaps[np.searchsorted(gaps, place).clip(0, len(gaps) - 1)]
        before = gaps[(np.searchsorted(gaps, place, side="right") - 1).clip(0)]
        distance = np.minimum(np.abs(after - place), np.abs(before - place))
        nearness = np.exp(-distance / _GAP)
    columns = (
        found, lips.interpolated, lips.score, known, *pose.T, lips.pose_confidence,
        np.log1p(np.nan_to_num(lips.blur)) / 5.0, np.log1p(change), mean, contrast, nearness,
    )  # fmt: skip
    return np.nan_to_num(np.stack(columns, axis=1).astype(np.float32)) * found[:, None]


def compute_log_mel_energies(samples: np.ndarray, frames: int) -> np.ndarray:
    """Log-mel energies in 40 bands, four times a video frame, less their mean over time.

    Parameters
    ----------
    samples
        ``(sample,)`` at 16 kHz; sample 0 belongs to the first video frame.
    frames
        Number of video frames, 25 a second.

    Returns
    -------
    numpy.ndarray
        ``(frame, 160)`` float32, halved nepers about the mean of each band.

    Examples
    --------
    >>> compute_log_mel_energies(np.zeros(16000, dtype=np.float32), 25).shape
    (25, 160)
    """
    steps = frames * STEPS
    wanted = (steps - 1) * _STEP + _WINDOW
    padded = np.pad(np.asarray(samples, np.float32), (_WINDOW // 2 - _STEP // 2, _WINDOW))
    padded = np.pad(padded[:wanted], (0, max(0, wanted - len(padded))))
    cut = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_STEP][:steps]
    power = np.abs(np.fft.rfft(cut * np.hanning(_WINDOW).astype(np.float32), _FFT)) ** 2
    levels = power.astype(np.float32) @ build_mel_filterbank().T
    floor = max(float(levels.mean()) * _FLOOR, 1e-10)
    logs = np.log(levels + floor)
    logs = (logs - logs.mean(axis=0)) / 2.0
    return logs.reshape(frames, STEPS * BANDS).astype(np.float32)


@functools.cache
def build_mel_filterbank() -> np.ndarray:
    """Triangular mel filters, ``(band, bin)``, each with sum 1."""
    low, high = (1127 * np.log1p(hz / 700) for hz in (_LOWEST_HZ, _HIGHEST_HZ))
    edges = 700 * np.expm1(np.linspace(low, high, BANDS + 2) / 1127)
    bins = np.fft.rfftfreq(_FFT, 1 / SOUND_HZ)
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise, fall = (bins - left) / (middle - left), (right - bins) / (right - middle)
    triangles = np.clip(np.minimum(rise, fall), 0, None)
    triangles += 1e-6 * (np.abs(bins - middle) == np.abs(bins - middle).min(1, keepdims=True))
    return (triangles / triangles.sum(axis=1, keepdims=True)).astype(np.float32)
