"""Audio-visual synchrony: two small encoders, scored against each other at every lag."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, gelu, layer_norm, max_pool1d, normalize, pad

BANDS = 40  # of the sound
STEPS = 4  # of 10 ms in a video frame
MOST_LAG = 25  # video frames, 1 s
NEAR_LAG = 2  # video frames: below what is noticed
WINDOWS = (21, 75)  # video frames averaged over, 0.84 s and 3 s
FEATURES = 3 * len(WINDOWS) + 1
EDGE = 8  # video frames: receptive field of a tower to either side
CHANCE = math.log((2 * NEAR_LAG + 1) / (2 * (MOST_LAG - NEAR_LAG)))  # log odds
_LEAST = 6  # video frames that a mean needs
_FEWEST = 4  # lags out of sync that a comparison needs
_NOTHING = -1e4


class LipTower(nn.Module):
    """Mouth crops of half size, ``(batch, frame, 44, 44)``, to ``(batch, feature, frame)``.

    Its layers have the names and the sizes of those of `LipEncoder`, so that it can start from
    the weights of one.
    """

    def __init__(self, features: int, width: int) -> None:
        """Build the layers: one over space and time, three over space, three over time."""
        super().__init__()
        widths = (width, 2 * width, 4 * width, 6 * width)
        self.motion = nn.Conv3d(1, width, (3, 5, 5), (1, 2, 2), (1, 2, 2))
        self.space = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(4, b) for b in widths[1:])
        self.flat = nn.Linear(widths[-1] * 9, 2 * features)
        self.time = nn.ModuleList(
            nn.Conv1d(2 * features, 2 * features, 3, padding=d, dilation=d) for d in (1, 2, 4)
        )
        self.out = nn.Conv1d(2 * features, features, 1)
        self.dropout = nn.Dropout(0.15)

    def forward(self, images: Tensor) -> Tensor:
        """Encode; the level and the contrast of a crop are taken out first."""
        batch, frames = images.shape[:2]
        hidden = gelu(self.motion(layer_norm(images, images.shape[-2:])[:, None]))
        hidden = hidden.transpose(1, 2).flatten(0, 1)
        for layer, norm in zip(self.space, self.norms, strict=True):
            hidden = gelu(norm(layer(hidden)))
        hidden = self.dropout(self.flat(hidden.flatten(1)))
        hidden = hidden.reshape(batch, frames, -1).transpose(1, 2)
        for layer in self.time:
            hidden = hidden + layer(self.dropout(gelu(hidden)))
        return self.out(gelu(hidden))


class AudioTower(nn.Module):
    """Log levels, ``(batch, frame, 160)``, to ``(batch, feature, frame)``."""

    def __init__(self, features: int) -> None:
        """Build the layers: convolutions over 0.5 s."""
        super().__init__()
        self.first = nn.Conv1d(STEPS * BANDS, 2 * features, 3, padding=1)
        self.time = nn.ModuleList(
            nn.Conv1d(2 * features, 2 * features, 3, padding=d, dilation=d) for d in (1, 2, 3)
        )
        self.out = nn.Conv1d(2 * features, features, 1)
        self.dropout = nn.Dropout(0.15)

    def forward(self, levels: Tensor) -> Tensor:
        """Encode."""
        hidden = self.first(levels.transpose(1, 2))
        for layer in self.time:
            hidden = hidden + layer(self.dropout(gelu(hidden)))
        return self.out(gelu(hidden))


class AVSyncNetwork(nn.Module):
    r"""Scores of lips against sound at every lag, and what follows from them.

    .. math:: S_{t\tau} = \kappa\, \langle v_t / |v_t|, a_{t+\tau} / |a_{t+\tau}| \rangle, \qquad
        g_t = \log \sum_{|\tau| \le 2} e^{\bar S_{t\tau}} - \log \sum_{|\tau| > 2}
        e^{\bar S_{t\tau}}

    v are features of the lips, a of the sound, and the bar a mean over a window of frames around
    t. g is the log odds that both are in sync within 80 ms, all lags being equally likely
    before; chance is ``log(5 / 46)``. Only frames are compared whose receptive field lies
    within the clip and shows a face: elsewhere features depend on the padding. Where too few are
    left, g is chance, and a flag is 0.

    Parameters
    ----------
    features
        Of lips and sound each.
    width
        Channels of the first convolution over crops.

    References
    ----------
    Chung and Zisserman, "Out of time: automated lip sync in the wild", ACCV workshops 2016.
    van den Oord, Li and Vinyals, "Representation learning with contrastive predictive coding",
    2018.

    Examples
    --------
    >>> network = AVSyncNetwork(features=8, width=4)
    >>> images, levels = torch.zeros(2, 30, 44, 44), torch.zeros(2, 30, 160)
    >>> network(images, levels, torch.ones(2, 30)).shape
    torch.Size([2, 7, 30])
    """

    def __init__(self, features: int = 64, width: int = 16) -> None:
        super().__init__()
        self.lips, self.sound = LipTower(features, width), AudioTower(features)
        self.scale = nn.Parameter(torch.tensor(2.0))  # log of kappa

    def encode(
        self, images: Tensor, levels: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features of lips and of sound, both of length 1, their mean over the clip taken out.

        The mean depends on the speaker, not on the lag. The third is ``(batch, frame)``, 1 where
        the receptive field of the features of the lips shows a face throughout.
        """
        video_interior = find_interior(present)
        audio_interior = find_interior(torch.ones_like(present))
        pairs = ((self.lips(images), video_interior), (self.sound(levels), audio_interior))
        video, audio = (normalize(centre_features(x, where), dim=1) for x, where in pairs)
        return video, audio, video_interior

    def forward(self, images: Tensor, levels: Tensor, present: Tensor) -> Tensor:
        """Log odds less chance, score and whether they are known for each window; best lag.

        Parameters
        ----------
        images, levels
            ``(batch, frame, 44, 44)`` and ``(batch, frame, 160)``.
        present
            ``(batch, frame)``, 1 where a face was found.

        Returns
        -------
        Tensor
            ``(batch, 7, frame)``; the last row is the best lag of the widest window, over a
            second. All is 0 where nothing is known.
        """
        video, audio, interior = self.encode(images, levels, present)
        audible = find_interior(torch.ones_like(present[:1]))[0]
        scores, valid = score_lags(video, audio, interior, self.scale.exp(), audible)
        rows = []
        means = [average_window(scores, valid, window) for window in WINDOWS]
        for mean, count in means:
            known = is_comparable(count).to(mean.dtype)
            in_sync, _ = split_lags(mean.masked_fill(count == 0, _NOTHING))
            best = in_sync.amax(-1).clamp(min=-20.0)
            rows += [log_odds(mean, count) - CHANCE, best * known, known]
        widest, count = means[-1]
        best = widest.masked_fill(count == 0, _NOTHING).argmax(-1)
        return torch.stack([*rows, (best - MOST_LAG).abs() / MOST_LAG * rows[-1]], 1)


def find_interior(present: Tensor) -> Tensor:
    """Frames whose receptive field is present throughout: 0 and 1, ``(batch, frame)`` as `present`.

    Examples
    --------
    >>> find_interior(torch.ones(1, 20))[0].nonzero().flatten()
    tensor([ 8,  9, 10, 11])
    """
    gone = pad(1.0 - present, (EDGE, EDGE), value=1.0)
    return 1.0 - max_pool1d(gone[:, None], 2 * EDGE + 1, 1)[:, 0]


def centre_features(features: Tensor, present: Tensor) -> Tensor:
    """Subtract the mean over the frames that are present."""
    weight = present[:, None] / present.sum(-1).clamp(min=1.0)[:, None, None]
    return features - (features * weight).sum(-1, keepdim=True)


def score_lags(
    video: Tensor, audio: Tensor, present: Tensor, scale: Tensor | float = 1.0,
    audible: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Scores of video frames against audio frames at each lag, and which of them are valid.

    Both are ``(batch, frame, lag)``, from features ``(batch, feature, frame)``. `present`
    ``(batch, frame)`` is 1 where lips are, `audible` ``(frame,)`` where sound is.

    Examples
    --------
    >>> both = torch.eye(4)[None]
    >>> score_lags(both, both, torch.ones(1, 4))[0][0, :, 24:27].sum(0)
    tensor([0., 4., 0.])
    """
    frames = video.shape[-1]
    product = scale * torch.einsum("bft,bfu->btu", video, audio)
    lags = torch.arange(-MOST_LAG, MOST_LAG + 1, device=video.device)
    place = torch.arange(frames, device=video.device)[:, None] + lags
    inside = (place >= 0) & (place < frames)
    index = place.clamp(0, frames - 1).expand(len(video), -1, -1)
    if audible is not None:
        inside = inside & (audible[place.clamp(0, frames - 1)] > 0)
    valid = inside * present[:, :, None]
    return product.gather(2, index) * valid, valid


def average_window(scores: Tensor, valid: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Mean of the scores over a window around each frame, and how many there were."""

    def total(values: Tensor) -> Tensor:
        padded = pad(values.transpose(1, 2), (window // 2, window // 2))
        return avg_pool1d(padded, window, 1).transpose(1, 2) * window

    count = total(valid).round()
    # Lags that overlap with the audio only for a moment are left out.
    enough = (count >= 0.4 * count.amax(-1, keepdim=True)) & (count >= _LEAST)
    count = torch.where(enough, count, torch.zeros_like(count))
    return total(scores) / count.clamp(min=1.0), count


def is_comparable(count: Tensor) -> Tensor:
    """Whether in-sync and out-of-sync lags can be compared, from counts ``(..., lag)``."""
    in_sync, others = split_lags(count > 0)
    return in_sync.any(-1) & (others.sum(-1) >= _FEWEST)


def log_odds(mean: Tensor, count: Tensor) -> Tensor:
    """Log odds of being in sync, ``(batch, frame)`` from ``(batch, frame, lag)``.

    Lags without audio in a clip do not count; `CHANCE` where nothing is known.
    """
    in_sync, others = split_lags(mean.masked_fill(count == 0, _NOTHING))
    n_in_sync, n_others = (side.sum(-1).clamp(min=1).log() for side in split_lags(count > 0))
    odds = in_sync.logsumexp(-1) - n_in_sync - others.logsumexp(-1) + n_others + CHANCE
    return torch.where(is_comparable(count), odds.clamp(-20.0, 20.0), torch.full_like(odds, CHANCE))


def split_lags(values: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the lags within 80 ms, and all others."""
    middle = values.shape[-1] // 2
    low, high = middle - NEAR_LAG, middle + NEAR_LAG + 1
    return values[..., low:high], torch.cat((values[..., :low], values[..., high:]), -1)
