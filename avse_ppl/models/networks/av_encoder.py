"""Audio-visual encoder of a mixture and the speaker's lips."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from avse_ppl.models.networks.fusion import Fusion, VisualFrontEnd
from avse_ppl.models.networks.tcvae import TcvaeNetwork


class AudioVisualEncoder(nn.Module):
    """Encoder of a `TcvaeNetwork` with visual features fused in.

    It stands beside the audio-only encoder, which is better in frames without video.

    Parameters
    ----------
    audio_only
        A network whose encoder it starts as, until `copy_encoder` is called on another.
    channels
        Channels of that encoder.
    visual, visual_hidden
        Number of visual features, and channels of the visual front end.
    fusion
        See `Fusion`.

    Examples
    --------
    >>> import torch
    >>> audio_only = TcvaeNetwork(freq=33, latent=4, hidden=8, encoder_hidden=8)
    >>> encoder = AudioVisualEncoder(audio_only, 8, visual=3, visual_hidden=6)
    >>> encoder(torch.ones(1, 66, 10), torch.zeros(1, 4, 10))[0].shape
    torch.Size([1, 4, 10])
    """

    def __init__(
        self, audio_only: TcvaeNetwork, channels: int, visual: int, visual_hidden: int,
        fusion: str = "concatenate",
    ) -> None:  # fmt: skip
        super().__init__()
        self.copy_encoder(audio_only)
        self.sight = VisualFrontEnd(visual, visual_hidden)
        self.fusion = Fusion(channels, visual_hidden, fusion)

    def copy_encoder(self, audio_only: TcvaeNetwork) -> None:
        """Copy the weights of an audio-only encoder."""
        self.bands = copy.deepcopy(audio_only.encoder_bands)
        self.layers = copy.deepcopy(audio_only.encoder)
        self.mean = copy.deepcopy(audio_only.encoder_mean)
        self.logvar = copy.deepcopy(audio_only.encoder_logvar)
        self.requires_grad_(True)

    def forward(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, ``(batch, latent, time)``.

        From ``(batch, 2 freq, time)`` of `normalised_input` and ``(batch, 1 + visual, time)``.
        """
        hidden = self.layers(self.fusion(self.bands(audio), self.sight(visual)))
        return self.mean(hidden), self.logvar(hidden)
