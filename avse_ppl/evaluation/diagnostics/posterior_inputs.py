"""Inputs of the inference, rebuilt from a posterior: spectrogram, audio, draws of the latents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from avse_ppl.models.predictors.predictor import condition_on_predictor, drop_unused_predictor
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.audio import Audio
from avse_ppl.signal.stft import Spectrogram


def observed_audio(posterior: Posterior) -> Audio:
    """Rebuild the observed recording, its channels the recordings of the posterior.

    Raises
    ------
    ValueError
        If these differ in length, so that they are no channels of one recording.
    """
    waves = posterior.stft.synthesise(posterior.observed_spectrogram())
    if len(set(posterior.n_samples)) > 1:
        raise ValueError(
            f"the posterior is of {len(waves)} recordings of different length, to which no "
            "single video belongs; select(i) one of them"
        )
    return Audio(np.stack(waves) if len(waves) > 1 else waves[0], posterior.stft.sample_rate_hz)


def latent_draws(
    posterior: Posterior, most: int | None = None, device: torch.device | None = None
) -> Iterator[dict[str, Tensor]]:
    """Iterate over draws of all latents, ``(recording, ...)`` each, chain after chain.

    At most ``most`` of them, evenly spaced in each chain, on a device if one is given. One empty
    mapping if there are none.
    """
    if not posterior.latents:
        yield {}
        return
    chains, draws = next(iter(posterior.latents.values())).shape[:2]
    for chain in range(chains):
        for index in thin_draws(draws, most and -(-most // chains)):
            values = {n: torch.from_numpy(v[chain, index]) for n, v in posterior.latents.items()}
            yield {n: v.to(device) for n, v in values.items()}


def thin_draws(count: int, most: int | None) -> Sequence[int]:
    """Thin ``range(count)`` to at most so many, evenly spaced.

    Examples
    --------
    >>> list(thin_draws(10, 3)), list(thin_draws(2, 5))
    ([0, 3, 6], [0, 1])
    """
    kept = min(count, most or count)
    return [i * count // kept for i in range(kept)]


def restore_inputs(
    posterior: Posterior, scene: Scene, mixture: Spectrogram | None
) -> tuple[Scene, Spectrogram]:
    """Restore scene and mixture as they were inferred.

    Without a predictor whose answers were left out, or with what it makes of the mixture, which is
    the posterior's own unless another is given.

    Raises
    ------
    ValueError
        As `check_scene_of` does.
    """
    scene = drop_unused_predictor(scene, posterior.kind.pooled)
    mixture = condition_on_predictor(scene, mixture or posterior.observed_spectrogram())
    check_scene_of(posterior, scene, mixture)
    return scene, mixture


def check_scene_of(posterior: Posterior, scene: Scene, mixture: Spectrogram) -> None:
    """Refuse a posterior that does not hold the latents of the scene.

    Raises
    ------
    ValueError
        If it holds others, or the mixture is of another shape.
    """
    from avse_ppl.inference.core.log_density import LogDensity
    from avse_ppl.inference.core.visual_gate import check_gate_latents

    if mixture.values.shape != posterior.mixture.shape:
        raise ValueError(
            f"the mixture has shape {tuple(mixture.values.shape)}, the posterior is of one of "
            f"shape {posterior.mixture.shape}; pass the mixture that was inferred"
        )
    check_gate_latents(
        LogDensity(scene, mixture),
        posterior,
        "the scene that was inferred. Of recordings over 15 s, "
        "enhanced in chunks, no latents are kept: check a shorter part",
    )
