"""Warm start of a guided diffusion, from the posterior under another prior."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avse_ppl.inference.core.log_density import Values
from avse_ppl.models.predictors.predictor import have_same_weights
from avse_ppl.models.protocols import SupportsSwitch, is_audio_visual, name_of
from avse_ppl.models.scene import Scene
from avse_ppl.models.speech.load import load_speech
from avse_ppl.models.visual.reliability import Switching
from avse_ppl.signal.stft import Spectrogram

SILENCE = 1e-12  # variance of a bin that is taken as known


class WarmStart(NamedTuple):
    """Posterior under the base prior: its name, mean and second moment of speech, noise latents."""

    name: str
    mean: Tensor
    power: Tensor
    noise: Values


def compute_warm_start(
    speech: Any, method: Any, scene: Scene, mixture: Spectrogram, seed: int | list[int]
) -> WarmStart:
    """Posterior under a base prior, by an inference method."""
    with_video = mixture.frames.visual is not None and is_audio_visual(speech)
    if with_video:
        check_visual_encoder(speech, scene)
    observed = mixture if with_video else mixture.with_visual(None)
    base = Scene(speech, scene.noise, predictor=scene.predictor)
    posterior = method(base, observed, seed=seed)
    scale = mixture.scale[:, None, None]
    device = mixture.values.device
    noise = {
        name: torch.from_numpy(values.mean((0, 1))).to(device, mixture.frames.dtype)
        for name, values in posterior.latents.items()
        if not name.startswith(("speech.", "reliability", "predictor."))
    }
    mean = torch.from_numpy(posterior.mean).to(mixture.values) / scale
    variance = torch.from_numpy(posterior.variance).to(mixture.scale) / scale.square()
    power = variance + mean.real.square() + mean.imag.square()
    return WarmStart(name_of(speech), mean, power.clamp_min(SILENCE), noise)


def find_switch(scene: Scene, base_prior: Any) -> Switching | None:
    """The switch of a scene, if it has one.

    Raises
    ------
    ValueError
        If no prior was named under which the switch can be inferred.
    """
    if not isinstance(scene.reliability, Switching):
        return None
    speech = load_base_prior(base_prior)
    if not (isinstance(speech, SupportsSwitch) and speech.supports_switch):
        unnamed = isinstance(base_prior, str) or base_prior is None
        found = repr(base_prior) if unnamed else name_of(base_prior)
        raise ValueError(
            "the reliability 'switching' is a switch, which guided diffusion infers under its base "
            f"prior where there is video; found base_prior_av={found}. Take "
            "base_prior_av='av-dkf', or the reliability 'soft'"
        )
    return scene.reliability


def infer_gate(
    scene: Scene, mixture: Spectrogram, method: Any, seed: int | list[int]
) -> Spectrogram:
    """Mixture whose visual gate is the posterior probability of the switch of a scene.

    Never higher than before: a switch sums over frames in which lips do not matter, where it may be
    on though they are covered. A predictor of the scene takes part by the prediction that the
    mixture holds: what it hears speaks for lips, or against them, as the mixture does.
    """
    visual: Any = mixture.frames.visual
    probability = method(scene, mixture, seed=seed).reliability
    gate = torch.from_numpy(probability).to(visual)[:, None].minimum(visual[:, :1])
    return mixture.with_visual(torch.cat((gate, visual[:, 1:]), 1))


def load_base_prior(base_prior: Any) -> Any:
    """Speech prior from a name or a folder of weights, or itself."""
    return load_speech(base_prior) if isinstance(base_prior, (str, Path)) else base_prior


def check_visual_encoder(base_prior: Any, scene: Scene) -> None:
    """Raise ValueError unless a base prior has the same visual encoder as the speech prior."""
    encoder = scene.speech.visual_encoder if is_audio_visual(scene.speech) else None  # type: ignore[attr-defined]
    if encoder is None or not have_same_weights(base_prior.visual_encoder, encoder):
        raise ValueError(
            f"the base prior, {name_of(base_prior)!r}, and the speech prior, "
            f"{name_of(scene.speech)!r}, have different visual encoders; take a base prior that is "
            "audio-only, or was trained with the same --visual-encoder"
        )
