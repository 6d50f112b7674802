"""``avse-ppl predictors``: the list, and the fit of an error law that ``enhance`` takes."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from avse_ppl import Posterior, Stft
from avse_ppl.cli.commands import predictors as command
from avse_ppl.data import mix
from avse_ppl.data.readers import CORPORA, NOISE_LICENCES
from avse_ppl.models.predictors.adapters import (
    PREDICTORS,
    resolve_predictor,
    unwrap_combination,
)
from avse_ppl.models.predictors.error_law import ErrorLaw
from avse_ppl.models.predictors.predictor import Predictor
from avse_ppl.signal.audio import load_audio
from avse_ppl.training.datasets import speech_crops
from avse_ppl.training.datasets.predicted_mixtures import (
    PredictedMixture,
    make_case,
    measure_coverage,
    measure_rms,
)
from avse_ppl.training.phases import combination, error_law
from avse_ppl.utils.files import lock_folder
from tests.helpers import BUNDLED, RATE_HZ, error_of, run_cli

ENHANCER = """
import os
import pathlib
import numpy as np

def denoise(wave, sample_rate_hz):
    print("noise on stdout")
    with open("calls.txt", "a") as file:
        file.write(f"{np.sqrt(np.mean(np.square(wave)))}\\n")
    calls = len(pathlib.Path("calls.txt").read_text().splitlines())
    if os.environ.get("STOP_AT") == str(calls):
        raise KeyboardInterrupt
    if str(calls) in os.environ.get("FAIL_AT", "").split(","):
        return wave[:3]
    return 0.9 * wave
"""
CORPUS = ("--speech", "speechocean762=so", "--noise", "noise")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A few clips laid out as corpora, an enhancer, short mixtures and a short fit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    rng = np.random.default_rng(0)
    rows = ["file\tspeaker"]
    for speaker in ("0001", "0007"):
        clip = tmp_path / "so" / speaker / "0.wav"
        clip.parent.mkdir(parents=True)
        soundfile.write(clip, 0.1 * rng.standard_normal(RATE_HZ), RATE_HZ)
        rows.append(f"{speaker}/0.wav\t{speaker}")
    (tmp_path / "so" / "list.tsv").write_text("\n".join(rows) + "\n")
    for label in ("dog", "rain"):
        clip = tmp_path / "noise" / "esc10" / label / "a.wav"
        clip.parent.mkdir(parents=True)
        soundfile.write(clip, 0.1 * rng.standard_normal(RATE_HZ), RATE_HZ)
    (tmp_path / "fitted_enhancer.py").write_text(ENHANCER)
    monkeypatch.delitem(sys.modules, "fitted_enhancer", raising=False)
    monkeypatch.setattr(command, "CROP_S", 0.5)
    short = partial(error_law.fit_error_law, steps=3)
    monkeypatch.setattr(error_law, "fit_error_law", short)
    return tmp_path


def fit(*arguments: Any, **environment: str) -> Any:
    options = ("-o", "law", "--mixtures", 10)
    name = "fitted_enhancer:denoise"
    return run_cli("predictors", "fit", name, *CORPUS, *options, *arguments, **environment)


def count_calls() -> int:
    return len(Path("calls.txt").read_text().splitlines())


def test_predictors_are_listed() -> None:
    assert "[predictors]" in run_cli("predictors").stdout  # no markup
    shown = json.loads(run_cli("predictors", "--json").stdout)
    assert list(shown) == list(PREDICTORS)
    assert shown["deepfilternet"]["law"] is True
    for name, entry in PREDICTORS.items():
        assert shown[name]["installed"] is entry.is_installed()
        assert shown[name]["description"] == entry.description
    text = run_cli("predictors").stdout
    assert all(name in text for name in PREDICTORS) and "avse-ppl predictors fit" in text


def test_a_law_is_fitted_and_taken(here: Path) -> None:
    result = fit("--seed", 3)
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert "noise on stdout" not in result.stdout
    assert result.stdout.endswith("law: ready for avse-ppl enhance --predictor law\n")
    assert sorted(os.listdir("law")) == [
        "README.md", "cache", "law.json", "law.safetensors", "pairs", "predictor.json",
    ]  # fmt: skip
    assert json.loads(Path("law/predictor.json").read_text()) == {
        "predictor": "fitted_enhancer:denoise"
    }
    np.testing.assert_allclose(np.loadtxt("calls.txt"), 0.1, rtol=1e-4)  # RMS that it was given

    # The card.
    card = Path("law/README.md").read_text()
    stated = "avse-ppl predictors fit fitted_enhancer:denoise --speech speechocean762=so"
    assert f"`{stated} --noise noise -o law --mixtures 10 --seed 3`" in card
    assert CORPORA["speechocean762"].licence in card and NOISE_LICENCES["esc10"] in card
    assert "10 of 0.5 s at -8 to 12 dB" in card and "1 mixtures that were held out" in card
    assert str(here) not in card
    lines = dict(line[4:].split("**: ") for line in card.splitlines() if line.startswith("- **"))
    before, after = (lines[f"SI-SDR of the {what}"] for what in ("mixtures", "predictions"))
    assert before == after  # a gain does not count
    assert -8.1 < float(before.split()[0]) < 12.1

    # It is what enhance takes.
    found = resolve_predictor("law")
    assert isinstance(found, Predictor) and found.law.fitted
    mixture = Stft().analyse(np.random.default_rng(0).standard_normal(4000).astype("float32"))
    assert not torch.equal(
        found.law(mixture, 0.9 * mixture.values), ErrorLaw()(mixture, 0.9 * mixture.values)
    )
    soundfile.write("noisy.wav", 0.1 * np.random.default_rng(1).standard_normal(3000), RATE_HZ)
    run = ("--speech", "gaussian", "--noise", "nmf", "--inference", "em", "--json")
    result = run_cli("enhance", "noisy.wav", "-o", "a.wav", "--predictor", "law", *run)
    assert result.exit_code == 0, (result.stderr, result.exception)


def test_a_fit_goes_on_where_it_ended(here: Path) -> None:
    assert fit(STOP_AT="5").exit_code != 0
    kept = sorted(os.listdir("law/pairs"))
    assert kept == [f"{i:04d}.npz" for i in range(4)] and not Path("law/law.json").exists()
    for name in kept:
        with np.load(f"law/pairs/{name}") as stored:  # nothing pickled
            assert {stored[key].dtype.kind for key in stored.files} == {"f", "U"}
    assert fit().exit_code == 0 and count_calls() == 5 + 6
    one_go = Path("law/law.safetensors").read_bytes()
    assert fit().exit_code == 0 and count_calls() == 11
    assert fit("--mixtures", 12).exit_code == 0 and count_calls() == 13
    Path("law/pairs/0002.npz").write_bytes(b"damaged")
    assert fit("--no-resume").exit_code == 0 and count_calls() == 23
    assert Path("law/law.safetensors").read_bytes() == one_go
    Path("law/pairs/0002.npz").write_bytes(b"damaged")
    assert fit().exit_code == 0 and count_calls() == 24
    assert fit("--seed", 1).exit_code == 0 and count_calls() == 34
    Path("fitted_enhancer.py").write_text(ENHANCER + "\n")  # another version of it
    assert fit("--seed", 1).exit_code == 0 and count_calls() == 44


def test_predictions_that_fail_are_left_out_unless_many_do(here: Path) -> None:
    result = fit(FAIL_AT="4")
    assert result.exit_code == 0, result.stderr
    assert "1 of 10 predictions failed and are left out" in " ".join(result.stderr.split())
    assert "- **mixtures**: 9 of" in Path("law/README.md").read_text()
    for failing in ("1", "3,5"):
        Path("calls.txt").unlink()
        result = fit("--no-resume", FAIL_AT=failing)
        assert result.exit_code == 2 and "returned shape (3,)" in result.stderr


def test_predictors_are_combined_on_the_development_split(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        combination, "fit_combination", partial(combination.fit_combination, steps=3)
    )
    name = "fitted_enhancer:denoise+fitted_enhancer:halve"
    halve = "\ndef halve(wave, rate_hz):\n    return 0.5 * wave\n"
    Path("fitted_enhancer.py").write_text(ENHANCER + halve)
    split = []
    monkeypatch.setattr(
        speech_crops.MixtureCrops, "__init__",
        lambda self, cache, which, *rest, plain=speech_crops.MixtureCrops.__init__: (
            split.append(which), plain(self, cache, which, *rest))[1],
    )  # fmt: skip
    arguments = ("predictors", "fit", name, *CORPUS, "-o", "both", "--mixtures", 10)
    result = run_cli(*arguments)
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert split == ["dev"]
    assert "of the development split" in Path("both/README.md").read_text()
    assert sorted(os.listdir("both/pairs")) == ["0", "1"] and count_calls() == 10
    found = resolve_predictor("both")
    assert isinstance(found, Predictor) and found.law.fitted
    combined = unwrap_combination(found)
    assert combined is not None and combined.combination.fitted
    wave = 0.1 * np.random.default_rng(1).standard_normal(3000).astype("float32")
    assert not np.allclose(found.enhance(wave, RATE_HZ), 0.7 * wave, atol=1e-4)  # no plain mean
    assert (
        run_cli(*arguments).exit_code == 0 and count_calls() == 10 + 1
    )  # nothing but the call above
    Path("fitted_enhancer.py").write_text(ENHANCER + halve + "\n")  # another version of both
    assert run_cli(*arguments).exit_code == 0 and count_calls() == 21


def test_a_description_is_found_from_any_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    value = partial(onnx.helper.make_tensor_value_info, elem_type=1, shape=[1, "n"])
    half = onnx.helper.make_tensor("half", 1, [1], [0.5])
    node = onnx.helper.make_node("Mul", ["x", "half"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value("x")], [value("y")], [half])
    opset = [onnx.helper.make_opsetid("", 13)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    (here / "models").mkdir()
    onnx.save(model, "models/half.onnx")
    tie = '{{ name = "{}", axes = ["batch", "sample"] }}'
    text = 'model = "half.onnx"\nsample_rate_hz = 16000\nkind = "waveform"\ncall = "whole"\n'
    text += f"input = {tie.format('x')}\noutput = {tie.format('y')}\n"
    (here / "models" / "half.toml").write_text(text)
    where = ("-o", "law", "--mixtures", 10)
    result = run_cli("predictors", "fit", "models/half.toml", *CORPUS, *where)
    assert result.exit_code == 0, (result.stderr, result.exception)
    named = json.loads((here / "law" / "predictor.json").read_text())["predictor"]
    assert named == os.path.join("..", "models", "half.toml")
    assert "fit half.toml" in (here / "law" / "README.md").read_text()
    monkeypatch.chdir(here / "so")
    found = resolve_predictor(here / "law")
    assert isinstance(found, Predictor) and found.law.fitted
    assert found.enhance(np.ones(100, "float32"), RATE_HZ)[50] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("fitted_enhancer:denoys", (), "did you mean 'denoise'"),
        ("lost:denoise", (), "no module 'lost'"),
        ("deepfilternt", (), "did you mean 'deepfilternet'"),
        ("lost.toml", (), "lost.toml"),
        ("none", (), "'none' is no predictor"),
        ("so", (), "'so' is a folder"),
        ("fitted_enhancer:denoise", ("--speech", "ocean=so"), "unknown corpus 'ocean'"),
        ("fitted_enhancer:denoise", ("--speech", "grid=lost"), "no folder lost"),
        ("fitted_enhancer:denoise", ("--noise", "lost"), "no folder lost"),
        ("fitted_enhancer:denoise", ("-o", "so/list.tsv"), "is a file"),
    ],
)
def test_fit_refuses_before_anything_is_decoded(
    here: Path, name: str, arguments: tuple[str, ...], message: str
) -> None:
    options = (*CORPUS, "-o", "law", *arguments)
    assert message in error_of(run_cli("predictors", "fit", name, *options))
    assert not Path("law").exists() and not Path("calls.txt").exists()


def test_two_fits_do_not_write_into_one_folder(here: Path) -> None:
    with lock_folder("law"):
        assert "another run is writing into 'law'" in error_of(fit())


def test_coverage_is_that_of_the_law() -> None:
    rng = np.random.default_rng(0)
    mixture, error = rng.standard_normal((2, 16000)).astype("float32")
    case = make_case(PredictedMixture(mixture, mixture - 0.1 * error, mixture), Stft())
    truth = torch.full(case[0].values.shape, 2 * np.log(0.1 * measure_rms(error)))
    exact: Any = lambda mixture, predicted: truth  # noqa: E731
    wide: Any = lambda mixture, predicted: truth + np.log(2.0)  # noqa: E731
    assert measure_coverage(exact, [case]) == pytest.approx(0.9, abs=0.02)
    assert measure_coverage(exact, [case], 0.5) == pytest.approx(0.5, abs=0.02)
    assert measure_coverage(wide, [case]) == pytest.approx(1 - 0.1**2, abs=0.01)


# --- diagnose ------------------------------------------------------------------------------------


def test_a_posterior_is_diagnosed_with_the_predictor_that_took_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    speech, rain = (load_audio(BUNDLED / name).samples for name in ("speech.flac", "rain.flac"))
    made = mix(speech[8000:24000], rain, 0.0, seed=0)
    soundfile.write("noisy.wav", made.mixture, RATE_HZ)
    words = ["enhance", "noisy.wav", "-o", "e.wav", "--posterior", "p.nc", "--speech", "gaussian",
             "--noise", "stationary", "--draws", "20"]  # fmt: skip
    assert run_cli(*words, "--predictor", "predictor").exit_code == 0
    scene = ("--speech", "gaussian", "--noise", "stationary")
    done = run_cli("diagnose", "p.nc", *scene, "--json")
    assert done.exit_code in (0, 1), done.stderr  # a crude prior may fail its checks
    (found,) = json.loads(done.stdout)["recordings"]
    assert "p_law" in found
    assert "add --noise" in error_of(run_cli("diagnose", "p.nc", "--predictor", "predictor"))
    unknown = replace(Posterior.load("p.nc"), attrs={"predictor": "mine"})
    unknown.save("q.nc")
    assert "give it by --predictor" in error_of(run_cli("diagnose", "q.nc", *scene))
