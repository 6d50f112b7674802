"""One Hamiltonian chain by Pyro's kernels, and what they say of each draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import mcmc
from torch import Tensor

from avse_ppl.inference.core.log_density import LogDensity, Values

STATS = ("lp", "energy", "diverging", "n_steps", "acceptance_rate")


@dataclass
class ChainRun:
    """Draws of one chain on the real line, statistics of each, and what they cost so far."""

    draws: list[Values] = field(default_factory=list)
    stats: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STATS})
    gradients: int = 0
    step_size: float = 0.0


class Potential:
    """Minus the log density of one recording on the real line; counts its evaluations."""

    def __init__(self, density: LogDensity, tempering: float) -> None:
        """Start the count."""
        self.density, self.tempering, self.count = density, tempering, 0

    def __call__(self, point: Mapping[str, Tensor]) -> Tensor:
        """Evaluate, a scalar."""
        self.count += 1
        return -self.density(point, self.tempering).sum()


class _Noting:
    """Keeps the kinetic energy that a trajectory starts with, which Pyro does not tell."""

    kinetic = 0.0

    def _sample_r(self, name: str) -> Any:
        scaled, unscaled = super()._sample_r(name)  # type: ignore[misc]
        self.kinetic = float(self._kinetic_energy(unscaled))  # type: ignore[attr-defined]
        return scaled, unscaled


class NutsKernel(_Noting, mcmc.NUTS):
    """Pyro's No-U-Turn sampler."""


class HmcKernel(_Noting, mcmc.HMC):
    """Pyro's Hamiltonian Monte Carlo, with a number of steps instead of a length.

    A trajectory takes between half of ``steps`` and all of them, at random: one of fixed length can
    come back to where it started, again and again.
    """

    def __init__(self, steps: int, **settings: Any) -> None:
        """Store the number of steps."""
        super().__init__(**settings)
        self.steps = steps

    @property
    def num_steps(self) -> int:
        """Steps of the next trajectory."""
        return int(torch.randint((self.steps + 1) // 2, self.steps + 1, ()))


def run_chain(
    kernel: mcmc.HMC,
    potential: Potential,
    start: Values,
    variances: Values,
    lengths: tuple[int, int],
    seed: int,
    run: ChainRun,
    note: Callable[[], None],
) -> None:
    """Warm a kernel up and draw; ``run`` holds what there is if the caller interrupts.

    Parameters
    ----------
    kernel, potential
        Pyro's kernel and what it climbs.
    start, variances
        Where the chain starts, and the first diagonal of the inverse mass matrix, of each latent.
    lengths
        Draws of the warm-up, which are thrown away, and draws after it.
    seed
        Of this chain: Pyro draws from the global generators, which are put back afterwards.
    run
        Filled draw by draw.
    note
        Called after each draw, warm-up included.
    """
    warmup, draws = lengths
    device = potential.density.mixture.scale.device
    forked = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with forked, poutine.block(), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        state = _set_up(kernel, start, variances, warmup)
        run.gradients = potential.count
        for index in range(warmup + draws):
            state, stats = _transition(kernel, potential, state, index >= warmup)
            run.gradients = potential.count
            if index >= warmup:
                run.draws.append({name: value.detach().clone() for name, value in state.items()})
                for name, value in stats.items():
                    run.stats[name].append(value)
            note()
        run.step_size = float(kernel.step_size)


def _set_up(kernel: mcmc.HMC, start: Values, variances: Values, warmup: int) -> Values:
    """Put the chain at its start, with a metric of its own, and find a first step size."""
    kernel.initial_params = {name: value.detach().clone() for name, value in start.items()}
    kernel.setup(warmup)
    if start:
        kernel.mass_matrix_adapter.inverse_mass_matrix = {
            names: torch.cat([variances[name].detach().flatten() for name in names])
            for names in kernel.inverse_mass_matrix
        }
        kernel._adapter.reset_step_size_adaptation(kernel.initial_params)
    return kernel.initial_params


def _transition(
    kernel: Any, potential: Potential, state: Values, warm: bool
) -> tuple[Values, dict[str, float]]:
    """Move once; return where to, and what the kernel says of the move."""
    # Pyro keeps a running mean of the acceptance, which starts anew after the warm-up.
    mean, moves = kernel._mean_accept_prob, kernel._t - kernel._warmup_steps * warm
    count, diverged = potential.count, len(kernel._divergences)
    before = float(kernel._potential_energy_last)
    state = kernel.sample(state)
    stats = {
        "lp": -float(kernel._potential_energy_last),
        "energy": before + kernel.kinetic,
        "diverging": len(kernel._divergences) > diverged,
        "n_steps": potential.count - count,
        "acceptance_rate": kernel._mean_accept_prob * (moves + 1) - mean * moves,
    }
    return state, stats
