"""The No-U-Turn sampler by NumPyro: compiled, with all chains at once."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.mcmc.chains import complete_chains
from avse_ppl.inference.mcmc.hamiltonian import ChainSetup, HamiltonianMonteCarlo
from avse_ppl.inference.mcmc.pyro_kernels import ChainRun
from avse_ppl.models.scene import Scene
from avse_ppl.models.validation import check_count
from avse_ppl.signal.stft import Spectrogram

if TYPE_CHECKING:
    from avse_ppl.inference.mcmc.jax_chains import ChainDraws, JaxChains
    from avse_ppl.inference.mcmc.jax_log_density import Recording

_STATES = 128  # that a metric is averaged over


@dataclass(frozen=True)
class NumPyroNUTS(HamiltonianMonteCarlo):
    r"""No-U-Turn sampler over all latents, on JAX.

    The same posterior as `NUTS` draws from, many times as fast: compiled, all chains at once, and
    in coordinates in which the posterior is nearly round. Those come from the Fisher information
    in blocks (the latents of a frame together, those of a bin together, and what all frames
    share), first at draws of a variational fit, then anew at the states of the chains themselves
    after each part of the warm-up. From then on they are left alone, so that the draws are those
    of a Markov chain with the posterior as its law.

    Models have to be written with pyroapi, as those of the library are; see
    `avse_ppl.distributions.backend`. Recordings are sampled one after the other: a batch is the
    same as a loop.

    Parameters
    ----------
    draws, warmup, chains, target_acceptance, start, start_steps, waveforms, tempering
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

    def __post_init__(self) -> None:
        """Check the settings."""
        super().__post_init__()
        check_count("max_tree_depth", self.max_tree_depth)
        check_count("metrics", self.metrics)

    def _part(self, scene: Scene, mixture: Spectrogram, randoms: RandomStreams) -> ChainSetup:
        _check_installed()
        return super()._part(scene, mixture, randoms)

    def _sample(self, parts: Sequence[ChainSetup]) -> tuple[int, int]:
        """Run the chains; return how many there are, and how long they are."""
        from avse_ppl.inference.mcmc.jax_chains import BLOCK

        asked = -(-self.draws // BLOCK) * BLOCK
        counter = _Counter(self.progress, len(parts) * self._blocks(BLOCK) * BLOCK)
        programs: dict[int, JaxChains] = {}
        for part in parts:
            part.runs.extend(ChainRun() for _ in range(self.chains))
        try:
            with _precision(self.dtype):
                for part in parts:
                    self._vectorised(part, programs, counter)
        except KeyboardInterrupt:
            lengths = [[len(run.draws) for run in part.runs] for part in parts]
            chains, length = complete_chains(lengths)
            if not chains:
                raise
            return chains, min(length, self.draws)
        return self.chains, min(asked, self.draws)

    def _vectorised(
        self, part: ChainSetup, programs: dict[int, JaxChains], counter: _Counter
    ) -> None:
        """All chains of one recording: parts of the warm-up, each with its metric, then draws."""
        import jax

        from avse_ppl.inference.mcmc.jax_chains import BLOCK, FIRST_STEP, thin_states
        from avse_ppl.inference.mcmc.jax_log_density import observed, to_jax

        if not part.density.sites:
            _repeat_nothing(part.runs, self.draws)
            return
        guide = {name: variance.sqrt() for name, variance in part.variances.items()}
        fitted = {name: to_jax(value) for name, value in part.location.items()}
        spread = {name: to_jax(value) for name, value in guide.items()}
        of = observed(part.density)[0]
        program = self._program(part, of, programs)
        keys = iter(jax.random.split(jax.random.key(part.seeds[0] % 2**31), 2 * self.metrics + 2))
        metric = program.metric(_around(fitted, spread, next(keys)), of, next(keys))
        states, step = _chains_of(part.starts), FIRST_STEP
        warmup = BLOCK * -(-self.warmup // (self.metrics * BLOCK))
        for index in range(self.metrics):
            last = index == self.metrics - 1
            draws = BLOCK * -(-self.draws // BLOCK) if last else 0
            blocks: list[ChainDraws] = []
            for i, drawn in enumerate(
                program.run(states, metric, of, next(keys), (warmup, draws), step)
            ):
                blocks.append(drawn)
                counter.note(BLOCK)
                _count(part.runs, drawn)
                if i * BLOCK >= warmup:
                    _keep(part.runs, drawn, self.dtype)
            states = {name: value[-1] for name, value in blocks[-1].latents.items()}
            step = float(np.median(blocks[-1].step_size[-1]))
            if not last:
                tail = jax.tree.map(_joined, *blocks[len(blocks) // 2 :])
                metric = program.metric(thin_states(tail, _STATES), of, next(keys))

    def _program(
        self, part: ChainSetup, of: Recording, programs: dict[int, JaxChains]
    ) -> JaxChains:
        """Compiled sampler for recordings of this length: what is heard and seen comes later."""
        from avse_ppl.inference.mcmc.jax_chains import compile_chains
        from avse_ppl.inference.mcmc.jax_log_density import jax_density, to_jax
        from avse_ppl.inference.mcmc.metric import arrange_latents

        frames = part.density.mixture.frames
        if frames.time not in programs:
            example = {name: to_jax(value) for name, value in part.location.items()}
            programs[frames.time] = compile_chains(
                jax_density(part.density),
                arrange_latents(example, frames.freq, frames.time),
                example,
                of,
                tempering=self.tempering,
                target_acceptance=self.target_acceptance,
                max_tree_depth=self.max_tree_depth,
            )
        return programs[frames.time]

    def _blocks(self, block: int) -> int:
        return self.metrics * -(-self.warmup // (self.metrics * block)) + -(-self.draws // block)

    @property
    def _kind(self) -> str:
        return "NUTS"

    @property
    def _name(self) -> str:
        return "numpyro-nuts"


def _check_installed() -> None:
    """Raise before any work if JAX is missing."""
    missing = [name for name in ("jax", "numpyro") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"numpyro-nuts needs an optional part ({', '.join(missing)}): "
            "pip install 'avse-ppl[jax]'; or use inference='nuts', which does without"
        )


class _Counter:
    """Tells the caller how far it is."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def note(self, count: int) -> None:
        self.done += count
        if self.progress is not None:
            self.progress(self.done, self.total)


def _around(location: Any, sd: Any, key: Any) -> Any:
    """Draws of the fitted guide, ``(state, 1, ...)`` each."""
    import jax

    keys = jax.random.split(key, len(location))
    return {
        name: value + sd[name] * jax.random.normal(k, (_STATES, *value.shape), value.dtype)
        for k, (name, value) in zip(keys, location.items(), strict=True)
    }


def _chains_of(starts: Sequence[dict[str, torch.Tensor]]) -> Any:
    """``(chain, 1, ...)`` each."""
    from avse_ppl.inference.mcmc.jax_log_density import to_jax

    return {name: to_jax(torch.stack([start[name] for start in starts])) for name in starts[0]}


def _joined(*arrays: Any) -> Any:
    import jax.numpy as jnp

    return jnp.concatenate(arrays)


def _count(runs: Sequence[ChainRun], drawn: ChainDraws) -> None:
    for run, steps in zip(runs, np.asarray(drawn.n_steps).sum(0).tolist(), strict=True):
        run.gradients += steps


def _keep(runs: Sequence[ChainRun], drawn: ChainDraws, dtype: torch.dtype) -> None:
    """Add a block of draws to the chains they belong to."""
    latents = {
        name: torch.from_numpy(np.array(value)).to(dtype) for name, value in drawn.latents.items()
    }
    stats = {name: np.asarray(getattr(drawn, name)) for name in runs[0].stats}
    for c, run in enumerate(runs):
        count = len(stats["lp"])
        run.draws += [{name: value[d, c] for name, value in latents.items()} for d in range(count)]
        for name, value in stats.items():
            run.stats[name] += value[:, c].tolist()


def _repeat_nothing(runs: Sequence[ChainRun], draws: int) -> None:
    """Draws of a scene without latents."""
    for run in runs:
        run.draws += [{} for _ in range(draws)]
        for values in run.stats.values():
            values += [0.0] * draws


def _precision(dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Double precision in JAX, where it is asked for."""
    if dtype != torch.float64:
        return nullcontext()
    import jax

    return jax.enable_x64(True)
