"""The development set: six unseen speakers, six unseen noises, three signal-to-noise ratios.

Our shipped weights at default settings, against the published weights in the same engine, the same
noise model and the same run: at our defaults, and with the routine that suits them best.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from common import SHARED, imported, mean_scores, score, timed
from results import QUALITY, Column, Table, name_scores, suffix_quality

import avse_ppl
from avse_ppl import EM
from avse_ppl.data import make_dev_manifest, realise
from avse_ppl.data.mixing import Mixture
from avse_ppl.signal.audio import Audio

LANGEVIN = EM("langevin", iterations=140, step_size=0.4, tempering=0.6, draws=70, waveforms=False)


def measure() -> dict[str, Table]:
    """Measure both tables."""
    warnings.simplefilter("ignore", UserWarning)
    entries = make_dev_manifest(SHARED / "data")
    mixtures = [realise(entry, SHARED / "data") for entry in entries]
    snrs = sorted({entry.snr_db for entry in entries})
    table = make_table(snrs)

    def report(
        key: str, prior: str, method: str, estimates: list[np.ndarray], **cost: float
    ) -> None:
        scores = [score(m.speech, e) for m, e in zip(mixtures, estimates, strict=True)]
        values = name_scores(mean_scores(scores))
        for snr in snrs:
            group = [s for s, entry in zip(scores, entries, strict=True) if entry.snr_db == snr]
            values |= name_scores(mean_scores(group), f"_{snr:+g}dB")
        table.add_row(key, prior=prior, method=method, **values, **cost)

    report("input", "(input)", "", [m.mixture for m in mixtures])
    with tempfile.TemporaryDirectory() as folder:
        rvae = imported("RVAE", Path(folder))
        vae = imported("A-VAE", Path(folder))
        langevin = {"speech": rvae, "inference": LANGEVIN}
        runs: list[tuple[str, str, str, dict]] = [
            ("tcvae", "tcvae (ours)", "default", {}),
            ("rvae", "rvae (ours)", "default", {"speech": "rvae"}),
            ("vae", "vae (ours)", "default", {"speech": "vae"}),
            ("dkf", "dkf (ours)", "default", {"speech": "dkf"}),
            ("published-rvae", "published RVAE", "default", {"speech": rvae}),
            ("published-rvae-langevin", "published RVAE", "EM-Langevin", langevin),
            ("published-a-vae", "published A-VAE", "default", {"speech": vae}),
        ]
        for key, prior, method, keywords in runs:
            estimates, _, cpu = timed(batched(mixtures, keywords))
            report(key, prior, method, estimates, cpu_s=cpu / len(mixtures))
    return {"dev_quality": table, "dev_quality.alone": measure_alone(mixtures)}


def make_table(snrs: Sequence[float]) -> Table:
    """Columns of the main table."""
    by_snr = [Column(f"{snr:+g}dB", f"{snr:+g} dB", suffix_quality(f"_{snr:+g}dB")) for snr in snrs]
    return Table(
        [
            Column("prior", "speech prior", "{prior}"),
            Column("method", "inference method", "{method}"),
            *by_snr,
            Column("quality", "all", QUALITY),
            Column("cost", "CPU s a clip", "{cpu_s:.2f}"),
        ]
    )


def batched(mixtures: list[Mixture], keywords: dict) -> Callable[[], list[np.ndarray]]:
    """A call that enhances all of them."""
    audios = [Audio(m.mixture, m.sample_rate_hz) for m in mixtures]

    def run() -> list[np.ndarray]:
        results = avse_ppl.enhance_batch(
            audios, device="cpu", keep_posterior=False, predictor="none", **keywords
        )
        return [result.speech.samples for result in results]

    return run


def make_alone_table() -> Table:
    """Columns of the table of single recordings."""
    return Table(
        [
            Column("what", "one recording alone", "{what}"),
            Column("factor", "real-time factor, median", "{median:.2f}"),
            Column("range", "from - to", "{lowest:.2f} - {highest:.2f}"),
        ]
    )


def measure_alone(mixtures: list[Mixture]) -> Table:
    """Real-time factor of single recordings at default settings, with and without draws."""
    table = make_alone_table()
    kinds = {
        "speech": (False, "enhanced speech only"),
        "draws": (True, "with the posterior's 50 waveform draws"),
    }
    for key, (keep, what) in kinds.items():
        factors = []
        for mixture in mixtures[:9]:
            audio = Audio(mixture.mixture, mixture.sample_rate_hz)
            result = avse_ppl.enhance(audio, device="cpu", keep_posterior=keep, predictor="none")
            factors.append(result.cost["real_time_factor"])
        rest = factors[1:]
        table.add_row(key, what=what, median=np.median(rest), lowest=min(rest), highest=max(rest))
    return table
