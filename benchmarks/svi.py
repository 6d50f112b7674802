"""SVI against a textbook loop: bound, quality and cost; guides; cost over length.

The baseline is `textbook`: mean-field ADVI with Adam, one tensor a latent, the gradient of the
entropy in closed form, from the same warm start and on the same density. Both then average the same
number of draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from batching import DATA, noisy
from common import timed
from results import Column, Table
from torch import Tensor

from avse_ppl import NMF, SVI, Scene, load_speech
from avse_ppl.evaluation.metrics import si_sdr
from avse_ppl.inference.base import Draws, Problem
from avse_ppl.inference.core.build_posterior import build_posterior
from avse_ppl.inference.core.initialization import requires_grad, warm_start
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.posterior import Approximation
from avse_ppl.signal.audio import load_audio

_BOUND_DRAWS, _MOMENT_DRAWS = 100, 20
_CLIPS, _GUIDE_CLIPS = 6, 3
_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
# Steps of the textbook loop, and those of SVI beside it, at half its cost.
_PAIRS = ((40, 15), (200, 95))

Fit = tuple[Callable[[], dict[str, Tensor]], Callable[[], Tensor]]  # draw, entropy


class Result(NamedTuple):
    """Means over the recordings."""

    elbo: float
    si_sdr: float
    cpu_s: float


def textbook(density: LogDensity, randoms: RandomStreams, steps: int) -> Fit:
    """Mean-field ADVI: reparametrised draws, exact entropy, Adam, a rate that falls at the end."""
    location, log_sd = warm_start(density, randoms)
    parameters = requires_grad(location) + requires_grad(log_sd)
    optimiser = torch.optim.Adam(parameters, 0.05, betas=(0.9, 0.99))

    def draw() -> dict[str, Tensor]:
        return {
            name: mean + log_sd[name].exp() * randoms.normal(mean.shape, mean.dtype)
            for name, mean in location.items()
        }

    def entropy() -> Tensor:
        return torch.stack([(s + _ENTROPY).flatten(1).sum(1) for s in log_sd.values()]).sum(0)

    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.05 * min(1.0, 0.1 + 2.7 * (1.0 - step / steps))
        optimiser.zero_grad()
        (-(density(draw()) + entropy()).sum()).backward()
        optimiser.step()
    return draw, entropy


def ours(density: LogDensity, randoms: RandomStreams, steps: int) -> Fit:
    """What `SVI` does with its defaults."""
    routine = SVI(steps=steps, moment_draws=None, k_hat_draws=100, tolerance=0)
    guide, _ = routine.fit_guide(density, randoms)
    return lambda: guide.draw(randoms), guide.entropy


def measure() -> dict[str, Table]:
    """Measure the three tables."""
    scene = Scene(load_speech("tcvae"), NMF(2))
    return {
        "svi": measure_loops(scene),
        "svi.guides": measure_guides(scene),
        "svi.lengths": measure_lengths(scene),
    }


def measure_loops(scene: Scene) -> Table:
    """Bound, quality and cost of `SVI` and of the textbook loop."""
    table = Table(
        [
            Column("loop", "loop", "{loop}"),
            Column("steps", "steps", "{steps:d}"),
            Column("elbo", "ELBO, nats", "{elbo:.0f}"),
            Column("quality", "SI-SDR dB", "{si_sdr:.2f}"),
            Column("cost", "CPU s a clip", "{cpu_s:.3f}"),
            Column("ratio", "ratio", "{ratio:.2f}"),
        ],
        note=f"Means over {_CLIPS} bundled clips; ELBO over {_BOUND_DRAWS} draws of the guide.",
    )
    run(scene, ours, 2, clips=1)
    for theirs, own in _PAIRS:
        result, baseline = run(scene, ours, own), run(scene, textbook, theirs)
        for name, steps, r in (("svi", own, result), ("textbook", theirs, baseline)):
            ratio = r.cpu_s / result.cpu_s
            table.add_row(f"{name}-{steps}", loop=name, steps=steps, ratio=ratio, **r._asdict())
    return table


def run(scene: Scene, fit: Callable[..., Fit], steps: int, clips: int = _CLIPS) -> Result:
    """Mean bound, quality and cost over the bundled sentence in several noises."""
    clean = load_audio(DATA / "speech.flac").samples
    rows = []
    for seed in range(clips):
        (posterior, bound), _, cpu_s = timed(
            lambda s=seed: invert(scene, noisy(s).samples, fit, steps, s)
        )
        rows.append((bound(), si_sdr(clean, posterior.enhance()), cpu_s))
    return Result(*np.mean(rows, axis=0).tolist())


def invert(
    scene: Scene, wave: np.ndarray, fit: Callable[..., Fit], steps: int, seed: int
) -> tuple[Any, Callable[[], float]]:
    """Posterior of one recording, and a function that measures the bound afterwards."""
    problem = Problem.of(scene, wave, seed=seed)
    with problem.resources():
        density = LogDensity(problem.scene, problem.spectrogram)
        draw, entropy = fit(density, problem.streams, steps)
        with torch.no_grad():
            values = [density.constrain(draw())[0] for _ in range(_MOMENT_DRAWS)]
        draws = Draws(values, Approximation("variational"), waveforms=0)
        posterior = build_posterior(problem, draws)

    def bound() -> float:
        with torch.no_grad():
            values = [float(density(draw())) for _ in range(_BOUND_DRAWS)]
            return float(np.mean(values)) + float(entropy())

    return posterior, bound


def measure_guides(scene: Scene) -> Table:
    """Bound and cost of the three guides; without k-hat, which tells nothing of so many latents."""
    table = Table(
        [
            Column("guide", "guide, 120 steps", "{guide}"),
            Column("bound", "last ELBO, nats", "{elbo:.0f}"),
            Column("cost", "CPU s", "{cpu_s:.2f}"),
        ],
        note=f"Medians over {_GUIDE_CLIPS} bundled clips.",
    )
    waves = [noisy(seed).samples for seed in range(_GUIDE_CLIPS)]
    for guide in ("mean-field", "structured", "low-rank"):
        routine, found = SVI(guide=guide, steps=120, moment_draws=None), []
        for seed, wave in enumerate(waves):
            posterior, _, cpu_s = timed(partial(routine, scene, wave, seed=seed))
            found.append((posterior.trace["elbo"][-20:].mean(), cpu_s))
        elbo, cpu_s = np.median(found, axis=0)
        table.add_row(guide, guide=guide, elbo=elbo, cpu_s=cpu_s)
    return table


def measure_lengths(scene: Scene) -> Table:
    """CPU seconds of 40 steps for each second of audio."""
    table = Table(
        [
            Column("length", "audio s", "{audio_s:d}"),
            Column("guide", "guide", "{guide}"),
            Column("cost", "CPU s for each second of audio", "{cpu_s:.3f}"),
        ]
    )
    wave = noisy(0).samples
    for seconds in (3, 6, 12):
        samples = np.resize(wave, seconds * 16000)
        for guide in ("mean-field", "structured", "low-rank"):
            routine = SVI(guide=guide, steps=40, tolerance=0, moment_draws=1, waveforms=False)
            _, _, cpu_s = timed(lambda r=routine, s=samples: r(scene, s, seed=0))
            key = f"{guide}-{seconds}s"
            table.add_row(key, audio_s=seconds, guide=guide, cpu_s=cpu_s / seconds)
    return table
