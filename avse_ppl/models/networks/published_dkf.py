"""Deep Kalman filter with the wiring of the published A-DKF weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avse_ppl.models.networks.vae import draw, frequency_first, tanh_layers

SMALLEST_VARIANCE = 1e-12


class PublishedDkfNetwork(nn.Module):
    r"""Encoder, transition and decoder of the audio-only deep Kalman filter.

    .. math:: \mu_t = (1 - g) \odot (A z_{t-1} + a) + g \odot p, \quad
        \sigma^2_t = \mathrm{softplus}(B p + b), \qquad
        g, p = \mathrm{sigmoid}(\mathrm{MLP}(z_{t-1})), \quad z_0 = 0

    The transition's perceptrons have one layer of rectified units. The encoder reads the future by
    an LSTM that runs backwards, and the past by its own draw of the frame before,

    .. math:: q(z_t | z_{t-1}, s) = N(\mu_\phi(j_t), \sigma^2_\phi(j_t)), \quad
        j_t = \mathrm{MLP}\left(\tfrac{1}{2} (h_t + \mathrm{MLP}(z_{t-1}))\right)

    frame by frame. The decoder knows one frame.

    Parameters
    ----------
    freq, latent
        Number of frequency bins and of latent dimensions.
    encoder
        Widths of the layers before the LSTM.
    memory
        Units of the LSTM.
    past, joint
        Widths of the layers that read :math:`z_{t-1}`, before one of `memory` units, and of those
        that read both.
    decoder
        Widths of the decoder's layers, from the latents outwards.

    References
    ----------
    Krishnan, Shalit and Sontag, "Structured inference networks for nonlinear state space models",
    AAAI 2017. Golmakani, Sadeghi and Serizel, "Audio-visual speech enhancement with a deep Kalman
    filter generative model", ICASSP 2023.

    Examples
    --------
    >>> network = PublishedDkfNetwork(
    ...     freq=33, latent=4, encoder=(9,), memory=8, past=(5,), joint=(6,), decoder=(7,)
    ... )
    >>> network.decode(torch.zeros(2, 4, 10)).shape
    torch.Size([2, 33, 10])
    """

    def __init__(
        self, freq: int, latent: int, encoder: Sequence[int], memory: int, past: Sequence[int],
        joint: Sequence[int], decoder: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__()
        self.freq, self.latent = freq, latent
        self.receptive_field = None  # a latent changes the law of the next one
        self.encoder = tanh_layers((freq, *encoder))
        self.encoder_backward = nn.LSTM(encoder[-1], memory, batch_first=True)
        self.encoder_past = tanh_layers((latent, *past, memory))
        self.encoder_joint = tanh_layers((memory, *joint))
        self.encoder_mean = nn.Linear(joint[-1], latent)
        self.encoder_logvar = nn.Linear(joint[-1], latent)
        self.gate = two_layers(latent)
        self.proposal = two_layers(latent)
        self.line = nn.Linear(latent, latent)
        self.variance = nn.Linear(latent, latent)
        self.decoder = tanh_layers((latent, *decoder))
        self.decoder_logpower = nn.Linear(decoder[-1], freq)

    def encode(self, power: Tensor, sample: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """``(..., freq, time)`` power to mean, log-variance and draw of z, ``(..., latent, time)``.

        The draw is the mean unless ``sample``.
        """
        inputs = power.transpose(-1, -2)
        batch = inputs.shape[:-2]
        hidden = self.encoder(inputs.reshape(-1, *inputs.shape[-2:]))
        hidden, _ = self.encoder_backward(hidden.flip(1))
        z, steps = hidden.new_zeros(len(hidden), self.latent), []
        for future in hidden.flip(1).unbind(1):
            joint = self.encoder_joint(0.5 * (future + self.encoder_past(z)))
            mean, logvar = self.encoder_mean(joint), self.encoder_logvar(joint)
            z = draw(mean, logvar, sample)
            steps.append((mean, logvar, z))
        parts = (torch.stack(part, -1) for part in zip(*steps, strict=True))
        return tuple(part.reshape(*batch, *part.shape[-2:]) for part in parts)  # type: ignore[return-value]

    def law(self, z: Tensor, visual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Prior mean and log-variance of each frame, its past given: ``(batch, latent, time)``."""
        before = nn.functional.pad(z, (1, 0))[..., :-1].transpose(1, 2)
        mean, logvar = self._step(before)
        return mean.transpose(1, 2), logvar.transpose(1, 2)

    def sample_from_innovations(self, innovations: Tensor, visual: Tensor | None = None) -> Tensor:
        """A draw of the prior from standard-normal innovations, ``(batch, latent, time)``."""
        z, states = torch.zeros_like(innovations[..., 0]), []
        for fresh in innovations.unbind(-1):
            mean, logvar = self._step(z)
            z = torch.addcmul(mean, torch.exp(0.5 * logvar), fresh)
            states.append(z)
        return torch.stack(states, -1)

    def decode(self, z: Tensor, visual: Tensor | None = None) -> Tensor:
        """``(..., latent, time)`` to log power ``(..., freq, time)``."""
        return frequency_first(self.decoder_logpower, self.decoder(z.transpose(-1, -2)))

    def _step(self, before: Tensor) -> tuple[Tensor, Tensor]:
        """Law of the next frame, channels last."""
        proposal = torch.sigmoid(self.proposal(before))
        mean = torch.lerp(self.line(before), proposal, torch.sigmoid(self.gate(before)))
        variance = nn.functional.softplus(self.variance(proposal))
        return mean, torch.log(variance + SMALLEST_VARIANCE)


def two_layers(size: int) -> nn.Sequential:
    """Linear, ReLU, linear."""
    return nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
