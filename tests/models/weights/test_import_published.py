"""Published weights: the same numbers, and no code run."""

from __future__ import annotations

import builtins
import os
import pickle
import zipfile

import pytest
import torch

from avse_ppl import LatentSpeech, Stft, load_speech
from avse_ppl.models.weights.import_published import KINDS, PEAK_NORMALISED_LEVEL_DB, import_weights

CONFIG = """
[STFT]
wlen_sec = 4e-3
hop_percent = 0.25
fs = 16000

[Network]
name = VAE
vae_mode = A-VAE
x_dim = 33
z_dim = 3
dense_x_z = 8
"""
FREQ, LATENT, HIDDEN = 33, 3, 8
ONE_LAYER = (HIDDEN,)


def published(hidden=ONE_LAYER) -> dict[str, torch.Tensor]:
    """A state dictionary in the published names, of a tiny A-VAE."""
    sizes = {"inf_mean": (LATENT, hidden[-1]), "inf_logvar": (LATENT, hidden[-1])}
    sizes["gen_logvar"] = (FREQ, hidden[0])
    for part, widths in (("x_z", (FREQ, *hidden)), ("z_x", (LATENT, *reversed(hidden)))):
        for i in range(len(hidden)):
            sizes[f"mlp_{part}.linear{i}"] = (widths[i + 1], widths[i])
    tensors = {}
    for name, (outer, inner) in sizes.items():
        tensors[f"{name}.weight"] = torch.randn(outer, inner)
        tensors[f"{name}.bias"] = torch.randn(outer)
    return tensors


@pytest.fixture
def files(tmp_path):
    torch.save(published(), tmp_path / "model.pt")
    (tmp_path / "config.ini").write_text(CONFIG)
    return tmp_path / "model.pt", tmp_path / "config.ini", tmp_path / "out"


def refused(files, kind=ValueError) -> str:
    file, config, out = files
    with pytest.raises(kind) as caught:
        import_weights(file, config, out)
    assert not out.exists()
    return str(caught.value)


# The published weights themselves


PEERS = {
    "A-VAE": ("A-VAE.pt", 138_273),
    "RVAE": ("RVAE_final_epoch294.pt", 1_026_849),
}


@pytest.fixture(params=sorted(PEERS))
def peer(request, shared, tmp_path):
    folder = shared / "peers" / request.param
    file, count = PEERS[request.param]
    out = import_weights(folder / file, folder / "config.ini", tmp_path / "out")
    raw = torch.load(folder / file, map_location="cpu", weights_only=True)
    return request.param, out, raw, count


def test_published_weights_become_a_prior(peer):
    name, out, raw, count = peer
    prior = load_speech(out)
    assert isinstance(prior, LatentSpeech)
    assert prior.name == f"imported {name}"
    assert prior.stft == Stft(1024, 256, "sine", 16000)
    assert prior.gain_db == PEAK_NORMALISED_LEVEL_DB == 11.0
    assert prior.start_gain_db == -4.0  # their encoders have seen clean speech only
    assert prior.network.latent == 16
    assert sum(p.numel() for p in prior.network.parameters()) == count
    assert sum(t.numel() for t in raw.values()) == count
    assert f"{count:,} parameters" in (out / "README.md").read_text()


def test_published_weights_keep_every_number(peer):
    _, out, raw, _ = peer
    ours = sorted(float(t.double().sum()) for t in load_speech(out).network.state_dict().values())
    theirs = sorted(float(t.double().sum()) for t in raw.values())
    assert ours == theirs


def test_published_decoders_compute_what_their_authors_wrote(peer):
    name, out, raw, _ = peer
    z = torch.randn(2, 16, 12)
    inputs = z.transpose(1, 2)
    if name == "A-VAE":
        linear = torch.nn.functional.linear
        hidden = torch.tanh(
            linear(inputs, raw["mlp_z_x.linear0.weight"], raw["mlp_z_x.linear0.bias"])
        )
    else:
        hidden, _ = lstm(raw, "rnn_h", 16, both_ways=True)(inputs)
    expected = hidden @ raw["gen_logvar.weight"].T + raw["gen_logvar.bias"]
    found = load_speech(out).network.decode(z)
    torch.testing.assert_close(found, expected.transpose(1, 2), atol=1e-5, rtol=1e-4)


def test_published_encoders_compute_what_their_authors_wrote(peer):
    name, out, raw, _ = peer
    power = torch.empty(2, 513, 12).exponential_() * 10
    inputs = power.transpose(1, 2)  # the power itself, not its logarithm
    if name == "A-VAE":
        linear = torch.nn.functional.linear
        joint = torch.tanh(
            linear(inputs, raw["mlp_x_z.linear0.weight"], raw["mlp_x_z.linear0.bias"])
        )
        mean = joint @ raw["inf_mean.weight"].T + raw["inf_mean.bias"]
        logvar = joint @ raw["inf_logvar.weight"].T + raw["inf_logvar.bias"]
    else:
        mean, logvar = published_rvae_encoder(raw, inputs)
    found = load_speech(out).network.encode(power)
    torch.testing.assert_close(found[0], mean.transpose(1, 2), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found[1], logvar.transpose(1, 2), atol=1e-4, rtol=1e-3)


def lstm(raw, name, inner, both_ways):
    module = torch.nn.LSTM(inner, 128, bidirectional=both_ways, batch_first=True)
    prefix = f"{name}."
    module.load_state_dict({k[len(prefix) :]: v for k, v in raw.items() if k.startswith(prefix)})
    return module.requires_grad_(False)


def published_rvae_encoder(raw, inputs):
    """Frame by frame, with the mean fed back, as the paper has it."""
    seen, _ = lstm(raw, "rnn_g_x", 513, both_ways=True)(inputs)
    memory, state, past = lstm(raw, "rnn_g_z", 16, both_ways=False), None, torch.zeros(2, 1, 16)
    means, logvars = [], []
    for t in range(inputs.shape[1]):
        told, state = memory(past, state)
        joint = torch.cat((seen[:, t : t + 1], told), -1)
        past = joint @ raw["inf_mean.weight"].T + raw["inf_mean.bias"]
        means.append(past)
        logvars.append(joint @ raw["inf_logvar.weight"].T + raw["inf_logvar.bias"])
    return torch.cat(means, 1), torch.cat(logvars, 1)


def test_weights_and_config_of_different_models_are_told(shared, tmp_path):
    peers = shared / "peers"
    with pytest.raises(ValueError, match=r"A-VAE.pt does not match .*config.ini \(.*expected"):
        import_weights(peers / "A-VAE/A-VAE.pt", peers / "RVAE/config.ini", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Made-up weights in the same form


def test_layers_beyond_the_first_are_found(tmp_path):
    raw = published(hidden=(8, 5))
    torch.save(raw, tmp_path / "model.pt")
    (tmp_path / "config.ini").write_text(CONFIG.replace("dense_x_z = 8", "dense_x_z = 8, 5"))
    out = import_weights(tmp_path / "model.pt", tmp_path / "config.ini", tmp_path / "out")
    network = load_speech(out).network
    torch.testing.assert_close(network.encoder[2].weight, raw["mlp_x_z.linear1.weight"])
    torch.testing.assert_close(network.decoder[2].bias, raw["mlp_z_x.linear1.bias"])
    assert load_speech(out).stft == Stft(64, 16)


def test_text_paths_work_too(files):
    file, config, out = files
    assert import_weights(str(file), str(config), str(out)) == out
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md",
        "config.json",
        "weights.safetensors",
    ]


def test_the_name_is_read_from_either_key(files):
    file, config, out = files
    config.write_text(
        CONFIG.replace("vae_mode = A-VAE\n", "").replace("name = VAE", "name = A-VAE")
    )
    assert load_speech(import_weights(file, config, out)).name == "imported A-VAE"


# Code in the checkpoint


class Malicious:
    """Pickles as a call that leaves a file behind when it is run."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def attacks(target):
    yield "os.system", Malicious(os.system, f"touch {target}")
    yield "exec", Malicious(builtins.exec, f"open({str(target)!r}, 'w').close()")
    yield "os.mkdir", Malicious(os.mkdir, str(target))


@pytest.mark.parametrize("attack", ["os.system", "exec", "os.mkdir"])
@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle", "beside good tensors"])
def test_a_malicious_checkpoint_is_refused_and_does_not_run(attack, form, files):
    file, _, out = files
    target = file.parent / "it_ran"
    bad = dict(attacks(target))[attack]
    if form == "plain pickle":
        file.write_bytes(pickle.dumps(bad))
    elif form == "beside good tensors":
        torch.save({**published(), "extra": bad}, file)
    else:
        torch.save(bad, file, _use_new_zipfile_serialization=form == "zip")
    message = refused(files)
    assert not target.exists()
    assert not out.exists()
    assert "is not a plain state dictionary" in message
    assert "torch.save(model.state_dict(), ...)" in message
    # The same file does run where code is allowed: the attack is a real one.
    if form == "plain pickle":
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert target.exists()


def test_malicious_bytes_inside_a_good_archive_are_refused(files):
    file, _, _ = files
    target = file.parent / "it_ran"
    other = file.with_name("patched.pt")
    with zipfile.ZipFile(file) as good, zipfile.ZipFile(other, "w") as bad:
        for item in good.infolist():
            content = good.read(item)
            if item.filename.endswith("data.pkl"):
                content = pickle.dumps(Malicious(os.system, f"touch {target}"), protocol=2)
            bad.writestr(item, content)
    other.replace(file)
    assert "is not a plain state dictionary" in refused(files)
    assert not target.exists()


def test_a_whole_pickled_module_is_refused(files):
    torch.save(torch.nn.Linear(2, 3), files[0])
    assert "is not a plain state dictionary" in refused(files)


# Bad checkpoints


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04", b"\x80\x02."])
def test_a_file_that_is_no_checkpoint_is_told(content, files):
    files[0].write_bytes(content)
    assert f"{files[0]} is not a plain state dictionary" in refused(files)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_told(keep, files):
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: int(len(whole) * keep)])
    assert f"{files[0]} is not a plain state dictionary" in refused(files)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (torch.ones(3), "Tensor"),
        ([torch.ones(3)], "list"),
        ({"model": {"weight": torch.ones(3)}}, "dict"),
        ({"weight": torch.ones(3), "epoch": 3}, "dict"),
    ],
)
def test_a_checkpoint_of_more_than_tensors_is_told(content, what, files):
    torch.save(content, files[0])
    assert refused(files) == (f"{files[0]} holds {what}, expected a dictionary of tensors only")


def test_missing_files_are_told(files):
    file, config, out = files
    assert refused((file.with_name("no.pt"), config, out), FileNotFoundError) == (
        f"no checkpoint at {file.with_name('no.pt')}"
    )
    assert refused((file, config.with_name("no.ini"), out), FileNotFoundError) == (
        f"no config at {config.with_name('no.ini')}"
    )


def test_a_missing_or_extra_tensor_is_told(files):
    raw = published()
    del raw["inf_mean.bias"]
    raw["surplus.weight"] = torch.ones(2)
    torch.save(raw, files[0])
    message = refused(files)
    assert message == (
        f"{files[0]} does not match {files[1]} (encoder_mean.bias: expected (3,), found None; "
        "surplus.weight: expected None, found (2,))"
    )


# Bad configs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "No section: 'Network'"),
        ("name = VAE", "File contains no section headers"),
        ("[Network\n", "contains (no section headers|parsing errors)"),
        ("[STFT]\nfs = 16000\n", "No section: 'Network'"),
        (CONFIG.replace("name = VAE\n", ""), "No option 'name'"),
        (CONFIG.replace("z_dim = 3\n", ""), "No option 'z_dim'"),
        (CONFIG.replace("z_dim = 3", "z_dim = many"), "invalid literal for int"),
        (CONFIG.replace("fs = 16000", "fs = 16 kHz"), "invalid literal for int"),
        (CONFIG.replace("hop_percent = 0.25", "hop_percent = 0.9"), "hop must be between"),
        (CONFIG.replace("hop_percent = 0.25\n", ""), "No option 'hop_percent'"),
        (CONFIG.replace("x_dim = 33", "x_dim = %(y"), "'%'|interpolation"),
        (CONFIG + "z_dim = 4\n", "already exists"),
    ],
)
def test_a_config_of_another_kind_is_told(text, said, files):
    import re

    files[1].write_text(text)
    message = refused(files)
    assert message.startswith(f"{files[1]} is not a config of the published VAE family: ")
    assert re.search(said, message)
    assert "\n" not in message


def test_a_config_that_is_no_text_is_told(files):
    files[1].write_bytes(b"\xff\xfe\x00\x80")
    assert "is not a config of the published VAE family" in refused(files)


def test_a_model_that_is_not_known_is_told(files):
    files[1].write_text(CONFIG.replace("A-VAE", "V-VAE"))
    assert refused(files) == (f"{files[1]} describes a 'V-VAE'; can import {sorted(KINDS)}")


@pytest.mark.parametrize(
    ("mode", "line", "said"),
    [
        ("A-VAE", "", "'dense_x_z'"),
        ("A-VAE", "dense_x_z =\n", "invalid literal for int"),
        ("A-VAE", "dense_x_z = wide\n", "invalid literal for int"),
        ("RVAE", "", "'dim_rnn_h'"),
    ],
)
def test_a_network_section_that_lacks_a_size_is_told(mode, line, said, files):
    text = CONFIG.replace("dense_x_z = 8\n", line).replace("vae_mode = A-VAE", f"vae_mode = {mode}")
    files[1].write_text(text)
    message = refused(files)
    assert message.startswith(f"{files[1]}: its section [Network] does not describe a {mode}: ")
    assert said in message


def test_sizes_that_do_not_match_are_told(files):
    files[1].write_text(CONFIG.replace("z_dim = 3", "z_dim = 5"))
    assert "does not match" in refused(files)
    files[1].write_text(CONFIG.replace("wlen_sec = 4e-3", "wlen_sec = 8e-3"))
    assert "decoder_logpower.bias: expected (65,), found (33,)" in refused(files)
