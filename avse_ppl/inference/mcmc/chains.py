"""Markov chains: initial states, what is recorded of each draw, and draws for the posterior."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avse_ppl.inference.base import Draws, Problem
from avse_ppl.inference.core.convergence import assess_chains
from avse_ppl.inference.core.log_density import LogDensity, Values
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.fit_info import FitInfo

STATS = ("lp", "energy", "diverging", "n_steps", "acceptance_rate")


@dataclass
class ChainRun:
    """Draws of one chain on the real line, statistics of each, and what they cost so far.

    In its warm-up, where there is a time limit, its draws are those of the warm-up.
    """

    draws: list[Values] = field(default_factory=list)
    stats: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STATS})
    gradients: int = 0
    step_size: float = 0.0
    is_warm: bool = False

    def begin_sampling(self) -> None:
        """Throw the draws of the warm-up away."""
        self.is_warm = True
        self.draws.clear()
        for values in self.stats.values():
            values.clear()

    def cut(self, draws: slice) -> None:
        """Keep some of the draws."""
        self.draws = self.draws[draws]
        self.stats = {name: values[draws] for name, values in self.stats.items()}


def approximate_prior(density: LogDensity) -> tuple[Values, Values]:
    """Median and log standard deviation of each latent's prior on the real line.

    A normal approximation, as if no latent depended on another.
    """
    location = {site.name: site.start.clone() for site in density.sites}
    return location, {site.name: site.spread.clamp_min(1e-3).log() for site in density.sites}


def draw_initial_states(
    location: Mapping[str, Tensor],
    log_sd: Mapping[str, Tensor],
    streams: RandomStreams,
    chains: int,
) -> list[Values]:
    """Initial state of each chain, drawn from independent normal distributions.

    Parameters
    ----------
    location, log_sd
        Mean and log standard deviation of each latent on the real line, ``(recording, ...)``: of a
        fitted mean-field guide, or from `approximate_prior`.
    streams
        Random numbers of each recording.
    chains
        How many.
    """
    return [
        {
            name: mean.detach()
            + log_sd[name].detach().exp() * streams.normal(mean.shape, mean.dtype)
            for name, mean in location.items()
        }
        for _ in range(chains)
    ]


def check_initial_state(
    density: LogDensity, state: Mapping[str, Tensor], tempering: float = 1.0
) -> float:
    """Raise unless the log density and its gradient are finite at the initial state of a chain.

    Returns the seconds that they took.

    Raises
    ------
    ValueError
        If one is not: no step can be taken from there.
    """
    point = {name: value.detach().clone().requires_grad_() for name, value in state.items()}
    begin = time.perf_counter()
    log_p = density(point, tempering).sum()
    reasons = []
    if not bool(torch.isfinite(log_p)):
        reasons.append(f"the log density is {float(log_p.detach()):.3g}")
    elif point:
        gradients = torch.autograd.grad(log_p, list(point.values()), allow_unused=True)
        reasons += [
            f"its gradient in {name!r} is not finite"
            for name, gradient in zip(point, gradients, strict=True)
            if gradient is not None and not bool(torch.isfinite(gradient).all())
        ]
    seconds = time.perf_counter() - begin
    if reasons:
        raise ValueError(
            f"a chain cannot start: {reasons[0]} at its initial state. Expected a finite number; "
            "add a small floor to powers, use priors with lighter tails, or in Python "
            "dtype=torch.float64"
        )
    return seconds


def count_complete_draws(lengths: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Chains, and draws of each, that every recording has where a run was interrupted.

    Parameters
    ----------
    lengths
        Draws that there are, for each recording and each of its chains.

    Returns
    -------
    tuple
        First chains and first draws to keep, as many draws in all as can be; ``(0, 0)`` if there
        are none.

    Examples
    --------
    >>> (
    ...     count_complete_draws([[250, 250, 200, 0]]),
    ...     count_complete_draws([[250, 3]]),
    ...     count_complete_draws([[250], []]),
    ... )
    ((3, 200), (1, 250), (0, 0))
    """
    chains = min(len(row) for row in lengths)
    options = [(c, min(min(row[:c]) for row in lengths)) for c in range(1, chains + 1)]
    best = max(options, key=lambda option: option[0] * option[1], default=(0, 0))
    return best if best[0] * best[1] else (0, 0)


def count_waveforms(waveforms: bool | int, chains: int, length: int) -> int:
    """Waveforms of each chain: as many as draws, none, or a number in all, rounded up.

    Examples
    --------
    >>> [count_waveforms(n, chains=4, length=250) for n in (True, False, 50, 5000)]
    [250, 0, 13, 1250]
    """
    if isinstance(waveforms, bool):
        return length if waveforms else 0
    return -(-waveforms // chains)


def collect_chains(
    problem: Problem,
    density: LogDensity,
    runs: Sequence[ChainRun],
    *,
    kind: Approximation,
    waveforms: bool | int = True,
    fit: FitInfo | None = None,
    ended_early: str | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Draws:
    """Draws of all chains of one recording on their supports, to be assessed for convergence.

    Parameters
    ----------
    problem, density
        What was sampled, of one recording.
    runs
        Its chains, equally long.
    kind, attrs
        Stored in the posterior.
    waveforms
        True for a waveform with each draw, False for none, or how many in all: spread evenly over
        the chains, rounded up to the same number in each.
    fit
        Facts about the run, before those that the chains are assessed by: R-hat, effective sample
        sizes, divergences and energy of the powers of speech and noise.
    ended_early
        How far the run came if it ended early.

    Raises
    ------
    ValueError
        If there are no draws, the chains are not equally long, or a draw is not finite.
    """
    lengths = [len(run.draws) for run in runs]
    if not lengths or not min(lengths):
        raise ValueError(f"expected at least one draw of each chain, found {lengths}")
    if len(set(lengths)) > 1:
        raise ValueError(
            f"chains must be equally long, found {lengths} draws; cut them to the first "
            f"{min(lengths)} of each, or leave the short ones out"
        )
    chains, length = len(lengths), lengths[0]

    with torch.no_grad():
        values = [density.constrain(draw)[0] for run in runs for draw in run.draws]
    for draw in values:
        for name, value in draw.items():
            if not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"a chain drew NaN or infinity for {name!r}: its posterior has no bound, or "
                    "tails beyond the range of numbers. Give it a prior with lighter tails and "
                    "the power a floor"
                )
    stats = {name: np.asarray([run.stats[name] for run in runs])[:, :, None] for name in STATS}

    def assess_convergence() -> list[FitInfo]:
        return assess_chains(problem.scene, problem.spectrogram, values, stats, chains)

    return Draws(
        values,
        kind,
        chains=chains,
        waveforms=count_waveforms(waveforms, chains, length),
        stats=stats,
        fit=[] if fit is None else [fit],
        ended_early=ended_early,
        attrs=dict(attrs or {}),
        check=assess_convergence,
    )
