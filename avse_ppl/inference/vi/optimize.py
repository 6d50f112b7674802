"""Maximise the evidence lower bound (ELBO) with Adam; convergence checks on its trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from avse_ppl.inference.core.adam import Adam
from avse_ppl.inference.core.fit_noise import fit_noise
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.vi.guides import Guide
from avse_ppl.models.protocols import HasMStep
from avse_ppl.utils.run_time import RunClock, TimeLimitReached

_WINDOW = 25  # steps between looks at convergence
_BETAS = (0.5, 0.9)  # short memories: a start near the optimum leaves few steps to average over
_SECOND_FIT = 4  # steps after which the initial speech is much improved
_FAR = 20.0  # prior standard deviations
_FALL = 5.0  # nats


class OptimizerSettings(NamedTuple):
    """Settings of the ascent; see `SVI`."""

    steps: int
    learning_rate: float
    tempering: float
    tolerance: float
    noise_updates: int = 0
    progress: Callable[[int, int], None] = RunClock()


class ElboTrace(NamedTuple):
    """ELBO at each step, nats, ``(step, recording)``; whether it stopped by itself, or why."""

    elbo: np.ndarray
    converged: bool
    ended_early: str | None = None


def maximise_elbo(
    density: LogDensity, guide: Guide, randoms: RandomStreams, settings: OptimizerSettings
) -> ElboTrace:
    """Fit a guide in place, by Adam on one draw a step, the noise also by updates of its own.

    Raises
    ------
    ValueError
        If the bound has no maximum: it is not finite, or rises as the guide leaves all that the
        prior expects.
    """
    start = guide.location.detach().clone()
    # Correlations have a long way to go from none, and a rate of their own.
    groups = [(Adam([guide.location, guide.log_sd], _BETAS), 1.0)]
    if guide.correlation.parameters():
        groups.append((Adam(guide.correlation.parameters(), _BETAS), guide.correlation.rate))
    trace: list[Tensor] = []
    ended_early = None
    for step in range(settings.steps):
        if step in (0, _SECOND_FIT):
            update_noise(density, guide, settings.noise_updates, settings.tempering)
        draw = guide.draw(randoms)
        elbo = density(draw, settings.tempering) + guide.entropy_along(draw)
        for adam, _ in groups:
            adam.clear_gradients()
        (-elbo.sum()).backward()
        for adam, rate in groups:
            rate = settings.learning_rate * rate
            adam.step(rate * learning_rate_factor(step, settings.steps))
        trace.append(elbo.detach())
        try:
            settings.progress(step + 1, settings.steps)
        except TimeLimitReached as error:
            ended_early = f"{error} after {step + 1} of {settings.steps} steps"
            break
        if (step + 1) % _WINDOW == 0:
            check_finite(trace)
            if has_converged(trace, density, settings):
                break
    check_finite(trace)
    converged = len(trace) < settings.steps and ended_early is None
    course = ElboTrace(torch.stack(trace).cpu().numpy(), converged, ended_early)
    check_bounded(course, density, guide, start)
    return course


def update_noise(density: LogDensity, guide: Guide, updates: int, tempering: float = 1.0) -> None:
    """Move the noise of a guide by closed-form updates, against the speech of its location.

    Noise models without ``maximise`` stay where they are. What takes the gradient dozens of steps
    is done in the time of a few.
    """
    if updates == 0 or not isinstance(density.scene.noise, HasMStep):
        return
    location = guide.layout.split(guide.location.detach())
    values, _ = density.constrain(location)
    speech = density.scene.laws_given(values, density.mixture).speech.power
    speech = speech.expand(density.mixture.values.shape)
    noise = {name: values[name] for name in density.names(of_noise=True)}
    noise = fit_noise(density, noise, speech[None], steps=updates, tempering=tempering)
    for name, found in density.unconstrain(noise).items():
        # A factor that is best at 0 goes there; on the real line that is far from its mean.
        location[name].copy_(torch.maximum(found, location[name] - _FALL))


def learning_rate_factor(step: int, steps: int) -> float:
    """Share of the learning rate: from 1 linearly down to 0.1."""
    return 1.0 - 0.9 * step / steps


def has_converged(trace: list[Tensor], density: LogDensity, settings: OptimizerSettings) -> bool:
    """Whether no recording's ELBO has risen by more than the tolerance over a window."""
    if settings.tolerance == 0 or len(trace) < 2 * _WINDOW:
        return False
    now = torch.stack(trace[-_WINDOW:]).mean(0)
    before = torch.stack(trace[-2 * _WINDOW : -_WINDOW]).mean(0)
    size = density.mixture.values[0].numel() * settings.tempering
    return bool((now - before < settings.tolerance * size).all())


def check_finite(trace: list[Tensor]) -> None:
    """Raise ValueError unless the last window of a trace is finite."""
    if not bool(torch.stack(trace[-_WINDOW:]).isfinite().all()):
        raise make_improper_error("is not finite")


def check_bounded(course: ElboTrace, density: LogDensity, guide: Guide, start: Tensor) -> None:
    """Raise if the ELBO rose no slower than the rate while a latent left all that priors expect."""
    third = len(course.elbo) // 3
    if third == 0:
        return
    first, middle, last = (course.elbo[i * third : (i + 1) * third].mean(0) for i in range(3))
    # The rate itself falls to 0.6 from the one difference to the other.
    unbraked = torch.as_tensor((middle > first) & (last - middle > 0.5 * (middle - first)))
    with torch.no_grad():
        moved = guide.layout.split((guide.location - start).abs() + guide.log_sd.exp())
    for site in density.sites:
        distance = (moved[site.name] / site.spread.clamp_min(1e-6)).flatten(1).amax(1)
        if bool((unbraked & (distance.cpu() > _FAR)).any()):
            raise make_improper_error(f"rises without end as {site.name!r} runs off")


def make_improper_error(what: str) -> ValueError:
    """Error about a bound without a maximum."""
    return ValueError(
        f"the evidence lower bound {what}: improper or unbounded posterior. Give every latent a "
        "proper prior, keep powers above a floor (a power of 0 in a silent bin has infinite "
        "density), or lower learning_rate if the prior is proper"
    )
