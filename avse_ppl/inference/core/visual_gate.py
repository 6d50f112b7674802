"""How far the lips counted: what a posterior says of the model of reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from avse_ppl.inference.core.log_density import LogDensity, Values
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.models.handlers import recording_plate
from avse_ppl.models.scene import Scene
from avse_ppl.models.speech.latent_sequence import branches
from avse_ppl.models.visual.gate import Switched, gate_features, presence_gate
from avse_ppl.models.visual.switch import draw_switch, probability
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram

GATE, SWITCH = "reliability", "reliability.switch"
AXES = {GATE: ("time",), SWITCH: ("time",)}


def gate_posterior(
    scene: Scene, mixture: Spectrogram, draws: Sequence[Values], randoms: RandomStreams
) -> dict[str, list[Tensor]]:
    """How far the lips count in each draw, ``(recording, time)`` each.

    Of a switch that was summed out: ``reliability``, its probability given the draw, and
    ``reliability.switch``, a draw of it. Of other models: ``reliability``, the gate. Nothing where
    there is no video, no model of reliability, or the gate is a latent and among the draws already.
    """
    visual = mixture.frames.visual
    if visual is None or scene.reliability is None or GATE in draws[0]:
        return {}
    seen = [_seen(scene, mixture, values) for values in draws]
    if not isinstance(seen[0], Switched):
        return {GATE: [one[:, 0] for one in seen]}
    gate, drawn = _of_switch(scene.speech, seen, draws, randoms)
    there = presence_gate(visual)
    return {GATE: list(there * gate), SWITCH: list(there * drawn)}


def check_gate_latents(density: LogDensity, posterior: Posterior, hint: str) -> None:
    """Raise unless a posterior holds what inverting a scene leaves: latents, and `gate_posterior`.

    Raises
    ------
    ValueError
        If it holds others, or those of another model of reliability, or of none; ``hint`` says what
        to pass instead of the former.
    """
    sites, found = {site.name for site in density.sites}, set(posterior.latents)
    of_lips = {GATE, SWITCH} - sites
    if found - of_lips != sites:
        raise ValueError(
            f"the scene has the latents {sorted(sites)}, the posterior holds {sorted(found)}; "
            f"pass {hint}"
        )
    expected = _names(density.scene, density.mixture) - sites
    if found & of_lips != expected:
        raise ValueError(
            f"the posterior is about a scene with {_said(found & of_lips)}, this one has "
            f"{_said(expected)}; pass the video and the model of reliability that were inverted"
        )


def _said(names: set[str]) -> str:
    how = "lips behind a switch" if SWITCH in names else "lips that are weighed"
    return how if names else "no lips, or unweighed ones"


def _names(scene: Scene, mixture: Spectrogram) -> set[str]:
    """What `gate_posterior` will call what it finds."""
    if mixture.frames.visual is None or scene.reliability is None:
        return set()
    return {GATE, SWITCH} if isinstance(_seen(scene, mixture, {}), Switched) else {GATE}


def _seen(scene: Scene, mixture: Spectrogram, values: Values) -> Any:
    """What the speech prior was shown in a draw."""
    with recording_plate(mixture.recordings, isolated=True), poutine.condition(data=dict(values)):
        return gate_features(mixture.frames, mixture.frames.visual, scene.reliability)


def _of_switch(
    speech: Any, seen: Sequence[Switched], draws: Sequence[Values], randoms: RandomStreams
) -> tuple[Tensor, Tensor]:
    """Probability and draw of the switch, ``(draw, recording, time)`` each; all draws at once."""
    z = torch.cat([values["speech.z"] for values in draws])
    switch = seen[0].switch._replace(score=torch.cat([one.switch.score for one in seen]))
    with torch.no_grad():
        both = branches(speech.network, z, seen[0].visual)
    recordings, time = seen[0].switch.score.shape
    normal = randoms.normal((recordings, len(draws), time), both.dtype)
    uniform = torch.special.ndtr(normal).transpose(0, 1).flatten(0, 1)
    drawn = draw_switch(both, switch, uniform).to(both.dtype)
    return tuple(a.unflatten(0, (len(draws), -1)) for a in (probability(both, switch), drawn))  # type: ignore[return-value]
