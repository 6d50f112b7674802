"""Chains of NumPyro's NUTS for one recording, compiled and run side by side."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer.hmc import hmc

from avse_ppl.inference.mcmc.jax_log_density import JaxLogDensity, Latents, Recording
from avse_ppl.inference.mcmc.metric import Layout, Metric, fisher_metric, to_latents, to_whitened

BLOCK = 25  # draws between looks at the keyboard
_KEPT = 4  # compiled samplers
FIRST_STEP = 0.1  # in whitened coordinates; the warm-up adapts it
# One core of a CPU for each program; see also ``PJRT_NPROC`` in `jax_log_density`.
_jit = partial(jax.jit, compiler_options={"xla_cpu_multi_thread_eigen": False})


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
    density, layout
        What is sampled, and which latents share a block of the metric.
    example, recording
        Latents of one state and a recording, for their shapes.
    tempering, target_acceptance, max_tree_depth
        As for `NumPyroNUTS`.
    """

    def __init__(
        self, density: JaxLogDensity, layout: Layout, example: Latents, recording: Recording, *,
        tempering: float, target_acceptance: float, max_tree_depth: int,
    ) -> None:  # fmt: skip
        def compute_metric(states: Latents, recording: Recording, key: Any) -> Metric:
            return fisher_metric(density, layout, states, recording, key, tempering=tempering)

        # Whitened coordinates as one flat array.
        stacked = {name: value[None] for name, value in example.items()}
        shapes = jax.eval_shape(compute_metric, stacked, recording, jax.random.key(0))
        ones = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), shapes)
        unravel = ravel_pytree(to_whitened(layout, ones, example))[1]

        def make_potential(metric: Metric, recording: Recording) -> Any:
            return lambda flat: (
                -density(to_latents(layout, metric, unravel(flat)), recording, tempering)
            )

        initialise, transition = hmc(potential_fn_gen=make_potential, algo="NUTS")

        def initialise_chains(
            states: Latents, metric: Metric, recording: Recording, keys: Any, step_size: Any,
            warmup: int,
        ) -> Any:  # fmt: skip
            def initialise_one(latents: Latents, key: Any) -> Any:
                flat = ravel_pytree(to_whitened(layout, metric, latents))[0]
                return initialise(
                    flat, warmup, step_size, adapt_mass_matrix=False,
                    target_accept_prob=target_acceptance, max_tree_depth=max_tree_depth,
                    model_args=(metric, recording), rng_key=key,
                )  # fmt: skip

            return jax.vmap(initialise_one)(states, keys)

        def draw_block(
            state: Any, metric: Metric, recording: Recording, length: int
        ) -> tuple[Any, ChainDraws]:
            def draw_once(state: Any, _: None) -> tuple[Any, ChainDraws]:
                state = jax.vmap(partial(transition, model_args=(metric, recording)))(state)
                latents = jax.vmap(lambda flat: to_latents(layout, metric, unravel(flat)))(state.z)
                return state, ChainDraws(
                    latents, -state.potential_energy, state.energy, state.diverging,
                    state.num_steps, state.accept_prob, state.adapt_state.step_size,
                )  # fmt: skip

            return jax.lax.scan(draw_once, state, None, length=length)

        self.compute_metric = _jit(compute_metric)
        self.initialise_chains = _jit(initialise_chains, static_argnums=5)
        self.draw_block = _jit(draw_block, static_argnums=3)

    def run(
        self, states: Latents, metric: Metric, recording: Recording, key: Any,
        lengths: tuple[int, int], step_size: float = FIRST_STEP, block: int = BLOCK,
    ) -> Iterator[ChainDraws]:  # fmt: skip
        """Warm up and draw; yields a block of draws at a time, those of the warm-up first.

        Parameters
        ----------
        states
            Where the chains go on from, ``(chain, 1, ...)`` each.
        metric, recording, key
            Metric, recording and random key.
        lengths
            Draws of the warm-up and after it, multiples of `BLOCK`.
        step_size
            Where its adaptation begins.
        block
            Draws between one look at the clock and the next; changes no draw.
        """
        warmup, draws = lengths
        chains = len(next(iter(states.values())))
        keys = jax.random.split(key, chains)
        # On a CPU chain by chain, side by side on its cores: none waits for another's trajectory.
        size = 1 if jax.default_backend() == "cpu" else chains
        parts = [slice(first, first + size) for first in range(0, chains, size)]
        running = [
            self.initialise_chains(
                {name: value[part] for name, value in states.items()}, metric, recording,
                keys[part], step_size, warmup,
            )
            for part in parts
        ]  # fmt: skip

        def advance(state: Any) -> tuple[Any, ChainDraws]:
            return jax.block_until_ready(self.draw_block(state, metric, recording, block))

        with ThreadPoolExecutor(min(len(parts), os.cpu_count() or 1)) as cores:
            for i in range((warmup + draws) // block):
                # The first one compiles, which is done once and not by each thread.
                advanced = list(cores.map(advance, running) if i else map(advance, running))
                running = [state for state, _ in advanced]
                drawn = [draws_of_part for _, draws_of_part in advanced]
                yield jax.tree.map(lambda *arrays: jnp.concatenate(arrays, 1), *drawn)


_compiled: OrderedDict[Any, JaxChains] = OrderedDict()


def compile_chains(
    density: JaxLogDensity,
    layout: Layout,
    example: Latents,
    recording: Recording,
    **settings: float,
) -> JaxChains:
    """Sampler of a scene: the one that was compiled for it before, if it was among the last few.

    A scene whose models cannot be hashed is compiled anew each time.
    """
    shapes = tuple((name, value.shape, value.dtype) for name, value in sorted(example.items()))
    key = (density, layout, shapes, tuple(sorted(settings.items())))
    try:
        known = _compiled.pop(key, None)
    except TypeError:
        return JaxChains(density, layout, example, recording, **settings)  # type: ignore[arg-type]
    made = known or JaxChains(density, layout, example, recording, **settings)  # type: ignore[arg-type]
    _compiled[key] = made
    if len(_compiled) > _KEPT:
        _compiled.popitem(last=False)
    return made


def thin_states(drawn: ChainDraws, count: int) -> Latents:
    """Evenly spaced states of all chains, ``(count, 1, ...)`` each."""

    def thin_array(value: jax.Array) -> jax.Array:
        flat = value.reshape(-1, *value.shape[2:])
        return flat[np.linspace(0, len(flat) - 1, count).astype(int)]

    return jax.tree.map(thin_array, drawn.latents)
