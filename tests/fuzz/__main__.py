"""Fuzz campaign on the command line: ``python -m tests.fuzz --mutants 20000 --seed 1``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from tests.fuzz.campaign import Finding, make_mutant, run
from tests.fuzz.formats import FORMATS


def main() -> int:
    """Run a campaign, save the mutants that fail, and print a table; 1 if any fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--mutants", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--formats", nargs="*", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="for mutants that fail")
    options = parser.parse_args()

    numbers = range(options.first, options.first + options.mutants)
    counts: dict[str, Counter[str]] = {name: Counter() for name in options.formats}
    failures: Counter[tuple[str, str, str]] = Counter()
    console, begin, slowest = Console(), time.monotonic(), 0.0
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        found: Queue[Finding | None] = Queue()

        def work(job: int) -> None:
            try:
                folder = Path(scratch, str(job))
                for one in run(folder, options.formats, options.seed, numbers[job :: options.jobs]):
                    found.put(one)
            finally:
                found.put(None)

        workers = [pool.submit(work, job) for job in range(options.jobs)]
        columns = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()]
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task, running = bar.add_task("reading mutants", total=len(numbers)), options.jobs
            while running:
                one = found.get()
                if one is None:
                    running -= 1
                    continue
                bar.advance(task)
                counts[one.format][one.kind] += 1
                slowest = max(slowest, one.seconds)
                if not one.is_failure:
                    continue
                failures[one.format, one.kind, one.place] += 1
                place = save_mutant(Path(scratch, "0"), options, one)
                bar.print(f"[red]{one.kind}[/] {place}: {one.place} {one.text}", markup=True)
        for worker in workers:
            worker.result()

    kinds = sorted({kind for count in counts.values() for kind in count})
    table = Table("format", *kinds, title=f"{len(numbers)} mutants of seed {options.seed}")
    for name, count in counts.items():
        table.add_row(name, *[str(count[kind] or "") for kind in kinds])
    console.print(table)
    for (name, kind, place), count in failures.most_common():
        console.print(f"{count:5d}  {name}: {kind} {place}", highlight=False)
    console.print(
        f"{sum(failures.values())} failures, slowest {slowest:.1f} s, "
        f"{time.monotonic() - begin:.0f} s in all"
    )
    return 1 if failures else 0


def save_mutant(folder: Path, options: argparse.Namespace, one: Finding) -> Path:
    """Save a mutant, named by what it takes to make it again."""
    name, _, data = make_mutant(folder, options.formats, options.seed, one.number)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}_seed{options.seed}_{one.number}{FORMATS[name].suffix}"
    path.write_bytes(data)
    path.with_name(f"{path.name}.txt").write_text(f"{one.kind} {one.place}\n{one.text}\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
