"""Run benchmarks, write `results/NAME.json`, and fill the tables and figures of all pages from it.

``python benchmarks/run.py`` runs all for which the data are there, ``run.py dev_quality nuts``
those two, and ``run.py --write-docs`` none: it only fills the pages. A benchmark or a part of one
that cannot run leaves its tables as they are, with their date.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

import torch
from common import PEERS, SHARED, machine
from figures import ROOT, list_unshown, write_pages
from results import read_tables, run_benchmark

DATA = SHARED / "data"
# What each needs beside the library, and the torch threads that it is run with; None: torch's own.
BENCHMARKS: dict[str, tuple[Path | None, int | None]] = {
    "published_sample": (PEERS, 1),
    "em_family": (PEERS, 1),
    "dev_quality": (DATA, 1),
    "convergence": (DATA, 1),
    "bridge": (DATA, 1),
    "held_out_coverage": (DATA, 1),
    "functional_coverage": (DATA, 1),
    "noise_models": (DATA, 1),
    "svi": (None, 1),
    "nuts": (None, 1),
    "batching": (None, None),
    "cluster": (None, 1),
    "av_quality": (SHARED / "models" / "face", 1),
}


def run_one(name: str) -> None:
    """Run one benchmark, if its data are there, and write its tables."""
    data, threads = BENCHMARKS[name]
    if data is not None and not data.is_dir():
        print(f"{name}: left out, its data are not part of the project")
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        tables = run_benchmark(name, importlib.import_module(name).measure, machine)
    finally:
        torch.set_num_threads(before)
    for title, table in tables.items():
        print(f"\n{title}\n\n{table.format_markdown()}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for; the pages are filled after each benchmark, as it may be the last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--write-docs", action="store_true", help="only fill the pages")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    changed = []
    for name in [] if asked.write_docs else asked.names or BENCHMARKS:
        run_one(name)
        changed += write_pages()
    for page in dict.fromkeys(changed + write_pages()):
        print(f"written: {page.relative_to(ROOT)}")
    for name in list_unshown(read_tables()):
        print(f"no page shows the table {name}: give it a marker, such as <!-- table: {name} -->")


if __name__ == "__main__":
    main()
