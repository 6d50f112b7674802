"""The development set: six unseen speakers, six unseen noises, three signal-to-noise ratios.

Our shipped weights at default settings, against the published weights in the same engine, the same
noise model and the same run: at our defaults, and with the routine that suits them best.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import SHARED, imported, mean_scores, quality, row, score, timed

import avse_ppl
from avse_ppl import EM
from avse_ppl.data import make_dev_manifest, realise
from avse_ppl.data.mixing import Mixture
from avse_ppl.signal.audio import Audio

LANGEVIN = EM("langevin", iterations=140, step_size=0.4, tempering=0.6, draws=70, waveforms=False)


def main() -> list[str]:
    """Lines of the tables."""
    warnings.simplefilter("ignore", UserWarning)
    entries = make_dev_manifest(SHARED / "data")
    mixtures = [realise(entry, SHARED / "data") for entry in entries]
    snrs = sorted({entry.snr_db for entry in entries})
    lines = [row("speech prior", "method", *(f"{s:+g} dB" for s in snrs), "all", "CPU s a clip"),
             row(*["---"] * (len(snrs) + 4))]  # fmt: skip
    groups = [[i for i, e in enumerate(entries) if e.snr_db == s] for s in snrs]

    def report(prior: str, routine: str, estimates: list[np.ndarray], cost: str) -> None:
        scores = [score(m.speech, e) for m, e in zip(mixtures, estimates, strict=True)]
        parts = [quality(mean_scores([scores[i] for i in group])) for group in groups]
        lines.append(row(prior, routine, *parts, quality(mean_scores(scores)), cost))
        print(lines[-1], flush=True)

    report("(input)", "", [m.mixture for m in mixtures], "")
    with tempfile.TemporaryDirectory() as folder:
        rvae = imported("RVAE", Path(folder))
        vae = imported("A-VAE", Path(folder))
        runs: list[tuple[str, str, dict]] = [
            ("tcvae (ours)", "default", {}),
            ("rvae (ours)", "default", {"speech": "rvae"}),
            ("vae (ours)", "default", {"speech": "vae"}),
            ("published RVAE", "default", {"speech": rvae}),
            ("published RVAE", "EM-Langevin", {"speech": rvae, "inference": LANGEVIN}),
            ("published A-VAE", "default", {"speech": vae}),
        ]
        for prior, routine, keywords in runs:
            run = batched(mixtures, keywords)
            estimates, _, cpu = timed(run)
            report(prior, routine, estimates, f"{cpu / len(mixtures):.2f}")
    return [*lines, "", *alone(mixtures)]


def batched(mixtures: list[Mixture], keywords: dict) -> Callable[[], list[np.ndarray]]:
    """A call that enhances all of them."""
    audios = [Audio(m.mixture, m.sample_rate_hz) for m in mixtures]

    def run() -> list[np.ndarray]:
        results = avse_ppl.enhance_batch(audios, device="cpu", keep_posterior=False, **keywords)
        return [result.speech.samples for result in results]

    return run


def alone(mixtures: list[Mixture]) -> list[str]:
    """Real-time factor of single recordings at default settings, with and without draws."""
    lines = []
    for keep in (False, True):
        factors = []
        for mixture in mixtures[:9]:
            audio = Audio(mixture.mixture, mixture.sample_rate_hz)
            result = avse_ppl.enhance(audio, device="cpu", keep_posterior=keep)
            factors.append(result.cost["real_time_factor"])
        what = "with the posterior's 50 waveform draws" if keep else "enhanced speech only"
        lines.append(f"Real-time factor of one recording alone, {what}: median "
                     f"{np.median(factors[1:]):.2f} (from {min(factors[1:]):.2f} to "
                     f"{max(factors[1:]):.2f}).")  # fmt: skip
    return lines


if __name__ == "__main__":
    print("\n".join(main()))
