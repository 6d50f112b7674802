"""The networks of published audio-visual and dynamical weights as functions of JAX arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from avse_ppl.models.networks.jax.layers import Weights, linear
from avse_ppl.models.networks.published_dkf import SMALLEST_VARIANCE

Law = tuple[jax.Array, jax.Array]


def decode_dkf(weights: Weights, z: jax.Array, visual: jax.Array | None = None) -> jax.Array:
    """``(..., latent, time)`` to log power ``(..., freq, time)``."""
    return decode_log_power(weights, tanh_layers(weights, "decoder", jnp.moveaxis(z, -1, -2)))


def law_of_dkf(weights: Weights, z: jax.Array, visual: jax.Array | None = None) -> Law:
    """Prior mean and log-variance of each frame, its past given; ``(batch, latent, time)``."""
    before = jnp.moveaxis(jnp.pad(z, ((0, 0), (0, 0), (1, 0)))[..., :-1], -1, -2)
    gate, proposal = (
        jax.nn.sigmoid(two_layers(weights, name, before)) for name in ("gate", "proposal")
    )
    mean = (1 - gate) * linear(weights, "line", before) + gate * proposal
    variance = jax.nn.softplus(linear(weights, "variance", proposal))
    logvar = jnp.log(variance + SMALLEST_VARIANCE)
    return jnp.moveaxis(mean, -1, -2), jnp.moveaxis(logvar, -1, -2)


def decode_avvae(weights: Weights, z: jax.Array, visual: jax.Array | None = None) -> jax.Array:
    """``(..., latent, time)`` to log power ``(..., freq, time)``."""
    flat = jnp.moveaxis(z.reshape(-1, *z.shape[-2:]), -1, -2)
    hidden = tanh_layers(weights, "decoder", flat)
    video = tanh_layers(weights, "decoder_sight", strip_gate(visual, z))
    both = jnp.concatenate((hidden, jnp.broadcast_to(video, hidden.shape)), -1)
    log_power = decode_log_power(weights, tanh_layers(weights, "decoder_fusion", both))
    return log_power.reshape(*z.shape[:-2], *log_power.shape[-2:])


def law_of_avvae(weights: Weights, z: jax.Array, visual: jax.Array | None = None) -> Law:
    """Prior mean and log-variance of each frame; ``(batch, latent, time)``."""
    hidden = tanh_layers(weights, "prior_sight", strip_gate(visual, z))
    mean, logvar = (
        jnp.broadcast_to(jnp.moveaxis(linear(weights, name, hidden), -1, -2), z.shape)
        for name in ("prior_mean", "prior_logvar")
    )
    return mean, logvar


def strip_gate(visual: jax.Array | None, z: jax.Array) -> jax.Array:
    """Features without their gate, ``(batch, time, feature)``."""
    if visual is None:
        raise ValueError("this network has no audio-only mode: it needs features of the lips")
    visual = jnp.asarray(visual, z.dtype)
    return jnp.moveaxis(visual.reshape(-1, *visual.shape[-2:])[:, 1:], -1, -2)


def decode_log_power(weights: Weights, hidden: jax.Array) -> jax.Array:
    """Last layer of a decoder, ``(..., time, hidden)`` to ``(..., freq, time)``."""
    return jnp.moveaxis(linear(weights, "decoder_logpower", hidden), -1, -2)


def two_layers(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    """Linear, ReLU, linear."""
    return linear(weights, f"{name}.2", jax.nn.relu(linear(weights, f"{name}.0", x)))


def tanh_layers(weights: Weights, name: str, hidden: jax.Array) -> jax.Array:
    """Linear layers with a tanh after each."""
    layers = sum(key.startswith(f"{name}.") for key in weights) // 2
    for i in range(layers):  # torch counts the nonlinearities in between
        hidden = jnp.tanh(linear(weights, f"{name}.{2 * i}", hidden))
    return hidden
