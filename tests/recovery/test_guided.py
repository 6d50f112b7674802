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
    return np.sqrt(np.mean(gap**2)), np.mean(posterior.sd / exact.sd)


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


def test_latents_of_frames():
    scene, mixture, exact = infer_reference(10.0)
    method = GuidedDiffusion(chains=CHAINS, sweeps=12, noise_retention=0.0, waveforms=False)
    posterior = method(scene, mixture, seed=1)
    gap, ratio = compute_errors(posterior, exact)
    assert gap < 0.1
    assert 0.9 < ratio < 1.1
    gains, truth = posterior.latents["speech.gain"], exact.latents["speech.gain"]
    middle, spread = truth.mean((0, 1)), truth.std((0, 1))
    # Langevin steps of this size widen a normal law by 7 per cent; draws of 12 chains: .3 sd.
    assert np.sqrt(np.mean(((gains.mean((0, 1)) - middle) / spread) ** 2)) < 0.35
    assert 0.9 < np.median(gains.std((0, 1)) / spread) < 1.25


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
