"""`DynamicNetwork` as functions of JAX arrays: its priors of the latents, and what it sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from avse_ppl.models.networks.dynamic import DynamicNetwork
from avse_ppl.models.networks.jax_layers import Weights, convolve, linear, lstm_both_ways
from avse_ppl.models.networks.tcvae import HIGHEST, LOWEST
from avse_ppl.models.networks.transitions import LOGVAR, Gated, Recurrent, Visual

Unroll = Callable[[Weights, jax.Array, jax.Array], jax.Array]


def decode_dynamic(
    network: DynamicNetwork, weights: Weights, z: jax.Array, visual: jax.Array | None,
    convolutional: Callable[[Weights, jax.Array], jax.Array],
) -> jax.Array:  # fmt: skip
    """``(..., latent, time)`` innovations to log power ``(..., freq, time)``.

    Parameters
    ----------
    network
        For its structure; its numbers come from `weights`.
    weights
        All but those of the encoder.
    z, visual
        Innovations, and what is seen or None.
    convolutional
        Layers from the first of the decoder's hidden arrays to log power.
    """
    flat = z.reshape(-1, *z.shape[-2:])
    seen = _seen(network, weights, visual, flat)
    latents = _unroll(network)(weights, flat, seen)
    if network.recurrent:
        hidden = _with_lips(network, weights, latents, seen)
        both = lstm_both_ways(weights, "decoder", jnp.moveaxis(hidden, -1, 0))
        log_power = jnp.moveaxis(linear(weights, "decoder_logpower", both), 0, -1)
    else:
        hidden = convolve(weights, "decoder_latent", latents, 1)
        log_power = convolutional(weights, _with_lips(network, weights, hidden, seen))
    log_power = jnp.clip(log_power, LOWEST, HIGHEST)
    return log_power.reshape(*z.shape[:-2], *log_power.shape[-2:])


def _seen(
    network: DynamicNetwork, weights: Weights, visual: jax.Array | None, like: jax.Array
) -> jax.Array:
    shape = (len(like), network.seen, like.shape[-1])
    if visual is None or not network.visual:
        return jnp.zeros(shape, like.dtype)
    visual = jnp.asarray(visual, like.dtype).reshape(-1, *visual.shape[-2:])
    gate, hidden = visual[:, :1], convolve(weights, "prior_sight.enter", visual[:, 1:], 1)
    for b in range(len(network.prior_sight.context)):
        inner = jax.nn.gelu(hidden, approximate=False)
        hidden = hidden + convolve(weights, f"prior_sight.context.{b}", inner, 2**b)
    return jnp.broadcast_to(gate * jax.nn.gelu(hidden, approximate=False), shape)


def _with_lips(
    network: DynamicNetwork, weights: Weights, hidden: jax.Array, seen: jax.Array
) -> jax.Array:
    return (
        hidden + _narrow(weights, "decoder_fusion.value", seen) if network.decoder_sees else hidden
    )


def _narrow(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    """A convolution of width 1 without bias."""
    return weights[f"{name}.weight"][..., 0] @ x


def _unroll(network: DynamicNetwork) -> Unroll:
    return _UNROLLS.get(type(network.prior), lambda _, innovations, __: innovations)


def _visual(weights: Weights, innovations: jax.Array, seen: jax.Array) -> jax.Array:
    logvar = jnp.clip(_narrow(weights, "prior.logvar", seen), *LOGVAR)
    return _narrow(weights, "prior.mean", seen) + jnp.exp(0.5 * logvar) * innovations


def _gated(weights: Weights, innovations: jax.Array, seen: jax.Array) -> jax.Array:
    drives = _narrow(weights, "prior.drive", seen)
    skips = _narrow(weights, "prior.skip", seen)
    decay = weights["prior.decay"]

    def step(z: jax.Array, inputs: Any) -> Any:
        fresh, drive, skip = inputs
        hidden = jnp.tanh(linear(weights, "prior.past", z) + drive)
        proposed, logvar, gate = jnp.split(linear(weights, "prior.out", hidden) + skip, 3, -1)
        open_ = jax.nn.sigmoid(gate)
        mean = (1 - open_) * decay * z + open_ * proposed
        z = mean + jnp.exp(0.5 * jnp.clip(logvar, *LOGVAR)) * fresh
        return z, z

    return _scan(step, jnp.zeros_like(innovations[..., 0]), innovations, drives, skips)


def _recurrent(weights: Weights, innovations: jax.Array, seen: jax.Array) -> jax.Array:
    latent = innovations.shape[1]
    inward = weights["prior.memory.weight_ih_l0"]
    drives = inward[:, latent:] @ seen + weights["prior.memory.bias_ih_l0"][:, None]
    kept_weight = weights["prior.memory.weight_hh_l0"].T
    state = jnp.zeros((len(innovations), kept_weight.shape[0]), innovations.dtype)

    def step(carry: Any, inputs: Any) -> Any:
        (z, state), (fresh, drive) = carry, inputs
        driven = jnp.split(drive + z @ inward[:, :latent].T, 3, -1)
        kept = jnp.split(state @ kept_weight + weights["prior.memory.bias_hh_l0"], 3, -1)
        reset, update = (jax.nn.sigmoid(driven[i] + kept[i]) for i in (0, 1))
        state = (1 - update) * jnp.tanh(driven[2] + reset * kept[2]) + update * state
        out = linear(weights, "prior.out", jnp.concatenate((state, z), -1))
        change, logvar = jnp.split(out, 2, -1)
        z = z + change + jnp.exp(0.5 * jnp.clip(logvar, *LOGVAR)) * fresh
        return (z, state), z

    return _scan(step, (jnp.zeros_like(innovations[..., 0]), state), innovations, drives)


def _scan(step: Any, start: Any, *sequences: jax.Array) -> jax.Array:
    """Run over the last axis of all sequences, and lay the results along it."""
    states = jax.lax.scan(step, start, tuple(jnp.moveaxis(a, -1, 0) for a in sequences))[1]
    return jnp.moveaxis(states, 0, -1)


_UNROLLS: Mapping[type, Unroll] = MappingProxyType(
    {Visual: _visual, Gated: _gated, Recurrent: _recurrent}
)
