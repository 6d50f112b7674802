"""Training of the learned models: a recipe and an entry function for each family."""

from avse_ppl.training.phases.audio_visual import train_audio_visual
from avse_ppl.training.phases.diffusion import train_latent_diffusion, train_score
from avse_ppl.training.phases.noise import train_noise
from avse_ppl.training.phases.reliability import train_reliability
from avse_ppl.training.phases.vae import train_vae
from avse_ppl.training.recipes import (
    AUDIO_VISUAL_RECIPES,
    DIFFUSION_RECIPES,
    RECIPES,
    AudioVisualRecipe,
    DiffusionRecipe,
    Recipe,
    ReliabilityRecipe,
)
from avse_ppl.training.run import TrainingData

__all__ = [
    "AUDIO_VISUAL_RECIPES",
    "DIFFUSION_RECIPES",
    "RECIPES",
    "AudioVisualRecipe",
    "DiffusionRecipe",
    "Recipe",
    "ReliabilityRecipe",
    "TrainingData",
    "train_audio_visual",
    "train_latent_diffusion",
    "train_noise",
    "train_reliability",
    "train_score",
    "train_vae",
]
