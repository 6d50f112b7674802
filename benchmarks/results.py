"""Results of benchmarks as files: `results/NAME.json` holds the tables of one benchmark.

A table is columns and rows. A row is a set of named values, ``{"si_sdr": 9.14, "pesq": 1.664}``; a
column says how its cell is put together from them, ``"{si_sdr:.2f} / {pesq:.3f}"``. The table that
has the name of its benchmark is the main one; others are called ``benchmark.part``. A single figure
is ``TABLE.ROW.VALUE``, or ``TABLE.ROW.COLUMN`` for a whole cell.
"""

from __future__ import annotations

import datetime
import json
import string
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

Value = float | int | str | None  # None: was measured and has no value
QUALITY = "{si_sdr:.2f} / {pesq:.3f} / {estoi:.3f}"


class _CellFormatter(string.Formatter):
    """Format strings over the values of a row, any of which may be absent."""

    def get_value(self, key: int | str, args: Any, kwargs: Any) -> Any:
        return kwargs.get(key, "")

    def format_field(self, value: Any, format_spec: str) -> str:
        if value is None:
            return "n/a"
        return value if isinstance(value, str) else format(value, format_spec)


def list_fields(text: str) -> dict[str, str]:
    """The values that a format string names, each with its format."""
    parts = string.Formatter().parse(text)
    return {name: spec or "" for _, name, spec, _ in parts if name}


@dataclass(frozen=True)
class Column:
    """One column: its name in figures, its heading, and the format of its cells."""

    name: str
    heading: str
    text: str

    def format_cell(self, row: dict[str, Value]) -> str:
        """Format the cell of a row; it is empty where the row has none of its values.

        Example
        -------
        >>> Column("all", "all", "{si_sdr:.2f} / {pesq:.3f}").format_cell({"si_sdr": 9, "pesq": 1})
        '9.00 / 1.000'
        """
        if not any(name in row for name in list_fields(self.text)):
            return ""
        return _CellFormatter().vformat(self.text, (), row)


@dataclass
class Table:
    """One table, and when and where its rows were measured."""

    columns: list[Column]
    rows: dict[str, dict[str, Value]] = field(default_factory=dict)
    note: str = ""  # what this run was measured on, where it depends on the run
    date: str = ""
    machine: str = ""

    def add_row(self, key: str, **values: Any) -> None:
        """Add a row under a name of its own, and show it: benchmarks take long.

        Raises
        ------
        ValueError
            If the name has a dot or a space, which the names of figures are parted by, if it is
            taken, or if a value stands in no column.
        """
        if not key or set(key) & set(". \t\n") or key in self.rows:
            raise ValueError(
                f"expected a new name without dots and spaces for a row, found {key!r}"
            )
        known = {name for column in self.columns for name in list_fields(column.text)}
        if not values.keys() <= known:
            raise ValueError(f"no column shows {sorted(values.keys() - known)} of row {key!r}")
        self.rows[key] = {name: _round(value) for name, value in values.items()}
        print(self.format_row(key), file=sys.stderr, flush=True)

    def format_row(self, key: str) -> str:
        """One line of the Markdown table."""
        cells = [column.format_cell(self.rows[key]) for column in self.columns]
        return "| " + " | ".join(cells) + " |"

    def format_markdown(self) -> str:
        """The table in Markdown, and a line that says when and where it was measured."""
        head = "| " + " | ".join(column.heading for column in self.columns) + " |"
        rule = "| " + " | ".join("---" for _ in self.columns) + " |"
        lines = [head, rule, *(self.format_row(key) for key in self.rows)]
        note = f" {self.note}" if self.note else ""
        return "\n".join([*lines, "", f"Measured on {self.date}; {self.machine}.{note}"])

    def format_figure(self, key: str, name: str) -> str:
        """Format one value of a row, or one cell.

        Raises
        ------
        KeyError
            If there is no such row, or it has no such value.
        """
        row = self.rows[key]
        cells = {column.name: column.format_cell(row) for column in self.columns}
        for column in self.columns:
            spec = list_fields(column.text)
            if name in spec and name in row:
                return _CellFormatter().format_field(row[name], spec[name])
        if not cells.get(name):
            raise KeyError(name)
        return cells[name]


def _round(value: Any) -> Value:
    """Six digits are enough, and NaN is no JSON."""
    if value is None or isinstance(value, str | int):
        return value
    number = float(f"{float(value):.6g}")
    return number if number == number else None


def name_scores(scores: Iterable[float], suffix: str = "") -> dict[str, float]:
    """Mean SI-SDR, PESQ and ESTOI under the names that `QUALITY` formats."""
    return dict(zip((f"si_sdr{suffix}", f"pesq{suffix}", f"estoi{suffix}"), scores, strict=True))


def suffix_quality(suffix: str) -> str:
    """`QUALITY` of the values of that suffix."""
    return QUALITY.replace(":", f"{suffix}:")


def read_tables(folder: Path = RESULTS) -> dict[str, Table]:
    """All tables of all benchmarks.

    Raises
    ------
    ValueError
        If a file holds a table that is not named after it.
    """
    found: dict[str, Table] = {}
    for path in sorted(folder.glob("*.json")):
        for name, content in json.loads(path.read_text(encoding="utf-8"))["tables"].items():
            if name.split(".")[0] != path.stem:
                raise ValueError(f"{path.name}: expected tables of {path.stem}, found {name!r}")
            columns = [Column(**column) for column in content["columns"]]
            found[name] = Table(**{**content, "columns": columns})
    return found


def write_tables(benchmark: str, tables: dict[str, Table], folder: Path = RESULTS) -> None:
    """Write the file of one benchmark; its tables that are not given stay as they were."""
    kept = {n: t for n, t in read_tables(folder).items() if n.split(".")[0] == benchmark}
    content = {name: asdict(table) for name, table in {**kept, **tables}.items()}
    text = json.dumps({"name": benchmark, "tables": content}, indent=1, ensure_ascii=False)
    folder.mkdir(exist_ok=True)
    (folder / f"{benchmark}.json").write_text(text + "\n", encoding="utf-8")


def run_benchmark(
    benchmark: str,
    measure: Callable[[], dict[str, Table]],
    describe_machine: Callable[[], str],
    folder: Path = RESULTS,
) -> dict[str, Table]:
    """Measure, date the tables and write them.

    Raises
    ------
    ValueError
        If the benchmark returns a table that is not named after it, or one without rows.
    """
    tables = measure()
    for name, table in tables.items():
        if name.split(".")[0] != benchmark or not table.rows:
            raise ValueError(f"expected a table of {benchmark} with rows, found {name!r}")
        table.date = datetime.date.today().isoformat()
        table.machine = describe_machine()
    write_tables(benchmark, tables, folder)
    return tables
