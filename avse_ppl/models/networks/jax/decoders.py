"""The decoders of the learned priors as functions of JAX arrays.

Each takes the torch module's own weights, so that both sides read one safetensors file, and maps
``(..., latent, time)`` to log power ``(..., freq, time)``. Tests hold the two sides against each
other.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from torch import nn

from avse_ppl.models.networks.jax.layers import Weights, convolve, linear, lstm_both_ways
from avse_ppl.models.networks.jax.published import (
    decode_avvae,
    decode_dkf,
    law_of_avvae,
    law_of_dkf,
)
from avse_ppl.models.networks.jax.sequential import decode_sequential, law_of
from avse_ppl.models.networks.published_av_vae import PublishedAvVaeNetwork
from avse_ppl.models.networks.published_dkf import PublishedDkfNetwork
from avse_ppl.models.networks.rvae import RvaeNetwork
from avse_ppl.models.networks.sequential import SequentialVaeNetwork
from avse_ppl.models.networks.tcvae import HIGHEST, LOWEST, TcvaeNetwork
from avse_ppl.models.networks.vae import VaeNetwork


def jax_decoder(network: Any) -> Callable[..., jax.Array]:
    """Return the decoder of a network, its weights as constants.

    That of an audio-visual network takes visual features, ``(..., 1 + feature, time)``, as a
    second argument.

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
    if isinstance(network, SequentialVaeNetwork):
        return lambda z, visual=None: decode_sequential(
            network, convert_weights(network, z.dtype), z, visual, decode_residual
        )
    for kind, (decode, _) in _PUBLISHED.items():
        if isinstance(network, kind):
            return lambda z, visual=None: decode(convert_weights(network, z.dtype), z, visual)
    for kind, function in _DECODERS:
        if type(network) is kind:  # what is built on one decodes in its own way
            return lambda z: function(convert_weights(network, z.dtype), z)
    raise NotImplementedError(
        f"{type(network).__name__} has no decoder on JAX; use a torch method, such as "
        "the method 'nuts', or write one beside those of avse_ppl.models.networks.jax.decoders"
    )


def jax_law(network: Any) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Return the prior law of a network's latents, its weights as constants."""
    for kind, (_, law) in _PUBLISHED.items():
        if isinstance(network, kind):
            return lambda z, visual=None: law(convert_weights(network, z.dtype), z, visual)
    return lambda z, visual=None: law_of(network, convert_weights(network, z.dtype), z, visual)


def convert_weights(network: nn.Module, dtype: Any) -> Weights:
    """Weights of a network as JAX arrays, but for those of its encoder."""
    return {
        name: jnp.asarray(value.detach().cpu().numpy(), dtype=dtype)
        for name, value in network.state_dict().items()
        if not name.startswith("encoder")
    }


def decode_vae(weights: Weights, z: jax.Array) -> jax.Array:
    """Decoder of a `VaeNetwork`."""
    layers = sum(name.startswith("decoder.") for name in weights) // 2
    hidden = jnp.moveaxis(z, -1, -2)
    for i in range(layers):  # torch counts the nonlinearities in between
        hidden = jnp.tanh(linear(weights, f"decoder.{2 * i}", hidden))
    return jnp.moveaxis(linear(weights, "decoder_logpower", hidden), -1, -2)


def decode_rvae(weights: Weights, z: jax.Array) -> jax.Array:
    """Decoder of an `RvaeNetwork`."""
    hidden = lstm_both_ways(weights, "decoder", jnp.moveaxis(z, -1, 0))  # time first
    return jnp.moveaxis(linear(weights, "decoder_logpower", hidden), 0, -1)


def decode_tcvae(weights: Weights, z: jax.Array) -> jax.Array:
    """Decoder of a `TcvaeNetwork`."""
    hidden = convolve(weights, "decoder_latent", z, 1)
    return jnp.clip(decode_residual(weights, hidden), LOWEST, HIGHEST)


def decode_residual(weights: Weights, hidden: jax.Array) -> jax.Array:
    """The convolutional decoder after its first layer."""
    blocks = sum(name.startswith("decoder.") and name.endswith("conv.bias") for name in weights)
    for b in range(blocks):
        inner = jax.nn.gelu(hidden, approximate=False)
        hidden = hidden + convolve(weights, f"decoder.{b}.conv", inner, 2**b)
    return convolve(weights, "decoder_logpower", jax.nn.gelu(hidden, approximate=False), 1)


_DECODERS = ((VaeNetwork, decode_vae), (RvaeNetwork, decode_rvae), (TcvaeNetwork, decode_tcvae))
_PUBLISHED = MappingProxyType(
    {
        PublishedDkfNetwork: (decode_dkf, law_of_dkf),
        PublishedAvVaeNetwork: (decode_avvae, law_of_avvae),
    }
)
