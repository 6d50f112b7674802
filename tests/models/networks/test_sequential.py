"""Networks with a learned law of their latents, with and without lips."""

import numpy as np
import pytest
import torch

from avse_ppl.models.networks import SequentialVaeNetwork, TcvaeNetwork
from avse_ppl.models.networks.fusion import Fusion, VisualFrontEnd
from avse_ppl.models.networks.transitions import PRIORS
from avse_ppl.models.speech.latent_sequence import SequencePrior
from avse_ppl.models.weights.io import load_shared

SIZES = {"freq": 33, "latent": 3, "hidden": 12, "encoder_hidden": 10, "sight_hidden": 8}
DYNAMIC = ("gated", "recurrent")


def make(prior="gated", visual=5, **settings):
    network = SequentialVaeNetwork(prior=prior, visual=visual, **{**SIZES, **settings}).eval()
    with torch.no_grad():  # what starts at 0 is to matter, too
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.requires_grad_(False)


def seen(gate=1.0, recordings=2, time=12):
    features = torch.randn(recordings, 5, time)
    return torch.cat((torch.full((recordings, 1, time), gate), gate * features), 1)


@pytest.mark.parametrize("decoder", ["convolutional", "recurrent"])
@pytest.mark.parametrize("prior", PRIORS)
def test_without_a_gate_it_is_the_audio_only_prior_to_the_bit(prior, decoder):
    network = make(prior, decoder=decoder, decoder_sees=True)
    z, power = torch.randn(2, 3, 12), torch.rand(2, 33, 12)
    dark = seen(gate=0.0)
    assert torch.equal(network.decode(z, dark), network.decode(z))
    assert torch.equal(network.sample_from_innovations(z, dark), network.sample_from_innovations(z))
    for a, b in zip(network.law(z, dark), network.law(z), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(network.encode(power, visual=dark), network.encode(power), strict=True):
        assert torch.equal(a, b)


def test_the_encoder_looks_as_far_as_the_gate_says():
    network, power = make(), torch.rand(2, 33, 12)
    features = seen()[:, 1:]
    heard, half, whole = (
        network.infer(power, torch.cat((torch.full((2, 1, 12), gate), features), 1))[0]
        for gate in (0.0, 0.5, 1.0)
    )
    assert torch.equal(heard, network.infer(power)[0])
    assert not torch.allclose(heard, whole)
    assert not torch.allclose(half, whole)


@pytest.mark.parametrize("prior", [name for name in PRIORS if name != "standard"])
def test_lips_change_the_law(prior):
    network = make(prior)
    z = torch.randn(2, 3, 12)
    for a, b in zip(network.law(z, seen()), network.law(z), strict=True):
        assert not torch.allclose(a, b)


@pytest.mark.parametrize("prior", PRIORS)
def test_unrolled_latents_have_their_innovations(prior):
    network = make(prior).double()
    innovations = torch.randn(2, 3, 12, dtype=torch.float64)
    sight = network.encode_visual(seen().double(), innovations)
    z = network.prior.sample_from_innovations(innovations, sight)
    mean, logvar = network.prior.law(z, sight)
    assert torch.allclose((z - mean) * torch.exp(-0.5 * logvar), innovations, atol=1e-9)


@pytest.mark.parametrize("prior", DYNAMIC)
def test_the_past_does_not_know_the_future(prior):
    network = make(prior)
    first = torch.randn(1, 3, 12)
    later = first.clone()
    later[..., 7:] += 1.0
    sight = network.encode_visual(None, first)
    one, other = (network.prior.sample_from_innovations(z, sight) for z in (first, later))
    assert torch.equal(one[..., :7], other[..., :7])
    assert not torch.allclose(one[..., 8:], other[..., 8:])
    assert network.receptive_field is None


def test_rows_of_draws_share_their_recordings_picture():
    network = make("visual", decoder_sees=True)
    z, visual = torch.randn(4, 2, 3, 12), seen()
    rows = network.decode(z, visual)
    assert torch.allclose(rows[3], network.decode(z[3], visual), atol=1e-5)


def test_starts_as_the_prior_it_builds_on():
    plain = TcvaeNetwork(33, 3, 12, 3, 10).eval()
    network = SequentialVaeNetwork(visual=5, prior="visual", **SIZES).eval()
    load_shared(network, plain)
    network.encoder_looking.copy_encoder(network)
    z, power = torch.randn(1, 3, 12), torch.rand(1, 33, 12)
    visual = seen(recordings=1)
    assert torch.allclose(network.decode(z, visual), plain.decode(z), atol=1e-5)
    assert torch.allclose(network.encode(power, visual=visual)[0], plain.encode(power)[0])


def test_weights_that_fit_nowhere_are_refused():
    with pytest.raises(ValueError, match="fit no part"):
        load_shared(TcvaeNetwork(33, 3, 12, 3, 10), torch.nn.Linear(2, 2))


def test_attention_reads_no_further_than_its_window():
    fusion = Fusion(audio=4, visual=3, kind="attention", window=2).requires_grad_(False)
    torch.nn.init.normal_(fusion.value.weight)
    heard, sight = torch.randn(1, 4, 9), torch.randn(1, 3, 9)
    other = sight.clone()
    other[..., 8] += 1.0
    changed = (fusion(heard, sight) != fusion(heard, other)).any(1)[0]
    assert changed.tolist() == [False] * 6 + [True] * 3


def test_sight_is_silent_where_the_gate_is():
    sight = VisualFrontEnd(features=5, hidden=8)
    visual = seen(recordings=1)
    visual[..., 4:6] = 0.0
    assert not sight(visual)[..., 4:6].any()
    assert sight(visual)[..., 3].any()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"prior": "magic"}, "prior must be one of"),
        ({"decoder": "magic"}, "decoder must be one of"),
        ({"fusion": "magic"}, "fusion must be one of"),
    ],
)
def test_unknown_parts_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        SequentialVaeNetwork(visual=5, **SIZES, **settings)


@pytest.mark.parametrize("decoder", ["convolutional", "recurrent"])
@pytest.mark.parametrize("prior", PRIORS)
def test_jax_decodes_the_same(prior, decoder):
    jnp = pytest.importorskip("jax.numpy")
    from avse_ppl.models.networks.jax.decoders import jax_decoder, jax_law

    network = make(prior, decoder=decoder, decoder_sees=True)
    z, visual = torch.randn(2, 3, 12), seen()
    found = jax_decoder(network)(jnp.asarray(z.numpy()), jnp.asarray(visual.numpy()))
    assert np.allclose(network.decode(z, visual).numpy(), np.asarray(found), atol=1e-4)
    law = jax_law(network)(jnp.asarray(z.numpy()), jnp.asarray(visual.numpy()))
    for a, b in zip(network.law(z, visual), law, strict=True):
        assert np.allclose(a.numpy(), np.asarray(b), atol=1e-4)


@pytest.mark.parametrize("prior", PRIORS)
def test_the_law_of_the_latents_is_the_law_of_its_draws(prior):
    network = make(prior)
    law = SequencePrior(network, seen(), torch.Size((2, 3, 12)))
    draws = law.sample((400,))
    mean, logvar = network.law(draws.flatten(0, 1), seen_again(law.visual, 400))
    standard = (draws.flatten(0, 1) - mean) * torch.exp(-0.5 * logvar)
    assert abs(float(standard.mean())) < 4 / (400 * 72) ** 0.5
    assert float(standard.var()) == pytest.approx(1.0, abs=0.05)
    expected = torch.distributions.Normal(mean, torch.exp(0.5 * logvar)).log_prob(
        draws.flatten(0, 1)
    )
    assert torch.allclose(law.log_prob(draws).flatten(0, 1), expected, atol=1e-4)


def seen_again(visual, times):
    return visual.repeat(times, 1, 1)


def test_a_recurrent_law_that_is_left_to_itself_stays_finite():
    network = make("recurrent").double()
    network.prior.out.weight.add_(0.5)  # each frame half as much again, and more
    innovations = torch.randn(2, 3, 400, dtype=torch.float64)
    sight = network.encode_visual(None, innovations)
    z = network.prior.sample_from_innovations(innovations, sight)
    assert 8.0 < float(z.abs().max()) < 100.0
    mean, logvar = network.prior.law(z, sight)  # bounded in the same way
    assert torch.allclose((z - mean) * torch.exp(-0.5 * logvar), innovations, atol=1e-9)
