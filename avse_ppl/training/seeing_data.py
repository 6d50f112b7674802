"""Crops of speech with the lips that spoke it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avse_ppl.data.cache import SpeechCache
from avse_ppl.data.lips_cache import LipsCache
from avse_ppl.models.networks.lip_encoder import CROP, RATE_HZ, LipEncoder
from avse_ppl.signal.stft import Stft
from avse_ppl.training.data import Crop, MixtureCrops, SpeechCrops
from avse_ppl.training.lips_augment import vary_crops

_BABBLE = 0.45  # share of the mixtures whose noise is other people talking
_TALKERS = 6  # at most
_VARIANTS = 3  # of the features of a clip, the first of the crops as they are
_BLOCK = 500  # pictures encoded at once


class AVBatch(NamedTuple):
    """A crop with its pictures.

    ``waves`` is ``(sample,)``, or speech and noise ``(2, sample)``; ``lips`` are mouth crops
    ``(picture, 88, 88)`` or features ``(picture, features)``; ``present`` is ``(picture,)``, 1
    where a face was found.
    """

    waves: Tensor
    lips: Tensor
    present: Tensor


class MouthCrops:
    """Mouth crops of the clips of a speech cache, found by the clip's file.

    Parameters
    ----------
    caches
        Prepared lips, of any corpora.
    """

    shape: tuple[int, ...] = (CROP, CROP)

    def __init__(self, caches: Sequence[LipsCache]) -> None:
        """Index the clips."""
        self.places: dict[Path, Any] = {
            clip.path.resolve(): (cache, i)
            for cache in caches
            for i, clip in enumerate(cache.clips)
            if cache.offsets[i + 1] > cache.offsets[i]
        }

    def __contains__(self, path: Path) -> bool:
        """Whether there are pictures of that clip."""
        return path.resolve() in self.places

    def get(self, path: Path, variant: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Pictures of a clip and which of them show a face."""
        cache, index = self.places[path.resolve()]
        span = slice(int(cache.offsets[index]), int(cache.offsets[index + 1]))
        return cache.frames[span], cache.found[span].astype(np.float32)


class VisualFeatures(MouthCrops):
    """Features of the same crops by a trained visual encoder, computed once.

    Training clips have two variants beside the plain one, of crops that were varied: features of
    pictures that the encoder was trained on are better than those of any others will be.

    Parameters
    ----------
    pictures
        The crops.
    network
        The visual encoder, in evaluation mode.
    paths
        Of which clips, and whether each is to have variants.
    seed
        Of the variations.
    """

    def __init__(
        self, pictures: MouthCrops, network: LipEncoder, paths: Mapping[Path, bool], seed: int
    ) -> None:
        """Encode all of them."""
        self.shape = (network.features,)
        self.places = {}
        generator = torch.Generator().manual_seed(seed)
        for path, varied in paths.items():
            crops, present = pictures.get(path)
            count = _VARIANTS if varied else 1
            rows = [encode_crops(network, crops, generator if k else None) for k in range(count)]
            self.places[path.resolve()] = (np.stack(rows).astype(np.float16), present)

    def get(self, path: Path, variant: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Features of a clip, ``(picture, features)``, and which pictures show a face."""
        rows, present = self.places[path.resolve()]
        return rows[variant % len(rows)].astype(np.float32), present


def encode_crops(
    network: LipEncoder, crops: np.ndarray, generator: torch.Generator | None = None
) -> np.ndarray:
    """Features ``(picture, features)`` of ``(picture, 88, 88)``, varied if there is a generator."""
    from avse_ppl.models.networks.lip_encoder import downsample_crops

    device = next(network.parameters()).device
    parts = []
    with torch.no_grad():
        for begin in range(0, len(crops), _BLOCK):
            images = downsample_crops(
                torch.from_numpy(crops[begin : begin + _BLOCK].copy()).to(device)
            )
            images = images[None] if generator is None else vary_crops(images[None], generator)
            parts.append(network.from_halved(images)[0].T.cpu().numpy())
    return np.concatenate(parts)


class AVSpeechCrops(SpeechCrops):
    """Crops of clips with their pictures; clips without any have gates of 0.

    Parameters
    ----------
    cache, split, crop, stft
        As for `SpeechCrops`.
    pictures
        Crops or features.
    only_seen
        Whether clips without pictures are left out.
    """

    def __init__(
        self, cache: SpeechCache, split: str, crop: int, stft: Stft, pictures: MouthCrops,
        only_seen: bool = False,
    ) -> None:  # fmt: skip
        """List the clips of the split."""
        super().__init__(cache, split, crop, stft)
        self.pictures = pictures
        self.picture = round(stft.sample_rate_hz / RATE_HZ)  # samples
        if only_seen:
            has = np.array([cache.clips[int(i)].path in pictures for i in self.clips], bool)
            self.clips, self.scales = self.clips[has], self.scales[has]
            if len(self.clips) == 0:
                raise ValueError(f"no clip of the split {split!r} has lips; prepare them first")

    def __getitem__(self, which: Crop) -> AVBatch:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Cut speech and pictures."""
        wave = self.cut(which.clip, which.start)
        lips, present = self.seen(which)
        return AVBatch(
            torch.from_numpy(wave * np.float32(10 ** (which.gain_db / 20))), lips, present
        )

    def cut(self, index: int, start: float, speed: float = 1.0) -> np.ndarray:
        """One crop at unit level, which begins with a picture."""
        wave = self.cache[int(self.clips[index])]
        begin = self._begin(len(wave), start) * self.picture
        cut = wave[begin : begin + self.crop] * self.scales[index]
        return np.pad(cut, (0, self.crop - len(cut))).astype(np.float32)

    def seen(self, which: Crop) -> tuple[Tensor, Tensor]:
        """Pictures of a crop, and their gates."""
        index = int(self.clips[which.clip])
        count = -(-self.crop // self.picture)
        lips = np.zeros((count, *self.pictures.shape), np.float32)
        present = np.zeros(count, np.float32)
        path = self.cache.clips[index].path
        if path in self.pictures:
            all_lips, all_present = self.pictures.get(path, which.seed)
            length = int(self.cache.offsets[index + 1] - self.cache.offsets[index])
            begin = self._begin(length, which.start)
            part = all_lips[begin : begin + count]
            lips[: len(part)], present[: len(part)] = part, all_present[begin : begin + count]
        return torch.from_numpy(lips), torch.from_numpy(present)

    def _begin(self, length: int, start: float) -> int:
        """First picture of a crop."""
        return int(start * max(0, length - self.crop)) // self.picture


class AVMixtureCrops(AVSpeechCrops, MixtureCrops):
    """Crops of speech, of noise to be added, and of the speaker's lips.

    More of the noise than in `MixtureCrops` is other people talking, one to six of them: what lips
    can tell apart and ears cannot.

    Parameters
    ----------
    cache, split, crop, stft, pictures
        As for `AVSpeechCrops`.
    noise
        Decoded noise clips.
    snr_db
        Range of the signal-to-noise ratio, dB.
    """

    def __init__(
        self, cache: SpeechCache, split: str, crop: int, stft: Stft, pictures: MouthCrops,
        noise: SpeechCache, snr_db: tuple[float, float],
    ) -> None:  # fmt: skip
        """List the clips of both splits."""
        MixtureCrops.__init__(self, cache, split, crop, stft, noise, snr_db)
        self.pictures = pictures
        self.picture = round(stft.sample_rate_hz / RATE_HZ)

    def __getitem__(self, which: Crop) -> AVBatch:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Cut speech, noise and pictures."""
        speech, lips, present = AVSpeechCrops.__getitem__(self, which)
        waves = self.with_noise(speech.numpy(), np.random.default_rng(which.seed), _BABBLE)
        return AVBatch(waves, lips, present)

    def _babble(self, rng: np.random.Generator) -> np.ndarray:
        talkers = rng.integers(0, len(self.clips), int(rng.integers(1, _TALKERS + 1)))
        voices = [self.cut(int(i), rng.random()) for i in talkers]
        return np.stack(voices).sum(axis=0, dtype=np.float32)
