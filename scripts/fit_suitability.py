"""Fit the suitability model, and say on development recordings what it finds and misses.

``python scripts/fit_suitability.py DATA CACHE``: DATA is the folder of development
corpora, CACHE a folder for the descriptions, so that a run that was ended goes on where it was.
Writes the table that the package ships and prints the tables of docs/concepts/suitability.md.
Everything is seeded. Each example is described with the default predictor and without, about three
seconds in all; with a larger ``--count`` the first of each class stay.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from suitability_examples import CLASSES, CLEAN, Example, make_examples

from avse_ppl import Scene, diagnose
from avse_ppl.evaluation.metrics import si_sdr
from avse_ppl.evaluation.suitability.describe import describe_posterior
from avse_ppl.evaluation.suitability.judge import ORDINARY, SI_SDR, TABLE, SuitabilityModel
from avse_ppl.models.predictors.adapters import COMBINED
from avse_ppl.models.predictors.checks import PredictorError
from avse_ppl.pipeline.catalog import (
    resolve_inference,
    resolve_noise,
    resolve_predictor,
    resolve_speech,
)
from avse_ppl.signal.observed_bins import mark_observed
from avse_ppl.utils.files import atomic_path

BATCH = 20
PARTS = ("train", "dev", "nemo")
PREDICTORS = ("none", COMBINED)  # each example is described with either
ALARMS = 0.05  # share of ordinary dev recordings that may be warned of
FIRMEST = -0.5  # log odds of a class against "ordinary" below which nothing is warned of
FAILED_DB = 0.0  # SI-SDR below which a separation has failed
FITTED_ON = (
    "three seconds each of GRID s1, speechocean762 and Picovoice commands with NOISEX, ESC-10, "
    "Kitchen20, Nonspeech100 and Speech Commands noises, svi, tcvae, NMF noise, with the default "
    "predictor and without; synthesised music"
)
Row = dict[str, Any]


def describe_examples(examples: list[Example], scene: Scene, method: Any) -> list[Row]:
    """Infer the speech in some examples and describe the posteriors."""
    spectrogram = mark_observed(scene.stft.analyse([one.mixture for one in examples]))
    posterior = method(scene, spectrogram, None, seed=list(range(len(examples))))
    rows = []
    for i, example in enumerate(examples):
        estimate, clean = posterior.enhance(i), example.clean
        rows.append(
            {
                "label": example.label,
                "detail": example.detail,
                "si_sdr": None if clean is None else si_sdr(clean, estimate),
                "description": describe_posterior(posterior, i),
            }
        )
    if examples[0].label == ORDINARY or "white noise" in {one.detail for one in examples}:
        sizes = diagnose(posterior, scene).figures
        for row, figures in zip(rows, sizes, strict=True):
            row["misfit"] = {k: v for k, v in figures.items() if k.startswith("misfit")}
    return rows


def describe_batch(examples: list[Example], scene: Scene, method: Any) -> list[Row]:
    """Describe examples, those whose prediction is refused without a predictor, as `enhance`."""
    try:
        return describe_examples(examples, scene, method)
    except PredictorError:
        if len(examples) == 1:
            return describe_examples(examples, replace(scene, predictor=None), method)
        half = len(examples) // 2
        parts = (examples[:half], examples[half:])
        return [row for part in parts for row in describe_batch(part, scene, method)]


def collect_rows(data: Path, cache: Path, part: str, count: int) -> list[Row]:
    """Descriptions of ``count`` examples of each class of a part, from the cache where they are."""
    cache.mkdir(parents=True, exist_ok=True)
    scene = Scene(resolve_speech("tcvae"), resolve_noise("nmf"))
    method = resolve_inference("svi", device="cpu", draws=50, waveforms=False)
    scenes = {
        name: replace(scene, predictor=resolve_predictor(name, method)) for name in PREDICTORS
    }
    rows: list[Row] = []
    examples = list(make_examples(data, part, count, seed=0))
    for begin in range(0, len(examples), BATCH):
        batch = examples[begin : begin + BATCH]
        for name in PREDICTORS:
            path = cache / f"{part}-{count}-{begin:05d}-{name}.json"
            if not path.exists():
                described = describe_batch(batch, scenes[name], method)
                known = [
                    {**row, "predictor": name, "example": begin + i}
                    for i, row in enumerate(described)
                ]
                text = json.dumps(known)
                with atomic_path(path) as temporary:
                    temporary.write_text(text)
                print(f"{path.name} of {len(examples)}", flush=True)
            rows += json.loads(path.read_text())
    return rows


def fit_weights(phi: np.ndarray, label: np.ndarray, ridge: float) -> np.ndarray:
    """Multinomial logistic regression with an L2 penalty, classes at equal weight, by L-BFGS."""
    x, y = torch.from_numpy(phi), torch.from_numpy(label)
    balance = 1.0 / torch.bincount(y, minlength=len(CLASSES)).double().clamp_min(1)
    weights = torch.zeros(len(CLASSES), x.shape[1], dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=300, line_search_fn="strong_wolfe")

    def evaluate_loss() -> torch.Tensor:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weights.T, y, weight=balance)
        loss = loss + ridge * weights[:, 1:].square().sum()
        loss.backward()
        return loss

    optimiser.step(evaluate_loss)
    return weights.detach().numpy()


def fit_ridge(phi: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    """Linear regression with an L2 penalty on everything but the constant."""
    penalty = ridge * len(target) * np.eye(phi.shape[1])
    penalty[0, 0] = 0
    return np.linalg.solve(phi.T @ phi + penalty, phi.T @ target)


def fit_model(rows: list[Row]) -> SuitabilityModel:
    """Fit both regressions; each penalty by five-fold cross-validation on the training part."""
    names = tuple(rows[0]["description"])
    table = np.array([[row["description"][name] for name in names] for row in rows])
    spread = table.std(0) + 1e-6
    blank = SuitabilityModel(
        names, table.mean(0), spread, CLASSES, np.zeros(0), np.zeros(0), {}, -np.inf, FITTED_ON
    )
    phi = np.array([blank.expand(row["description"]) for row in rows])
    label = np.array([CLASSES.index(row["label"]) for row in rows])
    example = np.array([row["example"] for row in rows])  # with a predictor and without
    fold = np.random.default_rng(0).permutation(example.max() + 1)[example] % 5
    known = np.array([row["label"] in (ORDINARY, "clipped") for row in rows])
    target = np.array([row["si_sdr"] if k else 0.0 for k, row in zip(known, rows, strict=True)])
    target = np.clip(target, -15, 25)

    def score_classes(ridge: float) -> float:
        total = 0.0
        for k in range(5):
            logits = phi[fold == k] @ fit_weights(phi[fold != k], label[fold != k], ridge).T
            p = np.exp(logits - logits.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            total -= np.log(p[np.arange(len(p)), label[fold == k]] + 1e-12).sum()
        return total

    def score_si_sdr(ridge: float) -> float:
        errors = []
        for k in range(5):
            v = fit_ridge(phi[known & (fold != k)], target[known & (fold != k)], ridge)
            errors.append(phi[known & (fold == k)] @ v - target[known & (fold == k)])
        return float(np.square(np.concatenate(errors)).mean())

    of_classes = min((1e-4, 3e-4, 1e-3, 3e-3, 1e-2), key=score_classes)
    of_si_sdr = min((0.01, 0.03, 0.1, 0.3, 1.0), key=score_si_sdr)
    error_db = score_si_sdr(of_si_sdr) ** 0.5
    print(f"penalties {of_classes:g}, {of_si_sdr:g}; SI-SDR to {error_db:.1f} dB")
    return SuitabilityModel(
        names, table.mean(0), spread, CLASSES, fit_weights(phi, label, of_classes),
        fit_ridge(phi[known], target[known], of_si_sdr), {}, -np.inf, FITTED_ON,
    )  # fmt: skip


def choose_thresholds(model: SuitabilityModel, rows: list[Row]) -> dict[str, Any]:
    """Margins of the classes and least SI-SDR, from dev recordings.

    Margins are such that no ordinary one is warned of but for a few; those few are taken so that
    most others are found.
    """
    scores = [model.score(row["description"]) for row in rows]
    label = np.array([row["label"] for row in rows])
    ordinary = np.flatnonzero(label == ORDINARY)
    p = np.array([[one[name] for name in CLASSES] for one in scores]) + 1e-4
    odds = np.log(p[:, 1:] / p[:, :1])
    expected = np.array([one[SI_SDR] for one in scores])
    allowed = int(ALARMS * len(ordinary))
    least = np.sort(expected[ordinary])[max(1, allowed // 3)]
    least = float(min(least, FAILED_DB)) - 0.01
    given_up: set[int] = {int(i) for i in ordinary if expected[i] < least}

    def find_margins(without: set[int]) -> np.ndarray:
        kept = [i for i in ordinary if i not in without]
        return np.maximum(odds[kept].max(0) + 0.05, FIRMEST)

    def count_found(without: set[int]) -> int:
        return int((odds[label != ORDINARY] > find_margins(without)).any(1).sum())

    while len(given_up) < allowed:
        left = [int(i) for i in ordinary if int(i) not in given_up]
        given_up.add(max(left, key=lambda i: count_found(given_up | {i})))
    margins = dict(zip(CLASSES[1:], find_margins(given_up).round(2).tolist(), strict=True))
    return {"margins": margins, "least_si_sdr_db": round(least, 2)}


def report_part(model: SuitabilityModel, rows: list[Row], part: str) -> None:
    """Print how many of each class are warned of, and as what."""
    print(f"\n{part}: warned of, as what\n| is | n | warned | {' | '.join(CLASSES[1:])} | failed |")
    print("|---" * (4 + len(CLASSES)) + "|")
    kinds = list(dict.fromkeys((row["label"], "") for row in rows))
    kinds += [(ORDINARY, CLEAN), ("no speech", "white noise"), ("no speech", "recorded noise")]
    for label, detail in kinds:
        chosen = [r for r in rows if r["label"] == label and (not detail or r["detail"] == detail)]
        counts: dict[str, int] = dict.fromkeys((*CLASSES[1:], "failed"), 0)
        for row in chosen:
            scores = model.score(row["description"])
            if model.describe_doubts(scores):
                counts[model.name_doubt(scores) or "failed"] += 1
        share = sum(counts.values()) / max(1, len(chosen))
        cells = " | ".join(str(count or "") for count in counts.values())
        print(f"| {detail or label} | {len(chosen)} | {share:.0%} | {cells} |")
    ordinary = [row for row in rows if row["label"] == ORDINARY]
    truth = np.array([row["si_sdr"] for row in ordinary])
    guess = np.array([model.score(row["description"])[SI_SDR] for row in ordinary])
    bad = truth < FAILED_DB
    doubts = [model.describe_doubts(model.score(row["description"])) for row in ordinary]
    warned = np.array([bool(texts) for texts in doubts])
    error_db = np.sqrt(np.mean((np.clip(truth, -15, 25) - guess) ** 2))
    print(
        f"expected SI-SDR: correlation {np.corrcoef(truth, guess)[0, 1]:.2f}, error {error_db:.1f} "
        f"dB; below {FAILED_DB:g} dB are {bad.sum()}, of them warned of {warned[bad].sum()}, of "
        f"the others {warned[~bad].sum()}"
    )


def main() -> None:
    """Describe, fit, choose thresholds, write, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--count", type=int, default=40, help="training examples of each class")
    parser.add_argument("--checked", type=int, default=20, help="dev and nemo examples of each")
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts = (options.count, options.checked, options.checked)
    rows = {
        part: collect_rows(options.data, options.cache, part, count)
        for part, count in zip(PARTS, counts, strict=True)
    }
    write_model(fit_model(rows["train"]), rows, options.out)


def write_model(model: SuitabilityModel, rows: dict[str, list[Row]], out: Path) -> None:
    """Write the table with its thresholds, rounded, and report on what was written."""
    table = {
        "fitted_on": model.fitted_on,
        "names": model.names,
        "classes": model.classes,
        **choose_thresholds(model, rows["dev"]),
        "center": [float(f"{value:.5g}") for value in model.center],
        "spread": [float(f"{value:.5g}") for value in model.spread],
        "weights": [[float(f"{value:.4g}") for value in row] for row in model.weights],
        "si_sdr_weights": [float(f"{value:.4g}") for value in model.si_sdr_weights],
    }
    text = ",\n".join(
        f'"{name}": {json.dumps(value)}'.replace("], [", "],\n  [") for name, value in table.items()
    )
    with atomic_path(out) as temporary:
        temporary.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")
    written = SuitabilityModel.load(out)
    print(f"margins {written.margins}, least SI-SDR {written.least_si_sdr_db} dB")
    for part in PARTS:
        report_part(written, rows[part], part)


if __name__ == "__main__":
    main()
