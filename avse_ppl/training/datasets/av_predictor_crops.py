"""Mixtures with the lips of their speaker, which an audio-visual predictor learns from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avse_ppl.data.cache import LIPS_HZ, PER_FRAME, SpeechCache
from avse_ppl.models.networks.lip_encoder import LipEncoder
from avse_ppl.models.networks.reliability import ReliabilityNetwork
from avse_ppl.signal.audio import Audio
from avse_ppl.signal.stft import Stft
from avse_ppl.training.augment import scale_to_unit_power
from avse_ppl.training.datasets.av_crops import AVSpeechCrops, MouthCrops, encode_crops
from avse_ppl.training.datasets.predictor_crops import PredictorCrops
from avse_ppl.training.datasets.reliability_clips import draw_span
from avse_ppl.training.datasets.speech_crops import Crop
from avse_ppl.training.recipes import AVPredictorRecipe
from avse_ppl.video.corruptions import KINDS, corrupt, corruption_kinds
from avse_ppl.video.lips import Lips
from avse_ppl.video.quality.score import is_audible, score_lips

_TALKERS = (1, 6)
_OWN_VOICE = 0.5  # share of the babble
_AUGMENTED = 0.67  # share of the crops whose lips are augmented
_TRUST, _ANY_TRUST = 0.67, (0.5, 1.0)  # visual weight: of the shipped priors, and of any
_WHOLE, _APART_WHOLE = 0.5, 0.8  # share of the corruptions that last the whole crop
_SAME_SPEAKER = 0.5  # share of the donors
_TRACKED = ("roi", *PER_FRAME)


class SeenMixture(NamedTuple):
    """A crop, or a batch of crops, of a mixture with the lips as inference gets them.

    ``waves`` speech and noise ``(2, sample)``; ``features`` of the visual encoder ``(video_frame,
    feature)``; ``reliability`` of each frame ``(video_frame,)``; ``own`` ``()``, 1 where the lips
    are those of the speech, undisturbed.
    """

    waves: Tensor
    features: Tensor
    reliability: Tensor
    own: Tensor


class AVPredictorCrops(AVSpeechCrops, PredictorCrops):
    """Crops of speech and noise as in `PredictorCrops`, with the lips of the speaker.

    Speech is that of clips with video; those without are heard in babble, of one to six talkers,
    which there is more of: one talker beside another is what the sound alone does not settle. Half
    of the babble is other sentences of the speaker himself, so that a face which is known does not
    tell the voice from the noise, but what the lips do.

    A share of the lips is disturbed in a way that the picture shows (covered, blurred, turned,
    frozen, lost), a share is another's, or early or late: `avse_ppl.video.corruptions`. All of them
    get the score that the reliability network gives them beside the mixture, as in inference, times
    the visual weight of some prior. So is validation, where every other crop is disturbed.

    Parameters
    ----------
    cache, split, crop, stft, noise, rooms
        As for `PredictorCrops`.
    mouths
        Mouth crops.
    recipe
        Its range of signal-to-noise ratios, and share of babble and of disturbed lips.
    encoder, scorer
        Visual encoder and reliability network, in evaluation mode.

    Raises
    ------
    ValueError
        If no clip of the split has lips.
    """

    def __init__(
        self, cache: SpeechCache, split: str, crop: int, stft: Stft, mouths: MouthCrops,
        noise: SpeechCache, recipe: AVPredictorRecipe, rooms: Sequence[np.ndarray] | np.ndarray,
        encoder: LipEncoder, scorer: ReliabilityNetwork,
    ) -> None:  # fmt: skip
        PredictorCrops.__init__(self, cache, split, crop, stft, noise, recipe.snr_db, rooms)
        self.talkers = PredictorCrops(cache, split, crop, stft, noise, recipe.snr_db, rooms)
        self.set_video(stft, mouths)
        self.keep_clips_with_video(split)
        self.babble, self.disturbed = recipe.babble, recipe.video_dropout
        self.encoder, self.scorer = encoder, scorer
        self.own_voice: list[int] = []
        self.by_speaker: dict[str, list[int]] = defaultdict(list)
        for place, clip in enumerate(self.clips):
            self.by_speaker[cache.clips[int(clip)].speaker].append(place)

    def __getitem__(self, which: Crop) -> SeenMixture:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Speech and noise, features of the lips, and their reliability."""
        speaker = self.cache.clips[int(self.clips[which.clip])].speaker
        self.own_voice = [place for place in self.by_speaker[speaker] if place != which.clip]
        waves = PredictorCrops.__getitem__(self, which._replace(speed=1.0))
        rng = np.random.default_rng((which.seed, 1))  # apart from what the sound draws
        before = self.cut_lips(which)
        lips = self.disturb_lips(before, which.clip, rng)
        own = torch.tensor(float(lips is before))
        trust, variant = _TRUST, None
        if self.augmented:
            trust = rng.uniform(*_ANY_TRUST)
            if rng.random() < _AUGMENTED:
                variant = torch.Generator().manual_seed(int(rng.integers(2**31)))
        score = np.float32(trust) * self.score(lips, waves.sum(0).numpy())
        features = encode_crops(self.encoder, lips.roi, variant)
        rest = -(-self.crop // self.frame_samples) - len(lips)  # after the end of a short clip
        return SeenMixture(
            waves,
            torch.from_numpy(np.pad(features, ((0, rest), (0, 0)))),
            torch.from_numpy(np.pad(score, (0, rest))),
            own,
        )

    def cut_lips(self, which: Crop) -> Lips:
        """Cut the lips of a crop, as many frames as there are of them."""
        index = int(self.clips[which.clip])
        length = int(self.cache.offsets[index + 1] - self.cache.offsets[index])
        begin = self.find_first_frame(length, which.offset)
        lips = self.get_lips(which.clip)
        begin = min(begin, len(lips) - 1)  # of a video that ends before its sound
        span = slice(begin, begin - (-self.crop // self.frame_samples))
        parts: dict[str, Any] = {name: np.array(getattr(lips, name)[span]) for name in _TRACKED}
        return Lips(**parts, time_s=np.arange(len(parts["roi"])) / LIPS_HZ)

    def get_lips(self, place: int) -> Lips:
        """Get the lips of a clip."""
        path = self.cache.clips[int(self.clips[place])].path
        cache, index = self.mouths.places[path.resolve()]
        return cache[index]

    def disturb_lips(self, lips: Lips, place: int, rng: np.random.Generator) -> Lips:
        """Corrupt a share of the lips in ways the picture shows, and a share in those it hides."""
        seen, apart = rng.random(2) < self.disturbed
        if not self.augmented:  # every other one, in each way in turn
            seen, apart = place % 4 == 1, place % 4 == 3
        names = corruption_kinds("trained")
        hidden = [name for name in names if KINDS[name].cause == "out of sync"]
        shown = [name for name in names if name not in hidden]
        for there, kinds, whole in ((apart, hidden, _APART_WHOLE), (seen, shown, _WHOLE)):
            if not there:
                continue
            donor = self.get_lips(self.choose_donor(place, rng))
            lips = corrupt(
                lips, str(rng.choice(kinds)), severity=rng.uniform(0.3, 1.0),
                span=draw_span(len(lips), rng, whole), seed=rng, donor=donor,
            ).lips  # fmt: skip
        return lips

    def choose_donor(self, place: int, rng: np.random.Generator) -> int:
        """Choose another clip, half of the time of another speaker."""
        speakers = [name for name in self.by_speaker if place not in self.by_speaker[name]]
        if not speakers or rng.random() < _SAME_SPEAKER:
            return int((place + rng.integers(1, max(2, len(self)))) % len(self))
        return int(rng.choice(self.by_speaker[str(rng.choice(speakers))]))

    def score(self, lips: Lips, mixture: np.ndarray) -> np.ndarray:
        """Score of lips beside a mixture, as inference has it; 0 where there is no face."""
        audio = Audio(mixture, self.rate_hz)
        found = score_lips(lips, audio if is_audible(audio) else None, network=self.scorer)
        return found.score.astype(np.float32)

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
