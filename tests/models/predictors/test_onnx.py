"""ONNX models of each kind, called as their description says, against what they compute."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from avse_ppl.models.predictors import onnx as adapter  # noqa: E402
from avse_ppl.models.predictors.adapters import resolve_predictor  # noqa: E402
from avse_ppl.models.predictors.checks import PredictorError  # noqa: E402
from avse_ppl.models.predictors.onnx import (  # noqa: E402
    convert_values,
    drop_axes,
    load_onnx,
    make_window,
    read_description,
)
from avse_ppl.models.predictors.predictor import Predictor  # noqa: E402
from avse_ppl.signal.speed import change_speed, fit_length  # noqa: E402

RATE_HZ = 16000
WAVE = np.random.default_rng(0).standard_normal(5000).astype("float32")
FRONT_END = {"n_fft": 64, "hop": 16, "window": "sqrt-hann"}
Shape = Sequence[int | str]


def save_model(
    folder: Path,
    nodes: list[Any],
    inputs: dict[str, Shape],
    outputs: dict[str, Shape],
    constants: dict[str, np.ndarray] | None = None,
    kind: int = onnx.TensorProto.FLOAT,
) -> None:
    """Write ``model.onnx`` of these nodes."""
    helper = onnx.helper
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(v, k) for k, v in (constants or {}).items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, folder / "model.onnx")


def make_node(operation: str, inputs: str, output: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(operation, inputs.split(), [output], **attributes)


def describe(folder: Path, **fields: Any) -> Path:
    """Write ``tiny.json``; fields that are None are left out."""
    found = {"model": "model.onnx", "sample_rate_hz": RATE_HZ, **fields}
    path = folder / "tiny.json"
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))
    return path


def tie(name: str, *axes: str) -> dict[str, Any]:
    return {"name": name, "axes": list(axes)}


HALF = {"half": np.array(0.5, "float32")}


def save_halving(folder: Path, shape: Shape) -> None:
    """Write a model that halves what it is given."""
    save_model(folder, [make_node("Mul", "x half", "y")], {"x": shape}, {"y": shape}, HALF)


def test_waveform_as_a_whole(tmp_path: Path) -> None:
    save_halving(tmp_path, [1, 1, "n"])
    axes = ("batch", "channel", "sample")
    path = describe(tmp_path, kind="waveform", input=tie("x", *axes), output=tie("y", *axes))
    model = load_onnx(path)
    assert model.name == "tiny"
    np.testing.assert_allclose(model(WAVE, RATE_HZ), 0.5 * WAVE)
    assert model(WAVE, 8000).shape == WAVE.shape  # resampled, and back


def test_waveform_in_blocks_with_a_state(tmp_path: Path) -> None:
    # Sum of all blocks so far: the state starts at zero and is carried along.
    nodes = [make_node("Add", "x before", "y"), make_node("Identity", "y", "after")]
    save_model(tmp_path, nodes, {"x": [1, 8], "before": ["b", 8]}, {"y": [1, 8], "after": ["b", 8]})
    fields = {
        "kind": "waveform", "call": "frame", "block_samples": 8, "caches": {"before": "after"},
        "input": tie("x", "batch", "sample"), "output": tie("y", "batch", "sample"),
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"open shape \['b', 8\]; state it in cache_shapes"):
        load_onnx(describe(tmp_path, **fields))
    model = load_onnx(describe(tmp_path, **fields, cache_shapes={"before": [1, 8]}))
    wave = WAVE[:21]  # no whole number of blocks
    expected = np.cumsum(np.pad(wave, (0, 3)).reshape(3, 8), 0).reshape(-1)[:21]
    for _ in range(2):  # a second recording starts anew
        np.testing.assert_allclose(model(wave, RATE_HZ), expected, rtol=1e-5)


def test_delay_is_made_good(tmp_path: Path) -> None:
    save_model(
        tmp_path, [make_node("Slice", "padded begin end axis", "y"),
                   make_node("Pad", "x pads", "padded")][::-1],
        {"x": [1, "n"]}, {"y": [1, "n"]},
        {"pads": np.array([0, 5, 0, 0]), "begin": np.array([0]), "end": np.array([-5]),
         "axis": np.array([1])},
    )  # fmt: skip
    fields = {"kind": "waveform", "input": tie("x", "batch", "sample"),
              "output": tie("y", "batch", "sample")}  # fmt: skip
    late = resolve_predictor(describe(tmp_path, **fields))
    assert isinstance(late, Predictor)
    with pytest.raises(PredictorError, match="comes 5 samples"):
        late.enhance(WAVE, RATE_HZ)
    for twice in ({}, {"lead_in_s": 0.01, "backward_weight": 0.5}):
        path = describe(tmp_path, **fields, delay_samples=5, **twice)
        np.testing.assert_array_equal(load_onnx(path)(WAVE, RATE_HZ), WAVE)
    path = describe(tmp_path, **fields, delay_samples=5, speeds=[0.8])
    found, slow = load_onnx(path)(WAVE, RATE_HZ), change_speed(change_speed(WAVE, 0.8), 1.25)
    np.testing.assert_allclose(found, 0.5 * (WAVE + fit_length(slow, len(WAVE))), atol=1e-6)


@pytest.mark.parametrize("call", ["frame", "whole"])
@pytest.mark.parametrize("window", adapter.WINDOWS)
def test_spectrum(tmp_path: Path, call: str, window: str) -> None:
    time = 1 if call == "frame" else "t"
    save_halving(tmp_path, [1, time, 2, 33])
    axes = ("batch", "time", "part", "freq")
    fields = {**FRONT_END, "window": window, "kind": "spectrum", "call": call}
    path = describe(tmp_path, **fields, input=tie("x", *axes), output=tie("y", *axes))
    np.testing.assert_allclose(load_onnx(path)(WAVE, RATE_HZ), 0.5 * WAVE, atol=1e-5)
    assert load_onnx(path)(WAVE[:20], RATE_HZ).shape == (20,)  # shorter than the window


@pytest.mark.parametrize("values", ["magnitude", "power", "log-power"])
def test_mask_of_what_is_no_spectrum(tmp_path: Path, values: str) -> None:
    save_model(tmp_path, [make_node("Sigmoid", "x", "y")], {"x": [1, "t", 33]}, {"y": [1, "t", 33]})
    axes = ("batch", "time", "freq")
    path = describe(
        tmp_path, **FRONT_END, kind="mask", values=values, input=tie("x", *axes),
        output=tie("y", *axes),
    )  # fmt: skip
    window = torch.hann_window(64).sqrt()
    spectrum = torch.stft(torch.from_numpy(WAVE), 64, 16, window=window, return_complex=True)
    size = {"magnitude": spectrum.abs(), "power": spectrum.abs() ** 2,
            "log-power": (spectrum.abs() ** 2 + 1e-12).log()}[values]  # fmt: skip
    expected = torch.istft(spectrum * size.sigmoid(), 64, 16, window=window, length=len(WAVE))
    np.testing.assert_allclose(load_onnx(path)(WAVE, RATE_HZ), expected.numpy(), atol=1e-4)


def test_complex_mask_and_half_precision(tmp_path: Path) -> None:
    # i times the spectrum would be a mask of (0, 1); here it is the spectrum itself: S * S.
    shape = [1, 33, "t", 2]
    save_model(
        tmp_path, [make_node("Identity", "x", "y")], {"x": shape}, {"y": shape},
        kind=onnx.TensorProto.FLOAT16,
    )  # fmt: skip
    axes = ("batch", "freq", "time", "part")
    path = describe(
        tmp_path, **FRONT_END, kind="mask", input=tie("x", *axes), output=tie("y", *axes)
    )
    window = torch.hann_window(64).sqrt()
    spectrum = torch.stft(torch.from_numpy(WAVE), 64, 16, window=window, return_complex=True)
    expected = torch.istft(spectrum.square(), 64, 16, window=window, length=len(WAVE)).numpy()
    found = load_onnx(path)(WAVE, RATE_HZ)
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


def test_threads_are_those_of_torch(tmp_path: Path) -> None:
    axes = ("batch", "sample")
    fields = {"kind": "waveform", "input": tie("x", *axes), "output": tie("y", *axes)}
    save_halving(tmp_path, [1, "n"])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        session = load_onnx(describe(tmp_path, **fields)).session
        assert session.get_session_options().intra_op_num_threads == 2
    finally:
        torch.set_num_threads(before)
    frames = load_onnx(describe(tmp_path, **fields, call="frame", block_samples=4)).session
    assert frames.get_session_options().intra_op_num_threads == 1


WHOLE = {"kind": "waveform", "input": tie("x", "batch", "sample"),
         "output": tie("y", "batch", "sample")}  # fmt: skip
SPECTRAL = {"kind": "spectrum", **FRONT_END, "input": tie("x", "freq", "time", "part"),
            "output": tie("y", "freq", "time", "part")}  # fmt: skip
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "kind": (WHOLE | {"kind": "waveforms"}, "unknown kind 'waveforms'.*did you mean 'waveform'"),
    "window": (SPECTRAL | {"window": "han"}, "did you mean 'hann'"),
    "values": (SPECTRAL | {"values": "phase"}, "unknown values 'phase'"),
    "call": (WHOLE | {"call": "frames"}, "did you mean 'frame'"),
    "field": (WHOLE | {"hopp": 3}, "unknown field 'hopp'"),
    "missing": (WHOLE | {"input": None}, "expected the field 'input', which is missing"),
    "input": (WHOLE | {"input": "x"}, "input is 'x'; expected { name"),
    "axes": (WHOLE | {"input": tie("x", "time")}, r"input.axes are \['time'\]; expected each of"),
    "axis twice": (WHOLE | {"input": tie("x", "sample", "sample")}, "input.axes are"),
    "rate": (WHOLE | {"sample_rate_hz": "16k"}, "sample_rate_hz must be a whole number"),
    "lead-in": (WHOLE | {"lead_in_s": "3"}, "lead_in_s must be a finite number"),
    "backward": (WHOLE | {"backward_weight": 1}, r"backward_weight must be in \[0, 1\), not 1"),
    "speeds": (WHOLE | {"speeds": "0.9"}, "speeds must be a list of numbers, not '0.9'"),
    "delay": (WHOLE | {"delay_samples": -1}, "delay_samples must be a whole number of at least 0"),
    "block": (WHOLE | {"call": "frame"}, "block_samples must be a whole number"),
    "n_fft": (SPECTRAL | {"n_fft": None}, "n_fft must be a whole number"),
    "hop": (SPECTRAL | {"hop": 33}, "hop is 33; expected at most half of n_fft, 64"),
    "no part": (SPECTRAL | {"input": tie("x", "freq", "time")}, "an axis 'part' where the values"),
    "part": (SPECTRAL | {"values": "power"}, "and none where they are not"),
    "no spectrum": (SPECTRAL | {"output": tie("y", "freq", "time")}, "Is it a mask?"),
    "caches": (WHOLE | {"caches": ["a"]}, r"caches are \['a'\]; expected the output of each"),
    "shapes": (WHOLE | {"cache_shapes": {"a": [1]}}, "expected shapes of some of"),
    "shape": (WHOLE | {"caches": {"a": "b"}, "cache_shapes": {"a": 3}}, "expected a list of len"),
    "length": (WHOLE | {"caches": {"a": "b"}, "cache_shapes": {"a": [0]}}, "a length of 'a' must"),
    "model": (WHOLE | {"model": 3}, "model is 3; expected a text"),
    "input name": (WHOLE | {"input": tie("xx", "batch", "sample")}, "unknown input of model.onnx"),
    "output name": (WHOLE | {"output": tie("z", "batch", "sample")}, "unknown output of model.on"),
    "rank": (WHOLE | {"output": tie("y", "sample")}, r"'y' of model.onnx has shape \[1, 'n'\]; th"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_descriptions_are_told(tmp_path: Path, case: str) -> None:
    save_halving(tmp_path, [1, "n"])
    fields, text = WRONG[case]
    with pytest.raises(ValueError, match=text):
        load_onnx(describe(tmp_path, **fields))


def test_files_that_are_none_are_told(tmp_path: Path) -> None:
    path = describe(tmp_path, **WHOLE)
    with pytest.raises(PredictorError, match=r"no model that the description names: .*model.onnx"):
        resolve_predictor(path)
    (tmp_path / "model.onnx").write_text("text")
    with pytest.raises(ValueError, match=r"model.onnx is no model of ONNX"):
        load_onnx(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="found list"):
        read_description(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"tiny.json is no JSON"):
        read_description(path)
    (tmp_path / "tiny.toml").write_text("model = ")
    with pytest.raises(ValueError, match=r"tiny.toml is no TOML"):
        read_description(tmp_path / "tiny.toml")


def test_models_that_do_not_fit_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An input that is not described, one of whole numbers, a spectrum of other size.
    save_model(tmp_path, [make_node("Add", "x level", "y")], {"x": [1, "n"], "level": [1]},
               {"y": [1, "n"]})  # fmt: skip
    with pytest.raises(ValueError, match=r"input 'level' of model.onnx is not described"):
        load_onnx(describe(tmp_path, **WHOLE))
    save_model(tmp_path, [make_node("Identity", "x", "y")], {"x": [1, "n"]}, {"y": [1, "n"]},
               kind=onnx.TensorProto.INT64)  # fmt: skip
    with pytest.raises(ValueError, match=r"of type tensor\(int64\); expected one of"):
        load_onnx(describe(tmp_path, **WHOLE))
    save_halving(tmp_path, [20, "t", 2])
    with pytest.raises(ValueError, match="does not run as"):
        load_onnx(describe(tmp_path, **SPECTRAL))
    for begin, text in (
        ([1, 0, 0], "32, .* frequencies and frames for"),
        ([0, 0, 1], "dimension of size 2"),
    ):
        save_model(
            tmp_path, [make_node("Slice", "x begin end", "y")], {"x": [33, "t", 2]},
            {"y": ["f", "t", "p"]},
            {"begin": np.array(begin), "end": np.array([99, 99999, 9])},
        )  # fmt: skip
        with pytest.raises(ValueError, match=rf"does not run as.*{text}"):
            load_onnx(describe(tmp_path, **SPECTRAL))
    save_model(
        tmp_path, [make_node("Slice", "x begin end", "y")], {"x": [1, "n"]}, {"y": [1, "m"]},
        {"begin": np.array([0, 9]), "end": np.array([1, 99999])},
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"returned \(3991,\) for \(4000,\)"):
        load_onnx(describe(tmp_path, **WHOLE))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PredictorError, match=r"pip install 'avse-ppl\[predictors\]'"):
        resolve_predictor(describe(tmp_path, **WHOLE))


def test_windows_values_and_axes() -> None:
    with pytest.raises(ValueError, match=r"the output has shape \(2, 3\); .* have length 1"):
        drop_axes(np.zeros((2, 3)), ("batch", "sample"), ("sample",))
    for name in adapter.WINDOWS:
        assert make_window(name, 8).shape == (8,)
    assert convert_values(torch.full((2, 3), 3 + 4j), "complex").shape == (2, 3, 2)
    assert convert_values(torch.full((2, 3), 3 + 4j), "power")[0, 0] == pytest.approx(25.0)


def test_a_streaming_model_of_the_literature_enhances(shared: Path, tmp_path: Path) -> None:
    from avse_ppl import load_audio
    from tests.helpers import BUNDLED, ROOT

    model = shared / "peers" / "gtcrn" / "gtcrn_simple.onnx"
    if not model.is_file():
        pytest.skip("no GTCRN beside the checkout")
    text = (ROOT / "docs" / "guides" / "predictor.md").read_text().split("```toml\n")[1]
    text = text.split("```")[0].replace("gtcrn_simple.onnx", str(model))
    (tmp_path / "gtcrn.toml").write_text(text)
    speech = load_audio(BUNDLED / "speech.flac").samples[: 2 * RATE_HZ]
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype("float32")
    mixture = speech + noise * speech.std() * 0.5
    predictor = resolve_predictor(tmp_path / "gtcrn.toml")
    assert isinstance(predictor, Predictor)
    found = predictor.enhance(mixture, RATE_HZ)
    assert np.square(found - speech).mean() < 0.4 * np.square(mixture - speech).mean()
