"""Posterior of the visual gate: how much the visual features counted in each frame."""

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
from avse_ppl.models.speech.latent_sequence import branch_log_densities
from avse_ppl.models.visual.gate import Switched, gate_features, presence_gate
from avse_ppl.models.visual.switch import draw_switch, probability
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram

GATE, SWITCH = "reliability", "reliability.switch"
AXES = {GATE: ("time",), SWITCH: ("time",)}


def gate_posterior(
    scene: Scene, mixture: Spectrogram, draws: Sequence[Values], randoms: RandomStreams
) -> dict[str, list[Tensor]]:
    """Posterior draws of the visual gate, ``(recording, time)`` each.

    Of a switch that was summed out: ``reliability``, its probability given the draw, and
    ``reliability.switch``, a draw of it. Of other models: ``reliability``, the gate. Nothing where
    there is no video, no model of reliability, or the gate is a latent and among the draws already.
    """
    visual = mixture.frames.visual
    if visual is None or scene.reliability is None or GATE in draws[0]:
        return {}
    seen = [condition_gate(scene, mixture, values) for values in draws]
    if not isinstance(seen[0], Switched):
        return {GATE: [one[:, 0] for one in seen]}
    gate, drawn = draw_switch_posterior(scene.speech, seen, draws, randoms)
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
    # Names that `gate_posterior` gives.
    expected: set[str] = set()
    if density.mixture.frames.visual is not None and density.scene.reliability is not None:
        gated = condition_gate(density.scene, density.mixture, {})
        expected = {GATE, SWITCH} if isinstance(gated, Switched) else {GATE}
    expected -= sites
    if found & of_lips != expected:
        texts = [
            "lips behind a switch" if SWITCH in names
            else "lips that are weighed" if names
            else "no lips, or unweighed ones"
            for names in (found & of_lips, expected)
        ]  # fmt: skip
        raise ValueError(
            f"the posterior is about a scene with {texts[0]}, this one has {texts[1]}; pass the "
            "video and the model of reliability that were inverted"
        )


def condition_gate(scene: Scene, mixture: Spectrogram, values: Values) -> Any:
    """Gated visual features that the speech prior was given in a draw."""
    with recording_plate(mixture.recordings, isolated=True), poutine.condition(data=dict(values)):
        return gate_features(mixture.frames, mixture.frames.visual, scene.reliability)


def draw_switch_posterior(
    speech: Any, seen: Sequence[Switched], draws: Sequence[Values], randoms: RandomStreams
) -> tuple[Tensor, Tensor]:
    """Probability and draw of the switch, ``(draw, recording, time)`` each; all draws at once."""
    z = torch.cat([values["speech.z"] for values in draws])
    switch = seen[0].switch._replace(score=torch.cat([one.switch.score for one in seen]))
    with torch.no_grad():
        both = branch_log_densities(speech.network, z, seen[0].visual)
    recordings, time = seen[0].switch.score.shape
    normal = randoms.normal((recordings, len(draws), time), both.dtype)
    uniform = torch.special.ndtr(normal).transpose(0, 1).flatten(0, 1)
    drawn = draw_switch(both, switch, uniform).to(both.dtype)
    return tuple(a.unflatten(0, (len(draws), -1)) for a in (probability(both, switch), drawn))  # type: ignore[return-value]
