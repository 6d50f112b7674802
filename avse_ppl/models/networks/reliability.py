"""From mouth crops, what the tracker says and the sound to how far to believe the lips."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from avse_ppl.models.networks.agreement import FEATURES, Agreement

COLUMNS = 13  # of the tracker, see `avse_ppl.reliability_inputs.tracker_columns`
N_CAUSES = 8
_NEVER = -30.0  # logit of a frame without a face


class Judged(NamedTuple):
    """Of each frame: logit of the score ``(batch, frame)``, logits of the causes
    ``(batch, cause, frame)``, and log odds of lips and sound being together ``(batch, frame)``.
    """  # noqa: D205

    score: Tensor
    cause: Tensor
    together: Tensor


class ReliabilityNetwork(nn.Module):
    r"""Visual reliability, frame by frame.

    Crops, and what moves in them, pass four convolutions; with the tracker's columns and the
    agreement of lips and sound they are read by convolutions over time, half a second to either
    side. The score is :math:`\sigma(\beta \ell_t + \gamma)`, with the temperature fitted after
    training; it is 0 where no face was found.

    Parameters
    ----------
    width
        Channels of the first convolution.
    hidden
        Channels of the convolutions over time.
    features, tower
        Features of lips and of sound that are compared, and width of the tower of the lips.

    References
    ----------
    Guo et al., "On calibration of modern neural networks", ICML 2017 (temperature).

    Examples
    --------
    >>> network = ReliabilityNetwork(width=4, hidden=8, features=8, tower=4).eval()
    >>> judged = network(torch.zeros(2, 30, 44, 44), torch.zeros(2, 30, 13))
    >>> judged.score.shape, judged.cause.shape
    (torch.Size([2, 30]), torch.Size([2, 8, 30]))
    """

    def __init__(
        self, width: int = 10, hidden: int = 80, features: int = 64, tower: int = 16
    ) -> None:
        """Build the layers; see the class."""
        super().__init__()
        self.settings = {"width": width, "hidden": hidden, "features": features, "tower": tower}
        self.agreement = Agreement(features, tower)
        widths = (2, width, 2 * width, 4 * width, 6 * width)
        self.look = nn.ModuleList(
            nn.Conv2d(a, b, 5 if a == 2 else 3, 2, 2 if a == 2 else 1) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(2, b) for b in widths[1:])
        self.flat = nn.Linear(9 * widths[-1], hidden)
        self.join = nn.Conv1d(hidden + COLUMNS + FEATURES + 1, hidden, 1)
        self.time = nn.ModuleList(
            nn.Conv1d(hidden, hidden, 5, padding=2 * d, dilation=d) for d in (1, 2, 4)
        )
        self.out = nn.Conv1d(hidden, 1 + N_CAUSES, 1)
        self.dropout = nn.Dropout(0.1)
        self.calibration: Tensor
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def forward(
        self, images: Tensor, columns: Tensor, levels: Tensor | None = None,
        heard: Tensor | None = None,
    ) -> Judged:  # fmt: skip
        """Judge every frame.

        Parameters
        ----------
        images
            ``(batch, frame, 44, 44)`` of `avse_ppl.models.networks.lips.halved`.
        columns
            ``(batch, frame, 13)``; the first says whether a face was found.
        levels
            ``(batch, frame, 160)`` of `avse_ppl.reliability_inputs.speech_levels`; None without
            sound.
        heard
            ``(batch,)`` 1 for clips that have sound; None for all, if there are levels.
        """
        found = columns[..., 0]
        sound, together = self._sound(images, found, levels, heard)
        hidden = torch.cat((self._look(images, found), columns.transpose(1, 2), sound), 1)
        hidden = self.join(hidden)
        for layer in self.time:
            hidden = hidden + layer(self.dropout(gelu(hidden)))
        out = self.out(gelu(hidden))
        score = self.calibration[0] * out[:, 0] + self.calibration[1]
        return Judged(score.masked_fill(found < 0.5, _NEVER), out[:, 1:], together)

    def _look(self, images: Tensor, found: Tensor) -> Tensor:
        """Features of each crop and of what changed in it, ``(batch, hidden, frame)``."""
        batch, frames = images.shape[:2]
        both = found[:, 1:] * found[:, :-1]
        moved = (images[:, 1:] - images[:, :-1]) * both[..., None, None]
        moved = torch.cat((torch.zeros_like(images[:, :1]), moved), 1)
        hidden = torch.stack((images, 4.0 * moved), 2).flatten(0, 1)
        for layer, norm in zip(self.look, self.norms, strict=True):
            hidden = gelu(norm(layer(hidden)))
        return self.flat(hidden.flatten(1)).reshape(batch, frames, -1).transpose(1, 2)

    def _sound(
        self, images: Tensor, found: Tensor, levels: Tensor | None, heard: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Agreement with its flag, ``(batch, 6, frame)``, and its log odds; zeros without sound."""
        if levels is None:
            nothing = images.new_zeros(len(images), FEATURES + 1, images.shape[1])
            return nothing, nothing[:, 0]
        features = self.agreement(images, levels, found)
        flag = images.new_ones(len(images)) if heard is None else heard.to(images.dtype)
        rows = torch.cat((features / 4.0, torch.ones_like(features[:, :1])), 1)
        return rows * flag[:, None, None], features[:, 0]
