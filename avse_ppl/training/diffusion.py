"""Trains diffusion priors: of spectrograms, and of the latents of an audio-only prior."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import nn

from avse_ppl.models.networks import LipEncoder
from avse_ppl.models.weights.io import (
    NETWORKS,
    is_shipped,
    load_lip_encoder,
    load_shared,
    save_weights,
)
from avse_ppl.signal.stft import Stft
from avse_ppl.training.data import SpeechCrops
from avse_ppl.training.diffusion_phases import (
    LatentDiffusionTraining,
    ScoreTraining,
)
from avse_ppl.training.fit import Run, card_metrics, check_rates
from avse_ppl.training.phases import power_of
from avse_ppl.training.recipes import DiffusionRecipe
from avse_ppl.training.seeing import TrainingData, teach
from avse_ppl.training.seeing_data import AVSpeechCrops, MouthCrops, VisualFeatures

_SPLITS = ("train", "dev")
_UNIT = "of a bin or a latent: nll in nats, fit in squared errors; of a teacher nats a frame"


def train_score(
    recipe: DiffusionRecipe,
    materials: TrainingData,
    output: str | Path,
    *,
    name: str,
    data: Mapping[str, Any],
    eyes: str | Path | None = None,
    stft: Stft | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Fit a score prior and write its weights, config and model card.

    Parameters
    ----------
    recipe, materials
        What to train, and on what; without prepared lips, by ear alone.
    output, name, data, stft, seed
        As for `train`.
    eyes
        The visual encoder; by default that of the recipe.
    **settings
        ``device``, ``precision``, ``workers``, ``resume`` and ``progress``, as for `train`.

    Returns
    -------
    Path
        The folder, readable by ``load_speech``.

    Raises
    ------
    ValueError
        If the cache has no clip in one of the splits, or is at another rate than ``stft``; or if
        the training diverges.
    """
    stft, output = stft or Stft(), Path(output)
    check_rates(stft, materials.speech)
    eyes, seer = seen_through(recipe, materials, eyes)
    network_settings = {**recipe.settings} | ({} if seer is not None else {"visual": 0})
    pl.seed_everything(seed, verbose=False)  # of the weights that it starts from
    network = NETWORKS[recipe.network](freq=stft.freq, **network_settings)
    module = ScoreTraining(recipe, stft, network)
    run = Run(recipe, stft, output, seed, **{**_SETTINGS, **settings})
    crops = seen_crops(recipe, materials, seer, stft, seed)
    metrics = {"score": run.fit(module, "score", recipe.epochs, recipe.batch, *crops)}
    return _save(run, network, network_settings, metrics, name, data, seer and eyes)


def train_latent_diffusion(
    recipe: DiffusionRecipe,
    materials: TrainingData,
    output: str | Path,
    *,
    name: str,
    data: Mapping[str, Any],
    teacher: str | Path | None = None,
    eyes: str | Path | None = None,
    stft: Stft | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Fit a latent diffusion prior in two phases and write its weights, config and model card.

    1. "teacher": the encoder of the audio-only prior that it builds on, on clean speech;
    2. "denoiser": the diffusion prior of the latents that it finds.

    Decoder and encoder of the outcome are those of the audio-only prior.

    Parameters
    ----------
    recipe, materials
        What to train, and on what; without prepared lips, by ear alone.
    output, name, data, stft, seed
        As for `train`.
    teacher
        Folder of weights in place of phase 1.
    eyes
        The visual encoder; by default that of the recipe.
    **settings
        ``device``, ``precision``, ``workers``, ``resume`` and ``progress``, as for `train`.

    Returns
    -------
    Path
        The folder, readable by ``load_speech``.

    Raises
    ------
    ValueError
        As `train_score`, or if the weights of the teacher do not fit it.
    """
    stft, output = stft or Stft(), Path(output)
    check_rates(stft, materials.speech)
    eyes, seer = seen_through(recipe, materials, eyes)
    run = Run(recipe, stft, output, seed, **{**_SETTINGS, **settings})
    guide, metrics = teach(run, materials.speech, teacher)
    crops = seen_crops(recipe, materials, seer, stft, seed)
    network_settings = {**recipe.settings, "spread": spread_of(guide, crops[0], stft)}
    network_settings |= {} if seer is not None else {"visual": 0}
    pl.seed_everything(seed, verbose=False)  # of the weights that it starts from
    network = NETWORKS[recipe.network](freq=stft.freq, **network_settings)
    load_shared(network, recipe.start)
    module = LatentDiffusionTraining(recipe, stft, network, guide)
    metrics["denoiser"] = run.fit(module, "denoiser", recipe.epochs, recipe.batch, *crops)
    return _save(run, network, network_settings, metrics, name, data, seer and eyes)


def spread_of(teacher: Any, crops: SpeechCrops, stft: Stft, count: int = 200) -> float:
    """Root mean square of the latents of so many clips, to two digits."""
    some = range(0, len(crops), max(1, len(crops) // count))
    with torch.no_grad():
        waves = torch.stack([torch.from_numpy(crops.cut(i, 0.5)) for i in some])
        mean, logvar = teacher.infer(power_of(stft.forward(waves)))
    return round(float((mean.square() + logvar.exp()).mean().sqrt()), 2)


def _save(
    run: Run, network: nn.Module, settings: Mapping[str, Any], metrics: Mapping[str, Any],
    name: str, data: Mapping[str, Any], eyes: str | Path | None,
) -> Path:  # fmt: skip
    """Write weights and card, and beside them the visual encoder if it is not shipped."""
    recipe = cast(DiffusionRecipe, run.recipe)
    folder = save_weights(
        run.output, network, recipe.network, settings, run.stft, name=name,
        card={**data, "seed": run.seed, **card_metrics(metrics, _UNIT), "recipe": recipe},
        lips=None if eyes is None else str(eyes) if is_shipped(eyes) else "lips",
        visual_weight=recipe.visual_weight,
    )  # fmt: skip
    if eyes is not None and not is_shipped(eyes):
        shutil.copytree(eyes, run.output / "lips", dirs_exist_ok=True)
    return folder


def seen_through(
    recipe: DiffusionRecipe, materials: TrainingData, eyes: str | Path | None
) -> tuple[str | Path, LipEncoder | None]:
    """Name or folder of the visual encoder, and itself; None where there is nothing to see."""
    eyes = eyes or recipe.eyes
    return eyes, load_lip_encoder(eyes)[0] if materials.lips else None


def seen_crops(
    recipe: DiffusionRecipe, materials: TrainingData, seer: LipEncoder | None, stft: Stft, seed: int
) -> list[AVSpeechCrops]:
    """Crops of either split with what is seen of them, encoded once."""
    pictures = MouthCrops(materials.lips)
    if seer is not None:
        clips = [clip for clip in materials.speech.clips if clip.path in pictures]
        paths = {clip.path: clip.split == "train" for clip in clips}
        pictures = VisualFeatures(pictures, seer, paths, seed)
    crop = round(recipe.crop_s * stft.sample_rate_hz)
    return [AVSpeechCrops(materials.speech, s, crop, stft, pictures) for s in _SPLITS]


_SETTINGS: Mapping[str, Any] = {
    "device": "cpu", "precision": "32-true", "workers": 0, "resume": True, "progress": False,
}  # fmt: skip
