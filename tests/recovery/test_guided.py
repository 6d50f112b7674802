"""Guided diffusion against exact posteriors, and UDiffSE beside it.

The mean over draws is off by ``sd / sqrt(n)`` for n independent draws; chains
do not, sweeps of one chain do. Under a Gaussian prior of known power nothing is approximated but
the ends of the run, so that more chains bring the error down as far as one likes.
"""

from __future__ import annotations

import numpy as np
import pytest

from avse_ppl import Exact, GuidedDiffusion, Stft, UDiffSE
from avse_ppl.models.simulate import reference_scene, simulate

STFT = Stft(n_fft=256, hop=64)
CHAINS = 12


def infer_reference(gain_sd_db, seed=0):
    scene = reference_scene(True, noise_power=0.5, gain_sd_db=gain_sd_db, stft=STFT)
    mixture = simulate(scene, n_samples=6400, seed=seed).mixture
    return scene, mixture, Exact(waveforms=False, draws=400)(scene, mixture, seed=seed)


def compute_errors(posterior, exact):
    """Root mean square gap of the means in posterior sd, and mean ratio of the sds."""
    gap = np.abs(posterior.mean - exact.mean) / exact.sd
    return rms(gap), np.mean(posterior.sd / exact.sd)


def rms(values):
    return float(np.sqrt(np.mean(values**2)))


@pytest.mark.parametrize("retention", [0.0, 0.5, 1.0])
def test_bins_of_known_power(retention):
    scene, mixture, exact = infer_reference(0.0)
    method = GuidedDiffusion(chains=CHAINS, sweeps=4, noise_retention=retention, waveforms=False)
    gap, ratio = compute_errors(method(scene, mixture, seed=1), exact)
    # Between one and four independent draws a chain, each a law and not a point.
    assert gap < 1.2 / np.sqrt(CHAINS)
    assert 0.9 < ratio < 1.02


def test_the_initial_state_is_forgotten():
    scene, mixture, exact = infer_reference(0.0)
    method = GuidedDiffusion(
        chains=CHAINS, sweeps=20, steps=1, sigma_start=1.0, sigma_last=0.7, waveforms=False
    )
    low, _ = compute_errors(method(scene, mixture, seed=1), exact)
    assert low < 0.25  # of 20 sweeps at one high level, from an uninformed initial state


def compare_gains(posterior, exact):
    """Distance of the means of each gain in posterior sd, its standard error, ratio of the sds."""
    gains, truth = posterior.latents["speech.gain"], exact.latents["speech.gain"]
    spread = truth.std((0, 1))
    gap = (gains.mean((0, 1)) - truth.mean((0, 1))) / spread
    chains, others = len(gains), truth.shape[0] * truth.shape[1]
    error = np.hypot(gains.mean(1).std(0, ddof=1) / spread / np.sqrt(chains), others**-0.5)
    return gap, error, gains.std((0, 1)) / spread


def test_latents_of_frames():
    scene, mixture, exact = infer_reference(10.0)
    method = GuidedDiffusion(chains=48, sweeps=12, noise_retention=0.0, waveforms=False)
    posterior = method(scene, mixture, seed=1)
    gap, ratio = compute_errors(posterior, exact)
    assert gap < 0.06
    assert 0.9 < ratio < 1.1
    distance, error, spread = compare_gains(posterior, exact)
    # Beside the error of the means over chains there is hardly a bias.
    assert rms(distance) < np.hypot(0.1, rms(error)) + 0.02
    assert rms(error) < 0.12
    # Moves of this size leave a normal law as wide as it is.
    assert np.median(spread) == pytest.approx(1.0, abs=0.05)


def test_more_and_smaller_langevin_steps_leave_monte_carlo_error_only():
    scene, mixture, exact = infer_reference(10.0)
    method = GuidedDiffusion(
        chains=32, sweeps=8, noise_retention=0.0, langevin_steps=10, langevin_step_size=0.2,
        waveforms=False,
    )  # fmt: skip
    posterior = method(scene, mixture, seed=1)
    gap, ratio = compute_errors(posterior, exact)
    assert gap < 0.02
    assert ratio == pytest.approx(1.0, abs=0.02)
    distance, error, spread = compare_gains(posterior, exact)
    assert rms(distance / error) < 1.6
    assert rms(error) < 0.12  # so that the line above can fail
    assert np.median(spread) == pytest.approx(1.0, abs=0.05)


@pytest.mark.slow
def test_the_defaults_are_near_the_posterior():
    """Gains and the level of noise in eight recordings; .18 and 1.00, 1.03 measured."""
    scene = reference_scene(False, noise_power=0.5, stft=STFT)
    gaps, widths, levels = [], [], []
    for seed in range(8):
        mixture = simulate(scene, n_samples=6400, seed=seed).mixture
        exact = Exact(waveforms=False, draws=1000)(scene, mixture, seed=0)
        posterior = GuidedDiffusion(waveforms=False)(scene, mixture, seed=seed)
        assert posterior.kind.noise == "sampled"
        truth, found = (p.latents["speech.gain"] for p in (exact, posterior))
        spread = truth.std((0, 1))
        gaps.append((found.mean((0, 1)) - truth.mean((0, 1))) / spread)
        widths.append(found.std((0, 1), ddof=1) / spread)
        level, true_level = (np.log(p.latents["noise.level"]) for p in (posterior, exact))
        levels.append(level.std(ddof=1) / true_level.std())
    assert np.sqrt(np.mean(np.square(gaps))) < 0.2
    assert 0.85 < np.sqrt(np.mean(np.square(widths))) < 1.15
    assert 0.85 < np.sqrt(np.mean(np.square(levels))) < 1.15


def test_a_noise_level_that_is_unknown():
    scene = reference_scene(False, gain_sd_db=0.0, stft=STFT)
    simulated = simulate(scene, n_samples=6400, seed=2)
    exact = Exact(waveforms=False)(scene, simulated.mixture, seed=0)
    method = GuidedDiffusion(chains=4, sweeps=8, noise_updates=20, waveforms=False)
    posterior = method(scene, simulated.mixture, seed=0)
    level, truth = (np.log(p.latents["noise.level"]) for p in (posterior, exact))
    # A guide of one number, after some 400 steps; the chains share the recording.
    assert abs(level.mean() - truth.mean()) < 0.5 * truth.std() + 0.05
    assert compute_errors(posterior, exact)[0] < 0.7


def test_udiffse_does_not_sample_the_posterior():
    scene, mixture, exact = infer_reference(0.0)
    published, _ = compute_errors(
        UDiffSE(chains=4, steps=15, em_iterations=3)(scene, mixture, seed=1), exact
    )
    ours, _ = compute_errors(
        GuidedDiffusion(chains=4, waveforms=False)(scene, mixture, seed=1), exact
    )
    assert published > 1.4 * ours
