"""Clips of lips with sound, corrupted in known ways, to train and to judge reliability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from avse_ppl.data.cache import SpeechCache
from avse_ppl.data.lips_cache import LipsCache
from avse_ppl.models.networks.av_sync import BANDS, STEPS
from avse_ppl.models.networks.lip_encoder import downsample_crops
from avse_ppl.training.reliability_augment import vary_lips
from avse_ppl.video.corruptions import CAUSES, KINDS, Corrupted, corrupt, corruption_kinds, truth
from avse_ppl.video.lips import Lips
from avse_ppl.video.quality.features import SOUND_HZ, speech_levels, tracker_columns

_PICTURE = SOUND_HZ // 25  # samples
_LONGEST = 75  # frames
_SHORTEST = 20
_BABBLE, _TALKERS = 0.35, 4
_CLEAN = 0.3  # share of the clips that stay as they are
_SECOND = 0.2  # share of the others that are corrupted twice
_WHOLE = 0.35  # share of corruptions that last the whole clip
_SYNC_WHOLE = 0.75
_SYNC_WEIGHT = 2.5  # how much more often than others
_BURST = (6, 45)  # frames


class ReliabilityBatch(NamedTuple):
    """A clip, or a batch of clips, with its truth.

    ``images`` ``(frame, 44, 44)``, ``columns`` ``(frame, 13)``, ``levels`` and ``clean`` ``(frame,
    160)`` of the mixture and of the speech, ``reliability`` and ``cause`` ``(frame,)``.
    """

    images: Tensor
    columns: Tensor
    levels: Tensor
    clean: Tensor
    reliability: Tensor
    cause: Tensor


class Draw(NamedTuple):
    """Which clip, and the seed of all that is done to it."""

    clip: int
    seed: int


@dataclass(frozen=True)
class Places:
    """Where the clips are: cache of lips with the index there, and index in the sound."""

    lips: list[tuple[LipsCache, int]]
    sound: list[int]

    def __len__(self) -> int:
        """Count the clips."""
        return len(self.sound)


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
        Whether clips are varied and corrupted, or all stay as they are.
    heard
        Whether they come with sound; without, none is out of sync, and all levels are 0.
    names
        Corruptions to draw from; None for all that are trained on.

    Raises
    ------
    ValueError
        If no clip of the split has lips, or there is no noise.
    """

    def __init__(
        self, speech: SpeechCache, lips: Sequence[LipsCache], noise: SpeechCache, split: str,
        snr_db: tuple[float, float] = (-5.0, 15.0), corrupted: bool = True, heard: bool = True,
        names: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """List the clips."""
        self.heard = heard
        self.names = list(names or corruption_kinds("trained"))
        self.speech, self.noise, self.snr_db, self.corrupted = speech, noise, snr_db, corrupted
        self.places = _places(speech, lips, split)
        self.noises = noise.indices(split)
        if len(self.places) == 0 or len(self.noises) == 0:
            what = "clip with lips" if len(self.places) == 0 else "noise"
            raise ValueError(
                f"no {what} in the split {split!r}; prepare the lips of a corpus that has both "
                "splits, and give noise of whose classes some are held out"
            )
        self.speakers = [cache.clips[i].speaker for cache, i in self.places.lips]

    def __len__(self) -> int:
        """Count the clips."""
        return len(self.places)

    def frames(self, index: int) -> int:
        """Count the frames of a clip, as far as they are used."""
        cache, i = self.places.lips[index]
        return min(int(cache.offsets[i + 1] - cache.offsets[i]), _LONGEST)

    def __getitem__(self, draw: Draw) -> ReliabilityBatch:
        """Vary, corrupt and mix one clip."""
        rng = np.random.default_rng(draw.seed)
        lips = self.lips(draw.clip)
        lips = vary_lips(lips, rng) if self.corrupted else lips
        known = truth(lips)
        if self.corrupted and rng.random() >= _CLEAN:
            donor = vary_lips(self.lips(self._other(draw.clip, rng)), rng)
            for _ in range(1 + int(rng.random() < _SECOND)):
                known = corrupt_once(known, rng, donor, self.heard, self.names)
        return judgeable(known, *(self.sound(draw.clip, rng) if self.heard else (None, None)))

    def lips(self, index: int) -> Lips:
        """Lips of a clip."""
        cache, i = self.places.lips[index]
        return cache[i]

    def sound(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A mixture of a clip with noise or other talkers, and the speech alone."""
        clean = np.asarray(self.speech[self.places.sound[index]], np.float32)
        clean = np.pad(clean, (0, max(0, self.frames(index) * _PICTURE - len(clean))))
        noise = self._babble(len(clean), rng) if rng.random() < _BABBLE else self._noise(rng)
        noise = np.resize(noise, len(clean))
        loudness = np.sqrt(np.mean(clean**2) / max(float(np.mean(noise**2)), 1e-12))
        ratio = loudness * 10 ** (-rng.uniform(*self.snr_db) / 20)
        return clean + np.float32(ratio) * noise, clean

    def _noise(self, rng: np.random.Generator) -> np.ndarray:
        wave = np.asarray(self.noise[int(rng.choice(self.noises))], np.float32)
        return np.roll(wave[: 60 * SOUND_HZ], int(rng.integers(len(wave))))

    def _babble(self, length: int, rng: np.random.Generator) -> np.ndarray:
        total = np.zeros(length, np.float32)
        for _ in range(int(rng.integers(1, _TALKERS + 1))):
            wave = self.speech[self.places.sound[int(rng.integers(len(self)))]]
            total += np.resize(wave / max(float(np.std(wave)), 1e-6), length)
        return total

    def _other(self, index: int, rng: np.random.Generator) -> int:
        """Another clip, in half of the cases of another person."""
        other_person = rng.random() < 0.5
        for _ in range(20):
            other = int(rng.integers(len(self)))
            if other != index and not (
                other_person and self.speakers[other] == self.speakers[index]
            ):
                return other
        return (index + 1) % len(self)


def corrupt_once(
    known: Corrupted, rng: np.random.Generator, donor: Lips, heard: bool, names: Sequence[str]
) -> Corrupted:
    """Corrupt by one of those kinds; what only the sound would tell needs to be heard."""
    names = [n for n in names if heard or KINDS[n].cause != "out of sync"]
    weights = np.array([_SYNC_WEIGHT if KINDS[n].cause == "out of sync" else 1.0 for n in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    whole = _SYNC_WHOLE if KINDS[name].cause == "out of sync" else _WHOLE
    span = random_span(len(known.lips), rng, whole)
    return corrupt(known, name, severity=rng.random(), span=span, seed=rng, donor=donor)


def random_span(count: int, rng: np.random.Generator, whole: float) -> tuple[int, int]:
    """The whole clip, or a burst within it."""
    if rng.random() < whole or count <= _BURST[0]:
        return 0, count
    length = int(rng.integers(_BURST[0], min(_BURST[1], count) + 1))
    start = int(rng.integers(0, count - length + 1))
    return start, start + length


def judgeable(
    known: Corrupted, mixture: np.ndarray | None = None, clean: np.ndarray | None = None
) -> ReliabilityBatch:
    """Bring a clip to what the network is given; without sound its levels are 0."""
    frames = len(known.lips)
    cause = [CAUSES.index(name) for name in known.cause]
    return ReliabilityBatch(
        images=downsample_crops(torch.from_numpy(np.array(known.lips.roi))),
        columns=torch.from_numpy(tracker_columns(known.lips)),
        levels=_levels(mixture, frames),
        clean=_levels(clean, frames),
        reliability=torch.from_numpy(known.reliability.astype(np.float32)),
        cause=torch.tensor(cause),
    )


def _levels(samples: np.ndarray | None, frames: int) -> Tensor:
    if samples is None:
        return torch.zeros(frames, STEPS * BANDS)
    return torch.from_numpy(speech_levels(samples, frames))


def collate(clips: Sequence[ReliabilityBatch]) -> ReliabilityBatch:
    """Stack clips, cut to the shortest of them."""
    frames = min(len(clip.images) for clip in clips)
    return ReliabilityBatch(
        *(torch.stack([part[:frames] for part in parts]) for parts in zip(*clips, strict=True))
    )


class ClipBatches(Sampler[list[Draw]]):
    """Batches of clips of about one length; an epoch is the same whether reached or resumed.

    People are drawn by the square root of how many clips there are of each.

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
        """Weigh the people."""
        self.clips, self.batch, self.seed, self.shuffle = clips, batch, seed, shuffle
        self.count, self.epoch = count, 0
        _, inverse, counts = np.unique(clips.speakers, return_inverse=True, return_counts=True)
        weights = 1.0 / np.sqrt(counts[inverse])
        self.lengths = np.array([clips.frames(i) for i in range(len(clips))])
        weights = weights * (self.lengths >= min(_SHORTEST, self.lengths.max()))
        self.weights = weights / weights.sum()

    def __len__(self) -> int:
        """Count the batches."""
        return max(1, self.count // self.batch)

    @property
    def sampler(self) -> ClipBatches:
        """Itself: Lightning tells the epoch to a batch sampler's sampler only."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

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


def _places(speech: SpeechCache, lips: Sequence[LipsCache], split: str) -> Places:
    sound: dict[Path, int] = {
        speech.clips[int(i)].path.resolve(): int(i) for i in speech.indices(split)
    }
    pairs = [
        ((cache, i), sound[clip.path.resolve()])
        for cache in lips
        for i, clip in enumerate(cache.clips)
        if cache.has_frames[i] and clip.path.resolve() in sound
    ]
    return Places([place for place, _ in pairs], [index for _, index in pairs])
