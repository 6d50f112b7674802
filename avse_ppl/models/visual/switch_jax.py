"""JAX counterpart of `avse_ppl.models.visual.switch`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from avse_ppl.models.visual.gate import Switch
from avse_ppl.models.visual.switch import TINY


def evidence_jax(branches: jax.Array, switch: Switch) -> jax.Array:
    """Log density of each frame given those before it, ``(row, time)``; see `evidence`."""
    steps = transitions_jax(switch, branches.dtype)
    steps = jnp.tile(steps, (len(branches) // len(steps), 1, 1, 1)) + branches[..., None, :]
    stride = 1
    while stride < steps.shape[1]:
        joined = compose_transitions(steps[:, :-stride], steps[:, stride:])
        steps = jnp.concatenate((steps[:, :stride], joined), 1)
        stride *= 2
    total = jax.nn.logsumexp(steps[..., 0, :], -1)
    return jnp.diff(total, axis=-1, prepend=0.0)


def transitions_jax(switch: Switch, dtype: jnp.dtype) -> jax.Array:
    """Logarithms of the transitions, ``(recording, time, 2, 2)``; see `transitions`."""
    score = jnp.clip(jnp.asarray(switch.score, dtype), 0.0, 1.0)
    before = jnp.concatenate((score[:, :1], score[:, :-1]), 1)
    from_one = jnp.where(score < before, score / jnp.maximum(before, TINY), 1.0)
    from_zero = jnp.maximum(score - before, 0.0) / jnp.maximum(1.0 - before, TINY)
    kept = jnp.clip(jnp.stack((from_zero, from_one), -1), 0.0, 1.0)
    rho = jnp.full(score.shape, switch.persistence, dtype).at[:, 0].set(0.0)[..., None]
    on = rho * kept + (1.0 - rho) * score[..., None]
    return jnp.log(jnp.maximum(jnp.stack((1.0 - on, on), -1), TINY))


def compose_transitions(first: jax.Array, second: jax.Array) -> jax.Array:
    """Product of 2x2 matrices of logarithms."""
    off, on = (first[..., :, i, None] + second[..., None, i, :] for i in (0, 1))
    return jnp.logaddexp(off, on)
