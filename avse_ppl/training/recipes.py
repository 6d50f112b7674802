"""What each shipped prior was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on besides the data and the seed.

    Parameters
    ----------
    network
        ``"vae"``, ``"rvae"`` or ``"tcvae"``.
    settings
        Keyword arguments of the network.
    crop_s
        Length of the training crops, seconds.
    batch
        Crops a step.
    learning_rate
        Adam's, at its peak; it falls to a hundredth along a cosine.
    epochs
        Passes over the training clips.
    kl_weight, kl_warmup_epochs
        Weight of the KL term, and epochs over which it rises from 0 to that. Under 1 the latents
        carry more of the speech, and the decoder is sharper, than the evidence alone would have it.
    level_jitter_db
        Standard deviation of the random level given to each crop, dB.
    speed
        Range of the random speed given to each crop.
    encoder_epochs, encoder_batch, encoder_crop_s
        Passes, crops a step and their length in the second phase, in which the decoder stays and
        the encoder learns to see speech through noise.
    snr_db
        Range of the signal-to-noise ratios of that phase, dB.

    Examples
    --------
    >>> RECIPES["vae"].settings["latent"]
    16
    """

    network: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    crop_s: float = 1.28
    batch: int = 32
    learning_rate: float = 1e-3
    epochs: int = 60
    kl_weight: float = 0.1
    kl_warmup_epochs: int = 10
    level_jitter_db: float = 6.0
    speed: tuple[float, float] = (0.9, 1.1)
    encoder_epochs: int = 20
    encoder_batch: int = 16
    encoder_crop_s: float = 2.56
    snr_db: tuple[float, float] = (-8.0, 15.0)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "vae": Recipe("vae", {"latent": 16, "hidden": (256, 128)}, epochs=60),
        "rvae": Recipe(
            "rvae",
            {"latent": 16, "hidden": 128, "encoder_bands": 128, "encoder_layers": 2},
            epochs=45,
        ),
        "tcvae": Recipe(
            "tcvae", {"latent": 16}, batch=16, learning_rate=1.5e-3, epochs=24, encoder_epochs=12
        ),
        # Evidence as it is: a noise prior is to fit, and to leave to speech what does not.
        "noise-vae": Recipe(
            "tcvae",
            {"latent": 8, "hidden": 96, "encoder_hidden": 96, "encoder_blocks": 4},
            batch=16,
            learning_rate=1.5e-3,
            epochs=24,
            kl_weight=1.0,
            kl_warmup_epochs=6,
            speed=(0.75, 1.35),
            encoder_epochs=4,
        ),
    }
)
