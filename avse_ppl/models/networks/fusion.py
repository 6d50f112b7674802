"""Visual front end and audio-visual fusion; both leave the audio untouched without video."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

FUSIONS = ("concatenate", "attention")


class VisualFrontEnd(nn.Module):
    r"""Gated temporal convolutions over visual features.

    .. math:: h_{1:T} = a_{1:T} \odot \mathrm{TCN}(a_{1:T} \odot v_{1:T})

    What comes in is :math:`(a, a \odot v)`, the gate a in [0, 1] as first channel: 0 where there is
    no video frame, or an unreliable one. There h is exactly 0, and layers without bias that read h
    add nothing.

    Parameters
    ----------
    features
        Number of visual features, the gate not counted.
    hidden, blocks
        Channels and residual blocks; block b has a dilation of 2^b frames.

    Examples
    --------
    >>> front_end = VisualFrontEnd(features=3, hidden=8)
    >>> bool(front_end(torch.zeros(1, 4, 10)).any())
    False
    """

    def __init__(self, features: int, hidden: int, blocks: int = 3) -> None:
        super().__init__()
        self.features = features
        self.enter = nn.Conv1d(features, hidden, 3, padding=1)
        self.context = nn.ModuleList(
            nn.Conv1d(hidden, hidden, 3, padding=2**b, dilation=2**b) for b in range(blocks)
        )

    def forward(self, visual: Tensor) -> Tensor:
        """``(batch, 1 + features, time)`` to ``(batch, hidden, time)``."""
        gate, features = visual[:, :1], visual[:, 1:]
        hidden = self.enter(features)
        for layer in self.context:
            hidden = hidden + layer(nn.functional.gelu(hidden))
        return gate * nn.functional.gelu(hidden)


class Fusion(nn.Module):
    r"""Audio-visual fusion: adds visual features to audio features.

    ``"concatenate"``: :math:`x_t + W h_t`, a linear layer of the two concatenated.
    ``"attention"``: :math:`x_t + W \sum_{\tau} \alpha_{t \tau} h_\tau` over the frames
    :math:`|t - \tau| \le r`, with weights from both, so that lips and sound
    may be a little out of sync.

    Starts at 0: a network that was trained without video is unchanged at first.

    Parameters
    ----------
    audio, visual
        Channels of the two.
    kind
        ``"concatenate"`` or ``"attention"``.
    window
        r, frames of a quarter second by default.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017.

    Examples
    --------
    >>> fusion = Fusion(audio=6, visual=4, kind="attention")
    >>> fusion(torch.ones(1, 6, 10), torch.zeros(1, 4, 10)).shape
    torch.Size([1, 6, 10])
    """

    def __init__(
        self, audio: int, visual: int, kind: str = "concatenate", window: int = 16
    ) -> None:
        super().__init__()
        if kind not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, not {kind!r}")
        self.kind, self.window = kind, window
        self.value = nn.Conv1d(visual, audio, 1, bias=False)
        nn.init.zeros_(self.value.weight)
        if kind == "attention":
            self.query = nn.Conv1d(audio, 32, 1)
            self.key = nn.Conv1d(visual, 32, 1)

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        """``(batch, audio, time)`` and ``(batch, visual, time)`` to ``(batch, audio, time)``."""
        if self.kind == "concatenate":
            return audio + self.value(visual)
        scores = self.query(audio).transpose(1, 2) @ self.key(visual) / math.sqrt(32)
        time = torch.arange(audio.shape[-1], device=audio.device)
        far = (time[:, None] - time[None, :]).abs() > self.window
        weights = scores.masked_fill(far, -math.inf).softmax(-1)
        return audio + self.value(visual @ weights.transpose(1, 2))
