"""Chains against the exact posterior; distances in posterior standard deviations (sd).

A mean over draws is off by ``sd / sqrt(ESS)``, its spread by ``sd / sqrt(2 ESS)``, with ESS the
effective sample size: what is allowed beside the stated tolerance is four times that, of the mean
over these draws and over those of the exact posterior.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from avse_ppl import HMC, NUTS, SVI, Exact
from avse_ppl.inference.core.convergence import ess
from avse_ppl.models.simulate import reference_scene, simulate
from tests.helpers import STFT

EXACT_DRAWS = 2000
LENGTHS = {"draws": 250, "warmup": 150, "chains": 2, "waveforms": False}
ROUTINES = {
    "nuts": lambda w: NUTS(tempering=w, **LENGTHS),
    # Trajectories of about a quarter of a period. Up to 8 steps are near half of one, which turns a
    # gain into its mirror image: its mean is known well, but its distance from that mean is hardly
    # drawn anew (autocorrelation 0.5 instead of 0.3), and R-hat of 250 draws sees unequal spreads.
    "hmc": lambda w: HMC(tempering=w, steps=5, **LENGTHS),
}
CASES = [("nuts", True, 1.0), ("nuts", False, 0.25), ("hmc", False, 1.0)]
cases = pytest.mark.parametrize(("name", "known", "tempering"), CASES)
slow = pytest.mark.slow


@lru_cache
def simulate_reference(known):
    scene = reference_scene(known, stft=STFT)
    return scene, simulate(scene, 320, recordings=2, seed=1).mixture


@lru_cache
def infer_exactly(known, tempering):
    nodes = 33 if known else 17
    routine = Exact(nodes=nodes, draws=EXACT_DRAWS, waveforms=False, tempering=tempering)
    return routine(*simulate_reference(known), seed=0)


@lru_cache
def infer(name, known, tempering):
    return ROUTINES[name](tempering)(*simulate_reference(known), seed=0)


def unconstrain(site, values):
    return np.log(values) if site == "noise.level" else values


def compare_latents(one, truth):
    """For each latent: distance of the means in sd, ratio of the sd, and ESS."""
    for site, values in one.latents.items():
        ours, its = (unconstrain(site, v) for v in (values, truth.latents[site]))
        size = ess(ours.reshape(*ours.shape[:2], -1), "bulk").reshape(ours.shape[2:])
        sd = its.std((0, 1))
        gap = np.abs(ours.mean((0, 1)) - its.mean((0, 1))) / sd
        yield site, gap, ours.std((0, 1)) / sd, size


@slow
@cases
def test_chains_recover_the_latents(name, known, tempering):
    sites = set()
    for site, gap, ratio, size in compare_latents(
        infer(name, known, tempering), infer_exactly(known, tempering)
    ):
        sites.add(site)
        error = np.sqrt(1 / size + 1 / EXACT_DRAWS)
        assert size.min() > 50, site
        assert (gap < 0.25 + 4 * error).all(), site
        assert np.sqrt(np.mean((gap / error) ** 2)) < 1.6, site  # no more than Monte Carlo error
        # The spread of a heavier tail is known less well than that of a normal law.
        assert (np.abs(ratio - 1) < 2 * 4 * error / np.sqrt(2)).all(), site
        # The median of one ratio, or of a few, is not known to 6 % either: three standard errors.
        of_median = 1.25 * np.median(error) / np.sqrt(2 * ratio.size)
        assert np.median(ratio) == pytest.approx(1.0, abs=max(0.06, 3 * of_median)), site
    assert sites == ({"speech.gain"} if known else {"speech.gain", "noise.level"})


@slow
@cases
def test_chains_recover_speech(name, known, tempering):
    ours, truth = infer(name, known, tempering), infer_exactly(known, tempering)
    gap = np.abs(ours.mean - truth.mean) / truth.sd
    assert np.sqrt(np.mean(gap**2)) < 0.02
    assert gap.max() < 0.25
    ratio = ours.sd / truth.sd
    assert np.median(ratio) == pytest.approx(1.0, abs=0.01)
    assert 0.9 < ratio.min() <= ratio.max() < 1.1


@slow
def test_chains_are_nearer_than_svi():
    # What chains are for: mean-field variances are too small where latents are related.
    truth = infer_exactly(False, 1.0)
    svi = SVI(
        steps=400, draws=500, moment_draws=None, waveforms=False, tempering=1.0, learning_rate=0.15
    )(*simulate_reference(False), seed=0)
    gaps = {
        name: np.sqrt(np.mean((np.abs(p.mean - truth.mean) / truth.sd) ** 2))
        for name, p in (("svi", svi), ("hmc", infer("hmc", False, 1.0)))
    }
    assert gaps["hmc"] < gaps["svi"]


@slow
def test_the_checks_can_fail():
    # Chains under another power of the likelihood are not taken for the right ones.
    figures = list(compare_latents(infer("hmc", False, 1.0), infer_exactly(False, 0.25)))
    [(_, gap, ratio, size)] = [f for f in figures if f[0] == "speech.gain"]
    assert np.sqrt(np.mean((gap / np.sqrt(1 / size + 1 / EXACT_DRAWS)) ** 2)) > 3
    assert np.median(ratio) < 0.8


@slow
def test_the_chains_say_that_they_agree():
    for name, known, tempering in CASES:
        posterior = infer(name, known, tempering)
        assert not posterior.stats["diverging"].any()
        assert not any("disagree" in text for text in posterior.warnings)


def test_few_draws_are_already_near():
    # The fast one of the lot: half a minute of the above in a second or two.
    scene, mixture = simulate_reference(True)
    truth = infer_exactly(True, 1.0)
    posterior = NUTS(
        draws=40, warmup=30, chains=2, init_steps=80, max_tree_depth=3, waveforms=False
    )(scene, mixture.select(0), seed=0)
    gap = np.abs(posterior.mean[0] - truth.mean[0]) / truth.sd[0]
    assert np.sqrt(np.mean(gap**2)) < 0.05
    assert gap.max() < 0.25
    for _, gap, ratio, size in compare_latents(posterior, truth.select(0)):
        assert (gap < 0.25 + 4 * np.sqrt(1 / size.clip(10))).all()
        assert 0.85 < np.median(ratio) < 1.15
