"""Data augmentation of waveforms: speed, phases, equaliser."""

from __future__ import annotations

import numpy as np
import pytest

from avse_ppl.training.augment import (
    change_speed,
    compute_source_length,
    equalise,
    join_bands,
    randomise_phases,
    shuffle_grains,
)


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_a_faster_crop_is_higher_by_the_speed(speed):
    samples = 20_480
    wanted = compute_source_length(samples, speed)
    assert wanted / samples == pytest.approx(speed, rel=0.05)
    tone = np.sin(2 * np.pi * 0.05 * np.arange(wanted)).astype(np.float32)
    faster = change_speed(tone, samples)
    assert faster.shape == (samples,)
    assert faster.dtype == np.float32
    peak = np.abs(np.fft.rfft(faster * np.hanning(samples))).argmax() / samples
    assert peak / 0.05 == pytest.approx(speed, rel=0.02)
    assert np.abs(faster[500:-500]).max() == pytest.approx(1.0, abs=0.05)


def test_random_phases_keep_the_spectrum_and_lose_the_bursts():
    rng = np.random.default_rng(0)
    wave = rng.normal(size=4000).astype(np.float32)
    wave[1000:] *= 1e-3  # one burst
    stationary = randomise_phases(wave, rng)
    assert stationary.dtype == np.float32
    np.testing.assert_allclose(
        np.abs(np.fft.rfft(stationary))[1:-1], np.abs(np.fft.rfft(wave))[1:-1], rtol=1e-3, atol=1e-3
    )
    assert np.square(stationary[2000:]).mean() > 0.3 * np.square(stationary[:2000]).mean()


def test_an_equaliser_is_smooth_and_has_the_stated_deviation():
    rng = np.random.default_rng(0)
    click = np.zeros(4096)
    click[0] = 1.0
    gains_db = [20 * np.log10(np.abs(np.fft.rfft(equalise(click, rng)))) for _ in range(400)]
    at_ends = np.array(gains_db)[:, [0, -1]]
    assert at_ends.std() == pytest.approx(5.0, rel=0.15)
    assert np.abs(np.diff(gains_db)[:, 100:]).max() < 1.0  # dB from bin to bin


def test_joined_bands_are_one_waveform_below_and_the_other_above():
    time_s = np.arange(16000) / 16000
    low, high = (np.sin(2 * np.pi * f * time_s).astype(np.float32) for f in (80.0, 7000.0))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        joined = join_bands(low + high, np.zeros_like(low), 16000, rng)
        assert joined.dtype == np.float32
        np.testing.assert_allclose(joined, low, atol=0.02)
        joined = join_bands(np.zeros_like(low), low + high, 16000, np.random.default_rng(seed))
        np.testing.assert_allclose(joined, high, atol=0.02)


def test_shuffled_grains_keep_the_spectrum_and_change_the_order():
    rng = np.random.default_rng(0)
    wave = rng.normal(size=32000).astype(np.float32)
    wave[:16000] *= 0.01
    shuffled = shuffle_grains(wave, 16000, rng)
    assert shuffled.shape == wave.shape
    assert shuffled.dtype == np.float32
    power = np.square(shuffled).reshape(20, -1).mean(1)
    assert power[:10].mean() == pytest.approx(power[10:].mean(), rel=0.7)  # 1e4 before
    assert np.mean(shuffled**2) == pytest.approx(0.75 * np.mean(wave**2), rel=0.25)  # cross-fades
