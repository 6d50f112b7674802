"""Training of the audio-visual predictor: its mixtures, its lips, what a run leaves and refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avse_ppl.models.networks import LipEncoder
from avse_ppl.models.networks.attention_fusion import AttentionFusionNetwork
from avse_ppl.models.networks.tcn import TcnNetwork
from avse_ppl.models.predictors.network import load_predictor
from avse_ppl.models.weights.io import save_lip_encoder, save_weights
from avse_ppl.signal.stft import Stft
from avse_ppl.training import PREDICTOR_RECIPES, AVPredictorRecipe, TrainingData, train_av_predictor
from avse_ppl.training.datasets.av_crops import AVBatch, MouthCrops
from avse_ppl.training.datasets.av_predictor_crops import AVPredictorCrops
from avse_ppl.training.datasets.speech_crops import Crop
from avse_ppl.training.phases import av_predictor
from avse_ppl.training.phases.audio_visual import compute_frame_times
from avse_ppl.training.phases.av_predictor import AVPredictorTraining, build_fusion, draw_visual
from tests.helpers import ignore_training_warnings
from tests.training.test_av_crops import CROP, make_mouths, make_speech

SMALL: dict[str, Any] = {"widths": (4, 8), "inner": 12, "repeats": 1, "dilations": 2}
SHAPE: dict[str, Any] = {"visual": 3, "heads": 2, "width": 4, "window": 5, "blocks": 1}
GRID = Stft(512, 256)
ROOMS = np.zeros((2, 200), np.float32) + np.eye(1, 200, dtype=np.float32)
CARD = {"licence": "none"}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AVPredictorRecipe:
    """Of a trunk and a visual encoder that are nothing but small."""
    monkeypatch.setattr(av_predictor, "load_room_responses", lambda *_: ROOMS)
    torch.manual_seed(0)
    trunk, lips = TcnNetwork(257, **SMALL), LipEncoder(3, 4)
    save_weights(tmp_path / "trunk", trunk, "tcn", SMALL, GRID, name="t", card={}, use="predictor")
    save_lip_encoder(tmp_path / "seen", lips, name="lips", card={})
    return AVPredictorRecipe(
        settings=SHAPE, trunk=str(tmp_path / "trunk"), visual_encoder=str(tmp_path / "seen"),
        crop_s=0.2, batch=2, epochs=2, epoch_share=1.0,
    )  # fmt: skip


def data() -> TrainingData:
    return TrainingData(make_speech(), make_speech("noise"), [make_mouths()])


def train(recipe: AVPredictorRecipe, output: Path, **options: Any) -> dict[str, torch.Tensor]:
    folder = train_av_predictor(recipe, data(), output, name="mine", card=CARD, **options)
    return dict(load_predictor(folder).network.state_dict())


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {key for key in one if not torch.equal(one[key], other[key])}


def make_batch(count: int = 200) -> AVBatch:
    lips = torch.arange(float(count))[:, None, None].expand(count, 5, 3)  # each of its own
    return AVBatch(torch.zeros(count, 2, CROP), lips, torch.ones(count, 5))


@ignore_training_warnings
def test_a_run_leaves_a_predictor_that_sees(tmp_path, recipe) -> None:
    found = train(recipe, tmp_path / "av")
    predictor = load_predictor(tmp_path / "av")
    assert predictor.uses_lips and predictor.visual_encoder is not None
    assert not replace(predictor, causal=True).uses_lips
    trunk = load_predictor(recipe.trunk)
    assert not trunk.uses_lips
    hearing = {f"trunk.{key}": value for key, value in trunk.network.state_dict().items()}
    assert not differ(hearing, found)  # the trunk has stayed
    assert bool(found["output.weight"].any())  # and the fusion has not
    wave = np.random.default_rng(0).normal(size=5001).astype("float32")
    np.testing.assert_array_equal(predictor(wave, 16000), trunk(wave, 16000))
    visual = torch.cat((torch.zeros(1, 21), torch.randn(3, 21)))
    np.testing.assert_array_equal(predictor(wave, 16000, visual), trunk(wave, 16000))
    for time in (21, 60):  # on its own grid, and on another
        seen = torch.cat((torch.ones(1, time), torch.randn(3, time)))
        assert (predictor(wave, 16000, seen) != trunk(wave, 16000)).any()
    card = (tmp_path / "av" / "README.md").read_text()
    assert "`attention-fusion`" in card and "val_trunk_sdr_db" in card


@ignore_training_warnings
def test_a_run_goes_on_where_it_was_cut_off(tmp_path, recipe) -> None:
    whole = train(recipe, tmp_path / "whole")
    objective = AVPredictorTraining
    calls = []

    class Stopped(objective):
        def on_train_epoch_start(self) -> None:
            calls.append(self.current_epoch)
            if self.current_epoch == 1:
                raise InterruptedError("cut off")

    av_predictor.AVPredictorTraining = Stopped
    try:
        with pytest.raises(InterruptedError):
            train(recipe, tmp_path / "two")
    finally:
        av_predictor.AVPredictorTraining = objective
    assert calls == [0, 1]
    assert not differ(whole, train(recipe, tmp_path / "two"))


@ignore_training_warnings
def test_a_fusion_goes_on_with_another_trunk(tmp_path, recipe) -> None:
    first = train(recipe, tmp_path / "av")
    torch.manual_seed(1)
    better = TcnNetwork(257, **SMALL)
    save_weights(tmp_path / "new", better, "tcn", SMALL, GRID, name="n", card={}, use="predictor")
    network, stft, shape = build_fusion(recipe, tmp_path / "new", tmp_path / "av", 3)
    assert stft == GRID and shape == {**SMALL, "widths": [4, 8], **SHAPE}
    changed = differ(first, network.state_dict())
    assert changed and all(key.startswith("trunk.") for key in changed)
    assert torch.equal(network.trunk.output.weight, better.output.weight)
    again = train(
        replace(recipe, epochs=1),
        tmp_path / "again",
        trunk=tmp_path / "new",
        fusion=tmp_path / "av",
    )
    assert torch.equal(again["trunk.output.weight"], better.output.weight)


def test_weights_that_do_not_fit_are_refused(tmp_path, recipe) -> None:
    with pytest.raises(ValueError, match="holds a 'lips' network; expected an audio-only"):
        build_fusion(recipe, recipe.visual_encoder, None, 3)
    with pytest.raises(ValueError, match="holds a 'tcn' network with the settings"):
        build_fusion(recipe, recipe.trunk, recipe.trunk, 3)
    network, _, shape = build_fusion(recipe, recipe.trunk, None, 3)
    folder = save_weights(
        tmp_path / "av", network, "attention-fusion", shape, GRID, name="av", card={},
        use="predictor", visual_encoder=recipe.visual_encoder,
    )  # fmt: skip
    wider = replace(recipe, settings={**SHAPE, "width": 8})
    with pytest.raises(ValueError, match="expected 'attention-fusion' with "):
        build_fusion(wider, recipe.trunk, folder, 3)
    with pytest.raises(FileNotFoundError):
        build_fusion(recipe, tmp_path / "nowhere", None, 3)
    assert load_predictor(folder).uses_lips
    save_lip_encoder(tmp_path / "av" / "own", LipEncoder(5, 4), name="lips", card={})
    save_weights(
        folder, network, "attention-fusion", shape, GRID, name="av", card={}, use="predictor",
        visual_encoder="own",
    )  # fmt: skip
    with pytest.raises(ValueError, match="takes 3 visual features, its visual encoder has 5"):
        load_predictor(folder)
    save_weights(
        folder, network, "attention-fusion", shape, GRID, name="av", card={}, use="predictor"
    )
    with pytest.raises(ValueError, match="names no visual encoder"):
        load_predictor(folder)
    with pytest.raises(ValueError, match="expected 'tcn' or 'attention-fusion'"):
        load_predictor(recipe.visual_encoder)


def test_lips_are_needed(tmp_path, recipe) -> None:
    bare = replace(data(), lips=())
    with pytest.raises(ValueError, match="learns from lips: prepare"):
        train_av_predictor(recipe, bare, tmp_path / "x", name="x", card={})


def test_mixtures_have_the_lips_of_their_speech_and_any_voice_in_babble(recipe) -> None:
    mouths, speech = MouthCrops([make_mouths()]), make_speech()
    crops = AVPredictorCrops(
        speech,
        "train",
        CROP,
        GRID,
        mouths,
        make_speech("noise"),
        replace(recipe, babble=1.0),
        ROOMS,
    )
    assert len(crops) == 1 and len(crops.talkers) == 2
    crop = crops[Crop(0, 1.0, seed=3)]
    begin = (8000 - CROP) // 640
    assert crop.lips[:, 0, 0].tolist() == [begin + k for k in range(5)]
    assert crop.waves.shape == (2, CROP)
    assert torch.equal(crops[Crop(0, 1.0, seed=3)].waves, crop.waves)
    assert not torch.equal(crops[Crop(0, 1.0, seed=4)].waves, crop.waves)
    drawn = crops.draw_any_noise(np.random.default_rng(0))
    assert crops.own_voice == []  # of one clip there is no other sentence
    two = replace(make_mouths(), offsets=np.array([0, 12, 24, 24, 24]))
    crops = AVPredictorCrops(
        speech, "train", CROP, GRID, MouthCrops([two]), make_speech("noise"), recipe, ROOMS
    )
    crops[Crop(1, 1.0, seed=3)]
    assert crops.own_voice == [0]
    assert np.mean(drawn**2) == pytest.approx(1.0, rel=0.1)


def test_a_doubted_crop_shows_its_own_lips_as_often_as_its_reliability_says() -> None:
    torch.manual_seed(0)
    batch = make_batch(4000)
    batch = batch._replace(lips=batch.lips + 1e5 * torch.arange(5.0)[:, None])
    visual = draw_visual(batch, compute_frame_times(GRID, batch.waves), 0.5)
    reliability, shown = visual[:, 0].amax(1), visual[:, 1, 0]
    own = (shown - torch.arange(4000.0)).abs() < 0.6
    for low in (0.0, 0.2):  # below .55 all lips are doubted
        there = (reliability > low) & (reliability < low + 0.2)
        assert abs(float(own[there].float().mean()) - (low + 0.1)) < 0.08


def test_validation_shows_the_lips_as_they_are() -> None:
    batch = make_batch(4)
    batch.present[1, 2] = 0.0
    times = compute_frame_times(GRID, batch.waves)
    visual = draw_visual(batch, times, None)
    assert visual.shape == (4, 4, len(times))
    expected = torch.arange(4.0)[:, None, None].expand_as(visual[:, 1:])
    inside = times < 0.2
    torch.testing.assert_close(visual[..., inside][:, 1:], expected[..., inside])
    assert bool((visual[0, 0, inside] == 1).all())
    assert bool((visual[1, 0, (times - 0.08).abs() < 0.02] < 1).all())


def test_a_stretch_of_what_is_heard_is_left_to_the_lips(recipe) -> None:
    torch.manual_seed(0)
    network = AttentionFusionNetwork(257, **SMALL, **SHAPE)
    training = AVPredictorTraining(replace(recipe, audio_dropout=0.5), GRID, network)
    heard = training.draw_heard(make_batch(100), 40)
    some = (heard.amin(1) == 0) & (heard.amax(1) == 1)
    assert 20 < int(some.sum()) < 60
    batch = make_batch(2)._replace(waves=0.1 * torch.randn(2, 2, CROP))
    figures = training.eval().losses(batch)
    assert figures["trunk_sdr_db"] == figures["sdr_db"]  # the fusion has not learned yet
    assert "trunk_sdr_db" not in training.train().losses(batch)


def test_the_recipe_is_that_of_the_shipped_weights() -> None:
    recipe = PREDICTOR_RECIPES["av-predictor"]
    assert isinstance(recipe, AVPredictorRecipe)
    network, _, _ = build_fusion(recipe, recipe.trunk, None, 64)
    assert network.visual == 64
    assert not any(p.requires_grad for p in network.trunk.parameters())
