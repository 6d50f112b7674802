"""Training of diffusion priors: levels, losses, phases, and the weights that they leave."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from avse_ppl import load_speech
from avse_ppl.models.networks import LipEncoder, SequentialVaeNetwork
from avse_ppl.models.networks.latent_diffusion import LatentDiffusionNetwork
from avse_ppl.models.networks.score_cnn import ScoreNetwork
from avse_ppl.models.weights.io import NETWORKS, load_network, save_lip_encoder
from avse_ppl.training import (
    DIFFUSION_RECIPES,
    DiffusionRecipe,
    TrainingData,
    train_audio_visual,
    train_latent_diffusion,
    train_score,
)
from avse_ppl.training.datasets.av_crops import AVBatch, AVSpeechCrops, MouthCrops
from avse_ppl.training.objective import Objective
from avse_ppl.training.phases.diffusion import (
    LatentDiffusionTraining,
    ScoreTraining,
    measure_latent_sd,
)
from tests.helpers import STFT, ignore_training_warnings
from tests.training.test_audio_visual import RECIPE, SIZES, tcvae
from tests.training.test_av_crops import CROP, make_mouths, make_speech

__all__ = ["tcvae"]  # a fixture
LATENT = {**SIZES, "visual": 3, "denoiser_hidden": 8, "denoiser_blocks": 2}
SCORE = {"visual": 3, "bins": 8, "hidden": 8, "blocks": 2, "wide": 8, "wide_blocks": 1}
SHORT = {"crop_s": 0.2, "batch": 2, "epochs": 2, "teacher_epochs": 1}
RECIPES = {
    "latent-diffusion": DiffusionRecipe("latent-diffusion", LATENT, sigma=(0.02, 20.0), **SHORT),
    "score": DiffusionRecipe("score", SCORE, **SHORT),
}


@pytest.fixture
def visual_encoder(tmp_path):
    torch.manual_seed(0)
    return save_lip_encoder(
        tmp_path / "visual_encoder", LipEncoder(3, 4), name="visual_encoder", card={}
    )


def fit(kind, output, base_prior="tcvae", lips=True, **settings):
    train = {"score": train_score, "latent-diffusion": train_latent_diffusion}[kind]
    materials = TrainingData(make_speech(), lips=[make_mouths()] if lips else ())
    recipe = replace(RECIPES[kind], base_prior=str(base_prior))
    return train(recipe, materials, output, name="mine", card={}, stft=STFT, **settings)


def weights(folder):
    return load_network(folder)[0].state_dict()


def module(kind="latent-diffusion", **recipe):
    recipe = replace(RECIPES[kind], **recipe)
    if kind == "score":
        return ScoreTraining(recipe, STFT, ScoreNetwork(33, **SCORE))
    teacher = SequentialVaeNetwork(33, **SIZES)
    return LatentDiffusionTraining(recipe, STFT, LatentDiffusionNetwork(33, **LATENT), teacher)


# Losses


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_noise_levels_fill_the_range_and_stay_within(kind):
    torch.manual_seed(0)
    training = module(kind, sigma_centre=-0.5, sigma_sd=1.0, sigma=(0.1, 2.0))
    sigma = training.draw_sigmas(4000).log()
    low, high = (torch.tensor(bound).log() for bound in (0.1, 2.0))
    assert low <= sigma.min() < low + 0.05
    assert high - 0.05 < sigma.max() <= high
    assert float(sigma.mean()) == pytest.approx(-0.6, abs=0.1)


@pytest.mark.parametrize("complex_valued", [False, True])
def test_the_loss_is_least_at_the_mean_and_variance(complex_valued):
    torch.manual_seed(0)
    training = module()
    dtype = torch.complex64 if complex_valued else torch.float32
    mean = torch.randn(4, 3, 1000, dtype=dtype)
    clean, sigma = mean + 0.5 * torch.randn_like(mean), torch.ones(4)

    def loss(shift=0.0, variance=0.25):
        of_all = torch.full(mean.shape, variance)
        return float(training.compute_losses(clean, mean + shift, of_all, sigma)["loss"])

    assert loss() < min(loss(shift=0.1), loss(shift=-0.1), loss(variance=0.2), loss(variance=0.3))
    expected = torch.tensor(0.25).log() + 1 + 0.25 * (1 + training.network.sigma_data**-2)
    assert loss() == pytest.approx(float(expected), abs=0.05)


def test_only_the_denoiser_learns():
    training = module()
    trained = {n for n, p in training.named_parameters() if p.requires_grad}
    assert trained == {f"network.{n}" for n, _ in training.network.named_parameters() if
                       n.startswith("denoiser.")}  # fmt: skip
    batch = AVBatch(torch.randn(3, CROP), torch.randn(3, 5, 3), torch.ones(3, 5))
    assert bool(training.losses(batch)["loss"].isfinite())


def test_sigma_data_is_that_of_the_latents():
    teacher = SequentialVaeNetwork(33, **SIZES)
    with torch.no_grad():
        for layer in (teacher.encoder_mean, teacher.encoder_logvar):
            layer.weight.zero_()
        teacher.encoder_mean.bias.fill_(0.6)
        teacher.encoder_logvar.bias.fill_(2 * torch.tensor(0.8).log())
    crops = AVSpeechCrops(make_speech(), "train", CROP, STFT, MouthCrops(()))
    assert measure_latent_sd(teacher, crops, STFT) == 1.0


def test_recipes_make_their_networks():
    for name, recipe in DIFFUSION_RECIPES.items():
        assert recipe.network == name
        with torch.device("meta"):
            assert NETWORKS[name](freq=513, **recipe.settings).visual == 64


# Runs


@ignore_training_warnings
def test_two_phases_leave_an_audio_visual_diffusion_of_the_latents(tmp_path, tcvae, visual_encoder):
    folder = fit("latent-diffusion", tmp_path / "a", tcvae, visual_encoder=visual_encoder)
    prior = load_speech(folder)
    assert (prior.visual_encoder.features, prior.visual_weight, prior.stft) == (3, 0.75, STFT)
    assert (folder / "lips" / "weights.safetensors").is_file()
    made, kept = weights(folder), weights(tcvae)
    assert all(torch.equal(made[name], value) for name, value in kept.items())
    assert bool(made["denoiser.leave.weight"].any())
    assert bool(made["denoiser.looks.0.leave.weight"].any())
    text = (folder / "README.md").read_text()
    for phase in ("teacher", "denoiser"):
        assert f"metrics of the {phase} phase" in text
    teacher = weights(folder / "teacher")
    assert not torch.equal(teacher["encoder_mean.weight"], kept["encoder_mean.weight"])

    again = fit(
        "latent-diffusion",
        tmp_path / "b",
        tcvae,
        visual_encoder=visual_encoder,
        teacher=folder / "teacher",
    )
    assert [p.name for p in (again / "checkpoints").iterdir()] == ["denoiser"]
    assert all(torch.equal(made[name], value) for name, value in weights(again).items())


@ignore_training_warnings
@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_without_lips_the_prior_is_audio_only(kind, tmp_path, tcvae):
    prior = load_speech(fit(kind, tmp_path / "a", tcvae, lips=False))
    assert prior.visual_encoder is None
    assert prior.network.visual == 0


@ignore_training_warnings
def test_a_score_prior_takes_lips(tmp_path, visual_encoder):
    folder = fit("score", tmp_path / "a", visual_encoder=visual_encoder)
    assert load_speech(folder).visual_encoder.features == 3
    assert bool(weights(folder)["leave.weight"].any())


@ignore_training_warnings
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_an_interrupted_run_resumes_to_the_same_weights(kind, tmp_path, tcvae, monkeypatch):
    whole = weights(fit(kind, tmp_path / "whole", tcvae, lips=False))
    original = Objective.training_step

    def fails(self, batch, index):
        if type(self).__name__ != "TeacherTraining" and self.current_epoch == 1:
            raise OSError("the power went")
        return original(self, batch, index)

    monkeypatch.setattr(Objective, "training_step", fails)
    with pytest.raises(OSError, match="the power went"):
        fit(kind, tmp_path / "parts", tcvae, lips=False)
    assert not (tmp_path / "parts" / "weights.safetensors").exists()
    monkeypatch.undo()
    resumed = weights(fit(kind, tmp_path / "parts", tcvae, lips=False))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_an_encoder_needs_noise(tmp_path, tcvae):
    recipe = replace(RECIPE, base_prior=str(tcvae))
    data = TrainingData(make_speech(), lips=[make_mouths()])
    with pytest.raises(ValueError, match="learns from noisy speech"):
        train_audio_visual(recipe, data, tmp_path, name="x", card={}, stft=STFT)
