"""Denoiser of compressed complex spectrograms of the size that is published: a U-Net."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avse_ppl.models.networks.noise_embedding import NoiseEmbedding
from avse_ppl.models.networks.score_cnn import SpectralDenoiser


class ScoreUnet(SpectralDenoiser):
    r"""Denoiser of the kind and size of NCSN++: a U-Net over frequency and time, for a GPU.

    Each level halves both resolutions; residual blocks on the way down and on the way up, with skip
    connections between them, and attention at the bottom. As it is: 59 M parameters, 139 GMAC for a
    second of audio, some 220 times those of `ScoreNetwork`. No weights of it are shipped.

    Lips enter every level without biases: where their gate is 0, the network is the audio-only one,
    exactly.

    Parameters
    ----------
    freq, visual, spread, exponent
        As for `SpectralDenoiser`.
    hidden
        Channels at full resolution.
    widths
        Channels of each level, in multiples of ``hidden``.
    blocks
        Residual blocks of a level, on the way down and on the way up.

    References
    ----------
    Song et al., "Score-based generative modeling through stochastic differential equations", ICLR
    2021 (NCSN++). Richter et al., "Speech enhancement and dereverberation with diffusion-based
    generative models", TASLP 2023 (of speech).

    Examples
    --------
    >>> network = ScoreUnet(freq=33, hidden=8, widths=(1, 2), blocks=1)
    >>> noisy = torch.randn(2, 33, 10, dtype=torch.complex64)
    >>> mean, variance = network(noisy, torch.tensor([0.5, 1.0]))
    >>> mean.shape, variance.shape
    (torch.Size([2, 33, 10]), torch.Size([2, 33, 10]))
    """

    def __init__(
        self, freq: int, visual: int = 0, hidden: int = 160,
        widths: Sequence[int] = (1, 1, 2, 2, 2, 2, 2), blocks: int = 2, spread: float = 0.45,
        exponent: float = 0.5,
    ) -> None:  # fmt: skip
        """Build the layers; see the class."""
        super().__init__(freq, visual, spread, exponent)
        channels = [hidden * width for width in widths]
        self.level = NoiseEmbedding(hidden)
        self.enter = nn.Conv2d(3, hidden, 3, padding=1)
        before, skips = hidden, []
        self.down = nn.ModuleList()
        for width in channels:
            self.down.append(_Level(before, [0] * blocks, width, self.level.size, visual))
            before = width
            skips += [width] * blocks
        self.bottom = nn.ModuleList(
            [
                _Block(before, before, self.level.size), _Attention(before),
                _Block(before, before, self.level.size),
            ]
        )  # fmt: skip
        self.up = nn.ModuleList()
        for width in reversed(channels):
            joined = [skips.pop() for _ in range(blocks)]
            self.up.append(_Level(before, joined, width, self.level.size, visual))
            before = width
        self.norm = _norm(before + hidden)
        self.leave = nn.Conv2d(before + hidden, 4, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def answer(self, parts: Tensor, sigma: Tensor, visual: Tensor | None) -> Tensor:
        """See `SpectralDenoiser`."""
        level, (freq, time) = self.level(sigma), parts.shape[1:3]
        whole = 2 ** (len(self.down) - 1)
        image = parts.permute(0, 3, 1, 2)
        image = nn.functional.pad(image, (0, -time % whole, 0, -freq % whole))
        seen = visual if visual is None else nn.functional.pad(visual, (0, -time % whole))
        hidden = self.enter(image)
        skips, sights = [hidden], []
        for i, down in enumerate(self.down):
            if i:
                hidden = nn.functional.avg_pool2d(hidden, 2)
                seen = seen if seen is None else nn.functional.avg_pool1d(seen, 2)
            sights.append(seen)
            hidden = down(hidden, level, seen, skips, keep=True)
        first, attention, last = self.bottom
        hidden = last(attention(first(hidden, level)), level)
        for i, up in enumerate(self.up):
            if i:
                hidden = nn.functional.interpolate(hidden, scale_factor=2.0)
            hidden = up(hidden, level, sights.pop(), skips, keep=False)
        hidden = torch.cat((hidden, skips.pop()), 1)
        out = self.leave(nn.functional.silu(self.norm(hidden)))
        return out[:, :, :freq, :time].permute(0, 2, 3, 1)


class _Level(nn.Module):
    """Residual blocks at one resolution, in front of them what is seen.

    ``joined`` has the channels of the skip connection that each block takes in; 0 for none.
    """

    def __init__(
        self, inner: int, joined: Sequence[int], outer: int, level: int, visual: int
    ) -> None:
        super().__init__()
        self.sight = nn.Conv1d(1 + visual, inner, 1, bias=False) if visual else None
        self.blocks = nn.ModuleList()
        for extra in joined:
            self.blocks.append(_Block(inner + extra, outer, level))
            inner = outer

    def forward(
        self, x: Tensor, level: Tensor, seen: Tensor | None, skips: list[Tensor], keep: bool
    ) -> Tensor:
        if self.sight is not None and seen is not None:
            x = x + self.sight(seen)[:, :, None]
        for block in self.blocks:
            x = block(x if keep else torch.cat((x, skips.pop()), 1), level)
            if keep:
                skips.append(x)
        return x


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inner: int, outer: int, level: int) -> None:
        super().__init__()
        self.norm, self.conv = _norm(inner), nn.Conv2d(inner, outer, 3, padding=1)
        self.last_norm, self.last = _norm(outer), nn.Conv2d(outer, outer, 3, padding=1)
        self.shift = nn.Linear(level, outer)
        self.short = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        hidden = self.conv(nn.functional.silu(self.norm(x)))
        hidden = hidden + self.shift(level)[:, :, None, None]
        hidden = self.last(nn.functional.silu(self.last_norm(hidden)))
        return (self.short(x) + hidden) / math.sqrt(2.0)


class _Attention(nn.Module):
    """All places of an image look at each other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.leave = _norm(channels), nn.Linear(channels, channels)
        self.look = nn.Linear(channels, 3 * channels)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor) -> Tensor:
        places = self.norm(x).flatten(2).transpose(1, 2)
        found = nn.functional.scaled_dot_product_attention(*self.look(places).chunk(3, -1))
        return (x + self.leave(found).transpose(1, 2).unflatten(2, x.shape[2:])) / math.sqrt(2.0)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, math.gcd(channels, 32)), channels)
