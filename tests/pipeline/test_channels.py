"""Channels that hold the same sound come out as the same speech."""

from __future__ import annotations

import numpy as np
import pytest

from avse_ppl import Audio, GaussianSpeech, enhance
from avse_ppl.pipeline.channels import find_scaled_copies

RATE_HZ = 16000


def white(seed, n_samples=8000):
    return np.random.default_rng(seed).normal(0, 0.1, n_samples).astype("float32")


def run(rows, **settings):
    noisy = Audio(np.stack(rows), RATE_HZ)
    return enhance(noisy, speech=GaussianSpeech(), noise="nmf", draws=4, **settings)


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.3, -1.0])
@pytest.mark.parametrize("keep_posterior", [True, False])
def test_a_multiple_of_a_channel_is_the_same_multiple_of_its_speech(factor, keep_posterior):
    left = white(0)
    found = run([left, np.float32(factor) * left], keep_posterior=keep_posterior)
    alone = run([left], keep_posterior=keep_posterior)
    np.testing.assert_array_equal(found.speech.samples[0], alone.speech.samples)
    scaled = np.float32(factor) * alone.speech.samples
    np.testing.assert_allclose(found.speech.samples[1], scaled, rtol=1e-6)
    if keep_posterior:
        one, other = found.posterior.select(0), found.posterior.select(1)
        np.testing.assert_allclose(other.speech, factor * one.speech, rtol=1e-5)
        np.testing.assert_allclose(other.mean, factor * one.mean, rtol=1e-5)
        np.testing.assert_allclose(other.variance, factor**2 * one.variance, rtol=1e-5)
        np.testing.assert_array_equal(other.latents["noise.spectra"], one.latents["noise.spectra"])


def test_rounded_copies_are_copies_and_other_channels_are_not():
    left = white(0)
    panned = np.round(0.37 * left * 2**15) / 2**15
    rows = [left, panned, white(1), left + 0.01 * white(2), np.zeros_like(left)]
    found = find_scaled_copies(Audio(np.stack(rows), RATE_HZ))
    assert [source for source, _ in found] == [0, 0, 2, 3, 4]
    assert found[1][1] == pytest.approx(0.37, rel=1e-3)


def test_unlike_channels_are_what_they_are_alone():
    left, right = white(0), white(1)
    both = run([left, right]).speech.samples
    np.testing.assert_allclose(both[0], run([left]).speech.samples, atol=1e-6)
    np.testing.assert_allclose(both[1], run([right]).speech.samples, atol=1e-6)


def test_nearly_equal_channels_come_out_nearly_equal():
    left = white(0)
    right = left + 0.01 * white(1)  # -40 dB
    speech = run([left, right]).speech.samples
    gap = np.sum((speech[0] - speech[1]) ** 2) / np.sum(speech[0] ** 2)
    assert 10 * np.log10(gap) < -30


def test_a_silent_channel_stays_silent_beside_another():
    found = run([np.zeros(8000, np.float32), white(0)])
    assert not found.speech.samples[0].any()
    assert found.posterior.mean.shape[0] == 1
