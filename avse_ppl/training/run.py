"""The training loop that all models share: Lightning, checkpoints, resuming, validation figures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar

from avse_ppl.data.cache import LipsCache, SpeechCache
from avse_ppl.training.checkpoints import AtomicCheckpointIO
from avse_ppl.training.datasets.loaders import Loaders
from avse_ppl.training.devices import choose_folder, choose_strategy, share_batches
from avse_ppl.training.objective import Objective
from avse_ppl.utils.files import lock_folder

Precision = Literal["32-true", "bf16-mixed"]
SPLITS = ("train", "dev")


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on.

    Parameters
    ----------
    speech
        Cached speech.
    noise
        Cached noise.
    lips
        Prepared lips of those clips of speech that have a video.
    """

    speech: SpeechCache | None = None
    noise: SpeechCache | None = None
    lips: Sequence[LipsCache] = ()

    def require_speech(self, sample_rate_hz: int) -> SpeechCache:
        """Get the speech; raises ``ValueError`` without any, or at another rate."""
        return check_cache(self.speech, "speech", sample_rate_hz)

    def require_noise(self, sample_rate_hz: int) -> SpeechCache:
        """Get the noise; raises ``ValueError`` without any, or at another rate."""
        return check_cache(self.noise, "noise", sample_rate_hz)


def check_cache(cache: SpeechCache | None, what: str, sample_rate_hz: int) -> SpeechCache:
    """Check that there is a cache, at the rate of the front end.

    Raises
    ------
    ValueError
        If there is none, or its rate is another.
    """
    if cache is None:
        raise ValueError(f"there is no {what} to learn from: give TrainingData({what}=...) a cache")
    if cache.sample_rate_hz != sample_rate_hz:
        raise ValueError(
            f"the cache of {what} is at {cache.sample_rate_hz} Hz, the front end at "
            f"{sample_rate_hz} Hz; build the cache with sample_rate_hz={sample_rate_hz}"
        )
    return cache


@dataclass(frozen=True)
class Run:
    """One training: its folder, its settings, and the figures of the phases that it has done.

    Parameters
    ----------
    output
        Folder for the weights and, while training, ``checkpoints/``.
    seed
        Seed of everything random.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    precision
        ``"32-true"``, or ``"bf16-mixed"``: nearly twice as fast where the hardware has bfloat16.
    workers
        Processes that cut and augment the examples while this one trains; the result is the same.
    resume
        Whether to continue from the last checkpoint if there is one.
    progress
        Whether to show a progress bar.
    devices
        How many devices of this machine train, each on its share of the batches: a step is as one
        on that many batches together. Lightning starts a process for each, which runs the command
        again.
    """

    output: Path
    seed: int = 0
    device: str = "cpu"
    precision: Precision = "32-true"
    workers: int = 0
    resume: bool = True
    progress: bool = False
    devices: int = 1
    metrics: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    checkpoints: Path = field(init=False)  # the same in all processes

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoints", self.output / "checkpoints")
        object.__setattr__(self, "output", choose_folder(self.output))

    def seed_weights(self) -> None:
        """Seed the generators that new layers draw their weights from."""
        pl.seed_everything(self.seed, verbose=False)

    def fit(self, phase: str, objective: Objective, loaders: Loaders) -> None:
        """Train for the epochs of an objective, or for what is left of them; validate at the end.

        A checkpoint is left after every epoch, and the last one is picked up. The figures of the
        validation go to `metrics`.

        Parameters
        ----------
        phase
            Name of the phase, for its checkpoints and figures.
        objective
            What is minimised.
        loaders
            Batches to train and to validate on.

        Raises
        ------
        BlockingIOError
            If another run trains into the folder.
        ValueError
            If the checkpoint is damaged, or the training diverges.
        """
        pl.seed_everything(self.seed, verbose=False)
        objective.seed, epochs = self.seed, objective.epochs
        folder = self.checkpoints / phase
        every = objective.validate_each_epoch
        # One file, replaced after every epoch.
        saver = ModelCheckpoint(
            folder, filename="last", enable_version_counter=False,
            save_on_train_epoch_end=None if every else True,
        )  # fmt: skip
        bar = [RichProgressBar()] if self.progress else []
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="gpu" if self.device == "cuda" else self.device,
            devices=self.devices, strategy=choose_strategy(self.devices),
            precision=self.precision, callbacks=[saver, *bar], logger=False,
            default_root_dir=self.output, enable_progress_bar=self.progress,
            enable_model_summary=False, gradient_clip_val=objective.gradient_clip,
            num_sanity_val_steps=0, use_distributed_sampler=False,
            check_val_every_n_epoch=1 if every else max(epochs, 1),
            plugins=[AtomicCheckpointIO()],
        )  # fmt: skip
        last = folder / "last.ckpt"
        begin = time.process_time()
        with lock_folder(self.output):
            trainer.fit(
                objective,
                share_batches(loaders.train, self.devices),
                loaders.dev,
                ckpt_path=last if self.resume and last.exists() else None,
                weights_only=True,
            )
        cpu_s = time.process_time() - begin
        # Once more, so that the card has its figures also when nothing was left to train.
        found = trainer.validate(objective, loaders.dev, verbose=False)[0]
        figures = {key: float(value) for key, value in found.items()}
        self.metrics[phase] = {**figures, "epochs": epochs, "cpu_s": cpu_s}

    def make_card(
        self,
        card: Mapping[str, Any],
        recipe: object = None,
        unit: str = "nats a frame",
        phases: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Complete a model card by the seed, the figures of each phase, and the recipe.

        Parameters
        ----------
        card
            What the card states of the data.
        recipe
            What the model was trained with, if it is to be stated.
        unit
            Of the losses.
        phases
            Whose figures are stated; all by default.
        """
        figures = {
            f"metrics of the {phase} phase ({unit}; val: dev split; cpu_s: the last run)": values
            for phase, values in self.metrics.items()
            if phases is None or phase in phases
        }
        stated = {} if recipe is None else {"recipe": recipe}
        return {**card, "seed": self.seed, **figures, **stated}
