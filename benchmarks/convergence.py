"""Whether the posterior is as good when it has converged: bound and quality over steps.

Twelve development mixtures, two speakers in six kinds of noise at -5 dB, under the default scene
and, for comparison, with the prior alone, the likelihood untempered and two noise components:
a statistician who doubles the steps should get the same answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import SHARED, mean_scores, score, timed
from results import QUALITY, Column, Table, name_scores

from avse_ppl import NMF, SVI, Scene, load_speech
from avse_ppl.data import make_dev_manifest, realise

SPEAKERS, SNR_DB = (0, 3), -5.0
STEPS = {"default": (60, 150, 300), "default-to-the-end": (1500,), "prior-alone": (13, 120, 400)}
_LAST = 20  # steps that the bound is averaged over


def measure() -> dict[str, Table]:
    """Measure the table."""
    entries = [e for e in make_dev_manifest(SHARED / "data") if e.snr_db == SNR_DB]
    speakers = sorted({e.speaker for e in entries})
    entries = [e for e in entries if speakers.index(e.speaker) in SPEAKERS]
    mixtures = [realise(entry, SHARED / "data") for entry in entries]
    table = Table(
        [
            Column("name", "scene", "{name}"),
            Column("steps", "steps at most", "{steps:d}"),
            Column("done", "steps done", "{done:.0f}"),
            Column("bound", "ELBO below the longest run, nats/s", "{bound:.1f}"),
            Column("quality", "SI-SDR / PESQ / ESTOI", QUALITY),
            Column("cost", "real-time factor", "{rtf:.2f}"),
        ],
        note="Twelve mixtures of two speakers at -5 dB.",
    )
    rows: list[tuple[str, int, list[Any], np.ndarray, float]] = []
    for name, all_steps in STEPS.items():
        rows += [(name, steps, *run_all(name, steps, mixtures)) for steps in all_steps]
    for name in STEPS:
        mine = [row for row in rows if row[0].split("-")[0] == name.split("-")[0]]
        top = mine[-1][3]
        for _, steps, posteriors, bounds, seconds in (row for row in rows if row[0] == name):
            scores = [
                score(m.speech, p.enhance()) for m, p in zip(mixtures, posteriors, strict=True)
            ]
            done = np.mean([np.isfinite(p.trace["elbo"]).sum() for p in posteriors])
            gap = np.mean((top - bounds) / duration_s(mixtures))
            table.add_row(
                f"{name}-{steps}", name=name.replace("-", " "), steps=steps, done=done, bound=gap,
                **name_scores(mean_scores(scores)), rtf=seconds / duration_s(mixtures).sum(),
            )  # fmt: skip
    return {"convergence": table}


def duration_s(mixtures: Any) -> np.ndarray:
    """Length of each mixture, seconds."""
    return np.array([len(m.mixture) / 16000 for m in mixtures])


def run_all(name: str, steps: int, mixtures: Any) -> tuple[list[Any], np.ndarray, float]:
    """Posteriors of all mixtures, their last ELBO, and wall seconds."""
    if name.startswith("default"):
        tolerance = SVI().tolerance if name == "default" else 0.0
        scene = Scene(load_speech("tcvae"), NMF())
        method = SVI(steps=steps, tolerance=tolerance, waveforms=False)
    else:
        scene = Scene(load_speech("tcvae", amortised=False), NMF(2))
        method = SVI(steps=steps, tempering=1.0, learning_rate=0.15, tolerance=0, waveforms=False)
    posteriors, wall_s, _ = timed(lambda: [method(scene, m.mixture, seed=0) for m in mixtures])
    bounds = []
    for posterior in posteriors:
        trace = posterior.trace["elbo"][:, 0]
        bounds.append(trace[np.isfinite(trace)][-min(_LAST, max(2, steps // 6)) :].mean())
    return posteriors, np.array(bounds), wall_s
