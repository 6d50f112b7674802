"""Scenes of known posterior, and mixtures drawn from a scene."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from avse_ppl import NMF, GaussianSpeech, Scene, Stft
from avse_ppl.models.simulate import reference_scene, simulate
from tests.helpers import STFT


def whitened(values, power):
    """``|values|^2 / power``, which is Exp(1) if the power is right."""
    return (values.abs().square() / power).flatten().numpy()


def test_the_mixture_is_what_was_drawn():
    simulated = simulate(reference_scene(False, stft=STFT), n_samples=650, recordings=3)
    assert torch.equal(simulated.mixture.values, simulated.speech + simulated.noise)
    assert simulated.mixture.values.shape == (3, STFT.freq, STFT.count_frames(650))
    assert simulated.mixture.n_samples == (650, 650, 650)
    assert simulated.mixture.stft == STFT
    assert bool((simulated.mixture.scale == 1).all())
    assert {k: tuple(v.shape) for k, v in simulated.latents.items()} == {
        "speech.gain": (3, 1, STFT.count_frames(650)),
        "noise.level": (3, 1, 1),
    }


def test_speech_and_noise_follow_their_laws():
    # 20 recordings of 33 x 42 bins. Kolmogorov-Smirnov at level 1e-4: a wrong power by 5 % of
    # its size would show at this number of bins.
    scene = reference_scene(False, noise_power=0.5, gain_sd_db=8.0, stft=STFT)
    simulated = simulate(scene, n_samples=650, recordings=20, seed=1)
    laws = scene.laws_given(simulated.latents, simulated.mixture)
    for values, law in ((simulated.speech, laws.speech), (simulated.noise, laws.noise)):
        assert stats.kstest(whitened(values, law.power), "expon").pvalue > 1e-4
        assert stats.kstest(whitened(values, 1.05 * law.power), "expon").pvalue < 1e-4
    angle = simulated.mixture.values.angle().flatten().numpy()
    assert stats.kstest(angle, "uniform", args=(-np.pi, 2 * np.pi)).pvalue > 1e-4
    product = simulated.speech * simulated.noise.conj()
    product /= (laws.speech.power * laws.noise.power).sqrt()
    assert abs(complex(product.mean())) < 4 / np.sqrt(product.numel())  # drawn independently


def test_latents_follow_their_priors():
    scene = reference_scene(False, noise_power=0.5, noise_sd_db=3.0, stft=Stft(n_fft=16, hop=8))
    latents = simulate(scene, n_samples=16, recordings=1000).latents
    gain = latents["speech.gain"].flatten().numpy()
    level_db = 10 * np.log10(latents["noise.level"].flatten().numpy() / 0.5)
    assert stats.kstest(gain, "norm").pvalue > 1e-4
    assert stats.kstest(level_db / 3.0, "norm").pvalue > 1e-4


def test_known_noise_has_the_power_asked_for():
    scene = reference_scene(True, noise_power=0.2, gain_sd_db=0.0, stft=STFT)
    simulated = simulate(scene, n_samples=650)
    assert simulated.latents == {}
    assert float(scene.noise(simulated.mixture.frames).power) == pytest.approx(0.2)
    assert float(simulated.speech.abs().square().mean()) == pytest.approx(1.0, abs=0.15)


def test_seeds():
    scene = reference_scene(False, stft=STFT)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, same, other = (simulate(scene, 640, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.mixture.values, same.mixture.values)
    assert not torch.equal(one.mixture.values, other.mixture.values)
    assert not torch.equal(one.latents["noise.level"], other.latents["noise.level"])


def test_any_scene_can_be_simulated():
    simulated = simulate(Scene(GaussianSpeech(stft=STFT), NMF(2)), 640, recordings=2)
    assert simulated.latents["noise.spectra"].shape == (2, 33, 2)
    assert simulated.noise.shape == (2, 33, STFT.count_frames(640))


def test_the_library_front_end_is_the_default():
    assert reference_scene(True).stft == Stft()


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["noise_power", "noise_sd_db"])
def test_a_bad_power_or_deviation(name, bad):
    with pytest.raises(ValueError, match=f"{name} must be a finite number above 0"):
        reference_scene(False, **{name: bad})


def test_a_negative_deviation_of_the_gain():
    with pytest.raises(ValueError, match=r"gain_sd_db must be .*at least 0"):
        reference_scene(True, gain_sd_db=-1.0)


def test_too_short_to_simulate():
    with pytest.raises(ValueError, match="n_samples must be a whole number of at least 64, not 63"):
        simulate(reference_scene(True, stft=STFT), n_samples=63)


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_a_bad_number_of_recordings(count):
    with pytest.raises(ValueError, match="recordings must be a whole number of at least 1"):
        simulate(reference_scene(True, stft=STFT), 640, recordings=count)
