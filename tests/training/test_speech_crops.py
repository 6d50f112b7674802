"""Crops of speech, of mixtures and of noise: power, position, ratio, and their batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from avse_ppl import Stft
from avse_ppl.data import Clip, SpeechCache
from avse_ppl.data.mixing import active_power
from avse_ppl.training.datasets.speech_crops import (
    Crop,
    CropBatches,
    MixtureCrops,
    NoiseCrops,
    NoiseMixtureCrops,
    SpeechCrops,
)
from tests.training.conftest import RATE_HZ

STFT = Stft(128, 32, sample_rate_hz=RATE_HZ)
CROP = 1600


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


def test_a_crop_at_another_speed_starts_where_it_is_asked_for(speech):
    crops = SpeechCrops(speech, "train", CROP, STFT)
    plain, faster = crops[Crop(0, 0.0)], crops[Crop(0, 0.0, speed=1.1)]
    assert faster.shape == plain.shape
    loudness = plain.square().mean() / faster.square().mean()
    assert float(10 * loudness.log10()) == pytest.approx(0.0, abs=1.0)
    assert not torch.allclose(plain, faster, atol=1e-2)


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


# Crops of noise

NOISE_STFT = Stft(n_fft=64, hop=16)
NOISE_CROP = 4000


def white_noise(seed=0, rate=16000, level=0.1):
    """Two clips to train on, one to validate with: white, each louder than the one before."""
    rng = np.random.default_rng(seed)
    waves = [level * 4.0**i * rng.standard_normal(8000) for i in range(3)]
    clips = tuple(
        Clip(f"{i}.wav", "esc10", "", "dev" if i == 2 else "train", label="fan") for i in range(3)
    )
    samples = np.concatenate(waves).astype(np.float16)
    return SpeechCache(samples, np.array([0, 8000, 16000, 24000]), clips, rate)


def mean_power(wave):
    values = NOISE_STFT.forward(wave)
    return float(values.abs().square()[..., 4:-4].mean())


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize("gain_db", [0.0, 10.0])
def test_noise_crops_have_unit_power_at_any_level_of_the_clip(split, gain_db):
    crops = NoiseCrops(white_noise(), split, NOISE_CROP, NOISE_STFT)
    for clip in range(len(crops)):
        wave = crops[Crop(clip, 0.3, gain_db=gain_db, seed=5)]
        assert wave.shape == (NOISE_CROP,) and wave.dtype == torch.float32
        assert mean_power(wave) == pytest.approx(10 ** (gain_db / 10), rel=0.15)


def test_noise_crops_vary_with_their_seed_and_not_those_of_the_development_split():
    crops, dev = (
        NoiseCrops(white_noise(), split, NOISE_CROP, NOISE_STFT) for split in ("train", "dev")
    )
    first, again, other = (crops[Crop(0, 0.3, seed=seed)] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.01)
    plain = [dev[Crop(0, 0.5, seed=seed)] for seed in (1, 2)]
    assert torch.equal(*plain)
    raw = torch.from_numpy(white_noise()[2][2000:6000])  # the middle of the clip, scaled
    torch.testing.assert_close(plain[0] / plain[0].norm(), raw / raw.norm(), rtol=1e-3, atol=1e-4)


def test_silence_within_a_clip_is_left_silent():
    quiet = white_noise()
    quiet.samples[16000:22000] = 0.0
    crops = NoiseCrops(quiet, "dev", NOISE_CROP, NOISE_STFT)
    assert float(crops[Crop(0, 0.0)].abs().max()) == 0.0
    assert float(crops[Crop(0, 1.0)].abs().max()) > 0.1


def test_mixtures_for_the_noise_encoder_have_no_babble(monkeypatch):
    def never(*_):
        raise RuntimeError("babble")

    monkeypatch.setattr("avse_ppl.training.datasets.speech_crops.MixtureCrops.draw_babble", never)
    crops = NoiseMixtureCrops(
        white_noise(1), "train", NOISE_CROP, NOISE_STFT, white_noise(), (0.0, 0.0)
    )
    assert all(crops[Crop(0, 0.0, seed=seed)].isfinite().all() for seed in range(30))
