"""Decoders of the learned priors on torch or JAX, from the same weights."""

from __future__ import annotations

from typing import Any

from avse_ppl.distributions.backend import on_jax


def decode(network: Any, z: Any, visual: Any = None) -> Any:
    """Decode ``(..., latent, time)`` to log power ``(..., freq, time)`` by torch or by JAX.

    ``visual`` is what is seen, ``(..., 1 + feature, time)``, for networks that see.

    Raises
    ------
    NotImplementedError
        If the network has no decoder on JAX.
    """
    if not on_jax():
        return network.decode(z) if visual is None else network.decode(z, visual)
    from avse_ppl.models.networks.jax.decoders import jax_decoder

    return jax_decoder(network)(z) if visual is None else jax_decoder(network)(z, visual)
