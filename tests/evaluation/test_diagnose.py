"""Diagnostics: what they compute, and that they fail what should fail."""

from __future__ import annotations

from dataclasses import replace

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from avse_ppl import SVI, ComplexNormal, Exact, GaussianSpeech, Posterior, Scene, Stft, stationary
from avse_ppl.evaluation.diagnostics import (
    chain_figures,
    chain_warnings,
    diagnose,
    log_powers,
    measure_rise,
    predictive_check,
)
from avse_ppl.evaluation.diagnostics.predictive import (
    check_exponentiality,
    check_whiteness,
    compute_normal_scores,
)
from avse_ppl.models.simulate import reference_scene, simulate
from avse_ppl.posterior import FitInfo
from tests.helpers import STFT

N = 1600


def chains(shape=(4, 400, 1, 3), seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# --- chains --------------------------------------------------------------------------------------


def test_figures_are_those_of_arviz():
    draws = chains((4, 300, 2, 5)).cumsum(axis=1) * 0.05 + chains((4, 300, 2, 5), seed=1)
    energy = chains((4, 300, 2), seed=2).cumsum(axis=1)
    for row, found in enumerate(chain_figures({"speech.band": draws}, {"energy": energy})):
        data = arviz.from_dict({"x": draws[:, :, row]})
        r_hat, bulk, tail = (
            np.asarray(f(data)["x"])
            for f in (arviz.rhat, arviz.ess, lambda d: arviz.ess(d, method="tail"))
        )
        assert found["r_hat"] == pytest.approx(r_hat.max())
        assert found["r_hat_of"] == f"speech.band[{r_hat.argmax()}]"
        assert found["ess_bulk"] == pytest.approx(bulk.min())
        assert found["ess_tail"] == pytest.approx(tail.min())
        assert found["ess_bulk_of"] == f"speech.band[{bulk.argmin()}]"
        assert found["bfmi"] == pytest.approx(arviz.bfmi(energy[:, :, row]).min())


def test_good_chains_are_not_warned_of():
    stats = {"diverging": np.zeros((4, 400, 1), bool), "energy": chains((4, 400, 1), seed=3)}
    assert chain_warnings({"a": chains(), "b": chains(seed=1)}, stats) == [[]]


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda x: x + np.arange(4)[:, None, None, None], "chains disagree: R-hat"),
        (lambda x: x.cumsum(axis=1), "few effective draws: bulk ESS"),
        (lambda x: np.repeat(x[:, ::10], 10, axis=1), "few effective draws: tail ESS"),
        (lambda x: np.zeros_like(x), "the chains did not move"),
        (lambda x: np.zeros_like(x) + np.arange(4.0)[:, None, None, None], "R-hat inf"),
    ],
)
def test_bad_chains_are_warned_of(spoil, text):
    both = np.concatenate([chains(seed=5), spoil(chains())], axis=2)
    good, bad = chain_warnings({"x": both}, {})
    assert good == []
    assert any(text in line for line in bad), bad


def test_three_draws_are_too_few_to_judge():
    assert chain_warnings({"x": chains((4, 3, 1, 2))}, {}) == [
        ["3 draws a chain are too few to judge; run with draws=500 or more"]
    ]


def test_one_chain_is_judged_by_its_halves():
    drift = chains((1, 400, 1, 1)) + np.linspace(0, 3, 400)[None, :, None, None]
    [texts] = chain_warnings({"x": drift}, {})
    assert texts[0].startswith("the halves of the chain disagree: R-hat")
    assert chain_warnings({"x": chains((1, 400, 1, 1))}, {}) == [[]]


def test_divergences_and_energy():
    stats = {"diverging": np.zeros((4, 400, 2), bool), "energy": chains((4, 400, 2))}
    stats["diverging"][2, 7, 0] = True
    stats["energy"][3, :, 1] = np.cumsum(stats["energy"][3, :, 1])
    first, second = chain_warnings({"x": chains((4, 400, 2, 3))}, stats)
    assert len(first) == 1 and first[0].startswith("1 of 1600 draws diverged")
    assert len(second) == 1 and second[0].startswith("energy: BFMI 0.")


def test_padding_and_constants_are_not_judged():
    values = chains((4, 400, 1, 4))
    values[..., 1], values[..., 2] = np.nan, 7.0
    [found] = chain_figures({"x": values}, {})
    assert found["quantities"] == 2


def test_permuted_factors_are_not_held_against_a_chain():
    # Chains that agree on the power and not on the order of the factors behind it.
    def two(frames):
        with pyro.plate("component", 2, dim=-2), pyro.plate("time", frames.time, dim=-1):
            parts = pyro.sample("parts", dist.Exponential(1.0))
        return ComplexNormal(0.0, parts.sum(-2, keepdim=True) + 1e-3)

    scene = Scene(GaussianSpeech(gain_sd_db=0.0, stft=STFT), two)
    mixture = STFT.analyse(np.random.default_rng(0).normal(size=640).astype("float32"))
    shape = (4, 150, 1, 2, mixture.frames.time)
    parts = torch.from_numpy(np.exp(0.1 * chains(shape) + np.array([0.0, 2.0])[:, None])).float()
    parts[2:] = parts[2:].flip(-2)
    draws = [{"parts": value} for value in parts.flatten(0, 1)]
    powers = log_powers(scene, mixture, draws, chains=4)
    assert chain_warnings(powers, {}) == [[]]
    themselves = parts.numpy().reshape(4, 150, 1, -1)
    assert "chains disagree" in chain_warnings({"parts": themselves}, {})[0][0]


def test_powers_are_those_of_the_laws():
    scene = replace(reference_scene(noise_known=False), speech=GaussianSpeech(stft=STFT))
    lengths = [np.ones(N, "float32"), np.ones(N // 2, "float32")]
    mixture = STFT.analyse(lengths)
    values = {
        "speech.gain": torch.randn(2, 1, mixture.frames.time),
        "noise.level": torch.tensor([2.0, 3.0])[:, None, None],
    }
    powers = log_powers(scene, mixture, [values] * 2, chains=2)
    law = scene.laws_given(values, mixture).speech
    expected = law.power.mean(1).log()
    np.testing.assert_allclose(powers["speech.frame"][1, 0, 0], expected[0], rtol=1e-5)
    half = STFT.count_frames(N // 2)
    assert np.isnan(powers["speech.frame"][0, 0, 1, half:]).all()
    np.testing.assert_allclose(powers["noise.band"][0, 0, 1], np.log(3.0), rtol=1e-5)
    low = law.power[1, 0, :half].mean().log()  # the lowest band is the first bin alone
    np.testing.assert_allclose(powers["speech.band"][0, 0, 1, 0], low, rtol=1e-4)


def test_a_mean_counts_as_power():
    noise = ComplexNormal(2.0 * torch.ones(1, 1), torch.ones(1, 1))
    scene = Scene(GaussianSpeech(gain_sd_db=0.0, stft=STFT), lambda frames: noise)
    mixture = STFT.analyse(np.ones(N, "float32"))
    powers = log_powers(scene, mixture, [{}])
    np.testing.assert_allclose(powers["noise.frame"], np.log(5.0), rtol=1e-5)


# --- bounds --------------------------------------------------------------------------------------


def test_a_bound_that_rises():
    noise = np.random.default_rng(0).normal(size=200)
    rising = np.concatenate([noise + 0.5 * np.arange(200), np.full(7, np.nan)])
    found = measure_rise(rising, bins=400)  # by 0.03 nats a bin
    assert found.rising and found.steps == 200 and found.rise == pytest.approx(12.5, abs=1.5)
    assert not measure_rise(noise, bins=1).rising
    assert not measure_rise(rising, bins=600).rising  # by 0.02: no rise that matters
    assert not measure_rise(100 * noise + 0.5 * np.arange(200), bins=1).rising  # none to be seen
    alarms = [
        measure_rise(row, bins=0).rising for row in np.random.default_rng(0).normal(size=(200, 90))
    ]
    assert sum(alarms) <= 2  # three standard errors, one side
    short = measure_rise(np.arange(9.0), bins=1)
    assert not short.rising and np.isnan(short.rise)


def test_a_rise_that_is_about_to_end_is_not_told():
    noise = np.random.default_rng(0).normal(size=150)
    steps = np.arange(150)

    def measure(time, settling=0, height=1000.0):
        return measure_rise(noise - height * np.exp(-(steps - 150) / time), 400, settling=settling)

    # By 0.0265 * 400 = 10.6 nats or more over the last 25 steps, each.
    brief, long = measure(20.0, height=2.5), measure(100.0, height=100.0)
    assert brief.rise > 10.6 and not brief.rising
    assert long.rise > 10.6 and long.rising
    # A sum of exponentials to the limit: what the extrapolation says of one.
    assert long.left == pytest.approx(100.0, rel=0.3)
    # The learning rate falls over 40 more steps, at half of its rate on average.
    settled = measure(100.0, settling=40, height=100.0)
    assert settled.left == pytest.approx(long.left * np.exp(20 / 100), rel=0.3)
    # What does not slow down is told, and so is what cannot be seen to.
    straight = measure_rise(noise + steps, 400)
    assert straight.rising and straight.left > 25
    few = measure_rise(noise[:12] + 10.0 * steps[:12], 400)
    assert few.rising and few.left > 25
    # The fast part goes first: it says nothing of the slow one.
    assert measure_rise(noise - 1e5 * np.exp(-steps / 5) + steps, 400).rising


def test_svi_that_was_stopped_too_early():
    mixture = simulate(reference_scene(noise_known=False), n_samples=8000).mixture
    scene = reference_scene(noise_known=False)
    short, long = (SVI(steps=n, draws=4)(scene, mixture, seed=0) for n in (20, 250))
    rising = "the ELBO was still rising"
    assert any(text.startswith(rising) for text in diagnose(short).warnings[0])
    assert not diagnose(short).passed[0]
    assert not any(text.startswith(rising) for text in diagnose(long).warnings[0])


# --- predictive checks ---------------------------------------------------------------------------


def ruler(**options):
    return reference_scene(noise_known=True, gain_sd_db=6.0, stft=STFT, **options)


def checked(scene, truth=None, recordings=1, n_samples=N, seed=0):
    mixture = simulate(truth or scene, n_samples, recordings, seed=seed).mixture
    posterior = Exact(draws=8, waveforms=False)(scene, mixture, seed=0)
    return predictive_check(posterior, scene, mixture)


def test_data_from_the_model_pass_as_often_as_stated():
    check = checked(ruler(), recordings=120, n_samples=960)
    assert check.draws == 8 and check.level == 0.05
    failed = 1 - check.passed.mean()
    assert failed <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 120)
    for name, p in check.p_values.items():  # averages of p-values that are uniform
        assert abs(p.mean() - 0.5) < 0.1, name
        assert 0.05 < p.std() < 0.3, name  # 0.29 for a single uniform one


def test_the_statistics_themselves_are_calibrated():
    rng = np.random.default_rng(0)
    p = np.array([
        [check_exponentiality(y)[0], check_whiteness(z[1:], z[:-1])[0]]
        for y in rng.exponential(size=(400, 30, 10)) for z in [compute_normal_scores(y)]
    ])  # fmt: skip
    for column in p.T:
        for level in (0.05, 0.3, 0.7):
            assert abs((column < level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 400)


def test_normal_scores_keep_the_tails():
    y = np.array([0.0, np.log(2), 50.0, 1e9])
    scores = compute_normal_scores(y)
    assert np.isfinite(scores).all() and (np.diff(scores) > 0).all()
    assert scores[1] == pytest.approx(0.0, abs=1e-12)


def heavy(frames):
    with pyro.plate("freq", frames.freq, dim=-2), pyro.plate("time", frames.time, dim=-1):
        texture = pyro.sample("texture", dist.InverseGamma(2.0, 1.0))
    return ComplexNormal(0.0, texture)


def waves_over(axis, depth=1.0):
    """Noise whose level goes up and down slowly along one axis."""

    def noise(frames):
        shape = (frames.freq, frames.time)
        index = np.indices(shape)[axis] / shape[axis]
        return ComplexNormal(0.0, torch.from_numpy(np.exp(depth * np.sin(8 * index))).float())

    return noise


@pytest.mark.parametrize(
    ("noise", "fails"), [(heavy, "law"), (waves_over(1), "time"), (waves_over(0, 1.8), "frequency")]
)
def test_misfit_fails(noise, fails):
    quiet = GaussianSpeech(1e-3 * torch.ones(33), 0.0, STFT)
    # By much: a level that waves over frequency less than that is what real noise does.
    mean = {"law": 1.0, "time": 1.25, "frequency": 2.0}[fails]
    fitted = Scene(quiet, lambda frames: ComplexNormal(0.0, mean))
    check = checked(fitted, truth=Scene(quiet, noise), recordings=4, n_samples=3200)
    assert not check.passed.any()
    assert (check.p_values[fails] < 0.01).all()
    said = {"law": "not exponential", "time": "one window to the next",
            "frequency": "one frequency to the next"}[fails]  # fmt: skip
    assert all(any(said in text for text in row) for row in check.describe_failures())
    assert checked(fitted, truth=fitted, recordings=4, n_samples=3200).passed.all()


@pytest.mark.parametrize("window", ["sine", "hann"])
def test_overlap_and_window_are_allowed_for(window):
    # White noise as a waveform: its bins are correlated, those that are looked at are not.
    stft = Stft(n_fft=64, hop=16, window=window)
    waves = np.random.default_rng(1).normal(size=(100, 3200)).astype("float32")
    mixture = stft.analyse(waves)
    inner = float(mixture.power[:, 4:-4, 4:-4].mean())
    quiet = GaussianSpeech(1e-4 * torch.ones(33), 0.0, stft)
    scene = Scene(quiet, lambda frames: ComplexNormal(0.0, inner))
    posterior = Exact(draws=4, waveforms=False)(scene, mixture, seed=0)
    check = predictive_check(posterior, scene, mixture)
    assert 1 - check.passed.mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 100)
    for name in ("time", "frequency"):
        assert abs(check.sizes[name].mean()) < 0.01


def test_the_mixture_of_a_posterior_is_the_one_inverted():
    waves = [
        np.random.default_rng(i).normal(size=n).astype("float32") for i, n in ((0, N), (1, 900))
    ]
    scene = Scene(GaussianSpeech(stft=STFT), stationary)
    posterior = SVI(steps=5, draws=4)(scene, waves, seed=0)
    mixture = STFT.analyse(waves)
    np.testing.assert_allclose(posterior.observed_spectrogram().values, mixture.values, atol=1e-5)
    again = predictive_check(posterior, scene)
    np.testing.assert_allclose(
        again.p_values["law"],
        predictive_check(posterior, scene, mixture).p_values["law"],
        atol=1e-3,
    )


def test_a_check_that_cannot_be_made():
    scene = Scene(GaussianSpeech(stft=STFT), stationary)
    posterior = SVI(steps=5, draws=4)(scene, np.ones(200, "float32"), seed=0)
    with pytest.raises(ValueError, match="independent bins"):
        predictive_check(posterior, scene)
    with pytest.raises(ValueError, match="pass the scene that was inferred"):
        predictive_check(posterior, ruler())
    with pytest.raises(ValueError, match="pass the mixture that was inferred"):
        predictive_check(posterior, scene, STFT.analyse(np.ones(400, "float32")))


# --- all of it -----------------------------------------------------------------------------------


def chain_posterior(shift=0.0):
    """A posterior with made chains of the one latent of a scene."""
    scene = reference_scene(noise_known=False, gain_sd_db=0.0, stft=STFT)
    mixture = simulate(scene, N).mixture
    posterior = Exact(draws=200, waveforms=False)(scene, mixture, seed=0)
    level = posterior.latents["noise.level"]
    level = level.reshape(4, 50, *level.shape[2:]) + shift * np.arange(4)[:, None, None, None, None]
    stats = {"diverging": np.zeros((4, 50, 1), bool), "energy": chains((4, 50, 1))}
    latents = {"noise.level": level.astype(np.float32)}
    return scene, mixture, replace(posterior, latents=latents, stats=stats)


def test_diagnose_judges_chains_by_their_powers():
    scene, mixture, posterior = chain_posterior(shift=1.0)
    found = diagnose(posterior, scene, mixture)
    assert found.figures[0]["r_hat"] > 1.5 and found.figures[0]["r_hat_of"].startswith("noise.")
    assert "chains disagree" in found.warnings[0][0] or "chains disagree" in found.warnings[0][1]
    alone = diagnose(posterior)  # without the scene: what the sampler said
    assert set(alone.figures[0]) == {"divergences", "bfmi"} and alone.passed.all()
    scene, mixture, posterior = chain_posterior()
    texts = diagnose(posterior, scene, mixture).warnings[0]
    assert all("few effective draws" in text for text in texts)  # 200 are less than 100 a chain


def test_without_the_scene_the_figures_are_those_that_the_routine_kept():
    _, _, posterior = chain_posterior()
    kept = {"chains": 4, "draws": 50, "quantities": 3, "r_hat": 1.5, "r_hat_of": "noise.band[0]",
            "ess_bulk": 9.0, "ess_bulk_of": "a", "ess_tail": 9.0, "ess_tail_of": "a",
            "divergences": 0, "bfmi": 1.0}  # fmt: skip
    info = FitInfo(warnings=("chains disagree",), chain_figures=kept)
    found = diagnose(replace(posterior, fit=(info,)))
    assert found.figures == (kept,) and found.warnings == (("chains disagree",),)


def test_diagnose_repeats_what_the_routine_said_and_reads_k_hat():
    scene, mixture, posterior = chain_posterior()
    info = FitInfo(warnings=("something odd",), k_hat=0.9)
    found = diagnose(replace(posterior, fit=(info,), stats={}))
    assert found.warnings[0][0] == "something odd"
    assert found.warnings[0][1].startswith("k-hat is 0.90, above 0.7")
    fine = diagnose(replace(posterior, fit=(FitInfo(k_hat=0.3),), stats={}), scene, mixture)
    assert fine.passed.all() and fine.figures[0]["k_hat"] == 0.3
    assert {"p_law", "p_time", "p_frequency"} <= set(fine.figures[0])


def test_a_saved_posterior_says_the_same(tmp_path):
    scene, mixture, posterior = chain_posterior(shift=1.0)
    posterior = replace(posterior, speech=np.zeros((4, 0, 1, N), np.float32))
    loaded = Posterior.load(posterior.save(tmp_path / "p.nc"))
    assert diagnose(loaded, scene, mixture).warnings == diagnose(posterior, scene, mixture).warnings
