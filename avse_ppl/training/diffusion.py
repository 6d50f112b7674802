"""Trains diffusion priors: of spectrograms, and of the latents of an audio-only prior."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from avse_ppl.models.networks import LipsNetwork
from avse_ppl.models.weights import NETWORKS, is_shipped, load_lips, save_weights
from avse_ppl.stft import Stft
from avse_ppl.training.diffusion_phases import ScoreTraining
from avse_ppl.training.fit import Run, card_metrics, check_rates
from avse_ppl.training.recipes import DiffusionRecipe
from avse_ppl.training.seeing import Materials
from avse_ppl.training.seeing_data import Features, Pictures, SeenCrops

_SPLITS = ("train", "dev")


def train_score(
    recipe: DiffusionRecipe,
    materials: Materials,
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
    folder = save_weights(
        output, network, recipe.network, network_settings, stft, name=name,
        card={**data, "seed": seed, **card_metrics(metrics), "recipe": recipe},
        lips=None if seer is None else str(eyes) if is_shipped(eyes) else "lips",
    )  # fmt: skip
    if seer is not None and not is_shipped(eyes):
        shutil.copytree(eyes, output / "lips", dirs_exist_ok=True)
    return folder


def seen_through(
    recipe: DiffusionRecipe, materials: Materials, eyes: str | Path | None
) -> tuple[str | Path, LipsNetwork | None]:
    """Name or folder of the visual encoder, and itself; None where there is nothing to see."""
    eyes = eyes or recipe.eyes
    return eyes, load_lips(eyes)[0] if materials.lips else None


def seen_crops(
    recipe: DiffusionRecipe, materials: Materials, seer: LipsNetwork | None, stft: Stft, seed: int
) -> list[SeenCrops]:
    """Crops of either split with what is seen of them, encoded once."""
    pictures = Pictures(materials.lips)
    if seer is not None:
        clips = [clip for clip in materials.speech.clips if clip.path in pictures]
        paths = {clip.path: clip.split == "train" for clip in clips}
        pictures = Features(pictures, seer, paths, seed)
    crop = round(recipe.crop_s * stft.sample_rate_hz)
    return [SeenCrops(materials.speech, s, crop, stft, pictures) for s in _SPLITS]


_SETTINGS: Mapping[str, Any] = {
    "device": "cpu", "precision": "32-true", "workers": 0, "resume": True, "progress": False,
}  # fmt: skip
