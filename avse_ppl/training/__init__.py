"""Training of the learned models: a recipe and an entry function for each family."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from avse_ppl.training.recipes import (
    AUDIO_VISUAL_RECIPES,
    DIFFUSION_RECIPES,
    PREDICTOR_RECIPES,
    RECIPES,
    AudioVisualRecipe,
    AVPredictorRecipe,
    DiffusionRecipe,
    Recipe,
    ReliabilityRecipe,
    list_trainable,
)

if TYPE_CHECKING:
    from avse_ppl.training.phases.audio_visual import train_audio_visual
    from avse_ppl.training.phases.av_predictor import train_av_predictor
    from avse_ppl.training.phases.diffusion import train_latent_diffusion, train_score
    from avse_ppl.training.phases.noise import train_noise
    from avse_ppl.training.phases.predictor import train_predictor
    from avse_ppl.training.phases.reliability import train_reliability
    from avse_ppl.training.phases.vae import train_vae
    from avse_ppl.training.run import TrainingData

# Loaded when they are asked for: they import Lightning, and the command line reads recipes only.
_MODULES = {
    "TrainingData": "run",
    "train_audio_visual": "phases.audio_visual",
    "train_av_predictor": "phases.av_predictor",
    "train_latent_diffusion": "phases.diffusion",
    "train_noise": "phases.noise",
    "train_predictor": "phases.predictor",
    "train_reliability": "phases.reliability",
    "train_score": "phases.diffusion",
    "train_vae": "phases.vae",
}

__all__ = [
    "AUDIO_VISUAL_RECIPES",
    "DIFFUSION_RECIPES",
    "PREDICTOR_RECIPES",
    "RECIPES",
    "AVPredictorRecipe",
    "AudioVisualRecipe",
    "DiffusionRecipe",
    "Recipe",
    "ReliabilityRecipe",
    "TrainingData",
    "list_trainable",
    "train_audio_visual",
    "train_av_predictor",
    "train_latent_diffusion",
    "train_noise",
    "train_predictor",
    "train_reliability",
    "train_score",
    "train_vae",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
