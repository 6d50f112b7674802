"""`avse-ppl enhance --cluster local` against the plain folder mode: wall and CPU seconds, memory.

Ratios of one run, with the same number of processes of one thread each: one worker against one
command on the folder, two workers against two commands at once on a half of the folder each. CPU
seconds are of the command and of all processes that it starts, Ray's own among them.
"""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from results import Column, Table

from avse_ppl.data import mix
from avse_ppl.signal.audio import Audio, load_audio, save_audio

DATA = Path(__file__).resolve().parents[1] / "examples" / "data"
CLIPS, CLIP_S, FEW = 200, 3.0, 40
_TICK_HZ = os.sysconf("SC_CLK_TCK")


def make_table() -> Table:
    """Columns of the table."""
    return Table(
        [
            Column("what", "recordings of 3 s, method", "{what}"),
            Column("plain", "folder mode: wall, CPU s", "{plain_s:.0f}, {plain_cpu_s:.0f}"),
            Column("ray", "`--cluster local`: wall, CPU s", "{ray_s:.0f}, {ray_cpu_s:.0f}"),
            Column("wall", "ratio of wall", "{wall_ratio:.2f}"),
            Column("cpu", "ratio of CPU", "{cpu_ratio:.2f}"),
            Column("memory", "a process, most MB", "{peak_mb:.0f}"),
            Column("same", "same files", "{same}"),
        ]
    )


def measure() -> dict[str, Table]:
    """Measure the tables."""
    table = make_table()
    svi = ["--predictor", "none"]
    amortized = ["--inference", "amortized"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clips(folder / "all", range(CLIPS))
        write_clips(folder / "half0", range(0, CLIPS, 2))
        write_clips(folder / "half1", range(1, CLIPS, 2))
        write_clips(folder / "few", range(FEW))
        add_row(table, folder, "svi-1", f"{CLIPS}, svi, 1 process", ["all"], svi)
        add_row(table, folder, "svi-2", f"{CLIPS}, svi, 2 processes", ["half0", "half1"], svi)
        add_row(table, folder, "amortized-1", f"{CLIPS}, amortized, 1 process", ["all"], amortized)
        add_row(table, folder, "default-1", f"{FEW}, the default, 1 process", ["few"], [])
    return {"cluster": table}


def add_row(
    table: Table, folder: Path, key: str, what: str, parts: Sequence[str], options: Sequence[str]
) -> None:
    """Run folder mode on parts of the recordings at once, and as many workers on all of them."""
    whole = parts[0] if len(parts) == 1 else "all"
    plain = [[part, "-o", f"{key}-plain", *options] for part in parts]
    if len(parts) > 1:  # a folder of its own each, as one command locks it
        plain = [[part, "-o", f"{key}-{part}", *options] for part in parts]
    ray = [whole, "-o", f"{key}-ray", *options, "--cluster", "local", "--workers", str(len(parts))]
    plain_s, plain_cpu_s, peak = run_commands(plain, folder)
    ray_s, ray_cpu_s, _ = run_commands([ray], folder)
    places = [folder / line[2] for line in plain]
    files = [(path, folder / f"{key}-ray" / path.name) for p in places for path in p.glob("*.wav")]
    same = all(filecmp.cmp(*pair, shallow=False) for pair in files) and len(files) > 0
    table.add_row(
        key, what=what, plain_s=plain_s, plain_cpu_s=plain_cpu_s, ray_s=ray_s, ray_cpu_s=ray_cpu_s,
        wall_ratio=ray_s / plain_s, cpu_ratio=ray_cpu_s / plain_cpu_s, peak_mb=peak,
        same="yes" if same else "no",
    )  # fmt: skip


def run_commands(commands: Sequence[Sequence[str]], folder: Path) -> tuple[float, float, float]:
    """Wall and CPU seconds of commands at once, and the most MB that one process held."""
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        running = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "avse_ppl", "enhance", *words],
                cwd=folder, env=environment, stdout=log, stderr=log,
            )
            for words in commands
        ]  # fmt: skip
        seconds: dict[int, float] = {}
        peak = 0.0
        while any(process.poll() is None for process in running):
            for process in running:
                found, held = look_at(process.pid)
                seconds |= found
                peak = max(peak, held)
            time.sleep(0.2)
    if any(process.returncode for process in running):
        raise ChildProcessError(f"a command failed: {commands}")
    return time.perf_counter() - begin, sum(seconds.values()), peak


def look_at(process: int) -> tuple[dict[int, float], float]:
    """CPU seconds so far of a process and of each that descends from it; the most MB of one."""
    parents, seconds, peaks = {}, {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "stat").read_text().rpartition(")")[2].split()
            status = (place / "status").read_text()
        except OSError:
            continue
        number = int(place.name)
        parents[number], seconds[number] = int(words[1]), (int(words[11]) + int(words[12]))
        lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
        peaks[number] = int(lines[0].split()[1]) / 1024 if lines else 0.0
    family = {process} & parents.keys()
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    spent = {number: seconds[number] / _TICK_HZ for number in family}
    return spent, max((peaks[number] for number in family), default=0.0)


def write_clips(folder: Path, numbers: Sequence[int]) -> None:
    """Write clips of the bundled sentence in the bundled noises."""
    folder.mkdir()
    speech = load_audio(DATA / "speech.flac").samples
    noises = [load_audio(DATA / f"{n}.flac").samples for n in ("rain", "clock_tick", "running_tap")]
    n = round(CLIP_S * 16000)
    for i in numbers:
        noisy = mix(speech, noises[i % 3], float(-5 + 5 * (i % 4)), seed=i).mixture
        begin = i * 997 % max(1, len(noisy) - n)
        save_audio(folder / f"{i:03d}.wav", Audio(noisy[begin : begin + n], 16000))
