"""Mixtures with the lips of their speaker, which an audio-visual predictor learns from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from avse_ppl.data.cache import SpeechCache
from avse_ppl.signal.stft import Stft
from avse_ppl.training.augment import scale_to_unit_power
from avse_ppl.training.datasets.av_crops import AVBatch, AVSpeechCrops, MouthCrops
from avse_ppl.training.datasets.predictor_crops import PredictorCrops
from avse_ppl.training.datasets.speech_crops import Crop
from avse_ppl.training.recipes import AVPredictorRecipe

_TALKERS = (1, 6)
_OWN_VOICE = 0.5  # share of the babble


class AVPredictorCrops(AVSpeechCrops, PredictorCrops):
    """Crops of speech and noise as in `PredictorCrops`, with the lips of the speaker.

    Speech is that of clips with video; those without are heard in babble, of one to six talkers,
    which there is more of: one talker beside another is what the sound alone does not settle. Half
    of the babble is other sentences of the speaker himself, so that a face which is known does not
    tell the voice from the noise, but what the lips do.

    Parameters
    ----------
    cache, split, crop, stft, noise, rooms
        As for `PredictorCrops`.
    mouths
        Mouth crops or features.
    recipe
        Its range of signal-to-noise ratios, and share of babble.

    Raises
    ------
    ValueError
        If no clip of the split has lips.
    """

    def __init__(
        self, cache: SpeechCache, split: str, crop: int, stft: Stft, mouths: MouthCrops,
        noise: SpeechCache, recipe: AVPredictorRecipe, rooms: Sequence[np.ndarray] | np.ndarray,
    ) -> None:  # fmt: skip
        PredictorCrops.__init__(self, cache, split, crop, stft, noise, recipe.snr_db, rooms)
        self.talkers = PredictorCrops(cache, split, crop, stft, noise, recipe.snr_db, rooms)
        self.set_video(stft, mouths)
        self.keep_clips_with_video(split)
        self.babble = recipe.babble
        self.own_voice: list[int] = []
        self.by_speaker: dict[str, list[int]] = defaultdict(list)
        for place, clip in enumerate(self.clips):
            self.by_speaker[cache.clips[int(clip)].speaker].append(place)

    def __getitem__(self, which: Crop) -> AVBatch:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Speech and noise ``(2, sample)``, lips, and which frames show a face."""
        speaker = self.cache.clips[int(self.clips[which.clip])].speaker
        self.own_voice = [place for place in self.by_speaker[speaker] if place != which.clip]
        waves = PredictorCrops.__getitem__(self, which._replace(speed=1.0))
        return AVBatch(waves, *self.cut_video(which))

    def draw_any_noise(self, rng: np.random.Generator) -> np.ndarray:
        """Draw noise of any kind, ``(sample,)``."""
        if rng.random() < self.babble:
            return self.draw_babble(rng)
        return super().draw_any_noise(rng)

    def draw_babble(self, rng: np.random.Generator) -> np.ndarray:
        """Draw babble of one to six talkers of the split, near and far; ``(sample,)``."""
        total = np.zeros(self.crop, np.float32)
        own = len(self.own_voice) > 0 and rng.random() < _OWN_VOICE
        for _ in range(int(rng.integers(_TALKERS[0], _TALKERS[1] + 1))):
            if own:
                place = self.own_voice[int(rng.integers(len(self.own_voice)))]
                voice = self.cut(place, rng.random())
            else:
                voice = self.talkers.cut(int(rng.integers(len(self.talkers))), rng.random())
            gain = np.float32(10 ** (rng.uniform(-6, 0) / 20))
            total += np.roll(voice, int(rng.integers(self.crop))) * gain
        return scale_to_unit_power(total)
