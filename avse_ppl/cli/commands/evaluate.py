"""``avse-ppl evaluate``: score an enhancement against the clean recording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from avse_ppl.cli import console
from avse_ppl.cli.console import JsonOption

HELP = """
Score an enhancement against the clean recording, beside the noisy input.

Reports SI-SDR (dB), wide-band PESQ (1.04 to 4.64), STOI and ESTOI (at most 1), all at 16 kHz; more
is better. Lengths, rates and alignment are checked first. A score that cannot be computed is n/a,
and a warning says why; PESQ needs the optional package pesq.

[bold]Example[/]

\b
  avse-ppl evaluate --clean clean.wav --noisy noisy.wav --enhanced enhanced.wav
"""

NAMES = {
    "si_sdr_db": ("SI-SDR (dB)", 2),
    "pesq_wb": ("PESQ (wide-band)", 2),
    "stoi": ("STOI", 3),
    "estoi": ("ESTOI", 3),
}

CleanOption = Annotated[Path, typer.Option(metavar="C", help="Speech without noise.")]
NoisyOption = Annotated[Path, typer.Option(metavar="N", help="Speech as it was recorded.")]
EnhancedOption = Annotated[Path, typer.Option(metavar="E", help="Result of the enhancement.")]


def evaluate(
    clean: CleanOption, noisy: NoisyOption, enhanced: EnhancedOption, as_json: JsonOption = False
) -> None:
    """Score an enhancement; see ``HELP``."""
    with console.guard_errors() as remarks:
        from avse_ppl.evaluation.metrics import evaluate_pair

        with console.redirect_stdout():
            pair = evaluate_pair(clean, noisy, enhanced)
        scores: dict[str, Any] = {name: one.as_dict() for name, one in pair.items()}
        before, after = scores["input"], scores["enhanced"]
        scores["gain"] = {
            name: None if None in (before[name], after[name]) else after[name] - before[name]
            for name in NAMES
        }
        if as_json:
            console.print_json({**scores, "warnings": remarks})
        else:
            print_scores(scores)


def print_scores(scores: dict[str, dict[str, float | None]]) -> None:
    """Print a table of the scores of input and enhancement, and of the gain."""
    from rich.table import Table

    columns = ("input", "enhanced", "gain")
    table = Table("", *columns, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for key, (name, digits) in NAMES.items():
        values = [scores[column][key] for column in columns]
        signs = ("", "", "+")
        table.add_row(name, *(
            "n/a" if value is None else f"{value:{sign}.{digits}f}"
            for value, sign in zip(values, signs, strict=True)
        ))  # fmt: skip
    console.OUT.print(table)
