"""What `NUTS` and `HMC` share: recordings one by one, their chains one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro.infer import mcmc

from avse_ppl.inference.core.build_posterior import kind_of
from avse_ppl.inference.core.initialization import warm_start
from avse_ppl.inference.core.log_density import LogDensity, Values
from avse_ppl.inference.core.resources import check_memory, explain_out_of_memory, limit_threads
from avse_ppl.inference.core.setup import Mixture, RandomStreams, Seed, check_seed, prepare
from avse_ppl.inference.mcmc.chains import (
    build_chain_posterior,
    check_start,
    complete_chains,
    dispersed_starts,
    prior_guide,
    stack_chains,
    stream_of,
    waveforms_of,
)
from avse_ppl.inference.mcmc.pyro_kernels import (
    STATS,
    ChainRun,
    Potential,
    run_chain,
)
from avse_ppl.inference.vi.guides import make_guide
from avse_ppl.inference.vi.optimize import OptimizerSettings, maximise_elbo
from avse_ppl.models.scene import Scene
from avse_ppl.models.validation import check_count, check_positive
from avse_ppl.posterior.combine import stack_recordings
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram

_STARTS = ("svi", "prior")
# Stan's shortest: 75 draws to get there, 25 for the variances, and 50 for the step size that suits
# them. In less, the variances are poor and the step size is left far too large.
_METRIC_WARMUP = 150
_LEARNING_RATE, _TOLERANCE = 0.05, 1e-4  # of the fit that chains start from


class ChainSetup(NamedTuple):
    """One recording, ready to be sampled."""

    mixture: Spectrogram
    density: LogDensity
    randoms: RandomStreams
    location: Values
    variances: Values
    starts: list[Values]
    seeds: list[int]
    runs: list[ChainRun]


@dataclass(frozen=True)
class HamiltonianMonteCarlo:
    """Settings of `NUTS` and `HMC`, which say what each means, and what is done with them."""

    draws: int = 250
    warmup: int = 250
    chains: int = 4
    target_acceptance: float = 0.8
    start: str = "svi"
    start_steps: int = 200
    waveforms: bool | int = True
    tempering: float = 1.0
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        for what in ("draws", "chains", "start_steps"):
            check_count(what, getattr(self, what))
        check_count("warmup", self.warmup, minimum=2)
        if not isinstance(self.waveforms, bool):
            check_count("waveforms", self.waveforms)
        check_positive("tempering", self.tempering)
        if not 0 < self.target_acceptance < 1:
            raise ValueError(
                f"target_acceptance must be between 0 and 1, not {self.target_acceptance!r}"
            )
        if self.start not in _STARTS:
            raise ValueError(f"start must be one of {_STARTS}, not {self.start!r}")

    def __call__(
        self,
        scene: Scene,
        mixture: Mixture,
        video: Any = None,
        *,
        seed: Seed = 0,
    ) -> Posterior:
        """Invert a scene; see `SVI` for the arguments.

        Ctrl-C keeps what has been drawn so far, as many first chains and first draws as all
        recordings have; the posterior then has ``attrs["interrupted"]`` and a warning.

        Returns
        -------
        Posterior
            With ``stats`` of each draw, and ``warnings`` where the chains are not to be trusted.

        Raises
        ------
        ValueError
            If the log density is not finite where a chain starts, or a draw is not.
        MemoryError
            If the draws are not likely to fit into memory.
        """
        scene, spectrogram, randoms = prepare(scene, mixture, video, seed, self.device, self.dtype)
        with explain_out_of_memory(spectrogram):
            return self._invert(scene, spectrogram, randoms, check_seed(seed))

    def _invert(
        self, scene: Scene, spectrogram: Spectrogram, randoms: RandomStreams, seed: int | list[int]
    ) -> Posterior:
        begin = time.perf_counter()
        check_memory(
            LogDensity(scene, spectrogram), draws=self.chains * self.draws, at_once=1,
            waveforms=self.chains * waveforms_of(self.waveforms, self.chains, self.draws),
        )  # fmt: skip
        parts = [
            self._part(scene, spectrogram.select(r), stream_of(randoms, r))
            for r in range(spectrogram.recordings)
        ]
        chains, length = self._sample(parts)
        stopped = chains * length < self.chains * self.draws
        attrs = {
            "routine": self._name, "seed": seed, "draws": length, "warmup": self.warmup,
            "chains": chains, "tempering": self.tempering,
            "inference_s": round(time.perf_counter() - begin, 3),
            "gradients": sum(run.gradients for part in parts for run in part.runs),
        }  # fmt: skip
        if stopped:
            attrs |= {"interrupted": True, "warnings": [[self._cut(chains, length)]]}
        posteriors = [self._gathered(scene, part, chains, length, attrs) for part in parts]
        return stack_recordings(posteriors)

    def _part(self, scene: Scene, mixture: Spectrogram, randoms: RandomStreams) -> ChainSetup:
        """Where the chains of one recording start, with which metric, and their seeds."""
        density = LogDensity(scene, mixture)
        with limit_threads(mixture):
            guide = self._guide(density, randoms)
            starts = dispersed_starts(density, randoms, self.chains, guide)
            for start in starts:
                check_start(density, start, self.tempering)
        generator = randoms.generators[0]
        seeds = torch.randint(
            2**62, (self.chains,), generator=generator, device=generator.device
        ).tolist()
        variances = {name: (2 * log_sd.detach()).exp() for name, log_sd in guide[1].items()}
        return ChainSetup(mixture, density, randoms, guide[0], variances, starts, seeds, [])

    def _guide(self, density: LogDensity, randoms: RandomStreams) -> tuple[Values, Values]:
        if self.start == "prior" or not density.sites:
            return prior_guide(density)
        location, log_sd = warm_start(density, randoms)
        time_frames = density.mixture.frames.time
        guide = make_guide("mean-field", location, log_sd, time_frames, 0, randoms)
        ascent = OptimizerSettings(self.start_steps, _LEARNING_RATE, self.tempering, _TOLERANCE)
        maximise_elbo(density, guide, randoms, ascent)
        split = guide.layout.split
        return split(guide.location.detach()), split(guide.log_sd.detach())

    def _sample(self, parts: Sequence[ChainSetup]) -> tuple[int, int]:
        """Run the chains; return how many there are, and how long they are.

        The first chain of every recording comes first, so that an interrupt leaves each with some.
        """
        total, done = len(parts) * self.chains * (self.warmup + self.draws), 0

        def note() -> None:
            nonlocal done
            done += 1
            if self.progress is not None:
                self.progress(done, total)

        try:
            for chain in range(self.chains):
                for part in parts:
                    with limit_threads(part.mixture):
                        self._chain(part, chain, note)
        except KeyboardInterrupt:
            chains, length = complete_chains(
                [[len(run.draws) for run in part.runs] for part in parts]
            )
            if not chains:
                raise
            return chains, length
        return self.chains, self.draws

    def _chain(self, part: ChainSetup, chain: int, note: Callable[[], None]) -> None:
        potential = Potential(part.density, self.tempering)
        part.runs.append(ChainRun())
        run_chain(
            self._kernel(potential), potential, part.starts[chain], part.variances,
            (self.warmup, self.draws), part.seeds[chain], part.runs[-1], note,
        )  # fmt: skip

    def _gathered(
        self, scene: Scene, part: ChainSetup, chains: int, length: int, attrs: dict[str, Any]
    ) -> Posterior:
        runs = part.runs[:chains]
        with limit_threads(part.mixture):
            return build_chain_posterior(
                scene, part.mixture, part.density,
                stack_chains([run.draws[:length] for run in runs]), part.randoms,
                kind=kind_of(self._kind, self.tempering), attrs=attrs,
                stats={name: _stat([run.stats[name][:length] for run in runs]) for name in STATS},
                waveforms=self.waveforms,
            )  # fmt: skip

    def _cut(self, chains: int, length: int) -> str:
        return (
            f"interrupted: kept {length} draws of {chains} chains, of {self.draws} draws of "
            f"{self.chains} chains asked for"
        )

    @property
    def _kind(self) -> str:
        return type(self).__name__

    @property
    def _name(self) -> str:
        return self._kind.lower()

    def _adaptation(self, potential: Potential) -> dict[str, Any]:
        """Arguments that Pyro's kernels have in common."""
        return {
            "potential_fn": potential,
            "target_accept_prob": self.target_acceptance,
            "adapt_mass_matrix": self.warmup >= _METRIC_WARMUP,
        }

    def _kernel(self, potential: Potential) -> mcmc.HMC:
        raise NotImplementedError


def _stat(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """``(chain, draw, recording)`` of one recording."""
    return np.asarray(rows)[:, :, None]
