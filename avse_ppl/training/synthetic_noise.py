"""Noise drawn from simple random processes: colours, hum, tones, things that are struck, water."""

from __future__ import annotations

import numpy as np

from avse_ppl.training.augment import equalise, scale_to_unit_power


def shape_white_noise(gain: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """White Gaussian noise, ``(sample,)``, with a gain for each frequency, of no set power.

    Examples
    --------
    >>> shape_white_noise(np.ones(257), 512, np.random.default_rng(0)).shape
    (512,)
    """
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(samples)) * gain, samples)


def draw_coloured_noise(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw Gaussian noise with a power law for its spectrum, half of it coming and going.

    Examples
    --------
    >>> draw_coloured_noise(512, np.random.default_rng(0)).shape
    (512,)
    """
    bins = samples // 2 + 1
    freq = np.maximum(np.arange(bins), 1.0 + 0.003 * bins)
    noise = shape_white_noise(freq ** (-0.5 * rng.uniform(-0.5, 2.0)), samples, rng)
    noise = equalise(noise, rng)
    if rng.random() < 0.5:
        knots = rng.standard_normal(int(rng.integers(3, 16))) * 5.0
        place = np.linspace(0, len(knots) - 1, samples)
        noise = noise * 10 ** (np.interp(place, np.arange(len(knots)), knots) / 20)
    return scale_to_unit_power(noise.astype(np.float32))


def draw_bursts(samples: int, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Draw coloured bursts that die away, one to twenty a second, as of things that are struck.

    Examples
    --------
    >>> draw_bursts(512, 16000, np.random.default_rng(0)).shape
    (512,)
    """
    total = np.zeros(samples, np.float32)
    for _ in range(max(1, rng.poisson(rng.uniform(1.0, 20.0) * samples / rate_hz))):
        begin = int(rng.integers(samples))
        length = min(samples - begin, int(rate_hz * 0.4))
        decay = np.exp(-np.arange(length) / (rate_hz * 10 ** rng.uniform(-2.7, -1.0)))
        burst = decay * rng.standard_normal(length)
        if rng.random() < 0.5:  # a ring instead of a click
            pitch = 2 * np.pi * rng.uniform(300.0, 6000.0) / rate_hz
            burst = burst * 0.3 + decay * np.sin(pitch * np.arange(length))
        total[begin : begin + length] += burst * 10 ** (rng.uniform(-15.0, 0.0) / 20)
    return scale_to_unit_power(equalise(total, rng, 6.0))


def draw_rumble(samples: int, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Draw noise of the lowest frequencies, as of wind, traffic, or a microphone that is touched.

    Examples
    --------
    >>> draw_rumble(512, 16000, np.random.default_rng(0)).shape
    (512,)
    """
    freq_hz = np.fft.rfftfreq(samples, 1.0 / rate_hz)
    corner_hz, order = 10 ** rng.uniform(0.8, 2.2), rng.uniform(2.0, 5.0)
    noise = shape_white_noise(1.0 / (1.0 + (freq_hz / corner_hz) ** order), samples, rng)
    return scale_to_unit_power(noise.astype(np.float32))


def draw_hum(samples: int, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the harmonics of a hum, as of the mains, a fan or a motor, steady or drifting.

    Examples
    --------
    >>> draw_hum(512, 16000, np.random.default_rng(0)).shape
    (512,)
    """
    pitch_hz = rng.choice([50.0, 60.0, 10 ** rng.uniform(1.5, 2.7)])
    drift = np.cumsum(rng.standard_normal(8)) * rng.choice([0.0, 0.003, 0.02])
    place = np.linspace(0.0, 7.0, samples)
    turns = np.cumsum(pitch_hz * (1.0 + np.interp(place, np.arange(8), drift))) / rate_hz
    tilt, total = rng.uniform(0.3, 2.0), np.zeros(samples)
    for k in range(1, int(min(24, 0.45 * rate_hz / pitch_hz)) + 1):
        gain = k**-tilt * 10 ** (8.0 * rng.standard_normal() / 20)
        total += gain * np.sin(2 * np.pi * (k * turns + rng.random()))
    return scale_to_unit_power(total.astype(np.float32))


def draw_narrow_band(samples: int, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Draw noise of one narrow band anywhere, from a whistle to a hiss.

    Examples
    --------
    >>> draw_narrow_band(512, 16000, np.random.default_rng(0)).shape
    (512,)
    """
    freq_hz = np.fft.rfftfreq(samples, 1.0 / rate_hz)
    centre_hz = 10 ** rng.uniform(2.0, np.log10(0.5 * rate_hz))
    width_hz = max(10 ** rng.uniform(0.5, 2.8), rate_hz / samples)
    gain = np.exp(-0.5 * ((freq_hz - centre_hz) / width_hz) ** 2)
    return scale_to_unit_power(shape_white_noise(gain, samples, rng).astype(np.float32))


def draw_tones(samples: int, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a few tones, as of a whistle, a beeper or a bad cable: steady, drifting or intermittent.

    Examples
    --------
    >>> draw_tones(512, 16000, np.random.default_rng(0)).shape
    (512,)
    """
    place, total = np.linspace(0.0, 1.0, samples), np.zeros(samples)
    for _ in range(int(rng.integers(1, 5))):
        pitch_hz = 10 ** rng.uniform(2.0, np.log10(0.49 * rate_hz))
        knots = np.cumsum(rng.standard_normal(8)) * rng.choice([0.0, 0.002, 0.02])
        pitch_hz = pitch_hz * np.exp2(np.interp(place, np.linspace(0.0, 1.0, 8), knots))
        tone = np.sin(2 * np.pi * (np.cumsum(pitch_hz) / rate_hz + rng.random()))
        if rng.random() < 0.4:  # loud and soft by turns
            turns = rng.uniform(0.5, 12.0) * samples / rate_hz * place + rng.random()
            tone = tone / (1.0 + np.exp(-rng.uniform(1.0, 20.0) * np.sin(2 * np.pi * turns)))
        total += tone * 10 ** (rng.uniform(-20.0, 0.0) / 20)
    return scale_to_unit_power(total.astype(np.float32))


def draw_strikes(samples: int, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Draw an object that is struck, again and again: the same resonances each time, dying away.

    As of crockery and metal at random, or of a clock in time.

    Examples
    --------
    >>> draw_strikes(512, 16000, np.random.default_rng(0)).shape
    (512,)
    """
    modes = int(rng.integers(3, 16))
    pitch_hz = 10 ** rng.uniform(2.3, np.log10(0.48 * rate_hz), modes)
    decay_s = 10 ** rng.uniform(-2.5, -0.8) * (pitch_hz / 1000.0) ** -rng.uniform(0.0, 1.0)
    time_s = np.arange(min(samples, int(0.5 * rate_hz))) / rate_hz
    rings = np.sin(2 * np.pi * np.outer(pitch_hz, time_s)) * np.exp(-time_s / decay_s[:, None])
    gain = 10 ** (rng.normal(0.0, 8.0, modes) / 20)
    click = rng.standard_normal(len(time_s)) * np.exp(-time_s / 10 ** rng.uniform(-3.3, -2.0))

    rate = 10 ** rng.uniform(0.0, 1.2)  # strikes a second
    if rng.random() < 0.4:
        begins = np.arange(rng.uniform(0.0, rate_hz / rate), samples, rate_hz / rate).astype(int)
    else:
        begins = rng.integers(0, samples, max(1, rng.poisson(rate * samples / rate_hz)))
    total = np.zeros(samples)
    for begin in begins:
        part = min(samples - begin, len(time_s))
        each = gain * 10 ** (rng.normal(0.0, 3.0, modes) / 20)
        strike = each @ rings[:, :part] + rng.uniform(0.0, 2.0) * click[:part]
        total[begin : begin + part] += strike * 10 ** (rng.uniform(-12.0, 0.0) / 20)
    return scale_to_unit_power(total.astype(np.float32))


def draw_water(samples: int, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Draw bubbles of many sizes, as of water that drips, runs or boils, over a hiss.

    A bubble rings at a frequency that its size sets, and that may rise as it nears the surface.

    References
    ----------
    van den Doel, "Physically based models for liquid sounds", ACM TAP 2005.

    Examples
    --------
    >>> draw_water(512, 16000, np.random.default_rng(0)).shape
    (512,)
    """
    rate, centre = 10 ** rng.uniform(0.7, 2.3), rng.uniform(2.5, 3.5)  # bubbles a second; log Hz
    rising = rng.uniform(0.0, 0.3)
    time_s, total = np.arange(int(0.15 * rate_hz)) / rate_hz, np.zeros(samples)
    for _ in range(max(1, rng.poisson(rate * samples / rate_hz))):
        pitch_hz = min(10 ** rng.normal(centre, 0.2), 0.4 * rate_hz)
        damping = 0.13 * pitch_hz / 10 ** rng.uniform(0.0, 1.0)
        begin = int(rng.integers(samples))
        age = time_s[: min(samples - begin, len(time_s))]
        turns = pitch_hz * (age + 0.5 * rising * damping * age**2)
        bubble = np.exp(-damping * age) * np.sin(2 * np.pi * turns)
        total[begin : begin + len(age)] += bubble * 10 ** (rng.uniform(-20.0, 0.0) / 20)
    water = scale_to_unit_power(total.astype(np.float32))
    hiss = draw_coloured_noise(samples, rng) * np.float32(10 ** rng.uniform(-1.5, 0.0))
    return equalise(water + hiss, rng, 3.0)
