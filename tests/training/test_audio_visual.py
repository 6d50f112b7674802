"""Training of dynamical and audio-visual priors: crops with lips, the phases, the weights."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avse_ppl import load_speech
from avse_ppl.models.networks import LipEncoder, SequentialVaeNetwork, TcvaeNetwork
from avse_ppl.models.weights.io import save_weights
from avse_ppl.training import (
    AUDIO_VISUAL_RECIPES,
    AudioVisualRecipe,
    TrainingData,
    train_audio_visual,
)
from avse_ppl.training.datasets.av_crops import (
    AVBatch,
)
from avse_ppl.training.phases.audio_visual import (
    LipsTraining,
    PriorTraining,
    align_visual_features,
)
from tests.helpers import STFT, ignore_training_warnings
from tests.training.test_av_crops import CROP, make_mouths, make_speech

SIZES = {"latent": 2, "hidden": 8, "encoder_hidden": 8, "encoder_blocks": 2, "blocks": 1}
RECIPE = AudioVisualRecipe(
    settings={**SIZES, "visual": 3, "prior": "gated", "sight_hidden": 6}, crop_s=0.2,
    encoder_crop_s=0.2, batch=2, teacher_epochs=1, visual_encoder_epochs=1, prior_epochs=1,
    encoder_epochs=1,
)  # fmt: skip


@pytest.fixture
def tcvae(tmp_path):
    torch.manual_seed(0)
    network = TcvaeNetwork(33, **SIZES)
    return save_weights(tmp_path / "tcvae", network, "tcvae", SIZES, STFT, name="t", card={})


def test_lips_are_left_out_at_training_only():
    network = SequentialVaeNetwork(33, **RECIPE.settings)
    module = PriorTraining(replace(RECIPE, video_dropout=0.5), STFT, network, network)
    batch = AVBatch(torch.zeros(40, CROP), torch.ones(40, 5, 3), torch.ones(40, 5))
    gates = align_visual_features(batch, module)[:, 0, :-1]  # the last is after the video
    assert 0 < int((gates.sum(1) == 0).sum()) < 40
    assert int(((gates.sum(1) > 0) & (gates.sum(1) < gates.shape[1])).sum()) > 0
    assert bool((align_visual_features(batch, module.eval())[:, 0, :-1] == 1).all())


@ignore_training_warnings
def test_four_phases_leave_an_audio_visual_prior(tmp_path, tcvae):
    recipe = replace(RECIPE, base_prior=str(tcvae))
    materials = TrainingData(make_speech(), make_speech("noise"), [make_mouths()])
    folder = train_audio_visual(
        recipe, materials, tmp_path / "av", name="av", card={"licence": "none"}, stft=STFT
    )
    prior = load_speech(folder)
    assert prior.visual_encoder is not None
    assert prior.visual_encoder.features == 3
    kept = load_speech(tcvae).network
    assert torch.equal(prior.network.decoder_logpower.weight, kept.decoder_logpower.weight)
    text = (folder / "README.md").read_text()
    for phase in ("teacher", "lips", "prior", "encoder"):
        assert f"metrics of the {phase} phase" in text

    again = train_audio_visual(
        replace(recipe, settings={**recipe.settings, "prior": "visual"}), materials,
        tmp_path / "other", name="other", card={}, stft=STFT, teacher=folder / "teacher",
        visual_encoder=folder / "lips", encoder=folder,
    )  # fmt: skip
    other = load_speech(again)
    assert torch.equal(other.network.encoder_mean.weight, prior.network.encoder_mean.weight)
    phases = [p.name for p in (tmp_path / "other" / "checkpoints").iterdir()]
    assert phases == ["prior"]


@ignore_training_warnings
def test_a_new_decoder_is_fitted_and_an_old_one_left(tmp_path, tcvae):
    settings = {**SIZES, "prior": "recurrent", "decoder": "recurrent"}
    recipe = replace(RECIPE, base_prior=str(tcvae), audio_visual=False, settings=settings)
    folder = train_audio_visual(
        recipe, TrainingData(make_speech(), make_speech("noise")), tmp_path / "r", name="r",
        card={}, stft=STFT, encoder=tcvae,
    )  # fmt: skip
    metrics = (folder / "README.md").read_text()
    assert "val_fit" in metrics
    assert load_speech(folder).visual_encoder is None


def test_an_audio_visual_prior_needs_lips(tmp_path):
    data = TrainingData(make_speech(), make_speech("noise"))
    with pytest.raises(ValueError, match="learns from lips"):
        train_audio_visual(RECIPE, data, tmp_path, name="x", card={}, stft=STFT)


def test_recipes_make_networks():
    for name, recipe in AUDIO_VISUAL_RECIPES.items():
        network = SequentialVaeNetwork(513, **recipe.settings)
        assert bool(network.visual) is recipe.audio_visual, name


def test_all_layers_of_a_phase_learn():
    """Also those that are not kept: a prediction that stays random would teach nothing."""
    network, module = lips_training()
    (optimiser,), _ = module.configure_optimizers()
    trained = {id(p) for group in optimiser.param_groups for p in group["params"]}
    assert {id(p) for p in module.prediction.parameters()} <= trained
    assert {id(p) for p in network.parameters()} <= trained
    assert not {id(p) for p in module.teacher.parameters()} & trained


def test_the_visual_encoder_learns_the_envelope():
    """A mouth whose grey is the level of the voice: the envelope is guessed better and better."""
    torch.manual_seed(0)
    _, module = lips_training()
    optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 3e-3)
    shape = torch.rand(8, 5, 1, 1) * torch.linspace(-1, 1, 88)
    level = shape.mean(-1, keepdim=True) + torch.rand(8, 5, 1, 1)
    lips = (120 + 100 * level * torch.linspace(-1, 1, 88)[:, None] * torch.ones(88)).clamp(0, 255)
    waves = torch.randn(8, CROP) * (4 * level[..., 0]).exp().repeat_interleave(640, 1)[..., 0]
    batch = AVBatch(waves, lips, torch.ones(8, 5))
    module.train()
    losses = []
    for _ in range(30):
        loss = module.losses(batch)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def lips_training():
    network = LipEncoder(3, 4)
    teacher = SequentialVaeNetwork(33, **SIZES)
    module = LipsTraining(RECIPE, STFT, network, teacher)
    module._trainer = SimpleNamespace(estimated_stepping_batches=10)
    return network, module


def test_a_doubted_crop_is_its_own_as_often_as_its_gate_says():
    network = SequentialVaeNetwork(33, visual=3, **SIZES)
    module = PriorTraining(replace(RECIPE, video_dropout=0.25), STFT, network, network).train()
    torch.manual_seed(0)
    count = 4000
    features = torch.arange(count).float()[:, None, None].expand(count, 2, 3) * 10
    batch = AVBatch(torch.zeros(count, 640), features, torch.ones(count, 2))
    shown = align_visual_features(batch, module)
    gate, seen = shown[:, 0, 0], shown[:, 1, 0]
    doubted = (gate > 0) & (gate < 1)
    assert float(doubted.float().mean()) == pytest.approx(0.25, abs=0.03)
    own = ((seen / gate.clamp(min=1e-9) - features[:, 0, 0]).abs() < 2)[doubted]
    for low in (0.0, 0.5):
        among = (gate[doubted] >= low) & (gate[doubted] < low + 0.5)
        assert float(own[among].float().mean()) == pytest.approx(low + 0.25, abs=0.08)
