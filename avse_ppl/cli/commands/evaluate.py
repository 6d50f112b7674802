"""``avse-ppl evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avse_ppl.cli.commands import console
from avse_ppl.cli.commands.console import JsonOption

if TYPE_CHECKING:
    from avse_ppl.evaluation.metrics import Scores

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

CleanOption = Annotated[Path, typer.Option(metavar="C", help="What was said, without noise.")]
NoisyOption = Annotated[Path, typer.Option(metavar="N", help="What was recorded.")]
EnhancedOption = Annotated[Path, typer.Option(metavar="E", help="What came of it.")]


def evaluate(
    clean: CleanOption, noisy: NoisyOption, enhanced: EnhancedOption, as_json: JsonOption = False
) -> None:
    """Score an enhancement; see ``HELP``."""
    with console.guarded() as remarks:
        from avse_ppl.evaluation.metrics import evaluate_pair

        with console.stdout_kept_clean():
            pair = evaluate_pair(clean, noisy, enhanced)
        if as_json:
            scores = {name: one.as_dict() for name, one in pair.items()}
            console.print_json({**scores, "gain": _gain(pair), "warnings": remarks})
        else:
            _print_table(pair)


def _gain(pair: dict[str, Scores]) -> dict[str, float | None]:
    before, after = pair["input"].as_dict(), pair["enhanced"].as_dict()
    return {
        name: None if None in (before[name], after[name]) else after[name] - before[name]  # pyright: ignore[reportOperatorIssue]
        for name in NAMES
    }


def _print_table(pair: dict[str, Scores]) -> None:
    from rich.table import Table

    table = Table("", *("input", "enhanced", "gain"), box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    before, after, gain = pair["input"].as_dict(), pair["enhanced"].as_dict(), _gain(pair)
    for key, (name, digits) in NAMES.items():
        cells = [_number(before[key], digits), _number(after[key], digits)]
        table.add_row(name, *cells, _number(gain[key], digits, sign="+"))
    console.OUT.print(table)


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return "n/a" if value is None else f"{value:{sign}.{digits}f}"
