"""Circular complex Gaussian for NumPyro; JAX counterpart of `complex_normal`."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints

_LOG_PI = math.log(math.pi)


class ComplexNormalJax(Distribution):
    r"""Circular complex Gaussian :math:`N_c(m, v)` on JAX.

    Parameters
    ----------
    mean, power
        As for `avse_ppl.ComplexNormal`, which gives one of these under NumPyro.

    Raises
    ------
    TypeError
        If an argument is not a number or a JAX array, as torch tensors are not.
    """

    arg_constraints = {"power": constraints.positive}  # noqa: RUF012
    support = constraints.complex  # pyright: ignore
    reparametrized_params = ["mean", "power"]  # noqa: RUF012

    def __init__(self, mean: Any, power: Any, validate_args: bool | None = None) -> None:
        self.zero_mean = isinstance(mean, (int, float, complex)) and mean == 0
        self.mean_value, self.power = jnp.asarray(mean), jnp.asarray(power)
        shape = jnp.broadcast_shapes(self.mean_value.shape, self.power.shape)
        super().__init__(shape, (), validate_args=validate_args)

    @property
    def mean(self) -> Any:
        """The mean, as given: not expanded to the batch shape."""
        return self.mean_value

    @property
    def variance(self) -> Any:
        """The power, under NumPyro's name."""
        return jnp.broadcast_to(self.power, self.batch_shape)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draw."""
        shape = tuple(sample_shape) + self.batch_shape
        kind = jnp.complex128 if self.power.dtype == jnp.float64 else jnp.complex64
        return self.mean + jnp.sqrt(self.power) * jax.random.normal(key, shape, kind)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """Log density at ``value``, with the batch shape."""
        residual = value if self.zero_mean else value - self.mean
        squared = jnp.real(residual) ** 2 + jnp.imag(residual) ** 2
        return -(jnp.log(self.power) + _LOG_PI) - squared / self.power

    def convolve(self, other: ComplexNormalJax) -> ComplexNormalJax:
        r"""Law of the sum: :math:`N_c(m_1 + m_2, v_1 + v_2)`."""
        mean = 0.0 if self.zero_mean and other.zero_mean else self.mean + other.mean
        return ComplexNormalJax(mean, self.power + other.power)
