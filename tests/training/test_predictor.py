"""Training of the predictor: its mixtures, its loss, and the weights that a run leaves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from avse_ppl.models.networks.tcn import TcnNetwork, running_mean
from avse_ppl.models.predictors.network import NetworkPredictor, load_predictor
from avse_ppl.signal.speed import change_speed, fit_length
from avse_ppl.signal.stft import Stft
from avse_ppl.training import (
    PREDICTOR_RECIPES,
    TrainingData,
    synthetic_noise,
    train_predictor,
)
from avse_ppl.training.datasets.predictor_crops import PredictorCrops, compand, limit_band
from avse_ppl.training.datasets.speech_crops import Crop
from avse_ppl.training.phases.predictor import PREDICTOR_STFT, PredictorTraining
from avse_ppl.training.recipes import PredictorRecipe
from avse_ppl.training.rooms import add_room, draw_room_responses
from avse_ppl.training.synthetic_noise import draw_strikes, draw_tones
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
    assert right["loudness"] == 0.0 < wrong["loudness"]
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


def test_noise_of_training_is_of_textures_and_spectra_that_no_clip_has(speech, noise) -> None:
    made = {
        split: PredictorCrops(speech, split, 3200, Stft(512, 256), noise, (0.0, 0.0), ROOMS)
        for split in ("train", "dev")
    }
    assert made["train"].noise_octaves == 1.0
    assert made["dev"].noise_octaves == 0.5
    changed = {}
    for split, crops in made.items():
        plain = super(PredictorCrops, crops).draw_noise
        pairs = [
            (crops.draw_noise(np.random.default_rng(i)), plain(np.random.default_rng(i)))
            for i in range(60)
        ]
        changed[split] = np.mean([not np.array_equal(*pair) for pair in pairs])
    assert changed["dev"] == 0.0
    assert changed["train"] == pytest.approx(0.36, abs=0.15)  # two bands, grains or both


def test_a_mixture_without_speech_has_no_loudness_to_be_off_by() -> None:
    training = PredictorTraining(RECIPE, PREDICTOR_STFT, TcnNetwork(257, **SMALL)).eval()
    batch = torch.randn(2, 2, 4000) * 0.1
    alone = training.losses(batch[:1])["loudness"]
    batch[1, 0] = 0.0
    torch.testing.assert_close(training.losses(batch)["loudness"], alone)


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


SYNTHETIC = ["bursts", "rumble", "hum", "narrow_band", "tones", "strikes", "water"]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_noise_has_a_seed_and_no_silence(name: str) -> None:
    draw = getattr(synthetic_noise, f"draw_{name}")
    for seed in range(20):
        noise, again = (draw(8000, 16000, np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(noise, again)
        assert noise.dtype == np.float32
        assert np.isfinite(noise).all()
        assert 0.01 < np.mean(noise**2) < 100.0


def test_tones_are_narrow_and_strikes_die_away() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        spectrum = np.abs(np.fft.rfft(draw_tones(16000, 16000, rng))) ** 2
        assert np.sort(spectrum)[-200:].sum() > 0.9 * spectrum.sum()  # of 8001 bins
        steps = draw_strikes(16000, 16000, rng)[:15872].reshape(-1, 128)
        power = np.square(steps).mean(1)
        assert power.max() > 3.0 * np.median(power)


def test_a_network_answers_by_the_mean_over_speeds() -> None:
    torch.manual_seed(0)
    network = NetworkPredictor(TcnNetwork(257, **SMALL), PREDICTOR_STFT)
    wave = np.random.default_rng(0).normal(size=5001).astype("float32")

    def answer(speed: float) -> np.ndarray:
        found = network.predict_once(change_speed(wave, speed))
        return fit_length(change_speed(found, 1.0 / speed), len(wave))

    answers = [answer(speed) for speed in (1.0, 0.94, 1.12, 0.89, 1.19)]
    np.testing.assert_allclose(network(wave, 16000), np.mean(answers, axis=0), atol=1e-6)
    assert np.abs(answers[0] - answers[1]).max() > 1e-2

    # As in a stream: once.
    causal = replace(network, causal=True)
    law = causal.predict_law(torch.from_numpy(wave))
    alone = network.stft.inverse(law.mean[0], len(wave)).numpy()
    np.testing.assert_allclose(causal(wave, 16000), alone, atol=1e-6)


@ignore_training_warnings
def test_a_run_goes_on_from_weights(tmp_path, speech, noise) -> None:
    stft, data = replace(PREDICTOR_STFT, sample_rate_hz=8000), TrainingData(speech, noise)
    given = {"card": {"licence": "none"}, "stft": stft}
    before = train_predictor(RECIPE, data, tmp_path / "a", name="a", **given)
    stays = replace(RECIPE, epochs=0)
    after = train_predictor(stays, data, tmp_path / "b", name="b", initial=before, **given)
    one, other = (load_predictor(folder).network.state_dict() for folder in (before, after))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(ValueError, match="is of another network, of other sizes"):
        train_predictor(RECIPE, data, tmp_path / "c", name="c", initial="tcvae", **given)


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
