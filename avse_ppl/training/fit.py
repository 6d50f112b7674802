"""The training loop of the VAE family."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from torch import Tensor
from torch.utils.data import DataLoader

from avse_ppl.corpora.cache import SpeechCache
from avse_ppl.models.weights import CLEAN_START_GAIN_DB, NETWORKS, save_weights
from avse_ppl.stft import Stft
from avse_ppl.training.data import CropBatches, MixtureCrops, SpeechCrops
from avse_ppl.training.recipes import Recipe

Precision = Literal["32-true", "bf16-mixed"]
_PATIENCE = 20  # steps
POWER_FLOOR = 1e-6  # -60 dB below active speech: keeps digital silence out of the logarithm


class VaeTraining(pl.LightningModule):
    r"""First phase: negative ELBO of a speech VAE, nats a frame.

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
    """

    def __init__(self, recipe: Recipe, stft: Stft) -> None:
        """Build the network."""
        super().__init__()
        self.recipe, self.stft, self.epochs, self.seed = recipe, stft, recipe.epochs, 0
        self.left_out = 0
        self.network: Any = NETWORKS[recipe.network](freq=stft.freq, **recipe.settings)

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        """Loss and its parts, of crops ``(crop, sample)``."""
        power = _power(self.stft.forward(batch))
        mean, logvar, z = (a.float() for a in self.network.encode(power, sample=True))
        log_power = self.network.decode(z).float()
        fit = (log_power + power * torch.exp(-log_power)).sum(-2).mean()
        kl = 0.5 * (mean.square() + logvar.exp() - logvar - 1.0).sum(-2).mean()
        warm = min(1.0, (self.current_epoch + 1) / max(1, self.recipe.kl_warmup_epochs))
        weight = warm * self.recipe.kl_weight if self.training else 1.0
        return {"loss": fit + weight * kl, "fit": fit, "kl": kl}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the draws of each step, so that a resumed run draws what a whole one would."""
        torch.manual_seed(hash((self.seed, self.current_epoch, batch_idx)))

    def on_validation_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Draw the same for each validation."""
        torch.manual_seed(hash((self.seed, batch_idx)))

    def training_step(self, batch: Tensor, _index: int) -> Tensor:
        """One step's loss."""
        losses = self.losses(batch)
        self.log_dict(losses, prog_bar=True)
        return losses["loss"]

    def validation_step(self, batch: Tensor, _index: int) -> None:
        """Log the losses on unseen speakers."""
        values = {f"val_{key}": value for key, value in self.losses(batch).items()}
        self.log_dict(values, prog_bar=True, batch_size=len(batch))

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip; leave a step out whose gradient has overflowed, stop if that keeps happening."""
        trained = [p for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(trained, gradient_clip_val)
        self.left_out = 0 if bool(norm.isfinite()) else self.left_out + 1
        if self.left_out:
            optimizer.zero_grad()
        if self.left_out > _PATIENCE:
            raise ValueError(
                f"training has diverged: {self.left_out} gradients in a row were not finite; lower "
                "the recipe's learning rate, and start over with --no-resume"
            )

    def configure_optimizers(self) -> Any:
        """Adam along a cosine down to a hundredth of its rate."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=self.recipe.learning_rate)

        def factor(epoch: int) -> float:
            return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))

        return [optimiser], [torch.optim.lr_scheduler.LambdaLR(optimiser, factor)]


class EncoderTraining(VaeTraining):
    r"""Second phase: the encoder learns the posterior of the latents given a mixture.

    .. math:: -E_{p(s, x)} E_{q_0(z | s)} \log q(z | x)

    with :math:`q_0` the encoder that the first phase left, looking at the clean speech (neural
    posterior estimation). The decoder stays what clean speech made it. Inference then starts near
    the right answer even in loud noise, and goes on from there.

    Parameters
    ----------
    recipe, stft
        As before.
    network
        What the first phase left; its encoder is trained in place.

    References
    ----------
    Papamakarios and Murray, "Fast epsilon-free inference of simulation models with Bayesian
    conditional density estimation", NeurIPS 2016.
    """

    def __init__(self, recipe: Recipe, stft: Stft, network: Any) -> None:
        """Keep a frozen copy of the network as the teacher; freeze the decoder."""
        super().__init__(recipe, stft)
        self.teacher = copy.deepcopy(network).requires_grad_(False)
        self.network = network
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name.startswith("encoder"))

    def losses(self, batch: Tensor) -> dict[str, Tensor]:
        """Loss of pairs of speech and noise, ``(crop, 2, sample)``."""
        speech, noise = self.stft.forward(batch).unbind(1)
        seen = _power(speech + noise)
        level = seen.mean((-2, -1), keepdim=True)  # as a mixture is normalised for inference
        with torch.no_grad():
            z = self.teacher.encode(_power(speech) / level, sample=True)[2].float()
        mean, logvar, _ = (a.float() for a in self.network.encode(seen / level))
        terms = logvar + (z - mean).square() * torch.exp(-logvar)
        return {"loss": 0.5 * (terms + math.log(2 * math.pi)).sum(-2).mean()}


def _power(values: Tensor) -> Tensor:
    return values.real.square() + values.imag.square() + POWER_FLOOR


def train(
    recipe: Recipe,
    cache: SpeechCache,
    output: str | Path,
    *,
    name: str,
    data: Mapping[str, Any],
    noise: SpeechCache | None = None,
    stft: Stft | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "32-true",
    workers: int = 0,
    resume: bool = True,
    progress: bool = True,
) -> Path:
    """Fit a prior to cached speech and write its weights, config and model card.

    Two phases: encoder and decoder on clean speech; then, if there is noise, the encoder alone on
    mixtures. The run is seeded, leaves a checkpoint after every epoch, and picks the last one up
    when called again with the same ``output``.

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
    noise
        Cached noise for the second phase; without it that phase is left out.
    stft
        Front end; by default the field's 1024-sample sine window with hop 256 at 16 kHz.
    seed, device
        Seed of everything random, and ``"auto"``, ``"cpu"`` or ``"cuda"``.
    precision
        ``"32-true"``, or ``"bf16-mixed"``: nearly twice as fast where the hardware has bfloat16.
    workers
        Processes that cut and vary the crops while this one trains; the result is the same.
    resume
        Whether to continue from the last checkpoint if there is one.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Path
        The folder, readable by ``load_speech``.

    Raises
    ------
    ValueError
        If a cache has no clip in one of the splits, or is at another rate than ``stft``; or if the
        training diverges.
    """
    stft, output = stft or Stft(), Path(output)
    for what in [cache] if noise is None else [cache, noise]:
        if what.sample_rate_hz != stft.sample_rate_hz:
            raise ValueError(
                f"the cache is at {what.sample_rate_hz} Hz, the front end at "
                f"{stft.sample_rate_hz} Hz; build the cache with "
                f"sample_rate_hz={stft.sample_rate_hz}"
            )
    run = _Run(recipe, stft, output, seed, device, precision, workers, resume, progress)
    crop, longer = (
        round(crop_s * stft.sample_rate_hz) for crop_s in (recipe.crop_s, recipe.encoder_crop_s)
    )
    speech = [SpeechCrops(cache, split, crop, stft) for split in ("train", "dev")]
    pl.seed_everything(seed, verbose=False)  # of the weights that the first phase starts from
    first = VaeTraining(recipe, stft)
    start_gain_db = CLEAN_START_GAIN_DB
    metrics = {"speech": run.fit(first, "speech", recipe.epochs, recipe.batch, *speech)}
    if noise is not None and recipe.encoder_epochs > 0:
        mixtures = [
            MixtureCrops(cache, split, longer, stft, noise, recipe.snr_db)
            for split in ("train", "dev")
        ]
        start_gain_db = 0.0
        last = EncoderTraining(recipe, stft, first.network)
        metrics["encoder"] = run.fit(
            last, "encoder", recipe.encoder_epochs, recipe.encoder_batch, *mixtures
        )
    return save_weights(
        output, first.network, recipe.network, dict(recipe.settings), stft, name=name,
        card={**data, "seed": seed, **_card_metrics(metrics), "recipe": recipe},
        start_gain_db=start_gain_db,
    )  # fmt: skip


@dataclass(frozen=True)
class _Run:
    """What all phases of a training share."""

    recipe: Recipe
    stft: Stft
    output: Path
    seed: int
    device: str
    precision: Precision
    workers: int
    resume: bool
    progress: bool

    def fit(
        self,
        module: VaeTraining,
        phase: str,
        epochs: int,
        batch: int,
        train: SpeechCrops,
        dev: SpeechCrops,
    ) -> dict[str, float]:
        """Train for so many epochs, or for what is left of them; return what was measured."""
        pl.seed_everything(self.seed, verbose=False)
        module.epochs, module.seed = epochs, self.seed
        folder = self.output / "checkpoints" / phase
        saver = ModelCheckpoint(folder, save_last=True)
        bar = [RichProgressBar()] if self.progress else []
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="gpu" if self.device == "cuda" else self.device,
            devices=1, precision=self.precision, callbacks=[saver, *bar], logger=False,
            default_root_dir=self.output, enable_progress_bar=self.progress,
            enable_model_summary=False, gradient_clip_val=5.0,
            num_sanity_val_steps=0, use_distributed_sampler=False,
        )  # fmt: skip
        recipe = self.recipe
        batches = CropBatches(train, batch, self.seed, recipe.level_jitter_db, recipe.speed)
        checks = CropBatches(dev, min(batch, len(dev)), self.seed, shuffle=False)
        last = folder / "last.ckpt"
        begin = time.process_time()
        trainer.fit(
            module,
            DataLoader(
                train,
                batch_sampler=batches,
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
            ),
            DataLoader(dev, batch_sampler=checks),
            ckpt_path=last if self.resume and last.exists() else None,
            weights_only=True,
        )
        cpu_s = time.process_time() - begin
        # Once more, so that the card has its figures also when nothing was left to train.
        found = trainer.validate(module, DataLoader(dev, batch_sampler=checks), verbose=False)[0]
        return {**{key: float(v) for key, v in found.items()}, "epochs": epochs, "cpu_s": cpu_s}


def _card_metrics(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Metrics of each phase, under a heading that says what they are."""
    return {
        f"metrics of the {phase} phase (nats a frame; val: dev split; cpu_s: the last run)": values
        for phase, values in metrics.items()
    }
