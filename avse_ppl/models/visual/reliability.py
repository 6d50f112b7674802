r"""Reliability models: from the quality score of the lips to a gate or a switch.

Each is called inside the scene with the grid and visual features, ``(recording, 1 + feature,
time)``, whose first row is the score of the lips: 0 where there is no video frame, otherwise that
of the reliability network (`avse_ppl.video.quality`). It returns the gate of the lips, in [0, 1],
``(recording, time)``; or a `Switch`, which the speech prior sums out. A function of yours
may stand in their place, and may sample.

Examples
--------
>>> import torch
>>> from avse_ppl import Stft
>>> frames, visual = Stft().frames(512), torch.tensor([[[0.2, 0.9, 0.0], [1.0, 1.0, 0.0]]])
>>> soft(frames, visual), ungated(frames, visual)
(tensor([[0.2000, 0.9000, 0.0000]]), tensor([[1., 1., 0.]]))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pyroapi import distributions as dist
from pyroapi import ops, pyro

from avse_ppl.models.validation import check_share
from avse_ppl.models.visual.gate import Switch, presence_gate
from avse_ppl.signal.stft import Frames

_EDGE = 0.02  # Beta distributions at 0 or 1 have no density


def ungated(frames: Frames, visual: Any) -> Any:
    """Gate of 1 wherever there is a video frame, whatever its score."""
    return presence_gate(visual)


def audio_only(frames: Frames, visual: Any) -> Any:
    """Gate of 0: the audio-only prior."""
    return 0.0 * visual[:, 0]


def soft(frames: Frames, visual: Any) -> Any:
    """Gate equal to the score: visual features are scaled by it."""
    return visual[:, 0]


@dataclass(frozen=True)
class Switching:
    r"""Markov switch of the lips, summed out exactly; the audio takes part in it.

    .. math:: a_t \in \{0, 1\}, \quad P(a_t = 1) = r_t, \qquad
        z_t | z_{1:t-1}, a_t \sim \begin{cases} p(z_t | z_{1:t-1}, v_t) & a_t = 1 \\
        p(z_t | z_{1:t-1}) & a_t = 0 \end{cases}

    with r the score. Lips that contradict the audio may lose their weight however good their score.
    See `avse_ppl.models.visual.switch` for the chain. Each draw of the posterior has the
    probability of the switch given its latents, ``reliability``, and a draw of the switch,
    ``reliability.switch``.

    Parameters
    ----------
    persistence
        :math:`\rho`, probability that the switch is not drawn anew at a frame.
    """

    persistence: float = 0.97

    def __post_init__(self) -> None:
        check_share("persistence", self.persistence)

    def __call__(self, frames: Frames, visual: Any) -> Switch:
        """Prior of the switch."""
        return Switch(visual[:, 0], self.persistence)


@dataclass(frozen=True)
class Beta:
    r"""Beta-distributed gate of each frame.

    .. math:: a_t \sim \mathrm{Beta}(c\, r_t, c\, (1 - r_t))

    The relaxed switch: a latent like any other, for priors whose decoder takes the lips too, where
    no switch can be summed out. Site ``reliability``, ``(1, time)``.

    Parameters
    ----------
    concentration
        c: how close the gate is to the score.
    """

    concentration: float = 2.0

    def __post_init__(self) -> None:
        if not self.concentration > 0.0:
            raise ValueError(f"concentration must be positive, not {self.concentration!r}")

    def __call__(self, frames: Frames, visual: Any) -> Any:
        """Sample the gate."""
        mean = ops.clip(visual[:, :1], _EDGE, 1.0 - _EDGE)
        with pyro.plate("time", frames.time, dim=-1):
            share = pyro.sample(
                "reliability",
                dist.Beta(self.concentration * mean, self.concentration * (1.0 - mean)),
            )
        return share[..., 0, :]


RELIABILITIES: Mapping[str, Any] = MappingProxyType(
    {
        "ungated": ungated,
        "audio-only": audio_only,
        "soft": soft,
        "switching": Switching(),
        "beta": Beta(),
    }
)
