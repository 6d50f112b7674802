"""Coverage of the 90 % intervals of functionals of speech on real mixtures of known speech.

Sixteen development mixtures: six unseen speakers in six unseen noises at -5, 0 and 5 dB. What an
interval is for is the functional of the clean speech, computed in the same way.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from common import SHARED
from results import Column, Table

from avse_ppl import Audio, Posterior, enhance
from avse_ppl.data import make_dev_manifest
from avse_ppl.data.manifest import realise
from avse_ppl.posterior.functional_posterior import evaluate_functionals
from avse_ppl.posterior.functionals import (
    F0,
    SNR,
    Functional,
    Level,
    SpeechDraws,
    VoiceActivity,
)

EVERY = 7  # of 108 mixtures: all speakers, noises and ratios
SPAN_S = 0.3
BANDS_HZ = ((100.0, 1000.0), (1000.0, 4000.0), (4000.0, 8000.0))
QUIET_DB = 20.0  # below the level of the whole: spans without speech
F0_DRAWS = 30
VARIANTS = {
    "plain": "`svi`, no predictor",
    "recal": "the same, recalibrated",
    "pooled": "`svi` with DeepFilterNet",
}
ROWS = {
    "whole": "level of the recording",
    "spans": "level of 0.3 s with speech",
    "quiet": "level of 0.3 s without",
    "low": "the same with speech, 0.1-1 kHz",
    "middle": "1-4 kHz",
    "high": "4-8 kHz",
    "snr": "signal-to-noise ratio of 0.3 s with speech",
    "f0": "F0 of voiced frames",
}
EDGES = (0.0, 0.05, 0.35, 0.65, 0.95, 1.0)
Scored = dict[str, list[Any]]  # truth, mean, low, high, share defined, by functional


def measure() -> dict[str, Table]:
    """Measure the tables."""
    scored: dict[str, list[Scored]] = {name: [] for name in VARIANTS}
    for entry in make_dev_manifest(SHARED / "data")[1::EVERY]:
        mixture = realise(entry, SHARED / "data")
        noisy = Audio(mixture.mixture, mixture.sample_rate_hz)
        found = {
            "plain": enhance(noisy, predictor="none").posterior,
            "pooled": enhance(noisy, predictor="deepfilternet").posterior,
        }
        found["recal"] = found["plain"].recalibrated()  # type: ignore[union-attr]
        for name, posterior in found.items():
            if posterior is not None:
                scored[name].append(score_posterior(posterior, mixture.speech, name == "plain"))
    return tabulate(scored)


def score_posterior(posterior: Posterior, clean: np.ndarray, with_f0: bool) -> Scored:
    """Truth, mean and bounds of all functionals of one recording."""
    duration_s = len(clean) / posterior.stft.sample_rate_hz
    spans = tuple(
        (round(a, 3), round(a + SPAN_S, 3)) for a in np.arange(0, duration_s - SPAN_S, SPAN_S)
    )
    functionals: dict[str, Functional] = {
        "level": Level(), "level span": Level(spans_s=spans), "level band": Level(BANDS_HZ, spans),
        "snr span": SNR(spans_s=spans), "vad": VoiceActivity(),
    }  # fmt: skip
    found = dict(
        zip(functionals, evaluate_functionals(posterior, list(functionals.values())), strict=True)
    )
    if with_f0:
        functionals["f0 frame"] = F0()
        found["f0 frame"] = posterior.of(F0(), draws=F0_DRAWS)
    truth = SpeechDraws(np.asarray(clean, "float32")[None], posterior.mixture[0], posterior.stft)
    rows = {}
    for name, functional in functionals.items():
        one = found[name]
        low, high = one.interval(0.9)
        rows[name] = [functional.evaluate(truth)[0], one.mean[0], low[0], high[0], one.defined[0]]
    return rows


def tabulate(scored: dict[str, list[Scored]]) -> dict[str, Table]:
    """Shares of truths inside, and the median width, of each functional and kind of posterior."""
    columns = [
        Column("what", "90 % interval of the", "{what}"),
        Column("unit", "width in", "{unit}"),
    ]
    columns += [
        Column(name, heading, f"{{{name}_share:.2f}} ({{{name}_width:.2g}})")
        for name, heading in VARIANTS.items()
    ]
    table = Table(columns, note="Share of truths inside (median width).")
    for key, what in ROWS.items():
        values: dict[str, Any] = {}
        for name, recordings in scored.items():
            rows = [choose_truths(key, recording) for recording in recordings]
            rows = [row for row in rows if row is not None]
            if rows:
                truth, low, high = (np.concatenate(column) for column in zip(*rows, strict=True))
                values[f"{name}_share"] = np.mean((low <= truth) & (truth <= high))
                values[f"{name}_width"] = np.median(high - low)
        table.add_row(key, what=what, unit="Hz" if key == "f0" else "dB", **values)

    columns = [Column("stated", "stated probability", "{stated}")]
    columns += [
        Column(name, heading, f"{{{name}_true:.2f}} of {{{name}_count}}")
        for name, heading in VARIANTS.items()
    ]
    voice = Table(columns, note="Share of the frames in which the voice is active.")
    for low, high in itertools.pairwise(EDGES):
        values = {}
        for name, recordings in scored.items():
            if recordings:
                truth, stated = (
                    np.concatenate([np.asarray(one["vad"][i], float) for one in recordings])
                    for i in (0, 1)
                )
                some = (stated >= low) & ((stated < high) | (high == EDGES[-1]))
                values |= {f"{name}_true": truth[some].mean(), f"{name}_count": int(some.sum())}
        voice.add_row(f"{high:g}".replace(".", "_"), stated=f"{low:g} to {high:g}", **values)
    return {"functional_coverage": table, "functional_coverage.voice": voice}


def choose_truths(key: str, recording: Scored) -> tuple[np.ndarray, ...] | None:
    """Truth, lower and upper bounds of what a row is about."""
    spoken = np.asarray(recording["level span"][0]) > np.asarray(recording["level"][0]) - QUIET_DB
    band = {"low": 0, "middle": 1, "high": 2}.get(key)
    source = {"whole": "level", "snr": "snr span", "f0": "f0 frame"}.get(key, "level span")
    if source not in recording:
        return None
    rows = recording["level band" if band is not None else source]
    rows = [np.atleast_1d(np.asarray(row, float)) for row in rows]
    truth, _, low, high, defined = rows if band is None else [row[band] for row in rows]
    if key == "whole":
        return truth, low, high
    if key == "f0":
        kept = np.isfinite(truth) & np.isfinite(low) & (defined > 0.5)
    else:
        kept = ~spoken if key == "quiet" else spoken
    return truth[kept], low[kept], high[kept]


if __name__ == "__main__":
    for _table in measure().values():
        print(_table.format_markdown())
