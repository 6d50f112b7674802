"""Clips of lips with their sound, corrupted in known ways: examples of visual reliability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from avse_ppl.data.cache import LipsCache, SpeechCache
from avse_ppl.models.networks.av_sync import BANDS, STEPS
from avse_ppl.models.networks.lip_encoder import downsample_crops
from avse_ppl.training.augment import augment_lips
from avse_ppl.training.datasets.loaders import EpochSampler
from avse_ppl.video.corruptions import (
    CAUSES,
    KINDS,
    Corrupted,
    corrupt,
    corruption_kinds,
    label_clean_clip,
)
from avse_ppl.video.lips import Lips
from avse_ppl.video.quality.features import (
    SOUND_HZ,
    compute_log_mel_energies,
    compute_tracker_columns,
)

_FRAME_SAMPLES = SOUND_HZ // 25  # of a video frame
_LONGEST = 75  # video frames
_SHORTEST = 20
_BABBLE, _TALKERS = 0.35, 4
_CLEAN = 0.3  # share of the clips that stay as they are
_TWICE = 0.2  # share of the others that are corrupted twice
_WHOLE = 0.35  # share of corruptions that last the whole clip
_SYNC_WHOLE = 0.75
_SYNC_WEIGHT = 2.5  # how much more often than others
_BURST = (6, 45)  # video frames


class ReliabilityBatch(NamedTuple):
    """Network input and target of a clip, or of a batch of clips.

    ``images`` ``(frame, 44, 44)``, ``columns`` ``(frame, 13)`` of the tracker, ``levels`` and
    ``clean`` ``(frame, 160)`` log-mel energies of the mixture and of the speech, ``reliability``
    and ``cause`` ``(frame,)``.
    """

    images: Tensor
    columns: Tensor
    levels: Tensor
    clean: Tensor
    reliability: Tensor
    cause: Tensor


class Draw(NamedTuple):
    """A clip, and the seed of all that is done to it."""

    clip: int
    seed: int


class AVClips(Dataset[ReliabilityBatch]):
    """Clips with lips and sound of one split.

    Parameters
    ----------
    speech
        Cached speech.
    lips
        Prepared lips of those clips that have video.
    noise
        Cached noise.
    split
        ``"train"`` or ``"dev"``.
    snr_db
        Range of the signal-to-noise ratio, dB.
    corrupted
        Whether clips are augmented and corrupted, or all stay as they are.
    with_audio
        Whether they come with sound; without, none is out of sync, and all energies are 0.
    names
        Corruptions to draw from; None for all that are trained on.

    Raises
    ------
    ValueError
        If no clip of the split has lips, or there is no noise.
    """

    def __init__(
        self, speech: SpeechCache, lips: Sequence[LipsCache], noise: SpeechCache, split: str,
        snr_db: tuple[float, float] = (-5.0, 15.0), corrupted: bool = True, with_audio: bool = True,
        names: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.speech, self.noise, self.snr_db = speech, noise, snr_db
        self.corrupted, self.with_audio = corrupted, with_audio
        self.names = list(names or corruption_kinds("trained"))
        self.places = match_lips_to_speech(speech, lips, split)
        self.noises = noise.indices(split)
        if len(self.places) == 0 or len(self.noises) == 0:
            what = "clip with lips" if len(self.places) == 0 else "noise"
            raise ValueError(
                f"no {what} in the split {split!r}; prepare the lips of a corpus that has both "
                "splits, and give noise of whose classes some are held out"
            )
        self.speakers = [cache.clips[i].speaker for cache, i, _ in self.places]

    def __len__(self) -> int:
        """Count the clips."""
        return len(self.places)

    def __getitem__(self, draw: Draw) -> ReliabilityBatch:
        """Augment, corrupt and mix one clip."""
        rng = np.random.default_rng(draw.seed)
        lips = self.get_lips(draw.clip)
        lips = augment_lips(lips, rng) if self.corrupted else lips
        result = label_clean_clip(lips)
        if self.corrupted and rng.random() >= _CLEAN:
            donor = augment_lips(self.get_lips(self.choose_donor(draw.clip, rng)), rng)
            for _ in range(1 + int(rng.random() < _TWICE)):
                result = corrupt_randomly(result, rng, donor, self.with_audio, self.names)
        if not self.with_audio:
            return make_example(result)
        return make_example(result, *self.mix_audio(draw.clip, rng))

    def count_frames(self, index: int) -> int:
        """Count the video frames of a clip, as far as they are used."""
        cache, i, _ = self.places[index]
        return min(int(cache.offsets[i + 1] - cache.offsets[i]), _LONGEST)

    def get_lips(self, index: int) -> Lips:
        """Get the lips of a clip."""
        cache, i, _ = self.places[index]
        return cache[i]

    def mix_audio(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Mix a clip with noise or other talkers; returns the mixture and the speech alone."""
        clean = np.asarray(self.speech[self.places[index].sound], np.float32)
        clean = np.pad(clean, (0, max(0, self.count_frames(index) * _FRAME_SAMPLES - len(clean))))
        if rng.random() < _BABBLE:
            noise = np.zeros(len(clean), np.float32)
            for _ in range(int(rng.integers(1, _TALKERS + 1))):
                wave = self.speech[self.places[int(rng.integers(len(self)))].sound]
                noise += np.resize(wave / max(float(np.std(wave)), 1e-6), len(clean))
        else:
            wave = np.asarray(self.noise[int(rng.choice(self.noises))], np.float32)
            noise = np.roll(wave[: 60 * SOUND_HZ], int(rng.integers(len(wave))))
            noise = np.resize(noise, len(clean))
        loudness = np.sqrt(np.mean(clean**2) / max(float(np.mean(noise**2)), 1e-12))
        ratio = loudness * 10 ** (-rng.uniform(*self.snr_db) / 20)
        return clean + np.float32(ratio) * noise, clean

    def choose_donor(self, index: int, rng: np.random.Generator) -> int:
        """Choose another clip, in half of the cases of another speaker."""
        other_speaker = rng.random() < 0.5
        for _ in range(20):
            other = int(rng.integers(len(self)))
            same_speaker = self.speakers[other] == self.speakers[index]
            if other != index and not (other_speaker and same_speaker):
                return other
        return (index + 1) % len(self)


class Place(NamedTuple):
    """Where a clip is: cache of its lips, its number there, and that of its sound."""

    cache: LipsCache
    number: int
    sound: int


def match_lips_to_speech(speech: SpeechCache, lips: Sequence[LipsCache], split: str) -> list[Place]:
    """Find the clips of a split that have both lips and sound, by their files."""
    sound: dict[Path, int] = {
        speech.clips[int(i)].path.resolve(): int(i) for i in speech.indices(split)
    }
    return [
        Place(cache, i, sound[clip.path.resolve()])
        for cache in lips
        for i, clip in enumerate(cache.clips)
        if cache.has_frames[i] and clip.path.resolve() in sound
    ]


def corrupt_randomly(
    before: Corrupted, rng: np.random.Generator, donor: Lips, with_audio: bool, names: Sequence[str]
) -> Corrupted:
    """Corrupt a clip by one of the kinds named; what only the sound shows needs audio."""
    names = [n for n in names if with_audio or KINDS[n].cause != "out of sync"]
    weights = np.array([_SYNC_WEIGHT if KINDS[n].cause == "out of sync" else 1.0 for n in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    whole = _SYNC_WHOLE if KINDS[name].cause == "out of sync" else _WHOLE
    span = draw_span(len(before.lips), rng, whole)
    return corrupt(before, name, severity=rng.random(), span=span, seed=rng, donor=donor)


def draw_span(count: int, rng: np.random.Generator, whole: float) -> tuple[int, int]:
    """Draw the frames that are corrupted: the whole clip, or a burst within it."""
    if rng.random() < whole or count <= _BURST[0]:
        return 0, count
    length = int(rng.integers(_BURST[0], min(_BURST[1], count) + 1))
    start = int(rng.integers(0, count - length + 1))
    return start, start + length


def make_example(
    result: Corrupted, mixture: np.ndarray | None = None, clean: np.ndarray | None = None
) -> ReliabilityBatch:
    """Bring a clip to the input of the network and its target; without sound energies are 0."""
    frames = len(result.lips)
    levels, speech = (
        torch.zeros(frames, STEPS * BANDS)
        if samples is None
        else torch.from_numpy(compute_log_mel_energies(samples, frames))
        for samples in (mixture, clean)
    )
    return ReliabilityBatch(
        images=downsample_crops(torch.from_numpy(np.array(result.lips.roi))),
        columns=torch.from_numpy(compute_tracker_columns(result.lips)),
        levels=levels,
        clean=speech,
        reliability=torch.from_numpy(result.reliability.astype(np.float32)),
        cause=torch.tensor([CAUSES.index(name) for name in result.cause]),
    )


def collate(clips: Sequence[ReliabilityBatch]) -> ReliabilityBatch:
    """Stack clips, cut to the shortest of them."""
    frames = min(len(clip.images) for clip in clips)
    return ReliabilityBatch(
        *(torch.stack([part[:frames] for part in parts]) for parts in zip(*clips, strict=True))
    )


class ClipBatches(EpochSampler[Draw]):
    """Batches of clips of about one length.

    Speakers are drawn by the square root of how many clips there are of each.

    Parameters
    ----------
    clips
        To draw from.
    batch, count
        Clips in a batch and in an epoch.
    seed
        With the epoch, fixes everything.
    shuffle
        False takes the same draws in each epoch: for validation.
    """

    def __init__(
        self, clips: AVClips, batch: int, count: int, seed: int, shuffle: bool = True
    ) -> None:
        super().__init__(seed)
        self.clips, self.batch, self.count, self.shuffle = clips, batch, count, shuffle
        _, inverse, counts = np.unique(clips.speakers, return_inverse=True, return_counts=True)
        weights = 1.0 / np.sqrt(counts[inverse])
        self.lengths = np.array([clips.count_frames(i) for i in range(len(clips))])
        weights = weights * (self.lengths >= min(_SHORTEST, self.lengths.max()))
        self.weights = weights / weights.sum()

    def __len__(self) -> int:
        """Count the batches."""
        return max(1, self.count // self.batch)

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the batches of the current epoch."""
        rng = np.random.default_rng((self.seed, self.epoch if self.shuffle else 10**6))
        total = len(self) * self.batch
        chosen = rng.choice(len(self.clips), total, p=self.weights)
        chosen = chosen[np.argsort(self.lengths[chosen], kind="stable")]
        seeds = rng.integers(0, 2**31, total)
        draws = [Draw(int(clip), int(seed)) for clip, seed in zip(chosen, seeds, strict=True)]
        for number in rng.permutation(len(self)):
            yield draws[number * self.batch : (number + 1) * self.batch]
