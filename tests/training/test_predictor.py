"""Training of the predictor: its mixtures, its loss, and the weights that a run leaves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from avse_ppl.models.networks.tcn import TcnNetwork, running_mean
from avse_ppl.models.predictors.network import NetworkPredictor, load_predictor
from avse_ppl.signal.stft import Stft
from avse_ppl.training import PREDICTOR_RECIPES, TrainingData, train_predictor
from avse_ppl.training.datasets.predictor_crops import PredictorCrops, compand, limit_band
from avse_ppl.training.datasets.speech_crops import Crop
from avse_ppl.training.phases.predictor import PREDICTOR_STFT, PredictorTraining
from avse_ppl.training.recipes import PredictorRecipe
from avse_ppl.training.rooms import add_room, draw_room_responses
from tests.helpers import ignore_training_warnings

SMALL = {"widths": (4, 8), "inner": 12, "repeats": 1, "dilations": 3}
RECIPE = PredictorRecipe(settings=SMALL, crop_s=0.2, batch=4, epochs=1)
ROOMS = np.zeros((2, 200), np.float32) + np.eye(1, 200, dtype=np.float32)


def make_mixture(frames: int = 40, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 257, frames, dtype=torch.complex64, generator=generator)


def test_a_causal_network_does_not_hear_the_future() -> None:
    torch.manual_seed(0)
    network, mixture = TcnNetwork(257, **SMALL), make_mixture()
    later = mixture.clone()
    later[..., 20:] *= 3.0
    for causal in (True, False):
        one, other = (network(values, causal=causal) for values in (mixture, later))
        same = torch.allclose(one.speech[..., :20], other.speech[..., :20], atol=1e-5)
        assert same is causal
        assert one.log_error.shape == mixture.shape


def test_the_running_mean_fades_after_its_memory() -> None:
    values = torch.randn(1, 400, 3).abs()
    found = running_mean(values)
    torch.testing.assert_close(found[:, 99], values[:, :100].mean(1))
    torch.testing.assert_close(
        found[:, 300], found[:, 299] + (values[:, 300] - found[:, 299]) / 250
    )


def test_the_loss_rewards_the_right_answer_and_an_honest_error() -> None:
    training = PredictorTraining(RECIPE, PREDICTOR_STFT, TcnNetwork(257, **SMALL)).eval()
    batch = torch.randn(2, 2, 4000) * 0.1

    def answer(scale: float, log_error: float):
        from avse_ppl.models.networks.tcn import Prediction

        class Network(torch.nn.Module):
            def forward(self, mixture: torch.Tensor, causal: bool = False) -> Prediction:
                speech = PREDICTOR_STFT.forward(batch[:, 0])
                level = PREDICTOR_STFT.forward(batch.sum(1)).abs().square().mean((-2, -1)).sqrt()
                speech = speech / level[:, None, None] * scale
                return Prediction(speech, torch.full(speech.shape, log_error))

        training.network = Network()
        return {name: float(value) for name, value in training.losses(batch).items()}

    right, wrong = answer(1.0, -3.0), answer(0.5, -3.0)
    assert right["sdr_db"] > 25.0 > wrong["sdr_db"]
    assert right["loss"] < wrong["loss"]
    errors = [answer(0.5, log_error)["nll"] for log_error in (-6.0, -2.1, 2.0)]
    assert errors[1] == min(errors)  # a quarter of a half: log(.125) = -2.1


def test_mixtures_are_the_same_for_a_seed_and_plain_in_validation(speech, noise) -> None:
    crops = PredictorCrops(speech, "train", 3200, Stft(512, 256), noise, (-5.0, 5.0), ROOMS)
    pairs = [crops[Crop(0, 0.5, seed=seed)] for seed in (1, 1, 2)]
    assert torch.equal(pairs[0], pairs[1])
    assert not torch.equal(pairs[0], pairs[2])
    assert all(bool(crops[Crop(i % 4, 0.3, seed=i)].isfinite().all()) for i in range(60))
    dev = PredictorCrops(speech, "dev", 3200, Stft(512, 256), noise, (0.0, 0.0), ROOMS)
    power = dev[Crop(0, 0.5, seed=3)].square().mean(1)
    assert float(power[0]) == pytest.approx(float(power[1]), rel=1e-3)


def test_channels_keep_the_sum_of_speech_and_noise_their_own() -> None:
    rng = np.random.default_rng(0)
    speech, noise = rng.normal(size=(2, 8000)).astype("float32")
    kinds = set()
    for seed in range(200):
        s, b = limit_band(speech, noise, 16000, np.random.default_rng(seed))
        kinds.add((np.array_equal(s, speech), np.array_equal(b, noise)))
    assert kinds == {(True, True), (False, False), (True, False)}  # as it is, a band, clipping
    assert np.abs(compand(speech) - speech).max() < 0.1 * np.abs(speech).max()


def test_rooms_have_their_peak_first_and_keep_the_power() -> None:
    rooms = draw_room_responses(3, 16000, seed=0)
    assert (np.abs(rooms).argmax(1) == 0).all()
    assert np.array_equal(rooms, draw_room_responses(3, 16000, seed=0))
    wave = np.random.default_rng(0).normal(size=16000)
    assert np.mean(add_room(wave, rooms[0]) ** 2) == pytest.approx(np.mean(wave**2))


@ignore_training_warnings
def test_a_run_leaves_a_predictor_that_loads(tmp_path, speech, noise) -> None:
    stft = replace(PREDICTOR_STFT, sample_rate_hz=8000)
    data = TrainingData(speech, noise)
    train_predictor(RECIPE, data, tmp_path, name="mine", card={"licence": "none"}, stft=stft)
    found = load_predictor(tmp_path)
    assert isinstance(found, NetworkPredictor)
    assert (found.name, found.stft) == ("mine", stft)
    wave = np.random.default_rng(0).normal(size=5001).astype("float32")
    assert found(wave, 8000).shape == wave.shape
    assert found(wave, 48000).shape == wave.shape
    assert "Predictor for avse-ppl: `tcn`" in (tmp_path / "README.md").read_text()
    assert PREDICTOR_RECIPES["predictor"].network == "tcn"
