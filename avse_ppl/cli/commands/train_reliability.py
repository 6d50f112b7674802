"""``avse-ppl train reliability``."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avse_ppl.cli.commands import console
from avse_ppl.cli.commands.training_data import (
    Sources,
    card,
    command,
    list_noise,
    list_speech,
    parse_sources,
)


@dataclass(frozen=True)
class Asked:
    """What was typed."""

    speech: Sequence[str]
    noise: Path | None
    lips: Sequence[Path]
    output: Path
    cache: Path | None = None
    epochs: int | None = None
    second_epochs: int | None = None
    seed: int = 0
    device: str = "auto"
    eyes: str | None = None
    resume: bool = True
    threads: int | None = None
    workers: int = 0


def train_reliability(asked: Asked) -> None:
    """Fit the reliability network to lips that are corrupted in known ways."""
    with console.guarded():
        sources = parse_sources(asked.speech, asked.noise)
        _check(sources, asked)
        from avse_ppl.inference.core.setup import resolve_device
        from avse_ppl.utils.files import check_folder

        device = resolve_device(asked.device).type
        cache = asked.cache or asked.output / "cache"
        check_folder(asked.output)
        check_folder(cache)
        if asked.threads is not None:
            import torch

            torch.set_num_threads(asked.threads)
        folder = _fit(asked, sources, cache, device)
        console.print_line(f"{folder}: ready for avse-ppl reliability --network {folder}")


def _check(sources: Sources, asked: Asked) -> None:
    if not sources.speech or sources.noise is None or not asked.lips:
        raise ValueError(
            "reliability learns from lips, their speech and noise: prepare a corpus that has video "
            "with 'avse-ppl prepare CORPUS DIR -o CACHE', then give --speech CORPUS=DIR --lips "
            "CACHE --noise DIR"
        )
    if importlib.util.find_spec("pytorch_lightning") is None:
        raise ImportError("training needs an optional part: pip install 'avse-ppl[train]'")


def _fit(asked: Asked, sources: Sources, cache: Path, device: str) -> Path:
    from avse_ppl.data import build_cache
    from avse_ppl.data.lips_cache import load_lips
    from avse_ppl.training.reliability import (
        ReliabilityRecipe,
        ReliabilityTrainingData,
        train_reliability,
    )

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "Checkpoint directory .* is not empty")  # on going on
    lips = [load_lips(path) for path in asked.lips]
    clips, noises = list_speech(sources), list_noise(sources.noise or Path())
    speech = build_cache(clips, cache / "speech")
    noise = build_cache(noises, cache / "noise")
    passes = {"agreement_epochs": asked.epochs, "epochs": asked.second_epochs}
    recipe = replace(ReliabilityRecipe(), **{k: v for k, v in passes.items() if v is not None})
    stated = command("reliability", sources, asked.output, _options(asked))
    told: Mapping[str, Any] = card(sources, speech, noise, stated)
    return train_reliability(
        recipe, ReliabilityTrainingData(speech, lips, noise), asked.output,
        name=asked.output.resolve().name, data=told, seed=asked.seed, device=device,
        workers=asked.workers, resume=asked.resume, progress=console.OUT.is_terminal,
        eyes=asked.eyes,
    )  # fmt: skip


def _options(asked: Asked) -> dict[str, object]:
    eyes = None if asked.eyes is None else Path(asked.eyes).name
    return {
        "--epochs": asked.epochs, "--encoder-epochs": asked.second_epochs,
        "--seed": asked.seed, "--eyes": eyes,
    }  # fmt: skip
