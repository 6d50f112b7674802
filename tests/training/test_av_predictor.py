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
from avse_ppl.models.networks.reliability import ReliabilityNetwork
from avse_ppl.models.networks.tcn import TcnNetwork
from avse_ppl.models.predictors.network import load_predictor
from avse_ppl.models.weights.io import save_lip_encoder, save_weights
from avse_ppl.signal.stft import Stft
from avse_ppl.training import PREDICTOR_RECIPES, AVPredictorRecipe, TrainingData, train_av_predictor
from avse_ppl.training.datasets.av_crops import MouthCrops
from avse_ppl.training.datasets.av_predictor_crops import AVPredictorCrops, SeenMixture
from avse_ppl.training.datasets.speech_crops import Crop
from avse_ppl.training.phases import av_predictor
from avse_ppl.training.phases.audio_visual import compute_frame_times
from avse_ppl.training.phases.av_predictor import AVPredictorTraining, align_lips, build_fusion
from avse_ppl.training.phases.predictor import PredictorTraining
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


def make_batch(count: int = 200) -> SeenMixture:
    lips = torch.arange(float(count))[:, None, None].expand(count, 5, 3)  # each of its own
    return SeenMixture(torch.zeros(count, 2, CROP), lips, torch.ones(count, 5), torch.ones(count))


def make_crops(recipe: AVPredictorRecipe, split: str = "train", mouths: Any = None) -> Any:
    torch.manual_seed(0)
    encoder, scorer = LipEncoder(3, 4).eval(), ReliabilityNetwork(4, 8, 8, 4).eval()
    return AVPredictorCrops(
        make_speech(), split, CROP, GRID, MouthCrops([mouths or make_mouths()]),
        make_speech("noise"), recipe, ROOMS, encoder, scorer.requires_grad_(False),
    )  # fmt: skip


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
    assert "`attention-fusion`" in card and "val_harm_db" in card


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
    crops = make_crops(replace(recipe, babble=1.0))
    assert len(crops) == 1 and len(crops.talkers) == 2
    begin = (8000 - CROP) // 640
    assert crops.cut_lips(Crop(0, 1.0)).roi[:, 0, 0].tolist() == [begin + k for k in range(5)]
    crop, again = crops[Crop(0, 1.0, seed=3)], crops[Crop(0, 1.0, seed=3)]
    assert [tuple(part.shape) for part in crop] == [(2, CROP), (5, 3), (5,), ()]
    for one, other in zip(crop, again, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(crops[Crop(0, 1.0, seed=4)].waves, crop.waves)
    drawn = crops.draw_any_noise(np.random.default_rng(0))
    assert crops.own_voice == []  # of one clip there is no other sentence
    two = replace(make_mouths(), offsets=np.array([0, 12, 24, 24, 24]))
    crops = make_crops(recipe, mouths=two)
    crops[Crop(1, 1.0, seed=3)]
    assert crops.own_voice == [0]
    assert np.mean(drawn**2) == pytest.approx(1.0, rel=0.1)


def test_lips_are_disturbed_as_often_as_asked_and_scored_beside_the_mixture(recipe) -> None:
    two = replace(make_mouths(), offsets=np.array([0, 12, 24, 24, 24]))
    crops = make_crops(replace(recipe, video_dropout=0.5), mouths=two)
    own = [float(crops[Crop(0, 0.0, seed=seed)].own) for seed in range(80)]
    assert 0.1 < np.mean(own) < 0.45  # a quarter: neither in ways that are seen, nor apart
    clean = make_crops(replace(recipe, video_dropout=0.0))
    heard = []
    plain = clean.score
    clean.score = lambda lips, mixture: heard.append(mixture) or plain(lips, mixture)
    crop = clean[Crop(0, 0.0, seed=1)]
    assert float(crop.own) == 1.0
    np.testing.assert_allclose(heard[0], crop.waves.sum(0))
    assert crop.reliability[3] == 0.0  # no face
    score = plain(clean.cut_lips(Crop(0, 0.0)), heard[0])
    ratio = (crop.reliability / torch.from_numpy(score))[[0, 1, 2, 4]]
    assert float(ratio.min()) >= 0.5 and float(ratio.max()) <= 1.0
    torch.testing.assert_close(ratio, ratio[:1].expand(4))
    assert 0.0 < score[0] < 1.0


def test_another_speakers_lips_are_those_of_another_clip(recipe) -> None:
    two = replace(make_mouths(), offsets=np.array([0, 12, 24, 24, 24]))
    crops = make_crops(recipe, mouths=two)
    rng = np.random.default_rng(0)
    assert {crops.choose_donor(0, rng) for _ in range(20)} == {1}
    assert crops.choose_donor(0, rng) != 0
    crops.by_speaker = {"one": [0], "other": [1]}
    assert {crops.choose_donor(1, rng) for _ in range(20)} == {0}


def test_a_clip_whose_video_ends_early_has_no_lips_after_it(recipe) -> None:
    short = replace(make_mouths(), offsets=np.array([0, 3, 3, 6, 6]))
    crop = make_crops(replace(recipe, video_dropout=0.0), mouths=short)[Crop(0, 0.0, seed=1)]
    assert bool((crop.reliability[:3] > 0).all()) and not crop.reliability[3:].any()
    assert not crop.features[3:].any()


def test_validation_shows_the_lips_as_they_are() -> None:
    batch = make_batch(4)
    batch.reliability[1, 2] = 0.0
    times = compute_frame_times(GRID, batch.waves)
    visual = align_lips(batch, times)
    assert visual.shape == (4, 4, len(times))
    expected = torch.arange(4.0)[:, None, None].expand_as(visual[:, 1:])
    inside = times < 0.2
    torch.testing.assert_close(visual[..., inside][:, 1:], expected[..., inside])
    assert bool((visual[0, 0, inside] == 1).all())
    assert bool((visual[1, 0, (times - 0.08).abs() < 0.02] < 1).all())
    noisy = align_lips(batch, times, noisy=True)
    assert torch.equal(noisy[:, 0], visual[:, 0]) and not torch.equal(noisy, visual)


def make_training(recipe: AVPredictorRecipe) -> AVPredictorTraining:
    torch.manual_seed(0)
    return AVPredictorTraining(recipe, GRID, AttentionFusionNetwork(257, **SMALL, **SHAPE))


def test_a_stretch_of_what_is_heard_is_left_to_the_lips(recipe) -> None:
    training = make_training(replace(recipe, audio_dropout=0.5))
    heard = training.draw_heard(100, 40)
    some = (heard.amin(1) == 0) & (heard.amax(1) == 1)
    assert 20 < int(some.sum()) < 60


def test_lips_that_make_it_worse_than_the_trunk_cost_more(recipe) -> None:
    training = make_training(recipe).eval()
    batch = make_batch(2)._replace(waves=0.1 * torch.randn(2, 2, CROP))
    figures = training.losses(batch)
    assert figures["trunk_sdr_db"] == figures["sdr_db"]  # the fusion has not learned yet
    assert figures["loss"] == figures["trunk_loss"] and figures["worse_db"] == 0.0
    assert "trunk_sdr_db" not in training.train().losses(batch)
    training.eval()
    alike = torch.zeros(2, 2, CROP)
    alike[:, 0] = batch.waves[:, 0]  # nothing but speech: any less of it is worse
    batch = batch._replace(waves=alike)
    with torch.no_grad():
        training.network.output.bias[0] = -6.0
        own, other = (
            training.losses(batch._replace(own=one)) for one in (torch.ones(2), torch.zeros(2))
        )
    terms = training.measure(
        training.network.compare(*prepare(training, batch))[1],
        alike[:, 0],
        gain_of(training, batch),
    )
    plain = training.weigh(terms).mean()
    assert plain < own["loss"] < other["loss"]  # of those disturbed most
    assert own["gain_db"] <= 0.0 and other["harm_db"] == own["gain_db"]


def gain_of(training: AVPredictorTraining, batch: SeenMixture) -> torch.Tensor:
    mixture = training.stft.forward(batch.waves.sum(1))
    return mixture.abs().square().mean((-2, -1), keepdim=True).sqrt()


def prepare(training: AVPredictorTraining, batch: SeenMixture) -> tuple[torch.Tensor, torch.Tensor]:
    mixture = training.stft.forward(batch.waves.sum(1)) / gain_of(training, batch)
    return mixture, align_lips(batch, compute_frame_times(training.stft, batch.waves))


def test_the_loss_is_that_of_a_predictor_where_lips_change_nothing(recipe) -> None:
    training = make_training(recipe).eval()
    batch = make_batch(3)._replace(waves=0.1 * torch.randn(3, 2, CROP))
    expected = PredictorTraining(recipe, GRID, training.network.trunk).eval().losses(batch.waves)
    found = training.losses(batch)
    for key in ("loss", "sdr_db"):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-4)


def test_the_recipe_is_that_of_the_shipped_weights() -> None:
    recipe = PREDICTOR_RECIPES["av-predictor"]
    assert isinstance(recipe, AVPredictorRecipe)
    network, _, _ = build_fusion(recipe, recipe.trunk, None, 64)
    assert network.visual == 64
    assert not any(p.requires_grad for p in network.trunk.parameters())
