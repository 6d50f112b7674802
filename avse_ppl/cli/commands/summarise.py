"""``avse-ppl summarise``: a table of the speech in named segments."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avse_ppl.cli import console
from avse_ppl.cli.console import JsonOption
from avse_ppl.utils.plurals import name_count

if TYPE_CHECKING:
    from avse_ppl.posterior.segment_table import SegmentRow

HELP = """
Summarise the speech in named segments, such as words: means and credible intervals.

Each functional of the speech (its level, its F0) is computed of each waveform draw of a saved
posterior, and summarised over the draws. Prints a table, or writes it as CSV with -o: a row for
each segment and functional, with mean, sd, low, high, mcse (the Monte Carlo standard error of the
mean), and defined, the share of the draws in which it is defined, such as that of voiced ones for
f0.

[bold]Functionals[/]

\b
  level, level(300-3000)       dB re full scale; in a band of hertz
  snr, snr(300-3000)           dB, of speech and what is left of the mixture
  energy, energy(300-3000)     full scale squared times seconds
  exceeds(-40)                 probability that the level exceeds -40 dB
  exceeds(-40, 300-3000)
  voice-activity               share of the frames in which the voice is active
  f0                           Hz, median of the voiced frames (slow)

[bold]Segments[/] are CSV with the columns name, start_s, end_s (and tier, recording, if wanted), a
Praat TextGrid saved as text, or RTTM. Segments of one tier or speaker must not overlap.

[bold]Examples[/]

\b
  avse-ppl enhance noisy.wav -o enhanced.wav --posterior posterior.nc
  avse-ppl summarise posterior.nc --segments words.csv --recalibrate
  avse-ppl summarise posterior.nc --segments words.TextGrid --tier words -o table.csv
  avse-ppl summarise posterior.nc --segments turns.rttm --functional level --functional f0

The intervals say what the model does not know, which is not all there is: how often they hold the
truth on real mixtures is in docs/guides/uncertainty.md.
"""


class Interval(StrEnum):
    """Kinds of credible interval."""

    equal_tailed = "equal-tailed"
    hdi = "hdi"


PosteriorArgument = Annotated[
    Path, typer.Argument(metavar="POSTERIOR.nc", help="From avse-ppl enhance --posterior.")
]
SegmentsOption = Annotated[
    Path, typer.Option(metavar="TABLE", help="Segments: .csv, .TextGrid or .rttm.")
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="OUT.csv", help="Write the table as CSV.")
]
FunctionalOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="What to compute; give it again for more.",
        show_default="level, snr, voice-activity",
    ),
]  # fmt: skip
ProbabilityOption = Annotated[float, typer.Option(metavar="P", help="Mass of the intervals.")]
IntervalOption = Annotated[
    Interval, typer.Option(help="Between two quantiles, or the shortest (highest density).")
]
RecalibrateOption = Annotated[
    bool,
    typer.Option(
        "--recalibrate",
        help="Scale the draws first so that intervals cover as they state, as in "
        "[bold]avse-ppl enhance[/].",
    ),
]
TierOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only segments of this tier, or speaker.")
]


def summarise(
    posterior: PosteriorArgument,
    segments: SegmentsOption,
    output: OutputOption = None,
    functional: FunctionalOption = None,
    probability: ProbabilityOption = 0.9,
    interval: IntervalOption = Interval.equal_tailed,
    tier: TierOption = None,
    recalibrate: RecalibrateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Summarise segments; see ``HELP``."""
    with console.guard_errors() as remarks:
        from avse_ppl.posterior.posterior import Posterior
        from avse_ppl.posterior.segment_table import (
            DEFAULT_FUNCTIONALS,
            make_functional,
            summarise_segments,
            write_table,
        )
        from avse_ppl.signal.segments import read_segments
        from avse_ppl.utils.files import check_apart, check_writable

        # Check what was asked for.
        if output is not None:
            check_writable(output, suffixes=(".csv",))
            check_apart([output], [posterior, segments])
        names = functional or list(DEFAULT_FUNCTIONALS)
        for name in names:
            make_functional(name, ())
        found = read_segments(segments, tier)

        with console.redirect_stdout():
            loaded = Posterior.load(posterior)
            if recalibrate:
                loaded = loaded.recalibrated()
            rows = summarise_segments(
                loaded, found, names, probability=probability, interval=interval.value
            )  # type: ignore[arg-type]
            if output is not None:
                write_table(rows, output)
        if as_json:
            report = {
                "kind": str(loaded.kind), "probability": probability, "interval": interval.value,
                "rows": [asdict(row) for row in rows], "output": output and str(output),
            }  # fmt: skip
            console.print_json({**report, "warnings": [*remarks, *loaded.warnings]})
            return
        for text in loaded.warnings:
            console.print_warning(text)
        if output is not None:
            console.print_line(f"{output}: {name_count(len(rows), 'row')}, posterior {loaded.kind}")
        else:
            print_rows(rows, loaded.recordings > 1)


def print_rows(rows: list[SegmentRow], with_recording: bool) -> None:
    """Print a table for people: a line for each segment and functional."""
    from rich.table import Table

    with_tier = any(row.tier for row in rows)
    columns = ["recording"] if with_recording else []
    columns += ["tier"] if with_tier else []
    numbers = ("from, s", "to, s", "mean", "low", "high", "defined")
    columns += ["segment", *numbers[:2], "functional", *numbers[2:]]
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns:
        if column.header in numbers:
            column.justify = "right"
    for row in rows:
        cells = [str(row.recording)] if with_recording else []
        cells += [row.tier] if with_tier else []
        name = f"{row.functional}, {row.unit}" if row.unit else row.functional
        figures = ["n/a" if v != v else f"{v:.4g}" for v in (row.mean, row.low, row.high)]
        cells += [row.name, f"{row.start_s:.3f}", f"{row.end_s:.3f}", name, *figures]
        table.add_row(*cells, f"{row.defined:.0%}")
    console.OUT.print(table, markup=False)
