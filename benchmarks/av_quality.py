"""What lips add: each audio-visual prior with video, and the same prior without.

Development clips of the speaker that the priors were trained on (s1, sentences not trained on) and
of six speakers never seen, in babble of other speakers, in noises never trained on, and in white
noise. The column beside each figure is the same prior, routine and seed with the video left out;
`tcvae` is the default prior of recordings without video.
"""

from __future__ import annotations

import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import SHARED, mean_scores, score, timed
from results import Column, Table, name_scores, suffix_quality

import avse_ppl
from avse_ppl.data import (
    DEV_NOISES,
    decode,
    make_babble,
    mix,
    read_grid,
    read_noise,
    read_speechocean762,
)
from avse_ppl.data.mixing import Mixture
from avse_ppl.signal.audio import Audio
from avse_ppl.video import Lips, load_detector, read_lips

DATA = SHARED / "data"
DETECTOR = SHARED / "models" / "face" / "scrfd_500m_kps.onnx"
PRIORS = ("av-cvae", "av-dkf")
SNRS_DB = (-5.0, 0.0, 5.0)
_TALKERS = 4
_S1_CLIPS = 8


@dataclass(frozen=True)
class Case:
    """One mixture with its video."""

    speaker: str  # "s1" or "unseen"
    noise: str
    snr_db: float
    mixture: Mixture
    lips: Lips


def cases(snrs_db: Sequence[float] = SNRS_DB) -> list[Case]:
    """All mixtures; which noise clip goes with which sentence is drawn once from a seed."""
    detector = load_detector(DETECTOR)
    s1 = [clip for clip in read_grid(DATA / "grid_s1") if clip.split == "dev"]
    clips = [("s1", clip) for clip in s1[:: len(s1) // _S1_CLIPS][:_S1_CLIPS]]
    clips += [("unseen", clip) for clip in read_grid(DATA / "grid_unseen")]
    others = [c for c in read_speechocean762(DATA / "speechocean762") if c.split == "dev"]
    others += read_grid(DATA / "grid_unseen")
    noises = read_noise(DATA / "noise")
    random, found = np.random.default_rng(0), []
    for who, clip in clips:
        speech, lips = decode(clip), read_lips(clip.path, face_model=detector)
        seed = int(random.integers(2**31))
        sounds = {"babble": make_babble(others, _TALKERS, seed, exclude_speaker=clip.speaker)}
        sounds["white"] = random.normal(size=80000).astype("float32")
        for label in DEV_NOISES:
            mine = [noise for noise in noises if noise.label == label]
            sounds[label] = decode(mine[int(random.integers(len(mine)))])
        for label, noise in sounds.items():
            found += [
                Case(who, label, snr, mix(speech, noise, snr, 16000, seed), lips) for snr in snrs_db
            ]
    return found


def enhanced(some: list[Case], prior: str | Path, video: bool) -> tuple[list[np.ndarray], float]:
    """Estimates, and CPU seconds a clip."""
    audios = [Audio(case.mixture.mixture, 16000) for case in some]
    lips = [case.lips for case in some] if video else None
    results, _, cpu_s = timed(
        lambda: avse_ppl.enhance_batch(
            audios, lips, speech=prior, device="cpu", keep_posterior=False, predictor="none"
        )
    )
    return [result.speech.samples for result in results], cpu_s / len(some)


def make_tables(names: Iterable[str]) -> tuple[Table, Table]:
    """Columns of the tables of quality and of cost, for the estimates of those names."""
    quality = Table(
        [
            Column("speaker", "speaker", "{speaker}"),
            Column("noise", "noise", "{noise}"),
            Column("snr", "SNR", "{snr_db:+g} dB"),
            *(Column(slug(name), name, suffix_quality(f"_{slug(name)}")) for name in names),
        ]
    )
    cost = Table(
        [
            Column("name", "face tracking excluded", "{name}"),
            Column("cost", "CPU s for a clip of 3 s", "{cpu_s:.2f}"),
        ]
    )
    return quality, cost


def slug(name: str) -> str:
    """The name of an estimate as part of the name of a figure."""
    return name.replace(" ", "-").replace(".", "-")


def measure(
    priors: Sequence[str | Path] = PRIORS, snrs_db: Sequence[float] = SNRS_DB
) -> dict[str, Table]:
    """Measure both tables."""
    warnings.simplefilter("ignore", UserWarning)
    some = cases(snrs_db)
    estimates = {"input": [case.mixture.mixture for case in some]}
    estimates["tcvae"], cpu_s = enhanced(some, "tcvae", False)
    costs = {"tcvae": cpu_s}
    for prior in priors:
        for video, what in ((False, "audio-only"), (True, "with lips")):
            name = f"{Path(prior).name} {what}"
            estimates[name], costs[name] = enhanced(some, prior, video)
    scores = {
        name: [score(c.mixture.speech, e) for c, e in zip(some, waves, strict=True)]
        for name, waves in estimates.items()
    }
    quality, cost = make_tables(estimates)
    quality.note = "All settings at their defaults."
    for (speaker, noise, snr_db), indices in _groups(some).items():
        values: dict[str, float] = {}
        for name, rows in scores.items():
            values |= name_scores(mean_scores([rows[i] for i in indices]), f"_{slug(name)}")
        key = f"{speaker}_{noise}_{snr_db:+g}dB"
        quality.add_row(key, speaker=speaker, noise=noise, snr_db=snr_db, **values)
    for name, cpu_s in costs.items():
        cost.add_row(slug(name), name=name, cpu_s=cpu_s)
    return {"av_quality": quality, "av_quality.cost": cost}


def _groups(some: list[Case]) -> dict[tuple[str, str, float], list[int]]:
    groups: dict[tuple[str, str, float], list[int]] = defaultdict(list)
    for i, case in enumerate(some):
        groups[case.speaker, case.noise, case.snr_db].append(i)
    for i, case in enumerate(some):
        groups[case.speaker, "all", case.snr_db].append(i)
    return groups


if __name__ == "__main__":
    for table in measure(sys.argv[1:] or PRIORS).values():
        print(table.format_markdown())
