"""Fits the learned priors: one recipe a model, Lightning underneath."""

from avse_ppl.training.fit import train
from avse_ppl.training.recipes import RECIPES, Recipe

__all__ = ["RECIPES", "Recipe", "train"]
