"""`evaluate`, `mix`, `import-weights`, `models` and `doctor`, from the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import sys

import numpy as np
import pytest
import soundfile
import torch

from avse_ppl.evaluation.metrics import evaluate_pair
from avse_ppl.models.networks import VaeNetwork
from avse_ppl.models.weights.io import save_weights
from avse_ppl.signal.audio import Audio
from avse_ppl.signal.stft import Stft
from tests.helpers import RATE_HZ, error_of, run_cli


def bursts(seconds=2.0, rate_hz=RATE_HZ, seed=0, level=0.1):
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(seed).standard_normal(len(time_s))
    return level * noise * (0.02 + np.clip(np.sin(2 * np.pi * 2.5 * time_s), 0, 1))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clean, noise = bursts(), 0.05 * np.random.default_rng(1).standard_normal(2 * RATE_HZ)
    for name, samples in (("c", clean), ("n", clean + noise), ("e", clean + 0.3 * noise)):
        soundfile.write(f"{name}.wav", samples, RATE_HZ, subtype="FLOAT")
    soundfile.write("rain.flac", noise[: RATE_HZ // 2], RATE_HZ)
    return tmp_path


# --- evaluate ------------------------------------------------------------------------------------

PAIR = ("--clean", "c.wav", "--noisy", "n.wav", "--enhanced", "e.wav")


def test_evaluate_prints_a_table(here):
    result = run_cli("evaluate", *PAIR)
    pair = evaluate_pair("c.wav", "n.wav", "e.wav")
    assert result.exit_code == 0
    rows = {line.split("  ")[0]: line.split()[-3:] for line in result.stdout.splitlines()}
    before, after = pair["input"].si_sdr_db, pair["enhanced"].si_sdr_db
    assert rows["SI-SDR (dB)"] == [f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}"]
    assert rows["ESTOI"][1] == f"{pair['enhanced'].estoi:.3f}"
    assert [name in result.stdout for name in ("PESQ (wide-band)", "STOI")] == [True, True]


def test_evaluate_json(here):
    report = json.loads(run_cli("evaluate", *PAIR, "--json").stdout)
    pair = evaluate_pair("c.wav", "n.wav", "e.wav")
    assert report["input"] == pytest.approx(pair["input"].as_dict())
    assert report["enhanced"] == pytest.approx(pair["enhanced"].as_dict())
    expected = report["enhanced"]["stoi"] - report["input"]["stoi"]
    assert report["gain"]["stoi"] == pytest.approx(expected) and expected > 0


def test_evaluate_without_pesq_says_how_to_get_it(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    result = run_cli("evaluate", *PAIR)
    assert result.exit_code == 0
    row = next(line for line in result.stdout.splitlines() if line.startswith("PESQ"))
    assert row.split()[-3:] == ["n/a", "n/a", "n/a"]
    assert result.stderr.count("warning: PESQ is not computed: pip install 'avse-ppl[pesq]'") == 1
    report = json.loads(run_cli("evaluate", *PAIR, "--json").stdout)
    assert report["gain"]["pesq_wb"] is None and len(report["warnings"]) == 1


def test_evaluate_refuses_other_lengths_and_missing_files(here):
    soundfile.write("e.wav", bursts(1.0), RATE_HZ)
    assert "expected clean and enhanced of one length, found 32000" in error_of(
        run_cli("evaluate", *PAIR, "--json")
    )
    os.remove("n.wav")
    assert "expected a recording at 'n.wav', found nothing" in error_of(run_cli("evaluate", *PAIR))


def test_evaluate_scores_what_enhance_makes_of_44100_hz(here):
    for name in ("c", "n"):  # the enhancement is at the prior's 16 kHz
        samples, _ = soundfile.read(f"{name}.wav", dtype="float32")
        wide = Audio(samples, RATE_HZ).resample(44100).samples
        soundfile.write(f"{name}44.wav", wide, 44100, subtype="FLOAT")
        back = Audio(wide, 44100).resample(RATE_HZ).samples
        soundfile.write(f"{name}.wav", back, RATE_HZ, subtype="FLOAT")
    result = run_cli(
        "evaluate", "--clean", "c44.wav", "--noisy", "n44.wav", "--enhanced", "e.wav", "--json"
    )
    assert result.exit_code == 0
    expected = evaluate_pair("c.wav", "n.wav", "e.wav")["enhanced"].si_sdr_db
    report = json.loads(result.stdout)
    assert report["enhanced"]["si_sdr_db"] == pytest.approx(expected, abs=0.01)
    assert any("clean resampled from 44100 Hz" in text for text in report["warnings"])


# --- mix -----------------------------------------------------------------------------------------


def test_mix_writes_what_it_says(here):
    result = run_cli("mix", "c.wav", "rain.flac", "--snr-db", -5, "-o", "x.wav", "--save-speech",
                 "s.wav", "--save-noise", "d.wav", "--json")  # fmt: skip
    report = json.loads(result.stdout)
    assert (result.exit_code, report["snr_db"], report["warnings"]) == (0, -5.0, [])
    mixture, speech, noise = (soundfile.read(f"{n}.wav", dtype="float32")[0] for n in "xsd")
    np.testing.assert_array_equal(mixture, speech + noise)
    assert report["input_si_sdr_db"] == pytest.approx(
        evaluate_pair("s.wav", "x.wav", "x.wav")["input"].si_sdr_db, abs=0.01
    )
    line = run_cli("mix", "c.wav", "rain.flac", "--snr-db", -5, "-o", "y.wav").stdout
    assert line.startswith("y.wav: 2.00 s at 16000 Hz, SNR -5.0 dB, SI-SDR ")
    np.testing.assert_array_equal(soundfile.read("y.wav", dtype="float32")[0], mixture)


def test_mix_takes_its_place_in_the_noise_from_the_seed(here):
    mixtures = []
    for seed in (0, 0, 1):
        run_cli("mix", "c.wav", "rain.flac", "--snr-db", 0, "-o", "x.wav", "--seed", seed)
        mixtures.append(soundfile.read("x.wav")[0])
    np.testing.assert_array_equal(mixtures[0], mixtures[1])
    assert not np.allclose(mixtures[0], mixtures[2])


def test_mix_removes_rumble_unless_told_not_to(here):
    rumble = 0.02 * np.sin(2 * np.pi * 20 * np.arange(2 * RATE_HZ) / RATE_HZ)
    soundfile.write("c.wav", bursts() + rumble, RATE_HZ, subtype="FLOAT")
    shares = []
    for option in ((), ("--highpass-hz", 0)):
        speech = ("--save-speech", "s.wav")
        run_cli("mix", "c.wav", "rain.flac", "--snr-db", 20, "-o", "x.wav", *speech, *option)
        shares.append(soundfile.read("s.wav")[0] @ rumble / (rumble @ rumble))
    assert shares == pytest.approx([0.0, 1.0], abs=0.1)


def test_mix_says_what_it_changed(here):
    soundfile.write("rain.flac", np.stack([bursts(1.0, 8000)] * 2, axis=1), 8000)
    result = run_cli("mix", "c.wav", "rain.flac", "--snr-db", 0, "-o", "x.wav")
    assert result.stderr.splitlines() == [
        "warning: 'rain.flac': averaged 2 channels",
        "warning: resampled from 8000 Hz to 16000 Hz",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lost.wav", "rain.flac", "-o", "x.wav"), "expected a recording at 'lost.wav'"),
        (("c.wav", "lost.wav", "-o", "x.wav"), "expected a recording at 'lost.wav'"),
        (("c.wav", "rain.flac", "-o", "c.wav"), "would overwrite an input"),
        (("c.wav", "rain.flac", "-o", "x.wav", "--save-speech", "x.wav"), "two outputs have the"),
        (("c.wav", "rain.flac", "-o", "x.mp3"), "expected a name ending in"),
        (("c.wav", "rain.flac", "-o", "x.wav", "--save-noise", "no/d.wav"), "make the folder"),
        (("c.wav", "rain.flac", "-o", "x.wav", "--highpass-hz", "8000"), "less than half the sam"),
        (("c.wav", "nan.wav", "-o", "x.wav"), "NaN"),
        (("zero.wav", "rain.flac", "-o", "x.wav"), "speech is all zero"),
        (("hush.wav", "rain.flac", "-o", "x.wav"), "the recording is empty"),
        (("c.wav", "rain.flac", "-o", "x.wav", "--snr-db", "nan"), "expected a finite number"),
    ],
)
def test_mix_refuses(here, arguments, message):
    soundfile.write("nan.wav", np.full(4000, np.nan, "f4"), RATE_HZ, subtype="FLOAT")
    soundfile.write("zero.wav", np.zeros(4000), RATE_HZ)
    soundfile.write("hush.wav", np.zeros(0), RATE_HZ)
    before = sorted(os.listdir())
    assert message in error_of(run_cli("mix", "--snr-db", 0, *arguments))
    assert sorted(os.listdir()) == before


# --- import-weights ------------------------------------------------------------------------------


def test_import_weights_of_others(tmp_path, shared, monkeypatch):
    checkpoint = next((shared / "peers" / "A-VAE").glob("*.pt"))
    config = checkpoint.with_name("config.ini")
    monkeypatch.chdir(tmp_path)
    result = run_cli("import-weights", checkpoint, "--config", config, "-o", "theirs")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "theirs: ready for avse-ppl enhance --speech theirs\n"
    assert run_cli("models", "theirs").exit_code == 0


def test_import_weights_refuses(here):
    (here / "config.ini").write_text("[Network]\n")
    assert "no checkpoint at lost.pt" in error_of(
        run_cli("import-weights", "lost.pt", "--config", "config.ini", "-o", "w")
    )
    assert "'c.wav' is a file" in error_of(
        run_cli("import-weights", "lost.pt", "--config", "config.ini", "-o", "c.wav")
    )
    (here / "text.pt").write_text("no tensors")
    assert "not a plain state dictionary" in error_of(
        run_cli("import-weights", "text.pt", "--config", "config.ini", "-o", "w")
    )
    assert not (here / "w").exists()


# --- models --------------------------------------------------------------------------------------


@pytest.fixture
def weights(here):
    torch.manual_seed(0)
    stft, settings = Stft(), {"latent": 2, "hidden": (4,)}
    network = VaeNetwork(freq=stft.freq, **settings)
    card = {"licence": "that of the test"}
    return save_weights(here / "mine", network, "vae", settings, stft, name="mine", card=card)


def test_models_lists_everything(here):
    result = run_cli("models")
    listed = json.loads(run_cli("models", "--json").stdout)
    assert set(listed) == {"speech", "noise", "inference", "reliability"}
    for names in listed.values():
        for name in names:
            assert f"  {name} " in result.stdout
    assert {"gaussian", "nmf", "svi"} <= {name for names in listed.values() for name in names}


def test_models_shows_a_card(weights):
    result = run_cli("models", "mine")
    assert result.exit_code == 0
    assert "that of the test" in result.stdout and '"latent": 2' in result.stdout
    entry = json.loads(run_cli("models", "mine", "--json").stdout)
    assert entry["config"]["network"] == "vae" and entry["card"].startswith("# mine")
    (weights / "README.md").unlink()
    assert json.loads(run_cli("models", "mine", "--json").stdout)["card"] == "no card"


def test_models_shows_a_measured_figure_without_its_marker(here):
    card = json.loads(run_cli("models", "tcvae", "--json").stdout)["card"]
    assert "PESQ wide-band / ESTOI: " in card and "<!--" not in card


def test_models_shows_the_line_of_what_has_no_weights(here):
    lines = run_cli("models", "em-mala").stdout.splitlines()
    assert lines[0].startswith("--inference em-mala: ")
    assert lines[1].startswith("EM(e_step='mala', ")
    entry = json.loads(run_cli("models", "gaussian", "--json").stdout)
    assert (entry["name"], entry["option"]) == ("gaussian", "--speech")


def test_models_refuses(weights):
    assert "unknown model 'gausian'; known are " in error_of(run_cli("models", "gausian"))
    assert "did you mean 'gaussian'?" in error_of(run_cli("models", "gausian", "--json"))
    (weights / "weights.safetensors").write_bytes(b"cut short")
    assert "not a readable safetensors file" in error_of(run_cli("models", "mine"))
    (weights / "config.json").unlink()
    assert "'mine' holds no config.json" in error_of(run_cli("models", "mine"))


# --- doctor --------------------------------------------------------------------------------------


def test_doctor(here, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = run_cli("doctor", COLUMNS="200")
    assert (result.exit_code, result.stderr) == (0, "")
    for text in ("torch ", "device ", "weights ", "[train]", "[pesq]", "OMP_NUM_THREADS=1"):
        assert text in result.stdout
    there = importlib.util.find_spec("insightface") is not None
    assert ("not there: pip install 'avse-ppl[video]'" in result.stdout) is not there


def test_doctor_json_and_problems(here, monkeypatch):
    found = json.loads(run_cli("doctor", "--json").stdout)
    assert found["problems"] == []
    assert torch.__version__.startswith(found["required"]["torch"]["version"])
    monkeypatch.setitem(sys.modules, "librosa", None)
    result = run_cli("doctor", "--json")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: librosa: installed but broken: ")
    assert len(json.loads(result.stdout)["problems"]) == 1
