"""Temporal convolutional network (TCN) that predicts speech from a mixture, with its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

_COMPRESSION = 0.3  # exponent of the magnitudes that the network sees
_FLOOR = 1e-6  # of power, where the mixture has a mean of 1
_SMOOTH_BINS = 5  # over which the power that scales the error is averaged
_LINEAR_BINS = 65  # bins of the STFT that are bands of their own, from 0 Hz on
_BANDS = 129
FEATURES, LAST = 5, 16  # channels at each band, before and after
MEMORY = 250  # frames over which a causal network averages what it has heard


class Prediction(NamedTuple):
    """Complex Gaussian law of speech in a mixture, bin by bin.

    Parameters
    ----------
    speech
        Mean of the STFT, ``(recording, freq, time)``, complex.
    log_error
        Log of the mean square of what it is off by, ``(recording, freq, time)``.
    """

    speech: Tensor
    log_error: Tensor


class TcnNetwork(nn.Module):
    r"""Dilated temporal convolutions from a mixture to a complex mask and the power of its error.

    .. math:: s_{ft} \mid x \sim N_c(m_{ft} x_{ft}, \; e_{ft}), \quad
        m = \sigma(a) e^{i\varphi}, \quad \log e = v + \log \bar P

    with :math:`a, \varphi, v` the outputs and :math:`\bar P` the power of the mixture averaged over
    neighbouring frequencies. Strided convolutions over frequency bring 129 bands (bins up to 2 kHz,
    wider ones above) to 9 places; blocks of dilated convolutions over time, with the same weights
    at each place, and of mixing between the places follow; and convolutions back to the bands, with
    skip connections.

    The filters over time have one tap in the future. Where ``causal`` is asked for they do without
    it, with the same weights: training draws one or the other (Yu et al., 2021).

    Parameters
    ----------
    freq
        Number of bins of the STFT.
    widths
        Channels after each strided convolution; the last between the blocks.
    inner
        Channels inside a block.
    repeats, dilations
        Number of times that the dilations 1, 2, ..., ``2 ** (dilations - 1)`` are run through.

    References
    ----------
    Lea, Vidal, Reiter and Hager, "Temporal convolutional networks: a unified approach to action
    segmentation", 2016. Luo and Mesgarani, "Conv-TasNet", TASLP 2019. Tan and Wang, "A
    convolutional recurrent neural network for real-time speech enhancement", Interspeech 2018. Yu
    et al., "Dual-mode ASR: unify and improve streaming ASR with full-context modeling", ICLR 2021.

    Examples
    --------
    >>> network = TcnNetwork(freq=257, widths=(4, 8), inner=12, repeats=1, dilations=2)
    >>> mixture = torch.randn(2, 257, 10, dtype=torch.complex64)
    >>> found = network(mixture)
    >>> found.speech.shape, found.log_error.shape
    (torch.Size([2, 257, 10]), torch.Size([2, 257, 10]))
    """

    def __init__(
        self,
        freq: int,
        widths: Sequence[int] = (20, 40, 64, 96),
        inner: int = 160,
        repeats: int = 2,
        dilations: int = 6,
    ) -> None:
        super().__init__()
        self.freq, self.sizes = freq, [_BANDS]
        bands = make_bands(freq)
        self.pool: Tensor
        self.spread: Tensor
        self.register_buffer("pool", bands / bands.sum(0), persistent=False)
        self.register_buffer("spread", (bands / bands.sum(1, keepdim=True)).T, persistent=False)
        down = (FEATURES, *widths)
        self.encoder = nn.ModuleList(Down(a, b) for a, b in pairwise(down))
        for _ in widths:
            self.sizes.append((self.sizes[-1] + 1) // 2)
        self.blocks = nn.ModuleList(
            TcnBlock(widths[-1], inner, self.sizes[-1], 2**k)
            for _ in range(repeats)
            for k in range(dilations)
        )
        up = (*widths[::-1], LAST)
        self.decoder = nn.ModuleList(Up(a, b) for a, b in pairwise(up))
        self.output = nn.Linear(LAST + FEATURES, 3)
        with torch.no_grad():  # a mask of .5, little rotation, and half the power as its error
            self.output.weight.mul_(0.3)
            self.output.bias.zero_()

    def forward(self, mixture: Tensor, causal: bool = False) -> Prediction:
        """Predict speech from mixtures ``(recording, freq, time)`` of unit mean power."""
        return self.predict(self.run(self.features(mixture, causal), causal), mixture)

    def features(self, mixture: Tensor, causal: bool = False) -> Tensor:
        """Features of each band, ``(recording, time, band, 5)``."""
        bands = self.measure_bands(mixture)
        log_power = bands[..., 3]
        usual = running_mean(log_power) if causal else log_power.mean(1, keepdim=True)
        return torch.cat((bands, (log_power - usual)[..., None]), -1)

    def measure_bands(self, mixture: Tensor) -> Tensor:
        """Compressed values and log power of each band, ``(recording, time, band, 4)``."""
        power = mixture.real.square() + mixture.imag.square() + _FLOOR
        scale = power.pow(0.5 * (_COMPRESSION - 1.0))
        parts = torch.stack((mixture.real * scale, mixture.imag * scale, power.sqrt() * scale), 1)
        banded = (parts.transpose(2, 3) @ self.pool).permute(0, 2, 3, 1)
        log_power = 0.25 * (power.transpose(1, 2) @ self.pool).log()
        return torch.cat((banded, log_power[..., None]), -1)

    def run(self, bands: Tensor, causal: bool = False, past: list[Tensor] | None = None) -> Tensor:
        """Outputs at each band, ``(recording, time, band, 3)``.

        In a stream, ``past`` is what each block has kept of the frames before, see
        `TcnBlock.step`; it is replaced by what is to be kept for the frames after.
        """
        x, skips = self.encode(bands, causal, past)
        return self.output(torch.cat((self.decode(x, skips), bands.to(x.dtype)), -1))

    def encode(
        self, bands: Tensor, causal: bool = False, past: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """What the blocks make of the bands, ``(recording, time, place, channel)``, and skips."""
        x, skips = bands, []
        for layer in self.encoder:
            x = layer(x)
            skips.append(x)
        for index, block in enumerate(self.blocks):
            if past is None:
                x = block(x, causal)
            else:
                x, past[index] = cast(TcnBlock, block).step(x, past[index])
        return x, skips

    def decode(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Back to the bands, ``(recording, time, band, channel)``."""
        for layer, skip, size in zip(self.decoder, skips[::-1], self.sizes[-2::-1], strict=True):
            x = layer(x + skip, size)
        return x

    def predict(self, outputs: Tensor, mixture: Tensor) -> Prediction:
        """Law of speech from outputs ``(recording, time, band, 3)``."""
        wide = (outputs.float().transpose(2, 3) @ self.spread).permute(2, 0, 3, 1)
        gain, angle, log_error = wide
        mask = torch.polar(torch.sigmoid(gain), angle)
        return Prediction(mask * mixture, log_error + smooth_power(mixture).log())


class Down(nn.Module):
    """Strided convolution over five bands, of ``(recording, time, band, channel)``."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, (1, 5), (1, 2), (0, 2))
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        """Half of the bands, and the last one."""
        return nn.functional.relu(self.norm(convolve(self.conv, x)))


class Up(nn.Module):
    """Transposed convolution over three bands, of ``(recording, time, band, channel)``."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * out, (1, 3), 1, (0, 1))
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor, size: int) -> Tensor:
        """Twice the bands, cut to ``size``."""
        twice = convolve(self.conv, x).unflatten(-1, (2, -1)).flatten(2, 3)
        return nn.functional.relu(self.norm(twice[:, :, :size]))


class TcnBlock(nn.Module):
    """Dilated convolution over time at each place, then mixing of the places."""

    def __init__(self, channels: int, inner: int, places: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(channels)
        self.first = nn.Linear(channels, inner)
        self.taps = nn.Parameter(torch.randn(3, inner) / math.sqrt(3))
        self.second = nn.Linear(inner, channels)
        self.mix_norm = nn.LayerNorm(channels)
        self.places = nn.Linear(places, places)
        self.mix = nn.Linear(channels, channels)
        with torch.no_grad():
            self.second.weight.mul_(0.5)
            self.mix.weight.mul_(0.5)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Filter ``(recording, time, place, channel)``."""
        y = nn.functional.relu(self.first(self.norm(x)))
        return self.finish(x, self.filter(y, causal))

    def filter(self, y: Tensor, causal: bool) -> Tensor:
        """Depthwise convolution over time, zeros before and after."""
        d, time = self.dilation, y.shape[1]
        taps = self.taps.to(y.dtype)
        around = nn.functional.pad(y, (0, 0, 0, 0, d, d))
        out = taps[0] * around[:, :time] + taps[1] * y
        return out if causal else out + taps[2] * around[:, 2 * d :]

    def step(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Filter frames that follow others, causally; also what to keep for those that follow.

        Parameters
        ----------
        x
            ``(recording, time, place, channel)``.
        past
            What was kept, ``(recording, dilation, place, inner)``; zeros at the beginning.
        """
        y = nn.functional.relu(self.first(self.norm(x)))
        around = torch.cat((past, y), 1)
        filtered = self.taps[0] * around[:, : y.shape[1]] + self.taps[1] * y
        return self.finish(x, filtered), around[:, -self.dilation :].clone()

    def finish(self, x: Tensor, filtered: Tensor) -> Tensor:
        """Output, from the input and what the filters make of it."""
        x = x + self.second(nn.functional.relu(filtered))
        y = self.places(self.mix_norm(x).transpose(2, 3)).transpose(2, 3)
        return x + self.mix(nn.functional.relu(y))


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve ``(recording, time, band, channel)``, which is PyTorch's channels-last layout."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def make_bands(freq: int) -> Tensor:
    """Overlapping triangular bands, ``(freq, band)``: of one bin each up to 2 kHz, then wider.

    Examples
    --------
    >>> bands = make_bands(257)
    >>> bands.shape, bool((bands.sum(1) > 0.99).all())
    (torch.Size([257, 129]), True)
    """
    low, count = _LINEAR_BINS - 1, _BANDS - _LINEAR_BINS
    centres = np.concatenate(
        (np.arange(_LINEAR_BINS), low * ((freq - 1) / low) ** (np.arange(1, count + 1) / count))
    )
    for k in range(_LINEAR_BINS, _BANDS):  # at least one bin apart, so that no band is empty
        centres[k] = max(centres[k], centres[k - 1] + 1.0)
    wide = centres[_LINEAR_BINS:]
    wide[:] = low + (wide - low) * ((freq - 1 - low) / (wide[-1] - low))
    bins = np.arange(freq)[:, None]
    before = np.concatenate((centres[:1] - 1, centres[:-1]))
    after = np.concatenate((centres[1:], centres[-1:] + 1))
    rising, falling = (bins - before) / (centres - before), (after - bins) / (after - centres)
    return torch.from_numpy(np.minimum(rising, falling).clip(0.0).astype(np.float32))


def running_mean(values: Tensor) -> Tensor:
    """Mean of ``(recording, time, band)`` over the frames so far, fading after 250 of them."""
    count = torch.arange(1, values.shape[1] + 1, device=values.device).to(values.dtype)
    found = values.cumsum(1) / count[:, None]
    rows = list(found[:, :MEMORY].unbind(1))
    for frame in values[:, MEMORY:].unbind(1):
        rows.append(rows[-1] + (frame - rows[-1]) / MEMORY)
    return found if len(rows) == found.shape[1] <= MEMORY else torch.stack(rows, 1)


def smooth_power(values: Tensor) -> Tensor:
    """Power above a floor, averaged over neighbouring frequencies."""
    power = values.real.square() + values.imag.square() + _FLOOR
    half = _SMOOTH_BINS // 2
    padded = nn.functional.pad(power, (0, 0, half, half), mode="replicate")
    return padded.unfold(1, _SMOOTH_BINS, 1).mean(-1)
