"""Recurrent variational autoencoder of speech power."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avse_ppl.models.networks.vae import contrast, draw, encoder_input, frequency_first

_SPREAD = 3.0  # nats: brings log power near unit variance


class RvaeNetwork(nn.Module):
    r"""Encoder and decoder of the recurrent VAE: independent latents, recurrent decoder.

    .. math:: s_{ft} | z_{1:T} \sim N_c(0, \exp \ell_{ft}(z_{1:T})), \qquad
        q(z_{1:T} | s) = \prod_t N(z_t; \mu_t, \sigma^2_t)

    Both directions of time are read by the encoder and by the decoder.

    Parameters
    ----------
    freq, latent, hidden
        Number of frequency bins, of latent dimensions, and of LSTM units per direction.
    log_input
        Whether the encoder sees ``log(power + 1e-6)`` (ours) or the power itself (published
        weights).
    feedback
        Whether the encoder also reads its own past draws ``z_{1:t-1}`` through a second LSTM, as
        in the published model. Without it all frames are encoded at once.

    References
    ----------
    Leglaive, Alameda-Pineda, Girin and Horaud, "A recurrent variational autoencoder for speech
    enhancement", ICASSP 2020.

    Examples
    --------
    >>> network = RvaeNetwork(freq=33, latent=4, hidden=8)
    >>> network.decode(torch.zeros(2, 4, 10)).shape
    torch.Size([2, 33, 10])
    """

    def __init__(
        self, freq: int, latent: int, hidden: int = 128, log_input: bool = True,
        feedback: bool = False, encoder_bands: int = 0, encoder_layers: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.freq, self.latent, self.log_input, self.feedback = freq, latent, log_input, feedback
        self.encoder_bands = nn.Linear(2 * freq, encoder_bands) if encoder_bands else None
        self.encoder = nn.LSTM(
            encoder_bands or freq, hidden, encoder_layers, bidirectional=True, batch_first=True
        )
        self.encoder_feedback = nn.LSTM(latent, hidden, batch_first=True) if feedback else None
        width = 3 * hidden if feedback else 2 * hidden
        self.encoder_mean = nn.Linear(width, latent)
        self.encoder_logvar = nn.Linear(width, latent)
        self.decoder = nn.LSTM(latent, hidden, bidirectional=True, batch_first=True)
        self.decoder_logpower = nn.Linear(2 * hidden, freq)

    def encode(self, power: Tensor, sample: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """``(..., freq, time)`` power to mean, log-variance and draw of z, ``(..., latent, time)``.

        The draw is the mean unless ``sample``.
        """
        inputs = encoder_input(power, self.log_input)
        if self.encoder_bands is not None:
            both = contrast(inputs / _SPREAD, levels=inputs)
            inputs = frequency_first(self.encoder_bands, both.transpose(-1, -2))
        inputs = inputs.transpose(-1, -2)
        batch = inputs.shape[:-2]
        hidden, _ = self.encoder(inputs.reshape(-1, *inputs.shape[-2:]))
        if self.encoder_feedback is None:
            mean, logvar = self.encoder_mean(hidden), self.encoder_logvar(hidden)
            z = draw(mean, logvar, sample)
        else:
            mean, logvar, z = self._encode_with_feedback(hidden, self.encoder_feedback, sample)
        return tuple(  # type: ignore[return-value]
            a.reshape(*batch, *a.shape[-2:]).transpose(-1, -2) for a in (mean, logvar, z)
        )

    def _encode_with_feedback(
        self, hidden: Tensor, feedback: nn.LSTM, sample: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        past, state = hidden.new_zeros(len(hidden), 1, self.latent), None
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        for t in range(hidden.shape[1]):
            memory, state = feedback(past, state)
            joint = torch.cat((hidden[:, t : t + 1], memory), -1)
            mean, logvar = self.encoder_mean(joint), self.encoder_logvar(joint)
            past = draw(mean, logvar, sample)
            steps.append((mean, logvar, past))
        return tuple(torch.cat(parts, 1) for parts in zip(*steps, strict=True))  # type: ignore[return-value]

    def decode(self, z: Tensor) -> Tensor:
        """``(..., latent, time)`` to log power ``(..., freq, time)``."""
        inputs = z.transpose(-1, -2)
        hidden, _ = self.decoder(inputs.reshape(-1, *inputs.shape[-2:]))
        log_power = frequency_first(self.decoder_logpower, hidden)
        return log_power.reshape(*z.shape[:-2], self.freq, z.shape[-1])
