"""From mouth crops to visual features: a small 3-D convolution, then convolutions over time."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

CROP = 88  # pixels, each way
RATE_HZ = 25.0
_AT = 1e-3  # of a video frame: an STFT frame so near to one has its time
_EMPTY = 0.5  # power of a normalised crop: 1, or 0 where it is all one grey
_STILL = 1e-3  # power of the differences in a still image: they are not amplified
MEAN, SPREAD = 0.421, 0.165  # of grey mouth crops, the field's convention


class LipEncoder(nn.Module):
    r"""Visual encoder shared by all audio-visual priors.

    Crops of 88x88 at 25 frames a second are halved in size, pass one convolution over space and
    time, three over space, and residual convolutions over time (0.6 s to either side at the
    defaults): one vector of features for each frame.

    What enters beside each crop is how it differs from the mean of the clip: a mouth's appearance
    is in that mean, so that what is learned of a few people's mouths holds for those of others.

    Parameters
    ----------
    features
        Number of features.
    width
        Channels of the first convolution, doubled three times.

    References
    ----------
    Petridis et al., "End-to-end audiovisual speech recognition", ICASSP 2018 (3-D convolution
    before 2-D ones). Bai, Kolter and Koltun, 2018 (temporal convolutions).

    Examples
    --------
    >>> network = LipEncoder(features=8, width=4)
    >>> network(torch.zeros(2, 5, 88, 88, dtype=torch.uint8)).shape
    torch.Size([2, 8, 5])
    """

    def __init__(self, features: int = 64, width: int = 16) -> None:
        super().__init__()
        self.features, self.width = features, width
        self.motion = nn.Conv3d(2, width, (3, 5, 5), (1, 2, 2), (1, 2, 2))
        widths = (width, 2 * width, 4 * width, 6 * width)
        self.space = nn.ModuleList(
            nn.Conv2d(inner, outer, 3, 2, 1) for inner, outer in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(4, outer) for outer in widths[1:])
        self.flat = nn.Linear(6 * width * 9, 2 * features)
        self.time = nn.ModuleList(
            nn.Conv1d(2 * features, 2 * features, 3, padding=2**b, dilation=2**b) for b in range(3)
        )
        self.out = nn.Conv1d(2 * features, features, 1)
        self.dropout = nn.Dropout(0.35)

    def forward(self, crops: Tensor) -> Tensor:
        """``(batch, frame, 88, 88)`` grey levels, 0 to 255, to ``(batch, features, frame)``."""
        return self.encode_downsampled(downsample_crops(crops))

    def encode_downsampled(self, images: Tensor) -> Tensor:
        """``(batch, frame, 44, 44)`` of `downsample_crops` to ``(batch, features, frame)``."""
        batch, frames = images.shape[:2]
        normalised = nn.functional.layer_norm(images, images.shape[-2:])
        hidden = nn.functional.gelu(
            self.motion(torch.stack((normalised, motion_image(normalised)), 1))
        )
        hidden = hidden.transpose(1, 2).flatten(0, 1)
        for layer, norm in zip(self.space, self.norms, strict=True):
            hidden = nn.functional.gelu(norm(layer(hidden)))
        hidden = self.dropout(self.flat(hidden.flatten(1)))
        hidden = hidden.reshape(batch, frames, -1).transpose(1, 2)
        for layer in self.time:
            hidden = hidden + layer(self.dropout(nn.functional.gelu(hidden)))
        features = self.out(nn.functional.gelu(hidden)).transpose(1, 2)
        # Of one length, and free in direction: a squashing nonlinearity saturates, and then
        # features depend on the speaker alone.
        return nn.functional.layer_norm(features, (self.features,)).transpose(1, 2)


def downsample_crops(crops: Tensor) -> Tensor:
    """Normalised crops of half the size, ``(batch, frame, 44, 44)``."""
    scaled = (crops.to(torch.float32) / 255.0 - MEAN) / SPREAD
    return nn.functional.avg_pool2d(scaled, 2)


def motion_image(images: Tensor) -> Tensor:
    """Difference from the mean crop of the clip, at unit power; 0 where there is no crop.

    Examples
    --------
    >>> motion_image(torch.ones(1, 4, 8, 8)).abs().max()
    tensor(0.)
    """
    present = (images.square().mean((-2, -1), keepdim=True) > _EMPTY).to(images.dtype)
    mean = (images * present).sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp(min=1.0)
    difference = (images - mean) * present
    power = difference.square().mean((1, 2, 3), keepdim=True)
    return difference / (power + _STILL).sqrt()


def resample_features(features: Tensor, present: Tensor, time_s: Tensor) -> Tensor:
    """Resample visual features to STFT frames, with their gate before them.

    Linear between video frames. The gate is that of the two video frames around an STFT frame,
    whichever is lower; 0 past the last one.

    Parameters
    ----------
    features
        ``(batch, features, video_frame)`` at `RATE_HZ`.
    present
        ``(batch, video_frame)``, in [0, 1].
    time_s
        Centres of the frames, seconds, ``(time,)``.

    Returns
    -------
    Tensor
        ``(batch, 1 + features, time)``.

    Examples
    --------
    >>> resample_features(torch.ones(1, 3, 5), torch.ones(1, 5), torch.tensor([0.0, 0.05, 9.0]))[
    ...     0, :2
    ... ]
    tensor([[1., 1., 0.],
            [1., 1., 0.]])
    """
    if features.shape[-1] == 0:
        return features.new_zeros(*features.shape[:-2], 1 + features.shape[-2], len(time_s))
    place = time_s.to(features.dtype) * RATE_HZ
    last = features.shape[-1] - 1
    left = (place + _AT).floor().long().clamp(max=last)
    between = (place - left).clamp(0.0, 1.0)
    right = torch.where(between > _AT, left + 1, left).clamp(max=last)
    gate = torch.minimum(present[..., left], present[..., right])
    # The last video frame is shown for as long as any other.
    gate = gate * (place + _AT < last + 1).to(gate.dtype)
    values = torch.lerp(features[..., left], features[..., right], between)
    gate = gate[..., None, :].to(features.dtype)
    return torch.cat((gate, gate * values), -2)
