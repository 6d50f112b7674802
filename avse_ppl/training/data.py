"""Random crops of cached speech, brought to a common level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from avse_ppl.data.cache import SpeechCache
from avse_ppl.signal.stft import Stft
from avse_ppl.training.augment import change_speed, equalise, samples_needed, steady

_BABBLE = 0.15  # share of the mixtures whose noise is other people talking
_TALKERS = 5
_STEADY = 0.3  # share of the other noises whose phases are drawn anew
_SECOND = 0.3  # share of the noises that are two clips at once


class Crop(NamedTuple):
    """What to cut, and what to make of it."""

    clip: int
    start: float  # fraction of the room
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
        Fixes the level: a crop's mean ``|s_ft|^2`` over active frames is 1 before its gain.
    """

    def __init__(self, cache: SpeechCache, split: str, crop: int, stft: Stft) -> None:
        """Measure the level of every clip once."""
        self.cache, self.crop = cache, crop
        self.clips = cache.indices(split)
        if len(self.clips) == 0:
            raise ValueError(f"the cache has no clip in the split {split!r}")
        self.scales = np.array([_level_scale(cache[int(i)], stft) for i in self.clips])

    def __len__(self) -> int:
        """Count the clips: one crop each an epoch."""
        return len(self.clips)

    def __getitem__(self, which: Crop) -> Tensor:
        """Cut one crop, ``(sample,)``."""
        wave = self.cut(which.clip, which.start, which.speed)
        return torch.from_numpy(wave * np.float32(10 ** (which.gain_db / 20)))

    def cut(self, index: int, start: float, speed: float = 1.0) -> np.ndarray:
        """One crop at unit level, ``(sample,)``, float32."""
        wave = self.cache[int(self.clips[index])]
        wanted = samples_needed(self.crop, speed)
        begin = int(start * max(0, len(wave) - wanted))
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
        """List the noise clips of the split."""
        super().__init__(cache, split, crop, stft)
        self.noise, self.snr_db = noise, snr_db
        self.noise_clips = noise.indices(split)
        if len(self.noise_clips) == 0:
            raise ValueError(f"the noise cache has no clip in the split {split!r}")

    def __getitem__(self, which: Crop) -> Tensor:
        """Speech and noise, ``(2, sample)``."""
        speech = super().__getitem__(which).numpy()
        return self.with_noise(speech, np.random.default_rng(which.seed), _BABBLE)

    def with_noise(self, speech: np.ndarray, rng: np.random.Generator, babble: float) -> Tensor:
        """Speech ``(sample,)`` and noise for it, ``(2, sample)``; babble in that share of them."""
        noise = self._babble(rng) if rng.random() < babble else self._noise(rng)
        ratio_db = rng.uniform(*self.snr_db)
        loudness = np.sqrt(np.mean(speech**2) / max(np.mean(noise**2), 1e-12))
        noise = noise * np.float32(loudness * 10 ** (-ratio_db / 20))
        return torch.from_numpy(np.stack((speech, noise)))

    def _noise(self, rng: np.random.Generator) -> np.ndarray:
        noise = self._clip(rng)
        if rng.random() < _SECOND:
            noise = noise + self._clip(rng)
        noise = equalise(noise, rng)
        return steady(noise, rng) if rng.random() < _STEADY else noise

    def _clip(self, rng: np.random.Generator) -> np.ndarray:
        wave = self.noise[int(rng.choice(self.noise_clips))]
        wanted = samples_needed(self.crop, 2 ** rng.uniform(-0.5, 0.5))
        begin = int(rng.integers(0, max(1, len(wave) - wanted)))
        cut = np.resize(wave[begin : begin + wanted], wanted).astype(np.float32)
        cut = change_speed(cut, self.crop)
        return cut / np.float32(np.sqrt(max(np.mean(cut**2), 1e-12)))

    def _babble(self, rng: np.random.Generator) -> np.ndarray:
        talkers = rng.integers(0, len(self.clips), _TALKERS)
        voices = [self.cut(int(i), rng.random()) for i in talkers]
        return np.stack(voices).sum(axis=0, dtype=np.float32)


class CropBatches(Sampler[list[Crop]]):
    """Shuffled batches of crops; epoch ``n`` is the same whether reached at once or resumed.

    Parameters
    ----------
    dataset
        What to crop.
    batch
        Crops a batch.
    seed
        With the epoch, fixes order, position and gain.
    level_jitter_db
        Standard deviation of the gains.
    speed
        Range of the speeds, drawn uniformly in twentieths.
    share
        Part of the speech that one epoch draws.
    shuffle
        False gives every clip's middle crop in order, without gain: for validation.
    """

    def __init__(
        self, dataset: SpeechCrops, batch: int, seed: int, level_jitter_db: float = 0.0,
        speed: tuple[float, float] = (1.0, 1.0), share: float = 1.0, shuffle: bool = True,
    ) -> None:  # fmt: skip
        """Store the settings."""
        self.dataset, self.batch, self.seed, self.speed = dataset, batch, seed, speed
        self.level_jitter_db, self.shuffle, self.epoch = level_jitter_db, shuffle, 0
        # Long clips are cropped more often, so that every second counts alike.
        lengths = np.diff(dataset.cache.offsets)[dataset.clips]
        self.weights = np.maximum(lengths / dataset.crop, 1.0)
        self.crops = int(share * self.weights.sum())

    def __len__(self) -> int:
        """Count the batches; the last of a validation may be a smaller one."""
        if not self.shuffle:
            return -(-len(self.dataset) // self.batch)
        return max(1, self.crops // self.batch)

    @property
    def sampler(self) -> CropBatches:
        """Itself: Lightning tells the epoch to a batch sampler's sampler only."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Crop]]:
        """Yield the batches of the current epoch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        if not self.shuffle:
            crops = [Crop(i, 0.5, seed=i) for i in range(len(self.dataset))]
        else:
            total = max(self.batch, self.crops)
            clips = rng.choice(len(self.dataset), total, p=self.weights / self.weights.sum())
            gains = self.level_jitter_db * rng.standard_normal(total)
            seeds = rng.integers(0, 2**31, total)
            low, high = (round(20 * bound) for bound in self.speed)
            # In steps, so that the lengths to resample are few and the transforms stay fast.
            speeds = rng.integers(low, high + 1, total) / 20
            columns = (clips, rng.random(total), gains, speeds, seeds)
            rows = zip(*(column.tolist() for column in columns), strict=True)
            crops = [Crop(*row) for row in rows]
        for start in range(0, len(self) * self.batch, self.batch):
            yield crops[start : start + self.batch]


def _level_scale(wave: np.ndarray, stft: Stft) -> float:
    """Factor that brings a clip's active frames to unit mean STFT power."""
    from avse_ppl.data.mixing import active_power

    window_energy = stft.n_fft / 2  # both windows: sine, and Hann up to a constant
    return 1.0 / np.sqrt(max(active_power(wave, stft.sample_rate_hz), 1e-12) * window_energy)
