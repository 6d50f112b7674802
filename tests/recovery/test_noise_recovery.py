"""Each noise model finds the noise that it made, and better than stationary noise does."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch

from avse_ppl import NMF, SVI, GaussianSpeech, Scene, Stft, stationary
from avse_ppl.models import (
    AlphaStable,
    AR1Gain,
    Hum,
    NoiseVae,
    StudentT,
    Wind,
    clicks,
)
from avse_ppl.models.networks import VaeNetwork
from avse_ppl.models.simulate import simulate

STFT = Stft(n_fft=256, hop=64)
FINE = Stft()
LOW = slice(32)  # below 500 Hz, where wind is
FLOOR = 1e-3  # 30 dB below speech: what lies lower cannot be heard, or found


def make_network():
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        vae = VaeNetwork(STFT.freq, 3, hidden=(8,))
        vae.decoder_logpower.weight.mul_(6.0)  # untrained, it would say the same of all latents
    return vae.requires_grad_(False)


MODELS = {
    "nmf": NMF(2),
    "ar1": AR1Gain(gain_sd_db=8.0),
    "student-t": StudentT(df=2.0),
    "alpha-stable": AlphaStable(alpha=1.2),
    "hum": Hum(freq_hz=500.0, harmonics=8),
    "clicks": stationary + clicks,
    "wind": stationary + Wind(gain_sd_db=8.0, correlation_s=0.2),
    "learned": NoiseVae(make_network(), equaliser_sd_db=3.0, stft=STFT),
    "sum": NMF(1) + Hum(freq_hz=500.0, harmonics=8) + clicks,
}


def noise_db(scene, mixture, draws):
    """Posterior mean of the noise level, dB, ``(recording, freq, time)``."""
    rows = []
    for i in range(len(next(iter(draws.values()))[0])):
        values = {name: torch.from_numpy(value[0, i]) for name, value in draws.items()}
        law = scene.laws_given(values, mixture).noise
        rows.append(decibels(law.power.expand(mixture.values.shape)))
    return np.mean(rows, axis=0)


def decibels(power):
    return 10 * np.log10(np.maximum(power.numpy(), FLOOR))


def make_scene(name, noise):
    # Wind is a matter of a few bins of the coarse front end, too few to tell how loud it is.
    return Scene(GaussianSpeech(gain_sd_db=6.0, stft=FINE if name == "wind" else STFT), noise)


@lru_cache
def simulate_noise(name):
    """Three mixtures of a scene, and the level of their noise, dB."""
    scene = make_scene(name, MODELS[name])
    made = simulate(scene, 64 * scene.stft.hop, recordings=3, seed=1)
    law = scene.laws_given(made.latents, made.mixture).noise
    return made.mixture, decibels(law.power.expand(made.noise.shape))


def error_db(name, noise):
    """RMS error of the level of the noise, dB."""
    mixture, truth = simulate_noise(name)
    scene = make_scene(name, noise)
    routine = SVI(
        steps=100, learning_rate=0.1, tolerance=0, draws=20, waveforms=False, tempering=1.0
    )
    posterior = routine(scene, mixture, seed=0)
    gap = noise_db(scene, mixture, posterior.latents) - truth
    return float(np.sqrt(np.mean(gap[:, LOW if name == "wind" else slice(None)] ** 2)))


# Measured, as a share of the error of stationary noise: 0.52 nmf, 0.65 ar1, 0.69 student-t, 0.48
# alpha-stable, 0.40 hum, 0.53 clicks, 0.52 wind, 0.11 learned, 0.50 sum. Of a texture there is one
# observation, which leaves an error of several dB to the best of models.
FAST = ("hum", "clicks", "learned")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in MODELS]
)
def test_the_model_that_made_the_noise_finds_it_better_than_stationary_noise(name):
    mine, other = error_db(name, MODELS[name]), error_db(name, stationary)
    assert mine < 0.8 * other, (mine, other)


def test_the_comparison_can_be_lost():
    # Noise of another kind than the model's: what it says is further off than its own maker's.
    assert error_db("clicks", MODELS["clicks"]) < 0.8 * error_db("clicks", MODELS["wind"])
