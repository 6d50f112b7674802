"""What bad video costs: enhanced speech with corrupted lips against the same prior audio-only.

The clips, noises and seeds of `av_quality`, at -5 dB. Corruptions are rendered on the real crops:
of the whole clip, and in two bursts that make up half of it. The regret is SI-SDR audio-only minus
SI-SDR with the corrupted video; the gain kept is that of the corrupted video divided by that of
the clean one under `ungated`.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from av_quality import Case, cases
from common import row, score

import avse_ppl
from avse_ppl.signal.audio import Audio
from avse_ppl.video import Lips
from avse_ppl.video.corruptions import corrupt

MODELS = ("ungated", "soft", "switching")
CORRUPTIONS: dict[str, tuple[str, float]] = {
    "hand": ("hand", 1.0),
    "half covered": ("patch", 0.5),
    "blur": ("blur", 1.0),
    "dark": ("dark", 1.0),
    "freeze": ("freeze", 1.0),
    "drop": ("drop", 1.0),
    "shift 0.5 s": ("shift", 0.5),
    "other speaker": ("other-speaker", 1.0),
    "microphone (held out)": ("microphone", 1.0),
    "pixelation (held out)": ("pixelation", 1.0),
    "backwards (held out)": ("backwards", 1.0),
    "random frames": ("", 1.0),
}


def worse(lips: Lips, what: str, spans: Sequence[tuple[int, int]], seed: int, donor: Lips) -> Lips:
    """Lips with a corruption in those spans."""
    kind, severity = CORRUPTIONS[what]
    if not kind:
        roi = lips.roi.copy()
        for start, stop in spans:
            shape = roi[start:stop].shape
            roi[start:stop] = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        return replace(lips, roi=roi)
    result: Any = lips
    for start, stop in spans:
        result = corrupt(
            result, kind, severity=severity, span=(start, stop), seed=seed, donor=donor
        )
    return result.lips


def spans_of(lips: Lips, whole: bool) -> list[tuple[int, int]]:
    """All of a clip, or its second and its last quarter."""
    n = len(lips)
    return [(0, n)] if whole else [(n // 4, n // 2), (3 * n // 4, n)]


def si_sdr(
    some: list[Case], lips: list[Lips] | None, model: str, speech: str, inference: str
) -> np.ndarray:
    """SI-SDR of each case, dB."""
    results = avse_ppl.enhance_batch(
        [Audio(case.mixture.mixture, 16000) for case in some], lips, speech=speech,
        inference=inference, device="cpu", keep_posterior=False, reliability=model,
        predictor="none",
    )  # fmt: skip
    pairs = zip(some, results, strict=True)
    return np.array([score(c.mixture.speech, r.speech.samples).si_sdr_db for c, r in pairs])


def main(
    models: Sequence[str] = MODELS, noises: Sequence[str] = (), speech: str = "av-dkf",
    inference: str = "svi",
) -> list[str]:  # fmt: skip
    """Lines of the table."""
    warnings.simplefilter("ignore", UserWarning)
    how = {"speech": speech, "inference": inference}
    some = [case for case in cases((-5.0,)) if not noises or case.noise in noises]
    donors = [some[(i + len(some) // 2) % len(some)].lips for i in range(len(some))]
    ear = si_sdr(some, None, "audio-only", **how)
    heads = [f"{m}: mean regret / worst clip / gain kept" for m in models]
    lines = [row("lips", *heads), row(*["---"] * (1 + len(models)))]
    lips = [case.lips for case in some]
    clean = {m: si_sdr(some, lips, m, **how) for m in dict.fromkeys((*models, "ungated"))}
    best = float(np.mean(clean["ungated"] - ear))
    lines.append(_line("clean", ear, {m: clean[m] for m in models}, best))
    print("\n".join(lines), flush=True)
    for what in CORRUPTIONS:
        for whole in (True, False):
            lips = [
                worse(c.lips, what, spans_of(c.lips, whole), i, donors[i])
                for i, c in enumerate(some)
            ]
            found = {m: si_sdr(some, lips, m, **how) for m in models}
            lines.append(_line(f"{what}, {'whole' if whole else 'half'}", ear, found, best))
            print(lines[-1], flush=True)
    return lines


def _line(what: str, ear: np.ndarray, found: dict[str, np.ndarray], best: float) -> str:
    cells = [
        f"{np.mean(ear - f):+.2f} / {np.max(ear - f):+.2f} / {np.mean(f - ear) / best:.0%}"
        for f in found.values()
    ]
    return row(what, *cells)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--noise", nargs="*", default=("babble", "white"), help="none: all")
    parser.add_argument("--speech", default="av-dkf")
    parser.add_argument("--inference", default="svi")
    asked = parser.parse_args()
    main(asked.models, asked.noise, asked.speech, asked.inference)
