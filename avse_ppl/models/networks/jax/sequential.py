"""`SequentialVaeNetwork` as functions of JAX arrays: its priors of the latents, and its lips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from avse_ppl.models.networks.jax.layers import Weights, convolve, gru, linear, lstm_both_ways
from avse_ppl.models.networks.sequential import SequentialVaeNetwork
from avse_ppl.models.networks.tcvae import HIGHEST, LOWEST
from avse_ppl.models.networks.transitions import LOGVAR, Gated, Recurrent, Visual

Law = Callable[[Weights, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def decode_sequential(
    network: SequentialVaeNetwork, weights: Weights, z: jax.Array, visual: jax.Array | None,
    convolutional: Callable[[Weights, jax.Array], jax.Array],
) -> jax.Array:  # fmt: skip
    """``(..., latent, time)`` to log power ``(..., freq, time)``.

    Parameters
    ----------
    network
        For its structure; its numbers come from `weights`.
    weights
        All but those of the encoder.
    z, visual
        Latents, and what is seen or None.
    convolutional
        Layers from the first of the decoder's hidden arrays to log power.
    """
    flat = z.reshape(-1, *z.shape[-2:])
    seen = _seen(network, weights, visual, flat)
    if network.recurrent:
        hidden = _with_lips(network, weights, flat, seen)
        both = lstm_both_ways(weights, "decoder", jnp.moveaxis(hidden, -1, 0))
        log_power = jnp.moveaxis(linear(weights, "decoder_logpower", both), 0, -1)
    else:
        hidden = convolve(weights, "decoder_latent", flat, 1)
        log_power = convolutional(weights, _with_lips(network, weights, hidden, seen))
    log_power = jnp.clip(log_power, LOWEST, HIGHEST)
    return log_power.reshape(*z.shape[:-2], *log_power.shape[-2:])


def _seen(
    network: SequentialVaeNetwork, weights: Weights, visual: jax.Array | None, like: jax.Array
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
    network: SequentialVaeNetwork, weights: Weights, hidden: jax.Array, seen: jax.Array
) -> jax.Array:
    return (
        hidden + _narrow(weights, "decoder_fusion.value", seen) if network.decoder_sees else hidden
    )


def _narrow(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    """A convolution of width 1 without bias."""
    return weights[f"{name}.weight"][..., 0] @ x


def law_of(
    network: SequentialVaeNetwork, weights: Weights, z: jax.Array, visual: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Prior mean and log-variance of each frame, its past given; ``(batch, latent, time)``."""
    law = _LAWS.get(type(network.prior), _white)
    mean, logvar = law(weights, z, _seen(network, weights, visual, z))
    return mean, jnp.clip(logvar, *LOGVAR)


def _white(weights: Weights, z: jax.Array, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros_like(z), jnp.zeros_like(z)


def _visual(weights: Weights, z: jax.Array, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _narrow(weights, "prior.mean", seen), _narrow(weights, "prior.logvar", seen)


def _gated(weights: Weights, z: jax.Array, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    before = jnp.moveaxis(_delayed(z), -1, -2)
    drive, skip = (
        jnp.moveaxis(_narrow(weights, f"prior.{name}", seen), -1, -2) for name in ("drive", "skip")
    )
    hidden = jnp.tanh(linear(weights, "prior.past", before) + drive)
    proposed, logvar, gate = jnp.split(linear(weights, "prior.out", hidden) + skip, 3, -1)
    opened = jax.nn.sigmoid(gate)
    mean = (1 - opened) * weights["prior.decay"] * before + opened * proposed
    return jnp.moveaxis(mean, -1, -2), jnp.moveaxis(logvar, -1, -2)


def _recurrent(weights: Weights, z: jax.Array, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    before = jnp.moveaxis(_delayed(z), -1, 0)  # time first, for the scan
    state = gru(weights, "prior.memory", jnp.concatenate((before, jnp.moveaxis(seen, -1, 0)), -1))
    out = linear(weights, "prior.out", jnp.concatenate((state, before), -1))
    change, logvar = jnp.split(out, 2, -1)
    return jnp.moveaxis(before + change, 0, -1), jnp.moveaxis(logvar, 0, -1)


def _delayed(z: jax.Array) -> jax.Array:
    """Each frame's past: 0 before the first."""
    return jnp.pad(z, ((0, 0), (0, 0), (1, 0)))[..., :-1]


_LAWS: Mapping[type, Law] = MappingProxyType(
    {Visual: _visual, Gated: _gated, Recurrent: _recurrent}
)
