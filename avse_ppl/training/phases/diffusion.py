"""Training of diffusion priors: of spectrograms, and of the latents of an audio-only prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging
from torch import Tensor, nn

from avse_ppl.models.networks import LipEncoder
from avse_ppl.models.speech.compression import Compression
from avse_ppl.models.weights.io import NETWORKS, load_lip_encoder, load_shared, save_weights
from avse_ppl.signal.stft import Stft
from avse_ppl.training.datasets.av_crops import AVBatch, AVSpeechCrops, compute_visual_features
from avse_ppl.training.datasets.speech_crops import SpeechCrops
from avse_ppl.training.objective import Objective, draw_normal, freeze_except
from avse_ppl.training.phases.audio_visual import (
    align_visual_features,
    copy_lips,
    name_lips,
    train_teacher,
)
from avse_ppl.training.phases.vae import compute_power, load_crops
from avse_ppl.training.recipes import DiffusionRecipe
from avse_ppl.training.run import SPLITS, Run, TrainingData

_FLOOR = 1e-6  # power of the noise under speech, -60 dB: digital silence has no density
_UNIT = "of a bin or a latent: nll in nats, fit in squared errors; of a teacher nats a frame"


def train_score(
    recipe: DiffusionRecipe,
    data: TrainingData,
    output: str | Path,
    *,
    name: str,
    card: Mapping[str, Any],
    visual_encoder: str | Path | None = None,
    stft: Stft | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Train a score prior and write its weights, config and model card.

    Parameters
    ----------
    recipe, data
        What to train, and on what; without prepared lips, the prior is audio-only.
    output, name, card, stft, seed, **settings
        As for `train_vae`.
    visual_encoder
        Name or folder of the visual encoder; by default that of the recipe.

    Returns
    -------
    Path
        The folder, readable by ``load_speech``.

    Raises
    ------
    ValueError
        If there is no speech, the cache has no clip in one of the splits, or is at another rate
        than ``stft``; or if the training diverges.
    """
    stft, run = stft or Stft(), Run(Path(output), seed, **settings)
    data.require_speech(stft.sample_rate_hz)
    visual_encoder = visual_encoder or recipe.visual_encoder
    lips = load_lip_encoder(visual_encoder)[0] if data.lips else None
    network_settings = {**recipe.settings} | ({} if lips is not None else {"visual": 0})
    run.seed_weights()
    network = NETWORKS[recipe.network](freq=stft.freq, **network_settings)
    crops = make_visual_crops(recipe, data, lips, stft, seed)
    run.fit("score", ScoreTraining(recipe, stft, network), load_crops(run, recipe, crops))
    own = visual_encoder if lips is not None else None
    return save_diffusion(run, recipe, stft, network, network_settings, name, card, own)


def train_latent_diffusion(
    recipe: DiffusionRecipe,
    data: TrainingData,
    output: str | Path,
    *,
    name: str,
    card: Mapping[str, Any],
    teacher: str | Path | None = None,
    visual_encoder: str | Path | None = None,
    stft: Stft | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Train a latent diffusion prior in two phases and write its weights, config and model card.

    1. "teacher": the encoder of the audio-only prior that it builds on, on clean speech;
    2. "denoiser": the diffusion prior of the latents that the teacher infers.

    Decoder and encoder of the outcome are those of the audio-only prior.

    Parameters
    ----------
    recipe, data
        What to train, and on what; without prepared lips, the prior is audio-only.
    output, name, card, stft, seed, **settings
        As for `train_vae`.
    teacher
        Folder of weights in place of phase 1.
    visual_encoder
        Name or folder of the visual encoder; by default that of the recipe.

    Returns
    -------
    Path
        The folder, readable by ``load_speech``.

    Raises
    ------
    ValueError
        As `train_score`, or if the weights of the teacher do not fit it.
    """
    stft, run = stft or Stft(), Run(Path(output), seed, **settings)
    speech = data.require_speech(stft.sample_rate_hz)
    visual_encoder = visual_encoder or recipe.visual_encoder
    lips = load_lip_encoder(visual_encoder)[0] if data.lips else None
    base = train_teacher(run, recipe, stft, speech, teacher)
    crops = make_visual_crops(recipe, data, lips, stft, seed)
    network_settings = {
        **recipe.settings,
        "sigma_data": measure_latent_sd(base, crops[0], stft),
    }
    network_settings |= {} if lips is not None else {"visual": 0}
    run.seed_weights()
    network = NETWORKS[recipe.network](freq=stft.freq, **network_settings)
    load_shared(network, recipe.base_prior)
    training = LatentDiffusionTraining(recipe, stft, network, base)
    run.fit("denoiser", training, load_crops(run, recipe, crops))
    own = visual_encoder if lips is not None else None
    return save_diffusion(run, recipe, stft, network, network_settings, name, card, own)


def make_visual_crops(
    recipe: DiffusionRecipe, data: TrainingData, lips: LipEncoder | None, stft: Stft, seed: int
) -> list[AVSpeechCrops]:
    """Crops of both splits with their visual features, which are computed once."""
    speech = data.require_speech(stft.sample_rate_hz)
    features = compute_visual_features(speech, data.lips, lips, seed)
    crop = round(recipe.crop_s * stft.sample_rate_hz)
    return [AVSpeechCrops(speech, split, crop, stft, features) for split in SPLITS]


def measure_latent_sd(teacher: Any, crops: SpeechCrops, stft: Stft, count: int = 200) -> float:
    """Root mean square of the latents of so many clips (``sigma_data``), to two digits."""
    some = range(0, len(crops), max(1, len(crops) // count))
    with torch.no_grad():
        waves = torch.stack([torch.from_numpy(crops.cut(i, 0.5)) for i in some])
        mean, logvar = teacher.infer(compute_power(stft.forward(waves)))
    return round(float((mean.square() + logvar.exp()).mean().sqrt()), 2)


def save_diffusion(
    run: Run, recipe: DiffusionRecipe, stft: Stft, network: nn.Module, settings: Mapping[str, Any],
    name: str, card: Mapping[str, Any], visual_encoder: str | Path | None,
) -> Path:  # fmt: skip
    """Write weights and card, and beside them the visual encoder if it is not shipped."""
    folder = save_weights(
        run.output, network, recipe.network, settings, stft, name=name,
        card=run.make_card(card, recipe, _UNIT),
        visual_encoder=None if visual_encoder is None else name_lips(visual_encoder),
        visual_weight=recipe.visual_weight,
    )  # fmt: skip
    copy_lips(visual_encoder, run.output)
    return folder


class DenoiserTraining(Objective):
    r"""Denoising likelihood: mean m and variance v at noise levels drawn anew for each crop.

    .. math:: E\left[\log v + |c - m|^2 / v\right] + E\,|c - m|^2 (\sigma^{-2} + \sigma_d^{-2})

    The first term makes the variance honest, which guidance relies on; the second, weighted as by
    Karras et al. (2022), keeps hard bins from being given up on. :math:`\log \sigma` is normal,
    within the recipe's bounds. What is kept of the weights is their running mean.

    Parameters
    ----------
    recipe, stft, network
        As for `VaeTraining`.
    """

    def __init__(self, recipe: DiffusionRecipe, stft: Stft, network: Any) -> None:
        super().__init__(network, recipe.epochs, recipe.learning_rate)
        self.recipe, self.stft = recipe, stft

    def configure_callbacks(self) -> list[Callback]:
        """Average the weights, over the last steps only while there are few."""
        decay = self.recipe.averaging

        def average(before: Tensor, now: Tensor, count: Tensor | int) -> Tensor:
            return torch.lerp(now, before, min(decay, int(count) / (int(count) + 9)))

        return [WeightAveraging(avg_fn=average)]

    def configure_optimizers(self) -> Any:
        """Adam along a cosine, after a rise over the first steps."""
        optimiser = torch.optim.Adam(self.list_trained(), lr=self.learning_rate)
        return self.anneal_each_step(optimiser)

    def draw_sigmas(self, crops: int) -> Tensor:
        """Draw noise levels, ``(crop,)``."""
        recipe = self.recipe
        low, high = (math.log(bound) for bound in recipe.sigma)
        draws = recipe.sigma_centre + recipe.sigma_sd * torch.randn(crops, device=self.device)
        # Outside the bounds, uniform between them: none is missed, none is met too often.
        uniform = low + (high - low) * torch.rand(crops, device=self.device)
        return torch.exp(torch.where((draws > low) & (draws < high), draws, uniform))

    def compute_losses(
        self, clean: Tensor, mean: Tensor, variance: Tensor, sigma: Tensor
    ) -> dict[str, Tensor]:
        """Loss of the mean and variance of ``clean``, and its parts, a bin or latent each."""
        gap = clean - mean
        squared = gap.real.square() + gap.imag.square() if gap.is_complex() else gap.square()
        weight = sigma.pow(-2) + self.network.sigma_data**-2
        nll = (torch.log(variance) + squared / variance).mean()
        fit = (squared * weight[:, None, None]).mean()
        return {"loss": nll + fit, "nll": nll, "fit": fit}


class ScoreTraining(DenoiserTraining):
    """`DenoiserTraining` of the compressed complex spectrogram of speech."""

    def __init__(self, recipe: DiffusionRecipe, stft: Stft, network: Any) -> None:
        super().__init__(recipe, stft, network)
        self.compression = Compression(self.network.exponent)

    def losses(self, batch: AVBatch) -> dict[str, Tensor]:
        """Loss of speech ``(crop, sample)`` and features ``(crop, video_frame, features)``."""
        speech = self.stft.forward(batch.waves)
        speech = speech + math.sqrt(_FLOOR) * torch.randn_like(speech)
        clean = self.compression.compress(speech)
        sigma = self.draw_sigmas(len(clean))
        noisy = clean + sigma[:, None, None] * torch.randn_like(clean)
        visual = align_visual_features(batch, self)
        mean, variance = self.network(noisy, sigma, visual)
        return self.compute_losses(clean, mean, variance, sigma)


class LatentDiffusionTraining(DenoiserTraining):
    """`DenoiserTraining` of the latents that a teacher infers from clean speech."""

    def __init__(self, recipe: DiffusionRecipe, stft: Stft, network: Any, teacher: Any) -> None:
        super().__init__(recipe, stft, network)
        self.teacher = teacher.requires_grad_(False)
        freeze_except(network, "denoiser")

    def losses(self, batch: AVBatch) -> dict[str, Tensor]:
        """Loss of speech ``(crop, sample)`` and features ``(crop, video_frame, features)``."""
        power = compute_power(self.stft.forward(batch.waves))
        with torch.no_grad():
            clean = draw_normal(*self.teacher.infer(power))
        sigma = self.draw_sigmas(len(clean))
        noisy = clean + sigma[:, None, None] * torch.randn_like(clean)
        visual = align_visual_features(batch, self)
        mean, variance = self.network.denoise(noisy, sigma, visual)
        return self.compute_losses(clean, mean, variance, sigma)
