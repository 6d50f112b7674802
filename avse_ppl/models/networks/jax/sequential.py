"""JAX counterpart of `SequentialVaeNetwork`: decoders and priors of the latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from avse_ppl.models.networks.jax.layers import Weights, convolve, gru, linear, lstm_both_ways
from avse_ppl.models.networks.sequential import SequentialVaeNetwork
from avse_ppl.models.networks.tcvae import HIGHEST, LOWEST
from avse_ppl.models.networks.transitions import FURTHEST, LOGVAR, Gated, Recurrent, Visual

Prior = tuple[jax.Array, jax.Array]
Law = Callable[[Weights, jax.Array, jax.Array], Prior]


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
        Latents, and visual features or None.
    convolutional
        Layers from the first of the decoder's hidden arrays to log power.
    """
    flat = z.reshape(-1, *z.shape[-2:])
    context = encode_visual(network, weights, visual, flat)
    if network.recurrent:
        hidden = fuse_visual(network, weights, flat, context)
        both = lstm_both_ways(weights, "decoder", jnp.moveaxis(hidden, -1, 0))
        log_power = jnp.moveaxis(linear(weights, "decoder_logpower", both), 0, -1)
    else:
        hidden = convolve(weights, "decoder_latent", flat, 1)
        log_power = convolutional(weights, fuse_visual(network, weights, hidden, context))
    log_power = jnp.clip(log_power, LOWEST, HIGHEST)
    return log_power.reshape(*z.shape[:-2], *log_power.shape[-2:])


def encode_visual(
    network: SequentialVaeNetwork, weights: Weights, visual: jax.Array | None, like: jax.Array
) -> jax.Array:
    """Visual context of prior and decoder, ``(batch, visual_hidden, time)``."""
    shape = (len(like), network.visual_hidden, like.shape[-1])
    if visual is None or not network.visual:
        return jnp.zeros(shape, like.dtype)
    visual = jnp.asarray(visual, like.dtype).reshape(-1, *visual.shape[-2:])
    gate, hidden = visual[:, :1], convolve(weights, "prior_sight.enter", visual[:, 1:], 1)
    for b in range(len(network.prior_sight.context)):
        inner = jax.nn.gelu(hidden, approximate=False)
        hidden = hidden + convolve(weights, f"prior_sight.context.{b}", inner, 2**b)
    return jnp.broadcast_to(gate * jax.nn.gelu(hidden, approximate=False), shape)


def fuse_visual(
    network: SequentialVaeNetwork, weights: Weights, hidden: jax.Array, context: jax.Array
) -> jax.Array:
    """Add the visual context to hidden layers of the decoder, if it takes any."""
    return (
        hidden + convolve_pointwise(weights, "decoder_fusion.value", context)
        if network.decoder_sees
        else hidden
    )


def convolve_pointwise(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    """``nn.Conv1d`` of width 1 without bias."""
    return weights[f"{name}.weight"][..., 0] @ x


def law_of(
    network: SequentialVaeNetwork, weights: Weights, z: jax.Array, visual: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Prior mean and log-variance of each frame, its past given; ``(batch, latent, time)``."""
    law = _LAWS.get(type(network.prior), standard_law)
    mean, logvar = law(weights, z, encode_visual(network, weights, visual, z))
    return mean, jnp.clip(logvar, *LOGVAR)


def standard_law(weights: Weights, z: jax.Array, visual: jax.Array) -> Prior:
    """Mean and log-variance of `transitions.Standard`."""
    return jnp.zeros_like(z), jnp.zeros_like(z)


def visual_law(weights: Weights, z: jax.Array, visual: jax.Array) -> Prior:
    """Mean and log-variance of `transitions.Visual`."""
    return convolve_pointwise(weights, "prior.mean", visual), convolve_pointwise(
        weights, "prior.logvar", visual
    )


def gated_law(weights: Weights, z: jax.Array, visual: jax.Array) -> Prior:
    """Mean and log-variance of `transitions.Gated`."""
    before = jnp.moveaxis(shift_frames(z), -1, -2)
    drive, skip = (
        jnp.moveaxis(convolve_pointwise(weights, f"prior.{name}", visual), -1, -2)
        for name in ("drive", "skip")
    )
    hidden = jnp.tanh(linear(weights, "prior.past", before) + drive)
    proposed, logvar, gate = jnp.split(linear(weights, "prior.out", hidden) + skip, 3, -1)
    opened = jax.nn.sigmoid(gate)
    mean = (1 - opened) * weights["prior.decay"] * before + opened * proposed
    return jnp.moveaxis(mean, -1, -2), jnp.moveaxis(logvar, -1, -2)


def recurrent_law(weights: Weights, z: jax.Array, visual: jax.Array) -> Prior:
    """Mean and log-variance of `transitions.Recurrent`."""
    before = jnp.clip(jnp.moveaxis(shift_frames(z), -1, 0), -FURTHEST, FURTHEST)  # time first
    state = gru(weights, "prior.memory", jnp.concatenate((before, jnp.moveaxis(visual, -1, 0)), -1))
    out = linear(weights, "prior.out", jnp.concatenate((state, before), -1))
    change, logvar = jnp.split(out, 2, -1)
    return jnp.moveaxis(before + change, 0, -1), jnp.moveaxis(logvar, 0, -1)


def shift_frames(z: jax.Array) -> jax.Array:
    """Latents of the frame before: 0 before the first."""
    return jnp.pad(z, ((0, 0), (0, 0), (1, 0)))[..., :-1]


_LAWS: Mapping[type, Law] = MappingProxyType(
    {Visual: visual_law, Gated: gated_law, Recurrent: recurrent_law}
)
