"""Published weights of priors with a law of their latents: wiring, numbers, and JAX twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from avse_ppl import EM, NMF, Scene, Stft, load_speech
from avse_ppl.models.networks.published_av_vae import PublishedAvVaeNetwork
from avse_ppl.models.networks.published_dkf import PublishedDkfNetwork
from avse_ppl.models.weights.import_published import (
    PEAK_NORMALISED_LEVEL_DB,
    VISUAL_FEATURES,
    import_weights,
)

STFT = "[STFT]\nwlen_sec = 4e-3\nhop_percent = 0.25\nfs = 16000\n"
DKF = f"""{STFT}
[Network]
vae_mode = A-DKF
name = DKF
z_dim = 3
dense_x_gx = 9
dim_RNN_gx = 6
num_RNN_gx = 1
bidir_gx = False
dense_ztm1_g = 5
dense_g_z = 7
dense_z_x = 4,8
rnn = LSTM
inference = gated
"""
CVAE = f"{STFT}\n[Network]\nvae_mode = AV-CVAE\nname = VAE\nz_dim = 3\ndense_x_z = 8\n"
FREQ, TIME = 33, 11
LINEAR = {
    "A-DKF": {
        "mlp_x_gx.linear0": (9, 33), "mlp_ztm1_g.linear0": (5, 3), "mlp_ztm1_g.linear_last": (6, 5),
        "mlp_g_z.linear0": (7, 6), "inf_mean": (3, 7), "inf_logvar": (3, 7),
        "mlp_gate.linear1": (3, 3), "mlp_gate.linear2": (3, 3), "mlp_z_prop.linear1": (3, 3),
        "mlp_z_prop.linear2": (3, 3), "prior_mean": (3, 3), "prior_logvar.1": (3, 3),
        "mlp_z_x.linear0": (4, 3), "mlp_z_x.linear1": (8, 4), "gen_logvar": (33, 8),
    },
    "AV-CVAE": {
        "encoder_layerV": (8, 512), "layer_mix_encoder": (8, 16), "prior_layerV": (8, 512),
        "decoder_layerV": (8, 512), "layer_mix_decoder": (8, 16), "mlp_x_z.linear0": (8, 33),
        "zprior_mean_layer": (3, 8), "zprior_logvar_layer": (3, 8), "inf_mean": (3, 8),
        "inf_logvar": (3, 8), "mlp_z_x.linear0": (8, 3), "gen_logvar": (33, 8),
    },
}  # fmt: skip
CONFIGS = {"A-DKF": DKF, "AV-CVAE": CVAE}


def published(kind: str) -> dict[str, torch.Tensor]:
    """A small state dictionary in the published names."""
    raw = {}
    for name, (outer, inner) in LINEAR[kind].items():
        raw[f"{name}.weight"] = torch.randn(outer, inner) / inner**0.5
        raw[f"{name}.bias"] = 0.3 * torch.randn(outer)
    if kind == "A-DKF":
        lstm = torch.nn.LSTM(9, 6)
        raw |= {f"rnn_gx.{k}": v.detach() for k, v in lstm.state_dict().items()}
    return raw


def imported(kind: str, folder, text: str | None = None):
    raw = published(kind)
    torch.save(raw, folder / "model.pt")
    (folder / "config.ini").write_text(text or CONFIGS[kind])
    return import_weights(folder / "model.pt", folder / "config.ini", folder / "out"), raw


@pytest.fixture
def dkf(tmp_path):
    out, raw = imported("A-DKF", tmp_path)
    return load_speech(out).network, raw


@pytest.fixture
def cvae(tmp_path):
    out, raw = imported("AV-CVAE", tmp_path)
    return load_speech(out).network, raw


def sight(recordings=2, gate=1.0, time=TIME):
    features = torch.randn(recordings, VISUAL_FEATURES, time)
    return torch.cat((torch.full((recordings, 1, time), gate), gate * features), 1)


def layer(raw, name, inputs):
    return functional.linear(inputs, raw[f"{name}.weight"], raw[f"{name}.bias"])


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


# The numbers of the published models, written out frame by frame


def dkf_by_hand(raw, power):
    """Mean and log-variance of one recording, ``(time, latent)``."""
    hidden = torch.tanh(layer(raw, "mlp_x_gx.linear0", power.T))
    sizes = raw["rnn_gx.weight_hh_l0"].shape[1]
    lstm = torch.nn.LSTM(hidden.shape[1], sizes).requires_grad_(False)
    lstm.load_state_dict({k[7:]: v for k, v in raw.items() if k.startswith("rnn_gx.")})
    state, future = None, []
    for t in reversed(range(len(hidden))):
        out, state = lstm(hidden[t : t + 1], state)
        future.insert(0, out[0])
    z, means, logvars = torch.zeros(raw["inf_mean.bias"].shape), [], []
    for told in future:
        past = torch.tanh(layer(raw, "mlp_ztm1_g.linear0", z))
        past = torch.tanh(layer(raw, "mlp_ztm1_g.linear_last", past))
        joint = torch.tanh(layer(raw, "mlp_g_z.linear0", (told + past) / 2))
        z = layer(raw, "inf_mean", joint)
        means.append(z)
        logvars.append(layer(raw, "inf_logvar", joint))
    return torch.stack(means), torch.stack(logvars)


def test_the_filter_encodes_frame_by_frame_from_the_future_and_its_own_past(dkf):
    network, raw = dkf
    power = torch.empty(2, FREQ, TIME).exponential_()
    mean, logvar, z = network.encode(power)
    assert torch.equal(z, mean)
    for r in range(2):
        expected = dkf_by_hand(raw, power[r])
        close(mean[r].T, expected[0])
        close(logvar[r].T, expected[1])
    assert not torch.equal(network.encode(power, sample=True)[2], mean)


def test_the_transition_is_gated(dkf):
    network, raw = dkf
    z = torch.randn(2, 3, TIME)
    mean, logvar = network.law(z)
    before = torch.zeros(2, 3)
    for t in range(TIME):
        gate, proposal = (
            torch.sigmoid(
                layer(raw, f"{n}.linear2", torch.relu(layer(raw, f"{n}.linear1", before)))
            )
            for n in ("mlp_gate", "mlp_z_prop")
        )
        line = layer(raw, "prior_mean", before)
        close(mean[..., t], (1 - gate) * line + gate * proposal)
        close(logvar[..., t].exp(), functional.softplus(layer(raw, "prior_logvar.1", proposal)))
        before = z[..., t]
    assert network.receptive_field is None


def test_unrolled_latents_of_the_filter_have_their_innovations(dkf):
    network = dkf[0].double()
    innovations = torch.randn(2, 3, TIME, dtype=torch.float64)
    z = network.sample_from_innovations(innovations)
    mean, logvar = network.law(z)
    torch.testing.assert_close((z - mean) * torch.exp(-0.5 * logvar), innovations)


def test_the_decoder_of_the_filter_knows_one_frame(dkf):
    network, raw = dkf
    z = torch.randn(2, 5, 3, TIME)
    hidden = torch.tanh(layer(raw, "mlp_z_x.linear0", z.transpose(-1, -2)))
    hidden = torch.tanh(layer(raw, "mlp_z_x.linear1", hidden))
    close(network.decode(z), layer(raw, "gen_logvar", hidden).transpose(-1, -2))


def test_the_visual_prior_and_decoder_see_by_layers_of_their_own(cvae):
    network, raw = cvae
    z, visual = torch.randn(2, 3, TIME), sight()
    seen = visual[:, 1:].transpose(1, 2)
    hidden = torch.tanh(layer(raw, "prior_layerV", seen))
    mean, logvar = network.law(z, visual)
    close(mean, layer(raw, "zprior_mean_layer", hidden).transpose(1, 2))
    close(logvar, layer(raw, "zprior_logvar_layer", hidden).transpose(1, 2))
    innovations = torch.randn(2, 3, TIME)
    close(
        network.sample_from_innovations(innovations, visual),
        mean + torch.exp(0.5 * logvar) * innovations,
    )
    heard = torch.tanh(layer(raw, "mlp_z_x.linear0", z.transpose(1, 2)))
    both = torch.cat((heard, torch.tanh(layer(raw, "decoder_layerV", seen))), -1)
    hidden = torch.tanh(layer(raw, "layer_mix_decoder", both))
    close(network.decode(z, visual), layer(raw, "gen_logvar", hidden).transpose(1, 2))


def test_the_visual_encoder_mixes_sound_and_lips(cvae):
    network, raw = cvae
    power, visual = torch.empty(2, FREQ, TIME).exponential_(), sight()
    heard = torch.tanh(layer(raw, "mlp_x_z.linear0", power.transpose(1, 2)))
    seen = torch.tanh(layer(raw, "encoder_layerV", visual[:, 1:].transpose(1, 2)))
    hidden = torch.tanh(layer(raw, "layer_mix_encoder", torch.cat((heard, seen), -1)))
    mean, logvar, z = network.encode(power, visual=visual)
    close(mean, layer(raw, "inf_mean", hidden).transpose(1, 2))
    close(logvar, layer(raw, "inf_logvar", hidden).transpose(1, 2))
    assert torch.equal(z, mean)


def test_rows_of_draws_share_their_recordings_lips(cvae):
    network, _ = cvae
    z, visual = torch.randn(4, 2, 3, TIME), sight()
    close(network.decode(z, visual)[3], network.decode(z[3], visual))
    mean, _ = network.law(z.flatten(0, 1), visual)
    close(mean[4:6], network.law(z[2], visual)[0])


# No audio-only mode


def test_a_prior_that_cannot_do_without_lips_says_so(tmp_path):
    out, _ = imported("AV-CVAE", tmp_path)
    prior = load_speech(out)
    card = (out / "README.md").read_text()
    assert "no audio-only mode" in card
    assert "512 features" in card
    wave = np.random.default_rng(0).normal(size=1600).astype("float32")
    with pytest.raises(
        ValueError, match=r"no audio-only mode: expected 512 features .* found none"
    ):
        EM(iterations=2)(Scene(prior, NMF(2)), wave, seed=0)
    with pytest.raises(ValueError, match="found 5"):
        prior.network.decode(torch.randn(2, 3, TIME), torch.ones(2, 6, TIME))


def test_frames_without_lips_are_told(cvae):
    power, visual = torch.ones(2, FREQ, TIME), sight()
    visual[0, :, 4:7] = 0.0
    with pytest.warns(UserWarning, match="no lips are seen in 3 frames"):
        cvae[0].encode(power, visual=visual)


class Eyes(torch.nn.Module):
    """Stands for the lip reader that is published elsewhere."""

    def forward(self, crops):
        pixels = crops.float().flatten(2)[..., :VISUAL_FEATURES] / 255.0
        return pixels.transpose(1, 2)


def test_with_a_visual_encoder_given_it_enhances(tmp_path):
    from avse_ppl.video import Lips

    out, _ = imported("AV-CVAE", tmp_path)
    prior = replace(load_speech(out), visual_encoder=Eyes())
    rng = np.random.default_rng(0)
    lips = Lips.from_crops(rng.integers(1, 255, (25, 88, 88), dtype=np.uint8), rate_hz=25)
    wave = rng.normal(size=8000).astype("float32")
    scene = Scene(prior, NMF(2))
    answer = EM(iterations=3, draws=1, waveforms=False)(scene, wave, lips, seed=0).enhance()
    dark = Lips.from_crops(np.full((25, 88, 88), 9, dtype=np.uint8), rate_hz=25)
    other = EM(iterations=3, draws=1, waveforms=False)(scene, wave, dark, seed=0).enhance()
    assert np.isfinite(answer).all()
    assert not np.allclose(answer, other)


# JAX


@pytest.mark.parametrize("kind", ["A-DKF", "AV-CVAE"])
def test_the_twins_on_jax_agree(kind, tmp_path):
    jnp = pytest.importorskip("jax.numpy")
    from avse_ppl.models.networks.jax.decoders import jax_decoder, jax_law

    network = load_speech(imported(kind, tmp_path)[0]).network
    z, visual = torch.randn(2, 3, TIME), sight() if kind == "AV-CVAE" else None
    seen = None if visual is None else jnp.asarray(visual.numpy())
    there = jnp.asarray(z.numpy())
    found = (jax_decoder(network)(there, seen), *jax_law(network)(there, seen))
    expected = (network.decode(z, visual), *network.law(z, visual))
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(np.asarray(one), other.numpy(), atol=1e-4)


def test_the_twin_on_jax_needs_lips_too(cvae):
    jnp = pytest.importorskip("jax.numpy")
    from avse_ppl.models.networks.jax.decoders import jax_decoder

    with pytest.raises(ValueError, match="no audio-only mode"):
        jax_decoder(cvae[0])(jnp.zeros((1, 3, TIME)))


# Configs of another wiring


@pytest.mark.parametrize(
    ("kind", "old", "new", "said"),
    [
        ("A-DKF", "bidir_gx = False", "bidir_gx = True", "expected the wiring"),
        ("A-DKF", "inference = gated", "inference = normal", "expected the wiring"),
        ("A-DKF", "rnn = LSTM\n", "", "'rnn'"),
        ("A-DKF", "dense_g_z = 7", "dense_g_z =", "invalid literal"),
        ("AV-CVAE", "dense_x_z = 8", "dense_x_z = 8,4", "dense_x_z must be one width, found 2"),
    ],
)
def test_another_wiring_is_told(kind, old, new, said, tmp_path):
    with pytest.raises(ValueError, match=f"does not describe a {kind}: .*{said}"):
        imported(kind, tmp_path, CONFIGS[kind].replace(old, new))
    assert not (tmp_path / "out").exists()


# The published weights themselves


PEERS = {
    "A-DKF": ("A-DKF", 516_641, PublishedDkfNetwork),
    "AV-VAE": ("AV-CVAE", 405_185, PublishedAvVaeNetwork),
}


@pytest.mark.parametrize("name", PEERS)
def test_published_weights_become_a_prior(name, shared, tmp_path):
    kind, count, network = PEERS[name]
    folder = shared / "peers" / name
    out = import_weights(folder / f"{name}.pt", folder / "config.ini", tmp_path / "out")
    raw = torch.load(folder / f"{name}.pt", map_location="cpu", weights_only=True)
    prior = load_speech(out)
    assert isinstance(prior.network, network)
    assert prior.name == f"imported {kind}"
    assert prior.stft == Stft(1024, 256, "sine", 16000)
    assert prior.gain_db == PEAK_NORMALISED_LEVEL_DB
    assert sum(p.numel() for p in prior.network.parameters()) == count
    ours = sorted(float(t.double().sum()) for t in prior.network.state_dict().values())
    assert ours == sorted(float(t.double().sum()) for t in raw.values())


def test_the_published_filter_explains_clean_speech(shared, tmp_path):
    """A wrong wiring does not: 24 without the mean of the two sides, 1.8 without the last tanh."""
    from avse_ppl.signal.audio import load_audio

    folder = shared / "peers" / "A-DKF"
    out = import_weights(folder / "A-DKF.pt", folder / "config.ini", tmp_path / "out")
    prior = load_speech(out)
    wave = torch.as_tensor(load_audio(shared / "peers" / "sample" / "s.wav").samples).flatten()
    window = torch.sin(torch.pi * (torch.arange(1024) + 0.5) / 1024)
    frames = torch.stft(wave / wave.max(), 1024, 256, window=window, return_complex=True)
    power = frames.abs().square()[None]
    mean, logvar, z = prior.network.encode(power)
    ratio = power / prior.network.decode(z).exp()
    assert float((ratio - torch.log(ratio + 1e-12) - 1).mean()) < 1.2  # Itakura-Saito
    assert prior.network.law(z)[0].shape == mean.shape
    surprise = functional.gaussian_nll_loss(
        *(prior.network.law(z)[0], z, prior.network.law(z)[1].exp()), full=False
    )
    assert float(surprise) < 0.0  # +45 000 a latent without the sigmoid of the proposal
    assert bool((logvar < -3).all())
