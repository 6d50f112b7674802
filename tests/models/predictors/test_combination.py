"""Several predictors as one: weights, files, names, and the fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from avse_ppl.models.predictors.adapters import (
    COMBINED,
    load_combined,
    resolve_predictor,
    split_names,
    unwrap_combination,
)
from avse_ppl.models.predictors.checks import PredictorError
from avse_ppl.models.predictors.combination import (
    LAWS,
    Combination,
    CombinedEnhancer,
    describe_predictions,
    load_combination,
)
from avse_ppl.models.predictors.error_law import has_shipped_law
from avse_ppl.models.predictors.predictor import Predictor
from avse_ppl.signal.stft import Stft
from avse_ppl.training.phases.combination import CombinationCase, fit_combination

STFT = Stft()
RATE_HZ = 16000


def make_case(seed: int, good: int) -> CombinationCase:
    """Noise as speech; one of two predictions is nearly right, the other mostly noise."""
    rng = np.random.default_rng(seed)
    speech, noise, other = (rng.standard_normal(4000).astype("float32") for _ in range(3))
    mixture = STFT.analyse(speech + noise)
    speech, noise, other = (
        STFT.forward(torch.from_numpy(wave))[None] / mixture.scale
        for wave in (speech, noise, other)
    )
    predictions = [speech + 0.8 * other, speech + 0.8 * other]
    predictions[good] = speech + 0.1 * noise
    return CombinationCase(mixture, (predictions[0], predictions[1]), speech)


def measure_error(found: torch.Tensor, speech: torch.Tensor) -> float:
    return float((found - speech).abs().square().mean() / speech.abs().square().mean())


def test_the_better_prediction_is_found_and_the_first_counts_by_agreement() -> None:
    torch.manual_seed(0)
    weights = fit_combination([make_case(seed, good=1) for seed in range(5)], steps=40)
    mixture, predictions, speech = make_case(9, good=1)
    features = describe_predictions(mixture, predictions)
    weighed = weights.combine(features, mixture.values, predictions)
    errors = [measure_error(one, speech) for one in (weighed, *predictions)]
    mean = measure_error(0.5 * (predictions[0] + predictions[1]), speech)
    assert errors[0] < 0.3 * mean < errors[1]

    # Correlations of .78 and nearly 1: .25 and a share of .5 below, .75 above .9.
    for second, correlation in ((predictions[1], 1 / 1.64**0.5), (1.1 * predictions[0], 1.0)):
        given = (predictions[0], second)
        features = describe_predictions(mixture, given)
        weighed = weights.combine(features, mixture.values, given)
        share = 0.25 + 0.5 * min(1.0, (correlation - 0.7) / 0.2)
        expected = share * given[0] + (1.0 - share) * weighed
        torch.testing.assert_close(weights(mixture, given), expected, atol=0.02, rtol=0.0)


def test_without_a_fit_it_is_the_mean_and_needs_two() -> None:
    mixture, predictions, _ = make_case(0, good=0)
    mean = 0.5 * (predictions[0] + predictions[1])
    torch.testing.assert_close(Combination(2)(mixture, predictions), mean)
    with pytest.raises(ValueError, match="found 1 predictor; expected two or more"):
        Combination(1)
    with pytest.raises(ValueError, match="needs 4 mixtures or more; found 1"):
        fit_combination([make_case(0, good=0)])


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    mixture, predictions, _ = make_case(0, good=0)
    weights = fit_combination([make_case(seed, good=0) for seed in range(4)], steps=2)
    read = load_combination(weights.save(tmp_path))
    torch.testing.assert_close(read(mixture, predictions), weights(mixture, predictions))
    (tmp_path / "combination.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="is not a combination of predictors"):
        load_combination(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a folder written by"):
        load_combination(tmp_path / "nowhere")


@pytest.mark.parametrize("rate_hz", [8000, 16000])
def test_waveforms_are_combined_at_any_rate(rate_hz: int) -> None:
    parts = tuple(Predictor(lambda wave, _, g=g: g * wave, name=str(g)) for g in (0.2, 0.6))
    both = CombinedEnhancer(parts, Combination(2))
    time = np.arange(rate_hz) / rate_hz
    wave = np.sin(2 * np.pi * 440.0 * time).astype("float32")
    found = both(wave, rate_hz)
    assert found.shape == wave.shape
    middle = slice(rate_hz // 4, -rate_hz // 4)
    np.testing.assert_allclose(found[middle], 0.4 * wave[middle], atol=2e-3)
    assert not both(np.zeros(4000, "float32"), rate_hz).any()


def test_a_part_that_fails_is_named() -> None:
    parts = (
        Predictor(lambda wave, _: wave, name="fine"),
        Predictor(lambda *_: None, name="broken"),
    )
    both = CombinedEnhancer(parts, Combination(2))
    with pytest.raises(PredictorError, match="'broken' returned NoneType"):
        both(np.ones(4000, "float32"), RATE_HZ)


def test_names_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "joined_enhancers.py").write_text("def keep(wave, rate_hz):\n    return wave\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = load_combined("joined_enhancers:keep+predictor")
    combined = unwrap_combination(found)
    assert combined is not None
    assert [part.name for part in combined.parts] == ["joined_enhancers:keep", "predictor"]
    assert not combined.combination.fitted and not found.law.fitted
    with pytest.raises(PredictorError, match="joins nothing; expected names as in"):
        resolve_predictor("predictor+")
    with pytest.raises(PredictorError, match="did you mean 'predictor'"):
        resolve_predictor("predicter+predictor")
    (tmp_path / "a+b").mkdir()
    assert split_names("a+b") == ["a+b"]  # a folder of that name is no combination
    assert unwrap_combination(Predictor(lambda wave, _: wave)) is None


def test_the_shipped_combination_goes_with_its_law() -> None:
    assert has_shipped_law(COMBINED)
    assert load_combination(COMBINED).fitted
    assert load_combination(COMBINED).predictors == len(COMBINED.split("+"))
    assert (LAWS / COMBINED / "README.md").is_file()
