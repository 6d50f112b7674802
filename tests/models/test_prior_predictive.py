"""Prior predictive waveforms have the power that the scene says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avse_ppl import ComplexNormal, GaussianSpeech, Scene, stationary
from avse_ppl.models.prior_predictive import draw_prior_predictive
from avse_ppl.models.simulate import simulate
from tests.contract.cast import PRIORS
from tests.helpers import STFT


def test_powers_are_those_of_the_laws():
    tilt = torch.linspace(4.0, 0.25, STFT.freq)[:, None]
    scene = Scene(
        GaussianSpeech(gain_sd_db=0.0, stft=STFT), lambda frames: ComplexNormal(0.0, tilt)
    )
    found = draw_prior_predictive(scene, duration_s=2.0, draws=3, seed=1)
    power = STFT.forward(torch.from_numpy(found.noise)).abs().square().mean((0, 2))
    ratio = (power / tilt[:, 0])[2:-2]
    np.testing.assert_allclose(ratio / ratio.mean(), 1.0, atol=0.15)
    np.testing.assert_allclose(found.mixture, found.speech + found.noise, atol=1e-6)
    assert np.abs(found.mixture).max() == pytest.approx(0.5, rel=1e-5)


def test_the_seed_decides():
    scene = Scene(PRIORS["tcvae"], stationary)
    one, same, other = (draw_prior_predictive(scene, 0.1, 2, seed=s).mixture for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    assert not np.allclose(one[0], one[1])


def test_waveforms_are_independent_of_the_latents():
    # Both would repeat the numbers of one stream; white speech shows them as they are.
    scene = Scene(GaussianSpeech(spectrum=torch.ones(STFT.freq), stft=STFT), stationary)
    powers, waves = [], []
    for seed in range(150):
        power = simulate(scene, 320, seed=seed).latents["noise.power"]
        powers.append(power.log().flatten().numpy())
        speech = draw_prior_predictive(scene, 0.02, 1, seed=seed).speech[0]
        waves.append(speech / np.linalg.norm(speech))
    power, wave = np.array(powers), np.array(waves)
    correlation = np.corrcoef(power.T, wave.T)[: power.shape[1], power.shape[1] :]
    assert np.abs(correlation).max() < 0.5  # standard error .08; .8 with one stream


def test_a_denoiser_has_no_law():
    with pytest.raises(ValueError, match="is a denoiser and has no law to draw from"):
        draw_prior_predictive(Scene(PRIORS["score"], stationary), 0.1)
