"""What frontal mouth crops add: `av-dkf` with and without them, and audio-only.

Development sentences of GRID (frontal faces) and the most turned faces of LRW-AR, each in babble of
other speakers and in rain at -5 dB. Crops are cut twice from the same tracks.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from av_quality import DATA, DETECTOR
from common import mean_scores, quality, row, score

import avse_ppl
from avse_ppl.data import decode, make_babble, mix, read_grid, read_lrw_ar, read_noise
from avse_ppl.data.clips import Clip
from avse_ppl.data.mixing import Mixture
from avse_ppl.evaluation.metrics import si_sdr
from avse_ppl.signal.audio import Audio
from avse_ppl.video import Lips, load_detector, read_lips

PRIOR, SNR_DB = "av-dkf", -5.0
N_CLIPS = 18  # of s1, and of the most turned faces of LRW-AR
N_SEARCHED = 400  # clips of LRW-AR among which those are looked for
TURNED_DEG = 10.0


@dataclass(frozen=True)
class Case:
    """One sentence with both kinds of crops, and its mixtures."""

    group: str
    yaw_deg: float
    crops: Lips
    frontal: Lips
    mixtures: tuple[Mixture, ...]


def choose_clips() -> list[tuple[str, Clip]]:
    """Sentences of s1, of unseen GRID speakers, and of turned faces in LRW-AR."""
    detector = load_detector(DETECTOR)
    s1 = [clip for clip in read_grid(DATA / "grid_s1") if clip.split == "dev"]
    clips = [("GRID s1", clip) for clip in s1[:: len(s1) // N_CLIPS][:N_CLIPS]]
    clips += [("GRID unseen", clip) for clip in read_grid(DATA / "grid_unseen")]
    candidates = read_lrw_ar(DATA / "lrw_ar")
    yaws = []
    for clip in candidates[:: max(len(candidates) // N_SEARCHED, 1)]:
        try:
            pose_deg = read_lips(clip.path, face_model=detector).pose_deg
        except ValueError:
            continue
        yaws.append((float(np.nanmedian(np.abs(pose_deg[:, 0]))), clip))
    yaws.sort(key=lambda pair: -pair[0])
    turned = [clip for yaw, clip in yaws if yaw >= TURNED_DEG][:N_CLIPS]
    return clips + [(f"LRW-AR, {TURNED_DEG:.0f} degrees or more", clip) for clip in turned]


def make_cases() -> list[Case]:
    """Crops and mixtures of all sentences; noises are drawn from a seed."""
    detector = load_detector(DETECTOR)
    others = read_grid(DATA / "grid_unseen")
    rain = [noise for noise in read_noise(DATA / "noise") if noise.label == "rain"]
    random, cases = np.random.default_rng(0), []
    for group, clip in choose_clips():
        speech, seed = decode(clip), int(random.integers(2**31))
        crops = read_lips(clip.path, face_model=detector)
        sounds = (
            make_babble(others, 4, seed, exclude_speaker=clip.speaker),
            decode(rain[int(random.integers(len(rain)))]),
        )
        cases.append(
            Case(
                group,
                float(np.nanmedian(np.abs(crops.pose_deg[:, 0]))),
                crops,
                read_lips(clip.path, face_model=detector, frontalise=True),
                tuple(mix(speech, noise, SNR_DB, 16000, seed) for noise in sounds),
            )
        )
    return cases


def enhance(cases: list[Case], crops: str | None) -> list[np.ndarray]:
    """Estimates of all mixtures, with one kind of crops or without video."""
    audios = [Audio(m.mixture, 16000) for case in cases for m in case.mixtures]
    lips = [getattr(case, crops) for case in cases for _ in case.mixtures] if crops else None
    results = avse_ppl.enhance_batch(
        audios, lips, speech=PRIOR, device="cpu", keep_posterior=False, predictor="none"
    )
    return [result.speech.samples for result in results]


def main() -> list[str]:
    """Lines of the table."""
    warnings.simplefilter("ignore", UserWarning)
    cases = make_cases()
    mixtures = [m for case in cases for m in case.mixtures]
    columns = {
        "input": [m.mixture for m in mixtures],
        "audio-only": enhance(cases, None),
        "crops": enhance(cases, "crops"),
        "frontal crops": enhance(cases, "frontal"),
    }
    scores = {
        name: [score(m.speech, e) for m, e in zip(mixtures, estimates, strict=True)]
        for name, estimates in columns.items()
    }
    lines = [row("faces", "clips", "yaw", *scores, "gain dB"), row(*["---"] * (4 + len(scores)))]
    groups = [case.group for case in cases for _ in case.mixtures]
    for group in dict.fromkeys(groups):
        rows = [i for i, other in enumerate(groups) if other == group]
        yaws = [case.yaw_deg for case in cases if case.group == group]
        parts = [quality(mean_scores([values[i] for i in rows])) for values in scores.values()]
        pairs = zip(columns["frontal crops"], columns["crops"], mixtures, strict=True)
        gains_db = [
            si_sdr(m.speech, frontal) - si_sdr(m.speech, plain)
            for i, (frontal, plain, m) in enumerate(pairs)
            if i in rows
        ]
        error_db = np.std(gains_db, ddof=1) / np.sqrt(len(gains_db))
        parts.append(f"{np.mean(gains_db):+.2f} (s.e. {error_db:.2f})")
        lines.append(row(group, len(yaws), f"{np.mean(yaws):.0f}", *parts))
    return lines


if __name__ == "__main__":
    print("\n".join(main()))
