"""The speech priors and their networks: laws, levels, shapes, batches, devices."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from pyro import poutine

from avse_ppl import ComplexNormal, Frames, GaussianSpeech, LatentSpeech, Stft
from avse_ppl.models.handlers import reuse_plates
from avse_ppl.models.networks import RvaeNetwork, TcvaeNetwork, VaeNetwork
from avse_ppl.models.networks.vae import contrast, encoder_input
from tests.helpers import STFT

FREQ, LATENT, TIME = STFT.freq, 3, 11
FRAMES = Frames(FREQ, TIME, hop=16, n_fft=64)


def make(kind: str, **options):
    torch.manual_seed(0)
    if kind == "vae":
        return VaeNetwork(FREQ, LATENT, hidden=(12, 8), **options).eval()
    if kind == "tcvae":
        return TcvaeNetwork(FREQ, LATENT, hidden=8, encoder_hidden=8, **options).eval()
    feedback = kind == "rvae with feedback"
    if kind == "rvae with bands":
        options |= {"encoder_bands": 5, "encoder_layers": 2}
    return RvaeNetwork(FREQ, LATENT, hidden=6, feedback=feedback, **options).eval()


KINDS = ["vae", "rvae", "rvae with feedback", "rvae with bands", "tcvae"]


@pytest.fixture(params=KINDS)
def network(request):
    return make(request.param)


def power_of(*shape: int, seed: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.empty(*shape).exponential_(generator=g)


def trace_of(prior, frames=FRAMES, recordings: int = 2, data=None):
    def program():
        with pyro.plate("recording", recordings, dim=-3):
            return prior(frames)

    program = reuse_plates()(program)
    if data is not None:
        program = poutine.condition(program, data=data)
    return poutine.trace(program).get_trace()


def law_given(prior, data, frames=FRAMES) -> ComplexNormal:
    recordings = next(iter(data.values())).shape[0]
    return trace_of(prior, frames, recordings, data).nodes["_RETURN"]["value"]


# The ruler


def test_the_default_spectrum_has_unit_mean_and_falls_by_9_db_an_octave():
    prior = GaussianSpeech(gain_sd_db=0)
    power = prior(Stft().frames(16000)).power
    assert power.shape == (513, 1)
    assert float(power.mean()) == pytest.approx(1.0, rel=1e-5)
    assert float(power[0]) == float(power[32])  # 0 and 500 Hz
    for low, high in ((32, 64), (64, 128), (256, 512)):
        assert float(10 * (power[low] / power[high]).log10()) == pytest.approx(9.0, abs=0.01)


def test_without_gain_there_is_no_latent():
    trace = trace_of(GaussianSpeech(gain_sd_db=0, stft=STFT))
    assert [n for n, s in trace.nodes.items() if s["type"] == "sample"] == []


def test_the_gain_is_normal_in_db_and_one_for_each_frame():
    spectrum = torch.linspace(1.0, 2.0, FREQ)
    prior = GaussianSpeech(spectrum, gain_sd_db=7.0, stft=STFT)
    trace = trace_of(prior)
    site = trace.nodes["speech.gain"]
    assert site["value"].shape == (2, 1, TIME)
    z = torch.tensor([-1.5, 0.0, 2.0])[:, None, None, None]
    expected = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(site["fn"].log_prob(z), expected.expand(3, 2, 1, TIME))
    ratio_db = 10 * (trace.nodes["_RETURN"]["value"].power / spectrum[:, None]).log10()
    torch.testing.assert_close(
        ratio_db, (7.0 * site["value"]).expand(2, FREQ, TIME), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ruler_follows_the_dtype_of_the_frames(dtype):
    frames = Frames(FREQ, TIME, hop=16, n_fft=64, dtype=dtype)
    for spectrum in (None, torch.ones(FREQ)):
        assert GaussianSpeech(spectrum, stft=STFT)(frames).power.dtype == dtype


@pytest.mark.parametrize("gain_sd_db", [-1.0, math.nan, math.inf])
def test_the_ruler_refuses_a_deviation_that_is_none(gain_sd_db):
    expected = f"gain_sd_db must be finite and at least 0, not {gain_sd_db}"
    with pytest.raises(ValueError, match=expected):
        GaussianSpeech(gain_sd_db=gain_sd_db)


@pytest.mark.parametrize(
    ("spectrum", "found"),
    [
        (torch.ones(10), r"\(10,\) with minimum 1"),
        (torch.ones(513, 1), r"\(513, 1\)"),
        (torch.zeros(513), r"\(513,\) with minimum 0"),
        (-torch.ones(513), r"\(513,\) with minimum -1"),
        (torch.full((513,), math.nan), r"\(513,\) with minimum nan"),
    ],
)
def test_the_ruler_refuses_a_spectrum_that_is_none(spectrum, found):
    with pytest.raises(ValueError, match=rf"positive and of shape \(513,\), found shape {found}"):
        GaussianSpeech(spectrum)


# Networks


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_encode_and_decode_have_their_shapes(network, batch):
    mean, logvar, z = network.encode(power_of(*batch, FREQ, TIME))
    assert mean.shape == logvar.shape == z.shape == (*batch, LATENT, TIME)
    assert network.decode(z).shape == (*batch, FREQ, TIME)


def test_networks_treat_recordings_apart(network):
    power = power_of(4, FREQ, TIME)
    together = network.encode(power)
    z = torch.randn(4, LATENT, TIME)
    decoded = network.decode(z)
    for i in range(4):
        for whole, alone in zip(together, network.encode(power[i : i + 1]), strict=True):
            torch.testing.assert_close(whole[i : i + 1], alone, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            decoded[i : i + 1], network.decode(z[i : i + 1]), atol=1e-5, rtol=1e-4
        )
    nested = network.decode(z.reshape(2, 2, LATENT, TIME))
    torch.testing.assert_close(nested.reshape(4, FREQ, TIME), decoded, atol=1e-5, rtol=1e-4)


def test_recordings_are_told_apart(network):
    z = torch.randn(2, LATENT, TIME)
    one, two = network.decode(z).detach()
    assert float((one - two).abs().max()) > 1e-2


def test_the_draw_is_the_mean_unless_asked_for(network):
    power = power_of(1, FREQ, TIME)
    mean, logvar, z = network.encode(power)
    assert torch.equal(mean, z)
    torch.manual_seed(1)
    first = network.encode(power, sample=True)[2]
    torch.manual_seed(1)
    assert torch.equal(first, network.encode(power, sample=True)[2])
    assert not torch.equal(first, network.encode(power, sample=True)[2])
    if getattr(network, "feedback", False):  # later means follow earlier draws
        return
    draws = network.encode(power.expand(400, 1, FREQ, TIME), sample=True)[2]
    # 6 standard errors of a mean and of a variance (sqrt(2 / n) of it): odds below 1e-7.
    sd = torch.exp(0.5 * logvar)
    assert bool(((draws.mean(0) - mean).abs() < 6 * sd / 20).all())
    assert bool((draws.var(0) / sd.square() - 1).abs().max() < 6 * math.sqrt(2 / 400))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "tcvae"])
def test_log_input_sees_the_logarithm(kind):
    logs, plain = make(kind, log_input=True), make(kind, log_input=False)
    power = power_of(1, FREQ, TIME)
    seen = torch.log(power + 1e-6)
    for a, b in zip(logs.encode(power), plain.encode(seen), strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(logs.encode(power)[0], plain.encode(power)[0])


def test_the_vae_is_frame_by_frame():
    network, power = make("vae"), power_of(FREQ, TIME)
    order = torch.randperm(TIME)
    torch.testing.assert_close(
        network.encode(power)[0][:, order], network.encode(power[:, order])[0]
    )
    z = torch.randn(LATENT, TIME)
    torch.testing.assert_close(
        network.decode(z)[:, order], network.decode(z[:, order]), atol=1e-5, rtol=1e-4
    )


def test_the_vae_decodes_as_written_out():
    network, z = make("vae"), torch.randn(LATENT, TIME)
    first, second = network.decoder[0], network.decoder[2]
    hidden = torch.tanh(
        second.weight @ torch.tanh(first.weight @ z + first.bias[:, None]) + second.bias[:, None]
    )
    top = network.decoder_logpower
    torch.testing.assert_close(network.decode(z), top.weight @ hidden + top.bias[:, None])
    assert [layer.weight.shape[0] for layer in network.decoder[::2]] == [8, 12]  # mirrored
    assert [layer.weight.shape[0] for layer in network.encoder[::2]] == [12, 8]


@pytest.mark.parametrize("kind", ["rvae", "rvae with feedback"])
def test_the_rvae_looks_both_ways_in_time(kind):
    network = make(kind)
    z = torch.randn(LATENT, TIME)
    power = power_of(FREQ, TIME)
    for run, x in ((network.decode, z), (lambda p: network.encode(p)[0], power)):
        for changed in (0, TIME - 1):
            other = x.clone()
            other[:, changed] += 3.0
            difference = (run(other) - run(x)).abs().amax(0)
            assert bool((difference > 0).all())


def test_the_rvae_decodes_as_its_lstm_and_layer():
    network, z = make("rvae"), torch.randn(2, LATENT, TIME)
    hidden, _ = network.decoder(z.transpose(1, 2))
    expected = network.decoder_logpower(hidden).transpose(1, 2)
    torch.testing.assert_close(network.decode(z), expected)
    assert network.decode(z).is_contiguous()


def test_feedback_reads_the_past_latents_only():
    network, power = make("rvae with feedback"), power_of(1, FREQ, TIME)
    hidden, _ = network.encoder(torch.log(power + 1e-6).transpose(1, 2))
    mean, logvar, z = network.encode(power)
    # Unrolled at once: the second LSTM over z shifted by one frame, zero first.
    past = torch.cat((torch.zeros(1, 1, LATENT), z.transpose(1, 2)[:, :-1]), 1)
    memory, _ = network.encoder_feedback(past)
    joint = torch.cat((hidden, memory), -1)
    torch.testing.assert_close(mean, network.encoder_mean(joint).transpose(1, 2))
    torch.testing.assert_close(logvar, network.encoder_logvar(joint).transpose(1, 2))
    assert make("rvae").encoder_feedback is None


def test_feedback_reads_the_draws_and_not_the_means():
    network, power = make("rvae with feedback"), power_of(1, FREQ, TIME)
    torch.manual_seed(5)
    mean, _, z = network.encode(power, sample=True)
    hidden, _ = network.encoder(torch.log(power + 1e-6).transpose(1, 2))
    past = torch.cat((torch.zeros(1, 1, LATENT), z.transpose(1, 2)[:, :-1]), 1)
    joint = torch.cat((hidden, network.encoder_feedback(past)[0]), -1)
    torch.testing.assert_close(mean, network.encoder_mean(joint).transpose(1, 2))
    assert float((mean - network.encode(power)[0]).detach().abs().max()) > 1e-4


def test_gradients_reach_every_parameter(network):
    power = power_of(2, FREQ, TIME)
    mean, logvar, z = network.encode(power, sample=True)
    (network.decode(z).square().mean() + mean.square().mean() + logvar.square().mean()).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


# The learned prior


def test_the_law_is_decoded_power_at_the_level(network):
    prior = LatentSpeech(network, gain_db=11.0, gain_sd_db=5.0, stft=STFT)
    z = torch.randn(2, LATENT, TIME)
    level = torch.tensor([0.0, 1.0])[:, None, None]
    law = law_given(prior, {"speech.z": z, "speech.level": level})
    assert law.zero_mean
    assert law.power.shape == (2, FREQ, TIME)
    gain_db = torch.tensor([-11.0, -11.0 + 5.0])[:, None, None]
    expected = torch.exp(network.decode(z)) * 10 ** (gain_db / 10)
    torch.testing.assert_close(law.power, expected, rtol=1e-4, atol=0)


def test_the_sites_are_standard_normal_and_one_level_a_recording(network):
    trace = trace_of(LatentSpeech(network, stft=STFT), recordings=3)
    assert trace.nodes["speech.z"]["value"].shape == (3, LATENT, TIME)
    assert trace.nodes["speech.level"]["value"].shape == (3, 1, 1)
    names = {n for n, s in trace.nodes.items() if s["type"] == "sample"}
    assert names == {"speech.z", "speech.level"}
    for name in names:
        law = trace.nodes[name]["fn"]
        x = torch.tensor(1.7)
        expected = -0.5 * 1.7**2 - 0.5 * math.log(2 * math.pi)
        torch.testing.assert_close(law.log_prob(x), torch.full(law.batch_shape, expected))


def test_the_law_of_a_batch_is_that_of_its_recordings(network):
    prior = LatentSpeech(network, stft=STFT)
    data = {"speech.z": torch.randn(3, LATENT, TIME), "speech.level": torch.randn(3, 1, 1)}
    together = law_given(prior, data).power
    for i in range(3):
        alone = law_given(prior, {k: v[i : i + 1] for k, v in data.items()}).power
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-6)


def test_encode_is_the_networks_guess_at_its_own_level(network):
    prior = LatentSpeech(network, gain_db=11.0, stft=STFT)
    power = power_of(3, FREQ, TIME)
    guess = prior.encode(power)
    mean, logvar, _ = network.encode(power * 10**1.1)
    torch.testing.assert_close(guess["speech.z"][0], mean)
    torch.testing.assert_close(guess["speech.z"][1], torch.exp(0.5 * logvar))
    assert set(guess) == {"speech.z", "speech.level"}
    level, spread = guess["speech.level"]
    assert level.shape == spread.shape == (3, 1, 1)
    assert not level.any()
    assert bool((spread > 0).all())
    assert not guess["speech.z"][0].requires_grad


def test_an_encoder_of_bands_does_not_count_digital_silence():
    inputs = encoder_input(power_of(1, FREQ, TIME), log_input=True)
    silence = encoder_input(torch.zeros(1, FREQ, 3 * TIME), log_input=True)
    padded = torch.cat((inputs, silence), -1)
    alone = contrast(inputs, levels=inputs)
    torch.testing.assert_close(contrast(padded, levels=padded)[..., :TIME], alone)
    for kind in ("rvae with bands", "tcvae"):
        nothing = make(kind).encode(torch.zeros(1, FREQ, TIME))[0]
        assert bool(nothing.isfinite().all())


def test_an_encoder_of_bands_sees_what_stands_above_a_steady_noise():
    power = power_of(1, FREQ, TIME)
    coloured = power * torch.linspace(0.1, 10.0, FREQ)[:, None]
    first, second = (contrast(p.log(), levels=p.log())[:, FREQ:] for p in (power, coloured))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(first.mean(-1), torch.zeros(1, FREQ), atol=1e-5, rtol=0)


def test_improbable_latents_decode_to_a_power_that_is_a_number():
    log_power = make("tcvae").decode(1e6 * torch.randn(4, LATENT, TIME))
    assert log_power.min() == -25.0
    assert log_power.max() == 12.0


def test_the_level_starts_at_the_stated_gain(network):
    prior = LatentSpeech(network, gain_sd_db=4.0, start_gain_db=-6.0, stft=STFT)
    power = power_of(2, FREQ, TIME)
    guess = prior.encode(power)
    plain = LatentSpeech(network, gain_sd_db=4.0, stft=STFT).encode(power)
    assert guess["speech.level"][0].flatten().tolist() == [-1.5, -1.5]
    assert torch.equal(guess["speech.z"][0], plain["speech.z"][0])
    ratio = (
        law_given(prior, {k: v[0] for k, v in guess.items()}).power
        / law_given(prior, {k: v[0] for k, v in plain.items()}).power
    )
    torch.testing.assert_close(10 * ratio.log10(), torch.full_like(ratio, -6.0))


def test_a_decoded_spectrum_is_encoded_at_the_level_it_was_decoded_at():
    # The two uses of gain_db undo each other: what a network with level L calls unit power is
    # 10^(L/10) of its own, both ways.
    network = make("vae", log_input=False)
    prior = LatentSpeech(network, gain_db=11.0, stft=STFT)
    z = torch.randn(1, LATENT, TIME)
    law = law_given(prior, {"speech.z": z, "speech.level": torch.zeros(1, 1, 1)})
    direct = network.encode(torch.exp(network.decode(z)))[0]
    torch.testing.assert_close(prior.encode(law.power)["speech.z"][0], direct, rtol=1e-3, atol=1e-4)


def test_to_moves_a_copy(network):
    prior = LatentSpeech(network, gain_db=3.0, stft=STFT, name="mine")
    moved = prior.to(torch.device("cpu"), torch.float64)
    assert moved is not prior
    assert {p.dtype for p in moved.network.parameters()} == {torch.float64}
    assert {p.dtype for p in prior.network.parameters()} == {torch.float32}
    assert (moved.gain_db, moved.stft, moved.name) == (3.0, STFT, "mine")
    frames = Frames(FREQ, TIME, hop=16, n_fft=64, dtype=torch.float64)
    data = {"speech.z": torch.randn(1, LATENT, TIME), "speech.level": torch.randn(1, 1, 1)}
    precise = law_given(moved, {k: v.double() for k, v in data.items()}, frames).power
    assert precise.dtype == torch.float64
    torch.testing.assert_close(precise.float(), law_given(prior, data).power, rtol=1e-4, atol=1e-6)
    assert trace_of(moved, frames).nodes["speech.z"]["value"].dtype == torch.float64
    guess = moved.encode(power_of(2, FREQ, TIME).double())
    assert {a.dtype for pair in guess.values() for a in pair} == {torch.float64}


def test_to_where_it_is_already_changes_nothing(network):
    prior = LatentSpeech(network, stft=STFT)
    assert prior.to(torch.device("cpu"), torch.float32) is prior


@pytest.mark.gpu
def test_the_prior_runs_on_cuda(network):
    prior = LatentSpeech(network, stft=STFT).to(torch.device("cuda"), torch.float32)
    frames = Frames(FREQ, TIME, hop=16, n_fft=64, device=torch.device("cuda"))
    assert prior(frames).power.is_cuda
