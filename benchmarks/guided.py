"""Diffusion priors: against exact posteriors, on the development set, and with lips.

Each part prints as it goes; name the parts to run (toy, dev, lips) or run all.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from common import mean_scores, quality, row, score, timed

from avse_ppl import Exact, GuidedDiffusion, Posterior, Stft, UDiffSE
from avse_ppl.models.simulate import reference_scene, simulate

# Speech prior and routine; the first two are for comparison. SVI through the flow
# of the latent diffusion is left out: it costs several times what guided diffusion does.
RUNS = (
    ("tcvae", "svi"),
    ("rvae", "svi"),
    ("latent-diffusion", "guided"),
    ("score", "guided"),
)

NOISES = ("babble", "white", "rain", "cutlery")


def toy() -> Iterator[str]:
    """Speech and noise of known power: gap of the means in posterior sd, ratio of the sds."""
    yield row("method", "chains", "NFE", "gap of means, sd", "ratio of sds")
    yield row(*["---"] * 5)
    stft = Stft(n_fft=256, hop=64)
    scene = reference_scene(True, noise_power=0.5, gain_sd_db=0.0, stft=stft)
    mixture = simulate(scene, n_samples=16000, seed=0).mixture
    exact = Exact(waveforms=False)(scene, mixture, seed=0)
    runs: list[tuple[str, int, int, Callable[..., Posterior]]] = [
        ("guided", chains, 19, GuidedDiffusion(chains=chains, waveforms=False))
        for chains in (2, 4, 12)
    ]
    runs += [("guided-udiffse", chains, 300, UDiffSE(chains=chains)) for chains in (2, 4, 12)]
    for name, chains, calls, routine in runs:
        posterior = routine(scene, mixture, seed=1)
        gap = np.sqrt(np.mean((np.abs(posterior.mean - exact.mean) / exact.sd) ** 2))
        ratio = np.mean(posterior.sd / exact.sd)
        yield row(name, chains, calls, f"{gap:.2f}", f"{ratio:.2f}")


def dev() -> Iterator[str]:
    """Quality, cost and coverage on the 108 mixtures of the development set."""
    from calibration import (
        after,
        average_coverage,
        before,
        cases,
        ninety,
        percent,
    )

    yield row("speech prior", "method", "-5 dB", "+0 dB", "+5 dB", "all", "real-time factor",
              "90 % regions", "recalibrated")  # fmt: skip
    yield row(*["---"] * 9)
    for speech, routine in RUNS:
        found, wall_s, _ = timed(lambda s=speech, r=routine: cases(r, s))
        scores = [score(c.clean, c.posterior.enhance()) for c in found]
        parts = [
            quality(mean_scores([s for s, c in zip(scores, found, strict=True) if c.snr_db == db]))
            for db in (-5.0, 0.0, 5.0)
        ]
        seconds = sum(len(c.clean) for c in found) / 16000
        covered = percent(ninety(average_coverage([r for _, r in before(found)])))
        again = percent(ninety(average_coverage([r for _, r in after(found, 3)[0]])))
        yield row(speech, routine, *parts, quality(mean_scores(scores)), f"{wall_s / seconds:.2f}",
                  covered, again)  # fmt: skip


def lips() -> Iterator[str]:
    """With lips and without, at -5 dB, in four noises."""
    from av_quality import cases

    import avse_ppl
    from avse_ppl.signal.audio import Audio

    some = [case for case in cases((-5.0,)) if case.noise in NOISES]
    audios = [Audio(case.mixture.mixture, 16000) for case in some]
    columns = {"input": [case.mixture.mixture for case in some]}
    for speech in ("latent-diffusion", "score"):
        for name, videos in (("audio-only", None), ("with lips", [case.lips for case in some])):
            results = avse_ppl.enhance_batch(
                audios, videos, speech=speech, inference="guided", device="cpu",
                keep_posterior=False, predictor="none",
            )  # fmt: skip
            columns[f"{speech} {name}"] = [result.speech.samples for result in results]
    yield row("speaker", "noise", *columns)
    yield row(*["---"] * (2 + len(columns)))
    for speaker in ("s1", "unseen"):
        for noise in [*dict.fromkeys(case.noise for case in some), "all"]:
            mine = [
                i for i, case in enumerate(some)
                if case.speaker == speaker and noise in (case.noise, "all")
            ]  # fmt: skip
            parts = [
                quality(mean_scores([score(some[i].mixture.speech, e[i]) for i in mine]))
                for e in columns.values()
            ]
            yield row(speaker, noise, *parts)


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["toy", "dev", "lips"])
    asked = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)
    makes = {"toy": toy, "dev": dev, "lips": lips}
    for part in asked.parts:
        for line in makes[part]():
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
