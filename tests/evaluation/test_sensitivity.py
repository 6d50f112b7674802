"""Sensitivity by power-scaling: against the posterior under another prior, and against arviz."""

from __future__ import annotations

from dataclasses import replace

import arviz
import numpy as np
import pytest
import torch

from avse_ppl import EM, Exact, GaussianScore, Scene, stationary
from avse_ppl.evaluation.sensitivity import (
    SensitivityTable,
    compute_cjs,
    measure_sensitivity,
    scale_power,
)
from avse_ppl.models.simulate import reference_scene, simulate
from avse_ppl.posterior.functionals import Energy, Level
from tests.helpers import STFT, waves


def make_scene(prior_power=1.0, **options):
    """The gain of speech has a normal prior, whose power only changes its standard deviation."""
    return reference_scene(
        noise_known=True, gain_sd_db=6.0 / prior_power**0.5, stft=STFT, noise_power=3.0, **options
    )


@pytest.fixture(scope="module")
def mixture():
    return simulate(make_scene(), n_samples=640, seed=1).mixture


@pytest.fixture(scope="module")
def posterior(mixture):
    return Exact(draws=1500)(make_scene(), mixture, seed=0)


def test_the_shift_is_that_to_the_posterior_under_the_scaled_prior(posterior, mixture):
    table = measure_sensitivity(posterior, make_scene(), mixture=mixture)
    found = {row.component: row for row in table.rows}
    assert set(found) == {"speech.gain", "likelihood"} and "kind: exact" in repr(table)
    level = posterior.of(Level())
    means = [
        Exact(draws=1500)(make_scene(power), mixture, seed=1).of(Level()).mean[0]
        for power in (0.5, 2.0)
    ]
    expected = (means[1] - means[0]) / 2 / level.sd[0]
    row = found["speech.gain"]
    # Each mean of 1500 draws is good to 0.026 sd; a doubling is not quite a small step.
    assert abs(row.shift - expected) < 3 * np.hypot(row.mcse, 0.026 / 2**0.5) + 0.03
    assert row.resolved and row.shift > 0.08 and row.k_hat < 0.5


def test_the_distance_and_its_direction_are_those_of_arviz():
    random = np.random.default_rng(0)
    values = random.normal(size=2000)
    logs = -0.5 * values**2 - values
    row = scale_power("prior", "x", values, logs)
    # With exp(-x - x^2 / 2) to the power a, the mean of x moves by -(a - 1): -log 2 a doubling.
    assert abs(row.shift + np.log(2)) < 4 * row.mcse < 0.3
    if not hasattr(arviz, "psens"):
        pytest.skip("arviz 1.x has it elsewhere")
    data = arviz.from_dict({"x": values[None]})
    data.add_groups({"log_prior": arviz.convert_to_dataset({"x": logs[None]})})
    expected = float(arviz.psens(data, component="prior")["x"])
    assert row.distance == pytest.approx(expected, rel=0.02)
    assert row.sensitive


def test_what_does_not_depend_is_not_resolved():
    random = np.random.default_rng(0)
    row = scale_power("prior", "x", random.normal(size=2000), random.normal(size=2000))
    assert abs(row.shift) < 3 * row.mcse and not row.sensitive
    assert compute_cjs(np.zeros(5), np.full(5, 0.2)) == 0.0
    assert "not resolved" in repr(SensitivityTable((replace(row, mcse=9.0),), "exact"))


def test_waveforms_go_with_the_latents_they_were_drawn_with():
    # Fewer waveforms than draws: of every fourth.
    method = Exact(draws=400)
    scene = make_scene()
    mixture = simulate(scene, n_samples=640, seed=1).mixture
    whole = method(scene, mixture, seed=0)
    thinned = replace(whole, speech=whole.speech[:, ::4])
    rows = measure_sensitivity(thinned, scene, {"energy": Energy()}, mixture).rows
    values = thinned.of(Energy()).draws.ravel()
    latents = whole.latents["speech.gain"][0, ::4].reshape(100, -1)
    logs = -0.5 * np.sum(latents.astype(float) ** 2, axis=1)
    expected = scale_power("speech.gain", "energy", values, logs)
    assert rows[0].shift == pytest.approx(expected.shift, rel=1e-3)


def test_posteriors_without_such_weights_are_refused(posterior, mixture):
    scene = make_scene()
    point = EM(iterations=2, draws=2)(Scene(scene.speech, stationary), waves(1, 640), seed=0)
    score = Scene(GaussianScore(torch.ones(33), stft=STFT), stationary)
    cases = [
        (point, scene, {}, "a point estimate has no draws to be weighted"),
        (replace(posterior, kind="exact, recalibrated"), scene, {}, "recalibrated: its waveforms"),
        (posterior, score, {}, "is a denoiser and has no density"),
        (replace(posterior, latents={}), scene, {}, "holds no latents: there is no prior"),
        (
            replace(posterior, speech=posterior.speech[:, :60]),
            scene,
            {},
            "holds 1500 draws of its latents and 60 waveform draws; .* at least 100 of both",
        ),
        (posterior, scene, {"functionals": {"l": Level(spans_s="frames")}}, "expected one number"),
        (posterior, reference_scene(False, stft=STFT), {}, "noise.level"),
    ]
    for one, other, options, said in cases:
        with pytest.raises(ValueError, match=said):
            measure_sensitivity(one, other, **{"mixture": mixture, **options})
    both = Exact(draws=100)(scene, waves(2, 640), seed=0)
    with pytest.raises(ValueError, match=r"of one recording, found 2; select\(i\) one"):
        measure_sensitivity(both, scene)
