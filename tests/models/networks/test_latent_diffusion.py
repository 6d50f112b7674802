"""The latent diffusion prior: denoiser, flow, and inference through it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from avse_ppl import EM, NMF, NUTS, SVI, LatentSpeech, NumPyroNUTS, Scene, load_speech
from avse_ppl.models.networks import TcvaeNetwork
from avse_ppl.models.networks.latent_denoiser import LatentDenoiser, LipAttention
from avse_ppl.models.networks.latent_diffusion import LatentDiffusionNetwork
from avse_ppl.models.weights.io import PRETRAINED, load_shared
from tests.helpers import STFT

SIZES = {
    "latent": 3, "visual": 4, "hidden": 8, "blocks": 1, "encoder_hidden": 8, "encoder_blocks": 2,
    "denoiser_hidden": 8, "denoiser_blocks": 3,
}  # fmt: skip
TIME = 70  # more than two stretches of the attention


def tiny(scale=0.3, **settings):
    """A network none of whose layers is 0."""
    torch.manual_seed(0)
    network = LatentDiffusionNetwork(33, **{**SIZES, **settings}).eval()
    with torch.no_grad():
        for parameter in network.denoiser.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return network.requires_grad_(False)


def seen(gate, rows=2, time=TIME):
    features = torch.randn(rows, 4, time, generator=torch.Generator().manual_seed(1))
    return torch.cat((gate * torch.ones(rows, 1, time), gate * features), 1)


class Gaussian(nn.Module):
    """The exact denoiser of independent normal latents, in the network's units."""

    def __init__(self, sd, sigma_data):
        super().__init__()
        self.sd, self.sigma_data = sd, sigma_data

    def encode_visual(self, visual, rows):
        return None

    def forward(self, scaled, sigma, context=None):
        sigma = sigma[:, None, None]
        total = (self.sigma_data**2 + sigma**2).sqrt()
        mean = self.sd**2 / (self.sd**2 + sigma**2) * scaled * total
        drift = (mean / total - (self.sigma_data / total) ** 2 * scaled) * total**2
        variance = (self.sd * sigma).square() / (self.sd**2 + sigma**2)
        narrow = sigma * self.sigma_data / total
        return drift / (sigma * self.sigma_data), (variance / narrow**2).log().expand_as(scaled)


def gaussian(sd, **settings):
    network = LatentDiffusionNetwork(33, **{**SIZES, **settings})
    network.denoiser = Gaussian(sd, network.sigma_data)
    return network


# Denoiser


def test_without_a_gate_it_is_the_audio_only_prior_to_the_bit():
    network, u, dark = tiny(), torch.randn(2, 3, TIME), seen(0.0)
    sigma = torch.tensor([0.3, 2.0])
    for heard, blind in zip(
        network.denoise(u, sigma), network.denoise(u, sigma, dark), strict=True
    ):
        assert torch.equal(heard, blind)
    assert torch.equal(network.decode(u), network.decode(u, dark))
    power = torch.rand(2, 33, TIME)
    assert torch.equal(network.encode(power)[0], network.encode(power, visual=dark)[0])
    blind = LatentDiffusionNetwork(33, **{**SIZES, "visual": 0})
    load_shared(blind, network)
    assert torch.equal(network.decode(u), blind.decode(u, seen(1.0)))


def test_lips_change_what_is_expected():
    network, u = tiny(), torch.randn(2, 3, TIME)
    assert not torch.allclose(network.decode(u), network.decode(u, seen(1.0)), atol=1e-3)


@pytest.mark.parametrize("at", [0, 35, 63, 64, 69])
def test_attention_reads_no_further_than_its_window(at):
    look = LipAttention(audio=8, visual=4)
    heard, hidden = torch.randn(1, 8, TIME), torch.zeros(1, 4, TIME)
    hidden[:, :, at] = 1.0
    reached = (look(heard, hidden) != heard).any(1)[0].nonzero().flatten()
    assert reached.tolist() == list(range(max(0, at - 31), min(TIME, at + 32)))


@pytest.mark.parametrize("time", [1, 31, 32, 33, TIME])
def test_attention_is_that_of_the_whole_sequence_with_a_mask(time):
    look = LipAttention(audio=8, visual=4, heads=2, size=4)
    heard, hidden = torch.randn(2, 8, time), torch.randn(2, 4, time)
    unit = heard / (heard.square().mean(1, keepdim=True) + 1e-6).sqrt()
    query, key, value = (
        layer(x).unflatten(1, (2, 4))
        for layer, x in ((look.query, unit), (look.key, hidden), (look.value, hidden))
    )
    # Frames before the first and past the last count as such in which nothing is seen.
    key, value = (nn.functional.pad(x, (64, 64)) for x in (key, value))
    apart = torch.arange(-64, time + 64) - torch.arange(time)[:, None]
    near = look.nearness[:, (apart + 31).clamp(0, 62)].masked_fill(apart.abs() > 31, -torch.inf)
    weights = (torch.einsum("rhcq,rhck->rhqk", query, key) / 2.0 + near).softmax(-1)
    found = torch.einsum("rhqk,rhck->rhcq", weights, value).flatten(1, 2)
    assert torch.allclose(look(heard, hidden), heard + look.leave(found), atol=1e-5)


def test_rows_of_draws_share_their_recordings_picture():
    network, u = tiny(0.1), torch.randn(3, 2, 3, TIME)  # three draws of two recordings
    together = network.latents(u, seen(1.0))
    apart = torch.stack([network.latents(draw, seen(1.0)) for draw in u])
    assert torch.allclose(together, apart, atol=1e-3)


def test_its_level_changes_what_the_denoiser_says():
    denoiser, y = tiny().denoiser, torch.randn(2, 3, TIME)
    (a, _), (b, _) = (denoiser(y, torch.full((2,), s)) for s in (0.1, 1.0))
    assert not torch.allclose(a, b, atol=1e-3)


def test_an_untrained_denoiser_takes_latents_for_normal_ones():
    network = LatentDiffusionNetwork(33, **SIZES, sigma_data=0.8)
    y, sigma = torch.randn(2, 3, TIME), torch.tensor([0.5, 3.0])
    mean, variance = network.denoise(y, sigma)
    gain = (0.64 / (0.64 + sigma**2))[:, None, None]
    assert torch.allclose(mean, gain * y, atol=1e-6)
    assert torch.allclose(variance, (gain * (sigma**2)[:, None, None]).expand_as(y), atol=1e-6)


def test_gradients_reach_every_parameter_of_the_denoiser():
    network = tiny().requires_grad_(True)
    mean, variance = network.denoise(torch.randn(2, 3, TIME), torch.ones(2), seen(1.0))
    (mean.square().mean() + variance.mean()).backward()
    assert all(bool(p.grad.any()) for p in network.denoiser.parameters())
    assert {n for n, p in network.named_parameters() if p.grad is not None} == {
        f"denoiser.{n}" for n, _ in network.denoiser.named_parameters()
    }


# Flow


@pytest.mark.parametrize("sd", [0.3, 1.0, 2.0])
def test_white_noise_becomes_latents_of_their_own_spread(sd):
    network, u = gaussian(sd, steps=24), torch.randn(2, 3, TIME)
    z = network.latents(u)
    expected = 20.0 * u * np.sqrt((sd**2 + 0.02**2) / (sd**2 + 400.0))
    assert torch.allclose(z, expected.float(), rtol=0.03, atol=1e-3)
    assert torch.allclose(network.innovations(z), u, rtol=0.03, atol=1e-3)


def test_normal_latents_of_the_networks_spread_take_one_step():
    network, u = gaussian(0.7, sigma_data=0.7, steps=1), torch.randn(1, 3, TIME)
    assert float((network.latents(u) / u).std()) < 1e-5
    assert torch.allclose(network.innovations(network.latents(u)), u, atol=1e-5)


def test_the_flow_is_inverted_the_better_the_more_steps_it_has():
    u, errors = torch.randn(2, 3, TIME), []
    for steps in (4, 8):
        network = tiny(0.15, steps=steps)
        z = network.latents(u, seen(1.0))
        assert not torch.allclose(z, u, atol=1.0)
        once = network.invert_flow(z, seen(1.0)) - u
        errors.append(float((network.innovations(z, seen(1.0)) - u).square().mean().sqrt()))
        assert errors[-1] < 0.5 * float(once.square().mean().sqrt())
    assert errors[1] < 0.25 * errors[0] < 0.01


def test_levels_run_between_their_bounds():
    network = tiny(sigma_data=0.7, sigma_min=0.05, sigma_max=9.0)
    levels = 0.7 * torch.tan(network.angles)
    assert len(levels) == network.steps + 1
    assert (float(levels[0]), float(levels[-1])) == pytest.approx((9.0, 0.05))
    assert bool((levels.diff() < 0).all())


# As a decoder


@pytest.mark.parametrize("batch", [(), (2,), (3, 2)])
@pytest.mark.parametrize("looks", [False, True])
def test_encode_and_decode_have_their_shapes(batch, looks):
    network, visual = tiny(), seen(1.0, time=10) if looks else None
    if looks and not batch:
        visual = visual[0]
    if looks and len(batch) == 2:
        visual = visual.expand(3, -1, -1, -1)
    power = torch.rand(*batch, 33, 10)
    mean, logvar, u = network.encode(power, visual=visual)
    assert mean.shape == logvar.shape == (*batch, 3, 10)
    assert torch.equal(u, mean)
    assert bool((logvar <= 0).all())
    assert network.decode(u, visual).shape == (*batch, 33, 10)


def test_an_encoded_spectrum_decodes_as_by_the_autoencoder():
    network, plain = tiny(0.1, steps=16), TcvaeNetwork(33, 3, 8, 1, 8, 2)
    load_shared(plain, network)
    power = torch.rand(2, 33, TIME)
    z, logvar, _ = plain.encode(power)
    assert torch.equal(network.infer(power)[0], z)
    u, logvar_u, drawn = network.encode(power, sample=True)
    assert torch.allclose(logvar_u, logvar.clamp(max=0.0))  # at a sigma_data of 1
    assert not torch.equal(u, drawn)
    assert torch.allclose(network.decode_latents(z), plain.decode(z))
    assert torch.allclose(network.decode(u), plain.decode(z), atol=0.05)


# Inference


@pytest.mark.parametrize(
    "routine",
    [
        SVI(steps=3, draws=2, k_hat_draws=0),
        EM(iterations=2, draws=2),
        NUTS(draws=2, warmup=2, max_tree_depth=2, chains=1, init_steps=3),
    ],
    ids=["svi", "em", "nuts"],
)
def test_routines_run_through_it(routine):
    speech = LatentSpeech(tiny(steps=2), stft=STFT, name="diffusion")
    wave = np.random.default_rng(0).normal(size=160).astype("float32")
    answer = routine(Scene(speech, NMF(1)), wave, seed=0)
    assert answer.latents["speech.z"].shape[-2:] == (3, STFT.count_frames(160))
    assert np.isfinite(answer.mean).all()


def test_numpyro_says_what_to_take_instead():
    pytest.importorskip("numpyro")
    from avse_ppl.models.networks.jax.decoders import jax_decoder

    with pytest.raises(NotImplementedError, match=r"LatentDiffusionNetwork has no decoder on JAX"):
        jax_decoder(tiny())
    speech = LatentSpeech(tiny(), stft=STFT, name="diffusion")
    wave = np.random.default_rng(0).normal(size=160).astype("float32")
    routine = NumPyroNUTS(draws=2, warmup=2, chains=1, init_steps=1)
    with pytest.raises(NotImplementedError, match=r"use a torch method, such as .*'nuts'"):
        routine(Scene(speech, NMF(1)), wave, seed=0)


def test_its_denoiser_takes_what_its_flow_says():
    """`denoise` and the flow are two ways of putting the same network."""
    network, u = tiny(steps=1), torch.randn(1, 3, TIME)
    levels = network.sigma_data * torch.tan(network.angles)
    calls = []
    inner = network.denoiser.forward
    network.denoiser.forward = lambda x, s, v: calls.append((x, s)) or inner(x, s, v)
    network.latents(u)
    (first, high), (_, low) = calls
    assert (float(high), float(low)) == pytest.approx((float(levels[0]), float(levels[1])))
    total = (network.sigma_data**2 + high**2).sqrt()
    assert torch.allclose(first * total, network.sigma_max * u, rtol=1e-5)


# The shipped weights


@pytest.fixture(scope="module")
def shipped():
    return load_speech("latent-diffusion")


def test_the_shipped_prior_enhances(shipped):
    rng = np.random.default_rng(0)
    wave = rng.normal(size=8000).astype("float32")
    answer = SVI(steps=2, draws=2, k_hat_draws=0)(Scene(shipped, NMF(2)), wave, seed=0)
    assert np.isfinite(answer.mean).all()
    assert (PRETRAINED / "latent-diffusion" / "weights.safetensors").stat().st_size < 10_000_000


def test_the_shipped_flow_is_inverted(shipped):
    z = shipped.network.infer(torch.rand(1, 513, 125))[0]
    again = shipped.network.latents(shipped.network.innovations(z))
    assert float((again - z).square().mean().sqrt()) < 0.1


def test_the_shipped_decoder_is_that_of_the_tcvae(shipped):
    z = torch.randn(1, 16, 20)
    plain = load_speech("tcvae").network
    assert torch.allclose(shipped.network.decode_latents(z), plain.decode(z), atol=1e-4)


def test_an_audio_only_denoiser_sees_nothing():
    assert LatentDenoiser(latent=4, hidden=8, blocks=2).encode_visual(seen(1.0), 2) is None
