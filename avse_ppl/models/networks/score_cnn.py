"""Denoisers of compressed complex spectrograms: the network of the score prior."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from avse_ppl.models.networks.noise_embedding import NoiseEmbedding

_LOGVAR = (-14.0, 6.0)  # nats around what one bin by itself would have: keeps training finite
_FLOOR = 1e-3  # of the power of an input bin, below which its logarithm tells nothing


class SpectralDenoiser(nn.Module):
    r"""Mean and variance of clean speech given speech under Gaussian noise of a known level.

    .. math:: y = c + \sigma \epsilon, \quad \epsilon \sim N_c(0, 1), \qquad
        c_{ft} | y \approx N_c\left(g_{ft} y_{ft} + c_{out} r_{ft},\; \tau_{ft}\right)

    with a gain :math:`g \in (0, 1)` and a remainder r, preconditioned as by Karras et al. (2022),
    and a variance for each bin: what guidance needs of a denoiser beside its mean. An untrained one
    is the Wiener filter of white bins. What it consists of is said by those that build on it.

    Parameters
    ----------
    freq
        Number of frequency bins.
    visual
        Number of visual features; 0 for an audio-only network.
    sigma_data
        Root mean square of the clean bins, which scales what the network sees and answers.
    exponent
        Of the amplitude compression of what it denoises, see `avse_ppl.models.speech.compression`.

    References
    ----------
    Karras, Aittala, Aila and Laine, "Elucidating the design space of diffusion-based generative
    models", NeurIPS 2022.
    """

    def __init__(self, freq: int, visual: int, sigma_data: float, exponent: float) -> None:
        super().__init__()
        self.freq, self.visual = freq, visual
        self.sigma_data, self.exponent = sigma_data, exponent

    def forward(
        self, noisy: Tensor, sigma: Tensor, visual: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Denoise.

        Parameters
        ----------
        noisy
            y, ``(recording, freq, time)``, complex.
        sigma
            Standard deviation of the complex noise, ``(recording,)``.
        visual
            ``(recording, 1 + visual, time)``: gate, and features times it.

        Returns
        -------
        tuple
            Mean, complex, and variance, ``(recording, freq, time)``.
        """
        level = sigma[:, None, None]
        total = (self.sigma_data**2 + level.square()).sqrt()
        scaled = noisy / total
        power = scaled.real.square() + scaled.imag.square()
        parts = torch.stack((scaled.real, scaled.imag, torch.log(power + _FLOOR)), -1)
        gain, real, imag, logvar = self.answer(parts, sigma, visual).unbind(-1)
        alone = 2.0 * torch.log(self.sigma_data / level)  # logit of the gain of a bin by itself
        narrow = level * self.sigma_data / total
        mean = torch.sigmoid(gain + alone) * noisy + narrow * torch.complex(real, imag)
        return mean, torch.exp(logvar.clamp(*_LOGVAR)) * narrow.square()

    def answer(self, parts: Tensor, sigma: Tensor, visual: Tensor | None) -> Tensor:
        """Gain, remainder and log-variance, ``(recording, freq, time, 4)``.

        Of real part, imaginary part and log power, ``(recording, freq, time, 3)``.
        """
        raise NotImplementedError


class ScoreNetwork(SpectralDenoiser):
    r"""Small denoiser of spectrograms, for two cores.

    Bins are read in bands of equal width; blocks mix neighbouring frames, all bands, then channels;
    halfway, all bands of a frame pass through convolutions over time, in which the lips join.

    Lips enter without biases: where their gate is 0, the network is the audio-only one, exactly.

    Parameters
    ----------
    freq, visual, sigma_data, exponent
        As for `SpectralDenoiser`.
    bins
        Bins of a band.
    hidden, blocks
        Channels of a band, and blocks of bands; every other one is dilated.
    wide, wide_blocks
        Channels and residual convolutions of the whole frame.

    References
    ----------
    Luo and Yu, "Music source separation with band-split RNN", TASLP 2023 (bands). Tolstikhin et
    al., "MLP-mixer", NeurIPS 2021 (mixing over all of a dimension).

    Examples
    --------
    >>> network = ScoreNetwork(freq=33, bins=8, hidden=8, blocks=2, wide=16, wide_blocks=1)
    >>> noisy = torch.randn(2, 33, 10, dtype=torch.complex64)
    >>> mean, variance = network(noisy, torch.tensor([0.5, 1.0]))
    >>> mean.shape, variance.shape
    (torch.Size([2, 33, 10]), torch.Size([2, 33, 10]))
    """

    def __init__(
        self, freq: int, visual: int = 0, bins: int = 16, hidden: int = 96, blocks: int = 6,
        wide: int = 192, wide_blocks: int = 4, sigma_data: float = 0.45, exponent: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__(freq, visual, sigma_data, exponent)
        self.bins = bins
        bands = -(-freq // bins)
        self.level = NoiseEmbedding(hidden)
        self.enter = _Bands(bands, 3 * bins, hidden)
        self.blocks = nn.ModuleList(
            _BandBlock(hidden, bands, 1 + b % 2, self.level.size) for b in range(blocks)
        )
        self.whole = _Whole(bands * hidden, wide, wide_blocks, visual, self.level.size)
        self.leave = _Bands(bands, hidden, 4 * bins)
        nn.init.zeros_(self.leave.weight)

    def answer(self, parts: Tensor, sigma: Tensor, visual: Tensor | None) -> Tensor:
        """See `SpectralDenoiser`."""
        level = self.level(sigma)
        hidden = self.enter(self._banded(parts))
        half = len(self.blocks) // 2
        for i, block in enumerate(self.blocks):
            if i == half:
                hidden = self.whole(hidden, level, visual)
            hidden = block(hidden, level)
        out = self.leave(nn.functional.gelu(hidden))
        return torch.stack([self._bins(part) for part in out.chunk(4, -1)], -1)

    def _banded(self, parts: Tensor) -> Tensor:
        """``(recording, freq, time, 3)`` to ``(recording, time, band, 3 bins)``."""
        padding = -self.freq % self.bins
        parts = nn.functional.pad(parts, (0, 0, 0, 0, 0, padding))
        return parts.unflatten(1, (-1, self.bins)).permute(0, 3, 1, 2, 4).flatten(-2)

    def _bins(self, banded: Tensor) -> Tensor:
        """``(recording, time, band, bins)`` to ``(recording, freq, time)``."""
        return banded.flatten(-2)[..., : self.freq].transpose(1, 2)


class _Bands(nn.Module):
    """A linear layer of its own for each band, of ``(..., band, channel)``."""

    def __init__(self, bands: int, inner: int, outer: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(bands, inner, outer) / math.sqrt(inner))
        self.bias = nn.Parameter(torch.zeros(bands, outer))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...kc,kcd->...kd", x, self.weight) + self.bias


class _BandBlock(nn.Module):
    """Residual block of ``(recording, time, band, channel)``: frames, bands, then channels."""

    def __init__(self, channels: int, bands: int, dilation: int, level: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(
            channels, channels, (5, 3), padding=(2 * dilation, 1), dilation=(dilation, 1),
            groups=channels,
        )  # fmt: skip
        self.across = nn.Linear(bands, bands)
        self.norm = nn.LayerNorm(channels)
        self.modulate = nn.Linear(level, 2 * channels)
        self.up, self.down = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        for layer in (self.across, self.modulate, self.down):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        hidden = self.near(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        hidden = hidden + self.across(x.transpose(-1, -2)).transpose(-1, -2)
        scale, shift = self.modulate(level)[:, None, None].chunk(2, -1)
        hidden = self.norm(hidden) * (1.0 + scale) + shift
        return x + self.down(nn.functional.gelu(self.up(hidden)))


class _Whole(nn.Module):
    """All bands of a frame through dilated convolutions over time, beside what is seen."""

    def __init__(self, inner: int, wide: int, blocks: int, visual: int, level: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(inner, wide), nn.Linear(wide, inner)
        self.modulate = nn.Linear(level, wide)
        self.convs = nn.ModuleList(
            nn.Conv1d(wide, wide, 3, padding=2**b, dilation=2**b) for b in range(blocks)
        )
        self.sight: nn.Module | None = None
        if visual:
            self.sight = nn.Sequential(
                nn.Conv1d(1 + visual, wide // 2, 3, padding=1, bias=False), nn.GELU(),
                nn.Conv1d(wide // 2, wide, 3, padding=1, bias=False),
            )  # fmt: skip
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor, level: Tensor, visual: Tensor | None) -> Tensor:
        hidden = (self.enter(x.flatten(-2)) + self.modulate(level)[:, None]).transpose(1, 2)
        if self.sight is not None and visual is not None:
            hidden = hidden + self.sight(visual)
        for conv in self.convs:
            hidden = hidden + conv(nn.functional.gelu(hidden))
        return x + self.leave(hidden.transpose(1, 2)).unflatten(-1, x.shape[-2:])
