"""How well visual reliability is told: unseen people, corruptions never trained on.

    python benchmarks/reliability.py cache/lrw_ar cache/grid_unseen --noise cache/noise

The caches are what `avse-ppl prepare` makes; only clips of their development split are used, which
hold people that the network was not trained on, and noises of classes it was not trained on. Each
clip is corrupted once, in a span or throughout, with a severity drawn uniformly; three in ten stay
as they are. Frames without a face, whose score is 0 by construction, are left out of all figures.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr

from avse_ppl.data import load_cache
from avse_ppl.data.cache import SpeechCache, load_lips
from avse_ppl.models.networks.reliability import ReliabilityNetwork
from avse_ppl.models.weights.io import load_reliability
from avse_ppl.signal.audio import Audio
from avse_ppl.video import Lips
from avse_ppl.video.corruptions import (
    CAUSES,
    KINDS,
    Corrupted,
    corrupt,
    corruption_kinds,
    label_clean_clip,
)
from avse_ppl.video.quality.score import Reliability, score_lips

RATE_HZ, PICTURE_HZ = 16000, 25
SNR_DB = (-5.0, 15.0)
_CLEAN, _WHOLE, _SYNC_WHOLE, _BURST = 0.3, 0.35, 0.75, (6, 45)
_OCCLUDERS = ("hand", "patch", "bar", "microphone", "item", "scarf")
_SYNC = "out of sync"


@dataclass(frozen=True)
class Talker:
    """A clip: its lips, its sound, who speaks, and of which corpus."""

    lips: Lips
    speech: np.ndarray
    speaker: str
    corpus: str


@dataclass(frozen=True)
class Case:
    """A clip, what was done to it, and what is said of it."""

    kind: str
    corpus: str
    known: Corrupted
    judged: Reliability

    @property
    def rows(self) -> np.ndarray:
        """Frames that have a face."""
        return self.known.lips.found


def talkers(caches: Sequence[Path]) -> list[Talker]:
    """Development clips of prepared corpora."""
    found = []
    for path in caches:
        lips, sound = load_lips(path), load_cache(path)
        for i, clip in enumerate(lips.clips):
            if clip.split == "dev" and lips.has_frames[i]:
                found.append(Talker(lips[i], sound[i], clip.speaker, clip.corpus))
    return found


def case(
    talker: Talker, others: Sequence[Talker], kind: str, noise: SpeechCache,
    rng: np.random.Generator, network: ReliabilityNetwork, heard: bool = True,
) -> Case:  # fmt: skip
    """Corrupt and judge one clip; a kind of "" leaves it as it is."""
    known = label_clean_clip(talker.lips)
    if kind:
        whole = _SYNC_WHOLE if KINDS[kind].cause == _SYNC else _WHOLE
        span = _span(len(talker.lips), rng, whole)
        donor = others[int(rng.integers(len(others)))].lips
        known = corrupt(known, kind, severity=rng.random(), span=span, seed=rng, donor=donor)
    sound = Audio(mixture(talker.speech, noise, rng), RATE_HZ)  # drawn in any case: same clips
    sound = sound if heard else None
    return Case(kind, talker.corpus, known, score_lips(known.lips, sound, network=network))


def mixture(speech: np.ndarray, noise: SpeechCache, rng: np.random.Generator) -> np.ndarray:
    """Speech in a noise of the development split."""
    wave = np.asarray(noise[int(rng.choice(noise.indices("dev")))], np.float32)
    wave = np.resize(np.roll(wave, int(rng.integers(len(wave)))), len(speech))
    ratio = np.sqrt(np.mean(speech**2) / max(float(np.mean(wave**2)), 1e-12))
    return speech + wave * np.float32(ratio * 10 ** (-rng.uniform(*SNR_DB) / 20))


def _span(count: int, rng: np.random.Generator, whole: float) -> tuple[int, int]:
    if rng.random() < whole:
        return 0, count
    length = int(rng.integers(_BURST[0], min(_BURST[1], count) + 1))
    start = int(rng.integers(0, count - length + 1))
    return start, start + length


def cases(clips: Sequence[Talker], names: Sequence[str], count: int, noise: SpeechCache,
          network: ReliabilityNetwork, seed: int, heard: bool = True) -> list[Case]:  # fmt: skip
    """So many cases, people drawn alike."""
    rng = np.random.default_rng(seed)
    speakers = sorted({clip.speaker for clip in clips})
    made = []
    for number in range(count):
        speaker = speakers[number % len(speakers)]
        own = [clip for clip in clips if clip.speaker == speaker]
        others = [clip for clip in clips if clip.speaker != speaker]
        talker = own[int(rng.integers(len(own)))]
        kind = "" if rng.random() < _CLEAN else names[int(rng.integers(len(names)))]
        made.append(case(talker, others, kind, noise, rng, network, heard))
    return made


def pooled(made: Sequence[Case], read: Callable[[Case], np.ndarray]) -> np.ndarray:
    """One array of all frames with a face."""
    return np.concatenate([read(one)[one.rows] for one in made])


def auroc(positive: np.ndarray, score: np.ndarray) -> float:
    """Chance that a frame to believe has a higher score than one not to."""
    ranks, good = rankdata(score), int(positive.sum())
    bad = len(positive) - good
    if good == 0 or bad == 0:
        return float("nan")
    return float((ranks[positive].sum() - good * (good + 1) / 2) / (good * bad))


def average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    """Mean precision over the positives, from the highest score down."""
    hits = positive[np.argsort(-score, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean()) if hits.any() else float("nan")


def calibration_error(reliability: np.ndarray, score: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean gap of score and truth over bins of the score."""
    where = np.minimum((score * bins).astype(int), bins - 1)
    gaps = [abs(score[where == b].sum() - reliability[where == b].sum()) for b in np.unique(where)]
    return float(np.sum(gaps) / len(score))


def figures(made: Sequence[Case]) -> dict[str, float]:
    """AUROC, calibration error and Brier score of the frames of some cases."""
    score, reliability = (pooled(made, r) for r in (_score, _truth))
    return {
        "AUROC": auroc(reliability >= 0.5, score),
        "ECE": calibration_error(reliability, score),
        "Brier": float(np.mean((score - reliability) ** 2)),
        "frames": len(score),
    }


def _score(one: Case) -> np.ndarray:
    return one.judged.score


def _truth(one: Case) -> np.ndarray:
    return one.known.reliability


def causes(made: Sequence[Case]) -> dict[str, tuple[float, float]]:
    """Average precision of each cause, and its share of the frames: what chance would reach."""
    named = pooled(made, lambda one: one.known.cause)
    table = {}
    for k, cause in enumerate(CAUSES):
        said = pooled(made, lambda one, k=k: one.judged.cause_probability[:, k])
        if (named == cause).any():
            table[cause] = average_precision(named == cause, said), float((named == cause).mean())
    return table


def monotone(
    clips: Sequence[Talker], network: ReliabilityNetwork, steps: int = 7
) -> dict[str, float]:
    """How the score falls while the same thing, at the same place, covers more of the mouth."""
    correlations, falls = [], []
    for number, clip in enumerate(clips):
        for kind in _OCCLUDERS:
            done = [
                corrupt(clip.lips, kind, severity=s, seed=number) for s in np.linspace(0, 1, steps)
            ]
            means = [score_lips(one.lips, network=network).score.mean() for one in done]
            hidden = [1 - one.reliability.mean() for one in done]
            if hidden[-1] - hidden[0] > 0.1:
                rank: Any = spearmanr(hidden, means)
                correlations.append(-float(rank.statistic))
                falls += [b <= a + 0.02 for a, b in itertools.pairwise(means)]
    return {"rank correlation": float(np.mean(correlations)), "steps down": float(np.mean(falls))}


def lags(clips: Sequence[Talker], network: ReliabilityNetwork) -> np.ndarray:
    """Frames from the first that is not to be believed to the first with a score below a half.

    Strong corruptions that begin in the middle of a clip and are seen, not heard.
    """
    names = [
        n for n in corruption_kinds() if KINDS[n].cause != _SYNC and n not in ("flicker", "stutter")
    ]
    late = []
    for number, clip in enumerate(clips):
        middle = len(clip.lips) // 2
        for kind in names:
            known = corrupt(
                clip.lips, kind, severity=0.9, span=(middle, len(clip.lips)), seed=number
            )
            bad = np.flatnonzero(known.reliability < 0.5)
            said = score_lips(known.lips, network=network).score < 0.5
            if len(bad):
                after = np.flatnonzero(said[bad[0] :])
                late.append(int(after[0]) if len(after) else 99)
    return np.array(late)


def frames_per_second(clip: Talker, network: ReliabilityNetwork) -> float:
    """Of a clip of 3 s with sound, on one core, the sound's features included."""
    index = np.arange(75) % len(clip.lips)
    columns = ("roi", "found", "interpolated", "score", "keypoints", "pose_deg",
               "pose_confidence", "blur")  # fmt: skip
    parts = {name: getattr(clip.lips, name)[index] for name in columns}
    lips = replace(clip.lips, time_s=np.arange(75) / PICTURE_HZ, **parts)
    sound = Audio(np.resize(clip.speech, 3 * RATE_HZ), RATE_HZ)
    score_lips(lips, sound, network=network)
    begin = time.process_time()
    for _ in range(5):
        score_lips(lips, sound, network=network)
    return 5 * 75 / (time.process_time() - begin)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("caches", nargs="+", type=Path)
    parser.add_argument("--noise", required=True, type=Path)
    parser.add_argument("--network", default="reliability")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--few", type=int, default=12, help="clips for monotony and lag")
    given = parser.parse_args()
    torch.set_num_threads(1)
    clips, noise = talkers(given.caches), load_cache(given.noise)
    network = load_reliability(given.network)
    held = corruption_kinds("held out")
    seen = [n for n in held if KINDS[n].cause != _SYNC]
    families = (
        ("held out but out of sync", seen),
        ("held out", held),
        ("trained", corruption_kinds("trained")),
    )
    print(f"{len(clips)} clips of {len({c.speaker for c in clips})} people")
    print("| corruptions | AUROC | calibration error | Brier score | frames |")
    for label, names in families:
        made = {
            heard: cases(clips, names, given.count, noise, network, 0, heard)
            for heard in (False, True)
        }
        for heard, some in made.items():
            cells = " | ".join(f"{v:.3f}" for v in figures(some).values())
            print(f"| {label}, {'with sound' if heard else 'pictures alone'} | {cells} |")
        _print_kinds(made, names)
        _print_causes(made)
    few = clips[:: max(len(clips) // given.few, 1)][: given.few]
    print("monotone:", monotone(few, network))
    late = lags(few, network)
    print(
        f"lag: median {np.median(late):.0f}, within 3 frames {np.mean(late <= 3):.3f}, "
        f"never {np.mean(late == 99):.3f}"
    )
    print(f"{frames_per_second(clips[0], network):.0f} frames/s")


def _print_kinds(made: dict[bool, list[Case]], names: Sequence[str]) -> None:
    """AUROC of each kind against clips left as they are, by pictures alone and with sound."""
    for name in names:
        cells = [_against_clean(some, name) for some in made.values()]
        print(f"  {name:<15} AUROC", *(f"{cell:.3f}" for cell in cells), flush=True)


def _against_clean(made: Sequence[Case], name: str) -> float:
    some = [one for one in made if one.kind in ("", name)]
    return auroc(pooled(some, _truth) >= 0.5, pooled(some, _score))


def _print_causes(made: dict[bool, list[Case]]) -> None:
    """Average precision of each cause, by pictures alone and with sound, and by chance."""
    tables = [causes(some) for some in made.values()]
    for cause, (_, chance) in tables[0].items():
        cells = (f"{table[cause][0]:.2f}" for table in tables)
        print(f"  | {cause} |", " | ".join((*cells, f"{chance:.2f}")), "|", flush=True)


if __name__ == "__main__":
    main()
