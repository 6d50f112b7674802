"""Distilling the flow of a latent diffusion: what is lowered, and the weights that it leaves."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from avse_ppl import Stft, load_speech
from avse_ppl.models.networks.distilled_flow import FewCallsNetwork
from avse_ppl.models.networks.latent_diffusion import LatentDiffusionNetwork
from avse_ppl.models.weights.io import load_shared, save_weights
from avse_ppl.training.diffusion import distil_latent_diffusion
from avse_ppl.training.diffusion_phases import DistillationTraining
from avse_ppl.training.phases import VaeTraining
from avse_ppl.training.recipes import DIFFUSION_RECIPES, DISTILLATION, DistillationRecipe
from avse_ppl.training.seeing import TrainingData
from avse_ppl.training.seeing_data import AVBatch
from tests.helpers import ignore_training_warnings
from tests.training.test_audio_visual import CROP, STFT, mouths, sound, tcvae
from tests.training.test_diffusion import LATENT, eyes, weights

__all__ = ["eyes", "tcvae"]  # fixtures
FEW = DistillationRecipe(crop_s=0.2, batch=2, epochs=2, calls=2)


@pytest.fixture
def diffused(tmp_path, eyes):
    """Folder of a latent diffusion that sees, none of whose layers is 0."""
    shutil.copytree(eyes, tmp_path / "diffused" / "lips")
    return save_weights(
        tmp_path / "diffused", teacher(), "latent-diffusion", LATENT, STFT, name="mine", card={},
        lips="lips", visual_weight=0.6,
    )  # fmt: skip


def teacher():
    torch.manual_seed(0)
    network = LatentDiffusionNetwork(33, **LATENT)
    with torch.no_grad():
        for parameter in network.denoiser.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


def distil(folder, output, lips=True, **settings):
    materials = TrainingData(sound(), lips=[mouths()] if lips else ())
    return distil_latent_diffusion(
        FEW, materials, output, name="few", data={}, distil=folder, **settings
    )


def few(**recipe):
    """A student of `teacher` with its weights, and how it is trained."""
    torch.manual_seed(0)
    recipe = replace(FEW, **recipe)
    network = FewCallsNetwork(33, **LATENT, calls=recipe.calls)
    load_shared(network, teacher())
    return DistillationTraining(recipe, STFT, network, teacher())


def batch(crops=4):
    torch.manual_seed(1)
    return AVBatch(torch.randn(crops, CROP), torch.randn(crops, 5, 3), torch.ones(crops, 5))


def losses(training, crops=4):
    return {key: float(value.detach()) for key, value in training.losses(batch(crops)).items()}


# Losses


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_a_share_of_the_crops_starts_from_white_noise(share, expected):
    training = few(white=share)
    which = training.which_white(4)
    assert int(which.sum()) == expected
    power, parts = torch.rand(4, 33, 13), losses(training)
    u = training.starts(power, None, which)
    found = training.teacher.innovations(training.teacher.infer(power)[0])
    near = (u - found).square().mean((1, 2)) < 0.7 * u.square().mean((1, 2))
    assert not bool((near & which).any())
    assert all(np.isfinite(value) for value in parts.values())
    assert {"white", "speech"} & set(parts) == {
        key for key, some in (("white", expected > 0), ("speech", expected < 4)) if some
    }


def test_noise_behind_speech_is_what_the_teacher_finds():
    training, power = few(), torch.rand(2, 33, 13)
    with torch.no_grad():
        training.teacher.encoder_logvar.weight.zero_()
        training.teacher.encoder_logvar.bias.fill_(-30.0)
    found = training.teacher.infer(power)[0]
    gap = training.starts(power, None, torch.tensor([False, False]))
    expected = training.teacher.innovations(found, once=True)
    assert float((gap - expected).square().mean()) < 1e-3 * float(expected.square().mean())


def test_the_loss_is_0_where_both_maps_are_the_same():
    training = few(back_weight=0.0)
    with torch.no_grad():
        for network in (training.network, training.teacher):  # latents that are normal: no drift
            network.denoiser.leave.weight.zero_()
            network.denoiser.leave.bias.zero_()
    assert losses(training)["loss"] == pytest.approx(0.0, abs=1e-9)
    assert losses(few(back_weight=0.0))["loss"] > 1e-3


@pytest.mark.slow
def test_a_student_comes_nearer_to_its_teacher_both_ways():
    training = few(calls=2, back_weight=1.0)
    trained = [p for p in training.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in training.network.denoiser.parameters()}
    optimiser = torch.optim.Adam(trained, lr=1e-3)
    training.eval()  # the same lips at each step
    before = losses(training, 2)
    for _ in range(60):
        optimiser.zero_grad()
        training.losses(batch(2))["loss"].backward()
        optimiser.step()
    after = losses(training, 2)
    assert all(after[key] < 0.6 * before[key] for key in ("white", "speech", "back"))


def test_the_recipe_makes_its_network():
    settings = {**DIFFUSION_RECIPES["latent-diffusion"].settings, "calls": DISTILLATION.calls}
    assert FewCallsNetwork(513, **settings).steps == 4


# Runs


@ignore_training_warnings
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_distilled_prior_keeps_all_but_the_denoiser_and_resumes(tmp_path, diffused, monkeypatch):
    folder = distil(diffused, tmp_path / "a")
    prior, before = load_speech(folder), weights(diffused)
    assert (prior.network.calls, prior.network.visual) == (2, 3)
    assert (prior.lips.features, prior.visual_weight, prior.stft) == (3, 0.6, STFT)
    made = weights(folder)
    changed = {name for name, value in before.items() if not torch.equal(made[name], value)}
    assert changed
    assert all(name.startswith("denoiser.") for name in changed)
    assert any("looks" in name for name in changed)
    assert "metrics of the flow phase" in (folder / "README.md").read_text()
    other = weights(distil(diffused, tmp_path / "other", seed=1))
    assert any(not torch.equal(other[name], value) for name, value in made.items())
    original = VaeTraining.training_step

    def fails(self, batch, index):
        if self.current_epoch == 1:
            raise OSError("the power went")
        return original(self, batch, index)

    monkeypatch.setattr(VaeTraining, "training_step", fails)
    with pytest.raises(OSError, match="the power went"):
        distil(diffused, tmp_path / "parts")
    monkeypatch.undo()
    resumed = weights(distil(diffused, tmp_path / "parts"))
    assert all(torch.equal(resumed[name], value) for name, value in made.items())


@ignore_training_warnings
def test_without_lips_the_flow_is_distilled_by_ear(tmp_path, diffused):
    prior = load_speech(distil(diffused, tmp_path / "a", lips=False))
    assert (prior.lips, prior.network.visual) == (None, 0)


@pytest.mark.parametrize("settings", [{}, {"stft": Stft(n_fft=128, hop=32)}])
def test_only_a_latent_diffusion_of_the_same_front_end_is_distilled(
    tmp_path, tcvae, diffused, settings
):
    with pytest.raises(ValueError, match="leave stft out" if settings else "holds a 'tcvae' netw"):
        distil(diffused if settings else tcvae, tmp_path / "a", **settings)


def test_what_is_distilled_is_not_distilled_again(tmp_path):
    network = FewCallsNetwork(33, **LATENT)
    save_weights(tmp_path, network, "few-calls", LATENT, STFT, name="few", card={})
    with pytest.raises(ValueError, match="holds a 'few-calls' network; what can be distilled is a"):
        distil(tmp_path, tmp_path / "a")
