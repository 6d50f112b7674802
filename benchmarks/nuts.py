"""NumPyro's sampler against Pyro's on one scene, and the posterior of a whole recording."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from common import SHARED
from results import Column, Table

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


def make_sampler_table() -> Table:
    """Columns of the table of samplers."""
    return Table(
        [
            Column("sampler", "sampler", "{sampler}"),
            Column("length", "draws", "{draws:d}"),
            Column("size", "effective draws", "{effective:.0f}"),
            Column("cost", "s after warm-up", "{seconds:.3g}"),
            Column("speed", "effective a second", "{rate:.4g}"),
        ]
    )


def measure_samplers() -> Table:
    """Effective draws a second after the warm-up, on the same scene."""
    scene = Scene(GaussianSpeech(stft=SMALL), NMF(2))
    mixture = simulate(scene, n_samples=(FRAMES - 1) * SMALL.hop, seed=0).mixture
    table = make_sampler_table()
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
        table.add_row(
            name.lower(), sampler=name, draws=int(posterior.stats["lp"].size), effective=count,
            seconds=seconds, rate=rates[-1],
        )  # fmt: skip
    table.add_row("ratio", sampler="ratio", rate=round(rates[1] / rates[0]))
    return table


def sampling_s(clock: Clock, routine: Any, together: int) -> float:
    """Seconds that the draws took, without those of the warm-up."""
    if together > 1:
        return clock.since(routine.warmup)
    length = routine.warmup + routine.draws
    spans = [(c * length + routine.warmup, (c + 1) * length) for c in range(routine.chains)]
    at = dict(clock.times)
    return sum(at[end] - at[begin] for begin, end in spans)


def measure_recording() -> dict[str, Table]:
    """All latents of 3 s of speech in noise, how well the chains agree, and what it cost."""
    entry = next(e for e in make_dev_manifest(SHARED / "data") if e.name == MIX)
    wave = realise(entry, SHARED / "data").mixture[: 3 * 16000]
    scene = Scene(load_speech("vae"), NMF(2))
    mixture = scene.stft.analyse(wave)
    quantities, cost = make_recording_tables()
    begin = time.perf_counter()
    posterior = resolve_inference("numpyro-nuts", waveforms=False)(scene, mixture, seed=0)
    seconds = time.perf_counter() - begin
    for name, value in powers_of(posterior, scene, mixture).items():
        r, n = r_hat(value), ess(value, "bulk")
        quantities.add_row(
            name.replace(".", "-"), name=name, r_hat=np.median(r), r_hat_95=np.quantile(r, 0.95),
            r_hat_max=r.max(), ess=np.median(n), ess_min=n.min(),
        )  # fmt: skip
    size = sum(value[0, 0].size for value in posterior.latents.values())
    attrs = posterior.attrs
    cost.add_row(
        "run", latents=size, chains=int(attrs["chains"]), warmup=int(attrs["warmup"]),
        draws=int(attrs["draws"]), gradients=int(attrs["gradients"]), seconds=seconds,
        diverging=int(posterior.stats["diverging"].sum()),
    )  # fmt: skip
    return {"nuts.recording": quantities, "nuts.cost": cost}


def make_recording_tables() -> tuple[Table, Table]:
    """Columns of the two tables of a whole recording."""
    quantities = Table(
        [
            Column("name", "quantity", "{name}"),
            Column("typical", "R-hat median", "{r_hat:.3f}"),
            Column("most", "95 %", "{r_hat_95:.3f}"),
            Column("largest", "largest", "{r_hat_max:.3f}"),
            Column("effective", "ESS median", "{ess:.0f}"),
            Column("smallest", "smallest", "{ess_min:.0f}"),
        ]
    )
    cost = Table(
        [
            Column("size", "latents", "{latents:d}"),
            Column("length", "chains of draws", "{chains:d} of {warmup:d} + {draws:d}"),
            Column("work", "gradients", "{gradients:d}"),
            Column("time", "s in all, compilation included", "{seconds:.0f}"),
            Column("failed", "diverged draws", "{diverging:d}"),
        ]
    )
    return quantities, cost


def measure() -> dict[str, Table]:
    """Measure the samplers, and with the development data the whole recording."""
    tables = {"nuts": measure_samplers()}
    return tables | measure_recording() if (SHARED / "data").is_dir() else tables
