"""EM with each of its E-steps on the published sample, against the peers' figures.

One thread, as the peers' figures were taken. Settings, the rank of the noise and the level of the
start among them, were chosen on this one clip, as was the number of iterations: the table says
what the methods can do there and at what cost, not how well they generalise. What is shown are
means over seeds, and the least CPU seconds of a call.

The lip reader that the published AV-VAE sees through is published elsewhere: the prior is run with
features of 0 in every frame, which is what it does without video.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common import PEERS, imported, mean_scores, score, timed
from results import QUALITY, Column, Table, name_scores

from avse_ppl import EM, NMF, Scene, load_speech
from avse_ppl.models.weights.import_published import VISUAL_FEATURES
from avse_ppl.signal.audio import load_audio
from avse_ppl.video import Lips

SEEDS = range(5)


@dataclass(frozen=True)
class Run:
    """One row: our routine, and what the peer's of that name reaches."""

    weights: str
    routine: EM
    start_gain_db: float
    peer: str
    figures: str
    cpu_s: float | None
    rank: int = 2
    blind: bool = False


class Blind(torch.nn.Module):
    """Stands for a visual encoder: features of 0."""

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """``(batch, picture, ...)`` to ``(batch, feature, picture)``."""
        return torch.zeros(len(crops), VISUAL_FEATURES, crops.shape[1])


_COMMON = {"tempering": 0.6, "waveforms": False}
RUNS = (
    Run(
        "A-VAE", EM("point", iterations=30, draws=1, waveforms=False),
        -4.0, "A-VAE PEEM", "6.86 / 1.57 / .345", 15.2,
    ),
    Run(
        "A-VAE", EM("langevin", iterations=140, step_size=0.4, draws=70, **_COMMON),
        -4.0, "A-VAE LDEM", "8.47 / 1.79 / .322", 72.8,
    ),
    Run(
        "RVAE", EM("langevin", iterations=125, step_size=0.4, draws=62, **_COMMON),
        -4.0, "RVAE LDEM", "9.61 / 1.56 / .477", 33.9,
    ),
    Run(
        "RVAE", EM("mh", iterations=66, e_steps=4, step_size=1.0, warm_up=55, draws=5, **_COMMON),
        -12.0, "RVAE MH-EM", "9.40 / 1.41 / .466", 25.5,
    ),
    Run(
        "RVAE",
        EM("mala", iterations=90, e_steps=4, step_size=0.2, warm_up=60, draws=15, **_COMMON),
        -12.0, "RVAE MALA", "9.43 / 1.45 / .435", 57.0,
    ),
    Run(
        "RVAE", EM("variational", iterations=120, step_size=0.1, draws=20, **_COMMON),
        -12.0, "RVAE VEM", "8.19 / 1.41 / .319", 57.2,
    ),
    Run(
        "A-DKF", EM("point", iterations=30, draws=1, waveforms=False),
        -4.0, "A-DKF DPEEM", "5.68 / 1.26 / .405", 29.8,
    ),
    Run(
        "A-DKF", EM("langevin", iterations=45, step_size=0.15, draws=22, **_COMMON),
        -4.0, "A-DKF DLDEM", "8.49 / 1.34 / .394", 26.9,
    ),
    Run(
        "AV-VAE", EM("point", iterations=30, draws=1, waveforms=False),
        -4.0, "none", "", None, blind=True,
    ),
    Run(
        "AV-VAE", EM("langevin", iterations=140, step_size=0.4, draws=70, **_COMMON),
        -4.0, "none", "", None, blind=True,
    ),
)  # fmt: skip


def make_table() -> Table:
    """Columns of the table."""
    return Table(
        [
            Column("weights", "weights", "{weights}"),
            Column("method", "E-step (Langevin iterations before)", "{e_step} ({warm_up:d})"),
            Column("quality", "SI-SDR / PESQ / ESTOI", QUALITY),
            Column("range", "SI-SDR from - to", "{lowest:.1f} - {highest:.1f}"),
            Column("acceptance", "acceptance", "{acceptance_rate:.2f}"),
            Column("cost", "CPU s", "{cpu_s:.2f}"),
            Column("peer", "peer", "{peer_name}"),
            Column("figures", "peer's figures", "{peer_figures}"),
            Column("peer_cost", "peer's CPU s", "{peer_cpu_s}"),
            Column("ratio", "ratio", "1/{speedup:.0f}"),
        ]
    )


def measure() -> dict[str, Table]:
    """Measure the table."""
    clean = load_audio(PEERS / "sample" / "s.wav").samples
    noisy = load_audio(PEERS / "sample" / "x.wav").samples
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    table = make_table()
    table.add_row("input", weights="(input)", **name_scores(mean_scores([score(clean, noisy)])))
    with tempfile.TemporaryDirectory() as folder:
        for run in RUNS:
            key = f"{run.weights}-{run.routine.e_step}".lower()
            table.add_row(key, **measure_run(run, clean, noisy, Path(folder)))
    torch.set_num_threads(threads)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    table.note = (
        f"Means of {len(SEEDS)} seeds; load of the machine at the end {load:.1f} of "
        f"{os.cpu_count()} cores."
    )
    return {"em_family": table}


def measure_run(
    run: Run, clean: np.ndarray, noisy: np.ndarray, folder: Path
) -> dict[str, float | str]:
    """Values of one row."""
    speech = replace(
        load_speech(imported(run.weights, folder)), start_gain_db=run.start_gain_db
    )  # fmt: skip
    lips = None
    if run.blind:
        warnings.filterwarnings("ignore", message="no lips are seen")
        speech = replace(speech, visual_encoder=Blind())
        pictures = round(25 * len(noisy) / 16000)
        lips = Lips.from_crops(np.full((pictures, 88, 88), 0.5), rate_hz=25)
    scene = Scene(speech, NMF(run.rank))
    scores, costs, rates = [], [], []
    for seed in SEEDS:
        posterior, _, cpu = timed(lambda s=seed: run.routine(scene, noisy, lips, seed=s))
        scores.append(score(clean, posterior.enhance()))
        costs.append(cpu)
        if "acceptance_rate" in posterior.stats:
            rates.append(float(posterior.stats["acceptance_rate"].mean()))
    si_sdr = sorted(s.si_sdr_db for s in scores)
    values: dict[str, float | str] = {
        "weights": run.weights + ", without video" * run.blind,
        "e_step": run.routine.e_step,
        "warm_up": run.routine.warm_up,
        **name_scores(mean_scores(scores)),
        "lowest": si_sdr[0],
        "highest": si_sdr[-1],
        "cpu_s": min(costs),
        "peer_name": run.peer,
        "peer_figures": run.figures,
    }
    if rates:
        values["acceptance_rate"] = sum(rates) / len(rates)
    if run.cpu_s:
        values |= {"peer_cpu_s": run.cpu_s, "speedup": run.cpu_s / min(costs)}
    return values
