"""Training of the learned noise prior: a VAE of noise, and its encoder on noise under speech."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from avse_ppl.models.weights.io import NETWORKS, save_weights
from avse_ppl.signal.stft import Stft
from avse_ppl.training.datasets.speech_crops import NoiseCrops, NoiseMixtureCrops
from avse_ppl.training.phases.vae import EncoderTraining, VaeTraining, load_crops
from avse_ppl.training.recipes import Recipe
from avse_ppl.training.run import SPLITS, Run, TrainingData


def train_noise(
    recipe: Recipe,
    data: TrainingData,
    output: str | Path,
    *,
    name: str,
    card: Mapping[str, Any],
    stft: Stft | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Train the noise prior and write its weights, config and model card.

    Two phases, as `train_vae` with the roles exchanged: "noise", encoder and decoder on noise;
    then, if there is speech, "encoder", the encoder alone on mixtures.

    Parameters
    ----------
    recipe, data
        What to train, and on what: noise and, for the second phase, speech.
    output, name, card, stft, seed, **settings
        As for `train_vae`.

    Returns
    -------
    Path
        The folder, readable by ``load_noise``.

    Raises
    ------
    ValueError
        If there is no noise, a cache has no clip in one of the splits, or is at another rate than
        ``stft``; or if the training diverges.
    """
    stft, run = stft or Stft(), Run(Path(output), seed, **settings)
    noise = data.require_noise(stft.sample_rate_hz)
    speech = None if data.speech is None else data.require_speech(stft.sample_rate_hz)
    crop = round(recipe.crop_s * stft.sample_rate_hz)
    crops = [NoiseCrops(noise, split, crop, stft) for split in SPLITS]
    run.seed_weights()
    network = NETWORKS[recipe.network](freq=stft.freq, **recipe.settings)
    run.fit("noise", VaeTraining(recipe, stft, network), load_crops(run, recipe, crops))
    if speech is not None and recipe.encoder_epochs > 0:
        crop = round(recipe.encoder_crop_s * stft.sample_rate_hz)
        mixtures = [NoiseMixtureCrops(speech, s, crop, stft, noise, recipe.snr_db) for s in SPLITS]
        loaders = load_crops(run, recipe, mixtures, recipe.encoder_batch)
        run.fit("encoder", NoiseEncoderTraining(recipe, stft, network), loaders)
    return save_weights(
        run.output, network, recipe.network, dict(recipe.settings), stft, name=name,
        card=run.make_card(card, recipe), use="noise",
    )  # fmt: skip


class NoiseEncoderTraining(EncoderTraining):
    """`EncoderTraining` in which the latents are those of the noise of a mixture."""

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        """Loss of pairs of speech and noise, ``(crop, 2, sample)``."""
        return super().losses(batch.flip(1))
