"""A predictor that sees lips: in the scene, in the pipeline, and where there are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from avse_ppl import SVI, Audio, Scene, load_speech, stationary
from avse_ppl.inference.core.video import condition_on_video
from avse_ppl.models.networks.attention_fusion import AttentionFusionNetwork
from avse_ppl.models.networks.lip_encoder import LipEncoder
from avse_ppl.models.predictors.adapters import resolve_predictor
from avse_ppl.models.predictors.checks import guard_enhancer
from avse_ppl.models.predictors.combination import Combination, CombinedEnhancer
from avse_ppl.models.predictors.network import NetworkPredictor
from avse_ppl.models.predictors.predictor import (
    Predictor,
    condition_on_predictor,
    shares_visual_encoder,
)
from avse_ppl.models.visual.reliability import audio_only, soft
from avse_ppl.models.weights.io import load_lip_encoder
from avse_ppl.pipeline.enhance import enhance, enhance_batch
from avse_ppl.signal.stft import Stft
from avse_ppl.video import Lips

RATE_HZ = 16000
QUICK: dict[str, Any] = {"noise": "stationary", "inference": SVI(steps=2, draws=2, tolerance=0),
                         "device": "cpu", "reliability": "ungated"}  # fmt: skip


def make_network() -> AttentionFusionNetwork:
    """One whose fusion has learned something."""
    torch.manual_seed(0)
    found = AttentionFusionNetwork(257, (4, 8), 12, 1, 2, heads=2, width=4, blocks=1)
    torch.nn.init.normal_(found.output.weight, std=0.3)
    return found.eval().requires_grad_(False)


def make_predictor(encoder: LipEncoder | None = None) -> Predictor:
    encoder = encoder or load_lip_encoder("lips")[0]
    network = NetworkPredictor(make_network(), Stft(512, 256), name="av", visual_encoder=encoder)
    return Predictor(network, name="av")


def make_audio(n_samples: int = RATE_HZ) -> Audio:
    wave = 0.1 * np.random.default_rng(0).normal(size=n_samples).astype("float32")
    return Audio(wave, RATE_HZ)


def make_lips(frames: int = 25) -> Lips:
    crops = np.random.default_rng(1).integers(0, 255, (frames, 88, 88)).astype("uint8")
    return Lips.from_crops(crops, rate_hz=25)


def make_scene(**changes: Any) -> Scene:
    scene = Scene(load_speech("av-cvae"), stationary, predictor=make_predictor())
    return replace(scene, **changes)


def predict(scene: Scene, video: Any = None) -> torch.Tensor:
    mixture = scene.stft.analyse(make_audio().samples)
    mixture = mixture if video is None else condition_on_video(scene, mixture, video)
    found = condition_on_predictor(scene, mixture).frames.predicted
    assert found is not None
    return found


def test_lips_change_the_prediction_and_no_lips_or_a_gate_of_0_do_not() -> None:
    heard, seen = predict(make_scene()), predict(make_scene(), make_lips())
    assert (seen[:, :2] - heard[:, :2]).abs().max() > 1e-3
    assert torch.equal(predict(make_scene(reliability=audio_only), make_lips()), heard)
    scene = make_scene(reliability=soft)
    mixture = scene.stft.analyse(make_audio().samples)
    doubted = torch.cat((torch.zeros(1, 1, 64), torch.randn(1, 64, 64)), 1)[..., :63]
    one = condition_on_predictor(scene, mixture.with_visual(doubted)).frames.predicted
    assert one is not None and torch.equal(one, heard)
    alone = make_scene(predictor=Predictor(hear))
    assert torch.equal(predict(alone)[:, :2], heard[:, :2])


def hear(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """What the trunk alone predicts."""
    return NetworkPredictor(make_network().trunk, Stft(512, 256))(wave, rate_hz)


def test_each_recording_of_a_batch_has_its_own_lips() -> None:
    scene, wave = make_scene(), make_audio().samples
    both = scene.stft.analyse([wave, wave[:12000]])
    both = condition_on_video(scene, both, [None, make_lips()])
    found = condition_on_predictor(scene, both).frames.predicted
    assert found is not None
    assert torch.equal(found[:1], predict(scene))
    alone = scene.stft.analyse(wave[:12000])
    alone = condition_on_video(scene, alone, make_lips())
    expected = condition_on_predictor(scene, alone).frames.predicted
    torch.testing.assert_close(found[1:, :2, :, :47], expected[:, :2, :, :47])  # type: ignore[index]


def test_a_combination_shows_the_lips_to_those_that_use_them() -> None:
    parts = (Predictor(keep), make_predictor())
    both = Predictor(guard_enhancer(CombinedEnhancer(parts, Combination(2)), "both"))
    scene = make_scene(predictor=both)
    assert both.uses_lips and shares_visual_encoder(scene)
    expected = 0.5 * (predict(make_scene(), make_lips()) + predict(make_scene(predictor=parts[0])))
    found = predict(scene, make_lips())
    torch.testing.assert_close(found[:, :2], expected[:, :2], atol=1e-4, rtol=1e-4)
    assert (found[:, :2] - predict(scene)[:, :2]).abs().max() > 1e-3
    hearing = CombinedEnhancer((Predictor(keep), Predictor(hear)), Combination(2))
    assert not hearing.uses_lips and hearing.visual_encoder is None
    torch.manual_seed(1)
    with pytest.raises(ValueError, match="look by different visual encoders"):
        CombinedEnhancer((make_predictor(), make_predictor(LipEncoder())), Combination(2))
    assert CombinedEnhancer((make_predictor(), make_predictor()), Combination(2)).uses_lips


def keep(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Leave some of a recording."""
    return 0.9 * wave


def test_features_of_another_visual_encoder_are_not_looked_at() -> None:
    torch.manual_seed(1)
    scene = make_scene(predictor=make_predictor(LipEncoder()))
    assert not shares_visual_encoder(scene)
    assert torch.equal(predict(scene, make_lips()), predict(scene))
    assert not shares_visual_encoder(make_scene(speech=load_speech("tcvae")))
    assert not shares_visual_encoder(make_scene(predictor=Predictor(hear)))
    assert not shares_visual_encoder(make_scene(predictor=None))
    assert shares_visual_encoder(make_scene())


def test_inference_is_shown_what_the_predictor_makes_of_the_lips() -> None:
    method = SVI(steps=2, draws=2, tolerance=0, device="cpu")
    wave = make_audio().samples
    means = [
        method(make_scene(predictor=predictor), wave, make_lips(), seed=0).enhance()
        for predictor in (make_predictor(), Predictor(hear))
    ]
    assert np.abs(means[0] - means[1]).max() > 1e-4


def run(video: Any = None, **changes: Any) -> Any:
    options = {"speech": "av-cvae", "predictor": make_predictor(), **QUICK, **changes}
    return enhance(make_audio(), video, **options)


def test_the_pipeline_shows_the_lips_and_says_where_there_are_none() -> None:
    def remarks(found: Any) -> list[str]:
        return [text for text in found.warnings if "lips" in text]

    seen, heard = run(make_lips()), run()
    assert not remarks(seen) and seen.predictor == "av"
    assert remarks(heard) == [
        "the predictor 'av' saw no lips and only heard: there is no video that is used"
    ]
    other = run(make_lips(), predictor=make_predictor(LipEncoder()))
    (said,) = remarks(other)
    assert said.endswith("the speech prior 'av-cvae' has another visual encoder")
    alike = run(make_lips(), predictor=hear)
    assert not remarks(alike)
    np.testing.assert_array_equal(other.speech.samples, alike.speech.samples)
    assert (seen.speech.samples != alike.speech.samples).any()
    without = run(speech="tcvae")
    assert remarks(without) and without.predictor == "av"
    unreliable = run(Lips.from_crops(np.zeros((25, 88, 88), "uint8"), rate_hz=25))
    assert remarks(unreliable)


def test_each_recording_is_told_of_its_own_lips() -> None:
    found = enhance_batch(
        [make_audio(), make_audio()], [make_lips(), None], speech="av-cvae",
        predictor=make_predictor(), **QUICK,
    )  # fmt: skip
    assert ["saw no lips" in " ".join(one.warnings) for one in found] == [False, True]


def test_the_shipped_one_hears_as_its_trunk_and_sees() -> None:
    shipped = resolve_predictor("av-predictor")
    assert shipped is not None and shipped.uses_lips
    scene = make_scene(speech=load_speech("av-dkf"), predictor=shipped)
    assert shares_visual_encoder(scene)
    assert not torch.equal(predict(scene, make_lips())[:, :2], predict(scene)[:, :2])


def test_scores_of_the_lips_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from avse_ppl.pipeline import inputs

    calls = []

    def score(lips: Any, spectrogram: Any) -> torch.Tensor:
        calls.append(len(lips))
        return torch.ones(len(lips), spectrogram.frames.time)

    monkeypatch.setattr(inputs, "score_frames", score)
    run(make_lips(), reliability="soft")
    assert calls == [1]
