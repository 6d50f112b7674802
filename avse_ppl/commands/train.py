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
from avse_ppl.commands.train_reliability import Asked, train_reliability
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
Fit a speech prior, vae, rvae or tcvae, to clean speech; one with dynamics or eyes, dkf, srnn,
av-vae, av-cvae, av-dkf or av-rvae, on the latents of a tcvae; or noise-vae to noise; or
reliability, which says how far a video can be believed, to lips corrupted in known ways.

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
  lrw-ar          *.mp4; five of the people that their faces tell apart

[bold]Lips[/] for the priors that see come from [bold]avse-ppl prepare[/]; clips without are
learned from by ear. What one training has found, others can build on: --teacher, --eyes and
--encoder take the folders teacher/ and lips/ that it leaves, and its weights.

[bold]Example[/]

\b
  avse-ppl train tcvae --speech speechocean762=speechocean762 -o my_prior/
  avse-ppl train vae --speech grid=grid_s1 --noise noise/ -o my_vae/
  avse-ppl train av-dkf --speech grid=grid_s1 --noise noise/ --lips cache/grid_s1 -o av_dkf/
  avse-ppl train noise-vae --noise noise/ --speech grid=grid_s1 -o my_noise/
"""


class Prior(StrEnum):
    """What can be trained."""

    vae = "vae"
    rvae = "rvae"
    tcvae = "tcvae"
    dkf = "dkf"
    srnn = "srnn"
    av_vae = "av-vae"
    av_cvae = "av-cvae"
    av_dkf = "av-dkf"
    av_rvae = "av-rvae"
    noise_vae = "noise-vae"
    reliability = "reliability"


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

LipsOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="CACHE", help="Prepared lips of a corpus; again for each further one.",
        show_default=False,
    ),
]  # fmt: skip
TeacherOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Teacher of another training.")
]
EyesOption = Annotated[
    str | None, typer.Option(metavar="NAME|DIR", help="Visual encoder of another training.")
]
EncoderOption = Annotated[
    str | None, typer.Option(metavar="NAME|DIR", help="Prior whose encoder is taken as it is.")
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
    lips: LipsOption = None,
    teacher: TeacherOption = None,
    eyes: EyesOption = None,
    encoder: EncoderOption = None,
) -> None:
    """Fit a prior; see ``HELP``."""
    if prior is Prior.reliability:
        asked = Asked(
            speech or (), noise, lips or (), output, cache, epochs, encoder_epochs, seed,
            device.value, eyes, not no_resume, threads, workers,
        )  # fmt: skip
        return train_reliability(asked)
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
        built_on = {"lips": lips or [], "teacher": teacher, "eyes": eyes, "encoder": encoder}
        _check_built_on(prior, sources, built_on)
        options = {f"--{key.replace('_', '-')}": value for key, value in passes.items()}
        options |= {"--seed": seed, "--precision": precision.value}
        options |= {f"--{key}": Path(v).name for key, v in built_on.items() if v and key != "lips"}
        stated = command(prior.value, sources, output, options)
        _limit_threads(threads)
        folder = _fit(
            prior, passes, sources, output, cache, stated, built_on,
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


def _check_built_on(prior: Prior, sources: Sources, built_on: Mapping[str, Any]) -> None:
    """Raise unless the prior is one that builds on others, where it is given any."""
    from avse_ppl.training.recipes import SEEING_RECIPES

    recipe = SEEING_RECIPES.get(prior.value)
    given = [f"--{key}" for key, value in built_on.items() if value]
    if recipe is None and given:
        raise ValueError(
            f"{prior.value} does not take {', '.join(given)}; these are for "
            f"{', '.join(SEEING_RECIPES)}"
        )
    if recipe is not None and sources.noise is None:
        raise ValueError(f"{prior.value} learns to hear through noise: give it with --noise DIR")
    if recipe is not None and recipe.sees and not built_on["lips"]:
        raise ValueError(
            f"{prior.value} learns from lips: prepare a corpus that has video with 'avse-ppl "
            "prepare CORPUS DIR -o CACHE' and give it with --lips CACHE"
        )


def _recipe(prior: Prior, passes: Mapping[str, int | None]) -> Recipe:
    """The recipe, with the passes that were asked for."""
    from avse_ppl.training.recipes import RECIPES, SEEING_RECIPES

    asked = {key: value for key, value in passes.items() if value is not None}
    if prior.value in SEEING_RECIPES:  # their first phase is that of the prior
        asked |= {"prior_epochs": asked["epochs"]} if "epochs" in asked else {}
    return replace({**RECIPES, **SEEING_RECIPES}[prior.value], **asked)


def _fit(
    prior: Prior, passes: Mapping[str, int | None], sources: Sources, output: Path, cache: Path,
    stated: str, built_on: Mapping[str, Any], **settings: Any,
) -> Path:  # fmt: skip
    from avse_ppl.corpora import build_cache
    from avse_ppl.training.recipes import SeeingRecipe

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
    if isinstance(recipe, SeeingRecipe):
        from avse_ppl.corpora.lips_cache import load_lips
        from avse_ppl.training.seeing import Materials, train_seeing

        prepared = [load_lips(path) for path in built_on["lips"]]
        materials = Materials(cast("SpeechCache", spoken), cast("SpeechCache", noise), prepared)
        return train_seeing(
            recipe, materials, output, teacher=built_on["teacher"], lips=built_on["eyes"],
            encoder=built_on["encoder"], **settings,
        )  # fmt: skip
    from avse_ppl.training import train as fit

    return fit(recipe, cast("SpeechCache", spoken), output, noise=noise, **settings)


def _limit_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
