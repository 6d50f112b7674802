"""Training: crops and their levels, both losses, and runs that fall, repeat and resume."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch

from avse_ppl import LatentSpeech, Stft, load_speech
from avse_ppl.data import Clip, SpeechCache, build_cache
from avse_ppl.data.mixing import active_power
from avse_ppl.models.networks import VaeNetwork
from avse_ppl.models.weights.io import NETWORKS
from avse_ppl.training import RECIPES, Recipe, TrainingData, train_vae
from avse_ppl.training.augment import (
    change_speed,
    compute_source_length,
    equalise,
    randomise_phases,
)
from avse_ppl.training.datasets.speech_crops import Crop, CropBatches, MixtureCrops, SpeechCrops
from avse_ppl.training.objective import Objective
from avse_ppl.training.phases.vae import POWER_FLOOR, EncoderTraining, VaeTraining
from tests.helpers import ignore_training_warnings

RATE_HZ = 8000
STFT = Stft(128, 32, sample_rate_hz=RATE_HZ)
CROP = 1600
RECIPE = Recipe(
    "vae", {"latent": 2, "hidden": (8,)}, crop_s=0.2, batch=4, learning_rate=2e-2, epochs=2,
    kl_weight=1.0, kl_warmup_epochs=1, gain_sd_db=3.0, encoder_epochs=2, encoder_batch=4,
    snr_db=(0.0, 10.0),
)  # fmt: skip
DATA = {"corpora": "made up", "licence": "none", "split": "by clip", "command": "pytest"}


def voice(rng, seconds: float, level: float = 0.1) -> np.ndarray:
    """Harmonics under a slow envelope: something like speech, and never silent for long."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    pitch_hz = rng.uniform(100, 200)
    tone = sum(np.sin(2 * np.pi * k * pitch_hz * t + rng.uniform(0, 6)) / k for k in range(1, 12))
    envelope = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * t + rng.uniform(0, 6))
    return (level * tone * envelope + 1e-3 * rng.normal(size=t.size)).astype(np.float32)


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("caches"), np.random.default_rng(0)

    def clip(kind, i, samples):
        split = "dev" if i % 4 == 3 else "train"
        path = folder / f"{kind}{i}.wav"
        soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")
        label = "" if kind == "speech" else "hiss"
        return Clip(path, "made_up", f"{kind}{i}" if kind == "speech" else "", split, label)

    speech = [
        clip("speech", i, voice(rng, 0.3 + 0.1 * (i % 3), 10.0 ** -(i % 3))) for i in range(16)
    ]
    noise = [clip("noise", i, 0.05 * rng.normal(size=RATE_HZ)) for i in range(8)]
    return (
        build_cache(speech, folder / "speech", RATE_HZ),
        build_cache(noise, folder / "noise", RATE_HZ),
    )


@pytest.fixture
def speech(caches):
    return caches[0]


@pytest.fixture
def noise(caches):
    return caches[1]


def run(speech, output, recipe=RECIPE, noise=None, **options):
    data = TrainingData(speech, noise)
    return train_vae(recipe, data, output, name="tiny", card=DATA, stft=STFT, **options)


def make(recipe=RECIPE, stft=STFT):
    return VaeTraining(recipe, stft, NETWORKS[recipe.network](freq=stft.freq, **recipe.settings))


def weights(folder):
    return load_speech(folder).network.state_dict()


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# Crops


def test_crops_have_the_common_level_whatever_that_of_the_clip(speech):
    crops = SpeechCrops(speech, "train", CROP, STFT)
    assert len(crops) == 12
    for i in range(len(crops)):
        wave = speech[int(crops.clips[i])] * np.float32(crops.scales[i])
        assert active_power(wave, RATE_HZ) * STFT.n_fft / 2 == pytest.approx(1.0, rel=1e-4)
        power = STFT.forward(torch.from_numpy(wave.astype(np.float32))).abs().square()
        inner = power[:, 4:-4].mean()  # clear of the ends; every frame of these clips is active
        assert float(10 * inner.log10()) == pytest.approx(0.0, abs=1.5)


def test_a_crop_is_cut_where_it_is_asked_for(speech):
    crops = SpeechCrops(speech, "train", CROP, STFT)
    wave = speech[int(crops.clips[0])] * np.float32(crops.scales[0])
    room = len(wave) - CROP
    assert room > 0
    for start in (0.0, 0.5, 0.999):
        begin = int(start * room)
        cut = crops[Crop(0, start)]
        assert cut.dtype == torch.float32
        np.testing.assert_allclose(cut, wave[begin : begin + CROP], rtol=1e-5)
        np.testing.assert_allclose(crops[Crop(0, start, 20.0)], 10 * cut, rtol=1e-5)


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_a_faster_crop_is_higher_by_the_speed(speed):
    samples = 20_480
    wanted = compute_source_length(samples, speed)
    assert wanted / samples == pytest.approx(speed, rel=0.05)
    tone = np.sin(2 * np.pi * 0.05 * np.arange(wanted)).astype(np.float32)
    faster = change_speed(tone, samples)
    assert faster.shape == (samples,)
    assert faster.dtype == np.float32
    peak = np.abs(np.fft.rfft(faster * np.hanning(samples))).argmax() / samples
    assert peak / 0.05 == pytest.approx(speed, rel=0.02)
    assert np.abs(faster[500:-500]).max() == pytest.approx(1.0, abs=0.05)


def test_a_crop_at_another_speed_starts_where_it_is_asked_for(speech):
    crops = SpeechCrops(speech, "train", CROP, STFT)
    plain, faster = crops[Crop(0, 0.0)], crops[Crop(0, 0.0, speed=1.1)]
    assert faster.shape == plain.shape
    loudness = plain.square().mean() / faster.square().mean()
    assert float(10 * loudness.log10()) == pytest.approx(0.0, abs=1.0)
    assert not torch.allclose(plain, faster, atol=1e-2)


def test_steady_noise_keeps_the_spectrum_and_loses_the_bursts():
    rng = np.random.default_rng(0)
    wave = rng.normal(size=4000).astype(np.float32)
    wave[1000:] *= 1e-3  # one burst
    spread = randomise_phases(wave, rng)
    assert spread.dtype == np.float32
    np.testing.assert_allclose(
        np.abs(np.fft.rfft(spread))[1:-1], np.abs(np.fft.rfft(wave))[1:-1], rtol=1e-3, atol=1e-3
    )
    assert np.square(spread[2000:]).mean() > 0.3 * np.square(spread[:2000]).mean()


def test_an_equaliser_is_smooth_and_has_the_stated_spread():
    rng = np.random.default_rng(0)
    click = np.zeros(4096)
    click[0] = 1.0
    gains_db = [20 * np.log10(np.abs(np.fft.rfft(equalise(click, rng)))) for _ in range(400)]
    at_ends = np.array(gains_db)[:, [0, -1]]
    assert at_ends.std() == pytest.approx(5.0, rel=0.15)
    assert np.abs(np.diff(gains_db)[:, 100:]).max() < 1.0  # dB from bin to bin


def test_short_clips_are_padded_with_zeros(speech):
    crops = SpeechCrops(speech, "train", 10_000, STFT)
    cut = crops[Crop(0, 0.7)]
    n = len(speech[int(crops.clips[0])])
    assert cut.shape == (10_000,)
    assert not cut[n:].any()
    assert cut[:n].abs().max() > 0


def test_mixture_crops_have_the_ratio_that_was_drawn(speech, noise):
    for snr_db in ((5.0, 5.0), (-8.0, -8.0)):
        crops = MixtureCrops(speech, "train", CROP, STFT, noise, snr_db)
        for seed in range(30):  # both noise clips and babble
            crop = Crop(seed % 12, 0.5, -3.0, seed=seed)
            clean, added = crops[crop].double()
            ratio = clean.square().mean() / added.square().mean()
            assert float(10 * ratio.log10()) == pytest.approx(snr_db[0], abs=1e-3)
            assert torch.equal(clean.float(), SpeechCrops.__getitem__(crops, crop))


def test_mixture_ratios_fill_their_range(speech, noise):
    crops = MixtureCrops(speech, "train", CROP, STFT, noise, (-8.0, 15.0))
    found = []
    for seed in range(300):
        clean, added = crops[Crop(0, 0.5, seed=seed)].double()
        found.append(float(10 * (clean.square().mean() / added.square().mean()).log10()))
    assert -8.01 < min(found) < -7.0  # none of 300 in the lowest 1 dB: odds 1e-6
    assert 14.0 < max(found) < 15.01
    assert np.mean(found) == pytest.approx(3.5, abs=6 * 23 / math.sqrt(12 * 300))


def test_a_mixture_depends_on_its_seed_only(speech, noise):
    crops = MixtureCrops(speech, "train", CROP, STFT, noise, (0.0, 10.0))
    assert torch.equal(crops[Crop(0, 0.5, seed=1)], crops[Crop(0, 0.5, seed=1)])
    assert not torch.equal(crops[Crop(0, 0.5, seed=1)][1], crops[Crop(0, 0.5, seed=2)][1])


def test_noise_of_a_split_stays_in_it(speech, noise):
    for split in ("train", "dev"):
        crops = MixtureCrops(speech, split, CROP, STFT, noise, (0.0, 0.0))
        assert {noise.clips[int(i)].split for i in crops.noise_clips} == {split}
        assert {speech.clips[int(i)].split for i in crops.clips} == {split}


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_split_without_clips_is_told(split, speech, noise):
    only = [c for c in speech.clips if c.split != split]
    empty = SpeechCache(speech.samples, speech.offsets[: len(only) + 1], tuple(only), RATE_HZ)
    with pytest.raises(ValueError, match=f"the cache has no clip in the split '{split}'"):
        SpeechCrops(empty, split, CROP, STFT)
    none = SpeechCache(noise.samples, noise.offsets[:1], (), RATE_HZ)
    with pytest.raises(ValueError, match=f"the noise cache has no clip in the split '{split}'"):
        MixtureCrops(speech, split, CROP, STFT, none, (0.0, 0.0))


# Batches


def batches(speech, epoch=0, **options):
    crops = SpeechCrops(speech, "train", CROP, STFT)
    sampler = CropBatches(crops, **{"batch": 4, "seed": 3, **options})
    sampler.set_epoch(epoch)
    return sampler, list(sampler)


def test_batches_have_their_size_and_number(speech):
    sampler, found = batches(speech)
    assert len(found) == len(sampler)
    assert all(len(batch) == 4 for batch in found)
    seconds = sum(max(len(speech[int(i)]) / CROP, 1.0) for i in speech.indices("train"))
    assert len(sampler) == int(seconds) // 4 >= 4


def test_an_epoch_depends_on_its_number_and_the_seed_only(speech):
    _, found = batches(speech, gain_sd_db=6.0)
    assert batches(speech, gain_sd_db=6.0)[1] == found
    assert batches(speech, epoch=1, gain_sd_db=6.0)[1] != found
    assert batches(speech, seed=4, gain_sd_db=6.0)[1] != found


def test_crops_are_drawn_by_length_everywhere_at_every_gain(speech):
    crops = SpeechCrops(speech, "train", CROP, STFT)
    sampler = CropBatches(crops, batch=4, seed=0, gain_sd_db=6.0, speed=(0.9, 1.1))
    drawn = []
    for epoch in range(400):
        sampler.set_epoch(epoch)
        drawn += [crop for batch in sampler for crop in batch]
    clips, starts, gains, speeds, seeds = (np.array(column) for column in zip(*drawn, strict=True))
    n = len(drawn)  # 6 standard errors throughout: odds below 1e-7 in all
    assert gains.mean() == pytest.approx(0.0, abs=6 * 6 / math.sqrt(n))
    assert gains.std() == pytest.approx(6.0, rel=6 / math.sqrt(2 * n))
    assert starts.mean() == pytest.approx(0.5, abs=6 / math.sqrt(12 * n))
    assert set(speeds.tolist()) == {0.9, 0.95, 1.0, 1.05, 1.1}
    assert speeds.mean() == pytest.approx(1.0, abs=6 * 0.071 / math.sqrt(n))
    assert len(set(seeds.tolist())) > 0.99 * n
    lengths = np.array([max(len(speech[int(i)]) / CROP, 1.0) for i in crops.clips])
    share = lengths / lengths.sum()
    found = np.bincount(clips.astype(int), minlength=len(crops)) / n
    assert (np.abs(found - share) < 6 * np.sqrt(share / n)).all()


def test_validation_takes_every_clip_once_in_order_without_gain(speech):
    crops = SpeechCrops(speech, "dev", CROP, STFT)
    sampler = CropBatches(crops, 3, seed=0, gain_sd_db=6.0, speed=(0.9, 1.1), shuffle=False)
    found = [Crop(i, 0.5, seed=i) for i in range(4)]
    assert list(sampler) == [found[:3], found[3:]]  # the last batch is not left out
    assert len(sampler) == 2
    sampler.set_epoch(5)
    assert next(iter(sampler))[0] == Crop(0, 0.5)


# Losses


class Certain(VaeNetwork):
    """Draws its means, so that the loss is a number and no random variable."""

    def encode(self, power, sample=False):
        self.asked = sample
        return super().encode(power)


def arrays(*tensors):
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
    p, m, v, ell = arrays(power, mean, logvar, certain.network.decode(z))
    fit = (ell + p * np.exp(-ell)).sum(1).mean()
    kl = (0.5 * (m**2 + np.exp(v) - 1 - v)).sum(1).mean()
    assert float(losses["fit"].detach()) == pytest.approx(fit, rel=1e-4)
    assert float(losses["kl"].detach()) == pytest.approx(kl, rel=1e-4)
    assert float(losses["loss"].detach()) == pytest.approx(fit + kl, rel=1e-4)


@pytest.mark.parametrize("top", [1.0, 0.1])
def test_the_weight_of_the_kl_rises_to_its_top_and_is_one_for_validation(monkeypatch, top):
    module = make(replace(RECIPE, kl_weight=top, kl_warmup_epochs=4))
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


def test_the_encoder_learns_from_what_its_teacher_sees_in_clean_speech(certain):
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
    module = make()
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
    assert make(RECIPES[name], Stft()).network.latent == RECIPES[name].settings["latent"]


# Runs


def card_losses(folder):
    lines = (folder / "README.md").read_text().splitlines()
    return [float(line.split(": ")[1]) for line in lines if line.startswith("- val_loss:")]


@ignore_training_warnings
class TestRuns:
    def test_training_lowers_the_loss_and_leaves_a_prior(self, speech, tmp_path):
        start = run(speech, tmp_path / "none", replace(RECIPE, learning_rate=1e-12, epochs=1))
        out = run(speech, tmp_path / "out", replace(RECIPE, epochs=6))
        (before,), (after,) = card_losses(start), card_losses(out)
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

    def test_a_run_is_repeated_by_its_seed(self, speech, noise, tmp_path):
        torch.manual_seed(1)
        np.random.seed(1)
        first = weights(run(speech, tmp_path / "1", noise=noise, seed=5))
        torch.manual_seed(2)
        np.random.seed(2)
        second = weights(run(speech, tmp_path / "2", noise=noise, seed=5))
        assert same(first, second)
        other = weights(run(speech, tmp_path / "3", noise=noise, seed=6))
        assert not same(first, other)

    def test_every_epoch_has_its_own_crops(self, speech, tmp_path, monkeypatch):
        seen = []
        original = Objective.training_step

        def spy(self, waves, index):
            seen.append((self.current_epoch, index, waves.clone()))
            return original(self, waves, index)

        monkeypatch.setattr(Objective, "training_step", spy)
        run(speech, tmp_path, replace(RECIPE, epochs=3))
        first = {epoch: waves for epoch, index, waves in seen if index == 0}
        assert sorted(first) == [0, 1, 2]
        assert not torch.equal(first[0], first[1])
        assert not torch.equal(first[1], first[2])

    @pytest.mark.parametrize("phase", ["speech", "encoder"])
    def test_an_interrupted_run_resumes_to_the_same_weights(
        self, phase, speech, noise, tmp_path, monkeypatch
    ):
        recipe = replace(RECIPE, epochs=3, encoder_epochs=3)
        whole = weights(run(speech, tmp_path / "whole", recipe, noise=noise))
        kind = VaeTraining if phase == "speech" else EncoderTraining
        original = Objective.training_step

        def fails(self, waves, index):
            if type(self) is kind and self.current_epoch == 2 and index == 1:
                raise OSError("the power went")
            return original(self, waves, index)

        monkeypatch.setattr(Objective, "training_step", fails)
        with pytest.raises(OSError, match="the power went"):
            run(speech, tmp_path / "parts", recipe, noise=noise)
        assert not (tmp_path / "parts" / "weights.safetensors").exists()
        monkeypatch.undo()
        epochs = []
        original_start = Objective.on_train_epoch_start

        def counted(self):
            epochs.append((type(self), self.current_epoch))
            return original_start(self)

        monkeypatch.setattr(Objective, "on_train_epoch_start", counted)
        resumed = weights(run(speech, tmp_path / "parts", recipe, noise=noise))
        assert same(whole, resumed)
        assert (kind, 2) in epochs
        assert (kind, 0) not in epochs  # it did go on, not begin again

    def test_a_finished_run_has_nothing_left_to_do(self, speech, noise, tmp_path, monkeypatch):
        first = weights(run(speech, tmp_path, noise=noise))
        losses = card_losses(tmp_path)
        steps = []
        monkeypatch.setattr(Objective, "training_step", lambda *a: steps.append(a))
        assert same(first, weights(run(speech, tmp_path, noise=noise)))
        assert steps == []
        assert card_losses(tmp_path) == pytest.approx(losses, abs=2e-3)

    def test_without_resume_a_run_begins_again(self, speech, tmp_path):
        first = weights(run(speech, tmp_path, seed=1))
        assert not same(first, weights(run(speech, tmp_path, seed=2, resume=False)))
        assert same(first, weights(run(speech, tmp_path, seed=1, resume=False)))

    def test_the_second_phase_leaves_the_prior_as_it_was(self, speech, noise, tmp_path):
        clean = weights(run(speech, tmp_path / "clean"))
        both = weights(run(speech, tmp_path / "both", noise=noise))
        for key, value in clean.items():
            assert torch.equal(value, both[key]) is key.startswith("decoder"), key
        skipped = run(speech, tmp_path / "skipped", replace(RECIPE, encoder_epochs=0), noise=noise)
        assert same(weights(skipped), clean)

    def test_the_second_phase_learns_to_see_through_noise(self, speech, noise, tmp_path):
        # With hardly any KL the latents say much: the encoder of clean speech is sure and wrong.
        recipe = replace(
            RECIPE, epochs=10, encoder_epochs=10, snr_db=(-5.0, -5.0), kl_warmup_epochs=1000
        )
        clean = load_speech(run(speech, tmp_path / "clean", recipe)).network
        both = load_speech(run(speech, tmp_path / "both", recipe, noise=noise)).network
        crops = MixtureCrops(speech, "dev", CROP, STFT, noise, (-5.0, -5.0))
        pair = torch.stack([crops[Crop(i % 4, 0.5, seed=i)] for i in range(40)])

        def loss(network):
            module = EncoderTraining(recipe, STFT, network)
            module.teacher = clean  # of both
            torch.manual_seed(0)
            return float(module.losses(pair)["loss"].detach())

        assert loss(both) < loss(clean) - 0.15  # nats a frame

    @pytest.mark.parametrize(("bad", "ends"), [(3, False), (10**6, True)])
    def test_gradients_that_overflow_are_left_out(self, speech, tmp_path, monkeypatch, bad, ends):
        plain, steps = VaeTraining.losses, []

        def losses(self, batch):
            found = plain(self, batch)
            if self.training:
                steps.append(batch)
                if len(steps) <= bad:
                    found["loss"] = found["loss"] * float("inf")
            return found

        monkeypatch.setattr(VaeTraining, "losses", losses)
        recipe = replace(RECIPE, epochs=8)
        if ends:
            with pytest.raises(ValueError, match="21 gradients in a row"):
                run(speech, tmp_path, recipe)
        else:
            tensors = weights(run(speech, tmp_path, recipe))
            assert all(bool(value.isfinite().all()) for value in tensors.values())

    @pytest.mark.parametrize("kind", ["rvae", "tcvae"])
    def test_the_others_train_too(self, speech, noise, tmp_path, kind):
        recipe = replace(RECIPE, network=kind, settings={"latent": 2, "hidden": 4})
        prior = load_speech(run(speech, tmp_path, recipe, noise=noise))
        assert prior.network.decode(torch.zeros(1, 2, 5)).shape == (1, 65, 5)

    @pytest.mark.slow
    def test_workers_do_not_change_the_result(self, speech, tmp_path):
        alone = weights(run(speech, tmp_path / "alone"))
        assert same(weights(run(speech, tmp_path / "helped", workers=1)), alone)

    @pytest.mark.parametrize("which", ["speech", "noise"])
    def test_a_cache_at_another_rate_is_told(self, which, speech, noise, tmp_path):
        wrong = {"speech": speech, "noise": noise}
        wrong[which] = replace(wrong[which], sample_rate_hz=16000)
        with pytest.raises(ValueError) as caught:
            run(wrong["speech"], tmp_path / "out", noise=wrong["noise"])
        assert str(caught.value) == (
            f"the cache of {which} is at 16000 Hz, the front end at 8000 Hz; build the cache with "
            "sample_rate_hz=8000"
        )
        assert not (tmp_path / "out").exists()
