"""Encoders that measure the latents of speech: the density, batches, JAX, and what is flagged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from avse_ppl import EM, NMF, SVI, NumPyroNUTS, Scene, load_speech, stationary
from avse_ppl.data import mix
from avse_ppl.inference.base import Problem
from avse_ppl.inference.core.initialization import condition_on_encoder
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.models.networks import TcvaeNetwork
from avse_ppl.models.simulate import simulate
from avse_ppl.models.speech.latent import LatentSpeech
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.signal.audio import load_audio
from tests.helpers import BUNDLED, STFT, waves

LEVEL_SD = 0.2 / 6.0  # of the gain beside the encoder, standard deviations of its prior


def make_prior(**settings):
    torch.manual_seed(0)
    network = TcvaeNetwork(freq=STFT.freq, latent=3, hidden=8, encoder_hidden=8).eval()
    return LatentSpeech(network.requires_grad_(False), stft=STFT, **settings)


PRIOR = make_prior(amortised=True, encoder_width=0.5)
SCENE = Scene(PRIOR, stationary)


def draw_values(density, seed=0):
    torch.manual_seed(seed)
    return {site.name: site.start + 0.3 * torch.randn(site.shape) for site in density.sites}


def test_what_was_measured_counts_as_its_density():
    mixture = STFT.analyse(waves())
    measured = condition_on_encoder(SCENE, mixture)
    plain, amortised = LogDensity(SCENE, mixture), LogDensity(SCENE, measured)
    values = draw_values(plain)
    mean, sd = PRIOR.encode(mixture.power)["speech.z"]
    expected = torch.distributions.Normal(values["speech.z"], 0.5 * sd).log_prob(mean)
    level = torch.distributions.Normal(values["speech.level"], LEVEL_SD).log_prob(torch.zeros(()))
    expected = expected.flatten(1).sum(1) + level.flatten(1).sum(1)
    torch.testing.assert_close(amortised(values) - plain(values), expected, rtol=1e-4, atol=1e-2)


def test_it_is_no_likelihood_and_not_tempered():
    density = LogDensity(SCENE, condition_on_encoder(SCENE, STFT.analyse(waves())))
    values, _ = density.constrain(draw_values(density))
    assert density.evidence == {"speech.encoded": False, "speech.encoded_level": False}
    plain = LogDensity(SCENE, STFT.analyse(waves()))
    torch.testing.assert_close(density.joint(values).likelihood, plain.joint(values).likelihood)


def test_a_prior_alone_measures_nothing():
    mixture = STFT.analyse(waves())
    assert condition_on_encoder(Scene(make_prior(), stationary), mixture) is mixture


def test_each_recording_is_measured_as_it_is_alone():
    rows = [waves()[0], waves()[1][:200]]
    both = condition_on_encoder(SCENE, STFT.analyse(rows)).frames.encoded
    alone = condition_on_encoder(SCENE, STFT.analyse(rows[1])).frames.encoded
    time = alone.shape[-1]
    torch.testing.assert_close(both[1:, :, :time], alone)
    assert (both[1, 3:, time:] > 100.0).all()  # nothing is measured in the padding


def test_the_measured_latents_are_where_the_encoder_puts_them():
    # A measurement without a doubt decides.
    sure = Scene(replace(PRIOR, encoder_width=1e-3), stationary)
    posterior = SVI(steps=150, draws=20, waveforms=False)(sure, waves(1), seed=0)
    mean, sd = PRIOR.encode(STFT.analyse(waves(1)).power)["speech.z"]
    gap = (torch.from_numpy(posterior.latents["speech.z"][0]).mean(0) - mean) / sd
    assert gap.abs().max() < 0.05
    alone = Scene(make_prior(), stationary)
    other = SVI(steps=150, draws=20, waveforms=False)(alone, waves(1), seed=0)
    far = (torch.from_numpy(other.latents["speech.z"][0]).mean(0) - mean) / sd
    assert far.abs().max() > 0.5


@pytest.mark.parametrize("method", [SVI(steps=3, draws=2), EM(iterations=3)])
def test_the_kind_says_so(method):
    kind = method(SCENE, waves(1), seed=0).kind
    assert kind.amortised and "amortised prior" in kind
    assert Approximation.parse(str(kind)).amortised
    assert not method(Scene(make_prior(), stationary), waves(1), seed=0).kind.amortised


def test_jax_has_the_same_density():
    jax = pytest.importorskip("jax")
    from avse_ppl.inference.mcmc.jax_log_density import list_recordings, make_jax_log_density

    density = LogDensity(SCENE, condition_on_encoder(SCENE, STFT.analyse(waves(1))))
    made, recording = make_jax_log_density(density), list_recordings(density)[0]
    counterpart = jax.jit(lambda latents: made(latents, recording))
    for seed in (0, 1):
        values = draw_values(density, seed)
        latents = {name: jax.numpy.asarray(value.numpy()) for name, value in values.items()}
        found, expected = float(counterpart(latents)), density(values).item()
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_numpyro_says_so():
    method = NumPyroNUTS(draws=2, warmup=2, chains=1, waveforms=False)
    posterior = method(SCENE, waves(1), seed=0)
    assert posterior.kind.amortised


def test_simulations_are_of_the_prior():
    simulated = simulate(SCENE, n_samples=400, seed=0)
    assert set(simulated.latents) == {"speech.z", "speech.level", "noise.power"}


def test_a_problem_is_not_conditioned_where_a_method_has_no_use_for_it():
    assert Problem.of(SCENE, waves(1)).spectrogram.frames.encoded is None
    assert SVI().pose(SCENE, waves(1), None, 0).spectrogram.frames.encoded is not None


def test_which_shipped_encoders_measure():
    measuring = {name: load_speech(name) for name in ("tcvae", "rvae", "dkf", "av-dkf")}
    assert all(prior.amortised for prior in measuring.values())
    assert measuring["tcvae"].encoder_width == 1.0 > measuring["dkf"].encoder_width > 0.0
    assert not load_speech("vae").amortised  # its encoder knows too little of noise
    assert not load_speech("latent-diffusion").amortised
    assert not load_speech("tcvae", amortised=False).amortised


def test_twice_the_steps_give_the_same_speech():
    speech, rain = (load_audio(BUNDLED / f"{name}.flac").samples for name in ("speech", "rain"))
    mixed = mix(speech, rain, 0.0, seed=0)
    scene = Scene(load_speech("tcvae"), NMF())
    one, two = (
        SVI(steps=steps, draws=20, waveforms=False)(scene, mixed.mixture, seed=0)
        for steps in (150, 300)
    )
    gap = np.sqrt(np.mean(np.abs(one.mean - two.mean) ** 2 / one.variance))
    assert gap < 0.35  # posterior standard deviations of a bin
    assert one.kind == two.kind == "variational, amortised prior, tempered 0.25"
