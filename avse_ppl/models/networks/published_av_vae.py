"""Audio-visual conditional VAE with the wiring of the published AV-VAE weights."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from avse_ppl.models.networks.vae import draw, frequency_first, tanh_layers


class PublishedAvVaeNetwork(nn.Module):
    r"""Encoder, visual prior and decoder, frame by frame; each takes the lips by its own layer.

    .. math:: z_t | v_t \sim N(\mu(v_t), \sigma^2(v_t)), \qquad
        s_{ft} | z_t, v_t \sim N_c(0, \exp \ell_f(z_t, v_t))

    Visual features are those of a lip reader that was published elsewhere. **There is no
    audio-only mode**: all three read v through layers with a bias. Frames whose gate is 0 are taken
    as a mouth with features of 0, which is no mouth that the network was trained on.

    Parameters
    ----------
    freq, latent
        Number of frequency bins and of latent dimensions.
    hidden
        Width of all layers.
    visual
        Number of visual features for each frame, without the gate.

    Raises
    ------
    ValueError
        By all methods, if the features are missing or of another number.

    Warns
    -----
    UserWarning
        By `encode`, which inference calls once, if lips are missing in some frames.

    References
    ----------
    Sadeghi, Leglaive, Alameda-Pineda, Girin and Horaud, "Audio-visual speech enhancement using
    conditional variational auto-encoders", TASLP 2020.

    Examples
    --------
    >>> network = PublishedAvVaeNetwork(freq=33, latent=4, hidden=8, visual=5)
    >>> network.decode(torch.zeros(2, 4, 10), torch.ones(2, 1 + 5, 10)).shape
    torch.Size([2, 33, 10])
    """

    def __init__(self, freq: int, latent: int, hidden: int = 128, visual: int = 512) -> None:
        super().__init__()
        self.freq, self.latent, self.visual = freq, latent, visual
        self.receptive_field = 0  # frames to either side whose law a latent changes
        self.encoder = tanh_layers((freq, hidden))
        self.encoder_sight = tanh_layers((visual, hidden))
        self.encoder_fusion = tanh_layers((2 * hidden, hidden))
        self.encoder_mean = nn.Linear(hidden, latent)
        self.encoder_logvar = nn.Linear(hidden, latent)
        self.prior_sight = tanh_layers((visual, hidden))
        self.prior_mean = nn.Linear(hidden, latent)
        self.prior_logvar = nn.Linear(hidden, latent)
        self.decoder = tanh_layers((latent, hidden))
        self.decoder_sight = tanh_layers((visual, hidden))
        self.decoder_fusion = tanh_layers((2 * hidden, hidden))
        self.decoder_logpower = nn.Linear(hidden, freq)

    def encode(
        self, power: Tensor, sample: bool = False, visual: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``(..., freq, time)`` power to mean, log-variance and draw of z, ``(..., latent, time)``.

        ``visual`` is ``(..., 1 + visual, time)``. The draw is the mean unless ``sample``.
        """
        features = self.strip_gate(visual)
        warn_of_gaps(visual)
        hidden = self.encoder(power.transpose(-1, -2))
        hidden = self.fuse(self.encoder_fusion, hidden, self.encoder_sight(features))
        mean, logvar = self.encoder_mean(hidden), self.encoder_logvar(hidden)
        z = draw(mean, logvar, sample)
        return mean.transpose(-1, -2), logvar.transpose(-1, -2), z.transpose(-1, -2)

    def law(self, z: Tensor, visual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Prior mean and log-variance of each frame: ``(batch, latent, time)``."""
        hidden = self.prior_sight(self.strip_gate(visual))
        mean, logvar = self.prior_mean(hidden), self.prior_logvar(hidden)
        return repeat_rows(mean.transpose(1, 2), z), repeat_rows(logvar.transpose(1, 2), z)

    def sample_from_innovations(self, innovations: Tensor, visual: Tensor | None = None) -> Tensor:
        """A draw of the prior from standard-normal innovations, ``(batch, latent, time)``."""
        mean, logvar = self.law(innovations, visual)
        return torch.addcmul(mean, torch.exp(0.5 * logvar), innovations)

    def decode(self, z: Tensor, visual: Tensor | None = None) -> Tensor:
        """``(..., latent, time)`` to log power ``(..., freq, time)``."""
        video = self.decoder_sight(self.strip_gate(visual))
        flat = z.reshape(-1, *z.shape[-2:]).transpose(1, 2)
        hidden = self.fuse(self.decoder_fusion, self.decoder(flat), video)
        log_power = frequency_first(self.decoder_logpower, hidden)
        return log_power.reshape(*z.shape[:-2], *log_power.shape[-2:])

    def strip_gate(self, visual: Tensor | None) -> Tensor:
        """Features, ``(batch, time, visual)``."""
        if visual is None or visual.shape[-2] != 1 + self.visual:
            found = "none" if visual is None else f"{visual.shape[-2] - 1}"
            raise ValueError(
                f"this network has no audio-only mode: expected {self.visual} features of the lips "
                f"for each frame and a gate before them, found {found}. Give the prior the visual "
                "encoder it was trained with (dataclasses.replace(prior, visual_encoder=...)) and "
                "a video, or use an audio-only prior"
            )
        return visual[..., 1:, :].reshape(-1, self.visual, visual.shape[-1]).transpose(1, 2)

    @staticmethod
    def fuse(fusion: nn.Module, audio: Tensor, video: Tensor) -> Tensor:
        """Mix hidden layers of audio and of video by a layer."""
        return fusion(torch.cat((audio, repeat_rows(video, audio)), -1))


def repeat_rows(video: Tensor, like: Tensor) -> Tensor:
    """Repeat videos for several rows each: draws of the same recording."""
    return video.repeat(len(like) // len(video), 1, 1) if len(video) != len(like) else video


def warn_of_gaps(visual: Tensor | None) -> None:
    """Warn of frames without lips."""
    if visual is not None and bool((visual[..., 0, :] == 0).any()):
        missing = int((visual[..., 0, :] == 0).sum())
        warnings.warn(
            f"no lips are seen in {missing} frames; this network has no audio-only mode, and its "
            "speech is not to be trusted there",
            stacklevel=3,
        )
