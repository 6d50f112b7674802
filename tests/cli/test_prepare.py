"""`prepare` on the command line."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import avse_ppl.video
import avse_ppl.video.face_detector
from avse_ppl.cli.main import app
from avse_ppl.data import load_cache, load_lips
from avse_ppl.data.readers import CORPORA
from avse_ppl.video import Lips
from tests.helpers import RATE_HZ


def run(*arguments):
    return CliRunner().invoke(app, ["prepare", *(str(a) for a in arguments)])


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    """VoiceBank-DEMAND in small."""
    monkeypatch.chdir(tmp_path)
    for part, name in (("train", "p227"), ("train", "p226"), ("test", "p232")):
        for kind in ("clean", "noisy"):
            path = tmp_path / "vb" / f"{kind}_{part}set_wav" / f"{name}_001.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * np.sin(np.arange(RATE_HZ // 2) / 9), RATE_HZ)
    return tmp_path / "vb"


def test_it_prepares_and_says_what(pairs):
    result = run("voicebank-demand", "vb", "-o", "cache/vb")
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert result.stdout == "cache/vb: 3 clips (1 train, 1 dev, 1 test), 0.0 min\n"
    assert len(load_cache("cache/vb")) == len(load_cache("cache/vb.noisy")) == 3


def test_what_cannot_be_read_is_listed(pairs):
    (pairs / "noisy_testset_wav" / "p232_001.wav").unlink()
    (pairs / "clean_trainset_wav" / "p227_001.wav").write_bytes(b"none")
    result = run("voicebank-demand", "vb", "-o", "vb1", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["clips"] == 1 and report["splits"] == {"train": 0, "dev": 1, "test": 0}
    assert [path.split("/")[-1] for path, _ in report["left_out"]] == [
        "p232_001.wav", "p227_001.wav",
    ]  # fmt: skip
    lines = result.stderr.splitlines()
    assert len(lines) == 2 and all(line.startswith("left out: ") for line in lines)
    assert "; left out 2" in run("voicebank-demand", "vb", "-o", "vb1").stdout


def test_mouths_and_those_without(tmp_path, monkeypatch):
    def read_lips(source, *, face_model, face):
        if source.stem == "b":
            raise ValueError("no face in it")
        assert face == 1
        return Lips.from_crops(np.full((12, 88, 88), 90, np.uint8), rate_hz=25)

    monkeypatch.setattr(avse_ppl.video, "read_lips", read_lips)
    monkeypatch.setattr(avse_ppl.video.face_detector, "load_detector", lambda path: path)
    folder = tmp_path / "lrs3" / "test" / "x"
    folder.mkdir(parents=True)
    for name in "ab":
        with (folder / f"{name}.mp4").open("wb") as file:
            samples = 0.1 * np.sin(np.arange(RATE_HZ // 2) / 9)
            soundfile.write(file, samples, RATE_HZ, format="WAV", subtype="PCM_16")
    (tmp_path / "m.onnx").touch()
    options = ("--face-model", tmp_path / "m.onnx", "--face", "1")
    result = run("lrs3", tmp_path / "lrs3", "-o", tmp_path / "c", *options)
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert result.stdout.endswith(
        "2 clips (2 test), 0.0 min, 12 frames, a face in 100.0% of them; without mouth 1\n"
    )
    assert result.stderr.startswith("without mouth: ") and "no face in it" in result.stderr
    assert load_lips(tmp_path / "c").has_frames.tolist() == [True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lrs3", "absent", "-o", "c"), "no folder absent"),
        (("voicebank-demand", "vb", "-o", "c", "--face", "left"), "--face is 'left'; expected"),
        (("voicebank-demand", "vb", "-o", "c", "--face-model", "m"), "no face detector at 'm'"),
        (("voicebank-demand", "vb", "-o", "vb/clean_testset_wav/p232_001.wav/c"), "is a file"),
        (("voicebank-demand", "vb", "-o", "c", "--highpass-hz", "9000"), "highpass_hz is 9000"),
    ],
)
def test_what_cannot_be_done_is_refused(pairs, arguments, message):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.match(rf"error: .*{re.escape(message)}", result.stderr), result.stderr


def test_every_corpus_has_a_reader_that_names_its_layout(tmp_path):
    shown = run("--help").stdout
    for name, corpus in CORPORA.items():
        with pytest.raises(FileNotFoundError, match="expected"):
            corpus.reader(tmp_path / "absent")
        assert name in shown
