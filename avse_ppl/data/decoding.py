"""Decoding of clips: mono, one rate, high-passed speech."""

from __future__ import annotations

import numpy as np

from avse_ppl.data.clips import Clip
from avse_ppl.signal.audio import load_audio

_HIGHPASS_ORDER = 4


def decode(clip: Clip, sample_rate_hz: int = 16000, highpass_hz: float | None = 70.0) -> np.ndarray:
    """Decode one clip as the cache holds it: mono, resampled, high-passed if it is speech.

    Parameters
    ----------
    clip : Clip
        What to decode.
    sample_rate_hz : int
        Rate of the result.
    highpass_hz : float or None
        Corner of the high-pass; ``None`` for no filter.

    Returns
    -------
    numpy.ndarray
        Shape ``(samples,)``, float32.

    Raises
    ------
    ValueError
        If the clip has no samples or NaN.
    FileNotFoundError
        If it is missing.
    """
    samples = load_audio(clip.path).audible_mono().resample(sample_rate_hz).samples
    if samples.size == 0:
        raise ValueError(f"{clip.path} has no samples; take it off the list or copy it again")
    if not np.isfinite(samples).all():
        raise ValueError(f"{clip.path} has NaN or infinite samples; take it off the list")
    if highpass_hz is not None and not clip.is_noise:
        samples = highpass(samples, sample_rate_hz, highpass_hz)
    return samples.astype(np.float32, copy=False)


def highpass(samples: np.ndarray, sample_rate_hz: int, corner_hz: float = 70.0) -> np.ndarray:
    """Remove what lies below a corner frequency, without delay.

    Parameters
    ----------
    samples : numpy.ndarray
        Shape ``(samples,)``.
    sample_rate_hz : int
        Rate of `samples`.
    corner_hz : float
        -6 dB point (the fourth-order Butterworth filter runs twice).

    Returns
    -------
    numpy.ndarray
        Same shape.

    Examples
    --------
    >>> import numpy as np
    >>> hum = np.sin(2 * np.pi * 20 * np.arange(16000) / 16000)
    >>> bool(np.std(highpass(hum, 16000)[4000:-4000]) < 1e-3)
    True
    """
    from scipy.signal import butter, sosfiltfilt

    sos = butter(_HIGHPASS_ORDER, corner_hz, "highpass", fs=sample_rate_hz, output="sos")
    # A quarter second at each edge lets the filter settle; a short clip has less to give.
    return sosfiltfilt(sos, samples, padlen=min(sample_rate_hz // 4, samples.size - 1))
