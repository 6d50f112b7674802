"""Mixing at a stated SNR."""

from __future__ import annotations

import math

import numpy as np
import pytest

from avse_ppl.data import active_mask, active_power, mix
from avse_ppl.signal.audio import Audio
from tests.helpers import RATE_HZ

FRAME = 512


def white(size, seed=0, level=0.1):
    return level * np.random.default_rng(seed).standard_normal(size)


def with_pauses(size=20 * FRAME, seed=0):
    """Noise that stands for speech: frames 5 to 14 are active, the rest is silence."""
    speech = white(size, seed)
    speech[: 5 * FRAME] = speech[15 * FRAME :] = 0.0
    return speech


# Active power


def test_active_mask_keeps_frames_within_forty_decibels():
    levels = [1.0, 10 ** (-39 / 20), 10 ** (-41 / 20), 0.0]
    mask = active_mask(np.repeat(levels, FRAME), RATE_HZ)
    np.testing.assert_array_equal(mask, np.repeat([True, True, False, False], FRAME))


def test_active_power_ignores_pauses_and_the_last_short_frame():
    assert active_power(np.repeat([0.0, 0.5, 0.0], [700 * FRAME, FRAME, 100]), RATE_HZ) == 0.25
    assert active_power(np.full(FRAME + 7, 0.5), RATE_HZ) == 0.25
    assert active_power(np.array([0.5]), RATE_HZ) == 0.25


def test_frames_are_32_ms_at_any_rate():
    mask = active_mask(np.repeat([0.0, 1.0], 256), 8000)
    np.testing.assert_array_equal(mask, np.repeat([False, True], 256))


BAD_SIGNALS = [
    (np.zeros(100), "all zero"),
    (np.array([]), r"shape \(0,\)"),
    (np.ones((2, 100)), r"shape \(2, 100\)"),
    (np.array([1.0, np.nan]), "NaN or infinite"),
    (np.array([1.0, np.inf]), "NaN or infinite"),
]


@pytest.mark.parametrize(("signal", "message"), BAD_SIGNALS)
def test_bad_signals_are_named(signal, message):
    good = white(1000)
    for call in (active_mask, active_power):
        with pytest.raises(ValueError, match=f"speech .*{message}"):
            call(signal, RATE_HZ)
    with pytest.raises(ValueError, match=f"speech .*{message}"):
        mix(signal, good, 0.0, RATE_HZ)
    with pytest.raises(ValueError, match=f"noise .*{message}"):
        mix(good, signal, 0.0, RATE_HZ)


# Mixing


@pytest.mark.parametrize("snr_db", [-20.0, -5, 0.0, 13.5])
@pytest.mark.parametrize("noise_size", [300, 5000, 20 * FRAME, 100_000])
def test_snr_is_the_power_ratio_where_speech_is_active(snr_db, noise_size):
    mixed = mix(with_pauses(), white(noise_size, seed=1), snr_db, RATE_HZ, seed=2)
    active = np.zeros(20 * FRAME, dtype=bool)
    active[5 * FRAME : 15 * FRAME] = True
    ratio = np.sum(mixed.speech[active] ** 2.0) / np.sum(mixed.noise[active] ** 2.0)
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=1e-4)
    assert mixed.snr_db == snr_db


def test_mixture_is_the_sum_and_as_long_as_the_speech():
    mixed = mix(with_pauses(), white(3000, seed=1), -3.0, RATE_HZ)
    np.testing.assert_array_equal(mixed.mixture, mixed.speech + mixed.noise)
    assert mixed.mixture.dtype == mixed.speech.dtype == mixed.noise.dtype == np.float32
    assert mixed.mixture.shape == (20 * FRAME,)
    assert mixed.sample_rate_hz == RATE_HZ


def test_input_si_sdr_is_that_of_the_projection():
    mixed = mix(with_pauses(), white(50_000, seed=1), 5.0, RATE_HZ)
    x, s = mixed.mixture.astype(float), mixed.speech.astype(float)
    cosine = x @ s / np.linalg.norm(x) / np.linalg.norm(s)
    expected = 10 * np.log10(cosine**2 / (1 - cosine**2))
    assert mixed.input_si_sdr_db == pytest.approx(expected, abs=1e-6)
    # The pauses are as long as the speech, and there the noise goes on: 3 dB lower than the SNR.
    assert mixed.input_si_sdr_db == pytest.approx(2.0, abs=0.3)


def test_input_si_sdr_is_infinite_for_noise_that_is_speech():
    speech = white(1000)
    assert mix(speech, speech, 0.0, RATE_HZ).input_si_sdr_db == math.inf


def test_loud_mixtures_are_scaled_together_and_quiet_ones_left():
    speech, noise = with_pauses(), white(50_000, seed=1)
    quiet = mix(0.01 * speech, noise, 0.0, RATE_HZ)
    assert quiet.gain == 1.0
    np.testing.assert_array_equal(quiet.speech, (0.01 * speech).astype(np.float32))
    loud = mix(10 * speech, noise, 0.0, RATE_HZ)
    assert np.abs(loud.mixture).max() == pytest.approx(0.99, rel=1e-5)
    assert loud.gain < 1.0
    np.testing.assert_allclose(loud.speech, loud.gain * 10 * speech, rtol=1e-6)
    np.testing.assert_allclose(loud.mixture / loud.gain, quiet.mixture * 1000, rtol=1e-3, atol=1e-4)


def test_mix_is_reproducible_and_seeded():
    speech, noise = with_pauses(), white(50_000, seed=1)
    first, again, other = (mix(speech, noise, 0.0, RATE_HZ, seed=s).noise for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.1


def test_long_noise_is_cut_at_all_places_and_not_changed():
    speech, noise = np.ones(4), np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    beginnings = set()
    for seed in range(40):
        part = mix(speech, noise, 0.0, RATE_HZ, seed=seed).noise
        part = part * (part[1] - part[0]) ** -1.0
        np.testing.assert_allclose(np.diff(part), 1.0, rtol=1e-4)
        beginnings.add(round(float(part[0])))
    assert beginnings == {1, 2, 3}


def test_short_noise_is_looped_without_a_click():
    ramp = np.linspace(-1.0, 1.0, 4000)  # repeated plainly, it jumps by 2 at each seam
    noise = mix(np.ones(20_000), ramp, 0.0, RATE_HZ).noise
    slope = np.abs(np.diff(noise)).max() / (noise.max() - noise.min())
    assert slope < 0.01
    period = 4000 - 320
    np.testing.assert_allclose(noise[period:], noise[:-period], rtol=1e-5)


def test_a_loop_keeps_its_power_at_the_seams():
    noise = mix(np.ones(400_000), white(2000, seed=5), 0.0, RATE_HZ).noise.astype(float)
    period = noise[:1680] ** 2  # 2000 samples less the cross-fade of 320
    blocks = period.reshape(-1, 168).mean(axis=1) / period.mean()
    assert blocks.min() > 0.6
    assert blocks.max() < 1.5


def test_one_sample_of_noise_is_repeated():
    mixed = mix(np.array([0.5, -0.5, 0.5]), np.array([0.2]), 0.0, RATE_HZ)
    np.testing.assert_allclose(mixed.noise / mixed.gain, 0.5)


def test_audio_is_taken_with_its_rate():
    speech, noise = with_pauses(), white(5000, seed=1)
    plain = mix(speech.astype(np.float32), noise.astype(np.float32), 0.0, RATE_HZ)
    audio = mix(Audio(speech, RATE_HZ), Audio(noise, RATE_HZ), 0.0, RATE_HZ)
    np.testing.assert_array_equal(plain.mixture, audio.mixture)
    with pytest.raises(ValueError, match="noise has a rate of 8000 Hz; expected 16000 Hz"):
        mix(Audio(speech, RATE_HZ), Audio(noise, 8000), 0.0, RATE_HZ)
    with pytest.raises(ValueError, match="speech has a rate of 16000 Hz; expected 8000 Hz"):
        mix(Audio(speech, RATE_HZ), Audio(noise, 8000), 0.0, 8000)


@pytest.mark.parametrize("snr_db", [math.nan, math.inf, -math.inf])
def test_snr_must_be_finite(snr_db):
    with pytest.raises(ValueError, match=r"snr_db is .*finite"):
        mix(white(1000), white(1000), snr_db, RATE_HZ)


def test_rate_must_be_positive():
    with pytest.raises(ValueError, match="sample_rate_hz is 0"):
        mix(white(1000), white(1000), 0.0, 0)


def test_noise_that_is_silent_under_the_speech_is_refused():
    noise = np.where(with_pauses() == 0, white(20 * FRAME, seed=1), 0.0)
    with pytest.raises(ValueError, match="silent wherever somebody speaks"):
        mix(with_pauses(), noise, 0.0, RATE_HZ)
