"""Gated visual features, and the switch that a speech prior sums out."""

from __future__ import annotations

from typing import Any, NamedTuple

from pyroapi import ops


class Switch(NamedTuple):
    r"""Prior of a switch for each frame; see `avse_ppl.models.visual.switch`.

    Parameters
    ----------
    score
        ``(recording, time)``, probability that the switch is on.
    persistence
        :math:`\rho`, in [0, 1).
    """

    score: Any
    persistence: float


class Switched(NamedTuple):
    """Visual features, and the prior of the switch that turns them on.

    Parameters
    ----------
    visual
        ``(recording, 1 + feature, time)``, the first row 1 where there is a video frame.
    switch
        Prior of the switch.
    """

    visual: Any
    switch: Switch


def gate_features(frames: Any, visual: Any, reliability: Any) -> Any:
    """Apply a reliability model to visual features.

    Parameters
    ----------
    frames
        The grid.
    visual
        ``(recording, 1 + feature, time)``; the first row, the score, is 0 where there is no
        video frame, and there the gate is 0.
    reliability
        One of `avse_ppl.models.visual.reliability`, or a function like them.

    Returns
    -------
    Tensor or Switched
        Gate and gated features, of the same shape; or, from a switch, `Switched`.
    """
    gate, present = reliability(frames, visual), presence_gate(visual)
    if isinstance(gate, Switch):
        return Switched(apply_gate(visual, present), gate)
    return apply_gate(visual, present * gate)


def presence_gate(visual: Any) -> Any:
    """Gate of 1 where there is a video frame, ``(recording, time)``."""
    return ops.where(visual[:, 0] > 0.0, 1.0 + 0.0 * visual[:, 0], 0.0)


def apply_gate(visual: Any, gate: Any) -> Any:
    """Scale features by a gate ``(recording, time)``, which becomes the first row."""
    return ops.concatenate((gate[..., None, :], gate[..., None, :] * visual[:, 1:]), -2)
