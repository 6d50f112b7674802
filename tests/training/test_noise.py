"""Training of the noise prior: its encoder on noise under speech, and the weights it leaves."""

from __future__ import annotations

import pytest
import torch

from avse_ppl.models import load_noise
from avse_ppl.models.networks import VaeNetwork
from avse_ppl.training import Recipe, TrainingData, train_noise
from avse_ppl.training.phases.noise import NoiseEncoderTraining
from avse_ppl.training.phases.vae import EncoderTraining
from tests.helpers import STFT, ignore_training_warnings
from tests.training.test_speech_crops import white_noise

CROP = 4000


RECIPE = Recipe(
    "vae", {"latent": 2, "hidden": (8,)}, crop_s=0.1, batch=2, epochs=2, encoder_epochs=1,
    encoder_batch=2, encoder_crop_s=0.2,
)  # fmt: skip


def test_the_encoder_is_taught_the_noise_of_a_mixture():
    network = VaeNetwork(33, 2, hidden=(8,))
    pair = torch.randn(3, 2, 400) * torch.tensor([[1.0], [5.0]])
    noise, speech = (
        kind(RECIPE, STFT, network) for kind in (NoiseEncoderTraining, EncoderTraining)
    )
    losses = []
    for module, batch in ((noise, pair), (speech, pair.flip(1)), (speech, pair)):
        torch.manual_seed(0)
        losses.append(module.losses(batch)["loss"].item())
    assert losses[0] == losses[1] != losses[2]


@ignore_training_warnings
def test_a_run_leaves_a_prior_that_loads(tmp_path):
    data = {"licence": "none"}
    materials = TrainingData(white_noise(1), white_noise())
    folder = train_noise(RECIPE, materials, tmp_path, name="mine", card=data, stft=STFT)
    prior = load_noise(folder)
    assert (prior.name, prior.stft, prior.network.latent) == ("mine", STFT, 2)
    card = (folder / "README.md").read_text()
    assert "Noise prior for avse-ppl: `vae`" in card
    assert "metrics of the noise phase" in card and "metrics of the encoder phase" in card


@ignore_training_warnings
def test_a_run_without_speech_leaves_out_the_second_phase(tmp_path):
    train_noise(
        RECIPE, TrainingData(noise=white_noise()), tmp_path, name="mine", card={}, stft=STFT
    )
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["noise"]


def test_rates_that_differ(tmp_path):
    for noise, speech in ((white_noise(rate=8000), None), (white_noise(), white_noise(rate=8000))):
        data = TrainingData(speech, noise)
        with pytest.raises(ValueError, match="is at 8000 Hz, the front end at 16000 Hz"):
            train_noise(RECIPE, data, tmp_path, name="x", card={}, stft=STFT)


def test_a_noise_prior_by_folder_or_name(tmp_path):
    with pytest.raises(ValueError, match="unknown noise prior 'nowhere'; known are noise_vae"):
        load_noise("nowhere")
    with pytest.raises(ValueError, match="holds a speech prior; expected a noise prior"):
        load_noise("vae")
    with pytest.raises(FileNotFoundError, match=r"holds no config.json"):
        load_noise(tmp_path)
