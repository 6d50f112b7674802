"""Reverse diffusion of spectrograms under a power of the likelihood, in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from avse_ppl import Exact, GuidedDiffusion
from avse_ppl.models.simulate import reference_scene, simulate
from tests.helpers import STFT

NOISE_POWER, TEMPERING = 0.5, 0.25
CHAINS, SWEEPS = 100, 2


def infer(noise_power, method):
    """Posterior of speech of known power in noise of that power, of one and the same mixture."""
    own = reference_scene(True, noise_power=NOISE_POWER, gain_sd_db=0.0, stft=STFT)
    mixture = simulate(own, n_samples=640, seed=0).mixture
    scene = reference_scene(True, noise_power=noise_power, gain_sd_db=0.0, stft=STFT)
    return method(scene, mixture, seed=1)


def guided(tempering):
    return GuidedDiffusion(
        chains=CHAINS, sweeps=SWEEPS, tempering=tempering, noise_retention=0.0, waveforms=False
    )


def test_tempered_bins_have_the_posterior_of_so_much_more_noise():
    # N_c(x; s, B)^w is N_c(x; s, B / w) but for a constant.
    louder = NOISE_POWER / TEMPERING
    tempered = infer(NOISE_POWER, guided(TEMPERING))
    exact = infer(louder, Exact(waveforms=False))
    gap = np.abs(tempered.mean - exact.mean) / exact.sd
    # Between 1 and SWEEPS independent draws a chain.
    assert np.sqrt(np.mean(gap**2)) < 1.2 / np.sqrt(CHAINS)
    assert np.mean(tempered.sd / exact.sd) == pytest.approx(1.0, abs=0.03)


def test_tempering_changes_nothing_else():
    tempered = infer(NOISE_POWER, guided(TEMPERING))
    untempered = infer(NOISE_POWER / TEMPERING, guided(1.0))
    np.testing.assert_allclose(tempered.mean, untempered.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tempered.variance, untempered.variance, rtol=1e-5)
