"""Mixtures that a predictor learns from: speech and noise as recordings of the world hold them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from avse_ppl.data.cache import SpeechCache
from avse_ppl.signal.stft import Stft
from avse_ppl.training.augment import (
    equalise,
    join_bands,
    scale_to_unit_power,
    shuffle_grains,
)
from avse_ppl.training.datasets.speech_crops import Crop, MixtureCrops, SpeechCrops
from avse_ppl.training.rooms import add_room
from avse_ppl.training.synthetic_noise import (
    draw_bursts,
    draw_coloured_noise,
    draw_hum,
    draw_narrow_band,
    draw_rumble,
    draw_strikes,
    draw_tones,
    draw_water,
)

# Shares of the crops.
_ROOM, _NOISE_ROOM, _EQUALISED = 0.35, 0.2, 0.35
_BABBLE, _ADDED_FLOOR = 0.22, 0.15
_TWO_BANDS, _SHUFFLED = 0.25, 0.15  # of the clips of noise
_COLOURED, _BURSTS, _STRIKES, _WATER = 0.07, 0.04, 0.06, 0.05
_RUMBLE, _HUM, _NARROW_BAND, _TONES = 0.12, 0.12, 0.1, 0.15
_BAND_LIMITED, _TELEPHONE, _CLIPPED = 0.1, 0.04, 0.04
_NO_SPEECH, _NO_NOISE = 0.03, 0.03
_TALKERS = (2, 8)


class PredictorCrops(MixtureCrops):
    """Crops of speech and noise, ``(2, sample)``, the training ones as other places make them.

    Speech: rooms, equalisers. Noise: clips of the noise corpora, alone, in pairs or one below and
    one above a frequency, some in grains of another order, through rooms; babble of two to eight
    talkers; coloured noise that comes and goes; bursts that die away, things that are struck,
    water; a floor of another noise underneath; rumble, hum, narrow bands and tones on top. Both:
    the band of a telephone or a cheap microphone, companding, clipping; what these do to the speech
    counts as noise. Crops of the development split are plain mixtures.

    Parameters
    ----------
    cache, split, crop, stft, noise, snr_db
        As for `MixtureCrops`.
    rooms
        Impulse responses, ``(room, sample)``.
    """

    def __init__(
        self, cache: SpeechCache, split: str, crop: int, stft: Stft, noise: SpeechCache,
        snr_db: tuple[float, float], rooms: Sequence[np.ndarray] | np.ndarray,
    ) -> None:  # fmt: skip
        super().__init__(cache, split, crop, stft, noise, snr_db)
        self.rooms, self.augmented, self.rate_hz = rooms, split == "train", stft.sample_rate_hz
        self.noise_octaves = 1.0 if self.augmented else 0.5

    def __getitem__(self, which: Crop) -> Tensor:
        """Speech and noise, ``(2, sample)``."""
        rng = np.random.default_rng(which.seed)
        speech = SpeechCrops.__getitem__(self, which).numpy()
        if not self.augmented:
            return self.pair_with_noise(speech, rng, _BABBLE)
        speech = self.place_speech(speech, rng)
        noise = self.draw_any_noise(rng)
        loudness = np.sqrt(np.mean(speech**2) / max(float(np.mean(noise**2)), 1e-12))
        noise = noise * np.float32(loudness * 10 ** (-rng.uniform(*self.snr_db) / 20))
        kind = rng.random()
        if kind < _NO_SPEECH:
            speech = np.zeros_like(speech)
        elif kind > 1.0 - _NO_NOISE:
            noise = np.zeros_like(noise)
        speech, noise = limit_band(speech, noise, self.rate_hz, rng)
        return torch.from_numpy(np.stack((speech, noise)).astype(np.float32))

    def place_speech(self, speech: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Put speech into a room, or another microphone before it, or neither."""
        if rng.random() < _ROOM:
            speech = add_room(speech, self.rooms[int(rng.integers(len(self.rooms)))])
        return equalise(speech, rng, 4.0) if rng.random() < _EQUALISED else speech

    def draw_any_noise(self, rng: np.random.Generator) -> np.ndarray:
        """Draw noise of any kind, ``(sample,)``."""
        kinds = (
            (_BABBLE, self.draw_babble),
            (_COLOURED, partial(draw_coloured_noise, self.crop)),
            (_BURSTS, partial(draw_bursts, self.crop, self.rate_hz)),
            (_STRIKES, partial(draw_strikes, self.crop, self.rate_hz)),
            (_WATER, partial(draw_water, self.crop, self.rate_hz)),
        )
        bounds = np.cumsum([share for share, _ in kinds])
        chosen = int(np.searchsorted(bounds, rng.random()))
        noise = kinds[chosen][1](rng) if chosen < len(kinds) else self.draw_noise(rng)
        if rng.random() < _NOISE_ROOM:
            noise = add_room(noise, self.rooms[int(rng.integers(len(self.rooms)))])
        if rng.random() < _ADDED_FLOOR:
            floor = draw_coloured_noise(self.crop, rng) * np.float32(10 ** rng.uniform(-1.5, -0.25))
            noise = scale_to_unit_power(noise) + floor

        # What is narrow in frequency may hold most of the power, and says little of the level of
        # the speech. Clips of noise have none of it below 70 Hz, where caches are filtered.
        narrow = (
            (_RUMBLE, draw_rumble),
            (_HUM, draw_hum),
            (_NARROW_BAND, draw_narrow_band),
            (_TONES, draw_tones),
        )
        for share, draw in narrow:
            if rng.random() < share:
                added = draw(self.crop, self.rate_hz, rng) * np.float32(10 ** rng.uniform(-1, 0.75))
                noise = scale_to_unit_power(noise) + added
        return noise

    def draw_noise(self, rng: np.random.Generator) -> np.ndarray:
        """Draw noise of clips, whose textures and spectra are no clip's; ``(sample,)``."""
        noise = super().draw_noise(rng)
        if not self.augmented:
            return noise
        if rng.random() < _TWO_BANDS:
            other = super().draw_noise(rng) * np.float32(10 ** (rng.uniform(-10, 10) / 20))
            noise = join_bands(noise, other, self.rate_hz, rng)
        return shuffle_grains(noise, self.rate_hz, rng) if rng.random() < _SHUFFLED else noise

    def draw_babble(self, rng: np.random.Generator) -> np.ndarray:
        """Draw babble of two to eight talkers of the split, near and far; ``(sample,)``."""
        talkers = rng.integers(0, len(self.clips), rng.integers(_TALKERS[0], _TALKERS[1] + 1))
        total = np.zeros(self.crop, np.float32)
        for talker in talkers:
            voice = self.cut(int(talker), rng.random())
            voice = np.roll(voice, int(rng.integers(self.crop)))  # short clips begin anywhere
            total += voice * np.float32(10 ** (rng.uniform(-6, 0) / 20))
        return total


def limit_band(
    speech: np.ndarray, noise: np.ndarray, rate_hz: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Send a mixture through a narrower, companding or overloaded channel, one in five of them."""
    kind = rng.random()
    if kind < _BAND_LIMITED + _TELEPHONE:
        telephone = kind < _TELEPHONE
        low_hz = 250.0 if telephone else rng.choice([0.0, 150.0])
        high_hz = 3600.0 if telephone else rng.uniform(3400.0, 7500.0)
        freq_hz = np.fft.rfftfreq(len(speech), 1.0 / rate_hz)
        edge = np.clip((high_hz + 200.0 - freq_hz) / 200.0, 0.0, 1.0)
        edge = edge * np.clip((freq_hz - low_hz + 50.0) / 50.0, 0.0, 1.0)
        both = np.fft.irfft(np.fft.rfft(np.stack((speech, noise))) * edge, len(speech))
        speech, noise = both.astype(np.float32)
        if telephone:
            mixture = speech + noise
            noise = compand(mixture) - speech
    elif kind > 1.0 - _CLIPPED:
        mixture = speech + noise
        limit = rng.uniform(0.3, 0.9) * float(np.abs(mixture).max())
        noise = np.clip(mixture, -limit, limit) - speech
    return speech, noise


def compand(wave: np.ndarray, mu: float = 255.0) -> np.ndarray:
    """Quantise to eight bits on a logarithmic scale, as a digital telephone does (G.711).

    Examples
    --------
    >>> round(float(compand(np.array([1.0, -0.5]))[0]), 6)
    1.0
    """
    peak = max(float(np.abs(wave).max()), 1e-9)
    small = np.sign(wave) * np.log1p(mu * np.abs(wave) / peak) / np.log1p(mu)
    small = np.rint(small * 127.0) / 127.0
    large = np.sign(small) * (np.expm1(np.abs(small) * np.log1p(mu)) / mu) * peak
    return large.astype(wave.dtype)
