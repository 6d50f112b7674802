"""The chains of one recording side by side, by NumPyro's sampler, compiled."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer.hmc import hmc

from avse_ppl.inference.mcmc.jax_log_density import JaxDensity, Latents, Recording
from avse_ppl.inference.mcmc.metric import Layout, Metric, fisher_metric, to_latents, to_whitened

BLOCK = 25  # draws between looks at the keyboard
_KEPT = 4  # compiled samplers
FIRST_STEP = 0.1  # in whitened coordinates; the warm-up adapts it


class ChainDraws(NamedTuple):
    """Some draws of all chains, each array ``(draw, chain, ...)``."""

    latents: Latents
    lp: jax.Array
    energy: jax.Array
    diverging: jax.Array
    n_steps: jax.Array
    acceptance_rate: jax.Array
    step_size: jax.Array


class JaxChains:
    """NumPyro's No-U-Turn sampler for recordings of one length; compiled once.

    Parameters
    ----------
    density, places
        What is sampled, and which latents share a block of the metric.
    example, of
        Latents of one state and a recording, for their shapes.
    tempering, target_acceptance, max_tree_depth
        As for `NumPyroNUTS`.
    """

    def __init__(
        self, density: JaxDensity, places: Layout, example: Latents, of: Recording, *,
        tempering: float, target_acceptance: float, max_tree_depth: int,
    ) -> None:  # fmt: skip
        """Build the sampler; see the class."""
        self.density, self.places, self.tempering = density, places, tempering
        self.target_acceptance, self.max_tree_depth = target_acceptance, max_tree_depth
        roots = jax.eval_shape(self._metric, _stacked(example), of, jax.random.key(0))
        zeros = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), roots)
        self._unravel = ravel_pytree(to_whitened(places, zeros, example))[1]
        self._init, self._step = hmc(potential_fn_gen=self._potential, algo="NUTS")
        self.metric = _compiled_for(self._metric)
        self._start = _compiled_for(self._starts, static_argnums=5)
        self._run = _compiled_for(self._block)

    def run(
        self, states: Latents, metric: Metric, of: Recording, key: Any,
        lengths: tuple[int, int], step_size: float = FIRST_STEP,
    ) -> Iterator[ChainDraws]:  # fmt: skip
        """Warm up and draw; yields `BLOCK` draws at a time, those of the warm-up first.

        Parameters
        ----------
        states
            Where the chains start, ``(chain, 1, ...)`` each.
        metric, of, key
            Metric, recording and random key.
        lengths
            Draws of the warm-up and after it, multiples of `BLOCK`.
        step_size
            Where its adaptation starts.
        """
        warmup, draws = lengths
        chains = len(next(iter(states.values())))
        keys = jax.random.split(key, chains)
        # On a CPU chain by chain, side by side on its cores: none waits for another's trajectory.
        size = 1 if jax.default_backend() == "cpu" else chains
        parts = [slice(first, first + size) for first in range(0, chains, size)]
        running = [
            self._start(
                {name: value[part] for name, value in states.items()}, metric, of, keys[part],
                step_size, warmup,
            )
            for part in parts
        ]  # fmt: skip

        def move(state: Any) -> tuple[Any, ChainDraws]:
            return jax.block_until_ready(self._run(state, metric, of))

        with ThreadPoolExecutor(min(len(parts), os.cpu_count() or 1)) as cores:
            for block in range((warmup + draws) // BLOCK):
                # The first one compiles, which is done once and not by each thread.
                moved = list(cores.map(move, running) if block else map(move, running))
                running = [state for state, _ in moved]
                yield jax.tree.map(_side_by_side, *(drawn for _, drawn in moved))

    def _metric(self, states: Latents, of: Recording, key: Any) -> Metric:
        return fisher_metric(self.density, self.places, states, of, key, tempering=self.tempering)

    def _potential(self, metric: Metric, of: Recording) -> Any:
        def potential(flat: jax.Array) -> jax.Array:
            latents = self._latents(metric, flat)
            return -self.density(latents, of, self.tempering)

        return potential

    def _latents(self, metric: Metric, flat: jax.Array) -> Latents:
        return to_latents(self.places, metric, self._unravel(flat))

    def _starts(
        self, states: Latents, metric: Metric, of: Recording, keys: Any, step_size: Any, warmup: int
    ) -> Any:
        def start(latents: Latents, key: Any) -> Any:
            flat = ravel_pytree(to_whitened(self.places, metric, latents))[0]
            return self._init(
                flat, warmup, step_size, adapt_mass_matrix=False,
                target_accept_prob=self.target_acceptance, max_tree_depth=self.max_tree_depth,
                model_args=(metric, of), rng_key=key,
            )  # fmt: skip

        return jax.vmap(start)(states, keys)

    def _block(self, state: Any, metric: Metric, of: Recording) -> tuple[Any, ChainDraws]:
        step = partial(self._step, model_args=(metric, of))

        def one(state: Any, _: None) -> tuple[Any, ChainDraws]:
            state = jax.vmap(step)(state)
            latents = jax.vmap(partial(self._latents, metric))(state.z)
            return state, ChainDraws(
                latents, -state.potential_energy, state.energy, state.diverging,
                state.num_steps, state.accept_prob, state.adapt_state.step_size,
            )  # fmt: skip

        return jax.lax.scan(one, state, None, length=BLOCK)


def _side_by_side(*arrays: jax.Array) -> jax.Array:
    """Join draws of several chains, ``(draw, chain, ...)`` each."""
    return jnp.concatenate(arrays, 1)


def _compiled_for(function: Callable[..., Any], **how: Any) -> Any:
    """Compile for one core of a CPU.

    With its own threads, XLA now and then waits for itself without end (as others have found, too:
    its pool of threads is entered again from one of them).
    """
    return jax.jit(function, compiler_options={"xla_cpu_multi_thread_eigen": False}, **how)


_compiled: OrderedDict[Any, JaxChains] = OrderedDict()


def compile_chains(
    density: JaxDensity, places: Layout, example: Latents, of: Recording, **settings: float
) -> JaxChains:
    """Sampler of a scene: the one that was compiled for it before, if it was among the last few.

    A scene whose models cannot be hashed is compiled anew each time.
    """
    shapes = tuple((name, value.shape, value.dtype) for name, value in sorted(example.items()))
    key = (density, places, shapes, tuple(sorted(settings.items())))
    try:
        known = _compiled.pop(key, None)
    except TypeError:
        return JaxChains(density, places, example, of, **settings)  # type: ignore[arg-type]
    made = known or JaxChains(density, places, example, of, **settings)  # type: ignore[arg-type]
    _compiled[key] = made
    if len(_compiled) > _KEPT:
        _compiled.popitem(last=False)
    return made


def thin_states(drawn: ChainDraws, count: int) -> Latents:
    """Evenly spaced states of all chains, ``(count, 1, ...)`` each."""

    def thin(value: jax.Array) -> jax.Array:
        flat = value.reshape(-1, *value.shape[2:])
        return flat[np.linspace(0, len(flat) - 1, count).astype(int)]

    return jax.tree.map(thin, drawn.latents)


def _stacked(example: Latents) -> Latents:
    return {name: value[None] for name, value in example.items()}
