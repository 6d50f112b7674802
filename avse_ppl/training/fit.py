"""The training loop of the VAE family."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from avse_ppl.corpora.cache import SpeechCache
from avse_ppl.models.weights import NETWORKS, save_weights
from avse_ppl.stft import Stft
from avse_ppl.training.data import CropBatches, SpeechCrops
from avse_ppl.training.recipes import Recipe

POWER_FLOOR = 1e-6  # -60 dB below active speech: keeps digital silence out of the logarithm


class VaeTraining(pl.LightningModule):
    r"""Negative ELBO of a speech VAE, per frame.

    .. math:: E_q \sum_f \left[\ell_{ft} + |s_{ft}|^2 e^{-\ell_{ft}}\right]
        + w \sum_l \tfrac12 (\mu_{lt}^2 + \sigma_{lt}^2 - \log \sigma_{lt}^2 - 1)

    The first term is the Itakura-Saito fit, the second the exact KL divergence to N(0, 1); its
    weight w rises from 0 to 1 during the warm-up and stays there.

    Parameters
    ----------
    recipe
        What to train, how long.
    stft
        Front end.
    """

    def __init__(self, recipe: Recipe, stft: Stft) -> None:
        """Build the network."""
        super().__init__()
        self.recipe, self.stft = recipe, stft
        self.network = NETWORKS[recipe.network](freq=stft.freq, **recipe.settings)

    def losses(self, waves: Tensor) -> tuple[Tensor, Tensor]:
        """Fit and KL, each summed over bins and averaged over frames, nats a frame."""
        values = self.stft.forward(waves)
        power = values.real.square() + values.imag.square() + POWER_FLOOR
        mean, logvar, z = self.network.encode(power, sample=True)
        log_power = self.network.decode(z)
        fit = (log_power + power * torch.exp(-log_power)).sum(-2).mean()
        kl = 0.5 * (mean.square() + logvar.exp() - logvar - 1.0).sum(-2).mean()
        return fit, kl

    def training_step(self, waves: Tensor, _index: int) -> Tensor:
        """One step's loss."""
        fit, kl = self.losses(waves)
        weight = min(1.0, (self.current_epoch + 1) / max(1, self.recipe.kl_warmup_epochs))
        self.log_dict({"fit": fit, "kl": kl}, prog_bar=True)
        return fit + weight * kl

    def validation_step(self, waves: Tensor, _index: int) -> None:
        """Log the ELBO of unseen speakers."""
        fit, kl = self.losses(waves)
        values = {"val_loss": fit + kl, "val_fit": fit, "val_kl": kl}
        self.log_dict(values, prog_bar=True, batch_size=len(waves))

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """Adam along a cosine down to a hundredth of its rate."""
        optimiser = torch.optim.Adam(self.network.parameters(), lr=self.recipe.learning_rate)

        def factor(epoch: int) -> float:
            return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * epoch / self.recipe.epochs))

        return [optimiser], [torch.optim.lr_scheduler.LambdaLR(optimiser, factor)]


def train(
    recipe: Recipe,
    cache: SpeechCache,
    output: str | Path,
    *,
    name: str,
    data: Mapping[str, Any],
    stft: Stft | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = True,
    progress: bool = True,
) -> Path:
    """Fit a prior to cached speech and write its weights, config and model card.

    The run is seeded, leaves a checkpoint after every epoch, and picks the last one up when
    called again with the same ``output``.

    Parameters
    ----------
    recipe, cache
        What to train, and on what.
    output
        Folder for ``weights.safetensors``, ``config.json``, ``README.md`` and, while training,
        ``checkpoints/``.
    name
        What the weights are called.
    data
        What the card says of the data: ``corpora``, ``licence``, ``split``, ``command``.
    stft
        Front end; by default the field's 1024-sample sine window with hop 256 at 16 kHz.
    seed, device
        Seed of everything random, and ``"auto"``, ``"cpu"`` or ``"cuda"``.
    resume
        Whether to continue from the last checkpoint if there is one.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Path
        The folder, readable by ``load_speech``.
    """
    stft = stft or Stft()
    output = Path(output)
    pl.seed_everything(seed, verbose=False)
    loaders = _loaders(recipe, cache, stft, seed)
    module = VaeTraining(recipe, stft)
    checkpoints = pl.callbacks.ModelCheckpoint(output / "checkpoints", save_last=True)
    bar = [pl.callbacks.RichProgressBar()] if progress else []
    trainer = pl.Trainer(
        max_epochs=recipe.epochs, accelerator="gpu" if device == "cuda" else device, devices=1,
        callbacks=[checkpoints, *bar], logger=False, default_root_dir=output,
        enable_progress_bar=progress, enable_model_summary=False, gradient_clip_val=5.0,
        num_sanity_val_steps=0, use_distributed_sampler=False,
    )  # fmt: skip
    last = output / "checkpoints" / "last.ckpt"
    begin = time.process_time()
    trainer.fit(
        module, *loaders, ckpt_path=last if resume and last.exists() else None, weights_only=True
    )
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    metrics["cpu_s_this_run"] = time.process_time() - begin
    metrics["epochs"] = trainer.current_epoch
    return save_weights(
        output, module.network, recipe.network, dict(recipe.settings), stft, name=name,
        card={**data, "seed": seed, "metrics": metrics, "recipe": recipe},
    )  # fmt: skip


def _loaders(
    recipe: Recipe, cache: SpeechCache, stft: Stft, seed: int
) -> tuple[DataLoader[Tensor], DataLoader[Tensor]]:
    crop = round(recipe.crop_s * stft.sample_rate_hz)
    training = SpeechCrops(cache, "train", crop, stft)
    validation = SpeechCrops(cache, "dev", crop, stft)
    batches = CropBatches(training, recipe.batch, seed, recipe.level_jitter_db)
    checks = CropBatches(validation, min(recipe.batch, len(validation)), seed, shuffle=False)
    return (
        DataLoader(training, batch_sampler=batches),
        DataLoader(validation, batch_sampler=checks),
    )
