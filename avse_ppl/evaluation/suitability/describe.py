"""Signal statistics of a recording and of its posterior, computed without the clean speech.

What speech does and other sound does not: it is modulated at the rate of syllables, starts faster
than it ends, has one pitch that moves, and pauses. What a fit does that went well: little variance
where there is much speech, and a mixture that is as powerful as the model says.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Stft

WINDOW_S = 3.0  # a recording is described in windows of about this length
_TINY = 1e-20
_EULER = 0.5772156649015329  # minus the expected logarithm of an Exp(1) number
_BANDS_HZ = (80, 200, 400, 800, 1600, 3200, 7000)
_PITCH_HZ = (70.0, 400.0)

Description = dict[str, float]


def describe_posterior(posterior: Posterior, recording: int = 0) -> Description:
    """Describe one recording: mean of `describe_signal` over windows of about 3 s.

    Parameters
    ----------
    posterior
        From any inference method; waveform draws and latents are not looked at.
    recording
        Which one of the batch.

    Returns
    -------
    Description
        A number for each name, see `describe_signal`.

    Examples
    --------
    >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=8000).astype("float32")
    >>> posterior = SVI(steps=5, draws=2)(Scene(GaussianSpeech(), stationary), wave, seed=0)
    >>> describe_posterior(posterior)["mixture_flatness"] > -4  # white noise: flat, in dB
    True
    """
    n, stft = posterior.n_samples[recording], posterior.stft
    noisy, speech = posterior.noisy(recording), posterior.enhance(recording)
    arrays = [a[recording] for a in (posterior.mixture, posterior.mean, posterior.variance)]
    frames, rate_hz = stft.count_frames(n), stft.sample_rate_hz
    count = max(1, round(n / rate_hz / WINDOW_S))
    rows = []
    for i in range(count):
        first, last = frames * i // count, frames * (i + 1) // count
        begin, end = first * stft.hop, min(n, last * stft.hop)
        parts = [array[:, first:last] for array in arrays]
        if np.abs(parts[0]).max() > 0:
            mixture, mean, variance = parts
            waves = noisy[begin:end], speech[begin:end]
            rows.append(describe_signal(*waves, mixture, mean, variance, stft))
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def describe_signal(
    noisy: np.ndarray,
    speech: np.ndarray,
    mixture: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    stft: Stft,
) -> Description:
    r"""Describe one stretch of sound by some thirty numbers; none depends on its level.

    Where the speech given the mixture has gain G and variance V, the model's power of the mixture
    is :math:`V / (G (1 - G))`, so that the normalised periodogram is
    :math:`y = |x|^2 G (1 - G) / V = |m| |x - m| / V`. Averaged over draws of the latents V is
    larger and y is smaller, alike for all recordings of a method.

    Parameters
    ----------
    noisy, speech
        Waveforms ``(sample,)``: the recording, and its posterior mean.
    mixture, mean, variance
        STFT of the recording, and moments of the speech's, ``(freq, time)``.
    stft
        The front end.

    References
    ----------
    Scheirer and Slaney, "Construction and evaluation of a robust multifeature speech/music
    discriminator", ICASSP 1997. de Cheveigné, "Separation of concurrent harmonic sounds", JASA
    1993: cancelling one pitch to find another.
    """
    frame_hz = stft.sample_rate_hz / stft.hop
    of_mixture, of_speech = np.abs(mixture) ** 2, np.abs(mean) ** 2
    freq_hz = np.linspace(0, stft.sample_rate_hz / 2, mixture.shape[0])
    found: Description = {}
    found |= describe_fit(mixture, mean, variance)
    found |= describe_envelope(of_speech, freq_hz, frame_hz)
    for name, power, wave in (("mixture", of_mixture, noisy), ("speech", of_speech, speech)):
        spectrum = describe_spectrum(power, freq_hz)
        asymmetry = describe_asymmetry(power, wave, freq_hz, stft.sample_rate_hz)
        found |= {f"{name}_{key}": value for key, value in (spectrum | asymmetry).items()}
    found |= describe_pitch(speech, stft.sample_rate_hz)
    found["clipping"] = math.log10(1e-3 + measure_clipping(noisy))
    return found


def describe_fit(mixture: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Description:
    """Posterior SNR, share of the energy that is called speech, and misfit of the model."""
    power, rest = np.abs(mean) ** 2, np.abs(mixture - mean)
    total, called = (np.abs(mixture) ** 2).sum(), power.sum()
    gain = np.sqrt(power / (np.abs(mixture) ** 2 + _TINY))
    log_y = np.log((np.abs(mean) * rest + _TINY) / (variance + _TINY)) + _EULER
    # The louder half of the bins: what is heard, and not the fade of the recorder's filter.
    loud = np.abs(mixture) >= np.median(np.abs(mixture))
    per_frame = np.where(loud, log_y, 0).sum(0) / np.maximum(loud.sum(0), 1)
    return {
        "posterior_snr": decibels(called / (variance.sum() + _TINY)),
        "speech_share": decibels(called / total),
        "noise_share": decibels((rest**2).sum() / total),
        "undecided": float(np.sum(4 * gain * (1 - np.minimum(gain, 1)) * power) / (called + _TINY)),
        "misfit": float(log_y[loud].mean()),
        "misfit_spread": float(log_y[loud].std()),
        "misfit_over_time": float(per_frame.std()),
    }


def describe_envelope(power: np.ndarray, freq_hz: np.ndarray, frame_hz: float) -> Description:
    """Modulation at the rate of syllables, its depth, and pauses, of the enhanced speech."""
    band = (freq_hz > 150) & (freq_hz < 6000)
    envelope = np.sqrt(power[band].sum(0))
    loud = np.quantile(envelope, 0.95) + _TINY
    level = np.maximum(20 * np.log10(envelope / loud + 1e-4), -40.0)
    shape = np.sqrt(envelope / loud)
    spectrum = np.abs(np.fft.rfft((shape - shape.mean()) * np.hanning(len(shape)))) ** 2
    rate_hz = np.fft.rfftfreq(len(shape), 1 / frame_hz)
    all_rates = spectrum[(rate_hz > 0.5) & (rate_hz < 20)].sum() + _TINY
    pause = level < -20
    return {
        "modulation": float(shape.std() / (shape.mean() + _TINY)),
        "syllables": float(spectrum[(rate_hz >= 2.5) & (rate_hz <= 6)].sum() / all_rates),
        "slow_modulation": float(spectrum[(rate_hz > 0.5) & (rate_hz < 2)].sum() / all_rates),
        "level_range": float(np.subtract(*np.quantile(level, (0.9, 0.1)))),
        "pauses": float(pause.mean()),
        "pauses_per_s": float(np.count_nonzero(np.diff(pause.astype(int)) > 0))
        / (len(level) / frame_hz),
    }


def describe_spectrum(power: np.ndarray, freq_hz: np.ndarray) -> Description:
    """Flatness, tilt, and how long spectral peaks last."""
    band = (freq_hz > 100) & (freq_hz < 7000)
    inside = power[band] + 1e-9 * power.max() + _TINY
    level = inside.sum(0)
    active = level > 0.01 * np.quantile(level, 0.95)
    inside = inside[:, active]
    flatness = np.log(inside).mean(0) - np.log(inside.mean(0))
    long_term = 10 * np.log10(inside.mean(1))
    tilt = np.polyfit(np.log2(freq_hz[band]), long_term, 1)[0]
    # Peaks: the log spectrum up to 4 kHz without its smooth part, 64 ms apart.
    low = np.log(inside[freq_hz[band] < 4000])
    width = max(3, round(250 / (freq_hz[1] - freq_hz[0])) | 1)
    fine = low - smooth_rows(low.T, width).T
    lag = 4
    a, b = fine[:, :-lag], fine[:, lag:]
    lasting = float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + _TINY))
    share = power[freq_hz > 4000].sum() / (power.sum() + _TINY)
    return {
        "flatness": float(flatness.mean()) * 10 / math.log(10),
        "flatness_spread": float(flatness.std()),
        "tilt": float(tilt),
        "high_share": decibels(share + 1e-6),
        "peak_height": float(fine.std()),
        "peaks_last": lasting if a.size else 0.0,
    }


def describe_asymmetry(
    power: np.ndarray, wave: np.ndarray, freq_hz: np.ndarray, rate_hz: int
) -> Description:
    """Skewness of the rises of band envelopes: of syllables, and within a pitch period.

    Speech, and whatever is struck or plucked, rises faster than it decays: positive. Played
    backwards it is negative.
    """
    edges = itertools.pairwise(_BANDS_HZ)
    bands = [power[(freq_hz >= a) & (freq_hz < b)].sum(0) for a, b in edges]
    levels = np.log(np.stack(bands) + 1e-3 * np.max(bands, axis=1, keepdims=True) + _TINY)
    found = {}
    for lag in (2, 6):
        rise = levels[:, lag:] - levels[:, :-lag]
        square = rise * rise
        skew = (square * rise).mean(1) / (square.mean(1) ** 1.5 + _TINY)
        found[f"onsets_{lag}"] = float(skew.mean())
    # Within a pitch period: envelope of 1 to 4 kHz, as the modulus of that band moved to 0 Hz.
    length = 1 << (len(wave) - 1).bit_length()
    first, last = round(1000 * length / rate_hz), round(4000 * length / rate_hz)
    spectrum = np.zeros(length // 4, complex)
    spectrum[: last - first] = np.fft.rfft(wave, length)[first:last]
    envelope = np.abs(np.fft.ifft(spectrum))[: len(wave) // 4]
    envelope = smooth_rows(envelope[None], 3)[0]
    for lag in (2, 6):  # of a quarter of the rate
        rise = envelope[lag:] - envelope[:-lag]
        scale = np.sqrt(smooth_rows((rise * rise)[None], 201)[0]) + 1e-2 * rise.std() + _TINY
        rise = np.clip(rise / scale, -5, 5)
        found[f"pulses_{lag}"] = float((rise * rise * rise).mean())
    return found


def describe_pitch(wave: np.ndarray, rate_hz: int) -> Description:
    """Strength and movement of the pitch, and of a second one when the first is cancelled."""
    size, hop = round(0.064 * rate_hz), round(0.032 * rate_hz)
    if len(wave) < 2 * size:
        wave = np.pad(wave, (0, 2 * size - len(wave)))
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[::hop].astype(np.float64)
    energy = (frames**2).sum(1)
    frames = frames[energy > 0.01 * (np.quantile(energy, 0.95) + _TINY)]
    if len(frames) < 3:
        frames = np.lib.stride_tricks.sliding_window_view(wave, size)[::hop].astype(np.float64)
    low, high = (round(rate_hz / hz) for hz in _PITCH_HZ[::-1])
    strength, lag = find_pitch(frames, low, high)
    # Cancel that period, and look for another in what is left.
    row = np.arange(len(frames))[:, None]
    at = np.arange(high, size)[None]
    left = frames[row, at] - strength[:, None] * frames[row, at - lag[:, None]]
    second, _ = find_pitch(left, low, min(high, left.shape[1] // 2))
    kept = (left**2).sum(1) / ((frames[:, high:] ** 2).sum(1) + _TINY)
    voiced = strength > 0.6
    both = voiced[1:] & voiced[:-1]
    step = np.abs(np.diff(np.log(lag)))[both]
    loudness = np.sqrt((frames**2).sum(1))
    weight = loudness / (loudness.sum() + _TINY)
    return {
        "pitch_strength": float((weight * strength).sum()),
        "voiced": float((weight * voiced).sum()),
        "pitch_spread": float(np.log(lag[voiced]).std()) if voiced.any() else 0.0,
        "pitch_moves": float(((step > 0.004) & (step < 0.1)).mean()) if step.size else 0.0,
        "pitch_jumps": float((step > 0.1).mean()) if step.size else 0.0,
        "second_pitch": float((weight * second)[voiced].sum() / (weight[voiced].sum() + 1e-3)),
        "left_by_pitch": float((weight * np.log10(kept + 1e-3))[voiced].sum())
        / float(weight[voiced].sum() + 1e-3),
    }


def find_pitch(frames: np.ndarray, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Height and lag of the first high peak of each frame's normalised autocorrelation.

    The first that comes within 10 % of the highest, so that a multiple of the period is not taken.
    """
    size = frames.shape[1]
    window = np.hanning(size)
    length = 1 << (size + high).bit_length()
    power = np.abs(np.fft.rfft(frames * window, length)) ** 2
    of_window = np.fft.irfft(np.abs(np.fft.rfft(window, length)) ** 2)[: high + 2]
    auto = np.fft.irfft(power)[:, : high + 2] / of_window * of_window[0]
    auto = auto / (auto[:, :1] + _TINY)
    inner = auto[:, 1:-1]
    peak = np.where((inner >= auto[:, :-2]) & (inner > auto[:, 2:]), inner, 0.0)[:, low - 1 :]
    highest = peak.max(1)
    first = np.argmax(peak >= 0.9 * highest[:, None] - _TINY, axis=1)
    value = peak[np.arange(len(peak)), first]
    return np.clip(value, 0.0, 1.0), first + low


def measure_clipping(wave: np.ndarray) -> float:
    """Share of samples at the peak, or on a plateau: loud, and like those before and behind.

    A slow slope of the plateau, as a high-pass filter leaves it, is allowed where samples follow
    each other on it.

    Examples
    --------
    >>> wave = np.random.default_rng(0).normal(size=8000)
    >>> measure_clipping(wave) < 0.01 < 0.3 < measure_clipping(np.clip(wave, -1, 1))
    True
    """
    peak = np.abs(wave).max() + _TINY
    step = np.abs(np.diff(wave)) < 2e-3 * peak
    flat = step[1:] & step[:-1] & (np.abs(wave[1:-1]) > 0.5 * peak)
    return float(max(flat.mean(), (np.abs(wave) > 0.995 * peak).mean()))


def smooth_rows(rows: np.ndarray, width: int) -> np.ndarray:
    """Moving average of each row over an odd number of values; edges are repeated."""
    width = min(width, rows.shape[1] // 2 * 2 - 1)
    padded = np.pad(rows, ((0, 0), (width // 2 + 1, width // 2)), mode="edge")
    total = np.cumsum(padded, axis=1)
    return (total[:, width:] - total[:, :-width]) / width


def decibels(ratio: float) -> float:
    """Ratio of powers in dB, from -100 on."""
    return 10 * math.log10(max(float(ratio), 1e-10))
