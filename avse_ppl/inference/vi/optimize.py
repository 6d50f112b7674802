"""Maximise the evidence lower bound (ELBO) with Adam; convergence checks on its trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from avse_ppl.inference.core.adam import Adam
from avse_ppl.inference.core.convergence import measure_rise
from avse_ppl.inference.core.fit_noise import fit_noise, residual_power
from avse_ppl.inference.core.initialization import limit_log_sd
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.vi.guides import Guide
from avse_ppl.models.protocols import HasMStep
from avse_ppl.utils.run_time import RunClock, TimeLimitReached

_WINDOW = 25  # steps between looks at convergence
_SETTLING = (
    40  # steps in which the learning rate falls to nothing, if there are three times as many
)
_BETAS = (0.5, 0.9)  # short memories: a start near the optimum leaves few steps to average over
_SECOND_FIT = 4  # steps after which the initial speech is much improved
_FINITE = 0.7  # share of the draws
_FAR = 20.0  # prior standard deviations
_STRAIGHT = 0.7  # of the way that the learning rate allows
_FALL = 5.0  # nats


class OptimizerSettings(NamedTuple):
    """Settings of the ascent; see `SVI`."""

    steps: int
    learning_rate: float
    tempering: float
    tolerance: float
    noise_updates: int = 0
    progress: Callable[[int, int], None] = RunClock()
    extension: float = 0.0
    settling: int = _SETTLING


class ElboTrace(NamedTuple):
    """Course of the ascent.

    Parameters
    ----------
    elbo
        ELBO at each step, nats, ``(step, recording)``; NaN after a recording's last step.
    settling
        Last steps of each recording, in which its learning rate fell.
    ended_early
        Why the ascent ended before that, if it did.
    """

    elbo: np.ndarray
    settling: int
    ended_early: str | None = None


class Schedule:
    """Learning rate of each recording, as a share of the whole: search, then settle.

    A recording searches at the whole rate until its ELBO has stopped rising, or the steps come to
    their end; then its rate falls to nothing along half a cosine, and it is done. One whose ELBO
    is to rise noticeably after that end searches on, window by window. When it does so depends on
    its own ELBO only.

    Parameters
    ----------
    recordings, steps
        Number of recordings, and of steps.
    tolerance
        Nats by which the mean ELBO of each recording has to rise from window to window for it to
        go on searching, ``(recording,)``; None never stops early.
    longest
        Steps at most, of recordings that search on; by default no more than ``steps``.
    settling
        Steps in which the rate falls, a third of ``steps`` at most.
    """

    def __init__(
        self, recordings: int, steps: int, tolerance: Tensor | None, longest: int | None = None,
        settling: int = _SETTLING,
    ) -> None:  # fmt: skip
        self.settling = min(settling, max(1, steps // 3))
        self.tolerance, self.steps, self.longest = tolerance, steps, longest or steps
        self.begin = torch.full((recordings,), steps - self.settling)  # of settling
        self.converged = torch.zeros(recordings, dtype=torch.bool)

    def shares(self, step: int) -> Tensor:
        """Share of the learning rate at a step, ``(recording,)``; 0 for those that are done."""
        place = ((step - self.begin + 0.5) / self.settling).clamp(0.0, 1.0)
        return 0.5 * (1.0 + torch.cos(math.pi * place)) * (place < 1.0)

    def look(self, step: int, trace: list[Tensor]) -> None:
        """Let those settle, from the next step on, whose ELBO has stopped rising."""
        if self.tolerance is None or (step + 1) % _WINDOW or len(trace) < 2 * _WINDOW:
            return
        now = torch.stack(trace[-_WINDOW:]).mean(0)
        before = torch.stack(trace[-2 * _WINDOW : -_WINDOW]).mean(0)
        level = (now - before).cpu() < self.tolerance
        fresh = level & (self.begin > step + 1)
        self.begin[fresh] = step + 1
        self.converged |= fresh

    def extend(self, step: int, trace: list[Tensor], bins: Tensor, tempering: float) -> None:
        """Let those search on for a window that would end while their ELBO rises noticeably.

        By the rule that would be warned of in the end, see `measure_rise`.

        Parameters
        ----------
        step
            The step that was done.
        trace
            ELBO of each recording at each step, nats.
        bins
            Number of time-frequency bins of each recording.
        tempering
            Power of the likelihood.
        """
        ending = (self.begin == step + 1) & ~self.converged
        ending &= self.begin + self.settling + _WINDOW <= self.longest
        for r in torch.nonzero(ending).flatten().tolist():
            course = torch.stack([elbo[r] for elbo in trace]).cpu().numpy()
            course = np.pad(course, (0, self.settling))  # the steps that would follow
            if measure_rise(course, int(bins[r]), tempering, self.settling).rising:
                self.begin[r] += _WINDOW

    @property
    def total(self) -> int:
        """Steps of the longest recording, as far as is known."""
        return max(self.steps, int(self.begin.max()) + self.settling)


def maximise_elbo(
    density: LogDensity, guide: Guide, randoms: RandomStreams, settings: OptimizerSettings
) -> ElboTrace:
    """Fit a guide in place, by Adam on one draw a step, the noise also by updates of its own.

    Each recording stops by itself, see `Schedule`; among others of its length it gets what it gets
    alone.

    Raises
    ------
    ValueError
        If the bound has no maximum: it is not finite, or rises as the guide leaves all that the
        prior expects.
    """
    widest = guide.layout.join(limit_log_sd(density))
    passed = [guide.location.detach().clone()]  # at the start and after each window
    # Correlations have a long way to go from none, and a rate of their own.
    groups = [(Adam([guide.location, guide.log_sd], _BETAS), 1.0)]
    if guide.correlation.parameters():
        groups.append((Adam(guide.correlation.parameters(), _BETAS), guide.correlation.rate))
    recordings = density.mixture.recordings
    longest = settings.steps + int(settings.extension * settings.steps)
    bins = count_bins(density)
    tolerance = None
    if settings.tolerance > 0:
        tolerance = settings.tolerance * settings.tempering * bins
    schedule = Schedule(recordings, settings.steps, tolerance, longest, settings.settling)
    damping = guide.location.new_ones(recordings)
    states: dict[int, Tensor] = {}  # of the random streams of those that are done
    trace: list[Tensor] = []
    going: list[Tensor] = []
    ended_early = None
    for step in range(longest):
        shares = schedule.shares(step)
        for r in torch.nonzero(shares == 0.0).flatten().tolist():
            states.setdefault(r, randoms.save_state(r))
        if len(states) == recordings:
            break
        if step in (0, _SECOND_FIT):
            update_noise(density, guide, settings.noise_updates, settings.tempering)
        draw = guide.draw(randoms)
        elbo = density(draw, settings.tempering) + guide.entropy_along(draw)
        for adam, _ in groups:
            adam.clear_gradients()
        (-elbo.sum()).backward()
        # A draw too far out has no finite gradient: the recording waits, and goes on more slowly.
        usable = find_usable(elbo, guide)
        damping = torch.where(usable, damping, 0.5 * damping)
        rates = settings.learning_rate * shares.to(damping) * damping * usable
        for adam, rate in groups:
            adam.step(rate * rates)
        guide.log_sd.data.clamp_(max=widest)
        trace.append(elbo.detach())
        going.append(shares > 0.0)
        try:
            settings.progress(step + 1, schedule.total)
        except TimeLimitReached as error:
            ended_early = f"{error} after {step + 1} of {schedule.total} steps"
            break
        if (step + 1) % _WINDOW == 0:
            check_finite(trace)
            passed.append(guide.location.detach().clone())
        schedule.look(step, trace)
        schedule.extend(step, trace, bins, settings.tempering)
    for r, state in states.items():
        randoms.restore_state(r, state)
    check_finite(trace)
    elbo = torch.stack(trace).cpu().masked_fill(~torch.stack(going), torch.nan).numpy()
    settling = schedule.settling if ended_early is None else 0
    course = ElboTrace(elbo, settling, ended_early)
    check_bounded(course, density, guide, find_straight(passed, schedule, settings.learning_rate))
    return course


def find_usable(elbo: Tensor, guide: Guide) -> Tensor:
    """Whether bound and gradients of each recording are finite; the others' gradients become 0."""
    gradients = [p.grad for p in guide.parameters() if p.grad is not None]
    usable = elbo.detach().isfinite()
    for gradient in gradients:
        usable = usable & gradient.flatten(1).isfinite().all(1)
    if not bool(usable.all()):
        for gradient in gradients:
            gradient[~usable] = 0.0
    return usable


def count_bins(density: LogDensity) -> Tensor:
    """Count the time-frequency bins of each recording, ``(recording,)``, without padding."""
    mixture = density.mixture
    frames = torch.tensor([mixture.stft.count_frames(n) for n in mixture.n_samples])
    return mixture.frames.freq * frames


def update_noise(density: LogDensity, guide: Guide, updates: int, tempering: float = 1.0) -> None:
    """Move the noise of a guide by closed-form updates, against the speech of its location.

    Noise models without ``maximise`` stay where they are. What takes the gradient dozens of steps
    is done in the time of a few.
    """
    if updates == 0 or not isinstance(density.scene.noise, HasMStep):
        return
    location = guide.layout.split(guide.location.detach())
    values, _ = density.constrain(location)
    law = density.scene.laws_given(values, density.mixture).informed
    speech = law.power.expand(density.mixture.values.shape)
    power = residual_power(density.mixture, law)
    noise = {name: values[name] for name in density.names(of_noise=True)}
    noise = fit_noise(density, noise, speech[None], power=power, steps=updates, tempering=tempering)
    for name, found in density.unconstrain(noise).items():
        # A factor that is best at 0 goes there; on the real line that is far from its mean.
        location[name].copy_(torch.maximum(found, location[name] - _FALL))


def check_finite(trace: list[Tensor]) -> None:
    """Raise ValueError unless most of the last window of a trace is finite."""
    finite = torch.stack(trace[-_WINDOW:]).isfinite().float().mean(0)
    if bool((finite < _FINITE).any()):
        raise make_improper_error("is not finite")


def find_straight(passed: list[Tensor], schedule: Schedule, learning_rate: float) -> Tensor:
    """Find latents that went straight on to the end of the search, ``(recording, latent)``.

    Those that are pushed hither and thither by noise come half as far in three windows.
    """
    found = torch.zeros_like(passed[0], dtype=torch.bool)
    for r, begin in enumerate(schedule.begin.tolist()):
        last = min(begin // _WINDOW, len(passed) - 1)
        first = max(0, last - 3)
        if last > first:
            way = (passed[last][r] - passed[first][r]).abs()
            found[r] = way > _STRAIGHT * learning_rate * _WINDOW * (last - first)
    return found


def check_bounded(course: ElboTrace, density: LogDensity, guide: Guide, straight: Tensor) -> None:
    """Raise if the ELBO rose ever as fast while a latent left all that its prior expects."""
    unbraked = torch.tensor([rises_unbraked(row, course.settling) for row in course.elbo.T])
    if not bool(unbraked.any()):
        return
    location, running = (guide.layout.split(part) for part in (guide.location.detach(), straight))
    for site in density.sites:
        distance = (location[site.name] - site.start).abs() / site.spread.clamp_min(1e-6)
        runs_off = (running[site.name] & (distance > _FAR)).flatten(1).any(1)
        if bool((unbraked & runs_off.cpu()).any()):
            raise make_improper_error(f"rises without end as {site.name!r} runs off")


def rises_unbraked(trace: np.ndarray, settling: int = 0) -> bool:
    """Whether a trace rose as fast from second to last third of its search as from the first.

    Parameters
    ----------
    trace
        Nats, ``(step,)``; NaN after its end.
    settling
        Last steps, in which the learning rate fell.

    Examples
    --------
    >>> steps = np.arange(99.0)
    >>> rises_unbraked(steps), rises_unbraked(-np.exp(-steps / 30))
    (True, False)
    """
    values = trace[np.isfinite(trace)]
    values = values[: len(values) - settling]
    third = len(values) // 3
    if third == 0:
        return False
    first, middle, last = (values[i * third : (i + 1) * third].mean() for i in range(3))
    return bool(middle > first and last - middle > 0.8 * (middle - first))


def make_improper_error(what: str) -> ValueError:
    """Error about a bound without a maximum."""
    return ValueError(
        f"the evidence lower bound {what}: improper or unbounded posterior. Give every latent a "
        "proper prior, keep powers above a floor (a power of 0 in a silent bin has infinite "
        "density), or lower learning_rate if the prior is proper"
    )
