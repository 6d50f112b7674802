#!/usr/bin/env python3
# fmt: off
#SBATCH --array=0-15
#SBATCH --cpus-per-task=1
#SBATCH --mem=3G
#SBATCH --time=24:00:00
# fmt: on
"""Enhance a manifest by a Slurm job array, without Ray: each task takes its share of the lines.

    sbatch --array=0-15 examples/06_slurm_array.py 16 data/wav.scp enhanced/

Task 3 of 16 takes lines 3, 19, 35, ... and writes to ``enhanced/003/``, whose manifest lists its
results. Submit a task that was killed again (``--array=3``, the rest as it was), and it goes on
where it ended. Further words are options of ``avse-ppl enhance``. Without Slurm, set what it sets:

    SLURM_ARRAY_TASK_ID=0 python examples/06_slurm_array.py 2 wav.scp enhanced/
"""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path


def read_task(tasks: str) -> tuple[int, int]:
    """Number of this task, from 0, and of all tasks."""
    found = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    if not tasks.isdigit() or not found.isdigit():
        sys.exit(
            f"expected a number of tasks, found {tasks!r}, and SLURM_ARRAY_TASK_ID, found {found!r}"
        )
    if int(found) >= int(tasks):
        sys.exit(
            f"task {found} is none of 0 to {int(tasks) - 1}; submit --array=0-{int(tasks) - 1}"
        )
    return int(found), int(tasks)


def write_share(manifest: Path, task: int, tasks: int) -> Path | None:
    """Write every so many-th line of a manifest beside it, where its relative paths hold."""
    opened = gzip.open if manifest.suffix == ".gz" else open
    with opened(manifest, "rt", encoding="utf-8-sig") as file:
        lines = [line.rstrip("\n") for line in file if line.strip()]
    ending = manifest.with_suffix("").suffix if manifest.suffix == ".gz" else manifest.suffix
    header, lines = (lines[:1], lines[1:]) if ending in (".csv", ".tsv") else ([], lines)
    mine = lines[task::tasks]
    if not mine:
        return None
    stem = manifest.name.removesuffix(".gz").removesuffix(ending)
    share = manifest.with_name(f"{stem}-{task:03d}-of-{tasks:03d}{ending}")
    written = share.with_name(f".{share.name}.{os.getpid()}")
    written.write_text("\n".join([*header, *mine]) + "\n", encoding="utf-8")
    written.replace(share)
    return share


def main() -> None:
    """Enhance the share of this task."""
    from avse_ppl.cli.main import app

    if len(sys.argv) < 4:
        sys.exit("usage: 06_slurm_array.py TASKS MANIFEST OUT [options of avse-ppl enhance]")
    task, tasks = read_task(sys.argv[1])
    share = write_share(Path(sys.argv[2]), task, tasks)
    if share is None:
        print(f"task {task}: fewer recordings than tasks, nothing to do")
        return
    out = Path(sys.argv[3]) / f"{task:03d}"
    app(["enhance", "--manifest", str(share), "-o", str(out), *sys.argv[4:]])


if __name__ == "__main__":
    main()
