"""Random crops of cached speech and noise, scaled to a common power."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from avse_ppl.data.cache import SpeechCache
from avse_ppl.data.mixing import active_power
from avse_ppl.signal.stft import Stft
from avse_ppl.training.augment import (
    change_speed,
    compute_source_length,
    equalise,
    randomise_phases,
    scale_to_unit_power,
)
from avse_ppl.training.datasets.loaders import EpochSampler, Loaders, make_loader

_BABBLE = 0.15  # share of the mixtures whose noise is other people talking
_TALKERS = 5
_STATIONARY = 0.3  # share of the other noises whose phases are drawn anew
_TWO_CLIPS = 0.3  # share of the noises that are two clips at once
_NOISE_TWO_CLIPS, _NOISE_STATIONARY = 0.2, 0.15  # the same shares where noise is what is learned


class Crop(NamedTuple):
    """Where to cut one crop, and how to augment it."""

    clip: int
    offset: float  # fraction of what the clip is longer than the crop
    gain_db: float = 0.0
    speed: float = 1.0
    seed: int = 0  # of the noise


class SpeechCrops(Dataset[Tensor]):
    """Crops of the clips of one split, scaled so that active speech has unit STFT power.

    Parameters
    ----------
    cache
        Decoded clips.
    split
        ``"train"`` or ``"dev"``.
    crop
        Samples a crop; shorter clips are padded with zeros.
    stft
        Fixes the scale: a crop's mean ``|s_ft|^2`` over active frames is 1 before its gain.
    """

    def __init__(self, cache: SpeechCache, split: str, crop: int, stft: Stft) -> None:
        self.cache, self.crop = cache, crop
        self.clips = cache.indices(split)
        if len(self.clips) == 0:
            raise ValueError(f"the cache has no clip in the split {split!r}")
        self.scales = np.array([compute_power_scale(cache[int(i)], stft) for i in self.clips])

    def __len__(self) -> int:
        """Count the clips: one crop each an epoch."""
        return len(self.clips)

    def __getitem__(self, which: Crop) -> Tensor:
        """Cut one crop, ``(sample,)``."""
        wave = self.cut(which.clip, which.offset, which.speed)
        return torch.from_numpy(wave * np.float32(10 ** (which.gain_db / 20)))

    def cut(self, index: int, offset: float, speed: float = 1.0) -> np.ndarray:
        """Cut one crop of unit STFT power, ``(sample,)``, float32."""
        wave = self.cache[int(self.clips[index])]
        wanted = compute_source_length(self.crop, speed)
        begin = int(offset * max(0, len(wave) - wanted))
        cut = wave[begin : begin + wanted] * self.scales[index]
        cut = np.pad(cut, (0, wanted - len(cut))).astype(np.float32)
        return change_speed(cut, self.crop)


class MixtureCrops(SpeechCrops):
    """Crops of speech, each with a crop of noise to be added: ``(2, sample)``.

    Noise is a clip of the noise corpora (or the sum of two, at another speed and equalised at
    random, some with their phases drawn anew: stationary noise of that spectrum) or babble of other
    training speakers, at a signal-to-noise ratio drawn uniformly.

    Parameters
    ----------
    cache, split, crop, stft
        As for `SpeechCrops`.
    noise
        Decoded noise clips.
    snr_db
        Range of the ratio, dB.
    """

    def __init__(
        self, cache: SpeechCache, split: str, crop: int, stft: Stft, noise: SpeechCache,
        snr_db: tuple[float, float],
    ) -> None:  # fmt: skip
        super().__init__(cache, split, crop, stft)
        self.noise, self.snr_db = noise, snr_db
        self.noise_octaves = 0.5  # that a clip of noise is slowed down or sped up at most
        self.noise_clips = noise.indices(split)
        if len(self.noise_clips) == 0:
            raise ValueError(f"the noise cache has no clip in the split {split!r}")

    def __getitem__(self, which: Crop) -> Tensor:
        """Speech and noise, ``(2, sample)``."""
        speech = super().__getitem__(which).numpy()
        return self.pair_with_noise(speech, np.random.default_rng(which.seed), _BABBLE)

    def pair_with_noise(
        self, speech: np.ndarray, rng: np.random.Generator, babble: float
    ) -> Tensor:
        """Pair speech ``(sample,)`` with noise: ``(2, sample)``; a share of the noise is babble."""
        noise = self.draw_babble(rng) if rng.random() < babble else self.draw_noise(rng)
        ratio_db = rng.uniform(*self.snr_db)
        loudness = np.sqrt(np.mean(speech**2) / max(np.mean(noise**2), 1e-12))
        noise = noise * np.float32(loudness * 10 ** (-ratio_db / 20))
        return torch.from_numpy(np.stack((speech, noise)))

    def draw_noise(self, rng: np.random.Generator) -> np.ndarray:
        """Draw noise of one or two clips, equalised, some of it stationary; ``(sample,)``."""
        noise = self.draw_noise_clip(rng)
        if rng.random() < _TWO_CLIPS:
            noise = noise + self.draw_noise_clip(rng)
        noise = equalise(noise, rng)
        return randomise_phases(noise, rng) if rng.random() < _STATIONARY else noise

    def draw_noise_clip(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a crop of a noise clip at a random speed, of unit power; ``(sample,)``."""
        wave = self.noise[int(rng.choice(self.noise_clips))]
        octaves = rng.uniform(-self.noise_octaves, self.noise_octaves)
        wanted = compute_source_length(self.crop, 2**octaves)
        begin = int(rng.integers(0, max(1, len(wave) - wanted)))
        cut = np.resize(wave[begin : begin + wanted], wanted).astype(np.float32)
        return scale_to_unit_power(change_speed(cut, self.crop))

    def draw_babble(self, rng: np.random.Generator) -> np.ndarray:
        """Draw babble of speakers of the split; ``(sample,)``."""
        talkers = rng.integers(0, len(self.clips), _TALKERS)
        voices = [self.cut(int(i), rng.random()) for i in talkers]
        return np.stack(voices).sum(axis=0, dtype=np.float32)


class NoiseCrops(SpeechCrops):
    """Crops of noise of unit mean STFT power, those for training augmented.

    They are augmented by another speed, an equaliser, a second clip on top, or phases drawn anew.
    Crops of the development split are left as they are.

    Parameters
    ----------
    cache, split, crop, stft
        As for `SpeechCrops`, of noise.
    """

    def __init__(self, cache: SpeechCache, split: str, crop: int, stft: Stft) -> None:
        super().__init__(cache, split, crop, stft)
        self.augmented, self.window_energy = split == "train", stft.n_fft / 2

    def __getitem__(self, which: Crop) -> Tensor:
        """Cut one crop, ``(sample,)``."""
        noise = self.cut(which.clip, which.offset, which.speed)
        if self.augmented:
            rng, noise = np.random.default_rng(which.seed), scale_to_unit_power(noise)
            if rng.random() < _NOISE_TWO_CLIPS:
                other = self.cut(int(rng.integers(0, len(self))), rng.random())
                gain_db = rng.uniform(-15, 5)
                noise = noise + scale_to_unit_power(other) * np.float32(10 ** (gain_db / 20))
            noise = equalise(noise, rng)
            noise = randomise_phases(noise, rng) if rng.random() < _NOISE_STATIONARY else noise
        scale = np.float32(10 ** (which.gain_db / 20) / np.sqrt(self.window_energy))
        return torch.from_numpy(scale_to_unit_power(noise) * scale)


class NoiseMixtureCrops(MixtureCrops):
    """Crops of speech and noise where noise is what is learned: babble is speech there."""

    def draw_babble(self, rng: np.random.Generator) -> np.ndarray:
        """Draw noise, as babble is none."""
        return self.draw_noise(rng)


class CropBatches(EpochSampler[Crop]):
    """Shuffled batches of crops; long clips are cropped more often.

    Parameters
    ----------
    dataset
        What to crop.
    batch
        Crops a batch.
    seed
        With the epoch, fixes order, position and gain.
    gain_sd_db
        Standard deviation of the gains.
    speed
        Range of the speeds, drawn uniformly in twentieths.
    share
        Part of the speech that one epoch draws.
    shuffle
        False gives every clip's middle crop in order, without gain: for validation.
    """

    def __init__(
        self, dataset: SpeechCrops, batch: int, seed: int, gain_sd_db: float = 0.0,
        speed: tuple[float, float] = (1.0, 1.0), share: float = 1.0, shuffle: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(seed)
        self.dataset, self.batch, self.speed = dataset, batch, speed
        self.gain_sd_db, self.shuffle = gain_sd_db, shuffle
        # Long clips are cropped more often, so that every second counts alike.
        lengths = np.diff(dataset.cache.offsets)[dataset.clips]
        self.weights = np.maximum(lengths / dataset.crop, 1.0)
        self.crops = int(share * self.weights.sum())

    def __len__(self) -> int:
        """Count the batches; the last of a validation may be a smaller one."""
        if not self.shuffle:
            return -(-len(self.dataset) // self.batch)
        return max(1, self.crops // self.batch)

    def __iter__(self) -> Iterator[list[Crop]]:
        """Yield the batches of the current epoch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        if not self.shuffle:
            crops = [Crop(i, 0.5, seed=i) for i in range(len(self.dataset))]
        else:
            total = max(self.batch, self.crops)
            clips = rng.choice(len(self.dataset), total, p=self.weights / self.weights.sum())
            gains = self.gain_sd_db * rng.standard_normal(total)
            seeds = rng.integers(0, 2**31, total)
            low, high = (round(20 * bound) for bound in self.speed)
            # In steps, so that the lengths to resample are few and the transforms stay fast.
            speeds = rng.integers(low, high + 1, total) / 20
            columns = (clips, rng.random(total), gains, speeds, seeds)
            rows = zip(*(column.tolist() for column in columns), strict=True)
            crops = [Crop(*row) for row in rows]
        for start in range(0, len(self) * self.batch, self.batch):
            yield crops[start : start + self.batch]


def compute_power_scale(wave: np.ndarray, stft: Stft) -> float:
    """Factor that brings a clip's active frames to unit mean STFT power."""
    window_energy = stft.n_fft / 2  # both windows: sine, and Hann up to a constant
    return 1.0 / np.sqrt(max(active_power(wave, stft.sample_rate_hz), 1e-12) * window_energy)


def make_crop_loaders(
    train: SpeechCrops,
    dev: SpeechCrops,
    batch: int,
    seed: int,
    *,
    gain_sd_db: float = 0.0,
    speed: tuple[float, float] = (1.0, 1.0),
    share: float = 1.0,
    workers: int = 0,
) -> Loaders:
    """Load shuffled batches of training crops, and the middle crop of every validation clip.

    Parameters
    ----------
    train, dev
        Crops of both splits.
    batch, seed, gain_sd_db, speed, share
        As for `CropBatches`; they vary the training crops only.
    workers
        Processes that cut and augment the training crops.

    Returns
    -------
    Loaders
        Of training and of validation.
    """
    batches = CropBatches(train, batch, seed, gain_sd_db, speed, share)
    checks = CropBatches(dev, min(batch, len(dev)), seed, shuffle=False)
    return Loaders(make_loader(train, batches, workers), make_loader(dev, checks))
