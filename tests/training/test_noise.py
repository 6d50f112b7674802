"""Training of the noise prior: its crops, and an encoder that hears noise under speech."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avse_ppl.data import Clip, SpeechCache
from avse_ppl.models import load_noise
from avse_ppl.models.networks import VaeNetwork
from avse_ppl.training import Recipe, TrainingData, train_noise
from avse_ppl.training.datasets.speech_crops import Crop, NoiseCrops, NoiseMixtureCrops
from avse_ppl.training.phases.noise import NoiseEncoderTraining
from avse_ppl.training.phases.vae import EncoderTraining
from tests.helpers import STFT, ignore_training_warnings

CROP = 4000


RECIPE = Recipe(
    "vae", {"latent": 2, "hidden": (8,)}, crop_s=0.1, batch=2, epochs=2, encoder_epochs=1,
    encoder_batch=2, encoder_crop_s=0.2,
)  # fmt: skip


def cache(seed=0, rate=16000, level=0.1):
    """Two clips to train on, one to validate with: white, each louder than the one before."""
    rng = np.random.default_rng(seed)
    waves = [level * 4.0**i * rng.standard_normal(8000) for i in range(3)]
    clips = tuple(
        Clip(f"{i}.wav", "esc10", "", "dev" if i == 2 else "train", label="fan") for i in range(3)
    )
    samples = np.concatenate(waves).astype(np.float16)
    return SpeechCache(samples, np.array([0, 8000, 16000, 24000]), clips, rate)


def mean_power(wave):
    values = STFT.forward(wave)
    return float(values.abs().square()[..., 4:-4].mean())


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize("gain_db", [0.0, 10.0])
def test_crops_have_unit_power_at_any_level_of_the_clip(split, gain_db):
    crops = NoiseCrops(cache(), split, CROP, STFT)
    for clip in range(len(crops)):
        wave = crops[Crop(clip, 0.3, gain_db=gain_db, seed=5)]
        assert wave.shape == (CROP,) and wave.dtype == torch.float32
        assert mean_power(wave) == pytest.approx(10 ** (gain_db / 10), rel=0.15)


def test_crops_vary_with_their_seed_and_not_those_of_the_development_split():
    crops, dev = (NoiseCrops(cache(), split, CROP, STFT) for split in ("train", "dev"))
    first, again, other = (crops[Crop(0, 0.3, seed=seed)] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.01)
    plain = [dev[Crop(0, 0.5, seed=seed)] for seed in (1, 2)]
    assert torch.equal(*plain)
    raw = torch.from_numpy(cache()[2][2000:6000])  # the middle of the clip, scaled
    torch.testing.assert_close(plain[0] / plain[0].norm(), raw / raw.norm(), rtol=1e-3, atol=1e-4)


def test_silence_within_a_clip_is_left_silent():
    quiet = cache()
    quiet.samples[16000:22000] = 0.0
    crops = NoiseCrops(quiet, "dev", CROP, STFT)
    assert float(crops[Crop(0, 0.0)].abs().max()) == 0.0
    assert float(crops[Crop(0, 1.0)].abs().max()) > 0.1


def test_there_is_no_babble_in_the_mixtures(monkeypatch):
    def never(*_):
        raise RuntimeError("babble")

    monkeypatch.setattr("avse_ppl.training.datasets.speech_crops.MixtureCrops.draw_babble", never)
    crops = NoiseMixtureCrops(cache(1), "train", CROP, STFT, cache(), (0.0, 0.0))
    assert all(crops[Crop(0, 0.0, seed=seed)].isfinite().all() for seed in range(30))


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
    materials = TrainingData(cache(1), cache())
    folder = train_noise(RECIPE, materials, tmp_path, name="mine", card=data, stft=STFT)
    prior = load_noise(folder)
    assert (prior.name, prior.stft, prior.network.latent) == ("mine", STFT, 2)
    card = (folder / "README.md").read_text()
    assert "Noise prior for avse-ppl: `vae`" in card
    assert "metrics of the noise phase" in card and "metrics of the encoder phase" in card


@ignore_training_warnings
def test_a_run_without_speech_leaves_out_the_second_phase(tmp_path):
    train_noise(RECIPE, TrainingData(noise=cache()), tmp_path, name="mine", card={}, stft=STFT)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["noise"]


def test_rates_that_differ(tmp_path):
    for noise, speech in ((cache(rate=8000), None), (cache(), cache(rate=8000))):
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
