"""Ranks, bands and scores against answers that are known; coverage of draws of a known Gaussian."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from avse_ppl import Posterior
from avse_ppl.evaluation.calibration import (
    average_coverage,
    compute_ranks,
    coverage,
    crps_draws,
    crps_gaussian,
    disc_radius,
    rank_ecdf,
    simultaneous_band,
    sparsification,
    spearman,
)
from tests.helpers import STFT


def known_gaussian(recordings=1, draws=200, n_samples=3200, narrow=1.0, seed=0):
    """Posterior N(mean, sd^2) of white speech, and truths from it, or from one that is wider."""
    random = np.random.default_rng(seed)
    sd = 0.5
    mean = random.normal(size=(recordings, n_samples)).astype(np.float32)
    truth = mean + sd * random.normal(size=mean.shape).astype(np.float32)
    drawn = mean + narrow * sd * random.normal(size=(1, draws, *mean.shape)).astype(np.float32)
    spectrogram = STFT.analyse(mean)
    values = (spectrogram.values * spectrogram.scale[:, None, None]).numpy()
    # A bin of white noise has the window's energy, a real one at both ends is no circular one.
    power = np.full(values.shape, (narrow * sd) ** 2 * 32.0, np.float32)
    posterior = Posterior(
        mean=values, variance=power, mixture=values, speech=drawn.astype(np.float32), latents={},
        n_samples=(n_samples,) * recordings, stft=STFT, kind="exact",
    )  # fmt: skip
    return posterior, truth


# --- ranks and bands -----------------------------------------------------------------------------


def test_ranks_count_the_draws_below():
    random = np.random.default_rng(0)
    truth, draws = random.normal(size=(3, 4)), random.normal(size=(7, 3, 4))
    found = compute_ranks(truth, draws)
    assert found.shape == (3, 4)
    assert found[1, 2] == sum(draws[:, 1, 2] < truth[1, 2])


@pytest.mark.parametrize("shape", [(7, 3), (0, 3, 4), ()])
def test_ranks_want_draws_of_the_truth(shape):
    with pytest.raises(ValueError, match=r"expected draws of shape \(draw, ...\)"):
        compute_ranks(np.zeros((3, 4)), np.zeros(shape))


def test_the_ecdf_of_every_rank_once_is_the_diagonal():
    points, ecdf = rank_ecdf(np.arange(10), 9)
    np.testing.assert_allclose(ecdf, points)


@pytest.mark.parametrize(("count", "draws", "probability"), [(40, 19, 0.95), (150, 50, 0.8)])
def test_the_band_holds_as_often_as_it_says(count, draws, probability):
    band = simultaneous_band(count, draws, probability)
    random, repeats = np.random.default_rng(0), 4000
    inside = 0
    for _ in range(repeats):
        ecdf = rank_ecdf(random.integers(0, draws + 1, count), draws)[1]
        inside += bool(((ecdf >= band.lower - 1e-9) & (ecdf <= band.upper + 1e-9)).all())
    error = 4 * math.sqrt(probability * (1 - probability) / repeats)
    # Counts are whole numbers: the band holds at least so often, and not much more.
    assert probability - error < inside / repeats < probability + error + 0.03


def test_the_band_is_the_same_from_both_ends():
    band = simultaneous_band(60, 12)
    np.testing.assert_allclose(band.lower + band.upper[::-1], 1.0)


def test_one_point_is_the_binomial_interval():
    band = simultaneous_band(50, 1, 0.9)
    inside = stats.binom.cdf(50 * band.upper[0], 50, 0.5)
    inside -= stats.binom.cdf(50 * band.lower[0] - 1, 50, 0.5)
    assert inside >= 0.9
    narrower = stats.binom.cdf(50 * band.upper[0] - 1, 50, 0.5)
    narrower -= stats.binom.cdf(50 * band.lower[0], 50, 0.5)
    assert narrower < 0.9


@pytest.mark.parametrize(("arguments", "text"), [
    ((0, 9), "simulations must be"), ((9, 0), "draws must be"), ((9, 9, 1.0), "probability must"),
])  # fmt: skip
def test_a_band_of_nothing(arguments, text):
    with pytest.raises(ValueError, match=text):
        simultaneous_band(*arguments)


# --- scores --------------------------------------------------------------------------------------


def test_crps_in_closed_form_is_its_integral():
    grid = np.linspace(-12, 12, 200_001)
    cdf = stats.norm.cdf(grid, 0.4, 1.3)
    expected = np.trapezoid((cdf - (grid >= 1.1)) ** 2, grid)
    assert float(crps_gaussian(1.1, 0.4, 1.3)) == pytest.approx(expected, rel=1e-3)


def test_crps_of_draws_is_unbiased():
    random = np.random.default_rng(0)
    truth = np.full(20_000, 0.7)
    found = crps_draws(truth, random.normal(size=(5, truth.size)))
    error = found.std() / math.sqrt(truth.size)
    assert found.mean() == pytest.approx(float(crps_gaussian(0.7, 0.0, 1.0)), abs=4 * error)


def test_crps_of_draws_by_hand():
    draws = np.array([0.0, 2.0, 5.0])
    expected = (1 + 1 + 4) / 3 - (2 + 5 + 3) / (3 * 2)
    assert float(crps_draws(np.array(1.0), draws)) == pytest.approx(expected)


@pytest.mark.parametrize("draws", [np.zeros((1, 3)), np.zeros((5, 2))])
def test_crps_wants_two_draws_of_the_truth(draws):
    with pytest.raises(ValueError, match="expected at least 2 draws"):
        crps_draws(np.zeros(3), draws)


def test_sparsification_by_hand():
    error = np.arange(1.0, 101.0)
    worst = sparsification(error, -error)
    # 1 - f of the errors are left: the largest of them, or the smallest.
    assert worst.curve[50] == pytest.approx(error[50:].mean() / error.mean())
    assert worst.oracle[50] == pytest.approx(error[:50].mean() / error.mean())
    assert sparsification(error, error).ause == pytest.approx(0.0, abs=1e-12)
    random = np.random.default_rng(0)
    useless = sparsification(random.exponential(size=200_000), random.normal(size=200_000))
    np.testing.assert_allclose(useless.curve[:90], 1.0, atol=0.05)


@pytest.mark.parametrize(
    ("error", "variance"),
    [(np.ones(99), np.ones(99)), (np.zeros(200), np.ones(200)), (np.ones(200), np.ones(201))],
)
def test_sparsification_of_nothing(error, variance):
    with pytest.raises(ValueError, match="at least 100"):
        sparsification(error, variance)


def test_spearman_is_scipys():
    random = np.random.default_rng(0)
    one = random.normal(size=500)
    other = one + random.normal(size=500)
    assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other)[0])


# --- coverage ------------------------------------------------------------------------------------


def test_the_disc_holds_its_mass():
    values = np.random.default_rng(0).normal(size=(2, 100_000)) / math.sqrt(2)
    for probability in (0.5, 0.9):
        inside = (np.hypot(*values) <= disc_radius(np.array(1.0), probability)).mean()
        assert inside == pytest.approx(probability, abs=0.006)


@pytest.mark.parametrize("probability", [0.0, 1.0, 1.5])
def test_a_disc_of_no_mass(probability):
    with pytest.raises(ValueError, match="probability must be between 0 and 1"):
        disc_radius(np.ones(3), probability)


def test_a_known_gaussian_covers_as_stated():
    posterior, truth = known_gaussian(recordings=3)
    found = average_coverage([coverage(posterior, truth[r], recording=r) for r in range(3)])
    for share in (found.bins, found.bins_by_energy):
        # A hundred recordings' worth of nearly independent bins; both ends are real numbers.
        np.testing.assert_allclose(share, found.probabilities, atol=0.03)
    for share in (found.waveform, found.waveform_by_energy):
        np.testing.assert_allclose(share, found.probabilities, atol=0.02)
    # The law of the truth itself has a mean CRPS of sd / sqrt(pi).
    root = float(STFT.forward(torch.from_numpy(truth)).abs().square().mean().sqrt())
    expected = np.sqrt(posterior.variance[0, 0, 0] / 2 / np.pi)
    assert found.crps_bins * root == pytest.approx(expected, rel=0.02)
    draws = crps_gaussian(truth, posterior.speech.mean((0, 1)), 0.5).mean()
    assert found.crps_waveform * np.sqrt((truth**2).mean()) == pytest.approx(draws, rel=0.02)


@pytest.mark.parametrize("draws", [19, 39])
def test_one_more_draw_is_covered_exactly_as_stated(draws):
    # Each of D + 1 exchangeable waveforms in turn is the truth, the others are the draws.
    posterior, _ = known_gaussian(draws=draws, n_samples=320)
    waveforms = np.random.default_rng(0).exponential(size=(draws + 1, 320)).astype(np.float32)
    rows = []
    for r, truth in enumerate(waveforms):
        others = np.delete(waveforms, r, axis=0)[None, :, None]
        rows.append(coverage(replace(posterior, speech=others), truth, (0.5, 0.8, 0.9)))
    np.testing.assert_allclose(average_coverage(rows).waveform, (0.5, 0.8, 0.9), rtol=1e-9)


def test_half_the_spread_covers_less():
    posterior, truth = known_gaussian(narrow=0.5)
    found = coverage(posterior, truth[0])
    expected = 1 - 0.1**0.25  # the disc of half the radius
    assert found.bins[2] == pytest.approx(expected, abs=0.04)
    expected = 2 * stats.norm.cdf(0.5 * 1.645) - 1
    assert found.waveform[2] == pytest.approx(expected, abs=0.03)


def test_discs_may_be_given():
    posterior, truth = known_gaussian()
    radii = [np.full(posterior.mean.shape[1:], r) for r in (0.0, 1e6)]
    assert coverage(posterior, truth[0], (0.5, 0.9), radii=radii).bins.tolist() == [0.0, 1.0]


def test_energy_weighs_the_loud_half():
    posterior, truth = known_gaussian()
    loud = np.zeros(posterior.mean.shape, bool)
    loud[..., :50] = True
    scale = np.where(loud, 1.0, 1e-6)
    variance = np.where(loud, posterior.variance, 1e-9).astype(np.float32)
    both = replace(posterior, mean=posterior.mean * scale.astype(np.float32), variance=variance)
    found = coverage(both, truth[0])
    assert found.bins_by_energy[2] > 0.85
    assert found.bins[2] < 0.4


def test_without_draws_the_waveform_has_no_figures():
    posterior, truth = known_gaussian()
    lean = replace(posterior, speech=posterior.speech[:, :0])
    found = coverage(lean, truth[0])
    assert np.isnan(found.waveform).all()
    assert np.isnan(found.crps_waveform)
    assert np.isfinite(found.bins).all()


def test_a_clean_waveform_of_another_length():
    posterior, truth = known_gaussian()
    with pytest.raises(ValueError, match="expected both aligned and of one length"):
        coverage(posterior, truth[0, 1:])


def test_an_average_of_unlike():
    posterior, truth = known_gaussian()
    one, other = (coverage(posterior, truth[0], levels) for levels in ((0.5,), (0.9,)))
    for rows in ([], [one, other]):
        with pytest.raises(ValueError, match="with the same probabilities"):
            average_coverage(rows)
