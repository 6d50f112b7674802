"""Command line ``avse-ppl``, or ``python -m avse_ppl``: its commands and their help."""

from __future__ import annotations

from typing import Annotated

import typer

from avse_ppl.cli.commands import (
    compare,
    corrupt_video,
    diagnose,
    doctor,
    enhance,
    evaluate,
    import_weights,
    mix,
    models,
    predictors,
    prepare,
    reliability,
    report,
    simulate,
    summarise,
    train,
)

HELP = """
Enhance noisy speech with generative models, and get a posterior over the clean speech.

[bold]To start[/]

\b
  avse-ppl doctor                               check the installation
  avse-ppl enhance noisy.wav -o enhanced.wav    enhance a recording
  avse-ppl models                               list models and methods

Results go to stdout, or as JSON with [bold]--json[/]; warnings and errors go to stderr, one line
each. Exit code 2 means that the input was refused or that something failed. With AVSE_PPL_DEBUG=1
in the environment, an error comes with its traceback.
"""


def join_lines(text: str) -> str:
    """Join the lines of each paragraph, but of those that start with a backspace (tables)."""
    paragraphs = text.strip().split("\n\n")
    return "\n\n".join(p if p.startswith("\b") else " ".join(p.split()) for p in paragraphs)


app = typer.Typer(
    name="avse-ppl",
    help=join_lines(HELP),
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(asked: bool) -> None:
    """Print the version and exit."""
    if asked:
        from avse_ppl import __version__

        typer.echo(__version__)
        raise typer.Exit


VersionOption = Annotated[
    bool,
    typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
]


@app.callback()
def take_global_options(version: VersionOption = False) -> None:
    """Take the options that stand before a command."""


for _name, _function, _help in (
    ("enhance", enhance.enhance, enhance.HELP),
    ("compare", compare.compare, compare.HELP),
    ("diagnose", diagnose.diagnose, diagnose.HELP),
    ("report", report.report, report.HELP),
    ("evaluate", evaluate.evaluate, evaluate.HELP),
    ("mix", mix.mix, mix.HELP),
    ("simulate", simulate.simulate, simulate.HELP),
    ("summarise", summarise.summarise, summarise.HELP),
    ("prepare", prepare.prepare, prepare.HELP),
    ("reliability", reliability.reliability, reliability.HELP),
    ("corrupt-video", corrupt_video.corrupt_video, corrupt_video.HELP),
    ("train", train.train, train.HELP),
    ("import-weights", import_weights.import_weights, import_weights.HELP),
    ("models", models.models, models.HELP),
    ("doctor", doctor.doctor, doctor.HELP),
):
    app.command(_name, help=join_lines(_help))(_function)

_predictors = typer.Typer()
_predictors.callback(invoke_without_command=True, help=join_lines(predictors.HELP))(
    predictors.predictors
)
_predictors.command("fit", help=join_lines(predictors.FIT_HELP))(predictors.fit)
app.add_typer(_predictors, name="predictors")


def main() -> None:
    """Run the command that was typed."""
    app(prog_name="avse-ppl")
