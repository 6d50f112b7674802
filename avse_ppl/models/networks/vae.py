"""Frame-wise variational autoencoder of speech power."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

_FLOOR = 1e-6  # of the power, -60 dB below active speech
_SILENT = math.log(2 * _FLOOR)


class VaeNetwork(nn.Module):
    r"""Encoder and decoder of the audio-only VAE.

    .. math:: q(z_t | s_t) = N(\mu_\phi(|s_t|^2), \sigma^2_\phi(|s_t|^2)), \qquad
        s_{ft} | z_t \sim N_c(0, \exp \ell_f(z_t))

    Parameters
    ----------
    freq, latent
        Number of frequency bins and of latent dimensions.
    hidden
        Width of the encoder's layers, from the spectrum inwards; the decoder mirrors them.
    log_input
        Whether the input of the encoder is ``log(power + 1e-6)`` or the power itself (published
        weights).

    References
    ----------
    Leglaive, Girin and Horaud, "A variance modeling framework based on variational autoencoders
    for speech enhancement", MLSP 2018.

    Examples
    --------
    >>> network = VaeNetwork(freq=33, latent=4, hidden=(16,))
    >>> network.decode(torch.zeros(2, 4, 10)).shape
    torch.Size([2, 33, 10])
    """

    def __init__(
        self, freq: int, latent: int, hidden: tuple[int, ...] = (128,), log_input: bool = True
    ) -> None:
        super().__init__()
        self.freq, self.latent, self.log_input = freq, latent, log_input
        self.receptive_field = 0  # frames to either side that the decoder mixes
        self.encoder = tanh_layers((freq, *hidden))
        self.encoder_mean = nn.Linear(hidden[-1], latent)
        self.encoder_logvar = nn.Linear(hidden[-1], latent)
        self.decoder = tanh_layers((latent, *reversed(hidden)))
        self.decoder_logpower = nn.Linear(hidden[0], freq)

    def encode(self, power: Tensor, sample: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """``(..., freq, time)`` power to mean, log-variance and draw of z, ``(..., latent, time)``.

        The draw is the mean unless ``sample``.
        """
        inputs = encoder_input(power, self.log_input).transpose(-1, -2)
        hidden = self.encoder(inputs)
        mean, logvar = self.encoder_mean(hidden), self.encoder_logvar(hidden)
        z = draw(mean, logvar, sample)
        return mean.transpose(-1, -2), logvar.transpose(-1, -2), z.transpose(-1, -2)

    def decode(self, z: Tensor) -> Tensor:
        """``(..., latent, time)`` to log power ``(..., freq, time)``."""
        return frequency_first(self.decoder_logpower, self.decoder(z.transpose(-1, -2)))


def encoder_input(power: Tensor, log_input: bool) -> Tensor:
    """Input of the encoder of a power spectrum."""
    return torch.log(power + _FLOOR) if log_input else power


def contrast(inputs: Tensor, levels: Tensor) -> Tensor:
    """Bins, and how far each stands above its mean over time: ``(..., 2 freq, time)``.

    The second half is what a steady noise cannot change. Frames of digital silence, padding among
    them, do not count in the mean; they are found from ``levels``, what `encoder_input` gives.
    """
    counts = (levels > _SILENT).any(-2, keepdim=True).to(inputs.dtype)
    mean = (inputs * counts).sum(-1, keepdim=True) / counts.sum(-1, keepdim=True).clamp(min=1)
    return torch.cat((inputs, inputs - mean), -2)


def draw(mean: Tensor, logvar: Tensor, sample: bool) -> Tensor:
    """Draw of the latents, or their mean."""
    return mean + torch.exp(0.5 * logvar) * torch.randn_like(mean) if sample else mean


def frequency_first(layer: nn.Linear, hidden: Tensor) -> Tensor:
    """``layer(hidden)`` of ``(..., time, hidden)``, laid out as ``(..., freq, time)``.

    The same numbers as a transpose, but contiguous: what follows then runs through memory in
    order.
    """
    return layer.weight @ hidden.transpose(-1, -2) + layer.bias[:, None]


def tanh_layers(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with a tanh after each."""
    layers: list[nn.Module] = []
    for inner, outer in pairwise(sizes):
        layers += [nn.Linear(inner, outer), nn.Tanh()]
    return nn.Sequential(*layers)
