"""Where a guided diffusion starts: from the posterior of another prior."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avse_ppl.inference.core.log_density import Values
from avse_ppl.models.scene import Scene
from avse_ppl.models.speech.load import load_speech
from avse_ppl.models.validation import name_of
from avse_ppl.models.visual.reliability import Switching
from avse_ppl.signal.stft import Spectrogram

_SILENCE = 1e-12  # variance of a bin that is said to be known


class WarmStart(NamedTuple):
    """Prior that a run starts from: its name, mean and second moment of speech, noise latents."""

    name: str
    mean: Tensor
    power: Tensor
    noise: Values


def compute_warm_start(
    speech: Any, routine: Any, scene: Scene, mixture: Spectrogram, seed: int | list[int]
) -> WarmStart:
    """Posterior of the prior that a run is to start from, by a routine."""
    sees = mixture.frames.visual is not None and getattr(speech, "lips", None) is not None
    if sees:
        check_visual_encoder(speech, scene)
    first = Scene(speech, scene.noise)
    found = routine(first, mixture if sees else mixture.with_visual(None), seed=seed)
    scale = mixture.scale[:, None, None]
    device = mixture.values.device
    noise = {
        name: torch.from_numpy(values.mean((0, 1))).to(device, mixture.frames.dtype)
        for name, values in found.latents.items()
        if not name.startswith(("speech.", "reliability"))
    }
    mean = torch.from_numpy(found.mean).to(mixture.values) / scale
    power = torch.from_numpy(found.variance).to(mixture.scale) / scale.square()
    whole = power + mean.real.square() + mean.imag.square()
    return WarmStart(name_of(speech), mean, whole.clamp_min(_SILENCE), noise)


def find_switch(scene: Scene, start: Any) -> Switching | None:
    """The switch of a scene, if it has one.

    Raises
    ------
    ValueError
        If no prior was named that could find out where it is on.
    """
    if not isinstance(scene.reliability, Switching):
        return None
    if not getattr(load_base_prior(start), "supports_switch", False):
        raise ValueError(
            "the reliability 'switching' is a switch, which guided diffusion leaves to the prior "
            f"that it starts from where there is video; found start_seeing={_said(start)}. Take "
            "start_seeing='av-dkf', or the reliability 'soft'"
        )
    return scene.reliability


def infer_gate(
    scene: Scene, mixture: Spectrogram, routine: Any, seed: int | list[int]
) -> Spectrogram:  # fmt: skip
    """The mixture, the lips in it scored by what a scene with a switch finds out about them.

    Never higher than before: a switch sums over frames in which lips do not matter, where it may be
    on though they are covered.
    """
    visual: Any = mixture.frames.visual
    found = routine(scene, mixture, seed=seed).reliability
    gate = torch.from_numpy(found).to(visual)[:, None].minimum(visual[:, :1])
    return mixture.with_visual(torch.cat((gate, visual[:, 1:]), 1))


def load_base_prior(start: Any) -> Any:
    """The prior to start from, if it was named."""
    return load_speech(start) if isinstance(start, (str, Path)) else start


def check_visual_encoder(start: Any, scene: Scene) -> None:
    """Raise ValueError unless a start sees through the same visual encoder."""
    if not _same(start.lips, getattr(scene.speech, "lips", None)):
        raise ValueError(
            f"the start, {name_of(start)!r}, and the speech prior, {name_of(scene.speech)!r}, see "
            "through different visual encoders; take a start that is audio-only, or was trained "
            "with the same --eyes"
        )


def _said(start: Any) -> str:
    return repr(start) if isinstance(start, str) or start is None else name_of(start)


def _same(one: torch.nn.Module, other: torch.nn.Module | None) -> bool:
    """Whether two networks have the same weights."""
    mine, theirs = one.state_dict(), {} if other is None else other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in mine.items())
