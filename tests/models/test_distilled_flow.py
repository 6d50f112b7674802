"""A latent diffusion distilled to few calls: its two maps, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from avse_ppl.models.networks.distilled_flow import FewCallsNetwork

from avse_ppl import EM, NMF, SVI, GuidedDiffusion, LatentSpeech, Scene
from avse_ppl.models.weights.io import load_shared
from tests.models.test_latent_diffusion import SIZES, STFT, TIME, Gaussian, seen


def tiny(**settings):
    """A network none of whose layers is 0."""
    torch.manual_seed(0)
    network = FewCallsNetwork(33, **{**SIZES, **settings}).eval()
    with torch.no_grad():
        for parameter in network.denoiser.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network.requires_grad_(False)


def wave(samples=160):
    return np.random.default_rng(0).normal(size=samples).astype("float32")


def levels_of(network, function):
    """Noise levels at which a function calls the denoiser."""
    inner, found = network.denoiser.forward, []
    network.denoiser.forward = lambda x, s, v: found.append(float(s[0])) or inner(x, s, v)
    function(torch.randn(1, 3, 10))
    network.denoiser.forward = inner
    return found


# The two maps


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_a_step_is_a_call_either_way(calls):
    network = tiny(calls=calls)
    down = levels_of(network, network.latents)
    up = levels_of(network, network.innovations)
    assert len(down) == len(up) == calls
    assert down[0] == pytest.approx(20.0)
    assert up[0] == pytest.approx(0.02)
    assert sorted(down, reverse=True) == down
    assert sorted(up) == up
    assert not {round(level, 4) for level in down} & {round(level, 4) for level in up}


@pytest.mark.parametrize("calls", [1, 3])
def test_normal_latents_of_its_spread_are_scaled_and_come_back(calls):
    network, u = FewCallsNetwork(33, **SIZES, spread=0.7, calls=calls), torch.randn(1, 3, TIME)
    network.denoiser = Gaussian(0.7, 0.7)
    assert float((network.latents(u) / u).std()) < 1e-5
    assert torch.allclose(network.innovations(network.latents(u)), u, atol=1e-5)


def test_each_step_goes_along_the_slope_where_it_begins():
    network, u = tiny(calls=1), torch.randn(2, 3, TIME)
    start, end = (float(np.hypot(1.0, sigma)) for sigma in (20.0, 0.02))
    x = u * 20.0 / start
    slope = network.denoiser(x, torch.full((2,), 20.0), network.denoiser.see(seen(1.0), 2))[0]
    turn = float(np.arctan(20.0) - np.arctan(0.02))
    assert torch.allclose(network.latents(u, seen(1.0)), (x + turn * slope) * end, atol=1e-4)


def test_without_a_gate_it_is_the_audio_only_prior_to_the_bit():
    network, u, dark = tiny(), torch.randn(2, 3, TIME), seen(0.0)
    power = torch.rand(2, 33, TIME)
    assert torch.equal(network.decode(u), network.decode(u, dark))
    assert torch.equal(network.encode(power)[0], network.encode(power, visual=dark)[0])
    assert not torch.allclose(network.decode(u), network.decode(u, seen(1.0)), atol=1e-3)
    blind = FewCallsNetwork(33, **{**SIZES, "visual": 0})
    load_shared(blind, network)
    assert torch.equal(network.decode(u), blind.decode(u, seen(1.0)))


# Inference


@pytest.mark.parametrize(
    "routine", [SVI(steps=3, draws=2, k_hat_draws=0), EM(iterations=2, draws=2)], ids=["svi", "em"]
)
def test_routines_run_through_it(routine):
    speech = LatentSpeech(tiny(), stft=STFT, name="few")
    answer = routine(Scene(speech, NMF(1)), wave(), seed=0)
    assert np.isfinite(answer.mean).all()


def test_guided_diffusion_says_what_to_take_instead():
    speech = LatentSpeech(tiny(), stft=STFT, name="few")
    with pytest.raises(ValueError, match=r"no denoiser any more.*'latent-diffusion', or --infer"):
        GuidedDiffusion(steps=2, rounds=1)(Scene(speech, NMF(1)), wave(), seed=0)
