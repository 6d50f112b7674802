"""Mix speech with noise at a stated signal-to-noise ratio."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from avse_ppl.signal.audio import Audio

FRAME_S = 0.032
ACTIVE_RANGE_DB = 40.0
PEAK_LIMIT = 0.99
CROSS_FADE_S = 0.02


@dataclass(frozen=True)
class Mixture:
    """Speech, the noise that was added to it, and their sum.

    Parameters
    ----------
    mixture, speech, noise : numpy.ndarray
        Shape ``(samples,)``, float32; ``mixture = speech + noise``.
    sample_rate_hz : int
        Of all three.
    snr_db : float
        Power ratio over the active part of the speech.
    input_si_sdr_db : float
        Scale-invariant signal-to-distortion ratio of the mixture, measured over all of it: lower
        than `snr_db` where the noise goes on while nobody speaks.
    gain : float
        What speech, noise and mixture were multiplied by to keep the peak at 0.99; 1 if they
        were not.
    """

    mixture: np.ndarray
    speech: np.ndarray
    noise: np.ndarray
    sample_rate_hz: int
    snr_db: float
    input_si_sdr_db: float
    gain: float


def active_mask(speech: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Find the samples where somebody speaks.

    The signal is cut into frames of 32 ms that do not overlap; a frame is active if its mean
    power is within 40 dB of the loudest frame's. Rumble hides pauses: high-pass such speech first
    (`highpass`, or `decode`, which does it).

    Parameters
    ----------
    speech : numpy.ndarray
        Shape ``(samples,)``.
    sample_rate_hz : int
        Rate of `speech`.

    Returns
    -------
    numpy.ndarray
        Shape ``(samples,)``, bool, constant over each frame.

    Raises
    ------
    ValueError
        If `speech` is not one-dimensional, is empty, all zero, or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> pause_then_tone = np.repeat([0.0, 1.0], 512)
    >>> float(active_mask(pause_then_tone, 16000).mean())
    0.5
    """
    speech = check_samples("speech", speech, sample_rate_hz)
    frame = max(1, round(FRAME_S * sample_rate_hz))
    starts = np.arange(0, speech.size, frame)
    lengths = np.diff(starts, append=speech.size)
    power = np.add.reduceat(speech**2, starts) / lengths
    return np.repeat(power >= power.max() * 10 ** (-ACTIVE_RANGE_DB / 10), lengths)


def active_power(speech: np.ndarray, sample_rate_hz: int) -> float:
    r"""Mean power over the samples where somebody speaks.

    .. math:: P = \frac{1}{|A|} \sum_{n \in A} s_n^2,

    with :math:`A` from `active_mask`, so that a pause before or after a sentence does not change
    its level.

    Parameters
    ----------
    speech : numpy.ndarray
        Shape ``(samples,)``.
    sample_rate_hz : int
        Rate of `speech`.

    Returns
    -------
    float
        Power, in squared units of the samples.

    Raises
    ------
    ValueError
        As `active_mask`.

    Examples
    --------
    >>> import numpy as np
    >>> active_power(np.repeat([0.0, 0.5], 512), 16000)
    0.25
    """
    speech = check_samples("speech", speech, sample_rate_hz)
    return float(np.mean(speech[active_mask(speech, sample_rate_hz)] ** 2))


def mix(
    speech: np.ndarray | Audio,
    noise: np.ndarray | Audio,
    snr_db: float,
    sample_rate_hz: int = 16000,
    seed: int = 0,
) -> Mixture:
    r"""Add noise to speech at a stated signal-to-noise ratio.

    .. math:: x = g (s + a n), \qquad
              10 \log_{10} \frac{\sum_{n \in A} s_n^2}{\sum_{n \in A} (a n_n)^2} = \text{SNR},

    with both powers taken over the same active samples :math:`A` of the speech (`active_mask`).
    Noise longer than the speech is cut at a random place; shorter noise is looped with a
    cross-fade of 20 ms, starting at a random place. Nothing is clipped: where the peak of the
    mixture would exceed 0.99, :math:`g < 1` brings it there.

    Parameters
    ----------
    speech, noise : numpy.ndarray or Audio
        Mono, shape ``(samples,)``.
    snr_db : float
        Wanted ratio.
    sample_rate_hz : int
        Rate of both.
    seed : int
        Of the place where the noise begins.

    Returns
    -------
    Mixture
        As long as the speech.

    Raises
    ------
    ValueError
        If a signal is not mono, is empty, all zero or not finite, an Audio has another rate,
        `snr_db` is not finite, or the noise is silent wherever somebody speaks.

    Examples
    --------
    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> mixed = mix(random.normal(size=16000), random.normal(size=8000), snr_db=5.0)
    >>> round(mixed.input_si_sdr_db, 1), bool(abs(mixed.mixture).max() <= 0.99)
    (5.0, True)
    """
    speech = check_samples("speech", speech, sample_rate_hz)
    noise = check_samples("noise", noise, sample_rate_hz)
    if not math.isfinite(snr_db):
        raise ValueError(f"snr_db is {snr_db}; expected a finite number of decibels")
    fade = round(CROSS_FADE_S * sample_rate_hz)
    noise = fit_length(noise, speech.size, fade, np.random.default_rng(seed))
    active = active_mask(speech, sample_rate_hz)
    noise_power = np.mean(noise[active] ** 2)
    if noise_power == 0:
        raise ValueError(
            "the noise is silent wherever somebody speaks, so no gain reaches the wanted SNR; "
            "try another seed or another noise"
        )
    wanted = np.mean(speech[active] ** 2) / 10 ** (snr_db / 10)
    noise = noise * math.sqrt(wanted / noise_power)
    peak = np.abs(speech + noise).max()
    gain = min(1.0, PEAK_LIMIT / peak) if peak > 0 else 1.0
    # Summed after rounding, so that mixture = speech + noise holds in float32 too.
    speech, noise = (gain * speech).astype(np.float32), (gain * noise).astype(np.float32)
    mixture = speech + noise
    si_sdr_db = compute_si_sdr_db(mixture, speech)
    return Mixture(mixture, speech, noise, sample_rate_hz, float(snr_db), si_sdr_db, gain)


def fit_length(
    noise: np.ndarray, length: int, fade: int, random: np.random.Generator
) -> np.ndarray:
    """Cut noise to a length at a random sample, or loop it with a cross-fade."""
    if noise.size >= length:
        begin = int(random.integers(noise.size - length + 1))
        return noise[begin : begin + length]
    fade = min(fade, noise.size // 2)
    period = noise[: noise.size - fade].copy()
    # The tail fades out under the head; equal power, as the two are unrelated.
    angle = (np.arange(fade) + 0.5) / max(fade, 1) * (np.pi / 2)
    period[:fade] = noise[:fade] * np.sin(angle) + noise[period.size :] * np.cos(angle)
    begin = int(random.integers(period.size))
    return np.resize(np.roll(period, -begin), length)


def compute_si_sdr_db(estimate: np.ndarray, speech: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio, dB."""
    estimate, speech = estimate.astype(np.float64), speech.astype(np.float64)
    target = speech * ((estimate @ speech) / (speech @ speech))
    distortion = float(np.sum((estimate - target) ** 2))
    return 10 * math.log10(float(target @ target) / distortion) if distortion > 0 else math.inf


def check_samples(name: str, audio: np.ndarray | Audio, sample_rate_hz: int) -> np.ndarray:
    """Check a signal that is to be mixed; returns its samples in double precision."""
    if sample_rate_hz <= 0:
        raise ValueError(f"sample_rate_hz is {sample_rate_hz}; expected a positive number")
    if isinstance(audio, Audio):
        if audio.sample_rate_hz != sample_rate_hz:
            raise ValueError(
                f"{name} has a rate of {audio.sample_rate_hz} Hz; expected {sample_rate_hz} Hz: "
                "resample it first"
            )
        audio = audio.samples
    samples = np.asarray(audio, dtype=np.float64)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(
            f"{name} has the shape {samples.shape}; expected (samples,), not empty; average the "
            "channels of an Audio with its mono()"
        )
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} has NaN or infinite samples; expected finite ones")
    if not samples.any():
        raise ValueError(f"{name} is all zero, so a signal-to-noise ratio has no meaning")
    return samples
