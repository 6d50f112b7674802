"""Objectives of the VAE family: the negative ELBO, and neural posterior estimation."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from avse_ppl import Stft
from avse_ppl.models.networks import VaeNetwork
from avse_ppl.models.weights.io import NETWORKS
from avse_ppl.training import RECIPES, Recipe
from avse_ppl.training.phases.vae import POWER_FLOOR, EncoderTraining, VaeTraining
from tests.training.conftest import RATE_HZ

STFT = Stft(128, 32, sample_rate_hz=RATE_HZ)
CROP = 1600
RECIPE = Recipe(
    "vae", {"latent": 2, "hidden": (8,)}, crop_s=0.2, batch=4, learning_rate=2e-2, epochs=2,
    kl_weight=1.0, kl_warmup_epochs=1, gain_sd_db=3.0, encoder_epochs=2, encoder_batch=4,
    snr_db=(0.0, 10.0),
)  # fmt: skip


def make_training(recipe=RECIPE, stft=STFT):
    return VaeTraining(recipe, stft, NETWORKS[recipe.network](freq=stft.freq, **recipe.settings))


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


class Certain(VaeNetwork):
    """Draws its means, so that the loss is a number and no random variable."""

    def encode(self, power, sample=False):
        self.asked = sample
        return super().encode(power)


def to_arrays(*tensors):
    return [tensor.detach().double().numpy() for tensor in tensors]


@pytest.fixture
def certain():
    torch.manual_seed(0)
    return VaeTraining(RECIPE, STFT, Certain(freq=STFT.freq, **RECIPE.settings))


def test_the_loss_is_itakura_saito_and_half_the_kl_sum(certain):
    waves = 0.2 * torch.randn(4, CROP)
    losses = certain.losses(waves)
    assert certain.network.asked  # the loss is that of a draw
    power = STFT.forward(waves).abs().square() + POWER_FLOOR
    mean, logvar, z = certain.network.encode(power)
    p, m, v, ell = to_arrays(power, mean, logvar, certain.network.decode(z))
    fit = (ell + p * np.exp(-ell)).sum(1).mean()
    kl = (0.5 * (m**2 + np.exp(v) - 1 - v)).sum(1).mean()
    assert float(losses["fit"].detach()) == pytest.approx(fit, rel=1e-4)
    assert float(losses["kl"].detach()) == pytest.approx(kl, rel=1e-4)
    assert float(losses["loss"].detach()) == pytest.approx(fit + kl, rel=1e-4)


@pytest.mark.parametrize("top", [1.0, 0.1])
def test_the_weight_of_the_kl_rises_to_its_top_and_is_one_for_validation(monkeypatch, top):
    module = make_training(replace(RECIPE, kl_weight=top, kl_warmup_epochs=4))
    waves = 0.2 * torch.randn(4, CROP)
    weights = []
    for epoch in range(6):
        monkeypatch.setattr(VaeTraining, "current_epoch", epoch)
        losses = {name: float(value.detach()) for name, value in module.losses(waves).items()}
        weights.append((losses["loss"] - losses["fit"]) / losses["kl"])
    expected = [0.25 * top, 0.5 * top, 0.75 * top, top, top, top]
    assert weights == pytest.approx(expected, abs=1e-3)
    monkeypatch.setattr(VaeTraining, "current_epoch", 0)
    losses = {k: float(v.detach()) for k, v in module.eval().losses(waves).items()}
    assert losses["loss"] == pytest.approx(losses["fit"] + losses["kl"])


def test_the_encoder_learns_what_its_teacher_infers_from_clean_speech(certain):
    module = EncoderTraining(RECIPE, STFT, certain.network)
    with torch.no_grad():  # now teacher and pupil differ
        for parameter in module.network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    pair = torch.randn(4, 2, CROP) * torch.tensor([0.2, 0.1])[:, None]
    found = module.losses(pair)["loss"]
    assert module.teacher.asked  # the target is a draw
    clean, added = STFT.forward(pair).unbind(1)
    seen = (clean + added).abs().square() + POWER_FLOOR
    level = seen.mean((1, 2), keepdim=True)
    target, _, _ = module.teacher.encode((clean.abs().square() + POWER_FLOOR) / level)
    mean, logvar, _ = module.network.encode(seen / level)
    log_density = torch.distributions.Normal(mean, torch.exp(0.5 * logvar)).log_prob(target)
    assert float(found.detach()) == pytest.approx(
        -float(log_density.detach().sum(1).mean()), rel=1e-4
    )
    louder = float(module.losses(10 * pair)["loss"].detach())
    assert louder == pytest.approx(float(found.detach()), rel=1e-3)  # as a mixture is normalised


def test_the_teacher_is_a_frozen_copy(certain):
    module = EncoderTraining(RECIPE, STFT, certain.network)
    assert same(module.teacher.state_dict(), certain.network.state_dict())
    assert not any(p.requires_grad for p in module.teacher.parameters())
    pair = torch.randn(4, 2, CROP)
    module.losses(pair)["loss"].backward()
    assert all(p.grad is None for p in module.teacher.parameters())
    touched = {n for n, p in module.network.named_parameters() if p.grad is not None}
    assert touched == {n for n, _ in module.network.named_parameters() if n.startswith("encoder")}


def test_the_second_phase_trains_the_encoder_only():
    network = VaeNetwork(STFT.freq, **RECIPE.settings)
    module = EncoderTraining(RECIPE, STFT, network)
    assert module.network is network
    trained = {n for n, p in network.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in network.named_parameters() if n.startswith("encoder")}
    assert trained
    (optimiser,), _ = module.configure_optimizers()
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(trained)


def test_the_learning_rate_falls_along_a_cosine_to_a_hundredth():
    module = make_training()
    module.epochs = 10
    (optimiser,), (schedule,) = module.configure_optimizers()
    rates = []
    for _ in range(11):
        rates.append(optimiser.param_groups[0]["lr"] / RECIPE.learning_rate)
        optimiser.step()
        schedule.step()
    assert rates[0] == pytest.approx(1.0)
    assert rates[5] == pytest.approx(0.505)
    assert rates[10] == pytest.approx(0.01)
    assert all(a > b for a, b in pairwise(rates))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_make_their_networks(name):
    assert make_training(RECIPES[name], Stft()).network.latent == RECIPES[name].settings["latent"]
