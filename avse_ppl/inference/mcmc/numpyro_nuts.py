"""No-U-Turn sampler (NUTS) by NumPyro, compiled, all chains side by side."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from avse_ppl.inference.base import Draws, Problem
from avse_ppl.inference.mcmc.chains import ChainRun
from avse_ppl.inference.mcmc.hmc import ChainSetup, HamiltonianMonteCarlo
from avse_ppl.models.validation import check_count
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.utils.run_time import LONG_RUN_S, RunClock, TimeLimitReached

if TYPE_CHECKING:
    from avse_ppl.inference.mcmc.jax_chains import ChainDraws, JaxChains

_STATES = 128  # that a metric is averaged over
_COMPILE_S = 30.0  # for sampler and metric; 15 s of one core of a CPU with the default scene


@dataclass(frozen=True)
class NumPyroNUTS(HamiltonianMonteCarlo):
    r"""No-U-Turn sampler over all latents, on JAX.

    The same posterior as `NUTS` draws from, many times as fast: compiled, all chains at once, and
    in coordinates in which the posterior is nearly round. Those come from the Fisher information
    in blocks (the latents of a frame together, those of a bin together, and what all frames
    share), first at draws of a variational fit, then anew at the states of the chains themselves
    after each part of the warm-up. From then on they are left alone, so that the draws are those
    of a Markov chain with the posterior as its stationary distribution.

    Models have to be written with pyroapi, as those of the library are; see
    `avse_ppl.distributions.backend`. Recordings are sampled one after the other: a batch is the
    same as a loop.

    Parameters
    ----------
    draws, warmup, chains, target_acceptance, init, init_steps, waveforms, tempering
        As for `NUTS`; draws and each part of the warm-up are rounded up to multiples of 25.
    device
        ``"cpu"``, or ``"auto"`` for where JAX runs by default.
    dtype, progress
        As for `NUTS`.
    max_tree_depth
        A trajectory has at most ``2 ** max_tree_depth`` gradient steps.
    metrics
        Parts of the warm-up, each with a metric of its own.

    Raises
    ------
    ValueError
        If a setting is out of range or, when called, a model does not run on NumPyro.
    ImportError
        If JAX and NumPyro are not installed.

    References
    ----------
    Hoffman and Gelman, "The No-U-Turn sampler", JMLR 2014. Phan, Pradhan and Jankowiak,
    "Composable effects for flexible and accelerated probabilistic programming in NumPyro", 2019.
    Girolami and Calderhead, "Riemann manifold Langevin and Hamiltonian Monte Carlo methods", JRSS B
    2011.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import ComplexNormal, GaussianSpeech, Scene
    >>> wave = np.random.default_rng(0).normal(size=3000).astype("float32")
    >>> scene = Scene(GaussianSpeech(), lambda frames: ComplexNormal(0.0, 0.3))
    >>> posterior = NumPyroNUTS(draws=25, warmup=50, chains=2)(scene, wave, seed=0)
    >>> posterior.kind, posterior.speech.shape
    ('NUTS', (2, 25, 1, 3000))
    """

    max_tree_depth: int = 6
    metrics: int = 3

    name: ClassVar[str] = "numpyro-nuts"
    kind: ClassVar[Approximation] = Approximation("NUTS")
    faster: ClassVar[str] = (
        "'svi', which is an approximation, fewer chains or draws, or a noise model with fewer "
        "latents"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_tree_depth", self.max_tree_depth)
        check_count("metrics", self.metrics)

    def _run(self, problem: Problem) -> Sequence[Draws]:
        """Draws of each recording; see `NUTS`."""
        missing = [name for name in ("jax", "numpyro") if importlib.util.find_spec(name) is None]
        if missing:
            raise ImportError(
                f"numpyro-nuts needs an optional part ({', '.join(missing)}): "
                "pip install 'avse-ppl[jax]'; or use the method 'nuts', which does without"
            )
        return super()._run(problem)

    def make_kernel(self, potential: Any) -> Any:
        """Raise NotImplementedError: no kernel of Pyro, as `JaxChains` compiles all chains."""
        raise NotImplementedError(
            "NumPyroNUTS has no kernel of Pyro; its chains are compiled together, see JaxChains"
        )

    @property
    def most_steps(self) -> int:
        """Gradient steps of a trajectory, at most."""
        return 2**self.max_tree_depth - 1

    def sample_chains(self, setups: Sequence[ChainSetup], clock: RunClock) -> None:
        """Run the chains; recordings share the time if that is limited."""
        from avse_ppl.inference.mcmc.jax_chains import BLOCK

        blocks = -(-self.draws // BLOCK) + self.metrics * -(-self.warmup // (self.metrics * BLOCK))
        total, done = len(setups) * blocks * BLOCK, 0

        def count_draws(count: int) -> None:
            nonlocal done
            done += count
            clock(done, total)

        precision: Any = nullcontext()
        if self.dtype == torch.float64:
            import jax

            precision = jax.enable_x64(True)
        programs: dict[int, JaxChains] = {}
        ended: TimeLimitReached | None = None
        for setup in setups:
            setup.runs.extend(ChainRun() for _ in range(self.chains))
        with precision:
            self.announce_jax_time(setups, clock)
            for i, setup in enumerate(setups):
                with clock.share(len(setups) - i):
                    try:
                        self.sample_recording(setup, programs, clock, count_draws)
                    except TimeLimitReached as error:
                        ended = error
        for setup in setups:
            for run in setup.runs:
                run.cut(slice(self.draws))  # of whole blocks
        if ended is not None:
            raise ended

    def announce_jax_time(self, setups: Sequence[ChainSetup], clock: RunClock) -> None:
        """Say how long the run takes, from the time of a compiled gradient, if that may be long."""
        from avse_ppl.inference.mcmc.jax_log_density import time_gradient

        rounds = -(-self.chains // (os.cpu_count() or 1))  # a core for each chain
        draws, most = self.warmup + self.draws, self.most_steps
        longest = max(setups, key=lambda setup: setup.gradient_s)
        if len(setups) * rounds * draws * most * longest.gradient_s > LONG_RUN_S:
            seconds = time_gradient(longest.density, longest.location, self.tempering)
            self.announce_time(clock, len(setups) * rounds * seconds, longest, _COMPILE_S)

    def sample_recording(
        self,
        setup: ChainSetup,
        programs: dict[int, JaxChains],
        clock: RunClock,
        count_draws: Callable[[int], None],
    ) -> None:
        """Run all chains of one recording: parts of the warm-up, each with its metric, then draws.

        Parameters
        ----------
        setup
            Whose ``runs`` are filled, block by block.
        programs
            Compiled samplers by the number of frames.
        clock
            Of the run; the parts of the warm-up but the last take at most half of its time.
        count_draws
            Called with the number of draws of each block.
        """
        import jax
        import jax.numpy as jnp

        from avse_ppl.inference.mcmc.jax_chains import (
            BLOCK,
            FIRST_STEP,
            compile_chains,
            thin_states,
        )
        from avse_ppl.inference.mcmc.jax_log_density import (
            list_recordings,
            make_jax_log_density,
            to_jax,
        )
        from avse_ppl.inference.mcmc.metric import arrange_latents

        runs = setup.runs
        if not setup.density.sites:  # every draw of a scene without latents is the same
            for run in runs:
                run.begin_sampling()
                run.draws += [{} for _ in range(self.draws)]
                for values in run.stats.values():
                    values += [0.0] * self.draws
            return

        # The sampler for recordings of this length; what is observed of each comes later.
        recording = list_recordings(setup.density)[0]
        location = {name: to_jax(value) for name, value in setup.location.items()}
        frames = setup.density.mixture.frames
        if frames.time not in programs:
            programs[frames.time] = compile_chains(
                make_jax_log_density(setup.density),
                arrange_latents(location, frames.freq, frames.time),
                location,
                recording,
                tempering=self.tempering,
                target_acceptance=self.target_acceptance,
                max_tree_depth=self.max_tree_depth,
            )
        program = programs[frames.time]

        # The first metric: at draws of the fitted guide, (state, 1, ...) each.
        sd = {name: to_jax(variance.sqrt()) for name, variance in setup.variances.items()}
        keys = iter(jax.random.split(jax.random.key(setup.seeds[0] % 2**31), 2 * self.metrics + 2))
        guide_keys = jax.random.split(next(keys), len(location))
        guide_draws = {
            name: value + sd[name] * jax.random.normal(key, (_STATES, *value.shape), value.dtype)
            for key, (name, value) in zip(guide_keys, location.items(), strict=True)
        }
        metric = program.compute_metric(guide_draws, recording, next(keys))

        initial = setup.initial_states
        states = {name: to_jax(torch.stack([s[name] for s in initial])) for name in initial[0]}
        step_size, half_s = FIRST_STEP, clock.time_left_s() / 2
        warmup = BLOCK * -(-self.warmup // (self.metrics * BLOCK))
        for part in range(self.metrics):
            is_last = part == self.metrics - 1 or clock.time_left_s() < half_s
            draws = BLOCK * -(-self.draws // BLOCK) if is_last else 0
            blocks: list[ChainDraws] = []
            lengths = (warmup, draws)
            # A time limit is looked at after each draw: one may take a minute.
            length = BLOCK if clock.limit_s is None else 1
            for i, block in enumerate(
                program.run(states, metric, recording, next(keys), lengths, step_size, length)
            ):
                blocks.append(block)
                steps = np.asarray(block.n_steps).sum(0).tolist()
                for run, count in zip(runs, steps, strict=True):
                    run.gradients += count

                # Draws after the warm-up belong to the chains; others may be all that there is.
                if i * length == warmup:
                    for run in runs:
                        run.begin_sampling()
                if i * length >= warmup or clock.limit_s is not None:
                    self.add_draws(runs, block)
                count_draws(length)
                if not is_last and clock.time_left_s() < half_s:
                    break

            # The next part goes on from here, with a metric at states of the second half.
            states = {name: value[-1] for name, value in blocks[-1].latents.items()}
            step_size = float(np.median(blocks[-1].step_size[-1]))
            if is_last:
                return
            half = blocks[len(blocks) // 2 :]
            tail = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *half)
            metric = program.compute_metric(thin_states(tail, _STATES), recording, next(keys))

    def add_draws(self, runs: Sequence[ChainRun], block: ChainDraws) -> None:
        """Add the draws of a block to the runs of the chains."""
        latents = {
            name: torch.from_numpy(np.array(value)).to(self.dtype)
            for name, value in block.latents.items()
        }
        stats = {name: np.asarray(getattr(block, name)) for name in runs[0].stats}
        draws = len(next(iter(stats.values())))
        for c, run in enumerate(runs):
            run.draws += [
                {name: value[d, c] for name, value in latents.items()} for d in range(draws)
            ]
            for name, value in stats.items():
                run.stats[name] += value[:, c].tolist()
