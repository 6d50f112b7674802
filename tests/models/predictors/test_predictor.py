"""A predictor in the scene: what it counts for, and when it is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from avse_ppl import SVI, GaussianSpeech, Scene, load_speech, stationary
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.models.predictors.error_law import (
    ErrorLaw,
    compute_base,
    has_shipped_law,
    load_error_law,
    make_features,
)
from avse_ppl.models.predictors.predictor import (
    BANDS,
    Predictor,
    band_weights,
    condition_on_predictor,
    describe_failure,
)
from avse_ppl.signal.audio import load_audio
from avse_ppl.signal.stft import Stft
from avse_ppl.training.phases.error_law import fit_error_law
from tests.helpers import BUNDLED

RNG = np.random.default_rng(0)
STFT = Stft()
SPEECH = load_audio(BUNDLED / "speech.flac").mono().samples[8000:20000].astype("float32")
SPEECH = SPEECH / SPEECH.std()
NOISE = RNG.normal(size=12000).astype("float32")
NOISY = SPEECH + NOISE


def predict(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    return SPEECH + 0.1 * NOISE


def scene_with(enhance) -> Scene:
    return Scene(GaussianSpeech(), stationary, predictor=Predictor(enhance))


def infer(scene: Scene):
    return SVI(steps=60, draws=10, device="cpu")(scene, NOISY, seed=0)


def error_db(wave: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean((wave - SPEECH) ** 2)))


def test_a_good_prediction_is_believed() -> None:
    alone = Scene(load_speech("tcvae"), stationary)
    posterior, alone = infer(replace(alone, predictor=Predictor(predict))), infer(alone)
    assert "pooled with a predictor" in posterior.kind
    assert "pooled" not in alone.kind
    assert error_db(posterior.enhance()) < error_db(alone.enhance()) - 2.0
    assert posterior.latents["predictor.error"].shape[-2:] == (BANDS, 1)


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (lambda wave, rate: 1e-5 * wave, "silent"),
        (lambda wave, rate: 0.0 * wave, "silent"),
        (lambda wave, rate: wave, "the mixture itself"),
        (lambda wave, rate: RNG.normal(size=len(wave)).astype("float32"), "agree"),
    ],
)
def test_a_failure_is_left_out_and_told(failure, text, monkeypatch) -> None:
    from avse_ppl.models.predictors import predictor

    monkeypatch.setattr(predictor, "guard_enhancer", lambda enhance, name: enhance)
    posterior, alone = infer(scene_with(failure)), infer(Scene(GaussianSpeech(), stationary))
    assert any("was not used" in warning for warning in posterior.warnings)
    assert np.array_equal(posterior.enhance(), alone.enhance())
    assert posterior.kind == alone.kind
    mixture = STFT.analyse(NOISY)
    values = STFT.forward(torch.from_numpy(failure(NOISY, 16000)))[None] / mixture.scale
    assert text in str(describe_failure(mixture, values))


def test_the_scene_without_a_prediction_is_that_of_its_prior() -> None:
    scene, mixture = scene_with(predict), STFT.analyse(NOISY)
    found = condition_on_predictor(scene, mixture)
    assert found.frames.predicted.shape == (1, 4, *mixture.values.shape[1:])
    assert condition_on_predictor(scene, found) is found  # predicted once
    assert condition_on_predictor(Scene(GaussianSpeech(), stationary), mixture) is mixture
    assert LogDensity(scene, found).evidence == {"speech.predicted": False}


def test_a_batch_is_predicted_as_each_alone() -> None:
    scene = scene_with(lambda wave, rate: 0.5 * wave)
    both = condition_on_predictor(scene, STFT.analyse([NOISY, NOISY[:8000]])).frames.predicted
    alone = condition_on_predictor(scene, STFT.analyse(NOISY[:8000])).frames.predicted
    torch.testing.assert_close(both[1:, ..., : alone.shape[-1]], alone)
    assert bool((both[1, 3, :, alone.shape[-1] :] == 0).all())


def test_bands_cover_every_frequency() -> None:
    weights = band_weights(STFT.frames(4000))
    assert weights.shape == (STFT.freq, BANDS)
    torch.testing.assert_close(weights.sum(1), torch.ones(STFT.freq))


def make_cases(count: int = 6, error: float = 0.2):
    cases = []
    for k in range(count):
        rng = np.random.default_rng(k)
        noise = rng.normal(size=12000).astype("float32")
        mixture = STFT.analyse(SPEECH + noise)
        off = error * rng.normal(size=12000).astype("float32")
        columns = [
            STFT.forward(torch.from_numpy(wave))[None] / mixture.scale
            for wave in (SPEECH + off, SPEECH)
        ]
        cases.append((mixture, *columns))
    return cases


def test_the_law_finds_the_power_of_the_error_and_knows_failures() -> None:
    cases = make_cases()
    law = fit_error_law(cases, steps=100)
    mixture, predicted, speech = make_cases(7)[-1]
    actual = (speech - predicted).abs().square()[:, 20:].mean()
    expected = law(mixture, predicted).exp()[:, 20:].mean()
    assert abs(10 * torch.log10(expected / actual)) < 2.0  # dB
    unrelated = torch.randn_like(predicted)
    assert law(mixture, unrelated)[:, 20:].mean() > law(mixture, predicted)[:, 20:].mean() + 0.5
    with pytest.raises(ValueError, match="needs 4 mixtures or more; found 1"):
        fit_error_law(cases[:1])


def test_a_law_is_read_as_it_was_written(tmp_path) -> None:
    law = fit_error_law(make_cases(), steps=3)
    law.save(tmp_path, {"name": "mine"})
    mixture, predicted, _ = make_cases(1)[0]
    assert torch.equal(load_error_law(tmp_path)(mixture, predicted), law(mixture, predicted))
    assert "mine" in (tmp_path / "README.md").read_text()
    (tmp_path / "law.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="is not an error law"):
        load_error_law(tmp_path)
    with pytest.raises(FileNotFoundError, match="predictors fit"):
        load_error_law(tmp_path / "nowhere")


def test_without_a_fit_the_law_is_wider_than_its_base() -> None:
    mixture, predicted, _ = make_cases(1)[0]
    features = make_features(mixture.values, predicted, STFT)
    assert features.shape == (*mixture.values.shape, 16)
    assert bool((ErrorLaw()(mixture, predicted) > compute_base(features) + 0.5).all())
    assert has_shipped_law("deepfilternet")
    assert load_error_law("deepfilternet").fitted


def test_an_excess_of_the_error_leads_back_to_the_posterior_without() -> None:
    scene, mixture = scene_with(predict), STFT.analyse(NOISY)
    mixture = condition_on_predictor(scene, mixture)
    density = LogDensity(scene, mixture)
    values = {site.name: site.transform(site.start) for site in density.sites}
    powers = []
    for excess in (0.0, 14.0):
        values["predictor.error"] = torch.full((1, BANDS, 1), excess)
        powers.append(scene.laws_given(values, mixture).condition(mixture.values).power.mean())
    bare = replace(scene, predictor=None)
    rest = {name: value for name, value in values.items() if name != "predictor.error"}
    without = bare.laws_given(rest, mixture).condition(mixture.values).power.mean()
    torch.testing.assert_close(powers[1], without, rtol=0.05, atol=0.0)
    assert abs(powers[0] / without - 1.0) > 0.1
