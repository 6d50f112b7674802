"""Simulation-based calibration: routines that claim the posterior have uniform ranks.

Many quantities are looked at, each in a band that uniform ranks leave once in a thousand
repetitions.
"""

from __future__ import annotations

import pytest

from avse_ppl import EM, SVI, Exact
from avse_ppl.evaluation.calibration import simulation_based_calibration
from avse_ppl.models.simulate import reference_scene
from tests.helpers import STFT

INSIDE = 0.999


def calibrate(routine, known=False, simulations=200, keep=99, **settings):
    scene = reference_scene(known, stft=STFT)
    return simulation_based_calibration(routine, scene, simulations, seed=5, keep=keep, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False], ids=["noise known", "level unknown"])
def test_exact_is_uniform(known):
    routine = Exact(nodes=65 if known else 33, draws=99, waveforms=False)
    result = calibrate(routine, known, batch=50)
    assert all(result.are_uniform(INSIDE).values()), result.compute_distance()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["NUTS", "NumPyroNUTS"])
def test_nuts_is_uniform(engine):
    from avse_ppl import inference

    if engine == "NumPyroNUTS":
        pytest.importorskip("numpyro")
    routine = getattr(inference, engine)(draws=100, warmup=150, chains=1, waveforms=False)
    # Effective draws are fewer than draws: every fourth of 100 is nearly independent. So few
    # simulations, about ten seconds each, still see a posterior under a quarter of the likelihood's
    # power: the log joint of the exact one is then 0.8 from the diagonal, far out of the band.
    result = calibrate(routine, simulations=20, keep=24, n_samples=128)
    assert all(result.are_uniform(INSIDE).values()), result.compute_distance()


@pytest.mark.slow
def test_svi_is_near():
    # Mean field: not uniform by promise. Gains are nearly independent here, the level is not.
    routine = SVI(
        steps=600, learning_rate=0.02, tolerance=0, draws=99, waveforms=False, tempering=1.0
    )
    gaps = calibrate(routine, batch=50).compute_distance()
    assert max(gaps.values()) < 0.3, gaps
    assert gaps["speech power"] < 0.15


@pytest.mark.slow
def test_a_point_estimate_and_a_tempered_posterior_are_not():
    point = calibrate(EM(iterations=50, waveforms=False), True, simulations=50, keep=19)
    assert point.compute_distance()["speech.gain[0,3]"] > 0.3
    tempered = calibrate(
        Exact(nodes=33, draws=49, waveforms=False, tempering=0.25), True, 100, keep=49
    )
    assert not tempered.are_uniform(INSIDE)["log joint"]
