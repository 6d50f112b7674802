"""NumPyro's sampler against Pyro's on one scene, and the posterior of a whole recording."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from common import SHARED, row

from avse_ppl import NMF, NUTS, GaussianSpeech, NumPyroNUTS, Posterior, Scene, Stft, load_speech
from avse_ppl.data import make_dev_manifest, realise
from avse_ppl.evaluation.diagnostics import log_powers
from avse_ppl.inference.core.convergence import ess, r_hat
from avse_ppl.models.simulate import simulate
from avse_ppl.pipeline.catalog import resolve_inference
from avse_ppl.signal.stft import Spectrogram

SMALL = Stft(n_fft=126, hop=32)  # 64 bins
FRAMES = 60
MIX = "bbab8n_rain_-5dB"


class Clock:
    """Notes when each draw was done."""

    def __init__(self) -> None:
        """Start."""
        self.times: list[tuple[int, float]] = [(0, time.perf_counter())]

    def __call__(self, done: int, total: int) -> None:
        """Note the time."""
        self.times.append((done, time.perf_counter()))

    def since(self, done: int) -> float:
        """Seconds from the first note at or after ``done`` to the last one."""
        return self.times[-1][1] - next(t for d, t in self.times if d >= done)


def powers_of(posterior: Posterior, scene: Scene, mixture: Spectrogram) -> dict[str, np.ndarray]:
    """Identified quantities, ``(chain, draw, quantity)`` each."""
    chains, length = posterior.stats["lp"].shape[:2]
    draws = [
        {name: torch.from_numpy(value[c, d]) for name, value in posterior.latents.items()}
        for c in range(chains)
        for d in range(length)
    ]
    found = log_powers(scene, mixture, draws, chains=chains)
    return {name: value[:, :, 0] for name, value in found.items()}


def effective(powers: dict[str, np.ndarray]) -> float:
    """Median effective draws over all identified quantities."""
    return float(np.median(np.concatenate([ess(value, "bulk") for value in powers.values()])))


def against_pyro() -> list[str]:
    """Effective draws a second after the warm-up, on the same scene."""
    scene = Scene(GaussianSpeech(stft=SMALL), NMF(2))
    mixture = simulate(scene, n_samples=(FRAMES - 1) * SMALL.hop, seed=0).mixture
    lines = [row("sampler", "draws", "effective draws", "s after warm-up", "effective a second")]
    lines.append(row(*["---"] * 5))
    rates = []
    settings: tuple[tuple[str, Any, int], ...] = (
        ("Pyro", NUTS(draws=100, warmup=100, chains=2, waveforms=False, max_tree_depth=8), 1),
        ("NumPyro", NumPyroNUTS(draws=500, warmup=225, chains=4, waveforms=False), 4),
    )
    for name, routine, together in settings:
        clock = Clock()
        posterior = type(routine)(**{**vars(routine), "progress": clock})(scene, mixture, seed=0)
        count = effective(powers_of(posterior, scene, mixture))
        seconds = sampling_s(clock, routine, together)
        rates.append(count / seconds)
        lines.append(row(name, posterior.stats["lp"].size, count, seconds, count / seconds))
    lines.append(row("ratio", "", "", "", rates[1] / rates[0]))
    return lines


def sampling_s(clock: Clock, routine: Any, together: int) -> float:
    """Seconds that the draws took, without those of the warm-up."""
    if together > 1:
        return clock.since(routine.warmup)
    length = routine.warmup + routine.draws
    spans = [(c * length + routine.warmup, (c + 1) * length) for c in range(routine.chains)]
    at = dict(clock.times)
    return sum(at[end] - at[begin] for begin, end in spans)


def whole_recording() -> list[str]:
    """All latents of 3 s of speech in noise, and how well the chains agree."""
    entry = next(e for e in make_dev_manifest(SHARED / "data") if e.name == MIX)
    wave = realise(entry, SHARED / "data").mixture[: 3 * 16000]
    scene = Scene(load_speech("vae"), NMF(2))
    mixture = scene.stft.analyse(wave)
    lines = [row("quantity", "R-hat median", "95 %", "largest", "ESS median", "smallest")]
    lines.append(row(*["---"] * 6))
    begin = time.perf_counter()
    posterior = resolve_inference("numpyro-nuts", waveforms=False)(scene, mixture, seed=0)
    seconds = time.perf_counter() - begin
    for name, value in powers_of(posterior, scene, mixture).items():
        r, n = r_hat(value), ess(value, "bulk")
        lines.append(row(name, float(np.median(r)), float(np.quantile(r, 0.95)), float(r.max()),
                         float(np.median(n)), float(n.min())))  # fmt: skip
    size = sum(value[0, 0].size for value in posterior.latents.values())
    attrs = posterior.attrs
    lines.append("")
    lines.append(
        f"{size} latents, {attrs['chains']} chains of {attrs['warmup']} + {attrs['draws']} draws, "
        f"{attrs['gradients']} gradients, {seconds:.0f} s in all, compilation included; "
        f"{int(posterior.stats['diverging'].sum())} draws diverged."
    )
    return lines


def main() -> list[str]:
    """All sections."""
    text = ["## NUTS", "", f"Scene of 64 bins and {FRAMES} frames, Gaussian speech and NMF(2) "
            "noise, drawn from itself; ESS is the median over powers by frame and by band.",
            "", *against_pyro(), ""]  # fmt: skip
    if SHARED.is_dir():
        text += [
            f"Recording {MIX}, 3 s, `vae` and NMF(2), settings of the name `numpyro-nuts`:",
            "",
        ]
        text += whole_recording()
    return text


if __name__ == "__main__":
    print("\n".join(main()))
