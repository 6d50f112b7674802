"""Network of visual reliability: from mouth crops, tracker columns and audio to a score."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, logsigmoid

from avse_ppl.models.networks.av_sync import CHANCE, FEATURES, AVSyncNetwork

COLUMNS = 13  # of the tracker, see `avse_ppl.video.quality.features.compute_tracker_columns`
N_CAUSES = 8
FINE, OUT_OF_SYNC = (0, 1), 7  # places among `avse_ppl.video.corruptions.CAUSES`
PRIOR_OUT_OF_SYNC = 0.05  # of undisturbed crops: another speaker's, or shifted
_NEVER = -30.0  # logit of a frame without a face
_SURE = 0.98
_TINY = 1e-6


class QualityPrediction(NamedTuple):
    """Prediction for each frame.

    Logit of the score ``(batch, frame)``, logits of the causes ``(batch, cause, frame)``, log odds
    of lips and sound being in sync ``(batch, frame)``, and whether they could be compared.
    """

    score: Tensor
    cause: Tensor
    in_sync: Tensor
    compared: Tensor


class ReliabilityNetwork(nn.Module):
    r"""Visual reliability, frame by frame.

    Crops, and what moves in them, pass four convolutions; with the tracker's columns they pass
    convolutions over time, half a second to either side. From the video alone come a score
    :math:`s_t = \sigma(\beta \ell_t + \gamma)`, with the temperature fitted after training (0
    where no face was found), and the causes but for the last.

    Audio may only lower the score, and only of undisturbed crops:

    .. math:: r_t = s_t (1 - w_t q_t), \qquad q_t = \sigma(b + u^T g_t)

    with w the probability that the crops are undisturbed, q that they are out of sync,
    and g the features of `AVSyncNetwork`. q is 0 where they cannot be compared, so that
    there the score is that of the video.

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
    >>> prediction = network(torch.zeros(2, 30, 44, 44), torch.zeros(2, 30, 13))
    >>> prediction.score.shape, prediction.cause.shape
    (torch.Size([2, 30]), torch.Size([2, 8, 30]))
    """

    def __init__(
        self, width: int = 10, hidden: int = 80, features: int = 64, tower: int = 16
    ) -> None:
        super().__init__()
        self.settings = {"width": width, "hidden": hidden, "features": features, "tower": tower}
        self.agreement = AVSyncNetwork(features, tower)
        widths = (2, width, 2 * width, 4 * width, 6 * width)
        self.look = nn.ModuleList(
            nn.Conv2d(a, b, 5 if a == 2 else 3, 2, 2 if a == 2 else 1) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(2, b) for b in widths[1:])
        self.flat = nn.Linear(9 * widths[-1], hidden)
        self.join = nn.Conv1d(hidden + COLUMNS, hidden, 1)
        self.time = nn.ModuleList(
            nn.Conv1d(hidden, hidden, 5, padding=2 * d, dilation=d) for d in (1, 2, 4)
        )
        self.out = nn.Conv1d(hidden, 1 + N_CAUSES, 1)
        self.dropout = nn.Dropout(0.1)
        self.calibration: Tensor
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        self.apart: Tensor  # b, then u
        self.register_buffer("apart", torch.zeros(1 + FEATURES))
        self.apart[0] = math.log(PRIOR_OUT_OF_SYNC / (1.0 - PRIOR_OUT_OF_SYNC))

    def forward(
        self, images: Tensor, columns: Tensor, levels: Tensor | None = None,
        has_audio: Tensor | None = None,
    ) -> QualityPrediction:  # fmt: skip
        """Predict score and causes of every frame.

        Parameters
        ----------
        images
            ``(batch, frame, 44, 44)`` of `avse_ppl.models.networks.lip_encoder.downsample_crops`.
        columns
            ``(batch, frame, 13)``; the first is 1 where a face was found.
        levels
            ``(batch, frame, 160)`` of
            `avse_ppl.video.quality.features.compute_log_mel_energies`; None without audio.
        has_audio
            ``(batch,)`` 1 for clips with audio; None for all, if there are levels.
        """
        found = columns[..., 0]
        score, cause = self.predict_from_video(images, columns)
        if levels is None:
            chance = torch.full_like(score, CHANCE)
            return QualityPrediction(
                score, cause, chance, torch.zeros_like(score, dtype=torch.bool)
            )
        features = self.agreement(images, levels, found)
        out_of_sync = self.predict_out_of_sync(features)
        if has_audio is not None:
            out_of_sync = out_of_sync * has_audio[:, None].to(out_of_sync.dtype)
        return QualityPrediction(
            *lower_score(score, cause, out_of_sync), features[:, 0] + CHANCE, features[:, 2] > 0.5
        )

    def predict_from_video(self, images: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the score and of the causes, from the video alone."""
        found = columns[..., 0]
        hidden = torch.cat((self.encode_crops(images, found), columns.transpose(1, 2)), 1)
        hidden = self.join(hidden)
        for layer in self.time:
            hidden = hidden + layer(self.dropout(gelu(hidden)))
        out = self.out(gelu(hidden))
        score = self.calibration[0] * out[:, 0] + self.calibration[1]
        never = torch.full_like(out[:, :1], _NEVER)
        return score.masked_fill(found < 0.5, _NEVER), torch.cat((out[:, 1:-1], never), 1)

    def predict_out_of_sync(self, features: Tensor) -> Tensor:
        """Out-of-sync probability q of each frame, ``(batch, frame)``; 0 where nothing is known."""
        logit = self.apart[0] + torch.einsum("f,bft->bt", self.apart[1:], features)
        return logit.sigmoid().clamp(max=_SURE) * (features[:, 2::3].amax(1) > 0.5)

    def encode_crops(self, images: Tensor, found: Tensor) -> Tensor:
        """Features of each crop and of what changed in it, ``(batch, hidden, frame)``."""
        batch, frames = images.shape[:2]
        both = found[:, 1:] * found[:, :-1]
        moved = (images[:, 1:] - images[:, :-1]) * both[..., None, None]
        moved = torch.cat((torch.zeros_like(images[:, :1]), moved), 1)
        hidden = torch.stack((images, 4.0 * moved), 2).flatten(0, 1)
        for layer, norm in zip(self.look, self.norms, strict=True):
            hidden = gelu(norm(layer(hidden)))
        return self.flat(hidden.flatten(1)).reshape(batch, frames, -1).transpose(1, 2)


def lower_score(score: Tensor, cause: Tensor, out_of_sync: Tensor) -> tuple[Tensor, Tensor]:
    """Lower the score by the out-of-sync probability; logits of score and causes."""
    probability = cause.softmax(1)
    late = out_of_sync * probability[:, list(FINE)].sum(1)
    log = (logsigmoid(score) + torch.log1p(-late)).clamp(max=-_TINY)
    fine = torch.zeros(N_CAUSES, device=cause.device)
    fine[list(FINE)] = 1.0
    probability = probability * (1.0 - fine[:, None] * out_of_sync[:, None])
    probability = torch.cat((probability[:, :OUT_OF_SYNC], late[:, None]), 1)
    lowered = torch.where(late > 0.0, log - torch.log(-torch.expm1(log)), score)
    return lowered, probability.clamp(min=_TINY).log()
