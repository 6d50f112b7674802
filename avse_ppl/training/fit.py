"""The training loop of the VAE family."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from torch.utils.data import DataLoader

from avse_ppl.data.cache import SpeechCache
from avse_ppl.models.weights.io import CLEAN_START_GAIN_DB, save_weights
from avse_ppl.signal.stft import Stft
from avse_ppl.training.data import CropBatches, MixtureCrops, SpeechCrops
from avse_ppl.training.phases import EncoderTraining, VaeTraining
from avse_ppl.training.recipes import Recipe

Precision = Literal["32-true", "bf16-mixed"]


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
    check_rates(stft, cache, noise)
    run = Run(recipe, stft, output, seed, device, precision, workers, resume, progress)
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
        card={**data, "seed": seed, **card_metrics(metrics), "recipe": recipe},
        start_gain_db=start_gain_db,
    )  # fmt: skip


def check_rates(stft: Stft, *caches: SpeechCache | None) -> None:
    """Raise unless all caches that are given are at the rate of the front end."""
    for cache in caches:
        if cache is not None and cache.sample_rate_hz != stft.sample_rate_hz:
            raise ValueError(
                f"the cache is at {cache.sample_rate_hz} Hz, the front end at "
                f"{stft.sample_rate_hz} Hz; build the cache with "
                f"sample_rate_hz={stft.sample_rate_hz}"
            )


@dataclass(frozen=True)
class Run:
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
        batches = CropBatches(
            train, batch, self.seed, recipe.level_jitter_db, recipe.speed, recipe.epoch_share
        )
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
                multiprocessing_context=_context(self.workers),
            ),
            DataLoader(dev, batch_sampler=checks),
            ckpt_path=last if self.resume and last.exists() else None,
            weights_only=True,
        )
        cpu_s = time.process_time() - begin
        # Once more, so that the card has its figures also when nothing was left to train.
        found = trainer.validate(module, DataLoader(dev, batch_sampler=checks), verbose=False)[0]
        return {**{key: float(v) for key, v in found.items()}, "epochs": epochs, "cpu_s": cpu_s}


def _context(workers: int) -> str | None:
    """How workers are started: JAX, where it is loaded, has threads that a fork would leave."""
    return "spawn" if workers and "jax" in sys.modules else None


def card_metrics(
    metrics: Mapping[str, Mapping[str, float]], unit: str = "nats a frame"
) -> dict[str, Any]:
    """Metrics of each phase, under a heading that says what they are."""
    return {
        f"metrics of the {phase} phase ({unit}; val: dev split; cpu_s: the last run)": values
        for phase, values in metrics.items()
    }
