"""Denoiser of latent sequences, by ear or with the speaker's lips."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from avse_ppl.models.networks.fusion import VisualFrontEnd
from avse_ppl.models.networks.noise_embedding import NoiseEmbedding

_LOGVAR = (-14.0, 6.0)  # nats around what one latent by itself would have
_DILATIONS = 6  # block b reaches 2^(b mod 6) frames to either side
_EPSILON = 1e-6  # of a mean square


class LatentDenoiser(nn.Module):
    r"""What is to be added to noisy latents, and how sure that is.

    .. math:: F, \log \tau = \mathrm{TCN}(y / \sqrt{\sigma_d^2 + \sigma^2}; \sigma, v)

    in the units of `LatentDiffusionNetwork`, which makes mean and variance of the two. Residual
    blocks of dilated convolutions over time, each told the level of the noise; after every
    ``look_every`` of them, the latents attend to the lips.

    Parameters
    ----------
    latent
        Number of latent dimensions.
    visual
        Number of visual features; 0 for an audio-only network.
    hidden, blocks
        Channels and residual blocks.
    level
        Size of the vector of the noise level.
    seen
        Channels of what is seen.
    look_every
        Blocks from one attention to the next.

    Examples
    --------
    >>> denoiser = LatentDenoiser(latent=4, visual=3, hidden=8, blocks=2, seen=4)
    >>> drift, logvar = denoiser(torch.randn(2, 4, 10), torch.tensor([0.5, 1.0]))
    >>> drift.shape, logvar.shape
    (torch.Size([2, 4, 10]), torch.Size([2, 4, 10]))
    """

    def __init__(
        self, latent: int, visual: int = 0, hidden: int = 128, blocks: int = 8, level: int = 64,
        seen: int = 64, look_every: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.level = NoiseEmbedding(level)
        self.enter = nn.Conv1d(latent, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(
            _Block(hidden, 2 ** (b % _DILATIONS), level) for b in range(blocks)
        )
        self.look_every = look_every
        if visual:
            self.sight = VisualFrontEnd(visual, seen)
            self.looks = nn.ModuleList(
                LipAttention(hidden, seen) for _ in range(-(-blocks // look_every))
            )
        self.visual = visual
        self.leave = nn.Conv1d(hidden, 2 * latent, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def see(self, visual: Tensor | None, rows: int) -> Tensor | None:
        """What is seen of ``(recording, 1 + visual, time)``, for so many rows of latents.

        One picture may belong to several rows: draws of the same recording, which come first.
        """
        if visual is None or not self.visual:
            return None
        seen = self.sight(visual.reshape(-1, *visual.shape[-2:]))
        return seen if len(seen) == rows else seen.repeat(rows // len(seen), 1, 1)

    def forward(
        self, scaled: Tensor, sigma: Tensor, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``(row, latent, time)`` at levels ``(row,)`` to F and log-variance of the same shape."""
        level = self.level(sigma)
        hidden = self.enter(scaled)
        for b, block in enumerate(self.blocks):
            if seen is not None and b % self.look_every == 0:
                hidden = self.looks[b // self.look_every](hidden, seen)
            hidden = block(hidden, level)
        drift, logvar = self.leave(nn.functional.gelu(hidden)).chunk(2, 1)
        return drift, logvar.clamp(*_LOGVAR)


class LipAttention(nn.Module):
    r"""Latents that look at the lips of half a second before and after.

    .. math:: x_t + W \sum_{|\tau - t| < w} \alpha_{t \tau} V h_\tau

    Values and what becomes of them pass through layers without bias: where nothing is seen,
    :math:`h = 0`, x comes out as it went in, to the bit. Weights come from x, h and the distance
    in time. Frames are taken in stretches of w, each with its neighbours, so that time and memory
    grow with the length of the recording and not with its square.

    Parameters
    ----------
    heard, seen
        Channels of x and h.
    heads, size
        Heads of the attention, and channels of each.
    window
        w, frames.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017. Shaw, Uszkoreit and Vaswani,
    "Self-attention with relative position representations", NAACL 2018.

    Examples
    --------
    >>> attend = LipAttention(heard=8, seen=4)
    >>> heard = torch.randn(2, 8, 100)
    >>> bool((attend(heard, torch.zeros(2, 4, 100)) == heard).all())
    True
    """

    def __init__(
        self, heard: int, seen: int, heads: int = 4, size: int = 16, window: int = 32
    ) -> None:
        super().__init__()
        self.heads, self.size, self.window = heads, size, window
        self.query = nn.Conv1d(heard, heads * size, 1)
        self.key = nn.Conv1d(seen, heads * size, 1, bias=False)
        self.value = nn.Conv1d(seen, heads * size, 1, bias=False)
        self.leave = nn.Conv1d(heads * size, heard, 1, bias=False)
        # Starts near the frame itself: lips and sound are nearly together.
        distance = torch.arange(1 - window, window).abs() / (window / 8)
        self.nearness = nn.Parameter(-distance.expand(heads, -1).clone())

    def forward(self, heard: Tensor, seen: Tensor) -> Tensor:
        """``(row, heard, time)`` and ``(row, seen, time)`` to ``(row, heard, time)``."""
        time, w = heard.shape[-1], self.window
        query = self._stretches(self.query(_unit(heard)))
        key, value = (self._around(layer(seen)) for layer in (self.key, self.value))
        scores = torch.einsum("rhcnq,rhcnk->rhnqk", query, key) / math.sqrt(self.size)
        weights = (scores + self._near()[:, None]).softmax(-1)
        found = torch.einsum("rhnqk,rhcnk->rhcnq", weights, value)
        found = found.reshape(len(heard), -1, found.shape[-2] * w)[..., :time]
        return heard + self.leave(found)

    def _stretches(self, x: Tensor) -> Tensor:
        """``(row, channel, time)`` to ``(row, head, size, stretch, w)``."""
        padded = nn.functional.pad(x, (0, -x.shape[-1] % self.window))
        return padded.unflatten(-1, (-1, self.window)).unflatten(1, (self.heads, self.size))

    def _around(self, x: Tensor) -> Tensor:
        """The same with the stretches before and after, ``(row, head, size, stretch, 3 w)``."""
        w = self.window
        padded = nn.functional.pad(x, (w, w + -x.shape[-1] % w))
        return padded.unfold(-1, 3 * w, w).unflatten(1, (self.heads, self.size))

    def _near(self) -> Tensor:
        """Score of a distance in time, ``(head, w, 3 w)``; minus infinity past the window."""
        w, device = self.window, self.nearness.device
        apart = torch.arange(3 * w, device=device) - w - torch.arange(w, device=device)[:, None]
        scores = self.nearness[:, (apart + w - 1).clamp(0, 2 * w - 2)]
        return scores.masked_fill(apart.abs() >= w, -math.inf)


class _Block(nn.Module):
    """Residual block of ``(row, channel, time)``, told the level of the noise."""

    def __init__(self, channels: int, dilation: int, level: int) -> None:
        super().__init__()
        self.modulate = nn.Linear(level, 2 * channels)
        self.near = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.leave = nn.Conv1d(channels, channels, 1)
        for layer in (self.modulate, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.modulate(level)[..., None].chunk(2, 1)
        hidden = _unit(x) * (1.0 + scale) + shift
        return x + self.leave(nn.functional.gelu(self.near(hidden)))


def _unit(x: Tensor) -> Tensor:
    """Each frame of ``(row, channel, time)`` at unit mean square."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + _EPSILON)
