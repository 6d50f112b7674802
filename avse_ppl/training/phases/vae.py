"""Training of the VAE family: the evidence lower bound, then an encoder that is robust to noise."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avse_ppl.models.weights.io import (
    CLEAN_START_GAIN_DB,
    NETWORKS,
    load_network,
    locate_weights,
    save_weights,
)
from avse_ppl.signal.stft import Stft
from avse_ppl.training.datasets.loaders import Loaders
from avse_ppl.training.datasets.speech_crops import (
    MixtureCrops,
    SpeechCrops,
    make_crop_loaders,
)
from avse_ppl.training.objective import Objective, freeze_except, normal_nll
from avse_ppl.training.recipes import Recipe
from avse_ppl.training.run import SPLITS, Run, TrainingData

GOING_ON = 1 / 3  # share of the learning rate
POWER_FLOOR = 1e-6  # -60 dB below active speech: keeps digital silence out of the logarithm


def train_vae(
    recipe: Recipe,
    data: TrainingData,
    output: str | Path,
    *,
    name: str,
    card: Mapping[str, Any],
    initial: str | Path | None = None,
    stft: Stft | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Train a speech VAE and write its weights, config and model card.

    Two phases: "speech", encoder and decoder on clean speech; then, if there is noise, "encoder",
    the encoder alone on mixtures. The run is seeded, leaves a checkpoint after every epoch, and
    picks the last one up when called again with the same ``output``.

    Parameters
    ----------
    recipe, data
        What to train, and on what: speech and, for the second phase, noise.
    output
        Folder for ``weights.safetensors``, ``config.json``, ``README.md`` and, while training,
        ``checkpoints/``.
    name
        What the weights are called.
    card
        What the card states of the data: ``corpora``, ``licence``, ``split``, ``command``.
    initial
        Folder or name of weights to go on from, at a third of the learning rate. Their decoder, and
        so the prior, stays as it is: the first phase trains the encoder on clean speech, the second
        goes on from the encoder that was there.
    stft
        Front end; by default the field's 1024-sample sine window with hop 256 at 16 kHz.
    seed
        Seed of everything random.
    **settings
        ``device``, ``precision``, ``workers``, ``resume`` and ``progress``; see `Run`.

    Returns
    -------
    Path
        The folder, readable by ``load_speech``.

    Raises
    ------
    ValueError
        If there is no speech, a cache has no clip in one of the splits, or is at another rate than
        ``stft``; if ``initial`` is of other sizes or of another front end; or if the training
        diverges.
    """
    stft, run = stft or Stft(), Run(Path(output), seed, **settings)
    speech = data.require_speech(stft.sample_rate_hz)
    noise = None if data.noise is None else data.require_noise(stft.sample_rate_hz)
    crop = round(recipe.crop_s * stft.sample_rate_hz)
    crops = [SpeechCrops(speech, split, crop, stft) for split in SPLITS]
    run.seed_weights()
    network = NETWORKS[recipe.network](freq=stft.freq, **recipe.settings)
    before = None
    if initial is not None:
        before = load_initial(network, initial, stft)
        freeze_except(network, "encoder")
        recipe = replace(recipe, learning_rate=GOING_ON * recipe.learning_rate)
    run.fit("speech", VaeTraining(recipe, stft, network), load_crops(run, recipe, crops))
    start_gain_db = CLEAN_START_GAIN_DB
    if noise is not None and recipe.encoder_epochs > 0:
        start_gain_db = 0.0  # the encoder knows noise then
        crop = round(recipe.encoder_crop_s * stft.sample_rate_hz)
        crops = [MixtureCrops(speech, s, crop, stft, noise, recipe.snr_db) for s in SPLITS]
        loaders = load_crops(run, recipe, crops, recipe.encoder_batch)
        training = EncoderTraining(recipe, stft, network)
        if before is not None:
            network.load_state_dict(before)
        run.fit("encoder", training, loaders)
    return save_weights(
        run.output, network, recipe.network, dict(recipe.settings), stft, name=name,
        card=run.make_card(card, recipe),
        start_gain_db=start_gain_db, encoder_width=recipe.encoder_width,
    )  # fmt: skip


def load_initial(network: nn.Module, source: str | Path, stft: Stft) -> Mapping[str, Tensor]:
    """Load the weights that a training goes on from into a network; returns them.

    Raises
    ------
    ValueError
        If they are of another network, of other sizes, or of another front end.
    """
    other, config = load_network(locate_weights(source))
    found = other.state_dict()
    mine = {key: value.shape for key, value in network.state_dict().items()}
    if mine != {key: value.shape for key, value in found.items()} or config["stft"] != asdict(stft):
        raise ValueError(
            f"{source} is of another network, of other sizes or of another front end than the "
            "recipe's; expected weights that the recipe of this name has trained"
        )
    network.load_state_dict(found)
    return found


def load_crops(run: Run, recipe: Recipe, crops: Sequence[SpeechCrops], batch: int = 0) -> Loaders:
    """Load crops of both splits as a recipe wants them, in batches of its size or of another."""
    train, dev = crops
    return make_crop_loaders(
        train, dev, batch or recipe.batch, run.seed, gain_sd_db=recipe.gain_sd_db,
        speed=recipe.speed, share=recipe.epoch_share, workers=run.workers,
    )  # fmt: skip


class VaeTraining(Objective):
    r"""Negative ELBO of a speech VAE, nats a frame.

    .. math:: E_q \sum_f \left[\ell_{ft} + |s_{ft}|^2 e^{-\ell_{ft}}\right]
        + w \sum_l \tfrac12 (\mu_{lt}^2 + \sigma_{lt}^2 - \log \sigma_{lt}^2 - 1)

    The first term is the Itakura-Saito fit, the second the exact KL divergence to N(0, 1); its
    weight w rises from 0 to the recipe's during the warm-up and stays there. At validation it is 1:
    what is logged there is the evidence lower bound.

    Parameters
    ----------
    recipe
        What to train, how long.
    stft
        Front end.
    network
        What is trained.
    """

    def __init__(self, recipe: Recipe, stft: Stft, network: Any) -> None:
        super().__init__(network, recipe.epochs, recipe.learning_rate)
        self.recipe, self.stft = recipe, stft

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        """Loss and its parts, of crops ``(crop, sample)``."""
        power = compute_power(self.stft.forward(batch))
        mean, logvar, z = (a.float() for a in self.network.encode(power, sample=True))
        log_power = self.network.decode(z).float()
        fit = compute_is_fit(power, log_power)
        kl = 0.5 * (mean.square() + logvar.exp() - logvar - 1.0).sum(-2).mean()
        warm = min(1.0, (self.current_epoch + 1) / max(1, self.recipe.kl_warmup_epochs))
        weight = warm * self.recipe.kl_weight if self.training else 1.0
        return {"loss": fit + weight * kl, "fit": fit, "kl": kl}


class EncoderTraining(Objective):
    r"""Neural posterior estimation: the posterior of the latents given a mixture.

    .. math:: -E_{p(s, x)} E_{q_0(z | s)} \log q(z | x)

    with :math:`q_0` the encoder that the first phase left, given the clean speech. The decoder
    stays what clean speech made it. Inference then starts near the right answer even in loud noise,
    and goes on from there.

    Parameters
    ----------
    recipe, stft
        As for `VaeTraining`.
    network
        What the first phase left; its encoder is trained in place.

    References
    ----------
    Papamakarios and Murray, "Fast epsilon-free inference of simulation models with Bayesian
    conditional density estimation", NeurIPS 2016.
    """

    def __init__(self, recipe: Recipe, stft: Stft, network: Any) -> None:
        super().__init__(network, recipe.encoder_epochs, recipe.learning_rate)
        self.recipe, self.stft = recipe, stft
        self.teacher = copy.deepcopy(network).requires_grad_(False)
        freeze_except(network, "encoder")

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        """Loss of pairs of speech and noise, ``(crop, 2, sample)``."""
        speech, noise = self.stft.forward(batch).unbind(1)
        mixture = compute_power(speech + noise)
        gain = mixture.mean((-2, -1), keepdim=True)  # as a mixture is normalised for inference
        with torch.no_grad():
            z = self.teacher.encode(compute_power(speech) / gain, sample=True)[2].float()
        mean, logvar, _ = (a.float() for a in self.network.encode(mixture / gain))
        return {"loss": normal_nll(z, mean, logvar).sum(-2).mean()}


def compute_power(values: Tensor) -> Tensor:
    """Power of a complex STFT, above a floor."""
    return values.real.square() + values.imag.square() + POWER_FLOOR


def compute_is_fit(power: Tensor, log_power: Tensor) -> Tensor:
    """Itakura-Saito fit of log powers to powers ``(..., freq, time)``, nats a frame."""
    return (log_power + power * torch.exp(-log_power)).sum(-2).mean()
