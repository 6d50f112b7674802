"""Audio-visual and dynamical VAEs: a learned prior of the latents before one decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from avse_ppl.models.networks.av_encoder import AudioVisualEncoder
from avse_ppl.models.networks.fusion import Fusion, VisualFrontEnd
from avse_ppl.models.networks.tcvae import HIGHEST, LOWEST, TcvaeNetwork, normalised_input
from avse_ppl.models.networks.transitions import PRIORS, Recurrent
from avse_ppl.models.networks.vae import draw, frequency_first

DECODERS = ("convolutional", "recurrent")


class SequentialVaeNetwork(TcvaeNetwork):
    r"""Dynamical VAE: encoder, prior of the latents, and decoder, each audio-only or audio-visual.

    .. math:: z_t | z_{1:t-1}, v \sim N(\mu_t, \sigma^2_t), \qquad
        s_{ft} | z_{1:T}, v \sim N_c(0, \exp \ell_{ft}(z_{1:T}, v))

    Where the gate of the visual features is 0, the network is the audio-only prior; one set of
    weights serves with and without video.

    Parameters
    ----------
    freq, latent, hidden, blocks, encoder_hidden, encoder_blocks
        As for `TcvaeNetwork`, whose weights this network can start from.
    visual
        Number of visual features for each frame, without the gate; 0: audio-only.
    prior
        ``"standard"``, ``"visual"``, ``"gated"`` (deep Kalman filter) or ``"recurrent"``; see
        `avse_ppl.models.networks.transitions`.
    decoder
        ``"convolutional"``, or ``"recurrent"`` for a bidirectional LSTM.
    decoder_sees
        Whether the decoder takes visual features, too.
    fusion
        ``"concatenate"`` or ``"attention"``, see `Fusion`.
    sight_hidden
        Channels of the visual front end.

    Examples
    --------
    >>> import torch
    >>> network = SequentialVaeNetwork(freq=33, latent=4, hidden=8, encoder_hidden=8, prior="gated")
    >>> network.decode(torch.zeros(2, 4, 10)).shape
    torch.Size([2, 33, 10])
    """

    def __init__(
        self, freq: int, latent: int, hidden: int = 192, blocks: int = 3,
        encoder_hidden: int = 160, encoder_blocks: int = 5, visual: int = 0,
        prior: str = "standard", decoder: str = "convolutional", decoder_sees: bool = False,
        fusion: str = "concatenate", sight_hidden: int = 96,
    ) -> None:  # fmt: skip
        super().__init__(freq, latent, hidden, blocks, encoder_hidden, encoder_blocks)
        if prior not in PRIORS:
            raise ValueError(f"prior must be one of {', '.join(PRIORS)}, not {prior!r}")
        if decoder not in DECODERS:
            raise ValueError(f"decoder must be one of {', '.join(DECODERS)}, not {decoder!r}")
        self.visual, self.decoder_sees = visual, decoder_sees and visual > 0
        visual_hidden = sight_hidden if visual else 1
        self.visual_hidden = visual_hidden
        self.prior: Any = PRIORS[prior](latent, visual_hidden)
        if visual:
            self.prior_sight = VisualFrontEnd(visual, visual_hidden)
            self.encoder_looking = AudioVisualEncoder(
                self, encoder_hidden, visual, visual_hidden, fusion
            )
        self.recurrent = decoder == "recurrent"
        if self.recurrent:
            del self.decoder, self.decoder_latent
            self.decoder = nn.LSTM(latent, hidden // 2, bidirectional=True, batch_first=True)
            width = hidden // 2 * 2
            self.decoder_logpower = nn.Linear(width, freq)
        if self.decoder_sees:
            self.decoder_fusion = Fusion(latent if self.recurrent else hidden, visual_hidden)
        # A latent changes the law of the next one, or, in a recurrent decoder, all of speech.
        self.autoregressive = prior in (
            "gated",
            "recurrent",
        )  # whether latents depend on earlier ones
        if self.recurrent or self.autoregressive:
            self.receptive_field = None  # type: ignore[assignment]

    def encode(
        self, power: Tensor, sample: bool = False, visual: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``(..., freq, time)`` power to mean, log-variance and draw of z, ``(..., latent, time)``.

        ``visual`` is ``(..., 1 + visual, time)``. The draw is the mean unless ``sample``.
        """
        mean, logvar = self.infer(power, visual)
        return mean, logvar, draw(mean, logvar, sample)

    def infer(self, power: Tensor, visual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, ``(..., latent, time)``.

        In each frame a mean, weighted by the gate, of those of the audio-only and of the
        audio-visual encoder.
        """
        inputs = normalised_input(power)
        batch, shape = inputs.shape[:-2], inputs.shape[-2:]
        audio = inputs.reshape(-1, *shape)
        hidden = self.encoder(self.encoder_bands(audio))
        mean, logvar = self.encoder_mean(hidden), self.encoder_logvar(hidden)
        if self.visual and visual is not None:
            flat = visual.reshape(-1, *visual.shape[-2:])
            pairs = zip((mean, logvar), self.encoder_looking(audio, flat), strict=True)
            mean, logvar = (torch.lerp(one, both, flat[:, :1]) for one, both in pairs)
        logvar = self.clamped(logvar)
        return mean.reshape(*batch, *mean.shape[-2:]), logvar.reshape(*batch, *logvar.shape[-2:])

    def law(self, z: Tensor, visual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Prior mean and log-variance of each frame, its past given: ``(batch, latent, time)``."""
        return self.prior.law(z, self.encode_visual(visual, z))

    def sample_from_innovations(
        self, innovations: Tensor, visual: Tensor | None = None, count: Tensor | None = None
    ) -> Tensor:
        """A draw of the prior from standard-normal innovations, ``(batch, latent, time)``.

        ``count``, ``(batch, 1, time)``, is 0 in frames whose visual context is switched off.
        """
        context = self.encode_visual(visual, innovations)
        return self.prior.sample_from_innovations(
            innovations, context if count is None else context * count
        )

    @property
    def supports_switch(self) -> bool:
        """Whether the video of a frame changes the prior of that frame's latents and no more."""
        return self.visual > 0 and not self.decoder_sees and not isinstance(self.prior, Recurrent)

    def decode(self, z: Tensor, visual: Tensor | None = None) -> Tensor:
        """``(..., latent, time)`` to log power ``(..., freq, time)``."""
        flat = z.reshape(-1, *z.shape[-2:])
        if self.recurrent:
            hidden, _ = self.decoder(self.fuse_visual(flat, visual).transpose(1, 2))
            log_power = frequency_first(self.decoder_logpower, hidden)
        else:
            hidden = self.fuse_visual(self.decoder_latent(flat), visual)
            log_power = self.decoder_logpower(self.decoder(hidden))
        log_power = log_power.clamp(LOWEST, HIGHEST)
        return log_power.reshape(*z.shape[:-2], *log_power.shape[-2:])

    def fuse_visual(self, hidden: Tensor, visual: Tensor | None) -> Tensor:
        """Add the visual context to hidden layers of the decoder, if it takes any."""
        if not self.decoder_sees:
            return hidden
        return self.decoder_fusion(hidden, self.encode_visual(visual, hidden))

    def encode_visual(self, visual: Tensor | None, like: Tensor) -> Tensor:
        """Visual context of prior and decoder, ``(batch, visual_hidden, time)``."""
        if not self.visual or visual is None:
            return like.new_zeros(len(like), self.visual_hidden, like.shape[-1])
        context = self.prior_sight(visual.reshape(-1, *visual.shape[-2:]))
        # One video may belong to several rows: draws of the same recording.
        rows = len(like) // len(context)
        return context.repeat(rows, 1, 1) if len(context) != len(like) else context
