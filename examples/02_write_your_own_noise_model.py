"""Write a noise model, check it on simulated data, and compare it with others on a real recording.

Run it with ``python examples/02_write_your_own_noise_model.py``; it takes under a minute on one
core. The recording is a bundled sentence of the GRID corpus (CC BY 4.0) beside a bundled ticking
clock (CC BY 3.0).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from pyroapi import distributions as dist
from pyroapi import pyro
from rich.console import Console
from rich.table import Table

from avse_ppl import EM, SVI, ComplexNormal, Frames, GaussianSpeech, Posterior, Scene, Stft
from avse_ppl.data import highpass, mix
from avse_ppl.evaluation.diagnostics import diagnose
from avse_ppl.models.simulate import Simulated, simulate
from avse_ppl.pipeline.compare import compare
from avse_ppl.plotting import plot_comparison
from avse_ppl.signal.audio import Audio, load_audio

DATA = Path(__file__).parent / "data"
CONSOLE = Console()

# 1. The model: what is not known is sampled, and what comes out is the law of the noise STFT.
#    The recording has unit mean power, so that a power of 1 is as loud as the recording.


def ticking(frames: Frames) -> ComplexNormal:
    """A steady floor, and ticks of one colour that are loud in a few frames."""
    with pyro.plate("freq", frames.freq, dim=-2):
        floor = pyro.sample("floor", dist.LogNormal(frames.number(-4.0), 2.0))
        colour = pyro.sample("colour", dist.LogNormal(frames.number(0.0), 2.0))
    with pyro.plate("time", frames.time, dim=-1):
        loud = pyro.sample("loud", dist.HalfCauchy(frames.number(0.1)))
    return ComplexNormal(0.0, floor + colour * loud**2)  # mean, power


def main() -> None:
    """Simulate, infer, diagnose, compare."""
    parser = argparse.ArgumentParser(description="A noise model of your own, start to end.")
    parser.add_argument("--seconds", type=float, default=1.5, help="of the real recording")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="file for the plot of the comparison")
    arguments = parser.parse_args()
    check_on_simulated_data(arguments.seed)
    compare_on_a_recording(arguments.seconds, arguments.seed, arguments.output)


# 2. Simulated data: draw speech and noise from the model itself, where the truth is known, and see
#    whether the inference methods recover it. Nothing has to be registered, no method adapted.


def check_on_simulated_data(seed: int) -> None:
    """Infer a simulated mixture by several methods, and print their errors."""
    scene = Scene(GaussianSpeech(stft=Stft(n_fft=256, hop=64)), ticking)
    truth = simulate(scene, n_samples=16000, seed=seed)
    methods = {
        "SVI": SVI(steps=300, waveforms=False),
        "SVI, stopped early": SVI(steps=30, waveforms=False),
        "EM": EM(iterations=200, waveforms=False),
        "Langevin EM": EM(e_step="langevin", iterations=200, waveforms=False),
    }
    table = Table(title="a simulated mixture: error of each inference method")
    for heading in ("method", "posterior", "floor off by, dB", "speech, SNR dB", "diagnostics"):
        table.add_column(heading)
    doubts: list[str] = []
    for name, method in methods.items():
        posterior = method(scene, truth.mixture, seed=seed)
        checks = diagnose(posterior, scene, truth.mixture)
        doubts += [f"{name}: {text}" for text in checks.warnings[0]]
        verdict = "passed" if checks.passed[0] else "see below"
        off_db, snr_db = compute_errors(posterior, truth)
        table.add_row(name, posterior.kind, f"{off_db:.2f}", f"{snr_db:.1f}", verdict)
    CONSOLE.print(table)
    for text in doubts:
        CONSOLE.print(f"- {text}")


def compute_errors(posterior: Posterior, truth: Simulated) -> tuple[float, float]:
    """Median error of the floor's spectrum, and the signal-to-noise ratio of the speech mean."""
    found_db = 10 * np.log10(posterior.latents["floor"]).mean(axis=(0, 1))
    off_db = np.median(np.abs(found_db - 10 * np.log10(truth.latents["floor"].numpy())))
    speech = truth.speech.numpy()
    wrong = np.mean(np.abs(posterior.mean - speech) ** 2)
    return float(off_db), float(10 * np.log10(np.mean(np.abs(speech) ** 2) / wrong))


# 3. A real recording: which model predicts each time-frequency bin best from all the others?


def compare_on_a_recording(seconds: float, seed: int, output: Path | None) -> None:
    """Compare the model with two of the library's on a sentence beside a ticking clock."""
    sentence = load_audio(DATA / "speech.flac")
    clock = load_audio(DATA / "clock_tick.flac")
    speech = highpass(sentence.samples, sentence.sample_rate_hz)
    mixture = mix(speech, clock.samples, snr_db=0.0, seed=seed)
    samples = mixture.mixture[: round(seconds * mixture.sample_rate_hz)]
    noisy = Audio(samples, mixture.sample_rate_hz)
    models: dict[str, Any] = {"ticking": ticking, "nmf": "nmf", "stationary": "stationary"}
    comparison = compare(noisy, models, seed=seed)
    table = Table(title=f"{noisy.duration_s:g} s of speech beside a ticking clock, nats")
    for heading in ("noise model", "elpd", "difference", "s.e.", "weight", "bad k-hat"):
        table.add_column(heading, justify="right" if heading != "noise model" else "left")
    for row in comparison.table():
        table.add_row(
            row["model"], f"{row['elpd']:.0f}", f"{row['difference']:.0f}",
            f"{row['difference_se']:.0f}", f"{row['weight']:.2f}", f"{row['bad_k']:.1%}",
        )  # fmt: skip
    CONSOLE.print(table)
    for text in comparison.warnings:
        CONSOLE.print(f"warning: {text}")
    if output is not None:
        CONSOLE.print(f"wrote {plot_comparison(comparison, output)}")


if __name__ == "__main__":
    main()
