"""Crops of speech with the lips of its speaker: audio-visual training examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avse_ppl.data.cache import LipsCache, SpeechCache
from avse_ppl.models.networks.lip_encoder import CROP, RATE_HZ, LipEncoder, downsample_crops
from avse_ppl.signal.stft import Stft
from avse_ppl.training.augment import augment_crops
from avse_ppl.training.datasets.speech_crops import Crop, MixtureCrops, SpeechCrops

_BABBLE = 0.45  # share of the mixtures whose noise is other people talking
_TALKERS = 6  # at most
_VARIANTS = 3  # of the features of a clip, the first of the crops as they are
_BLOCK = 500  # video frames encoded at once


class AVBatch(NamedTuple):
    """A crop, or a batch of crops, with its video.

    ``waves`` is ``(sample,)``, or speech and noise ``(2, sample)``; ``lips`` are mouth crops
    ``(video_frame, 88, 88)`` or features ``(video_frame, features)``; ``present`` is
    ``(video_frame,)``, 1 where a face was found.
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
        self.places: dict[Path, Any] = {
            clip.path.resolve(): (cache, i)
            for cache in caches
            for i, clip in enumerate(cache.clips)
            if cache.offsets[i + 1] > cache.offsets[i]
        }

    def __contains__(self, path: Path) -> bool:
        """Whether a clip has video."""
        return path.resolve() in self.places

    def get(self, path: Path, variant: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Get the mouth crops of a clip, and which of them show a face."""
        cache, index = self.places[path.resolve()]
        span = slice(int(cache.offsets[index]), int(cache.offsets[index + 1]))
        return cache.frames[span], cache.found[span].astype(np.float32)


class VisualFeatures(MouthCrops):
    """Visual features of mouth crops by a trained visual encoder, computed once.

    Training clips have two variants beside the plain one, of augmented crops: features of crops
    that the encoder was trained on are better than those of any others will be.

    Parameters
    ----------
    mouths
        The crops.
    network
        The visual encoder, in evaluation mode.
    paths
        Of which clips, and whether each is to have variants.
    seed
        Of the variations.
    """

    def __init__(
        self, mouths: MouthCrops, network: LipEncoder, paths: Mapping[Path, bool], seed: int
    ) -> None:
        self.shape = (network.features,)
        self.places = {}
        generator = torch.Generator().manual_seed(seed)
        for path, augmented in paths.items():
            crops, present = mouths.get(path)
            count = _VARIANTS if augmented else 1
            rows = [encode_crops(network, crops, generator if k else None) for k in range(count)]
            self.places[path.resolve()] = (np.stack(rows).astype(np.float16), present)

    def get(self, path: Path, variant: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Get the features of a clip, ``(video_frame, features)``, and which frames show a face."""
        rows, present = self.places[path.resolve()]
        return rows[variant % len(rows)].astype(np.float32), present


def encode_crops(
    network: LipEncoder, crops: np.ndarray, generator: torch.Generator | None = None
) -> np.ndarray:
    """Encode mouth crops ``(video_frame, 88, 88)`` to features ``(video_frame, features)``.

    The crops are augmented if there is a generator.
    """
    device = next(network.parameters()).device
    parts = []
    with torch.no_grad():
        for begin in range(0, len(crops), _BLOCK):
            images = downsample_crops(
                torch.from_numpy(crops[begin : begin + _BLOCK].copy()).to(device)
            )
            images = images[None] if generator is None else augment_crops(images[None], generator)
            parts.append(network.encode_downsampled(images)[0].T.cpu().numpy())
    return np.concatenate(parts)


class AVSpeechCrops(SpeechCrops):
    """Crops of speech with their video; clips without video have gates of 0.

    Parameters
    ----------
    cache, split, crop, stft
        As for `SpeechCrops`.
    mouths
        Mouth crops or features.
    with_video_only
        Whether clips without video are left out.
    """

    def __init__(
        self, cache: SpeechCache, split: str, crop: int, stft: Stft, mouths: MouthCrops,
        with_video_only: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(cache, split, crop, stft)
        self.set_video(stft, mouths)
        if with_video_only:
            self.keep_clips_with_video(split)

    def set_video(self, stft: Stft, mouths: MouthCrops) -> None:
        """Set the mouth crops or features."""
        self.mouths = mouths
        self.frame_samples = round(stft.sample_rate_hz / RATE_HZ)  # of a video frame

    def keep_clips_with_video(self, split: str) -> None:
        """Leave out the clips without video; raises ``ValueError`` if that leaves none."""
        has = np.array([self.cache.clips[int(i)].path in self.mouths for i in self.clips], bool)
        self.clips, self.scales = self.clips[has], self.scales[has]
        if len(self.clips) == 0:
            raise ValueError(f"no clip of the split {split!r} has lips; prepare them first")

    def __getitem__(self, which: Crop) -> AVBatch:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Cut speech and video."""
        wave = self.cut(which.clip, which.offset)
        lips, present = self.cut_video(which)
        return AVBatch(
            torch.from_numpy(wave * np.float32(10 ** (which.gain_db / 20))), lips, present
        )

    def cut(self, index: int, offset: float, speed: float = 1.0) -> np.ndarray:
        """Cut one crop of unit STFT power, which begins with a video frame."""
        wave = self.cache[int(self.clips[index])]
        begin = self.find_first_frame(len(wave), offset) * self.frame_samples
        cut = wave[begin : begin + self.crop] * self.scales[index]
        return np.pad(cut, (0, self.crop - len(cut))).astype(np.float32)

    def cut_video(self, which: Crop) -> tuple[Tensor, Tensor]:
        """Cut the mouth crops or features of a crop, and their gates."""
        index = int(self.clips[which.clip])
        count = -(-self.crop // self.frame_samples)
        lips = np.zeros((count, *self.mouths.shape), np.float32)
        present = np.zeros(count, np.float32)
        path = self.cache.clips[index].path
        if path in self.mouths:
            all_lips, all_present = self.mouths.get(path, which.seed)
            length = int(self.cache.offsets[index + 1] - self.cache.offsets[index])
            begin = self.find_first_frame(length, which.offset)
            part = all_lips[begin : begin + count]
            lips[: len(part)], present[: len(part)] = part, all_present[begin : begin + count]
        return torch.from_numpy(lips), torch.from_numpy(present)

    def find_first_frame(self, length: int, offset: float) -> int:
        """First video frame of a crop of a clip of so many samples."""
        return int(offset * max(0, length - self.crop)) // self.frame_samples


class AVMixtureCrops(AVSpeechCrops, MixtureCrops):
    """Crops of speech, of noise to be added, and of the speaker's lips.

    More of the noise than in `MixtureCrops` is other people talking, one to six of them: there
    lips help most.

    Parameters
    ----------
    cache, split, crop, stft, mouths
        As for `AVSpeechCrops`.
    noise
        Decoded noise clips.
    snr_db
        Range of the signal-to-noise ratio, dB.
    """

    def __init__(
        self, cache: SpeechCache, split: str, crop: int, stft: Stft, mouths: MouthCrops,
        noise: SpeechCache, snr_db: tuple[float, float],
    ) -> None:  # fmt: skip
        MixtureCrops.__init__(self, cache, split, crop, stft, noise, snr_db)
        self.set_video(stft, mouths)

    def __getitem__(self, which: Crop) -> AVBatch:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Cut speech, noise and video."""
        speech, lips, present = AVSpeechCrops.__getitem__(self, which)
        waves = self.pair_with_noise(speech.numpy(), np.random.default_rng(which.seed), _BABBLE)
        return AVBatch(waves, lips, present)

    def draw_babble(self, rng: np.random.Generator) -> np.ndarray:
        """Draw babble of one to six speakers of the split; ``(sample,)``."""
        talkers = rng.integers(0, len(self.clips), int(rng.integers(1, _TALKERS + 1)))
        voices = [self.cut(int(i), rng.random()) for i in talkers]
        return np.stack(voices).sum(axis=0, dtype=np.float32)


def compute_visual_features(
    speech: SpeechCache, lips: Sequence[LipsCache], network: LipEncoder | None, seed: int
) -> MouthCrops:
    """Visual features of all clips of speech that have video; no video without a visual encoder.

    Parameters
    ----------
    speech, lips
        Cached speech, and the prepared lips of its clips.
    network
        The visual encoder, in evaluation mode.
    seed
        Of the augmentation.
    """
    if network is None:
        return MouthCrops(())
    mouths = MouthCrops(lips)
    clips = [clip for clip in speech.clips if clip.path in mouths]
    return VisualFeatures(mouths, network, {c.path: c.split == "train" for c in clips}, seed)
