"""Variations of recorded sounds that make few hours stand for more."""

from __future__ import annotations

import numpy as np
from scipy.fft import next_fast_len
from scipy.signal import resample

_EDGE = 64  # samples cut off after resampling: it joins the two ends of a crop


def change_speed(wave: np.ndarray, samples: int) -> np.ndarray:
    """Resample to ``samples``: tempo, pitch and formants move together, like another talker's.

    ``wave`` holds as many samples as `samples_needed` says, of which the edges are lost.

    Examples
    --------
    >>> change_speed(np.ones(samples_needed(1000, 1.1)), 1000).shape
    (1000,)
    """
    if len(wave) == samples:
        return wave
    faster = resample(wave, _with_edges(samples))
    return faster[_EDGE : _EDGE + samples].astype(wave.dtype)


def samples_needed(samples: int, speed: float) -> int:
    """How many samples `change_speed` wants for so many at a speed, or at one very near to it."""
    if speed == 1.0:
        return samples
    return _fast(round(speed * _with_edges(samples)))


def _with_edges(samples: int) -> int:
    return _fast(samples + 2 * _EDGE)


def _fast(samples: int) -> int:
    """Next length whose Fourier transform is fast."""
    return int(next_fast_len(samples, real=True))  # type: ignore[arg-type]  # scipy's has no types


def steady(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stationary Gaussian-like noise with the spectrum of a recording: its phases are drawn anew.

    Examples
    --------
    >>> wave = np.random.default_rng(0).normal(size=512)
    >>> other = steady(wave, np.random.default_rng(1))
    >>> bool(np.allclose(np.abs(np.fft.rfft(other)), np.abs(np.fft.rfft(wave))))
    True
    """
    spectrum = np.fft.rfft(wave)
    phases = rng.uniform(0.0, 2 * np.pi, len(spectrum))
    phases[[0, -1]] = 0.0  # these two bins are real
    return np.fft.irfft(spectrum * np.exp(1j * phases), len(wave)).astype(wave.dtype)


def equalise(wave: np.ndarray, rng: np.random.Generator, sd_db: float = 5.0) -> np.ndarray:
    """Random smooth gain over frequency: another microphone, another room, another kettle.

    Examples
    --------
    >>> equalise(np.ones(512), np.random.default_rng(0)).shape
    (512,)
    """
    spectrum = np.fft.rfft(wave)
    octave = np.log2(np.arange(1, len(spectrum) + 1))
    knots = np.linspace(0.0, octave[-1], 7)
    gain_db = np.interp(octave, knots, sd_db * rng.standard_normal(len(knots)))
    return np.fft.irfft(spectrum * 10 ** (gain_db / 20), len(wave)).astype(wave.dtype)
