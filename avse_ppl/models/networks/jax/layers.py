"""Layers of torch on JAX arrays and torch's own weights, by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

Weights = Mapping[str, jax.Array]


def linear(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    """``nn.Linear`` of ``(..., in)``."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def convolve(weights: Weights, name: str, x: jax.Array, dilation: int) -> jax.Array:
    """``nn.Conv1d`` of ``(..., in, time)`` that keeps the length, as products of shifted inputs.

    Fast on a CPU.
    """
    kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    width, time = kernel.shape[-1], x.shape[-1]
    padding = dilation * (width // 2)
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(padding, padding)])
    shifted = [padded[..., k * dilation : k * dilation + time] for k in range(width)]
    stacked = jnp.concatenate(shifted, -2)
    flat = jnp.moveaxis(kernel, -1, 1).reshape(kernel.shape[0], -1)
    return flat @ stacked + bias[:, None]


def lstm_both_ways(weights: Weights, layer: str, inputs: jax.Array) -> jax.Array:
    """Bidirectional ``nn.LSTM`` of one layer, ``(time, ..., in)`` to ``(time, ..., 2 hidden)``."""
    forward = lstm(weights, layer, "l0", inputs)
    backward = lstm(weights, layer, "l0_reverse", inputs[::-1])[::-1]
    return jnp.concatenate((forward, backward), -1)


def lstm(weights: Weights, layer: str, name: str, inputs: jax.Array) -> jax.Array:
    """One direction of a recurrent layer."""
    bias = weights[f"{layer}.bias_ih_{name}"] + weights[f"{layer}.bias_hh_{name}"]
    driven = inputs @ weights[f"{layer}.weight_ih_{name}"].T + bias
    recurrent = weights[f"{layer}.weight_hh_{name}"].T
    start = jnp.zeros((*inputs.shape[1:-1], recurrent.shape[0]), inputs.dtype)

    def step(state: tuple[jax.Array, jax.Array], drive: jax.Array) -> Any:
        hidden, cell = state
        enter, forget, update, leave = jnp.split(drive + hidden @ recurrent, 4, -1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(update)
        hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
        return (hidden, cell), hidden

    return jax.lax.scan(step, (start, start), driven)[1]


def gru(weights: Weights, layer: str, inputs: jax.Array) -> jax.Array:
    """``nn.GRU`` of one layer, ``(time, ..., in)`` to ``(time, ..., hidden)``."""
    driven = inputs @ weights[f"{layer}.weight_ih_l0"].T + weights[f"{layer}.bias_ih_l0"]
    recurrent, bias = weights[f"{layer}.weight_hh_l0"].T, weights[f"{layer}.bias_hh_l0"]

    def step(state: jax.Array, drive: jax.Array) -> tuple[jax.Array, jax.Array]:
        reset, update, new = jnp.split(drive, 3, -1)
        reset_kept, update_kept, new_kept = jnp.split(state @ recurrent + bias, 3, -1)
        proposed = jnp.tanh(new + jax.nn.sigmoid(reset + reset_kept) * new_kept)
        kept = jax.nn.sigmoid(update + update_kept)
        state = (1 - kept) * proposed + kept * state
        return state, state

    start = jnp.zeros((*inputs.shape[1:-1], recurrent.shape[0]), inputs.dtype)
    return jax.lax.scan(step, start, driven)[1]
