"""Constant offsets and infrasound."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from avse_ppl import Stft
from avse_ppl.inference.core.setup import analyse_mixture
from avse_ppl.pipeline.inputs import observe
from avse_ppl.signal.audio import Audio
from avse_ppl.signal.infrasound import measure_infrasound, remove_infrasound

RATE_HZ = 16000


def white(seed=0, seconds=1.0):
    return np.random.default_rng(seed).normal(size=int(seconds * RATE_HZ)).astype("float32")


def rumble(seed=1):
    band = butter(2, [3, 12], "bandpass", fs=RATE_HZ, output="sos")
    wave = sosfiltfilt(band, white(seed))
    return (wave / wave.std()).astype("float32")


@pytest.mark.parametrize("offset", [-2.0, 0.7, 30.0])
def test_an_offset_goes_and_the_rest_stays(offset):
    wave = white()
    with pytest.warns(UserWarning, match="removed by a high-pass"):
        cleaned = remove_infrasound(wave + np.float32(offset), RATE_HZ)
    assert np.std(cleaned - wave) < 0.06  # what white noise has below 20 Hz
    assert abs(cleaned.mean()) < 0.01 * abs(offset)
    assert cleaned.dtype == np.float32


def test_rumble_goes():
    wave = white()
    with pytest.warns(UserWarning):
        cleaned = remove_infrasound(wave + 3 * rumble(), RATE_HZ)
    assert np.std(cleaned - wave) < 0.2 * 3


@pytest.mark.parametrize("hz", [50, 80])
def test_hum_and_voices_stay(hz):
    tone = np.sin(2 * np.pi * hz * np.arange(RATE_HZ) / RATE_HZ)
    assert measure_infrasound(tone, RATE_HZ) < 0.1
    assert remove_infrasound(tone, RATE_HZ) is tone


def test_only_the_channel_with_an_offset_changes():
    stereo = np.stack([white(0), white(1) + 2])
    with pytest.warns(UserWarning):
        cleaned = remove_infrasound(stereo, RATE_HZ)
    assert np.array_equal(cleaned[0], stereo[0])
    assert abs(cleaned[1].mean()) < 0.01


def test_a_constant_is_left_for_the_check_of_silence():
    wave = np.ones(2000, np.float32)
    assert remove_infrasound(wave, RATE_HZ) is wave


def test_files_and_arrays_are_treated_alike():
    wave = white(seconds=0.3) + np.float32(2)
    with pytest.warns(UserWarning, match="constant offset"):
        observed = observe(Audio(wave, RATE_HZ), Stft()).audio.samples

    class Scene:
        stft = Stft()

    with pytest.warns(UserWarning, match="constant offset"):
        direct = analyse_mixture(Scene(), wave)
    np.testing.assert_array_equal(direct.values, Stft().analyse(observed).values)
    with warnings.catch_warnings(action="error"):
        analyse_mixture(Scene(), observed)
