"""Hamiltonian Monte Carlo over all latents, by Pyro's kernels: NUTS and HMC."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, NamedTuple

import torch
from pyro.infer import mcmc

from avse_ppl.inference.base import Draws, InferenceMethod, Problem
from avse_ppl.inference.core.initialization import warm_start
from avse_ppl.inference.core.log_density import LogDensity, Values
from avse_ppl.inference.core.resources import check_memory, limit_threads
from avse_ppl.inference.mcmc.chains import (
    ChainRun,
    approximate_prior,
    check_initial_state,
    collect_chains,
    count_complete_draws,
    count_waveforms,
    draw_initial_states,
)
from avse_ppl.inference.mcmc.pyro_kernels import HmcKernel, NutsKernel, Potential, run_chain
from avse_ppl.inference.vi.guides import make_guide
from avse_ppl.inference.vi.optimize import OptimizerSettings, maximise_elbo
from avse_ppl.models.validation import check_count
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.utils.plurals import choose_form, name_count
from avse_ppl.utils.run_time import RunClock, TimeLimitReached, format_duration

_INITS = ("svi", "prior")
# Stan's shortest: 75 draws to get there, 25 for the variances, and 50 for the step size that suits
# them. In less, the variances are poor and the step size is left far too large.
_METRIC_WARMUP = 150
# What a step of a chain takes at most, in gradients timed by themselves: the sampler's own work, a
# machine that others use. It came to 1.0 to 1.6 with Pyro on two busy cores.
_SLOWER = 2.0
_LEARNING_RATE, _TOLERANCE = 0.05, 1e-4  # of the fit that initial states are drawn from


class ChainSetup(NamedTuple):
    """Chains of one recording: initial states, seeds, first metric, and the runs to fill.

    ``gradient_s`` are the seconds of a gradient of the log density.
    """

    problem: Problem
    density: LogDensity
    location: Values
    variances: Values
    initial_states: list[Values]
    seeds: list[int]
    runs: list[ChainRun]
    gradient_s: float = 0.0


@dataclass(frozen=True)
class HamiltonianMonteCarlo(InferenceMethod):
    """Base of `NUTS`, `HMC` and `NumPyroNUTS`: their common settings, which `NUTS` describes."""

    draws: int = 250
    warmup: int = 250
    chains: int = 4
    target_acceptance: float = 0.8
    init: str = "svi"
    init_steps: int = 200
    _: KW_ONLY
    waveforms: bool | int = True

    kind: ClassVar[Approximation]
    faster: ClassVar[str] = (
        "'svi', which is an approximation, 'numpyro-nuts', which is compiled, fewer chains or "
        "draws, or a noise model with fewer latents"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for what in ("chains", "init_steps"):
            check_count(what, getattr(self, what))
        check_count("warmup", self.warmup, minimum=2)
        if not 0 < self.target_acceptance < 1:
            raise ValueError(
                f"target_acceptance must be between 0 and 1, not {self.target_acceptance!r}"
            )
        if self.init not in _INITS:
            raise ValueError(f"init must be one of {_INITS}, not {self.init!r}")

    def _run(self, problem: Problem) -> Sequence[Draws]:
        """Draws of each recording, with statistics of each draw.

        Ctrl-C, or the time limit, keeps what has been drawn so far, as many first chains and first
        draws as all recordings have; the posterior then says so in ``kind`` and a warning.

        Raises
        ------
        ValueError
            If the log density is not finite at an initial state, or a draw is not.
        MemoryError
            If the draws are not likely to fit into memory.
        """
        check_memory(
            LogDensity(problem.scene, problem.spectrogram), draws=self.chains * self.draws,
            waveforms=self.chains * count_waveforms(self.waveforms, self.chains, self.draws),
            at_once=1,
        )  # fmt: skip
        setups = [self.set_up_chains(problem.select(r)) for r in range(problem.recordings)]
        ended_early = None
        try:
            self.sample_chains(setups, problem.clock)
        except (KeyboardInterrupt, TimeLimitReached) as error:
            ended_early = self.end_chains(setups, error)
        chains, length = count_complete_draws(
            [[len(run.draws) for run in setup.runs] for setup in setups]
        )
        attrs = {
            "draws": length, "warmup": self.warmup, "chains": chains,
            "gradients": sum(run.gradients for setup in setups for run in setup.runs),
        }  # fmt: skip
        for setup in setups:
            del setup.runs[chains:]
            for run in setup.runs:
                run.cut(slice(length))
        return [
            collect_chains(
                setup.problem, setup.density, setup.runs, kind=self.kind, waveforms=self.waveforms,
                ended_early=ended_early, attrs=attrs,
            )
            for setup in setups
        ]  # fmt: skip

    def end_chains(self, setups: Sequence[ChainSetup], error: BaseException) -> str | None:
        """Leave the draws that there are in the runs, and describe them unless none is missing.

        Draws of a warm-up count only if there are no others, and then those of its last half.

        Raises
        ------
        KeyboardInterrupt, TimeLimitReached
            The ``error``, if there are none.
        """

        def count_draws(is_warm: bool) -> tuple[int, int]:
            return count_complete_draws(
                [[len(run.draws) * (run.is_warm or not is_warm) for run in setup.runs]
                 for setup in setups]
            )  # fmt: skip

        reason = str(error) or "interrupted"
        asked = (
            f"of {name_count(self.draws, 'draw')} of {name_count(self.chains, 'chain')} asked for"
        )
        chains, length = count_draws(is_warm=True)
        if chains * length == self.chains * self.draws:
            return None
        if chains:
            for setup in setups:
                for run in setup.runs:
                    run.cut(slice(None if run.is_warm else 0))
            found = f"{name_count(length, 'draw')} of {name_count(chains, 'chain')}"
            return f"{reason}: kept {found}, {asked}"
        chains, length = count_draws(is_warm=False)
        if not chains or isinstance(error, KeyboardInterrupt):
            raise error
        for setup in setups:
            del setup.runs[chains:]
            for run in setup.runs:
                run.cut(slice(len(run.draws) // 2, None))
        kept = length - length // 2
        return (
            f"{reason} in the warm-up: its last {name_count(kept, 'draw')} of "
            f"{name_count(chains, 'chain')} {choose_form(kept, 'was', 'were')} kept, {asked}; "
            f"{choose_form(kept, 'it', 'they')} need not be near the posterior"
        )

    def set_up_chains(self, problem: Problem) -> ChainSetup:
        """Initial states, first metric and seeds of the chains of one recording."""
        density, streams = LogDensity(problem.scene, problem.spectrogram), problem.streams
        with limit_threads(problem.spectrogram):
            if self.init == "prior" or not density.sites:
                location, log_sd = approximate_prior(density)
            else:
                guess = warm_start(density, streams)
                time_frames = density.mixture.frames.time
                guide = make_guide("mean-field", *guess, time_frames, 0, streams)
                settings = OptimizerSettings(
                    self.init_steps, _LEARNING_RATE, self.tempering, _TOLERANCE,
                    progress=lambda *_: problem.clock.check(),
                )  # fmt: skip
                course = maximise_elbo(density, guide, streams, settings)
                if course.ended_early is not None:
                    raise TimeLimitReached(f"{course.ended_early} of the fit of initial states")
                location, log_sd = (
                    guide.layout.split(part.detach()) for part in (guide.location, guide.log_sd)
                )
            states = draw_initial_states(location, log_sd, streams, self.chains)
            timed = [check_initial_state(density, s, self.tempering) for s in states]
            seconds = sum(timed) / len(timed)
        generator = streams.generators[0]
        seeds = torch.randint(
            2**62, (self.chains,), generator=generator, device=generator.device
        ).tolist()
        variances = {name: (2 * value.detach()).exp() for name, value in log_sd.items()}
        return ChainSetup(problem, density, location, variances, states, seeds, [], seconds)

    def sample_chains(self, setups: Sequence[ChainSetup], clock: RunClock) -> None:
        """Run the chains.

        The first chain of every recording comes first, so that an interrupt leaves each with some,
        and has its share of the time if that is limited.
        """
        total, done = len(setups) * self.chains * (self.warmup + self.draws), 0
        self.announce_time(clock, sum(s.gradient_s for s in setups) * self.chains, setups[0])

        def count_draw() -> None:
            nonlocal done
            done += 1
            clock(done, total)

        ended: TimeLimitReached | None = None
        for chain in range(self.chains):
            for i, setup in enumerate(setups):
                potential = Potential(setup.density, self.tempering, clock)
                setup.runs.append(ChainRun())
                share = clock.share(1 if chain else len(setups) - i)
                with limit_threads(setup.problem.spectrogram), share:
                    try:
                        run_chain(
                            self.make_kernel(potential), potential, setup.initial_states[chain],
                            setup.variances, (self.warmup, self.draws), setup.seeds[chain],
                            setup.runs[-1], count_draw,
                        )  # fmt: skip
                    except TimeLimitReached as error:
                        ended = error
            if ended is not None:
                raise ended

    def announce_time(
        self, clock: RunClock, gradient_s: float, setup: ChainSetup, compile_s: float = 0.0
    ) -> None:
        """Say how long the run takes, if that may be long, by the time of a gradient of all chains.

        Trajectories have an eighth of the gradient steps that they may have, or all of them: with
        a learned prior on a recording, nearly all. The upper end is meant to hold: all of them, at
        twice the time of a gradient, and ``compile_s`` seconds before the first.
        """
        draws, steps = self.warmup + self.draws, self.most_steps
        least_s = draws * gradient_s * max(1, steps // 8)
        most_s = _SLOWER * draws * gradient_s * steps
        latents = sum(site.shape.numel() for site in setup.density.sites)
        span = f"{format_duration(least_s)} to {format_duration(compile_s + most_s, at_most=True)}"
        clock.announce(
            most_s,
            f"{self.full_name} of {latents} latents takes about {span}: "
            f"{name_count(self.chains, 'chain')} of {draws} draws of up to {steps} gradients, "
            f"{1e3 * gradient_s:.0f} ms for one of each chain",
        )

    @property
    @abstractmethod
    def most_steps(self) -> int:
        """Gradient steps of a trajectory, at most."""

    @property
    def adapts_metric(self) -> bool:
        """Whether the warm-up is long enough to estimate variances of the posterior."""
        return self.warmup >= _METRIC_WARMUP

    @abstractmethod
    def make_kernel(self, potential: Potential) -> mcmc.HMC:
        """Kernel of Pyro for one chain."""


@dataclass(frozen=True)
class NUTS(HamiltonianMonteCarlo):
    r"""No-U-Turn sampler over all latents, on the real line.

    Draws from the posterior itself, not from an approximation of it: trajectories of a particle
    with potential :math:`-\log p(x, u)`, each as long as it does not turn back. The step size and,
    in a warm-up of 150 draws or more, a diagonal mass matrix are adapted in the warm-up. What is
    left to doubt is whether the chains are long enough, which ``posterior.warnings`` says.

    Chains are run one by one, and recordings too: a batch is the same as a loop.

    Parameters
    ----------
    draws
        Draws of each chain, after the warm-up.
    warmup
        Draws of each chain that are thrown away.
    chains
        Chains, from different initial states. Fewer than two cannot be compared.
    target_acceptance
        What the step size is adapted to, between 0 and 1; higher means smaller steps and fewer
        divergences.
    init
        Initial states: ``"svi"``, draws of a fitted mean-field guide, or ``"prior"``, draws of the
        prior; the variances of either are the first inverse mass matrix.
    init_steps
        At most this many steps of that fit.
    waveforms
        True for a waveform with each draw, False for none, or how many in all.
    tempering
        Power of the likelihood; anything but 1 is flagged in ``posterior.kind``.
    time_limit_s
        As for `InferenceMethod`. A warm-up takes at most half of it, and no other chain begins
        before the first one is finished; draws of a warm-up that is not over are kept only if there
        are no others.
    device, dtype
        As for `SVI`. Of long recordings (over a minute or so) the log density is too large a number
        for steps to be accepted in single precision: use ``torch.float64``.
    progress
        Called with (draw, draws) after each draw of each chain and recording, warm-up included.
    max_tree_depth
        A trajectory has at most ``2 ** max_tree_depth`` gradient steps.

    Raises
    ------
    ValueError
        If a setting is out of range.

    References
    ----------
    Hoffman and Gelman, "The No-U-Turn sampler", JMLR 2014. Betancourt, "A conceptual introduction
    to Hamiltonian Monte Carlo", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import ComplexNormal, GaussianSpeech, Scene
    >>> wave = np.random.default_rng(0).normal(size=3000).astype("float32")
    >>> scene = Scene(GaussianSpeech(), lambda frames: ComplexNormal(0.0, 0.3))
    >>> posterior = NUTS(draws=4, warmup=4, chains=2, init="prior")(scene, wave, seed=0)
    >>> posterior.kind, posterior.speech.shape
    ('NUTS', (2, 4, 1, 3000))
    """

    max_tree_depth: int = 8

    name: ClassVar[str] = "nuts"
    kind: ClassVar[Approximation] = Approximation("NUTS")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_tree_depth", self.max_tree_depth)

    @property
    def most_steps(self) -> int:
        """Gradient steps of a trajectory, at most."""
        return 2**self.max_tree_depth - 1

    def make_kernel(self, potential: Potential) -> mcmc.HMC:
        """Pyro's No-U-Turn sampler."""
        return NutsKernel(
            potential_fn=potential, target_accept_prob=self.target_acceptance,
            adapt_mass_matrix=self.adapts_metric, max_tree_depth=self.max_tree_depth,
        )  # fmt: skip


@dataclass(frozen=True)
class HMC(HamiltonianMonteCarlo):
    r"""Hamiltonian Monte Carlo over all latents, with trajectories of a given number of steps.

    Parameters
    ----------
    draws, warmup, chains, target_acceptance, init, init_steps, waveforms, tempering
        As for `NUTS`.
    device, dtype, progress
        As for `NUTS`.
    steps
        Leapfrog steps of a trajectory: between half as many and this many, at random.

    Raises
    ------
    ValueError
        If a setting is out of range.

    References
    ----------
    Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo, 2011.

    Examples
    --------
    >>> HMC(steps=20).steps
    20
    """

    steps: int = 16

    name: ClassVar[str] = "hmc"
    kind: ClassVar[Approximation] = Approximation("HMC")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("steps", self.steps)

    @property
    def most_steps(self) -> int:
        """Gradient steps of a trajectory, at most."""
        return self.steps

    def make_kernel(self, potential: Potential) -> mcmc.HMC:
        """Pyro's Hamiltonian Monte Carlo."""
        return HmcKernel(
            self.steps, potential_fn=potential, target_accept_prob=self.target_acceptance,
            adapt_mass_matrix=self.adapts_metric,
        )  # fmt: skip
