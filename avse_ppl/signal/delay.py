"""Lag between two recordings, by cross-correlation."""

from __future__ import annotations

import warnings

import numpy as np

from avse_ppl.signal.audio import Audio, AudioLike, as_audio

_ALIGNED_S = 0.005


def check_rates(clean: Audio, estimate: Audio, name: str) -> None:
    """Refuse two recordings at different rates."""
    if clean.sample_rate_hz != estimate.sample_rate_hz:
        raise ValueError(
            f"expected clean and {name} at one rate, found {clean.sample_rate_hz} Hz and "
            f"{estimate.sample_rate_hz} Hz; resample one with "
            f"audio.resample({clean.sample_rate_hz})"
        )


def estimate_lag_s(
    clean: AudioLike,
    estimate: AudioLike,
    sample_rate_hz: int | None = None,
    *,
    max_lag_s: float = 1.0,
) -> float:
    """Estimate the lag of a recording, seconds: where the cross-correlation is largest.

    Parameters
    ----------
    clean, estimate, sample_rate_hz
        As in `evaluate`, with one channel.
    max_lag_s
        Lags up to this one are searched, either way.

    Returns
    -------
    float
        Positive if the estimate comes later than the clean recording.

    Raises
    ------
    ValueError
        If the two differ in rate, either has several channels, or either is silent.

    Examples
    --------
    >>> clean = np.random.default_rng(0).standard_normal(8000)
    >>> estimate_lag_s(clean, np.roll(clean, 160), sample_rate_hz=16000)
    0.01
    """
    reference, other = as_audio(clean, sample_rate_hz), as_audio(estimate, sample_rate_hz)
    check_rates(reference, other, "estimate")
    for name, audio in (("clean", reference), ("estimate", other)):
        if audio.n_channels != 1 or audio.peak == 0:
            raise ValueError(
                f"expected the {name} recording with one channel that is not silent, found "
                f"{audio.n_channels} with peak {audio.peak:g}; take one of audio.channels()"
            )
    lags, correlation = cross_correlate(reference, other, max_lag_s)
    return float(lags[correlation.argmax()]) / reference.sample_rate_hz


def cross_correlate(
    clean: Audio, estimate: Audio, max_lag_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the magnitude of the cross-correlation; returns lags in samples, and it at each."""
    size = 1 << (clean.n_samples + estimate.n_samples).bit_length()
    spectrum = np.fft.rfft(estimate.samples, size) * np.fft.rfft(clean.samples, size).conj()
    correlation = np.abs(np.fft.irfft(spectrum, size))
    max_lag = min(round(max_lag_s * clean.sample_rate_hz), clean.n_samples - 1)
    lags = np.arange(-max_lag, max_lag + 1)
    return lags, correlation[lags]


def warn_if_misaligned(clean: Audio, estimate: Audio, name: str) -> None:
    """Warn if the estimate is more than 5 ms late or early."""
    lags, correlation = cross_correlate(clean, estimate, 1.0)
    lag_s = lags[correlation.argmax()] / clean.sample_rate_hz
    aligned = correlation[np.abs(lags) <= _ALIGNED_S * clean.sample_rate_hz].max()
    noise_floor = 0.1 * float(np.linalg.norm(clean.samples) * np.linalg.norm(estimate.samples))
    if correlation.max() > max(1.2 * aligned, noise_floor):  # less: pitch of a voice, or chance
        side = "late" if lag_s > 0 else "early"
        message = (
            f"the {name} is {abs(lag_s) * 1e3:.1f} ms {side}: shift it first, since SI-SDR means "
            "nothing for recordings that are not aligned"
        )
        warnings.warn(message, UserWarning, stacklevel=2)
