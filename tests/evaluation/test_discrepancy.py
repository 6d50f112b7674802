"""Posterior predictive mixtures, and discrepancy statistics of what a model knows or does not."""

from __future__ import annotations

import numpy as np
import pytest

from avse_ppl import SVI, GaussianSpeech, Scene, stationary
from avse_ppl.evaluation.diagnostics.discrepancy import (
    STATISTICS,
    check_discrepancies,
    draw_posterior_predictive,
)
from tests.helpers import STFT, waves

SCENE = Scene(GaussianSpeech(stft=STFT, gain_sd_db=0.0), stationary)


def infer(wave, scene=SCENE):
    return SVI(steps=60, draws=40)(scene, wave.astype("float32"), seed=0)


def test_statistics_of_known_waveforms():
    random = np.random.default_rng(0)
    noise = random.normal(size=16000)
    found = {name: statistic(noise, 16000) for name, statistic in STATISTICS.items()}
    assert 10 < found["crest factor"] < 14 and abs(found["kurtosis"]) < 0.2
    assert -1.5 < found["noise floor"] < 0 and 0 < found["level flux"] < 1
    gated = noise * (np.arange(16000) % 4000 < 2000)
    assert STATISTICS["noise floor"](gated, 16000) < -60
    assert STATISTICS["kurtosis"](gated, 16000) > 2
    assert STATISTICS["level flux"](gated, 16000) > 3


def test_replicated_mixtures_have_the_level_and_spectrum_of_the_recording():
    wave = np.convolve(waves(1, 4000)[0], [0.5, 0.5], "same") * 7
    scene = Scene(GaussianSpeech(stft=STFT), stationary)  # with a gain for each frame
    posterior = infer(wave, scene)
    found = draw_posterior_predictive(posterior, scene, draws=12, seed=3)
    assert found.mixture.shape == (12, 4000) and found.sample_rate_hz == 16000
    np.testing.assert_allclose(found.mixture, found.speech + found.noise, rtol=1e-5, atol=1e-5)
    assert found.mixture.std() == pytest.approx(wave.std(), rel=0.2)
    power = [
        np.abs(np.fft.rfft(x)).reshape(-1)[:2000].reshape(10, 200) ** 2
        for x in (wave, *found.mixture)
    ]
    observed, *replicated = np.log([p.mean(axis=1) for p in power])
    assert np.abs(np.mean(replicated, axis=0) - observed)[1:].max() < 0.3
    again = draw_posterior_predictive(posterior, scene, draws=12, seed=3)
    np.testing.assert_array_equal(found.mixture, again.mixture)


def test_a_recording_of_the_model_passes_and_clicks_do_not():
    wave = waves(1, 4000)[0]
    check = check_discrepancies(infer(wave), SCENE)
    assert min(check.p_values.values()) > 0.05, check
    wave[[500, 1500, 2500]] += 15.0
    check = check_discrepancies(infer(wave), SCENE)
    assert check.p_values["crest factor"] == pytest.approx(2 / 41)
    assert "crest factor" in repr(check) and len(check.replicated["kurtosis"]) == 40
    own = {"peak": lambda wave, rate_hz: np.abs(wave).max()}
    assert set(check_discrepancies(infer(wave), SCENE, statistics=own).p_values) == {"peak"}


def test_several_recordings_other_scenes_and_statistics_are_refused():
    posterior = infer(waves(1, 640)[0])
    with pytest.raises(ValueError, match="the statistic 'none' is not finite"):
        check_discrepancies(posterior, SCENE, statistics={"none": lambda wave, rate_hz: np.nan})
    both = SVI(steps=2, draws=2)(SCENE, waves(2, 640), seed=0)
    with pytest.raises(ValueError, match=r"of one recording, found 2; select\(i\) one"):
        draw_posterior_predictive(both, SCENE)
    other = Scene(GaussianSpeech(stft=STFT), stationary)
    with pytest.raises(ValueError, match=r"speech\.gain"):
        draw_posterior_predictive(posterior, other)


def test_progress_counts_draws():
    scene = Scene(GaussianSpeech(stft=STFT), stationary)
    posterior = SVI(steps=3, draws=4)(scene, waves(1, 3200), seed=0)
    told = []
    check_discrepancies(posterior, scene, draws=3, progress=lambda *pair: told.append(pair))
    assert told == [(1, 3), (2, 3), (3, 3)]
