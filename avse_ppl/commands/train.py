"""``avse-ppl train``."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from avse_ppl.commands import console
from avse_ppl.commands.console import Device, DeviceOption, SeedOption
from avse_ppl.commands.training_data import (
    Sources,
    card,
    command,
    list_noise,
    list_speech,
    parse_sources,
)

if TYPE_CHECKING:
    from avse_ppl.corpora import SpeechCache
    from avse_ppl.training import Recipe

HELP = """
Fit a speech prior, vae, rvae or tcvae, to clean speech, or noise-vae to noise.

The run is seeded, leaves a checkpoint after every epoch, and goes on from the last one when the
command is given again with the same [bold]-o[/]. It ends with weights.safetensors, config.json and
a model card, which states this command, the data and their licences.
[bold]avse-ppl enhance --speech DIR[/], or --noise "learned('DIR')", uses them.

[bold]Corpora[/] are folders as they were published:

\b
  grid            *.mkv of one speaker, the last 100 held out; in a folder
                  named *_unseen, one clip each of others, all held out
  speechocean762  list.tsv and <speaker>/<clip>.opus; speakers whose number
                  ends in 7 are held out
  lrw-ar          *.mp4; nothing is held out: it does not say who speaks

[bold]Example[/]

\b
  avse-ppl train tcvae --speech speechocean762=speechocean762 -o my_prior/
  avse-ppl train vae --speech grid=grid_s1 --noise noise/ -o my_vae/
  avse-ppl train noise-vae --noise noise/ --speech grid=grid_s1 -o my_noise/
"""


class Prior(StrEnum):
    """What can be trained."""

    vae = "vae"
    rvae = "rvae"
    tcvae = "tcvae"
    noise_vae = "noise-vae"


class Precision(StrEnum):
    """What the matrices are multiplied in."""

    single = "32-true"
    mixed = "bf16-mixed"


PriorArgument = Annotated[Prior, typer.Argument(help="Which prior to train.")]
SpeechOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CORPUS=DIR",
        help="A corpus of clean speech; give it again for each further one. noise-vae learns from "
        "it to hear noise under speech.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for weights and checkpoints.")
]
NoiseOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Noise for a second phase, in which the encoder learns to see speech through it; of "
        "noise-vae for the first: CORPUS/CLASS/CLIP.ogg or CORPUS/CLASS.flac.",
    ),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Passes of the first phase.", show_default="that of the recipe"),
]
EncoderEpochsOption = Annotated[
    int | None,
    typer.Option(min=0, help="Passes of the second phase.", show_default="that of the recipe"),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(help="bf16-mixed is nearly twice as fast where the hardware has bfloat16."),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where the decoded speech is kept, about 110 MB an hour.",
        show_default="cache/ in the output",
    ),
]
NoResumeOption = Annotated[
    bool, typer.Option("--no-resume", help="Start over, whatever checkpoints there are.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")
]

WorkersOption = Annotated[
    int, typer.Option(min=0, help="Further processes, which cut and vary the crops.")
]


def train(
    prior: PriorArgument,
    output: OutputOption,
    speech: SpeechOption = None,
    noise: NoiseOption = None,
    epochs: EpochsOption = None,
    encoder_epochs: EncoderEpochsOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.single,
    cache: CacheOption = None,
    no_resume: NoResumeOption = False,
    threads: ThreadsOption = None,
    workers: WorkersOption = 1,
) -> None:
    """Fit a prior; see ``HELP``."""
    with console.guarded():
        sources = parse_sources(speech or (), noise)
        _check_given(prior, sources)
        if importlib.util.find_spec("pytorch_lightning") is None:
            raise ImportError("training needs an optional part: pip install 'avse-ppl[train]'")
        from avse_ppl._outputs import check_folder
        from avse_ppl.inference.setup import resolve_device

        kind = resolve_device(device.value).type
        cache = cache or output / "cache"
        check_folder(output)
        check_folder(cache)
        passes = {"epochs": epochs, "encoder_epochs": encoder_epochs}
        options = {f"--{key.replace('_', '-')}": value for key, value in passes.items()}
        options |= {"--seed": seed, "--precision": precision.value}
        stated = command(prior.value, sources, output, options)
        _limit_threads(threads)
        folder = _fit(
            prior, passes, sources, output, cache, stated,
            seed=seed, device=kind, precision=precision.value, workers=workers,
            resume=not no_resume,
        )  # fmt: skip
        use = f"--noise \"learned('{folder}')\"" if _of_noise(prior) else f"--speech {folder}"
        console.print_line(f"{folder}: ready for avse-ppl enhance {use}")


def _of_noise(prior: Prior) -> bool:
    return prior is Prior.noise_vae


def _check_given(prior: Prior, sources: Sources) -> None:
    """Raise unless there is what the first phase learns from."""
    if _of_noise(prior) and sources.noise is None:
        raise ValueError(f"{prior.value} learns from noise: give its folder with --noise DIR")
    if not _of_noise(prior) and not sources.speech:
        raise ValueError(
            f"{prior.value} learns from speech: give a corpus with --speech CORPUS=DIR"
        )


def _recipe(prior: Prior, passes: Mapping[str, int | None]) -> Recipe:
    """The recipe, with the passes that were asked for."""
    from avse_ppl.training import RECIPES

    asked = {key: value for key, value in passes.items() if value is not None}
    return replace(RECIPES[prior.value], **asked)


def _fit(
    prior: Prior, passes: Mapping[str, int | None], sources: Sources, output: Path, cache: Path,
    stated: str, **settings: Any,
) -> Path:  # fmt: skip
    from avse_ppl.corpora import build_cache

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "Checkpoint directory .* is not empty")  # on going on
    # Both lists before the first is decoded, which takes minutes.
    clips = list_speech(sources) if sources.speech else None
    noise_clips = None if sources.noise is None else list_noise(sources.noise)
    spoken = None if clips is None else build_cache(clips, cache / "speech")
    noise = None if noise_clips is None else build_cache(noise_clips, cache / "noise")
    settings |= {"name": output.resolve().name, "data": card(sources, spoken, noise, stated)}
    settings |= {"progress": console.OUT.is_terminal}
    recipe = _recipe(prior, passes)
    if noise is not None and (spoken is None or _of_noise(prior)):
        from avse_ppl.training.noise import train_noise

        return train_noise(recipe, noise, output, speech=spoken, **settings)
    from avse_ppl.training import train as fit

    return fit(recipe, cast("SpeechCache", spoken), output, noise=noise, **settings)


def _limit_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
