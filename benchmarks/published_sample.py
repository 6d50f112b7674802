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
from common import PEERS, imported, mean_scores, quality, row, score, timed

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


def main() -> list[str]:
    """Lines of the table."""
    clean = load_audio(PEERS / "sample" / "s.wav").samples
    noisy = load_audio(PEERS / "sample" / "x.wav").samples
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    lines = [
        f"Input: {quality(mean_scores([score(clean, noisy)]))} (SI-SDR dB / PESQ / ESTOI).",
        "",
        row("weights", "method", "SI-SDR / PESQ / ESTOI", "CPU s", "peer", "peer's figures",
            "peer's CPU s", "ratio"),
        row(*["---"] * 8),
    ]  # fmt: skip
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
            lines.append(
                row(weights, title, quality(mean_scores(scores)), f"{cost:.2f}", peer, figures,
                    peer_cost, f"1/{peer_cost / cost:.0f}")
            )  # fmt: skip
    torch.set_num_threads(threads)
    lines += ["", f"`import avse_ppl` in a fresh interpreter: {import_seconds():.2f} s."]
    return lines


def import_seconds() -> float:
    """Median of three."""
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import avse_ppl"], check=True)
        times.append(time.perf_counter() - begin)
    return sorted(times)[1]


if __name__ == "__main__":
    print("\n".join(main()))
