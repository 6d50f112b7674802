"""JAX counterpart of `avse_ppl.models.speech.latent_sequence`."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints

from avse_ppl.models.networks.jax.decoders import jax_law
from avse_ppl.models.visual.gate import Switched
from avse_ppl.models.visual.switch_jax import evidence_jax
from avse_ppl.signal.stft import Frames

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class SequencePriorJax(Distribution):
    """`SequencePrior` on JAX: a density, which is all that a sampler needs.

    Parameters
    ----------
    network
        A `SequentialVaeNetwork` of torch, whose weights are taken over.
    frames, visual
        The grid, and visual features or None; or `Switched`.
    """

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real  # pyright: ignore

    def __init__(self, network: Any, frames: Frames, visual: Any) -> None:
        self.law, self.visual, self.dtype = jax_law(network), visual, frames.dtype
        super().__init__((1, network.latent, frames.time), (), validate_args=False)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Refuse: draws of a prior are made on torch."""
        raise NotImplementedError(
            "draws of a dynamical prior are made on torch; simulate with the torch backend"
        )

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """Log density of each entry given its past, with the batch shape."""
        flat = value.reshape(-1, *value.shape[-2:])
        if not isinstance(self.visual, Switched):
            return self._normal(flat, self.visual).reshape(value.shape)
        both = [self._normal(flat, given).sum(1) for given in (None, self.visual.visual)]
        frames = evidence_jax(jnp.stack(both, -1), self.visual.switch)
        return jnp.broadcast_to(frames[:, None] / flat.shape[1], flat.shape).reshape(value.shape)

    def _normal(self, z: Any, visual: Any) -> Any:
        mean, logvar = self.law(z, visual)
        return -0.5 * (logvar + jnp.square(z - mean) * jnp.exp(-logvar)) - _HALF_LOG_2PI
