"""64 recordings at once against one at a time, and ten minutes against one: cost and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import timed
from results import Column, Table

import avse_ppl
from avse_ppl.data import mix
from avse_ppl.signal.audio import Audio, load_audio, save_audio

DATA = Path(__file__).resolve().parents[1] / "examples" / "data"
_LONG = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
import avse_ppl, scipy.signal, soxr
from avse_ppl.signal.audio import Audio, load_audio
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
audio = load_audio(sys.argv[1])
minutes = float(sys.argv[2])
n = int(minutes * 60 * audio.sample_rate_hz)
samples = np.resize(audio.samples, n)
begin = time.perf_counter(), time.process_time()
noisy, keep = Audio(samples, audio.sample_rate_hz), sys.argv[3] == "1"
avse_ppl.enhance(noisy, device="cpu", keep_posterior=keep, predictor="none")
spent = time.perf_counter() - begin[0], time.process_time() - begin[1]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"wall_s": spent[0], "cpu_s": spent[1], "peak_mb": peak / 1024}))
"""


def measure() -> dict[str, Table]:
    """Measure the tables."""
    return {**measure_batches(), "batching.lengths": measure_lengths()}


def make_batch_tables() -> tuple[Table, Table]:
    """Columns of the tables of cost and of agreement."""
    cost = Table(
        [
            Column("what", "64 recordings of 3 s", "{what}"),
            Column("wall", "wall s each", "{wall_s:.3f}"),
            Column("cpu", "CPU s each", "{cpu_s:.3f}"),
        ]
    )
    agreement = Table(
        [
            Column(
                "largest", "largest difference of a sample, alone and together", "{difference:.1e}"
            )
        ]
    )
    return cost, agreement


def measure_batches() -> dict[str, Table]:
    """One recording alone, in the process and as a command, against 64 together."""
    cost, agreement = make_batch_tables()
    recordings = [noisy(seed) for seed in range(64)]
    options = {"device": "cpu", "keep_posterior": False, "predictor": "none"}
    avse_ppl.enhance(recordings[0], **options)
    single = [timed(lambda r=r: avse_ppl.enhance(r, **options)) for r in recordings[:7]]
    wall_1, cpu_1 = (float(np.median([s[i] for s in single])) for i in (1, 2))
    together, wall, cpu = timed(lambda: avse_ppl.enhance_batch(recordings, **options))
    difference = max(
        float(np.abs(a[0].speech.samples - b.speech.samples).max())
        for a, b in zip(single, together, strict=False)
    )
    agreement.add_row("sample", difference=difference)
    cost.add_row("alone", what="one at a time", wall_s=wall_1, cpu_s=cpu_1)
    cost.add_row("together", what="together", wall_s=wall / 64, cpu_s=cpu / 64)
    ratios = (f"1/{64 * wall_1 / wall:.1f}", f"1/{64 * cpu_1 / cpu:.1f}")
    cost.add_row("ratio", what="ratio", wall_s=ratios[0], cpu_s=ratios[1])
    one_s, many_s = as_commands(recordings)
    cost.add_row("file", what="`avse-ppl enhance` on one file", wall_s=one_s)
    cost.add_row("folder", what="`avse-ppl enhance` on the folder of 64", wall_s=many_s / 64)
    cost.add_row("folder-ratio", what="ratio", wall_s=f"1/{64 * one_s / many_s:.1f}")
    return {"batching": cost, "batching.agreement": agreement}


def as_commands(recordings: list[Audio]) -> tuple[float, float]:
    """Wall seconds of the command on one file and on a folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "noisy").mkdir()
        for i, audio in enumerate(recordings):
            save_audio(folder / "noisy" / f"{i:02d}.wav", audio)
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "avse_ppl",
            "enhance",
            "--predictor",
            "none",
        ]
        one = [*command, str(folder / "noisy" / "00.wav"), "-o", str(folder / "one.wav")]
        many = [*command, str(folder / "noisy"), "-o", str(folder / "enhanced")]
        seconds = []
        for line in (one, many):
            _, wall, _ = timed(lambda c=line: subprocess.run(c, check=True, capture_output=True))
            seconds.append(wall)
        return seconds[0], seconds[1]


def make_length_table() -> Table:
    """Columns of the table of long recordings."""
    return Table(
        [
            Column("length", "length", "{minutes:d} min"),
            Column("kept", "posterior kept", "{kept}"),
            Column("wall", "wall s a minute", "{wall_s:.1f}"),
            Column("cpu", "CPU s a minute", "{cpu_s:.1f}"),
            Column("memory", "peak MB beyond imports", "{peak_mb:.0f}"),
        ]
    )


def measure_lengths() -> Table:
    """Cost and peak memory, beyond imports, of long recordings."""
    table = make_length_table()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noisy.wav"
        save_audio(path, noisy(0))
        for minutes, keep in ((1, 0), (5, 0), (10, 0), (10, 1)):
            command = [sys.executable, "-c", _LONG, str(path), str(minutes), str(keep)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found = json.loads(output.splitlines()[-1])
            table.add_row(
                f"{minutes}min-kept" if keep else f"{minutes}min", minutes=minutes,
                kept="yes" if keep else "no", wall_s=found["wall_s"] / minutes,
                cpu_s=found["cpu_s"] / minutes, peak_mb=found["peak_mb"],
            )  # fmt: skip
    return table


def noisy(seed: int) -> Audio:
    """The bundled sentence in one of the bundled noises."""
    speech = load_audio(DATA / "speech.flac").samples
    name = ("rain", "clock_tick", "running_tap")[seed % 3]
    noise = load_audio(DATA / f"{name}.flac").samples
    return Audio(mix(speech, noise, float(-5 + 5 * (seed % 4)), seed=seed).mixture, 16000)
