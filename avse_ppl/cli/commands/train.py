"""``avse-ppl train``."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from avse_ppl.cli.commands import console
from avse_ppl.cli.commands.console import Device, DeviceOption, SeedOption
from avse_ppl.cli.commands.train_options import (
    CacheOption,
    EncoderEpochsOption,
    EncoderOption,
    EpochsOption,
    EyesOption,
    LipsOption,
    NoiseOption,
    NoResumeOption,
    OutputOption,
    Precision,
    PrecisionOption,
    Prior,
    PriorArgument,
    SpeechOption,
    TeacherOption,
    ThreadsOption,
    WorkersOption,
)
from avse_ppl.cli.commands.train_reliability import Asked, train_reliability
from avse_ppl.cli.commands.training_data import (
    Sources,
    card,
    command,
    list_noise,
    list_speech,
    parse_sources,
)

if TYPE_CHECKING:
    from avse_ppl.data import SpeechCache
    from avse_ppl.data.lips_cache import LipsCache
    from avse_ppl.training import Recipe
    from avse_ppl.training.recipes import AudioVisualRecipe

HELP = """
Fit a speech prior, vae, rvae or tcvae, to clean speech; one with dynamics or eyes, dkf, srnn,
av-vae, av-cvae, av-dkf or av-rvae, on the latents of a tcvae; a diffusion, score on spectrograms
or latent-diffusion on the latents of a tcvae, with or without eyes; or noise-vae to noise; or
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
  avse-ppl train latent-diffusion --speech grid=grid_s1 --lips cache/grid_s1 -o diffusion/
  avse-ppl train noise-vae --noise noise/ --speech grid=grid_s1 -o my_noise/
"""


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
        from avse_ppl.inference.core.setup import resolve_device
        from avse_ppl.utils.files import check_folder

        kind = resolve_device(device.value).type
        cache = cache or output / "cache"
        check_folder(output)
        check_folder(cache)
        passes = {"epochs": epochs, "encoder_epochs": encoder_epochs}
        built_on = {"lips": lips or [], "teacher": teacher, "eyes": eyes, "encoder": encoder}
        _check_built_on(prior, sources, built_on)
        options = {f"--{key.replace('_', '-')}": value for key, value in passes.items()}
        options |= {"--seed": seed, "--precision": precision.value}
        options |= {"--lips": [Path(path).name for path in lips or ()]}
        options |= {f"--{key}": Path(v).name for key, v in built_on.items() if v and key != "lips"}
        stated = command(prior.value, sources, output, options)
        _limit_threads(threads)
        folder = _fit(
            prior, passes, sources, output, cache, stated, built_on,
            seed=seed, device=kind, precision=precision.value, workers=workers,
            resume=not no_resume,
        )  # fmt: skip
        use = f"--noise \"learned('{folder}')\"" if prior.of_noise else f"--speech {folder}"
        console.print_line(f"{folder}: ready for avse-ppl enhance {use}")


def _check_given(prior: Prior, sources: Sources) -> None:
    """Raise unless there is what the first phase learns from."""
    if prior.of_noise and sources.noise is None:
        raise ValueError(f"{prior.value} learns from noise: give its folder with --noise DIR")
    if not prior.of_noise and not sources.speech:
        raise ValueError(
            f"{prior.value} learns from speech: give a corpus with --speech CORPUS=DIR"
        )


def _check_built_on(prior: Prior, sources: Sources, built_on: Mapping[str, Any]) -> None:
    """Raise unless the prior is one that builds on what it is given, and has what it needs."""
    takes = _takes()
    given = {key: f"--{key}" for key, value in built_on.items() if value}
    wrong = [key for key in given if key not in takes.get(prior.value, ())]
    if wrong:
        able = [name for name, keys in takes.items() if set(wrong) <= set(keys)]
        raise ValueError(
            f"{prior.value} does not take {', '.join(given[key] for key in wrong)}; "
            f"{'this is' if len(wrong) == 1 else 'these are'} for {', '.join(able)}"
        )
    recipe = _seeing(prior)
    if recipe is not None and sources.noise is None:
        raise ValueError(f"{prior.value} learns to hear through noise: give it with --noise DIR")
    if recipe is not None and recipe.sees and not built_on["lips"]:
        raise ValueError(
            f"{prior.value} learns from lips: prepare a corpus that has video with 'avse-ppl "
            "prepare CORPUS DIR -o CACHE' and give it with --lips CACHE"
        )
    if prior.value in takes and recipe is None:
        _check_diffusion(prior, sources, built_on)


def _check_diffusion(prior: Prior, sources: Sources, built_on: Mapping[str, Any]) -> None:
    if sources.noise is not None:
        raise ValueError(f"{prior.value} learns from clean speech alone: leave --noise out")
    if built_on["eyes"] and not built_on["lips"]:
        raise ValueError(
            f"{prior.value} has nothing to see with --eyes: give prepared lips with --lips CACHE, "
            "or leave --eyes out to learn by ear"
        )


def _takes() -> dict[str, tuple[str, ...]]:
    """Which priors build on others, and on what."""
    from avse_ppl.training.recipes import AUDIO_VISUAL_RECIPES

    seeing = dict.fromkeys(AUDIO_VISUAL_RECIPES, ("lips", "teacher", "eyes", "encoder"))
    diffusion = {
        "score": ("lips", "eyes"),
        "latent-diffusion": ("lips", "teacher", "eyes"),
    }
    return {**seeing, **diffusion}


def _seeing(prior: Prior) -> AudioVisualRecipe | None:
    from avse_ppl.training.recipes import AUDIO_VISUAL_RECIPES

    return AUDIO_VISUAL_RECIPES.get(prior.value)


def _recipe(prior: Prior, passes: Mapping[str, int | None]) -> Recipe:
    """The recipe, with the passes that were asked for."""
    from avse_ppl.training.recipes import (
        AUDIO_VISUAL_RECIPES,
        DIFFUSION_RECIPES,
        RECIPES,
    )

    asked = {key: value for key, value in passes.items() if value is not None}
    if prior.value in AUDIO_VISUAL_RECIPES:  # their first phase is that of the prior
        asked |= {"prior_epochs": asked["epochs"]} if "epochs" in asked else {}
    return replace({**RECIPES, **AUDIO_VISUAL_RECIPES, **DIFFUSION_RECIPES}[prior.value], **asked)


def _fit(
    prior: Prior, passes: Mapping[str, int | None], sources: Sources, output: Path, cache: Path,
    stated: str, built_on: Mapping[str, Any], **settings: Any,
) -> Path:  # fmt: skip
    from avse_ppl.data import build_cache

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "Checkpoint directory .* is not empty")  # on going on
    # What is missing is told before anything is decoded, which takes minutes.
    built_on = {**built_on, "lips": _built_on(built_on)}
    clips = list_speech(sources) if sources.speech else None
    noise_clips = None if sources.noise is None else list_noise(sources.noise)
    spoken = None if clips is None else build_cache(clips, cache / "speech")
    noise = None if noise_clips is None else build_cache(noise_clips, cache / "noise")
    settings |= {"name": output.resolve().name, "data": card(sources, spoken, noise, stated)}
    settings |= {"progress": console.OUT.is_terminal}
    recipe = _recipe(prior, passes)
    if noise is not None and (spoken is None or prior.of_noise):
        from avse_ppl.training.noise import train_noise

        return train_noise(recipe, noise, output, speech=spoken, **settings)
    if prior.value in _takes():
        return _fit_built_on(recipe, spoken, noise, output, built_on, **settings)
    from avse_ppl.training import train as fit

    return fit(recipe, cast("SpeechCache", spoken), output, noise=noise, **settings)


def _built_on(built_on: Mapping[str, Any]) -> list[LipsCache]:
    """The prepared lips; raises if they, or weights to build on, are not there."""
    from avse_ppl.data.lips_cache import load_lips
    from avse_ppl.models.weights.io import is_shipped

    for key in ("teacher", "eyes", "encoder"):
        place = built_on[key]
        if place and not is_shipped(place) and not (Path(place) / "config.json").is_file():
            raise FileNotFoundError(
                f"--{key} {place}: no config.json there; expected a folder written by "
                "'avse-ppl train', or the name of weights of the library"
            )
    return [load_lips(path) for path in built_on["lips"]]


def _fit_built_on(
    recipe: Any, spoken: Any, noise: Any, output: Path, built_on: Mapping[str, Any], **settings: Any
) -> Path:
    """Fit a prior that has eyes or a teacher."""
    from avse_ppl.training.diffusion import (
        train_latent_diffusion,
        train_score,
    )
    from avse_ppl.training.recipes import AudioVisualRecipe
    from avse_ppl.training.seeing import TrainingData, train_audio_visual

    materials = TrainingData(spoken, noise, built_on["lips"])
    teacher, eyes = built_on["teacher"], built_on["eyes"]
    if isinstance(recipe, AudioVisualRecipe):
        return train_audio_visual(
            recipe, materials, output, teacher=teacher, lips=eyes, encoder=built_on["encoder"],
            **settings,
        )  # fmt: skip
    if recipe.network == "latent-diffusion":
        return train_latent_diffusion(
            recipe, materials, output, teacher=teacher, eyes=eyes, **settings
        )
    return train_score(recipe, materials, output, eyes=eyes, **settings)


def _limit_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
