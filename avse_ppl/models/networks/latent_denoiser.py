"""Denoiser of latent sequences, audio-only or audio-visual."""

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
    r"""Denoiser of latents: drift and log-variance of its answer.

    .. math:: F, \log \tau = \mathrm{TCN}(y / \sqrt{\sigma_d^2 + \sigma^2}; \sigma, v)

    in the units of `LatentDiffusionNetwork`, which makes mean and variance of the two. Residual
    blocks of dilated convolutions over time, each modulated by the noise level; after every
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
        Size of the noise embedding.
    visual_hidden
        Channels of the visual front end.
    look_every
        Blocks from one attention to the next.

    Examples
    --------
    >>> denoiser = LatentDenoiser(latent=4, visual=3, hidden=8, blocks=2, visual_hidden=4)
    >>> drift, logvar = denoiser(torch.randn(2, 4, 10), torch.tensor([0.5, 1.0]))
    >>> drift.shape, logvar.shape
    (torch.Size([2, 4, 10]), torch.Size([2, 4, 10]))
    """

    def __init__(
        self, latent: int, visual: int = 0, hidden: int = 128, blocks: int = 8, level: int = 64,
        visual_hidden: int = 64, look_every: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.level = NoiseEmbedding(level)
        self.enter = nn.Conv1d(latent, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(
            _Block(hidden, 2 ** (b % _DILATIONS), level) for b in range(blocks)
        )
        self.look_every = look_every
        if visual:
            self.sight = VisualFrontEnd(visual, visual_hidden)
            self.looks = nn.ModuleList(
                LipAttention(hidden, visual_hidden) for _ in range(-(-blocks // look_every))
            )
        self.visual = visual
        self.leave = nn.Conv1d(hidden, 2 * latent, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def encode_visual(self, visual: Tensor | None, rows: int) -> Tensor | None:
        """Visual context of features ``(recording, 1 + visual, time)``, one a row of latents.

        One video may belong to several rows: draws of the same recording, which come first.
        """
        if visual is None or not self.visual:
            return None
        context = self.sight(visual.reshape(-1, *visual.shape[-2:]))
        return context if len(context) == rows else context.repeat(rows // len(context), 1, 1)

    def forward(
        self, scaled: Tensor, sigma: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``(row, latent, time)`` at levels ``(row,)`` to F and log-variance of the same shape."""
        level = self.level(sigma)
        hidden = self.enter(scaled)
        for b, block in enumerate(self.blocks):
            if context is not None and b % self.look_every == 0:
                hidden = self.looks[b // self.look_every](hidden, context)
            hidden = block(hidden, level)
        drift, logvar = self.leave(nn.functional.gelu(hidden)).chunk(2, 1)
        return drift, logvar.clamp(*_LOGVAR)


class LipAttention(nn.Module):
    r"""Local cross-attention of latents to the lips, half a second before and after.

    .. math:: x_t + W \sum_{|\tau - t| < w} \alpha_{t \tau} V h_\tau

    Values and what becomes of them pass through layers without bias: without video,
    :math:`h = 0`, x comes out as it went in, to the bit. Weights come from x, h and the distance
    in time. Frames are taken in chunks of w, each with its neighbours, so that time and memory
    grow with the length of the recording and not with its square.

    Parameters
    ----------
    audio, visual
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
    >>> attend = LipAttention(audio=8, visual=4)
    >>> audio = torch.randn(2, 8, 100)
    >>> bool((attend(audio, torch.zeros(2, 4, 100)) == audio).all())
    True
    """

    def __init__(
        self, audio: int, visual: int, heads: int = 4, size: int = 16, window: int = 32
    ) -> None:
        super().__init__()
        self.heads, self.size, self.window = heads, size, window
        self.query = nn.Conv1d(audio, heads * size, 1)
        self.key = nn.Conv1d(visual, heads * size, 1, bias=False)
        self.value = nn.Conv1d(visual, heads * size, 1, bias=False)
        self.leave = nn.Conv1d(heads * size, audio, 1, bias=False)
        # Starts near the frame itself: lips and sound are nearly together.
        distance = torch.arange(1 - window, window).abs() / (window / 8)
        self.nearness = nn.Parameter(-distance.expand(heads, -1).clone())

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        """``(row, audio, time)`` and ``(row, visual, time)`` to ``(row, audio, time)``."""
        time, w = audio.shape[-1], self.window
        query = self.split_chunks(self.query(normalise_frames(audio)))
        key, value = (self.unfold_neighbours(layer(visual)) for layer in (self.key, self.value))
        scores = torch.einsum("rhcnq,rhcnk->rhnqk", query, key) / math.sqrt(self.size)
        weights = (scores + self.distance_scores()[:, None]).softmax(-1)
        found = torch.einsum("rhnqk,rhcnk->rhcnq", weights, value)
        found = found.reshape(len(audio), -1, found.shape[-2] * w)[..., :time]
        return audio + self.leave(found)

    def split_chunks(self, x: Tensor) -> Tensor:
        """``(row, channel, time)`` to ``(row, head, size, chunk, w)``."""
        padded = nn.functional.pad(x, (0, -x.shape[-1] % self.window))
        return padded.unflatten(-1, (-1, self.window)).unflatten(1, (self.heads, self.size))

    def unfold_neighbours(self, x: Tensor) -> Tensor:
        """The same with the chunks before and after, ``(row, head, size, chunk, 3 w)``."""
        w = self.window
        padded = nn.functional.pad(x, (w, w + -x.shape[-1] % w))
        return padded.unfold(-1, 3 * w, w).unflatten(1, (self.heads, self.size))

    def distance_scores(self) -> Tensor:
        """Scores of distances in time, ``(head, w, 3 w)``; minus infinity past the window."""
        w, device = self.window, self.nearness.device
        apart = torch.arange(3 * w, device=device) - w - torch.arange(w, device=device)[:, None]
        scores = self.nearness[:, (apart + w - 1).clamp(0, 2 * w - 2)]
        return scores.masked_fill(apart.abs() >= w, -math.inf)


class _Block(nn.Module):
    """Residual block of ``(row, channel, time)``, modulated by the noise level."""

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
        hidden = normalise_frames(x) * (1.0 + scale) + shift
        return x + self.leave(nn.functional.gelu(self.near(hidden)))


def normalise_frames(x: Tensor) -> Tensor:
    """RMS normalisation of each frame of ``(row, channel, time)``."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + _EPSILON)
