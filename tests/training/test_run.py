"""The training loop: runs that fall, repeat and resume, and the weights that they leave."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from avse_ppl import LatentSpeech, load_speech
from avse_ppl.training import TrainingData, train_vae
from avse_ppl.training.datasets.speech_crops import Crop, MixtureCrops
from avse_ppl.training.objective import Objective
from avse_ppl.training.phases.vae import EncoderTraining, VaeTraining, load_initial
from tests.helpers import TRAINING_WARNINGS
from tests.training.test_vae import CROP, RECIPE, STFT, same

pytestmark = [pytest.mark.filterwarnings(text) for text in TRAINING_WARNINGS]
CARD = {"corpora": "made up", "licence": "none", "split": "by clip", "command": "pytest"}


def run(speech, output, recipe=RECIPE, noise=None, **options):
    data = TrainingData(speech, noise)
    return train_vae(recipe, data, output, name="tiny", card=CARD, stft=STFT, **options)


def load_weights(folder):
    return load_speech(folder).network.state_dict()


def read_losses(folder):
    lines = (folder / "README.md").read_text().splitlines()
    return [float(line.split(": ")[1]) for line in lines if line.startswith("- val_loss:")]


@pytest.fixture(scope="module")
def trained(speech, noise, tmp_path_factory):
    """Folder of a run of two phases, with its checkpoints."""
    return run(speech, tmp_path_factory.mktemp("trained"), noise=noise)


def test_training_lowers_the_loss_and_leaves_a_prior(speech, tmp_path):
    init = run(speech, tmp_path / "none", replace(RECIPE, learning_rate=1e-12, epochs=1))
    out = run(speech, tmp_path / "out", replace(RECIPE, epochs=6))
    (before,), (after,) = read_losses(init), read_losses(out)
    assert after < before - 20  # nats a frame, of 65 bins
    prior = load_speech(out)
    assert isinstance(prior, LatentSpeech)
    assert (prior.stft, prior.name, prior.gain_db) == (STFT, "tiny", 0.0)
    assert prior.start_gain_db == -4.0  # no second phase: the encoder knows no noise
    config = json.loads((out / "config.json").read_text())
    assert config["network"] == "vae"
    card = (out / "README.md").read_text()
    for line in ("**licence**: none", "**command**: pytest", "**seed**: 0", "- batch: 4"):
        assert line in card.splitlines()


def test_a_run_is_repeated_by_its_seed(speech, noise, trained, tmp_path):
    torch.manual_seed(1)
    np.random.seed(1)
    assert same(load_weights(trained), load_weights(run(speech, tmp_path / "1", noise=noise)))
    other = load_weights(run(speech, tmp_path / "2", noise=noise, seed=6))
    assert not same(load_weights(trained), other)


def test_every_epoch_has_its_own_crops(speech, tmp_path, monkeypatch):
    steps = []
    original = Objective.training_step

    def spy(self, waves, index):
        steps.append((self.current_epoch, index, waves.clone()))
        return original(self, waves, index)

    monkeypatch.setattr(Objective, "training_step", spy)
    run(speech, tmp_path, replace(RECIPE, epochs=3))
    first = {epoch: waves for epoch, index, waves in steps if index == 0}
    assert sorted(first) == [0, 1, 2]
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[1], first[2])


def test_an_interrupted_run_resumes_to_the_same_weights(
    speech, noise, trained, tmp_path, monkeypatch
):
    """Interrupted in the last epoch of either phase."""
    original, epochs = Objective.training_step, []

    for kind in (VaeTraining, EncoderTraining):

        def fails(self, waves, index, kind=kind):
            epochs.append((type(self), self.current_epoch))
            if type(self) is kind and self.current_epoch == 1 and index == 1:
                raise OSError("the power went")
            return original(self, waves, index)

        monkeypatch.setattr(Objective, "training_step", fails)
        with pytest.raises(OSError, match="the power went"):
            run(speech, tmp_path, noise=noise)
        assert not (tmp_path / "weights.safetensors").exists()
    epochs.clear()
    monkeypatch.setattr(Objective, "training_step", original)
    assert same(load_weights(trained), load_weights(run(speech, tmp_path, noise=noise)))


def test_a_resumed_run_goes_on_and_does_not_begin_again(speech, tmp_path, monkeypatch):
    run(speech, tmp_path, replace(RECIPE, epochs=1))
    epochs = []
    original = Objective.on_train_epoch_start

    def count(self):
        epochs.append(self.current_epoch)
        return original(self)

    monkeypatch.setattr(Objective, "on_train_epoch_start", count)
    run(speech, tmp_path, replace(RECIPE, epochs=2))
    assert epochs == [1]


def test_a_finished_run_has_nothing_left_to_do(speech, noise, trained, monkeypatch):
    before, losses = load_weights(trained), read_losses(trained)
    steps = []
    monkeypatch.setattr(Objective, "training_step", lambda *a: steps.append(a))
    assert same(before, load_weights(run(speech, trained, noise=noise)))
    assert steps == []
    assert read_losses(trained) == pytest.approx(losses, abs=2e-3)


def test_without_resume_a_run_begins_again(speech, tmp_path):
    recipe = replace(RECIPE, epochs=1)
    first = load_weights(run(speech, tmp_path, recipe, seed=1))
    assert not same(first, load_weights(run(speech, tmp_path, recipe, seed=2, resume=False)))
    assert same(first, load_weights(run(speech, tmp_path, recipe, seed=1, resume=False)))


def test_the_second_phase_leaves_the_prior_as_it_was(speech, noise, trained, tmp_path):
    skipped = run(speech, tmp_path, replace(RECIPE, encoder_epochs=0), noise=noise)
    clean, both = load_weights(skipped), load_weights(trained)
    for key, value in clean.items():
        assert torch.equal(value, both[key]) is key.startswith("decoder"), key
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["speech"]


def test_a_training_goes_on_from_weights_and_leaves_their_decoder(
    speech, noise, trained, tmp_path, monkeypatch
):
    recipe = replace(RECIPE, epochs=1, encoder_epochs=1)
    before = load_weights(trained)
    after = load_weights(run(speech, tmp_path / "a", recipe, noise, initial=trained, seed=1))
    for key, value in before.items():
        assert torch.equal(value, after[key]) is key.startswith("decoder"), key
    other = replace(RECIPE, settings={**RECIPE.settings, "latent": 5})
    with pytest.raises(ValueError, match="of other sizes or of another front end"):
        run(speech, tmp_path / "b", other, initial=trained)
    with pytest.raises(ValueError, match="of other sizes or of another front end"):
        load_initial(load_speech(trained).network, trained, replace(STFT, hop=64))

    # The second phase goes on from the encoder of the weights, not from that of clean speech.
    def learn_nothing(self, batch):
        return {"loss": sum(0.0 * p.sum() for p in self.list_trained())}

    clean = replace(recipe, encoder_epochs=0)
    assert not same(load_weights(run(speech, tmp_path / "c", clean, initial=trained)), before)
    monkeypatch.setattr(EncoderTraining, "losses", learn_nothing)
    assert same(load_weights(run(speech, tmp_path / "d", recipe, noise, initial=trained)), before)


def test_the_second_phase_learns_the_latents_of_speech_in_noise(speech, noise, tmp_path):
    # With hardly any KL the latents say much: the encoder of clean speech is sure and wrong.
    recipe = replace(
        RECIPE, epochs=10, encoder_epochs=10, snr_db=(-5.0, -5.0), kl_warmup_epochs=1000
    )
    clean = load_speech(run(speech, tmp_path, recipe)).network
    both = load_speech(run(speech, tmp_path, recipe, noise=noise)).network  # goes on
    crops = MixtureCrops(speech, "dev", CROP, STFT, noise, (-5.0, -5.0))
    pair = torch.stack([crops[Crop(i % 4, 0.5, seed=i)] for i in range(40)])

    def loss(network):
        module = EncoderTraining(recipe, STFT, network)
        module.teacher = clean  # of both
        torch.manual_seed(0)
        return float(module.losses(pair)["loss"].detach())

    assert loss(both) < loss(clean) - 0.15  # nats a frame


@pytest.mark.parametrize(("bad", "ends"), [(3, False), (10**6, True)])
def test_gradients_that_overflow_are_left_out(speech, tmp_path, monkeypatch, bad, ends):
    plain, steps = VaeTraining.losses, []

    def losses(self, batch):
        found = plain(self, batch)
        if self.training:
            steps.append(batch)
            if len(steps) <= bad:
                found["loss"] = found["loss"] * float("inf")
        return found

    monkeypatch.setattr(VaeTraining, "losses", losses)
    recipe = replace(RECIPE, epochs=8 if ends else 2)
    if ends:
        with pytest.raises(ValueError, match="21 gradients in a row"):
            run(speech, tmp_path, recipe)
    else:
        tensors = load_weights(run(speech, tmp_path, recipe))
        assert all(bool(value.isfinite().all()) for value in tensors.values())


SMALL_TCVAE = {"latent": 2, "hidden": 4, "encoder_hidden": 4, "encoder_blocks": 1, "blocks": 1}


@pytest.mark.parametrize(
    ("network", "settings"), [("rvae", {"latent": 2, "hidden": 4}), ("tcvae", SMALL_TCVAE)]
)
def test_the_other_networks_train_too(speech, tmp_path, network, settings):
    recipe = replace(RECIPE, network=network, settings=settings, epochs=1)
    prior = load_speech(run(speech, tmp_path, recipe))
    assert prior.network.decode(torch.zeros(1, 2, 5)).shape == (1, 65, 5)


@pytest.mark.slow
def test_workers_do_not_change_the_result(speech, tmp_path):
    alone = load_weights(run(speech, tmp_path / "alone"))
    assert same(load_weights(run(speech, tmp_path / "helped", workers=1)), alone)


@pytest.mark.parametrize("which", ["speech", "noise"])
def test_a_cache_at_another_rate_is_an_error(which, speech, noise, tmp_path):
    caches = {"speech": speech, "noise": noise}
    caches[which] = replace(caches[which], sample_rate_hz=16000)
    with pytest.raises(ValueError) as caught:
        run(caches["speech"], tmp_path / "out", noise=caches["noise"])
    assert str(caught.value) == (
        f"the cache of {which} is at 16000 Hz, the front end at 8000 Hz; build the cache with "
        "sample_rate_hz=8000"
    )
    assert not (tmp_path / "out").exists()
