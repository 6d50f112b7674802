"""``avse-ppl predictors``: list enhancers that can take part, and fit the error law of one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avse_ppl.cli import console
from avse_ppl.cli.commands.training_data import (
    Sources,
    describe_data,
    format_command,
    list_noise,
    list_speech,
    parse_sources,
)
from avse_ppl.cli.console import JsonOption, SeedOption

if TYPE_CHECKING:
    from avse_ppl.models.predictors.combination import CombinedEnhancer
    from avse_ppl.models.predictors.error_law import ErrorLaw
    from avse_ppl.models.predictors.predictor import Predictor
    from avse_ppl.training.datasets.predicted_mixtures import PredictedMixture
    from avse_ppl.training.datasets.speech_crops import MixtureCrops
    from avse_ppl.training.phases.error_law import Case

HELP = """
List predictors: other enhancers whose answer [bold]avse-ppl enhance --predictor[/] takes as
evidence about the speech.

Beside those listed, a function of your own is one (module:function), and the description of an ONNX
model (FILE.toml); docs/guides/predictor.md says how. [bold]avse-ppl predictors fit[/] learns how
large the errors of one are.

[bold]Examples[/]

\b
  avse-ppl predictors
  avse-ppl predictors fit --help
"""
FIT_HELP = """
Fit the error law of a predictor: how large its errors are, given the mixture and its answer.

The predictor enhances mixtures of your speech and noise, each of 4 s at -8 to 12 dB, drawn from the
training split. Mixtures that are done are kept in the output: the same command goes on after an
interruption, and one with more [bold]--mixtures[/] adds to them. It ends with the law, and a card
which states this command, the data and their licences, and how often regions of 90 % hold the
speech of mixtures that were held out. [bold]avse-ppl enhance --predictor FOLDER[/] uses them.

For several predictors, joined by +, it first fits the weights with which they are combined. These
mixtures are of the development split: whatever a predictor was trained on tells nothing of how far
to believe it elsewhere.

[bold]Example[/]

\b
  avse-ppl predictors fit my_enhancer:denoise --speech grid=grid_s1 --noise noise/ -o law/
  avse-ppl predictors fit deepfilternet+my_enhancer:denoise --speech grid=grid_s1 --noise noise/ \\
    --mixtures 300 -o both/
"""
CROP_S, SNR_DB = 4.096, (-8.0, 12.0)
HELD_OUT = 10  # one mixture in so many

PredictorArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME|module:function|FILE", help="A name that is listed, a function, or a "
        "description of an ONNX model (.toml, .json).", show_default=False,
    ),
]  # fmt: skip
SpeechOption = Annotated[
    list[str],
    typer.Option(
        metavar="CORPUS=DIR", help="A corpus of clean speech; again for each further one.",
        show_default=False,
    ),
]  # fmt: skip
NoiseOption = Annotated[
    Path,
    typer.Option(
        metavar="DIR", help="Noise: CORPUS/CLASS/CLIP.ogg or CORPUS/CLASS.flac.",
        show_default=False,
    ),
]  # fmt: skip
OutputOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="Folder for the law.", show_default=False
    ),
]
MixturesOption = Annotated[int, typer.Option(min=10, help="How many mixtures.")]
NoResumeOption = Annotated[
    bool, typer.Option("--no-resume", help="Start over, whatever mixtures are done.")
]


def predictors(context: typer.Context, as_json: JsonOption = False) -> None:
    """List predictors; see ``HELP``."""
    if context.invoked_subcommand is not None:
        return
    with console.guard_errors():
        listed = list_predictors()
        if as_json:
            console.print_json(listed)
        else:
            print_predictors(listed)


def list_predictors() -> dict[str, dict[str, Any]]:
    """Describe every predictor that has a name."""
    from avse_ppl.models.predictors.adapters import PREDICTORS
    from avse_ppl.models.predictors.error_law import has_shipped_law

    return {
        name: {
            "description": entry.description,
            "installed": bool(entry.is_installed()),
            "law": has_shipped_law(name),
        }
        for name, entry in PREDICTORS.items()
    }


def print_predictors(listed: dict[str, dict[str, Any]]) -> None:
    """Print a table of predictors."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("name", "installed", "error law", "", box=None, pad_edge=False)
    for name, entry in listed.items():
        installed = "yes" if entry["installed"] else "no"
        law = "shipped" if entry["law"] else "generic"
        table.add_row(name, installed, law, escape(entry["description"]))
    console.OUT.print(table, highlight=False)
    console.print_line("Your own: --predictor module:function, or FILE.toml for an ONNX model.")
    console.print_line("Its error law: avse-ppl predictors fit.")


def fit(
    predictor: PredictorArgument,
    speech: SpeechOption,
    noise: NoiseOption,
    output: OutputOption,
    mixtures: MixturesOption = 110,
    seed: SeedOption = 0,
    no_resume: NoResumeOption = False,
) -> None:
    """Fit the error law of a predictor; see ``FIT_HELP``."""
    with console.guard_errors():
        from avse_ppl.models.predictors.adapters import resolve_predictor
        from avse_ppl.utils.files import check_folder, lock_folder

        # Check what was asked for before anything is decoded.
        sources = parse_sources(speech, noise)
        check_folder(output)
        if Path(predictor).is_dir():
            raise ValueError(
                f"'{predictor}' is a folder; expected a name that 'avse-ppl predictors' lists, "
                "module:function, or a description of an ONNX model"
            )
        found = resolve_predictor(predictor)
        if found is None:
            raise ValueError(f"'{predictor}' is no predictor, and has no errors to fit")
        with lock_folder(output):
            card = fit_folder(predictor, found, sources, output, mixtures, seed, not no_resume)
        console.print_line(
            f"SI-SDR of the mixtures {card['SI-SDR of the mixtures']}, of the predictions "
            f"{card['SI-SDR of the predictions']}; coverage {card['coverage of 90 % regions']}"
        )
        console.print_line(f"{output}: ready for avse-ppl enhance --predictor {output}")


def fit_folder(
    text: str, predictor: Predictor, sources: Sources, output: Path, count: int, seed: int,
    resume: bool,
) -> dict[str, str]:  # fmt: skip
    """Predict mixtures of the corpora, fit the law, and write both with a card; returns it."""
    from avse_ppl.data import build_cache
    from avse_ppl.models.predictors.adapters import FITTED, unwrap_combination
    from avse_ppl.signal.stft import Stft
    from avse_ppl.training.datasets.predicted_mixtures import make_case, measure_coverage
    from avse_ppl.training.datasets.speech_crops import MixtureCrops
    from avse_ppl.training.phases.error_law import fit_error_law
    from avse_ppl.utils.files import atomic_path

    # The corpora.
    stft = Stft()
    clips, noises = list_speech(sources), list_noise(sources.noise or Path())
    speech = build_cache(clips, output / "cache" / "speech", stft.sample_rate_hz)
    noise = build_cache(noises, output / "cache" / "noise", stft.sample_rate_hz)
    crop = round(CROP_S * stft.sample_rate_hz)
    combined = unwrap_combination(predictor)
    split = "train" if combined is None else "dev"
    crops = MixtureCrops(speech, split, crop, stft, noise, SNR_DB)

    # Mixtures, and what the predictor makes of them.
    pairs = output / "pairs"
    pairs.mkdir(exist_ok=True)
    if not resume:
        for place in pairs.rglob("[0-9]*.npz"):
            place.unlink()
    settings = {"predictor": fingerprint_predictor(text, predictor)}
    settings |= {"speech": fingerprint_clips(clips), "noise": fingerprint_clips(noises)}
    if combined is None:
        found = predict_with_progress(predictor, crops, count, seed, pairs, settings)
    else:
        found = fit_weights(combined, crops, count, seed, pairs, settings, output)

    # The law, of all but one mixture in ten.
    cases = [make_case(one, stft) for one in found]
    held_out = max(1, len(cases) // HELD_OUT)
    with console.make_progress_bar() as bar:
        task = bar.add_task("fitting the error law", total=None)

        def show_steps(step: int, steps: int) -> None:
            bar.update(task, completed=step, total=steps)

        law = fit_error_law(cases[:-held_out], seed, progress=show_steps)
    options = {"--mixtures": count, "--seed": seed}
    stated = format_command(name_predictor(text), sources, output, options, "predictors fit")
    data = describe_data(sources, speech, noise, stated)
    card = make_card(predictor, data, found, law, cases[-held_out:], measure_coverage, split)
    law.save(output, card)
    with atomic_path(output / FITTED) as temporary:
        content = {"predictor": refer_to_predictor(text, output)}
        temporary.write_text(f"{json.dumps(content)}\n", encoding="utf-8")
    return card


def predict_with_progress(
    predictor: Predictor, crops: MixtureCrops, count: int, seed: int, folder: Path,
    settings: dict[str, str],
) -> list[PredictedMixture]:  # fmt: skip
    """Let a predictor predict mixtures; what fails is left out, with a warning."""
    from avse_ppl.training.datasets.predicted_mixtures import predict_mixtures

    with console.make_progress_bar() as bar, console.redirect_stdout():
        task = bar.add_task(f"{predictor.name} enhances mixtures", total=count)

        def show_mixtures(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        found, failures = predict_mixtures(
            predictor, crops, count, seed, folder, settings=settings, progress=show_mixtures
        )
    if failures:
        console.print_warning(
            f"{len(failures)} of {count} predictions failed and are left out: {failures[0]}"
        )
    return found


def fit_weights(
    combined: CombinedEnhancer, crops: MixtureCrops, count: int, seed: int, folder: Path,
    settings: dict[str, str], output: Path,
) -> list[PredictedMixture]:  # fmt: skip
    """Fit and write the weights of a combination; the mixtures with its predictions."""
    from avse_ppl.training.datasets.predicted_mixtures import combine_predictions
    from avse_ppl.training.phases.combination import fit_combination

    rows = []
    for index, part in enumerate(combined.parts):
        place = folder / str(index)
        place.mkdir(exist_ok=True)
        own = settings | {"predictor": fingerprint_predictor(part.name, part)}
        rows.append(predict_with_progress(part, crops, count, seed, place, own))
    cases, finish = combine_predictions(rows, combined.stft)
    with console.make_progress_bar() as bar:
        task = bar.add_task("fitting the weights", total=None)

        def show_steps(step: int, steps: int) -> None:
            bar.update(task, completed=step, total=steps)

        held_out = max(1, len(cases) // HELD_OUT)
        weights = fit_combination(cases[:-held_out], seed, progress=show_steps)
    weights.save(output)
    return finish(weights)


def make_card(
    predictor: Predictor, data: dict[str, Any], found: list[PredictedMixture], law: ErrorLaw,
    held_out: list[Case], measure_coverage: Any, split: str,
) -> dict[str, str]:  # fmt: skip
    """Card of an error law: what it was fitted to, and how well it does."""
    from avse_ppl.evaluation.metrics import si_sdr

    def average(field: str) -> str:
        ratios = [si_sdr(one.speech, getattr(one, field)) for one in found]
        return f"{sum(ratios) / len(ratios):.2f} dB, mean of {len(ratios)}"

    def join(table: dict[str, str]) -> str:
        return "; ".join(f"{name}: {text}" for name, text in table.items())

    return {
        "name": Path(predictor.name).name,
        "corpora": join(data["corpora"]),
        "licence": join(data["licence"]),
        "split": join(data["split"]),
        "command": data["command"],
        "mixtures": f"{len(found)} of {CROP_S} s at {SNR_DB[0]:g} to {SNR_DB[1]:g} dB, of the "
        f"{'training' if split == 'train' else 'development'} split",
        "SI-SDR of the mixtures": average("mixture"),
        "SI-SDR of the predictions": average("predicted"),
        "coverage of 90 % regions": f"{100 * measure_coverage(law, held_out):.1f} % of the bins of "
        f"{len(held_out)} mixtures that were held out, of the same corpora",
    }


def is_description(text: str) -> bool:
    """Whether a predictor is a file that describes an ONNX model."""
    from avse_ppl.models.predictors.adapters import PREDICTORS

    return text not in PREDICTORS and Path(text).is_file()


def name_predictor(text: str) -> str:
    """Name of a predictor for a card: of a file without its folder."""
    from avse_ppl.models.predictors.adapters import JOINED, split_names

    names = split_names(text)
    return JOINED.join(Path(one).name if is_description(one) else one for one in names)


def refer_to_predictor(text: str, folder: Path) -> str:
    """Text by which a folder names its predictor: of a file its path from the folder."""
    from avse_ppl.models.predictors.adapters import JOINED, split_names

    return JOINED.join(
        os.path.relpath(Path(one).resolve(), folder.resolve()) if is_description(one) else one
        for one in split_names(text)
    )


def fingerprint_clips(clips: list[Any]) -> str:
    """Checksum of clips, which tells corpora apart."""
    from avse_ppl.data.cache import compute_checksum

    return compute_checksum(clips, 0, None)


def fingerprint_predictor(text: str, predictor: Predictor) -> str:
    """Hash of a predictor's name and source, or of its files, which tells its versions apart."""
    import hashlib

    from avse_ppl.models.predictors.checks import GuardedEnhancer
    from avse_ppl.models.predictors.onnx import read_description
    from avse_ppl.pipeline.resume_log import fingerprint_model

    files = []
    if is_description(text):
        files = [Path(text), Path(text).parent / read_description(text).model]
    elif ":" in text:  # a function may come from a wrapper in another module
        file = getattr(sys.modules[text.partition(":")[0]], "__file__", None)
        files = [Path(file)] if file else []
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files))
    enhance: Any = predictor.enhance
    if isinstance(enhance, GuardedEnhancer):
        enhance = enhance.enhance
    own = "" if files else fingerprint_model(enhance)
    return f"{name_predictor(text)} {digest.hexdigest()[:16]} {own}"
