"""Trains the reliability network: first what lips and sound have in common, then the score."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from torch.utils.data import DataLoader

from avse_ppl.data.cache import SpeechCache
from avse_ppl.data.lips_cache import LipsCache
from avse_ppl.models.networks.reliability import ReliabilityNetwork
from avse_ppl.models.weights.reliability import init_from_lip_encoder, save_reliability
from avse_ppl.training.reliability_data import AVClips, ClipBatches, collate
from avse_ppl.training.reliability_phases import (
    AVSyncTraining,
    QualityTraining,
    calibrate,
    calibrate_apart,
)
from avse_ppl.video.quality.features import SOUND_HZ

OUT_OF_SYNC = ("shift", "other-speaker")


@dataclass(frozen=True)
class ReliabilityRecipe:
    """How the reliability network is trained.

    Parameters
    ----------
    agreement_epochs, epochs
        Passes of the two phases.
    clips, batch, score_batch
        Clips of a pass, of a step of the first phase, and of the second.
    dev_clips
        Held-out clips to validate and calibrate on.
    learning_rate, score_rate
        Of the phases, falling to 0 as a cosine.
    snr_db
        Range of the signal-to-noise ratio of the sound, dB.
    """

    agreement_epochs: int = 4
    epochs: int = 9
    clips: int = 800
    batch: int = 12
    score_batch: int = 5
    dev_clips: int = 120
    learning_rate: float = 1.5e-3
    score_rate: float = 2e-3
    snr_db: tuple[float, float] = (-5.0, 15.0)


@dataclass(frozen=True)
class ReliabilityTrainingData:
    """Speech, the lips that spoke it, and noise, all cached."""

    speech: SpeechCache
    lips: Sequence[LipsCache]
    noise: SpeechCache


def train_reliability(
    recipe: ReliabilityRecipe,
    materials: ReliabilityTrainingData,
    output: str | Path,
    *,
    name: str,
    data: Mapping[str, Any],
    seed: int = 0,
    device: str = "cpu",
    workers: int = 0,
    resume: bool = True,
    progress: bool = False,
    settings: Mapping[str, int] | None = None,
    eyes: str | Path | None = None,
) -> Path:
    """Fit the reliability network and write its weights, config and model card.

    1. "agreement": which sound belongs to which lips, learned from noisy mixtures;
    2. "pictures": score and cause of clips that are corrupted in the trained ways, by what is seen;
    3. calibration on held-out people: of the score, and of how far the sound lowers it.

    Parameters
    ----------
    recipe, materials
        How, and on what.
    output, name, data, seed, device, workers, resume, progress
        As for `avse_ppl.training.train`.
    settings
        Sizes of the network; None for the defaults.
    eyes
        Visual encoder whose weights the tower of the lips takes, all but the last layer as they
        are: a name or a folder.

    Returns
    -------
    Path
        The folder, readable by ``load_reliability``.

    Raises
    ------
    ValueError
        If a split has no clip with lips, a cache is not at 16 kHz, or the training diverges.
    """
    for cache in (materials.speech, materials.noise):
        if cache.sample_rate_hz != SOUND_HZ:
            raise ValueError(
                f"expected sound cached at {SOUND_HZ} Hz, found {cache.sample_rate_hz} Hz; "
                f"build the cache with sample_rate_hz={SOUND_HZ}"
            )
    run = _Run(recipe, materials, Path(output), seed, device, workers, resume, progress)
    pl.seed_everything(seed, verbose=False)
    network = ReliabilityNetwork(**(settings or {}))
    taken = [] if eyes is None else init_from_lip_encoder(network, eyes)
    rate = recipe.learning_rate
    # One after the other: each says in its beginning what of the network is learned. A tower keeps
    # what it starts from if that is whole: the first layer of some encoders is another.
    whole = "motion.weight" in taken
    first = AVSyncTraining(network, rate, recipe.agreement_epochs, frozen=whole)
    metrics = {"agreement": run.fit("agreement", first, Clips(corrupted=False))}
    second = QualityTraining(network, recipe.score_rate, recipe.epochs)
    metrics["pictures"] = run.fit("pictures", second, Clips(heard=False))
    network = network.cpu().eval().requires_grad_(False)
    temperature, offset = calibrate(network, run.checks(Clips(heard=False)))
    metrics["calibration"] = {"temperature": temperature, "offset": offset}
    metrics["apart"] = calibrate_apart(network, run.checks(Clips(names=OUT_OF_SYNC)))
    told = {f"metrics of the {key} phase (val: held-out people)": v for key, v in metrics.items()}
    return save_reliability(
        output, network, name=name, card={**data, "seed": seed, **told, "recipe": recipe}
    )


@dataclass(frozen=True)
class Clips:
    """What is done to clips, see `AVClips`."""

    corrupted: bool = True
    heard: bool = True
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Run:
    recipe: ReliabilityRecipe
    materials: ReliabilityTrainingData
    output: Path
    seed: int
    device: str
    workers: int
    resume: bool
    progress: bool

    def fit(self, phase: str, module: Any, clips: Clips) -> dict[str, float]:
        """Train one phase for so many epochs, or for what is left of them."""
        pl.seed_everything(self.seed, verbose=False)
        folder = self.output / "checkpoints" / phase
        # Not only after a validation, which is at the end.
        saver = ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=True)
        bar = [RichProgressBar()] if self.progress else []
        trainer = pl.Trainer(
            max_epochs=module.epochs, accelerator="gpu" if self.device == "cuda" else self.device,
            devices=1, callbacks=[saver, *bar], logger=False,
            default_root_dir=self.output, enable_progress_bar=self.progress,
            enable_model_summary=False, gradient_clip_val=2.0, num_sanity_val_steps=0,
            use_distributed_sampler=False, check_val_every_n_epoch=max(module.epochs, 1),
        )  # fmt: skip
        last, begin = folder / "last.ckpt", time.process_time()
        trainer.fit(
            module,
            self._loader("train", clips),
            self.checks(clips),
            ckpt_path=last if self.resume and last.exists() else None,
            weights_only=True,
        )
        cpu_s = time.process_time() - begin
        found = trainer.validate(module, self.checks(clips), verbose=False)[0]
        return {
            **{key: float(v) for key, v in found.items()}, "epochs": module.epochs, "cpu_s": cpu_s,
        }  # fmt: skip

    def checks(self, clips: Clips) -> DataLoader:
        """Load held-out clips, the same each time."""
        return self._loader("dev", clips)

    def _loader(self, split: str, wanted: Clips) -> DataLoader:
        recipe, materials = self.recipe, self.materials
        clips = AVClips(
            materials.speech, materials.lips, materials.noise, split, recipe.snr_db,
            wanted.corrupted, wanted.heard, wanted.names,
        )  # fmt: skip
        learned = split == "train"
        count = recipe.clips if learned else recipe.dev_clips
        batch = recipe.score_batch if wanted.corrupted else recipe.batch
        batches = ClipBatches(clips, batch, count, self.seed, shuffle=learned)
        workers = self.workers if learned else 0
        return DataLoader(
            clips, batch_sampler=batches, num_workers=workers, collate_fn=collate,
            persistent_workers=workers > 0,
        )  # fmt: skip
