"""Audio-visual predictor of speech: attention from what is heard to the lips around it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avse_ppl.models.networks.tcn import LAST, Prediction, TcnBlock, TcnNetwork

WINDOW = 25  # frames of 16 ms to either side
BOUND = 8.0  # B, of a correction: in log odds of the mask, radians, nepers of power
_BLOCK = 256  # frames that are attended from at once


class AttentionFusionNetwork(nn.Module):
    r"""Predictor of speech that hears by a `TcnNetwork`, its trunk, and looks at the lips.

    The outputs of the trunk at each band are corrected by what the lips tell:

    .. math:: o_t = o^{\mathrm{audio}}_t + m_t\, B \tanh(D(h, c)_t / B), \quad
        c_t = \sum_{|\tau - t| \le W} \alpha_{t\tau} r_\tau v_\tau, \quad
        m_t = \sum_{|\tau - t| \le W} \alpha_{t\tau} r_\tau

    with h what the blocks of the trunk make of the mixture, :math:`\alpha` the weights of
    `LocalAttention`, and :math:`r_\tau` in [0, 1] the visual reliability. Keys and values v are
    made of it and of features less their mean (which tells who it is, and not what is said). D are
    further blocks, from whose places a linear layer leads to the bands, where it meets what the
    trunk's decoder ended in; the last layer starts at 0.

    The weights sum to 1 at most, so that :math:`m_t \le \max_\tau r_\tau`: whatever has been
    learned, lips of a small reliability correct no output by more than :math:`B \max_\tau r_\tau`.
    Where r is 0 throughout the window, the answer is that of the trunk, bit for bit; so it is
    without video, and where the network has to do without the future. Log error as well as mask
    are corrected: the network may state that lips have made it surer.

    Parameters
    ----------
    freq, widths, inner, repeats, dilations
        Of the trunk, see `TcnNetwork`.
    visual
        Number of visual features.
    heads, width
        Of the attention: heads, and channels of each.
    window
        W, frames.
    blocks
        Dilated convolutions over what is heard and seen.

    References
    ----------
    Vaswani et al., "Attention is all you need", NeurIPS 2017. Afouras, Chung and Zisserman, "The
    conversation: deep audio-visual speech enhancement", Interspeech 2018. Michelsanti et al., "An
    overview of deep-learning-based audio-visual speech enhancement and separation", TASLP 2021.

    Examples
    --------
    >>> network = AttentionFusionNetwork(257, (4, 8), 12, 1, 2, visual=3, heads=2, width=4)
    >>> mixture, visual = torch.randn(2, 257, 10, dtype=torch.complex64), torch.rand(2, 4, 10)
    >>> network(mixture, visual=visual).speech.shape
    torch.Size([2, 257, 10])
    >>> visual[:, 0] = 0.0
    >>> heard = network.trunk(mixture)
    >>> torch.equal(network(mixture, visual=visual).speech, heard.speech)
    True
    """

    def __init__(
        self,
        freq: int,
        widths: Sequence[int] = (20, 40, 64, 96),
        inner: int = 160,
        repeats: int = 2,
        dilations: int = 6,
        visual: int = 64,
        heads: int = 4,
        width: int = 32,
        window: int = WINDOW,
        blocks: int = 3,
    ) -> None:
        super().__init__()
        self.freq, self.visual = freq, visual
        self.trunk = TcnNetwork(freq, widths, inner, repeats, dilations)
        places, channels = self.trunk.sizes[-1], widths[-1]
        self.attention = LocalAttention(places * channels, visual, heads, width, window)
        self.join = nn.Linear(heads * width, places * channels)
        self.blocks = nn.ModuleList(TcnBlock(channels, inner, places, 2**k) for k in range(blocks))
        self.norm = nn.LayerNorm(channels)
        self.bands = -(-self.trunk.sizes[0] // places)  # of a place
        self.spread = nn.Linear(channels, self.bands * LAST)
        ends = self.trunk.output.in_features
        self.output = nn.Linear(ends + 2 * LAST, self.trunk.output.out_features)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self,
        mixture: Tensor,
        causal: bool = False,
        visual: Tensor | None = None,
        heard: Tensor | None = None,
    ) -> Prediction:
        """Predict speech from mixtures ``(recording, freq, time)`` of unit mean power.

        Parameters
        ----------
        mixture
            ``(recording, freq, time)``, complex.
        causal
            Whether the future is not heard; lips, which are looked at around each frame, are not
            used then.
        visual
            ``(recording, 1 + feature, time)``: reliability, and features of the lips, as they are
            in `Frames`. None: no video.
        heard
            At training, which frames of the mixture the lips are joined to, ``(recording, time)``.
        """
        hidden, ends = self.hear(mixture, causal)
        outputs = self.trunk.output(ends)
        if visual is not None and not causal:
            outputs = outputs + self.correct(hidden, ends, visual, heard)
        return self.trunk.predict(outputs, mixture)

    def compare(
        self, mixture: Tensor, visual: Tensor, heard: Tensor | None = None
    ) -> tuple[Prediction, Prediction]:
        """Predict speech without the lips and with them; the trunk hears once for both."""
        hidden, ends = self.hear(mixture)
        outputs = self.trunk.output(ends)
        seen = outputs + self.correct(hidden, ends, visual, heard)
        return self.trunk.predict(outputs, mixture), self.trunk.predict(seen, mixture)

    def hear(self, mixture: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
        """What the trunk's blocks make of a mixture, and what its decoder ends in."""
        bands = self.trunk.features(mixture, causal)
        hidden, skips = self.trunk.encode(bands, causal)
        return hidden, torch.cat((self.trunk.decode(hidden, skips), bands.to(hidden.dtype)), -1)

    def correct(
        self, hidden: Tensor, ends: Tensor, visual: Tensor, heard: Tensor | None = None
    ) -> Tensor:
        """What the lips add to the outputs, ``(recording, time, band, 3)``; 0 without them.

        From what the blocks of the trunk made of the mixture, and what its decoder ended in.
        """
        if heard is not None:
            hidden = hidden * heard[:, :, None, None].to(hidden.dtype)
        context, mass = self.attention(hidden.flatten(2), centre_features(visual))
        x = hidden + self.join(context).reshape(hidden.shape)
        for block in self.blocks:
            x = block(x)
        # From places to the bands, and there beside what the trunk found in each.
        x = nn.functional.relu(self.spread(self.norm(x)))
        x = x.unflatten(-1, (self.bands, LAST)).flatten(2, 3)[:, :, : ends.shape[2]]
        together = torch.cat((x, x * ends[..., :LAST], ends), -1)
        return mass[:, :, None, None] * (BOUND * torch.tanh(self.output(together) / BOUND))


def centre_features(visual: Tensor) -> Tensor:
    """Visual features less their mean over the frames that show lips, which tells who it is.

    Shapes ``(recording, 1 + feature, time)``; the first row, the reliability, stays.

    Examples
    --------
    >>> centre_features(torch.tensor([[[1.0, 0.5, 0.0], [1.0, 3.0, 9.0]]]))[:, 1]
    tensor([[-1.,  1.,  0.]])
    """
    seen = visual[:, :1] > 0.0
    features = torch.where(seen, visual[:, 1:], torch.zeros_like(visual[:, 1:]))
    mean = features.sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp_min(1)
    centred = torch.where(seen, features - mean, torch.zeros_like(features))
    return torch.cat((visual[:, :1], centred), 1)


class LocalAttention(nn.Module):
    r"""Attention from audio frames to the lips around them, or to none.

    .. math:: \alpha_{t\tau} = \frac{r_\tau e^{q_t \cdot k_\tau / \sqrt d + b_{\tau - t}}}
        {(2 W + 1) e^{q_t \cdot k_0 / \sqrt d + b_0} +
        \sum_{|\tau' - t| \le W} r_{\tau'} e^{q_t \cdot k_{\tau'} / \sqrt d + b_{\tau' - t}}}

    for each head: the null key k_0, with a value of 0, takes what the lips do not get. Reliability
    is a bias log r of the scores, which a large score outdoes; so what is gathered,
    :math:`\sum_\tau \alpha_{t\tau} r_\tau v_\tau`, is scaled by it once more.

    Parameters
    ----------
    audio, visual
        Channels of the queries' inputs, and number of visual features.
    heads, width
        Heads, and channels d of each.
    window
        W, frames.

    Examples
    --------
    >>> attention = LocalAttention(6, 3, heads=2, width=4, window=5)
    >>> context, mass = attention(torch.ones(1, 10, 6), torch.zeros(1, 4, 10))
    >>> context.shape, bool(mass.any())
    (torch.Size([1, 10, 8]), False)
    """

    def __init__(self, audio: int, visual: int, heads: int, width: int, window: int) -> None:
        super().__init__()
        self.heads, self.width, self.window = heads, width, window
        self.norm = nn.LayerNorm(audio)
        self.query = nn.Linear(audio, heads * width)
        self.look = nn.Linear(visual + 1, 2 * heads * width)
        self.key = nn.Linear(2 * heads * width, heads * width)
        self.value = nn.Linear(2 * heads * width, heads * width)
        self.null_key = nn.Parameter(torch.randn(heads, width) / math.sqrt(width))
        self.null_bias = nn.Parameter(torch.zeros(heads, 1))
        self.lag_bias = nn.Parameter(torch.zeros(heads, 2 * window + 1))

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Context ``(recording, time, heads * width)``, and the mean reliability gathered.

        ``audio`` is ``(recording, time, channel)``, ``visual`` ``(recording, 1 + feature, time)``.
        """
        gate = visual[:, 0].float()
        seen = (gate > 0.0)[:, :, None]
        features = visual[:, 1:].transpose(1, 2)
        features = torch.where(seen, features, torch.zeros_like(features))
        features = torch.cat((features, gate[:, :, None]), -1).to(audio.dtype)
        looked = nn.functional.gelu(self.look(features))
        query = self.split_heads(self.query(self.norm(audio))) / math.sqrt(self.width)
        keys, values = (self.split_heads(layer(looked)) for layer in (self.key, self.value))
        nothing = query @ self.null_key.to(query.dtype)[:, :, None]
        nothing = nothing.float() + self.null_bias[:, None]

        # Some frames at a time, so that long recordings take no more than their share.
        contexts, masses = [], []
        for begin in range(0, audio.shape[1], _BLOCK):
            end = min(begin + _BLOCK, audio.shape[1])
            first, last = max(0, begin - self.window), end + self.window
            scores = query[:, :, begin:end] @ keys[:, :, first:last].transpose(2, 3)
            lag = torch.arange(first, first + scores.shape[-1], device=gate.device)
            lag = lag - torch.arange(begin, end, device=gate.device)[:, None]
            bias = self.lag_bias[:, (lag + self.window).clamp(0, 2 * self.window)]
            bias = bias.masked_fill(lag.abs() > self.window, -math.inf)
            reliability = gate[:, None, None, first:last]
            scores = scores.float() + bias + reliability.log() - math.log(2 * self.window + 1)
            weights = torch.cat((nothing[:, :, begin:end], scores), -1).softmax(-1)[..., 1:]
            weights = weights * reliability
            contexts.append(weights.to(values.dtype) @ values[:, :, first:last])
            masses.append(weights.sum(-1).mean(1))
        context = torch.cat(contexts, 2).transpose(1, 2).flatten(2)
        return context, torch.cat(masses, 1)

    def split_heads(self, rows: Tensor) -> Tensor:
        """Rows ``(recording, time, channel)`` as ``(recording, head, time, width)``."""
        return rows.unflatten(-1, (self.heads, self.width)).transpose(1, 2)
