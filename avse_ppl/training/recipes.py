"""Recipes: the hyperparameters that each shipped model was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters: all that a training depends on besides the data and the seed.

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
    gain_sd_db
        Standard deviation of the random gain given to each crop, dB.
    speed
        Range of the random speed given to each crop.
    epoch_share
        Part of the speech that one pass draws: small where whole passes take long, since a
        checkpoint is left after each.
    encoder_epochs, encoder_batch, encoder_crop_s
        Passes, crops a step and their length in the second phase, in which the decoder stays and
        the encoder learns the latents of speech in noise.
    snr_db
        Range of the signal-to-noise ratios of that phase, dB.
    encoder_width
        Factor on the standard deviations of what that encoder measures, see `LatentSpeech`; 0 if it
        is not to measure.

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
    epoch_share: float = 1.0
    kl_weight: float = 0.1
    kl_warmup_epochs: int = 10
    gain_sd_db: float = 6.0
    speed: tuple[float, float] = (0.9, 1.1)
    encoder_epochs: int = 20
    encoder_batch: int = 16
    encoder_crop_s: float = 2.56
    snr_db: tuple[float, float] = (-8.0, 15.0)
    encoder_width: float = 1.0


@dataclass(frozen=True)
class PredictorRecipe(Recipe):
    """Hyperparameters of a predictor, beyond `Recipe`.

    Parameters
    ----------
    causal_share
        Share of the steps in which the network may not look ahead.
    loss_weights
        Of the terms of `PredictorTraining`: SDR (a decibel), magnitude, complex, likelihood,
        loudness.

    Examples
    --------
    >>> PREDICTOR_RECIPES["predictor"].causal_share
    0.3
    """

    network: str = "tcn"
    crop_s: float = 2.56
    batch: int = 10
    learning_rate: float = 1.5e-3
    epochs: int = 42
    epoch_share: float = 0.5
    speed: tuple[float, float] = (0.85, 1.2)
    snr_db: tuple[float, float] = (-12.0, 18.0)
    encoder_epochs: int = 0
    causal_share: float = 0.3
    loss_weights: tuple[float, float, float, float, float] = (0.05, 20.0, 8.0, 0.1, 0.5)


@dataclass(frozen=True)
class AVPredictorRecipe(PredictorRecipe):
    """Hyperparameters of a predictor that sees the lips, beyond `PredictorRecipe`.

    Parameters
    ----------
    trunk
        The audio-only predictor that it hears by, which stays as it is: name or folder.
    visual_encoder
        The visual encoder whose features it takes, by name.
    babble
        Share of the mixtures whose noise is other people talking, beyond those of `PredictorCrops`.
    video_dropout
        Share of the crops whose lips are disturbed visibly, and of those whose lips are late or
        another's.
    audio_dropout
        Share of the crops of which a stretch is left to the lips alone.

    Examples
    --------
    >>> PREDICTOR_RECIPES["av-predictor"].network
    'attention-fusion'
    """

    network: str = "attention-fusion"
    trunk: str = "predictor"
    visual_encoder: str = "lips"
    crop_s: float = 2.08
    batch: int = 5
    learning_rate: float = 2e-3
    epochs: int = 10
    epoch_share: float = 0.25
    speed: tuple[float, float] = (1.0, 1.0)
    snr_db: tuple[float, float] = (-12.0, 6.0)
    causal_share: float = 0.0
    babble: float = 0.4
    video_dropout: float = 0.3
    audio_dropout: float = 0.15


@dataclass(frozen=True)
class AudioVisualRecipe(Recipe):
    """Hyperparameters of a dynamical or audio-visual prior, beyond `Recipe`.

    Parameters
    ----------
    base_prior
        The audio-only prior whose latents and decoder it builds on, by name.
    audio_visual
        Whether it has a visual input.
    teacher_epochs, visual_encoder_epochs, prior_epochs
        Passes of the phases "teacher", "lips" and "prior"; see `train_audio_visual`.
    visual_encoder_rate
        Learning rate of the visual encoder.
    video_dropout
        Share of the crops that come without any video, of those that lose a stretch of it, and of
        those that come with somebody else's at times.
    visual_weight
        See `LatentSpeech`; chosen on development sentences of known and unknown speakers.

    Examples
    --------
    >>> AUDIO_VISUAL_RECIPES["av-dkf"].settings["prior"]
    'gated'
    """

    network: str = "dynamic"
    base_prior: str = "tcvae"
    audio_visual: bool = True
    teacher_epochs: int = 2
    visual_encoder_epochs: int = 9
    visual_encoder_rate: float = 1.5e-3
    prior_epochs: int = 4
    video_dropout: float = 0.25
    visual_weight: float = 0.75
    batch: int = 16
    learning_rate: float = 1e-3
    gain_sd_db: float = 4.0
    speed: tuple[float, float] = (1.0, 1.0)
    encoder_epochs: int = 6
    snr_db: tuple[float, float] = (-10.0, 12.0)
    encoder_width: float = 0.35


@dataclass(frozen=True)
class DiffusionRecipe(Recipe):
    """Hyperparameters of a diffusion prior, beyond `Recipe`.

    Parameters
    ----------
    base_prior
        The audio-only prior whose latents and decoder a latent diffusion builds on, by name.
    visual_encoder
        The visual encoder whose features it takes, by name.
    sigma
        Range of the noise levels.
    sigma_centre, sigma_sd
        Mean and standard deviation of their logarithm.
    averaging
        Decay of the running mean of the weights.
    teacher_epochs
        Passes of the phase "teacher" of a latent diffusion.
    video_dropout, visual_weight
        As for `AudioVisualRecipe`.

    Examples
    --------
    >>> DIFFUSION_RECIPES["score"].sigma
    (0.02, 5.0)
    """

    base_prior: str = "tcvae"
    visual_encoder: str = "lips"
    sigma: tuple[float, float] = (0.02, 5.0)
    sigma_centre: float = -1.0
    sigma_sd: float = 1.2
    averaging: float = 0.995
    teacher_epochs: int = 2
    video_dropout: float = 0.25
    visual_weight: float = 0.75
    gain_sd_db: float = 6.0
    speed: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class ReliabilityRecipe:
    """Hyperparameters of the reliability network.

    Parameters
    ----------
    sync_epochs, quality_epochs
        Passes of the phases "sync" and "quality".
    clips
        Clips of a pass.
    sync_batch, quality_batch
        Clips of a step of either phase.
    dev_clips
        Held-out clips to validate and calibrate on.
    sync_rate, quality_rate
        Learning rates of the phases, falling nearly to 0 along a cosine.
    snr_db
        Range of the signal-to-noise ratio of the sound, dB.

    Examples
    --------
    >>> ReliabilityRecipe().quality_epochs
    9
    """

    sync_epochs: int = 4
    quality_epochs: int = 9
    clips: int = 800
    sync_batch: int = 12
    quality_batch: int = 5
    dev_clips: int = 120
    sync_rate: float = 1.5e-3
    quality_rate: float = 2e-3
    snr_db: tuple[float, float] = (-5.0, 15.0)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "vae": Recipe("vae", {"latent": 16, "hidden": (256, 128)}, epochs=60, encoder_width=0.0),
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


_VISUAL = {"latent": 16, "visual": 64}

# A prior without video has the video of the others left out: the same latents, the same decoder.
AUDIO_VISUAL_RECIPES: Mapping[str, AudioVisualRecipe] = MappingProxyType(
    {
        "dkf": AudioVisualRecipe(settings={"latent": 16, "prior": "gated"}, audio_visual=False),
        "srnn": AudioVisualRecipe(
            settings={"latent": 16, "prior": "recurrent"}, audio_visual=False
        ),
        "av-vae": AudioVisualRecipe(
            settings={**_VISUAL, "prior": "standard", "decoder_sees": True}, encoder_width=1.0
        ),
        "av-cvae": AudioVisualRecipe(settings={**_VISUAL, "prior": "visual"}),
        "av-dkf": AudioVisualRecipe(settings={**_VISUAL, "prior": "gated"}),
        "av-rvae": AudioVisualRecipe(
            settings={**_VISUAL, "prior": "visual", "decoder": "recurrent", "decoder_sees": True}
        ),
    }
)

DIFFUSION_RECIPES: Mapping[str, DiffusionRecipe] = MappingProxyType(
    {
        # Six crops a step: on a core, steps are dear, and many are worth more than large ones.
        "score": DiffusionRecipe(
            "score", {"visual": 64}, batch=6, learning_rate=1.5e-3, epochs=7, epoch_share=0.2
        ),
        "latent-diffusion": DiffusionRecipe(
            "latent-diffusion",
            {"latent": 16, "visual": 64},
            batch=8,
            crop_s=2.56,
            learning_rate=1.5e-3,
            epochs=20,
            epoch_share=0.5,
            sigma=(0.02, 20.0),
            sigma_centre=-0.7,
            sigma_sd=1.6,
            gain_sd_db=4.0,
        ),
    }
)

PREDICTOR_RECIPES: Mapping[str, PredictorRecipe] = MappingProxyType(
    {
        "predictor": PredictorRecipe(settings={"widths": (20, 40, 64, 96), "inner": 160}),
        # The settings of its trunk are those of the weights.
        "av-predictor": AVPredictorRecipe(settings={"visual": 64}),
    }
)


def list_trainable() -> list[str]:
    """List the names of all models that have a recipe.

    Examples
    --------
    >>> "av-dkf" in list_trainable()
    True
    """
    return [*RECIPES, *AUDIO_VISUAL_RECIPES, *DIFFUSION_RECIPES, *PREDICTOR_RECIPES, "reliability"]
