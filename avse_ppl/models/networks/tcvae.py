"""Temporal convolutional variational autoencoder of speech power."""

from __future__ import annotations

from torch import Tensor, nn

from avse_ppl.models.networks.vae import contrast, draw, encoder_input

_MEAN, _SPREAD = -7.0, 3.0  # of the log power of speech at unit level: brings it near N(0, 1)
# Nats, far outside what speech does: improbable latents, too, decode to a power that is a number.
LOWEST, HIGHEST = -25.0, 12.0
_LOGVAR = (-12.0, 4.0)  # keeps its exponential, and so the training, finite


class TcvaeNetwork(nn.Module):
    r"""Encoder and decoder of dilated convolutions over time: independent latents.

    .. math:: s_{ft} | z_{1:T} \sim N_c(0, \exp \ell_{ft}(z_{t-r:t+r})), \qquad
        q(z_{1:T} | s) = \prod_t N(z_t; \mu_t, \sigma^2_t)

    The model of the recurrent VAE with a finite memory, r = 9 frames at the defaults. All frames
    are decoded at once: it trains several times as fast as a recurrent network of its size, and
    inference runs through it faster too.

    Parameters
    ----------
    freq, latent
        Number of frequency bins and of latent dimensions.
    hidden, blocks
        Channels and residual blocks of the decoder; block b reaches 2^b frames to either side.
    encoder_hidden, encoder_blocks
        The same of the encoder, whose receptive field of a second is what it knows the noise from.

    References
    ----------
    Leglaive, Alameda-Pineda, Girin and Horaud, "A recurrent variational autoencoder for speech
    enhancement", ICASSP 2020. Bai, Kolter and Koltun, "An empirical evaluation of generic
    convolutional and recurrent networks for sequence modeling", 2018.

    Examples
    --------
    >>> import torch
    >>> network = TcvaeNetwork(freq=33, latent=4, hidden=8, encoder_hidden=8)
    >>> network.decode(torch.zeros(2, 4, 10)).shape
    torch.Size([2, 33, 10])
    """

    def __init__(
        self, freq: int, latent: int, hidden: int = 192, blocks: int = 3,
        encoder_hidden: int = 160, encoder_blocks: int = 5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.freq, self.latent = freq, latent
        self.receptive_field = 2 + (
            2**blocks - 1
        )  # frames to either side that the decoder mixes: r
        self.encoder_bands = nn.Conv1d(2 * freq, encoder_hidden, 1)
        self.encoder = residual_blocks(encoder_hidden, encoder_blocks)
        self.encoder_mean = nn.Conv1d(encoder_hidden, latent, 1)
        self.encoder_logvar = nn.Conv1d(encoder_hidden, latent, 1)
        self.decoder_latent = nn.Conv1d(latent, hidden, 5, padding=2)
        self.decoder = residual_blocks(hidden, blocks)
        self.decoder_logpower = nn.Conv1d(hidden, freq, 1)
        # Sure encoders and quiet decoders are where training is to start, or latents are given up.
        nn.init.constant_(self.encoder_logvar.bias, -2.0)  # type: ignore[arg-type]
        nn.init.constant_(self.decoder_logpower.bias, _MEAN)  # type: ignore[arg-type]

    def encode(self, power: Tensor, sample: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """``(..., freq, time)`` power to mean, log-variance and draw of z, ``(..., latent, time)``.

        The draw is the mean unless ``sample``.
        """
        inputs = normalised_input(power)
        batch, shape = inputs.shape[:-2], inputs.shape[-2:]
        hidden = self.encoder(self.encoder_bands(inputs.reshape(-1, *shape)))
        mean = self.encoder_mean(hidden)
        logvar = self.clamped(self.encoder_logvar(hidden))
        z = draw(mean, logvar, sample)
        return tuple(a.reshape(*batch, *a.shape[-2:]) for a in (mean, logvar, z))  # type: ignore[return-value]

    @staticmethod
    def clamped(logvar: Tensor) -> Tensor:
        """Log-variance within what single precision bears."""
        return logvar.clamp(*_LOGVAR)

    def decode(self, z: Tensor) -> Tensor:
        """``(..., latent, time)`` to log power ``(..., freq, time)``."""
        hidden = self.decoder(self.decoder_latent(z.reshape(-1, *z.shape[-2:])))
        log_power = self.decoder_logpower(hidden).clamp(LOWEST, HIGHEST)
        return log_power.reshape(*z.shape[:-2], self.freq, z.shape[-1])


def normalised_input(power: Tensor) -> Tensor:
    """Return what the encoder reads of ``(..., freq, time)`` power, ``(..., 2 freq, time)``."""
    inputs = encoder_input(power, log_input=True)
    return contrast((inputs - _MEAN) / _SPREAD, levels=inputs)


class _Block(nn.Module):
    """``x + conv(gelu(x))``."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(nn.functional.gelu(x))


def residual_blocks(channels: int, blocks: int) -> nn.Sequential:
    """Residual blocks of doubling dilation, and a last nonlinearity."""
    layers = [_Block(channels, 2**b) for b in range(blocks)]
    return nn.Sequential(*layers, nn.GELU())
