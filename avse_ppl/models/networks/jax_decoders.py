"""The decoders of the learned priors as functions of JAX arrays.

Each takes the torch module's own weights, so that both sides read one safetensors file, and maps
``(..., latent, time)`` to log power ``(..., freq, time)``. Tests hold the two sides against each
other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from torch import nn

from avse_ppl.models.networks.rvae import RvaeNetwork
from avse_ppl.models.networks.tcvae import HIGHEST, LOWEST, TcvaeNetwork
from avse_ppl.models.networks.vae import VaeNetwork

Weights = Mapping[str, jax.Array]


def jax_decoder(network: Any) -> Callable[[jax.Array], jax.Array]:
    """Return the decoder of a network, its weights as constants.

    Raises
    ------
    NotImplementedError
        If there is none for networks of this type.

    Examples
    --------
    >>> decode = jax_decoder(VaeNetwork(freq=33, latent=4, hidden=(16,)))
    >>> decode(jnp.zeros((4, 10))).shape
    (33, 10)
    """
    for kind, function in _DECODERS:
        if isinstance(network, kind):
            return lambda z: function(_weights(network, z.dtype), z)
    raise NotImplementedError(
        f"{type(network).__name__} has no decoder on JAX; use a torch routine, such as "
        "inference='nuts', or write one beside those of avse_ppl.models.networks.jax_decoders"
    )


def _weights(network: nn.Module, dtype: Any) -> Weights:
    return {
        name: jnp.asarray(value.detach().cpu().numpy(), dtype=dtype)
        for name, value in network.state_dict().items()
        if name.startswith("decoder")
    }


def _vae(weights: Weights, z: jax.Array) -> jax.Array:
    layers = sum(name.startswith("decoder.") for name in weights) // 2
    hidden = jnp.moveaxis(z, -1, -2)
    for i in range(layers):  # torch counts the nonlinearities in between
        hidden = jnp.tanh(_linear(weights, f"decoder.{2 * i}", hidden))
    return jnp.moveaxis(_linear(weights, "decoder_logpower", hidden), -1, -2)


def _rvae(weights: Weights, z: jax.Array) -> jax.Array:
    inputs = jnp.moveaxis(z, -1, 0)  # time first, for the scan
    forward = _lstm(weights, "decoder", "l0", inputs)
    backward = _lstm(weights, "decoder", "l0_reverse", inputs[::-1])[::-1]
    hidden = jnp.concatenate((forward, backward), -1)
    return jnp.moveaxis(_linear(weights, "decoder_logpower", hidden), 0, -1)


def _lstm(weights: Weights, layer: str, name: str, inputs: jax.Array) -> jax.Array:
    """One direction of a recurrent layer, ``(time, ..., latent)`` to ``(time, ..., hidden)``."""
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


def _tcvae(weights: Weights, z: jax.Array) -> jax.Array:
    blocks = sum(name.startswith("decoder.") and name.endswith("conv.bias") for name in weights)
    hidden = _convolve(weights, "decoder_latent", z, 1)
    for b in range(blocks):
        inner = jax.nn.gelu(hidden, approximate=False)
        hidden = hidden + _convolve(weights, f"decoder.{b}.conv", inner, 2**b)
    hidden = jax.nn.gelu(hidden, approximate=False)
    return jnp.clip(_convolve(weights, "decoder_logpower", hidden, 1), LOWEST, HIGHEST)


def _convolve(weights: Weights, name: str, x: jax.Array, dilation: int) -> jax.Array:
    """Convolution over time as matrix products of shifted inputs: fast on a CPU."""
    kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    width, time = kernel.shape[-1], x.shape[-1]
    reach = dilation * (width // 2)
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(reach, reach)])
    shifted = [padded[..., k * dilation : k * dilation + time] for k in range(width)]
    stacked = jnp.concatenate(shifted, -2)
    flat = jnp.moveaxis(kernel, -1, 1).reshape(kernel.shape[0], -1)
    return flat @ stacked + bias[:, None]


def _linear(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


_DECODERS = ((VaeNetwork, _vae), (RvaeNetwork, _rvae), (TcvaeNetwork, _tcvae))
