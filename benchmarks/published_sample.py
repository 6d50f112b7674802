"""The published sample with the published weights: our engine against the peers' figures.

One thread, as the peers' figures were taken. The clip and the routines' settings are the same for
all seeds; what is shown is the mean over seeds, and the CPU seconds of a second call.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import PEERS, imported, mean_scores, score, timed
from results import QUALITY, Column, Table, name_scores

from avse_ppl import EM, NMF, SVI, Scene, load_speech
from avse_ppl.signal.audio import load_audio

SEEDS = range(5)
PEER_ROWS = {
    "A-VAE": ("A-VAE LDEM", "8.47 / 1.79 / .322", 72.8),
    "RVAE": ("RVAE LDEM", "9.61 / 1.56 / .477", 33.9),
}
RUNS = {
    ("A-VAE", "SVI, tempered 0.25"): (
        SVI(steps=100, tempering=0.25, moment_draws=None, waveforms=False),
        NMF(4),
    ),
    ("RVAE", "EM-Langevin, tempered 0.6"): (
        EM("langevin", iterations=140, step_size=0.4, tempering=0.6, draws=70, waveforms=False),
        NMF(2),
    ),
}


def make_tables() -> tuple[Table, Table]:
    """Columns of the main table and of that of start-up."""
    quality = Table(
        [
            Column("weights", "weights", "{weights}"),
            Column("method", "inference method", "{method}"),
            Column("quality", "SI-SDR / PESQ / ESTOI", QUALITY),
            Column("cost", "CPU s", "{cpu_s:.2f}"),
            Column("peer", "peer", "{peer_name}"),
            Column("figures", "peer's figures", "{peer_figures}"),
            Column("peer_cost", "peer's CPU s", "{peer_cpu_s}"),
            Column("ratio", "ratio", "1/{speedup:.0f}"),
        ]
    )
    startup = Table([Column("time", "`import avse_ppl` in a fresh interpreter, s", "{wall_s:.2f}")])
    return quality, startup


def measure() -> dict[str, Table]:
    """Measure both tables."""
    clean = load_audio(PEERS / "sample" / "s.wav").samples
    noisy = load_audio(PEERS / "sample" / "x.wav").samples
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    table, startup = make_tables()
    table.note = f"Means of {len(SEEDS)} seeds."
    table.add_row("input", weights="(input)", **name_scores(mean_scores([score(clean, noisy)])))
    with tempfile.TemporaryDirectory() as folder:
        for (weights, title), (routine, noise) in RUNS.items():
            scene = Scene(load_speech(imported(weights, Path(folder))), noise)
            scores, costs = [], []
            for seed in SEEDS:
                posterior, _, cpu = timed(lambda s=seed, r=routine, c=scene: r(c, noisy, seed=s))
                scores.append(score(clean, posterior.enhance()))
                costs.append(cpu)
            cost = sorted(costs[1:])[len(costs[1:]) // 2]
            peer, figures, peer_cost = PEER_ROWS[weights]
            table.add_row(
                weights.lower(), weights=weights, method=title, cpu_s=cost, peer_name=peer,
                peer_figures=figures, peer_cpu_s=peer_cost, speedup=peer_cost / cost,
                **name_scores(mean_scores(scores)),
            )  # fmt: skip
    torch.set_num_threads(threads)
    startup.add_row("import", wall_s=import_seconds())
    return {"published_sample": table, "published_sample.startup": startup}


def import_seconds() -> float:
    """Median of three."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import avse_ppl"], check=True)
        times.append(time.perf_counter() - begin)
    return sorted(times)[1]
