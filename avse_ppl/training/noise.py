"""Fits the learned noise prior: crops of noise, and an encoder that hears noise under speech."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from avse_ppl.data.cache import SpeechCache
from avse_ppl.models.weights.io import save_weights
from avse_ppl.signal.stft import Stft
from avse_ppl.training.augment import equalise, steady
from avse_ppl.training.data import Crop, MixtureCrops, SpeechCrops
from avse_ppl.training.fit import Run, card_metrics, check_rates
from avse_ppl.training.phases import EncoderTraining, VaeTraining
from avse_ppl.training.recipes import Recipe

_SECOND = 0.2  # share of the crops that are two clips at once
_STEADY = 0.15  # share whose phases are drawn anew


class NoiseCrops(SpeechCrops):
    """Crops of noise of unit mean STFT power, those for training varied at random.

    A variation is another speed, an equaliser, a second clip on top, or phases drawn anew. Crops of
    the development split are left as they are.
    """

    def __init__(self, cache: SpeechCache, split: str, crop: int, stft: Stft) -> None:
        """List the clips of the split."""
        super().__init__(cache, split, crop, stft)
        self.varied, self.window_energy = split == "train", stft.n_fft / 2

    def __getitem__(self, which: Crop) -> Tensor:
        """Cut one crop, ``(sample,)``."""
        noise = self.cut(which.clip, which.start, which.speed)
        if self.varied:
            noise = self._vary(_unit(noise), np.random.default_rng(which.seed))
        scale = np.float32(10 ** (which.gain_db / 20) / np.sqrt(self.window_energy))
        return torch.from_numpy(_unit(noise) * scale)

    def _vary(self, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() < _SECOND:
            other = self.cut(int(rng.integers(0, len(self))), rng.random())
            noise = noise + _unit(other) * np.float32(10 ** (rng.uniform(-15, 5) / 20))
        noise = equalise(noise, rng)
        return steady(noise, rng) if rng.random() < _STEADY else noise


class NoiseMixtureCrops(MixtureCrops):
    """Crops of speech and noise for the encoder, without babble: here, that is speech."""

    def _babble(self, rng: np.random.Generator) -> np.ndarray:
        return self._noise(rng)


class NoiseEncoderTraining(EncoderTraining):
    """`EncoderTraining` in which the noise of a mixture is sought, and not the speech."""

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        """Loss of pairs of speech and noise, ``(crop, 2, sample)``."""
        return super().losses(batch.flip(1))


def train_noise(
    recipe: Recipe,
    cache: SpeechCache,
    output: str | Path,
    *,
    name: str,
    data: Mapping[str, Any],
    speech: SpeechCache | None = None,
    stft: Stft | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Fit the noise prior to cached noise and write its weights, config and model card.

    Two phases, as for speech with the roles exchanged: encoder and decoder on noise; then, if there
    is speech, the encoder alone on mixtures, so that it finds the noise under speech.

    Parameters
    ----------
    recipe, cache
        What to train, and on what noise.
    output, name, data, stft, seed
        As for `train`.
    speech
        Cached speech for the second phase; without it that phase is left out.
    **settings
        ``device``, ``precision``, ``workers``, ``resume`` and ``progress``, as for `train`.

    Returns
    -------
    Path
        The folder, readable by ``load_noise``.

    Raises
    ------
    ValueError
        If a cache has no clip in one of the splits, or is at another rate than ``stft``; or if the
        training diverges.
    """
    stft, output = stft or Stft(), Path(output)
    check_rates(stft, cache, speech)
    run = Run(recipe, stft, output, seed, **{**_SETTINGS, **settings})
    crop, longer = (round(s * stft.sample_rate_hz) for s in (recipe.crop_s, recipe.encoder_crop_s))
    noise = [NoiseCrops(cache, split, crop, stft) for split in ("train", "dev")]
    pl.seed_everything(seed, verbose=False)  # of the weights that the first phase starts from
    first = VaeTraining(recipe, stft)
    metrics = {"noise": run.fit(first, "noise", recipe.epochs, recipe.batch, *noise)}
    if speech is not None and recipe.encoder_epochs > 0:
        mixtures = [
            NoiseMixtureCrops(speech, split, longer, stft, cache, recipe.snr_db)
            for split in ("train", "dev")
        ]
        last = NoiseEncoderTraining(recipe, stft, first.network)
        metrics["encoder"] = run.fit(
            last, "encoder", recipe.encoder_epochs, recipe.encoder_batch, *mixtures
        )
    return save_weights(
        output, first.network, recipe.network, dict(recipe.settings), stft, name=name,
        card={**data, "seed": seed, **card_metrics(metrics), "recipe": recipe},
        use="noise",
    )  # fmt: skip


_SETTINGS: Mapping[str, Any] = {
    "device": "cpu", "precision": "32-true", "workers": 0, "resume": True, "progress": False,
}  # fmt: skip


def _unit(wave: np.ndarray) -> np.ndarray:
    return wave / np.float32(np.sqrt(max(float(np.mean(wave**2)), 1e-12)))
