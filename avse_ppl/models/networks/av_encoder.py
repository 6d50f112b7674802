"""An encoder that hears a mixture and looks at the speaker."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from avse_ppl.models.networks.fusion import Fusion, VisualFrontEnd
from avse_ppl.models.networks.tcvae import TcvaeNetwork


class AudioVisualEncoder(nn.Module):
    """The encoder of a `TcvaeNetwork` with what is seen added to what is heard.

    Beside, and not instead of, the encoder that only hears: what is fitted to lips is worse without
    them.

    Parameters
    ----------
    hearing
        A network whose encoder it starts as, until `follow` is called on another.
    channels
        Channels of that encoder.
    visual, seen
        Number of visual features, and channels of what is made of them.
    fusion
        See `Fusion`.

    Examples
    --------
    >>> import torch
    >>> hearing = TcvaeNetwork(freq=33, latent=4, hidden=8, encoder_hidden=8)
    >>> looking = AudioVisualEncoder(hearing, 8, visual=3, seen=6)
    >>> looking(torch.ones(1, 66, 10), torch.zeros(1, 4, 10))[0].shape
    torch.Size([1, 4, 10])
    """

    def __init__(
        self, hearing: TcvaeNetwork, channels: int, visual: int, seen: int,
        fusion: str = "concatenate",
    ) -> None:  # fmt: skip
        super().__init__()
        self.follow(hearing)
        self.sight = VisualFrontEnd(visual, seen)
        self.fusion = Fusion(channels, seen, fusion)

    def follow(self, hearing: TcvaeNetwork) -> None:
        """Start from the encoder that only hears."""
        self.bands = copy.deepcopy(hearing.encoder_bands)
        self.layers = copy.deepcopy(hearing.encoder)
        self.mean = copy.deepcopy(hearing.encoder_mean)
        self.logvar = copy.deepcopy(hearing.encoder_logvar)
        self.requires_grad_(True)

    def forward(self, heard: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, ``(batch, latent, time)``.

        From ``(batch, 2 freq, time)`` of `normalised_input` and ``(batch, 1 + visual, time)``.
        """
        hidden = self.layers(self.fusion(self.bands(heard), self.sight(visual)))
        return self.mean(hidden), self.logvar(hidden)
