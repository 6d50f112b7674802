"""Calibration of the posterior; writes docs/results/calibration.md.

Real speech: coverage, sparsification, rank correlation and CRPS on the development set, before and
after recalibration, which is fitted on other speakers and other noises. Simulated scenes:
simulation-based calibration of the inference methods.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from common import SHARED, machine, row

from avse_ppl import EM, SVI, Exact, Posterior, Scene, Stft
from avse_ppl.data import make_dev_manifest, realise
from avse_ppl.evaluation.calibration import (
    Coverage,
    average_coverage,
    coverage,
    simulation_based_calibration,
)
from avse_ppl.evaluation.calibration.fit_recalibration import fit_recalibration
from avse_ppl.models.simulate import reference_scene
from avse_ppl.pipeline.catalog import resolve_inference, resolve_noise, resolve_speech
from avse_ppl.posterior.recalibration import Recalibration

DOC = Path(__file__).resolve().parents[1] / "docs" / "results" / "calibration.md"
BATCH = 9
LEVELS = (0.5, 0.8, 0.9, 0.95)


class Case(NamedTuple):
    """A posterior of one recording, and the truth."""

    posterior: Posterior
    clean: np.ndarray
    speaker: str
    noise: str
    snr_db: float


def cases(routine: str, speech: str = "tcvae", **settings: object) -> list[Case]:
    """Development set under one routine, with the default noise model."""
    entries = make_dev_manifest(SHARED / "data")
    mixtures = [realise(entry, SHARED / "data") for entry in entries]
    scene = Scene(resolve_speech(speech), resolve_noise("nmf"))
    invert = resolve_inference(routine, device="cpu", draws=50, **settings)
    found = []
    for begin in range(0, len(entries), BATCH):
        part = range(begin, min(begin + BATCH, len(entries)))
        posterior = invert(scene, [mixtures[i].mixture for i in part], seed=[0] * len(part))
        for place, i in enumerate(part):
            entry = entries[i]
            found.append(Case(posterior.select(place), mixtures[i].speech, entry.speaker,
                              entry.noise_label, entry.snr_db))  # fmt: skip
    return found


def folds(found: Sequence[Case], parts: int) -> Iterator[tuple[list[Case], list[Case]]]:
    """Fit and test sets that share neither a speaker nor a kind of noise; all are tested once."""
    speakers = sorted({case.speaker for case in found})
    noises = sorted({case.noise for case in found})
    for s in range(parts):
        for n in range(parts):
            held = set(speakers[s::parts]), set(noises[n::parts])
            fit = [c for c in found if c.speaker not in held[0] and c.noise not in held[1]]
            test = [c for c in found if c.speaker in held[0] and c.noise in held[1]]
            yield fit, test


def fitted(found: Sequence[Case], words: str = "the other fold") -> Recalibration:
    """Recalibration from these."""
    return fit_recalibration([(c.posterior, c.clean) for c in found], fitted_on=words)


Rows = list[tuple[Case, Coverage]]


def before(found: Sequence[Case]) -> Rows:
    """Reliability as the routine left it."""
    return [(c, coverage(c.posterior, c.clean)) for c in found]


def after(found: Sequence[Case], parts: int) -> tuple[Rows, Rows, list[np.ndarray]]:
    """Reliability of held-out recordings, recalibrated; with conformal discs; 90 % by fold."""
    gaussian, conformal, each = [], [], []
    for fit, test in folds(found, parts):
        table = fitted(fit)
        fold = [(c, *_both(table, c)) for c in test]
        gaussian += [(c, one) for c, one, _ in fold]
        conformal += [(c, other) for c, _, other in fold]
        each.append(ninety(average_coverage([one for _, one, _ in fold])))
    return gaussian, conformal, each


def _both(table: Recalibration, case: Case) -> tuple[Coverage, Coverage]:
    """With the Gaussian discs of the recalibrated posterior, and with the fitted discs."""
    lean = replace(case.posterior, speech=case.posterior.speech[:, :0])  # discs are of bins only
    discs = [table.radius(lean, p)[0] for p in LEVELS]
    one = coverage(case.posterior.recalibrated(table), case.clean)
    return one, coverage(lean, case.clean, radii=discs)


def ninety(one: Coverage) -> np.ndarray:
    """Coverage of the 90 % regions: bins, bins by energy, samples, samples by energy."""
    at = one.probabilities.index(0.9)
    return np.array([share[at] for share in shares(one)])


def shares(one: Coverage) -> tuple[np.ndarray, ...]:
    """The four kinds of coverage."""
    return one.bins, one.bins_by_energy, one.waveform, one.waveform_by_energy


def percent(share: np.ndarray) -> str:
    """Shares as ``50 / 80 / 90 / 95``."""
    return " / ".join(f"{100 * value:.1f}" for value in share)


HEAD = ["input SNR", "bins", "bins by energy", "samples", "samples by energy", "AUSE", "Spearman",
        "CRPS bins", "CRPS samples"]  # fmt: skip


def table(rows: Rows) -> list[str]:
    """Lines of one table: a line for each SNR, and one for all."""
    lines = [row(*HEAD), row(*["---"] * len(HEAD))]
    for snr in [*sorted({case.snr_db for case, _ in rows}), None]:
        one = average_coverage([r for case, r in rows if snr in (None, case.snr_db)])
        scores = (one.ause, one.spearman, one.crps_bins, one.crps_waveform)
        name = "all" if snr is None else f"{snr:+g} dB"
        lines.append(row(name, *map(percent, shares(one)), *(f"{s:.3f}" for s in scores)))
    return lines


def discs(rows: Rows) -> list[str]:
    """Lines of the table of fitted discs."""
    lines = [row(*HEAD[:3]), row("---", "---", "---")]
    for snr in [*sorted({case.snr_db for case, _ in rows}), None]:
        one = average_coverage([r for case, r in rows if snr in (None, case.snr_db)])
        name = "all" if snr is None else f"{snr:+g} dB"
        lines.append(row(name, percent(one.bins), percent(one.bins_by_energy)))
    return lines


def by_noise(first: Rows, second: Rows) -> list[str]:
    """Coverage at 90 % by kind of noise, before and after."""
    lines = [row("noise", "before", "after"), row("---", "---", "---")]
    for noise in sorted({case.noise for case, _ in first}):
        texts = [
            percent(ninety(average_coverage([r for case, r in rows if case.noise == noise])))
            for rows in (first, second)
        ]
        lines.append(row(noise, *texts))
    return lines


STFT = Stft(64, 16)
SIMULATIONS = 200


def make_svi(tempering: float) -> SVI:
    """Variational inference of small steps, until it stands still."""
    return SVI(
        steps=600, learning_rate=0.02, tolerance=0, draws=99, moment_draws=None, waveforms=False,
        tempering=tempering,
    )  # fmt: skip


ROUTINES: dict[str, Callable[[], Callable[..., Posterior]]] = {
    "exact": lambda: Exact(nodes=25, draws=99, waveforms=False),
    "svi": lambda: make_svi(1.0),
    "svi, tempered 0.25": lambda: make_svi(0.25),
    "em": lambda: EM(iterations=150, waveforms=False),
    "em-langevin": lambda: EM("langevin", iterations=200, draws=99, waveforms=False),
}


def simulated() -> list[str]:
    """Simulation-based calibration on the Gaussian scene of unknown noise level."""
    scene, lines = reference_scene(False, stft=STFT), []
    for name, make in ROUTINES.items():
        result = simulation_based_calibration(make(), scene, SIMULATIONS, seed=1, batch=50)
        gaps, inside, cover = (
            result.compute_distance(),
            result.are_uniform(0.99),
            result.coverage(0.9),
        )
        if not lines:
            lines = [row("inference method", *gaps), row(*["---"] * (len(gaps) + 1))]
        cells = [f"{gaps[k]:.3f}{'' if inside[k] else ' *'} ({100 * cover[k]:.0f} %)" for k in gaps]
        lines.append(row(name, *cells))
        print(lines[-1], flush=True)
    return lines


def real(routine: str) -> list[str]:
    """Tables of one routine, before and after."""
    found = cases(routine)
    first = before(found)
    gaussian, conformal, each = after(found, 3)
    halves = after(found, 2)[2] if routine == "svi" else []
    lines = [f"### {routine}", "", f"As it is (`{found[0].posterior.kind}`):", "", *table(first)]
    lines += ["", "Recalibrated on other speakers and noises, variance and draws:", ""]
    lines += [*table(gaussian), "", "Bins inside the fitted discs, `Recalibration.radius`:", ""]
    lines += [*discs(conformal), "", BY_NOISE, "", *by_noise(first, gaussian), ""]
    spread = np.array(each)
    lines += [f"90 % regions by fold of 12 test recordings: {_range(spread)}."]
    if halves:
        lines += ["", f"Fitted on 27 recordings, tested on 27 with the other half of the speakers "
                  f"and noises, four ways: {'; '.join(map(percent, halves))}."]  # fmt: skip
    return lines


BY_NOISE = "90 % regions by kind of noise: bins / bins by energy / samples / samples by energy."


def _range(each: np.ndarray) -> str:
    names = HEAD[1:5]
    ends = zip(names, each.min(0), each.max(0), strict=True)
    return ", ".join(f"{name} {100 * low:.0f} to {100 * high:.0f} %" for name, low, high in ends)


def compared(routine: str, **settings: object) -> list[str]:
    """One table of a routine with other settings, as it is."""
    found = cases(routine, "tcvae", **settings)
    title = found[0].posterior.kind
    return [f"### {routine}, for comparison (`{title}`)", "", *table(before(found))]


def main() -> None:
    """Write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    parts = [INTRODUCTION.format(machine=machine()), *real("svi"), ""]
    parts += [*real("em-langevin"), "", *compared("svi", tempering=1.0), "", SIMULATED]
    DOC.write_text("\n".join([*parts, *simulated(), "", ENDING]), encoding="utf-8")


INTRODUCTION = """# Calibration

How often a 90 % region holds the truth. Written by `benchmarks/calibration.py`
({machine}).

## On real speech

Default prior and noise model (`tcvae`, `nmf`), each inference method at the settings that its
name stands for, 50 draws; the 108 mixtures of the development set: six speakers, six kinds of
noise, three signal-to-noise ratios.

- **bins**: share of STFT bins with the truth inside the disc about the posterior mean that holds
  50 / 80 / 90 / 95 % of the circular Gaussian, in per cent.
- **samples**: share of samples inside the central interval of the waveform draws.
- **by energy**: weighted by the expected energy of speech, `|mean|^2 + variance`; plain shares are
  mostly those of silence.
- **AUSE**: area between the sparsification curves by variance and by error, relative to the mean
  squared error; 0 is perfect. **Spearman**: rank correlation of squared error and variance.
- **CRPS**: of real and imaginary parts under the circular Gaussian (closed form), and of samples
  from the draws (unbiased), relative to the root mean square of clean speech.

Each recording counts the same. Every recalibrated figure is of recordings whose speaker and whose
kind of noise the fit has not seen: a third of the speakers in a third of the noises is left out at
a time, and the fit has the recordings that share neither (48).
"""

SIMULATED = """## On simulated scenes

200 mixtures drawn from the Gaussian scene of unknown noise level (64-point STFT, 320 samples):
largest distance of the ECDF of the truth's ranks among 99 draws from the diagonal, and in brackets
the coverage of the 90 % interval. A star marks what leaves the simultaneous band that uniform
ranks stay in 99 times in 100. A point estimate cannot be uniform; mean-field and Langevin draws
are approximations, and tempering widens on purpose.
"""

ENDING = """## What recalibration promises

`posterior.recalibrated()` (and `avse-ppl enhance --recalibrate`) applies the table shipped for the
inference method, fitted on varied corpora, see [coverage that carries over](coverage.md). It is
right on average for recordings like those, and not for each of them. A posterior is
over-confident where the speech prior explains noise as speech, and no summary of the posterior that
was tried predicts that well. Fit on your own pairs of clean and noisy recordings with
`avse_ppl.evaluation.calibration.fit_recalibration.fit_recalibration`.
"""


if __name__ == "__main__":
    main()
