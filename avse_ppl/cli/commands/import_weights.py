"""``avse-ppl import-weights``: convert published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avse_ppl.cli import console

HELP = """
Convert published A-VAE, RVAE, A-DKF or AV-VAE weights into a folder of weights of this library.

Only tensors are read from the checkpoint, never code. The result is a folder with
weights.safetensors, config.json and a model card, which [bold]avse-ppl enhance --speech DIR[/]
takes as a speech prior.

[bold]Example[/]

\b
  avse-ppl import-weights RVAE.pt --config config.ini -o published_rvae/
  avse-ppl enhance noisy.wav -o enhanced.wav --speech published_rvae/
"""

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="Checkpoint (.pt) with a dictionary of tensors.")
]
ConfigOption = Annotated[
    Path, typer.Option(metavar="FILE", help="The config.ini published with it.")
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder.")]


def import_weights(file: FileArgument, config: ConfigOption, output: OutputOption) -> None:
    """Convert published weights; see ``HELP``."""
    with console.guard_errors():
        from avse_ppl.models.weights.import_published import import_weights as convert
        from avse_ppl.utils.files import check_folder

        check_folder(output)
        folder = convert(file, config, output)
        console.print_line(f"{folder}: ready for avse-ppl enhance --speech {folder}")
