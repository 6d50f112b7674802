"""Coverage that carries over: credible regions on corpora that nothing was fitted to.

Fits the recalibration that the library ships for its default to `varied_mixtures`, half of the
recordings at a time, tests it on the other half, and on nEMO, which is never fitted to.
``python benchmarks/held_out_coverage.py TABLE ...`` fits tables of the library (`SHIPPED`) and
saves them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common import SHARED
from results import Column, Table
from varied_mixtures import (
    VariedMixture,
    make_foreign_mixtures,
    make_held_out_mixtures,
    make_varied_mixtures,
)

from avse_ppl import NMF, Scene, load_speech
from avse_ppl.evaluation.calibration import Coverage, coverage
from avse_ppl.evaluation.calibration.fit_recalibration import fit_recalibration
from avse_ppl.models.predictors.adapters import COMBINED, JOINED
from avse_ppl.pipeline.catalog import resolve_inference, resolve_predictor
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.posterior.recalibration import TABLES, Recalibration

FITTED_ON = (
    "{count} mixtures of GRID, speechocean762 and spoken commands, in eight kinds of noise that no "
    "prior has heard, at -5 to 15 dB"
)
Case = tuple[Posterior, VariedMixture]
KINDS = ("bins", "bins_by_energy", "waveform", "waveform_by_energy")
# Tables: inference method, speech prior, predictor, mixtures of each corpus.
SHIPPED = {
    "svi": ("svi", "tcvae", "none", 40),
    "svi-deepfilternet": ("svi", "tcvae", "deepfilternet", 40),
    "svi-predictor": ("svi", "tcvae", "predictor", 40),
    "svi-both": ("svi", "tcvae", COMBINED, 40),
    "guided-latent-diffusion": ("guided", "latent-diffusion", "none", 20),
    "guided-score": ("guided", "score", "none", 20),
}
_LOW = 0.7  # coverage of the 90 % regions of a recording


def measure() -> dict[str, Table]:
    """Measure the table."""
    data = SHARED / "data"
    varied, foreign = infer(make_varied_mixtures(data)), infer(make_foreign_mixtures(data))
    halves = [varied[::2], varied[1::2]]
    tables = [fit(half) for half in halves]
    recalibrated = [(p.recalibrated(tables[1 - k]), m) for k in (0, 1) for p, m in halves[k]]
    whole = fit(varied)
    rows = {
        "varied": varied,
        "nemo": foreign,
        "varied-recalibrated": recalibrated,
        "nemo-recalibrated": [(p.recalibrated(whole), m) for p, m in foreign],
    }
    columns = [
        Column("name", "recordings", "{name}"),
        *(Column(k, k.replace("_", " "), f"{{{k}:.1f}} (worst {{{k}_worst:.0f}})") for k in KINDS),
        Column("low", "recordings under 70 %, per cent", "{low:.0f}"),
    ]
    table = Table(columns, note=f"{len(varied)} and {len(foreign)} recordings; per cent.")
    for name, cases in rows.items():
        each = np.array([ninety(coverage(p, m.speech)) for p, m in cases]) * 100
        mean, worst = each.mean(0), each.min(0)
        values = dict(zip(KINDS, mean, strict=True))
        values |= {f"{k}_worst": w for k, w in zip(KINDS, worst, strict=True)}
        low = 100 * (each < 100 * _LOW).any(1).mean()
        table.add_row(name, name=name.replace("-", ", "), **values, low=low)
    return {"held_out_coverage": table}


def infer(
    mixtures: Sequence[VariedMixture], inference: str = "svi", speech: str = "tcvae",
    predictor: str = "none",
) -> list[Case]:  # fmt: skip
    """Posterior of each mixture, by default under the default scene and method.

    Those in which a predictor was found not to be one of speech are left out.
    """
    torch.set_num_threads(1)
    chosen = resolve_predictor(predictor, inference)
    scene = Scene(load_speech(speech), NMF(), predictor=chosen)
    method = resolve_inference(inference, device="cpu")
    found = [(method(scene, m.mixture, seed=0), m) for m in mixtures]
    return [(p, m) for p, m in found if p.kind.pooled == (chosen is not None)]


def ship(name: str) -> None:
    """Fit one of the tables of the library and save it."""
    *parts, per_corpus = SHIPPED[name]
    *_, predictor = parts
    trained = "predictor" in str(predictor).split(JOINED)  # it has heard the varied ones
    make = make_held_out_mixtures if trained else make_varied_mixtures
    cases = infer(make(SHARED / "data", per_corpus), *parts)
    print(fit(cases).save(TABLES / f"{name}.json"))


def fit(cases: Sequence[Case]) -> Recalibration:
    """Fit a recalibration to these."""
    words = FITTED_ON.format(count=len(cases))
    return fit_recalibration([(p, m.speech) for p, m in cases], fitted_on=words)


def ninety(found: Coverage) -> Any:
    """Share of the truth in the 90 % regions, of each of `KINDS`."""
    at = found.probabilities.index(0.9)
    return [getattr(found, kind)[at] for kind in KINDS]


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        ship(wanted)
