"""Chains of several runs merged, and their convergence assessed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from avse_ppl.inference.core.convergence import assess_chains
from avse_ppl.models.predictors.predictor import condition_on_predictor, drop_unused_predictor
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.combine import merge_chains
from avse_ppl.posterior.posterior import Posterior


def merge(posteriors: Sequence[Posterior], scene: Scene | None = None) -> Posterior:
    """Merge the chains of several runs of one method on the same mixture.

    Moments, draws and statistics are those of all chains together; see
    `avse_ppl.posterior.combine.merge_chains`.

    Parameters
    ----------
    posteriors
        Of runs with different seeds.
    scene
        The scene they are about: with it convergence is assessed over the chains of all runs;
        without it ``posterior.warnings`` are those of the runs.

    Raises
    ------
    ValueError
        If there is none, or if they are of different mixtures, kinds, latents, or lengths of their
        chains.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import NUTS, ComplexNormal, GaussianSpeech, Scene
    >>> wave = np.random.default_rng(0).normal(size=3000).astype("float32")
    >>> scene = Scene(GaussianSpeech(), lambda frames: ComplexNormal(0.0, 0.3))
    >>> short = NUTS(draws=4, warmup=4, chains=1, init="prior")
    >>> merge([short(scene, wave, seed=0), short(scene, wave, seed=1)], scene).speech.shape
    (2, 4, 1, 3000)
    """
    merged = merge_chains(posteriors)
    if scene is None:
        return merged
    scene = drop_unused_predictor(scene, merged.kind.pooled)
    chains, length = next(iter(merged.latents.values())).shape[:2]
    fit = []
    for r, before in enumerate(merged.fit):
        one = merged.select(r)
        draws = [
            {name: torch.from_numpy(value[c, d].copy()) for name, value in one.latents.items()}
            for c in range(chains)
            for d in range(length)
        ]
        mixture = condition_on_predictor(scene, one.observed_spectrogram())
        [found] = assess_chains(scene, mixture, draws, one.stats, chains)
        fit.append(replace(found, seed=before.seed))
    return replace(merged, fit=tuple(fit))
