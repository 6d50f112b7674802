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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import SHARED, mean_scores, quality, row, score, timed

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
            audios, lips, speech=prior, device="cpu", keep_posterior=False
        )
    )
    return [result.speech.samples for result in results], cpu_s / len(some)


def main(priors: Sequence[str | Path] = PRIORS, snrs_db: Sequence[float] = SNRS_DB) -> list[str]:
    """Lines of the tables."""
    warnings.simplefilter("ignore", UserWarning)
    some = cases(snrs_db)
    columns = {"input": [case.mixture.mixture for case in some]}
    columns["tcvae"], cost = enhanced(some, "tcvae", False)
    costs = {"tcvae": cost}
    for prior in priors:
        name = Path(prior).name
        for video, what in ((False, "audio-only"), (True, "with lips")):
            columns[f"{name} {what}"], costs[f"{name} {what}"] = enhanced(some, prior, video)
    scores = {
        name: [score(c.mixture.speech, e) for c, e in zip(some, estimates, strict=True)]
        for name, estimates in columns.items()
    }
    lines = [row("speaker", "noise", "SNR", *scores), row(*["---"] * (3 + len(scores)))]
    for key, indices in _groups(some).items():
        parts = [quality(mean_scores([rows[i] for i in indices])) for rows in scores.values()]
        lines.append(row(*key, *parts))
        print(lines[-1], flush=True)
    cost = ", ".join(f"{name} {cpu_s:.2f}" for name, cpu_s in costs.items())
    return [*lines, "", f"CPU seconds for a clip of 3 s, face tracking excluded: {cost}."]


def _groups(some: list[Case]) -> dict[tuple[str, str, str], list[int]]:
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for i, case in enumerate(some):
        groups[case.speaker, case.noise, f"{case.snr_db:+g} dB"].append(i)
    for i, case in enumerate(some):
        groups[case.speaker, "all", f"{case.snr_db:+g} dB"].append(i)
    return groups


if __name__ == "__main__":
    print("\n".join(main(sys.argv[1:] or PRIORS)))
