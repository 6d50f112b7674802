"""Babble: who talks, how loud, how long."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile

from avse_ppl.data import Clip, make_babble
from tests.helpers import RATE_HZ


@pytest.fixture
def talkers(tmp_path):
    """Three people, two tones each, at very different levels."""
    clips = []
    for i, speaker in enumerate(["anna", "bert", "carl"]):
        for take in range(2):
            path = tmp_path / f"{speaker}{take}.wav"
            time_s = np.arange(8000) / RATE_HZ
            sound = 10.0**-i * np.sin(2 * np.pi * 1000 * (i + 1) * time_s)
            soundfile.write(path, 0.9 * sound, RATE_HZ, subtype="FLOAT")
            clips.append(Clip(path, "made_up", speaker, "train"))
    return clips


def power_at(samples, freq_hz):
    """Power around one frequency, as a share of all."""
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    freqs_hz = np.fft.rfftfreq(samples.size, 1 / RATE_HZ)
    return spectrum[np.abs(freqs_hz - freq_hz) < 300].sum() / spectrum.sum()


def test_babble_has_all_speakers_equally_loud(talkers):
    samples = make_babble(talkers, 3, seed=0, duration_s=2.0)
    assert samples.shape == (32_000,)
    assert samples.dtype == np.float32
    assert np.sqrt(np.mean(samples.astype(float) ** 2)) == pytest.approx(0.1, rel=1e-4)
    for freq_hz in (1000, 2000, 3000):
        assert power_at(samples, freq_hz) == pytest.approx(1 / 3, abs=0.05)


def test_babble_leaves_out_the_target(talkers):
    for seed in range(5):
        samples = make_babble(talkers, 2, seed, duration_s=0.7, exclude_speaker="bert")
        assert power_at(samples, 2000) < 0.02


def test_babble_draws_speakers_by_seed(talkers):
    draws = [make_babble(talkers, 1, seed, duration_s=0.3) for seed in range(20)]
    np.testing.assert_array_equal(draws[7], make_babble(talkers, 1, 7, duration_s=0.3))
    for freq_hz in (1000, 2000, 3000):
        assert any(power_at(samples, freq_hz) > 0.9 for samples in draws)


def test_babble_needs_enough_known_speakers(talkers):
    noise = Clip(talkers[0].path, "esc10", "", "train", "rain")
    unknown = Clip(talkers[0].path, "lrw_ar", "unknown", "train")
    for count in (0, 4):
        with pytest.raises(ValueError, match=f"n_speakers is {count}; .*between 1 and 3"):
            make_babble([*talkers, noise, unknown], count, seed=0)
    with pytest.raises(ValueError, match="between 1 and 2"):
        make_babble(talkers, 3, seed=0, exclude_speaker="anna")


@pytest.mark.parametrize("duration_s", [0.0, -1.0, math.nan, math.inf])
def test_babble_needs_a_length(talkers, duration_s):
    with pytest.raises(ValueError, match="duration_s is"):
        make_babble(talkers, 1, seed=0, duration_s=duration_s)
