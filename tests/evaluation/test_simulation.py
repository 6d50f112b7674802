"""Simulation-based calibration: what is ranked, what it finds, and its picture."""

from __future__ import annotations

import numpy as np
import pytest

from avse_ppl import EM, ComplexNormal, Exact, GaussianSpeech, Scene
from avse_ppl.evaluation.calibration import (
    SimulationBasedCalibration,
    simulation_based_calibration,
)
from avse_ppl.models.simulate import reference_scene
from tests.helpers import STFT


def exact(tempering=1.0, draws=49):
    return Exact(nodes=65, draws=draws, waveforms=False, tempering=tempering)


def calibrated(routine, simulations=60, keep=49, **settings) -> SimulationBasedCalibration:
    scene = reference_scene(True, gain_sd_db=8.0, stft=STFT)
    return simulation_based_calibration(
        routine, scene, simulations, seed=3, n_samples=64, keep=keep, **settings
    )


def test_exact_is_uniform_and_what_is_ranked():
    result = calibrated(exact())
    assert all(result.are_uniform(0.999).values()), result.compute_distance()
    assert {"speech power", "log joint", "speech.gain[0,2]"} <= set(result.ranks)
    assert (result.simulations, result.draws, result.kind) == (60, 49, "exact")


def test_a_posterior_too_narrow_is_found():
    result = calibrated(exact(tempering=20.0))
    inside = result.are_uniform(0.999)
    assert not inside["speech.gain[0,2]"], result.compute_distance()
    assert not inside["log joint"]
    assert result.coverage(0.5)["speech.gain[0,2]"] < 0.3


def test_a_posterior_too_wide_is_found():
    # Between the posterior and the prior, under which single latents would be uniform, too.
    result = calibrated(exact(tempering=0.15))
    assert not result.are_uniform(0.999)["log joint"]
    gains = [v for name, v in result.coverage(0.5).items() if name.startswith("speech.gain")]
    assert np.mean(gains) > 0.6


def test_a_point_is_found():
    result = calibrated(EM(iterations=20, waveforms=False), keep=19)
    assert result.draws == 19
    assert set(np.unique(result.ranks["speech.gain[0,2]"])) == {0, 19}
    assert not result.are_uniform(0.999)["speech.gain[0,2]"]


def test_seeds_and_batches():
    once, again, parts = (
        calibrated(exact(draws=9), 6, 9, batch=batch).ranks for batch in (None, None, 2)
    )
    scene = reference_scene(True, gain_sd_db=8.0, stft=STFT)
    other = simulation_based_calibration(exact(draws=9), scene, 6, 4, n_samples=64, keep=9).ranks
    for name, rank in once.items():
        np.testing.assert_array_equal(rank, again[name])
        np.testing.assert_array_equal(rank, parts[name], err_msg=name)
    assert any((rank != other[name]).any() for name, rank in once.items())


def test_a_scene_without_latents_has_speech_to_rank():
    scene = Scene(GaussianSpeech(gain_sd_db=0.0, stft=STFT), lambda frames: ComplexNormal(0.0, 0.3))
    result = simulation_based_calibration(exact(), scene, 40, keep=19, n_samples=64)
    assert "log joint" not in result.ranks  # the same for the truth and all draws
    assert all(result.are_uniform(0.999).values())


@pytest.mark.parametrize(("settings", "text"), [
    ({"simulations": 0}, "simulations must be"), ({"keep": 0}, "keep must be"),
    ({"batch": 0}, "batch must be"),
])  # fmt: skip
def test_a_calibration_of_nothing(settings, text):
    with pytest.raises(ValueError, match=text):
        simulation_based_calibration(exact(), reference_scene(True, stft=STFT), **settings)
