"""Hamiltonian kernels of Pyro with the statistics of each draw, and one chain run by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import mcmc
from torch import Tensor

from avse_ppl.inference.core.log_density import LogDensity, Values
from avse_ppl.inference.mcmc.chains import ChainRun
from avse_ppl.utils.run_time import RunClock

_FEWEST_ADAPTATIONS = 10  # of a step size, before it is used


class Potential:
    """Minus the log density of one recording on the real line; counts its evaluations.

    Each of them looks at the clock, which raises `TimeLimitReached` when the time is over.
    """

    def __init__(
        self, density: LogDensity, tempering: float, clock: RunClock | None = None
    ) -> None:
        self.density, self.tempering, self.count = density, tempering, 0
        self.clock = clock or RunClock()

    def __call__(self, point: Mapping[str, Tensor]) -> Tensor:
        """Potential energy, a scalar."""
        self.clock.check()
        self.count += 1
        return -self.density(point, self.tempering).sum()


class KineticEnergyRecorder:
    """Keeps the kinetic energy at the beginning of each trajectory, which Pyro does not return."""

    kinetic = 0.0

    def _sample_r(self, name: str) -> Any:
        scaled, unscaled = super()._sample_r(name)  # type: ignore[misc]
        self.kinetic = float(self._kinetic_energy(unscaled))  # type: ignore[attr-defined]
        return scaled, unscaled


class NutsKernel(KineticEnergyRecorder, mcmc.NUTS):
    """Pyro's No-U-Turn sampler."""


class HmcKernel(KineticEnergyRecorder, mcmc.HMC):
    """Pyro's Hamiltonian Monte Carlo, with a number of leapfrog steps instead of a length.

    A trajectory takes between half of ``steps`` and all of them, at random: one of fixed length can
    come back to where it started, again and again.
    """

    def __init__(self, steps: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.steps = steps

    @property
    def num_steps(self) -> int:
        """Steps of the next trajectory."""
        return int(torch.randint((self.steps + 1) // 2, self.steps + 1, ()))


def end_warmup(kernel: Any) -> bool:
    """End the warm-up of a kernel, unless its step size has only begun to be adapted."""
    adapter = kernel._adapter
    if adapter._step_size_adapt_scheme._t < _FEWEST_ADAPTATIONS:
        return False
    adapter._end_adaptation()
    adapter._warmup_steps = kernel._warmup_steps = kernel._t
    return True


def run_chain(
    kernel: Any,
    potential: Potential,
    initial_state: Values,
    variances: Values,
    lengths: tuple[int, int],
    seed: int,
    run: ChainRun,
    progress: Callable[[], None],
) -> None:
    """Warm a kernel up and draw; ``run`` holds what there is if the caller interrupts.

    Parameters
    ----------
    kernel, potential
        Pyro's kernel and the potential energy that it was made for.
    initial_state, variances
        Of each latent: its first value, and the first diagonal of the inverse mass matrix.
    lengths
        Draws of the warm-up, which are thrown away, and draws after it.
    seed
        Of this chain: Pyro draws from the global generators, which are put back afterwards.
    run
        Filled draw by draw; with those of the warm-up until it is over, if there is a time limit.
    progress
        Called after each draw, warm-up included.
    """
    warmup, draws = lengths
    clock = potential.clock
    half_s = clock.time_left_s() / 2
    device = potential.density.mixture.scale.device
    forked = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with forked, poutine.block(), pyro.validation_enabled(False):
        torch.manual_seed(seed)

        # Initial state, metric, and a first step size for it.
        kernel.initial_params = {n: value.detach().clone() for n, value in initial_state.items()}
        kernel.setup(warmup)
        if initial_state:
            kernel.mass_matrix_adapter.inverse_mass_matrix = {
                names: torch.cat([variances[name].detach().flatten() for name in names])
                for names in kernel.inverse_mass_matrix
            }
            kernel._adapter.reset_step_size_adaptation(kernel.initial_params)
        state = kernel.initial_params
        run.gradients = potential.count

        for index in range(warmup + draws):
            # A warm-up that takes half of the time is over: what follows are draws, if fewer.
            if index < warmup and clock.time_left_s() < half_s and end_warmup(kernel):
                warmup = index
            if index == warmup:
                run.begin_sampling()
            if index == warmup + draws:
                break
            # Pyro keeps a running mean of the acceptance, which begins anew after the warm-up.
            mean = kernel._mean_accept_prob
            transitions = kernel._t - kernel._warmup_steps * (index >= warmup)
            count, divergences = potential.count, len(kernel._divergences)
            before = float(kernel._potential_energy_last)
            state = kernel.sample(state)
            run.gradients = potential.count
            if index >= warmup or clock.limit_s is not None:
                run.draws.append({name: value.detach().clone() for name, value in state.items()})
                stats = {
                    "lp": -float(kernel._potential_energy_last),
                    "energy": before + kernel.kinetic,
                    "diverging": len(kernel._divergences) > divergences,
                    "n_steps": potential.count - count,
                    "acceptance_rate": kernel._mean_accept_prob * (transitions + 1)
                    - mean * transitions,
                }
                for name, value in stats.items():
                    run.stats[name].append(value)
            progress()
        run.step_size = float(kernel.step_size)
