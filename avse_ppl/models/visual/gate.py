"""What of the video reaches a speech prior: features gated, or a switch to be summed out."""

from __future__ import annotations

from typing import Any, NamedTuple

from pyroapi import ops


class Switch(NamedTuple):
    r"""Prior of a switch for each frame; see `avse_ppl.models.visual.switch`.

    Parameters
    ----------
    score
        ``(recording, time)``, probability that the lips count.
    persistence
        :math:`\rho`, in [0, 1).
    """

    score: Any
    persistence: float


class Switched(NamedTuple):
    """What is seen where the lips count, and the prior of whether they do.

    Parameters
    ----------
    visual
        ``(recording, 1 + feature, time)``, the first row 1 where there is a picture.
    switch
        Prior of the switch.
    """

    visual: Any
    switch: Switch


def gate_features(frames: Any, visual: Any, reliability: Any) -> Any:
    """What a speech prior is shown under a model of reliability.

    Parameters
    ----------
    frames
        The grid.
    visual
        ``(recording, 1 + feature, time)``; the first row, the score, is 0 where there is no
        picture, and there nothing is shown.
    reliability
        One of `avse_ppl.models.visual.reliability`, or a function like them.

    Returns
    -------
    Tensor or Switched
        Gate and gated features, of the same shape; or, from a switch, `Switched`.
    """
    found, there = reliability(frames, visual), shown(visual)
    if isinstance(found, Switch):
        return Switched(gated(visual, there), found)
    return gated(visual, there * found)


def shown(visual: Any) -> Any:
    """Gate of 1 where there is a picture, ``(recording, time)``."""
    return ops.where(visual[:, 0] > 0.0, 1.0 + 0.0 * visual[:, 0], 0.0)


def gated(visual: Any, gate: Any) -> Any:
    """Features under a gate ``(recording, time)``, which becomes the first row."""
    return ops.concatenate((gate[..., None, :], gate[..., None, :] * visual[:, 1:]), -2)
