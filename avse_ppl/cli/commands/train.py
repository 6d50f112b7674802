"""``avse-ppl train``: train a model by its recipe."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from avse_ppl.cli import console
from avse_ppl.cli.commands.train_options import (
    CacheOption,
    DevicesOption,
    EncoderEpochsOption,
    EncoderOption,
    EpochsOption,
    FusionOption,
    InitialOption,
    LipsOption,
    NoiseOption,
    NoResumeOption,
    OutputOption,
    Precision,
    PrecisionOption,
    PriorArgument,
    SpeechOption,
    TeacherOption,
    ThreadsOption,
    TrunkOption,
    VisualEncoderOption,
    WorkersOption,
)
from avse_ppl.cli.commands.training_data import (
    Sources,
    describe_data,
    format_command,
    list_noise,
    list_speech,
    parse_sources,
)
from avse_ppl.cli.console import Device, DeviceOption, SeedOption

HELP = """
Train a speech prior: vae, rvae or tcvae on clean speech; the dynamical dkf and srnn and the
audio-visual av-vae, av-cvae, av-dkf and av-rvae on the latents of a tcvae; the diffusion priors
score, of spectrograms, and latent-diffusion, of the latents of a tcvae, audio-only or audio-visual.
Or train noise-vae on noise; predictor, a network from mixtures to speech, on speech and noise;
av-predictor, which looks at the lips beside what a trained predictor hears, on lips as well; or
reliability, the network that scores how reliable a video is, on lips corrupted in known ways.

The run is seeded, leaves a checkpoint after every epoch, and goes on from the last one when the
command is given again with the same [bold]-o[/]. It ends with weights.safetensors, config.json and
a model card, which states this command, the data and their licences.
[bold]avse-ppl enhance --speech DIR[/], or --noise "learned('DIR')", uses them.

[bold]Corpora[/] are folders as they were published, and as [bold]avse-ppl prepare --help[/] lists
them. Of grid, the last 100 clips of one speaker are held out, and all of a folder named *_unseen;
of speechocean762, the speakers whose number ends in 7; of lrw-ar, five people.

[bold]Lips[/] for audio-visual priors come from [bold]avse-ppl prepare[/]; clips without video are
learned from audio-only. Others can build on what one training leaves: --teacher, --visual-encoder
and --encoder take its folders teacher/ and lips/, and its weights. With --initial, predictor goes
on from weights that are there, and so does the encoder of vae, rvae or tcvae, whose decoder stays.
av-predictor hears by the predictor that --trunk names, as it is, and goes on from the weights of
--fusion.

[bold]Example[/]

\b
  avse-ppl train tcvae --speech speechocean762=speechocean762 -o my_prior/
  avse-ppl train vae --speech grid=grid_s1 --noise noise/ -o my_vae/
  avse-ppl train av-dkf --speech grid=grid_s1 --noise noise/ --lips cache/grid_s1 -o av_dkf/
  avse-ppl train latent-diffusion --speech grid=grid_s1 --lips cache/grid_s1 -o diffusion/
  avse-ppl train noise-vae --noise noise/ --speech grid=grid_s1 -o my_noise/
  avse-ppl train av-predictor --speech grid=grid_s1 --noise noise/ --lips cache/grid_s1 -o av/
"""
PREDICTORS = ("predictor", "av-predictor")
PREPARE_HINT = "prepare a corpus that has video with 'avse-ppl prepare CORPUS DIR -o CACHE'"


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
    visual_encoder: VisualEncoderOption = None,
    encoder: EncoderOption = None,
    initial: InitialOption = None,
    trunk: TrunkOption = None,
    fusion: FusionOption = None,
    devices: DevicesOption = 1,
) -> None:
    """Train a model; see ``HELP``."""
    with console.guard_errors():
        sources = parse_sources(speech or (), noise)
        reused = {"lips": lips or [], "teacher": teacher}
        reused |= {"visual-encoder": visual_encoder, "encoder": encoder}
        reused |= {"initial": initial}
        reused |= {"trunk": trunk, "fusion": fusion}
        check_sources(prior, sources, reused)
        if importlib.util.find_spec("pytorch_lightning") is None:
            raise ImportError("training needs an optional part: pip install 'avse-ppl[train]'")
        from avse_ppl.inference.core.setup import resolve_device
        from avse_ppl.training.devices import check_devices, get_rank
        from avse_ppl.utils.files import check_folder

        kind = resolve_device(device.value).type
        check_devices(devices, kind)
        cache = cache or output / "cache"
        check_folder(output)
        check_folder(cache)
        check_options(prior, sources, reused)
        options: dict[str, object] = {"--epochs": epochs, "--encoder-epochs": encoder_epochs}
        options |= {"--seed": seed, "--precision": precision.value}
        options |= {"--devices": devices} if devices > 1 else {}
        options |= {"--lips": [Path(path).name for path in lips or ()]}
        options |= {f"--{key}": Path(v).name for key, v in reused.items() if v and key != "lips"}
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        folder = train_model(
            prior, {"epochs": epochs, "encoder_epochs": encoder_epochs}, sources, output, cache,
            format_command(prior, sources, output, options), reused,
            seed=seed, device=kind, precision=precision.value, workers=workers,
            resume=not no_resume, devices=devices,
        )  # fmt: skip
        if get_rank() > 0:  # the first process says what there is
            return
        use = f"enhance --speech {folder}"
        use = f"enhance --noise \"learned('{folder}')\"" if prior == "noise-vae" else use
        use = f"reliability --network {folder}" if prior == "reliability" else use
        use = f"enhance --predictor {folder}" if prior in PREDICTORS else use
        console.print_line(f"{folder}: ready for avse-ppl {use}")


def check_sources(prior: str, sources: Sources, reused: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless there is what the first phase learns from."""
    if prior == "reliability":
        if not sources.speech or sources.noise is None or not reused["lips"]:
            raise ValueError(
                f"reliability learns from lips, their speech and noise: {PREPARE_HINT}, then give "
                "--speech CORPUS=DIR --lips CACHE --noise DIR"
            )
    elif prior in PREDICTORS and (not sources.speech or sources.noise is None):
        raise ValueError(
            f"{prior} learns from mixtures: give speech with --speech CORPUS=DIR and noise with "
            "--noise DIR"
        )
    elif prior == "noise-vae" and sources.noise is None:
        raise ValueError(f"{prior} learns from noise: give its folder with --noise DIR")
    elif prior != "noise-vae" and not sources.speech:
        raise ValueError(f"{prior} learns from speech: give a corpus with --speech CORPUS=DIR")


def list_reusable() -> dict[str, tuple[str, ...]]:
    """List which options each prior takes for lips and for weights of other trainings."""
    from avse_ppl.training import AUDIO_VISUAL_RECIPES

    return {
        **dict.fromkeys(("vae", "rvae", "tcvae", "predictor"), ("initial",)),
        **dict.fromkeys(AUDIO_VISUAL_RECIPES, ("lips", "teacher", "visual-encoder", "encoder")),
        "score": ("lips", "visual-encoder"),
        "latent-diffusion": ("lips", "teacher", "visual-encoder"),
        "reliability": ("lips", "visual-encoder"),
        "av-predictor": ("lips", "visual-encoder", "trunk", "fusion"),
    }


def check_options(prior: str, sources: Sources, reused: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless the prior takes the options, and has those that it needs."""
    from avse_ppl.training import AUDIO_VISUAL_RECIPES, DIFFUSION_RECIPES

    takes = list_reusable()
    given = {key: f"--{key}" for key, value in reused.items() if value}
    wrong = [key for key in given if key not in takes.get(prior, ())]
    if wrong:
        able = [name for name, keys in takes.items() if set(wrong) <= set(keys)]
        raise ValueError(
            f"{prior} does not take {', '.join(given[key] for key in wrong)}; "
            f"{'this is' if len(wrong) == 1 else 'these are'} for {', '.join(able)}"
        )
    recipe = AUDIO_VISUAL_RECIPES.get(prior)
    if recipe is not None and sources.noise is None:
        raise ValueError(
            f"the encoder of {prior} learns from noisy speech: give noise with --noise DIR"
        )
    needs_lips = prior == "av-predictor" or (recipe is not None and recipe.audio_visual)
    if needs_lips and not reused["lips"]:
        raise ValueError(f"{prior} learns from lips: {PREPARE_HINT} and give it with --lips CACHE")
    if prior in DIFFUSION_RECIPES:
        if sources.noise is not None:
            raise ValueError(f"{prior} learns from clean speech alone: leave --noise out")
        if reused["visual-encoder"] and not reused["lips"]:
            raise ValueError(
                f"{prior} has no video for --visual-encoder: give prepared lips with --lips "
                "CACHE, or leave --visual-encoder out to train an audio-only prior"
            )


def make_recipe(prior: str, passes: Mapping[str, int | None]) -> Any:
    """Make the recipe, with the passes that were asked for."""
    from avse_ppl import training

    asked = {key: value for key, value in passes.items() if value is not None}
    if prior == "reliability":
        names = {"epochs": "sync_epochs", "encoder_epochs": "quality_epochs"}
        return replace(training.ReliabilityRecipe(), **{names[k]: v for k, v in asked.items()})
    if prior in training.AUDIO_VISUAL_RECIPES:  # their first phase is that of the prior
        asked |= {"prior_epochs": asked["epochs"]} if "epochs" in asked else {}
    recipes = {**training.RECIPES, **training.AUDIO_VISUAL_RECIPES, **training.DIFFUSION_RECIPES}
    recipes |= training.PREDICTOR_RECIPES
    return replace(recipes[prior], **asked)


def train_model(
    prior: str, passes: Mapping[str, int | None], sources: Sources, output: Path, cache: Path,
    stated: str, reused: Mapping[str, Any], **settings: Any,
) -> Path:  # fmt: skip
    """Decode the corpora, then train; what is missing raises before anything is decoded."""
    from avse_ppl import training
    from avse_ppl.data import build_cache, load_lips
    from avse_ppl.models.weights.io import is_shipped
    from avse_ppl.training.devices import get_rank

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "Checkpoint directory .* is not empty")  # on going on

    # What is there of other trainings.
    weights = {key: value for key, value in reused.items() if value and key != "lips"}
    for key, place in weights.items():
        if not is_shipped(place) and not (Path(place) / "config.json").is_file():
            raise FileNotFoundError(
                f"--{key} {place}: no config.json there; expected a folder written by "
                "'avse-ppl train', or the name of weights of the library"
            )
    lips = [load_lips(path) for path in reused["lips"]]

    # The corpora.
    clips = list_speech(sources) if sources.speech else None
    noises = None if sources.noise is None else list_noise(sources.noise)
    speech = None if clips is None else build_cache(clips, cache / "speech")
    noise = None if noises is None else build_cache(noises, cache / "noise")
    data = training.TrainingData(speech, noise, lips)
    settings |= {
        "name": output.resolve().name,
        "progress": console.OUT.is_terminal and get_rank() == 0,
    }
    settings |= {"card": describe_data(sources, speech, noise, stated)}
    settings |= {key.replace("-", "_"): value for key, value in weights.items()}

    functions = {
        "noise-vae": training.train_noise,
        "predictor": training.train_predictor,
        "av-predictor": training.train_av_predictor,
        "reliability": training.train_reliability,
        "score": training.train_score,
        "latent-diffusion": training.train_latent_diffusion,
        **dict.fromkeys(training.AUDIO_VISUAL_RECIPES, training.train_audio_visual),
    }
    fit = functions.get(prior, training.train_vae)
    return fit(make_recipe(prior, passes), data, output, **settings)
