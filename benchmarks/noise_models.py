"""Every noise model on real noises that none was made for: evidence, and what it does to speech."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import SHARED, mean_scores, score, timed
from results import QUALITY, Column, Table, name_scores

from avse_ppl import SVI, ComplexNormal, Scene, Stft, enhance_batch
from avse_ppl.data import decode, make_dev_manifest, read_noise, realise
from avse_ppl.pipeline.catalog import resolve_noise
from avse_ppl.signal.audio import Audio
from avse_ppl.signal.stft import Frames

CLIPS, SAMPLES = 2, 32000  # of each class
MODELS = (
    "stationary", "nmf(2)", "nmf(8)", "ar1", "student-t", "alpha-stable", "stationary+clicks",
    "nmf(2)+clicks", "nmf(2)+hum", "stationary+wind", "learned", "learned+clicks",
)  # fmt: skip
ENHANCING = ("nmf", "stationary", "ar1", "student-t", "alpha-stable", "nmf(2)+clicks", "learned")


class Silence:
    """No speech."""

    stft = Stft()

    def __call__(self, frames: Frames, visual: Any = None) -> ComplexNormal:
        """Return a power that plays no part."""
        return ComplexNormal(0.0, frames.number(1e-8))


def measure() -> dict[str, Table]:
    """Measure both tables."""
    return {"noise_models": measure_evidence(), "noise_models.speech": measure_speech()}


def measure_evidence() -> Table:
    """ELBO in nats a bin, noise alone."""
    waves, labels = noises()
    spectrogram = Stft().analyse(waves)
    classes = sorted(set(labels))
    table = Table(
        [
            Column("name", "noise model", "{name}"),
            *(Column(label, label, f"{{{label}:.2f}}") for label in classes),
            Column("elbo", "all", "{all:.2f}"),
            Column("cost", "CPU s", "{cpu_s:.0f}"),
        ]
    )
    routine = SVI(steps=250, tolerance=0, draws=2, waveforms=False, moment_draws=1)
    for name in MODELS:
        scene = Scene(Silence(), resolve_noise(name))
        posterior, _, cpu = timed(lambda scene=scene: routine(scene, spectrogram, seed=0))
        elbo = posterior.trace["elbo"][-30:].mean(0) / spectrogram.values[0].numel()
        by_class = {label: elbo[np.array(labels) == label].mean() for label in classes}
        table.add_row(name, name=name, **by_class, all=elbo.mean(), cpu_s=cpu)
    return table


def noises() -> tuple[np.ndarray, list[str]]:
    """The first clips of each development class that hold sound throughout."""
    waves: list[np.ndarray] = []
    labels: list[str] = []
    for clip in read_noise(SHARED / "data" / "noise"):
        if clip.split != "dev" or labels.count(clip.label) == CLIPS:
            continue
        wave = decode(clip)
        for part in np.split(wave, range(SAMPLES, len(wave), SAMPLES)):
            silent = (np.abs(part[: len(part) // 256 * 256].reshape(-1, 256)).max(1) < 1e-4).mean()
            if len(part) == SAMPLES and silent <= 0.02 and labels.count(clip.label) < CLIPS:
                waves.append(part)
                labels.append(clip.label)
                break
    return np.stack(waves), labels


def measure_speech() -> Table:
    """Scores of enhanced speech, `tcvae` and SVI at their defaults, 0 dB."""
    entries = make_dev_manifest(SHARED / "data", (0.0,))[:12]
    mixtures = [realise(entry, SHARED / "data") for entry in entries]
    table = Table(
        [
            Column("name", "noise model", "{name}"),
            Column("quality", "SI-SDR dB / PESQ / ESTOI", QUALITY),
        ]
    )

    def report(key: str, name: str, estimates: list[np.ndarray]) -> None:
        found = [score(m.speech, e) for m, e in zip(mixtures, estimates, strict=True)]
        table.add_row(key, name=name, **name_scores(mean_scores(found)))

    report("input", "(input)", [m.mixture for m in mixtures])
    audios = [Audio(m.mixture.astype(np.float32), 16000) for m in mixtures]
    for name in ENHANCING:
        done = enhance_batch(
            audios, noise=name, device="cpu", keep_posterior=False, predictor="none"
        )
        report(name, name, [one.speech.samples for one in done])
    return table
