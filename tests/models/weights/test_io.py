"""Weights on disk: what is written is what is read, and damage is told apart."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from avse_ppl import Frames, GaussianSpeech, LatentSpeech, Stft, load_speech
from avse_ppl.models import pretrained_names
from avse_ppl.models.networks import RvaeNetwork, TcvaeNetwork, VaeNetwork
from avse_ppl.models.speech.load import PRETRAINED
from avse_ppl.models.speech.score import ScoreSpeech
from avse_ppl.models.weights.io import is_shipped, load_network, save_weights
from tests.helpers import STFT

SETTINGS = {
    "vae": {"latent": 3, "hidden": (7, 5), "log_input": False},
    "rvae": {"latent": 3, "hidden": 4},
    "tcvae": {"latent": 3, "hidden": 4, "encoder_hidden": 6},
}
FILES = ["README.md", "config.json", "weights.safetensors"]


def write(folder, kind="vae", seed=0, **options):
    torch.manual_seed(seed)
    kinds = {"vae": VaeNetwork, "rvae": RvaeNetwork, "tcvae": TcvaeNetwork}
    network = kinds[kind](freq=STFT.freq, **SETTINGS[kind])
    settings = {"name": "tiny", "card": {"data": "made up"}, **options}
    return network, save_weights(folder, network, kind, SETTINGS[kind], STFT, **settings)


def edit(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Round trip


@pytest.mark.parametrize("kind", ["vae", "rvae", "tcvae"])
def test_weights_come_back_bit_for_bit(kind, tmp_path):
    network, folder = write(tmp_path / "deep" / "er", kind, gain_db=11.5)
    assert folder == tmp_path / "deep" / "er"
    assert names(folder) == FILES
    again, config = load_network(folder)
    assert type(again) is type(network)
    before, after = network.state_dict(), again.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    z = torch.randn(2, 3, 9)
    torch.testing.assert_close(again.decode(z), network.decode(z))
    assert config["name"] == "tiny"
    assert config["level_db"] == 11.5
    assert Stft(**config["stft"]) == STFT
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())


def test_a_config_of_before_the_start_gain_is_read(tmp_path):
    _, folder = write(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["start_gain_db"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_speech(folder).start_gain_db == 0.0


def test_extreme_numbers_survive(tmp_path):
    network, _ = write(tmp_path)
    numbers = torch.tensor([0.0, -0.0, 1e-45, -1e-38, 3.4e38, 1 / 3, -(2**-126)])
    with torch.no_grad():
        network.encoder[0].bias.copy_(numbers)
    save_weights(tmp_path, network, "vae", SETTINGS["vae"], STFT, name="tiny", card={})
    found = load_network(tmp_path)[0].encoder[0].bias
    assert torch.equal(found.view(torch.int32), numbers.view(torch.int32))


def test_load_speech_reads_the_folder_as_a_prior(tmp_path):
    network, folder = write(tmp_path / "mine", "rvae", gain_db=3.0, start_gain_db=-5.0)
    for where in (folder, str(folder)):
        prior = load_speech(where)
        assert isinstance(prior, LatentSpeech)
        assert (prior.gain_db, prior.stft, prior.name) == (3.0, STFT, "tiny")
        assert prior.start_gain_db == -5.0
        z = torch.randn(1, 3, 9)
        torch.testing.assert_close(prior.network.decode(z), network.decode(z))
        assert prior(Frames(STFT.freq, 9, hop=16, n_fft=64)).power.shape == (STFT.freq, 9)


def test_a_folder_without_a_name_in_its_config_lends_its_own(tmp_path):
    _, folder = write(tmp_path / "mine")
    edit(folder, name=...)
    assert load_speech(folder).name == "mine"


def test_the_ruler_has_a_name_too():
    assert isinstance(load_speech("gaussian"), GaussianSpeech)


def test_a_path_is_not_the_name_of_shipped_weights(tmp_path):
    _, folder = write(tmp_path / "tcvae")
    assert is_shipped("tcvae")
    assert not any(is_shipped(place) for place in (folder, f"./{folder.name}", "lost", None))


def test_shipped_weights_load_and_have_their_three_files():
    for name in pretrained_names():
        assert set(FILES) <= set(names(PRETRAINED / name))
        prior = load_speech(name)
        if isinstance(prior, ScoreSpeech):  # no law of its own
            continue
        frames = Frames(prior.stft.freq, 5, hop=prior.stft.hop, n_fft=prior.stft.n_fft)
        assert bool(torch.isfinite(prior(frames).power).all())


# The card


def test_the_card_says_what_it_is_told(tmp_path):
    from avse_ppl.training import Recipe

    card = {
        "licence": "CC BY 4.0",
        "metrics": {"val_loss": 12.34567, "epochs": 3},
        "recipe": Recipe("vae", batch=8),
    }
    network, folder = write(tmp_path, card=card)
    text = (folder / "README.md").read_text()
    count = sum(p.numel() for p in network.parameters())
    for line in (
        "# tiny",
        f"Speech prior for avse-ppl: `vae`, {count:,} parameters.",
        "**licence**: CC BY 4.0",
        "- val_loss: 12.34567",
        "- epochs: 3",
        "- batch: 8",
    ):
        assert line in text.splitlines()


# Nothing half-written


def test_a_failed_write_leaves_the_old_files_whole(tmp_path, monkeypatch):
    write(tmp_path, seed=0)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    written = []

    def no_space(self, content):
        written.append(self.name)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return original(self, content)

    original = type(tmp_path).write_bytes
    monkeypatch.setattr(type(tmp_path), "write_bytes", no_space)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, seed=1)
    monkeypatch.undo()
    assert len(written) == 2
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
    write(tmp_path, seed=1)
    assert (tmp_path / "weights.safetensors").read_bytes() != before["weights.safetensors"]


@pytest.mark.parametrize("broken", ["settings", "card"])
def test_what_cannot_be_written_makes_no_folder(broken, tmp_path):
    class Unprintable:
        def __str__(self):
            raise RuntimeError("no text")

        __repr__ = __str__

    network = VaeNetwork(freq=STFT.freq, **SETTINGS["vae"])
    settings = {"latent": object()} if broken == "settings" else SETTINGS["vae"]
    card = {"data": Unprintable()} if broken == "card" else {}
    with pytest.raises((TypeError, RuntimeError)):
        save_weights(tmp_path / "new", network, "vae", settings, STFT, name="x", card=card)
    assert not (tmp_path / "new").exists()


def test_files_are_renamed_into_place(tmp_path, monkeypatch):
    moves = []
    replace = os.replace

    def spy(source, target):
        moves.append((os.path.basename(source)[0], os.path.basename(target)))
        assert {p[0] for p in os.listdir(tmp_path)} == {"."} or len(moves) > 1
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    write(tmp_path)
    assert sorted(moves) == [(".", name) for name in FILES]
    assert names(tmp_path) == FILES


# Damage


def test_a_missing_folder_or_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config.json; expected a folder written"):
        load_network(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no config.json"):
        load_speech(tmp_path)
    _, folder = write(tmp_path / "mine")
    (folder / "weights.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"weights.safetensors is missing; copy it next to its config.json"
    ):
        load_speech(folder)


def test_an_unknown_name_is_told_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"unknown speech prior 'gausian'; known are .*gaussian"):
        load_speech("gausian")
    with pytest.raises(ValueError, match=r"did you mean 'gaussian'"):
        load_speech("gausian")
    with pytest.raises(ValueError, match=r"unknown speech prior"):
        load_speech(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"not safetensors at all, but longer than its header",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-4],
        lambda whole: whole[:100],
        lambda whole: b"\xff" * 8 + whole[8:],
        lambda whole: whole + b"more",
    ],
    ids=["empty", "text", "half", "cut", "header cut", "header length", "longer"],
)
def test_corrupt_weights_are_told(damage, tmp_path):
    _, folder = write(tmp_path)
    path = folder / "weights.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"is not a readable safetensors file \(.*copy it again"):
        load_network(folder)


def test_a_pickle_in_place_of_the_weights_is_not_read(tmp_path):
    _, folder = write(tmp_path)
    torch.save({"encoder": torch.ones(2)}, folder / "weights.safetensors")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_network(folder)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_told(number, tmp_path):
    _, folder = write(tmp_path)
    tensors = load_file(folder / "weights.safetensors")
    tensors["decoder_logpower.bias"][4] = number
    save_file(tensors, folder / "weights.safetensors")
    with pytest.raises(ValueError, match=r"\['decoder_logpower.bias'\] hold NaN or infinity"):
        load_network(folder)


def test_weights_of_another_size_are_told(tmp_path):
    _, folder = write(tmp_path)
    edit(folder, settings={"latent": 4, "hidden": [7, 5], "log_input": False})
    with pytest.raises(
        ValueError,
        match=r"do not match config.json \(decoder.0.weight: expected \(5, 4\), found \(5, 3\)",
    ) as caught:
        load_network(folder)
    assert str(caught.value).startswith(str(folder))
    assert str(caught.value).endswith("Copy both files from the same place.")


def test_weights_of_another_network_are_told(tmp_path):
    _, folder = write(tmp_path)
    edit(folder, network="rvae", settings=SETTINGS["rvae"])
    with pytest.raises(ValueError, match=r"decoder.0.bias: expected None, found \(5,\)") as caught:
        load_network(folder)
    assert str(caught.value).count("expected") == 4  # a few are enough


def test_a_missing_tensor_is_told(tmp_path):
    _, folder = write(tmp_path)
    tensors = load_file(folder / "weights.safetensors")
    del tensors["encoder_mean.bias"]
    save_file(tensors, folder / "weights.safetensors")
    with pytest.raises(ValueError, match=r"encoder_mean.bias: expected \(3,\), found None"):
        load_network(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "null", "3", '"vae"', "\x00\x01", '{"network": "vae"}']
)
def test_a_config_that_is_none_is_told(text, tmp_path):
    _, folder = write(tmp_path)
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json is not a config of this library"):
        load_network(folder)


def test_a_config_in_another_encoding_is_told(tmp_path):
    _, folder = write(tmp_path)
    (folder / "config.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ValueError, match=r"config.json is not a config of this library"):
        load_network(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"level_db": ...}, r"it lacks \['level_db'\]"),
        ({"stft": ..., "network": ...}, r"it lacks \['network', 'stft'\]"),
        ({"network": "unet"}, r"network is 'unet', known are \[.*'rvae', .*'tcvae', 'vae'\]"),
        ({"network": ["vae"]}, "unhashable"),
        ({"level_db": "loud"}, "could not convert string to float"),
        ({"level_db": None}, "float"),
        ({"start_gain_db": "quiet"}, "could not convert string to float"),
        ({"stft": {"n_fft": 64, "hop": 63}}, "hop must be between 1 and"),
        ({"stft": {"n_fft": 64, "step": 16}}, "unexpected keyword argument 'step'"),
        ({"stft": [64, 16]}, r"stft is \[64, 16\], expected an object"),
        ({"stft": {"n_fft": 64.0, "hop": 16}}, "n_fft of stft is 64.0, expected a whole number"),
        ({"stft": {"sample_rate_hz": 0}}, "sample_rate_hz of stft is 0"),
        ({"settings": [3]}, r"settings is \[3\], expected an object"),
        ({"name": ["vae"]}, r"name is \['vae'\], expected a text"),
        ({"level_db": float("nan")}, "level_db is nan, expected a finite number"),
        ({"level_db": 10**400}, "int too large"),
        ({"trust": float("inf")}, "trust is inf, expected a finite number"),
    ],
)
def test_what_is_wrong_in_a_config_is_told(changes, said, tmp_path):
    _, folder = write(tmp_path)
    edit(folder, **changes)
    with pytest.raises(ValueError, match=rf"config.json is not a config of this library: .*{said}"):
        load_network(folder)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"latent": 3, "width": 7}, "unexpected keyword argument 'width'"),
        ({}, "missing 1 required positional argument: 'latent'"),
        ({"latent": "three"}, r"empty\(\)"),
        ({"latent": 3, "hidden": 7}, "int"),
        ({"latent": -3}, "negative"),
    ],
)
def test_settings_that_make_no_network_are_told(settings, said, tmp_path):
    _, folder = write(tmp_path)
    edit(folder, settings=settings)
    with pytest.raises(
        ValueError, match=rf"config.json: its settings do not make a 'vae' network: .*({said})"
    ):
        load_network(folder)


def test_sizes_that_the_weights_do_not_have_cost_no_memory(tmp_path):
    _, folder = write(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    claims = {**config["settings"], "hidden": [10**7, 10**7]}
    edit(folder, settings=claims)
    with pytest.raises(ValueError, match=r"do not match config.json .*\(10000000, "):
        load_network(folder)
    edit(folder, settings={**claims, "hidden": [4] * 100_000})
    with pytest.raises(ValueError, match=r"it would have over \d+ weights, the file has"):
        load_network(folder)
    edit(folder, settings={**claims, "hidden": []})
    with pytest.raises(ValueError, match=r"config\.json: its settings do not make a 'vae' net"):
        load_network(folder)


# Checksums


def test_a_changed_bit_is_told_by_name(tmp_path):
    # One bit of a mantissa: the weights are finite and of the right shapes, and wrong.
    _, folder = write(tmp_path)
    load_network(folder)
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged or of another"):
        load_network(folder)
    edit(folder, sha256=...)  # older folders have none
    load_network(folder)


def test_a_checksum_that_is_no_text_is_told(tmp_path):
    _, folder = write(tmp_path)
    edit(folder, sha256=3)
    with pytest.raises(ValueError, match="sha256 is 3, expected a text"):
        load_network(folder)


@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in PRETRAINED.glob("*/config.json"))
)
def test_shipped_weights_have_their_checksum(name):
    config = json.loads((PRETRAINED / name / "config.json").read_text())
    data = (PRETRAINED / name / "weights.safetensors").read_bytes()
    assert config["sha256"] == hashlib.sha256(data).hexdigest()
