"""`train`, from folders of clips to a folder of weights with its card."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import soundfile

from avse_ppl.cli.commands.training_data import format_command, parse_sources
from avse_ppl.data.readers import CORPORA, NOISE_LICENCES
from avse_ppl.pipeline.catalog import resolve_noise, resolve_speech
from tests.helpers import RATE_HZ, error_of, run_cli

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A few clips laid out as speechocean762 and as noise corpora."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = ["file\tspeaker"]
    for speaker in ("0001", "0007"):
        for i in range(2):
            clip = tmp_path / "so" / speaker / f"{i}.wav"
            clip.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(clip, 0.1 * rng.standard_normal(RATE_HZ), RATE_HZ)
            rows.append(f"{speaker}/{i}.wav\t{speaker}")
    (tmp_path / "so" / "list.tsv").write_text("\n".join(rows) + "\n")
    for label in ("dog", "rain"):
        clip = tmp_path / "noise" / "esc10" / label / "a.wav"
        clip.parent.mkdir(parents=True)
        soundfile.write(clip, 0.1 * rng.standard_normal(RATE_HZ), RATE_HZ)
    return tmp_path


def train(*arguments):
    options = ("--epochs", 1, "--encoder-epochs", 1, "--device", "cpu", "--threads", 1)
    workers = ("--workers", 0)  # each is a process that imports all anew
    return run_cli("train", "vae", "--speech", "speechocean762=so", *options, *workers, *arguments)


@pytest.fixture(autouse=True)
def _threads_stay():
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_train_writes_weights_that_enhance_takes(here):
    result = train("--noise", "noise", "-o", "mine", "--seed", 3)
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert result.stdout.endswith("mine: ready for avse-ppl enhance --speech mine\n")
    assert sorted(os.listdir("mine")) == [
        "README.md", "cache", "checkpoints", "config.json", "weights.safetensors",
    ]  # fmt: skip
    card = (here / "mine" / "README.md").read_text()
    stated = "avse-ppl train vae --speech speechocean762=so --noise noise -o mine --epochs 1"
    assert f"**command**: `{stated} --encoder-epochs 1 --seed 3 --precision 32-true`" in card
    assert "speechocean762: 2 clips, 0.0 min for training; 2 clips held out" in card
    assert "esc10 (noise): 1 clips, 0.0 min for training; 1 clips held out" in card
    assert CORPORA["speechocean762"].licence in card and NOISE_LICENCES["esc10"] in card
    assert str(here) not in card
    shown = json.loads(run_cli("models", "mine", "--json").stdout)
    assert shown["config"]["name"] == "mine"

    before = (here / "mine" / "weights.safetensors").read_bytes()
    again = train("--noise", "noise", "-o", "mine", "--seed", 3)
    assert again.exit_code == 0 and "warning" not in again.stderr
    assert (here / "mine" / "weights.safetensors").read_bytes() == before


def test_train_without_noise_and_with_a_cache_elsewhere(here):
    assert train("-o", "mine", "--cache", "decoded", "--no-resume").exit_code == 0
    assert sorted(os.listdir("decoded")) == ["speech.npy", "speech.npz"]
    assert sorted(os.listdir("mine/checkpoints")) == ["speech"]


@pytest.mark.parametrize("speech", [(), ("--speech", "speechocean762=so")])
def test_train_writes_a_noise_prior_that_enhance_takes(here, speech):
    options = ("--epochs", 1, "--encoder-epochs", 1, "--device", "cpu", "--workers", 0)
    result = run_cli("train", "noise-vae", "--noise", "noise", *speech, "-o", "mine", *options)
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert result.stdout.endswith("""ready for avse-ppl enhance --noise "learned('mine')"\n""")
    assert sorted(os.listdir("mine/checkpoints")) == (["encoder"] if speech else []) + ["noise"]
    card = (here / "mine" / "README.md").read_text()
    assert "Noise prior for avse-ppl: `tcvae`" in card
    assert "train noise-vae" in card and "esc10 (noise): 1 clips" in card
    assert ("speechocean762: 2 clips" in card) is bool(speech)
    shown = json.loads(run_cli("models", "mine", "--json").stdout)
    assert (shown["option"], shown["config"]["use"]) == ("--noise", "noise")
    assert resolve_noise("learned('mine')").name == "mine"
    with pytest.raises(ValueError, match="mine holds a noise prior; expected a speech prior"):
        resolve_speech("mine")


def test_train_says_what_the_prior_learns_from(here):
    said = error_of(run_cli("train", "noise-vae", "--speech", "speechocean762=so", "-o", "w"))
    assert said == "noise-vae learns from noise: give its folder with --noise DIR"
    said = error_of(run_cli("train", "vae", "--noise", "noise", "-o", "w"))
    assert said == "vae learns from speech: give a corpus with --speech CORPUS=DIR"
    assert sorted(os.listdir()) == ["noise", "so"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--speech", "ocean=so", "-o", "w"),
            "unknown corpus 'ocean'; known are avspeech, grid, lrs3",
        ),
        (("--speech", "speechocean=so", "-o", "w"), "did you mean 'speechocean762' or"),
        (("--speech", "so", "-o", "w"), "expected --speech CORPUS=DIR"),
        (("--speech", "grid=", "-o", "w"), "expected --speech CORPUS=DIR"),
        (("--speech", "grid=lost", "-o", "w"), "no folder lost"),
        (("--speech", "grid=so", "-o", "w"), "no clips in so"),
        (("--noise", "so", "-o", "w"), "leaves no clip for validation; the classes held out are"),
        (("--noise", "lost", "-o", "w"), "no folder lost"),
        (("-o", "so/list.tsv"), "'so/list.tsv' is a file"),
        (("-o", "w", "--cache", "so/list.tsv"), "'so/list.tsv' is a file"),
    ],
)
def test_train_refuses(here, arguments, message):
    assert message in error_of(train(*arguments))
    assert sorted(os.listdir()) == ["noise", "so"]


@pytest.mark.parametrize(
    ("prior", "arguments", "message"),
    [
        ("vae", ("--lips", "x"), "vae does not take --lips; this is for dkf, srnn, "),
        (
            "tcvae",
            ("--teacher", "x", "--visual-encoder", "x"),
            "not take --teacher, --visual-encoder; these are for",
        ),
        ("score", ("--teacher", "x"), "score does not take --teacher; this is for dkf, "),
        ("score", ("--encoder", "x"), "score does not take --encoder; this is for dkf, "),
        ("latent-diffusion", ("--encoder", "x"), "latent-diffusion does not take --encoder"),
        (
            "score",
            ("--visual-encoder", "lips"),
            "score has no video for --visual-encoder: give prepared lips",
        ),
        ("latent-diffusion", ("--visual-encoder", "lips"), "--lips CACHE, or leave"),
        ("score", ("--noise", "noise"), "learns from clean speech alone: leave --noise out"),
        ("av-dkf", ("--noise", "noise"), "av-dkf learns from lips: prepare a corpus that has"),
        ("dkf", (), "the encoder of dkf learns from noisy speech: give noise with --noise"),
        (
            "latent-diffusion",
            ("--lips", "lost"),
            "no lost.lips.npy; make it with: avse-ppl prepare",
        ),
        ("latent-diffusion", ("--teacher", "lost"), "--teacher lost: no config.json there"),
        ("predictor", ("--noise", "noise", "--lips", "x"), "predictor does not take --lips"),
        ("tcvae", ("--initial", "lost"), "--initial lost: no config.json there"),
        (
            "av-dkf",
            ("--initial", "x"),
            "av-dkf does not take --initial; this is for vae, rvae, tcvae, predictor",
        ),
        ("av-dkf", ("--trunk", "x"), "av-dkf does not take --trunk; this is for av-predictor"),
        ("av-predictor", (), "av-predictor learns from mixtures: give speech with"),
        ("av-predictor", ("--noise", "noise"), "av-predictor learns from lips: prepare a corpus"),
    ],
)
def test_train_says_what_a_prior_builds_on(here, prior, arguments, message):
    result = run_cli("train", prior, "--speech", "speechocean762=so", "-o", "w", *arguments)
    assert message in error_of(result)


@pytest.mark.parametrize(("corpus", "suffix"), [("lrw-ar", "mp4"), ("grid", "mkv")])
def test_train_needs_both_sides_of_the_split(here, corpus, suffix):
    (here / "x_unseen").mkdir()
    (here / "x_unseen" / f"a.{suffix}").touch()
    use = "validation" if corpus == "lrw-ar" else "training"
    result = run_cli("train", "vae", "--speech", f"{corpus}=x_unseen", "-o", "w")
    assert f"leaves no clip for {use}; --speech speechocean762=DIR has both" in error_of(result)


def test_train_says_what_it_needs(here, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'avse-ppl[train]'" in error_of(train("-o", "w"))
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = run_cli("train", "vae", "--speech", "speechocean762=so", "-o", "w", "--device", "cuda")
    assert "torch finds no CUDA device here" in error_of(result)


def test_the_stated_command_parses_to_what_was_given(tmp_path):
    sources = parse_sources(["grid=a b/grid_s1", "lrw-ar=lrw_ar"], tmp_path / "noise")
    options = {"--seed": 2, "--epochs": None, "--lips": ["a", "b"]}
    stated = format_command("rvae", sources, tmp_path / "my rvae", options)
    assert stated == (
        "avse-ppl train rvae --speech grid=grid_s1 --speech lrw-ar=lrw_ar --noise noise "
        "-o 'my rvae' --seed 2 --lips a --lips b"
    )
