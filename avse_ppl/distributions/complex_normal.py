"""Circular complex Gaussian distribution, that of every STFT coefficient given the latents."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, kl

from avse_ppl.distributions.backend import on_jax

_LOG_PI = math.log(math.pi)


class ComplexNormal(TorchDistribution):
    r"""Circular complex Gaussian :math:`N_c(m, v)`.

    .. math:: \log p(x) = -\log(\pi v) - |x - m|^2 / v

    Under NumPyro, the same call gives its twin on JAX.

    Parameters
    ----------
    mean
        :math:`m`, complex or real, any shape. A plain ``0.0`` is the common zero-mean case.
    power
        :math:`v = E|x - m|^2 > 0`, real, broadcastable with ``mean``.

    Raises
    ------
    TypeError
        If ``power`` is complex.
    ValueError
        If ``mean`` and ``power`` do not broadcast or, when arguments are validated, if ``power``
        is not positive.

    References
    ----------
    Neeser and Massey, "Proper complex random processes with applications to information theory",
    IEEE Trans. Inf. Theory, 1993.

    Examples
    --------
    >>> noise = ComplexNormal(0.0, torch.ones(513, 100))
    >>> speech = ComplexNormal(0.0, 3.0 * torch.ones(513, 1))
    >>> mixture = speech.convolve(noise)
    >>> tuple(mixture.batch_shape), float(mixture.power[0, 0])
    ((513, 100), 4.0)
    """

    # torch declares both as properties and overrides them in just this way.
    arg_constraints = {"power": constraints.positive}  # noqa: RUF012  # pyright: ignore
    # Complex numbers pass torch's check of this constraint.
    support = constraints.real  # pyright: ignore
    has_rsample = True

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Take the side of the program that is running."""
        if on_jax():
            from avse_ppl.distributions.complex_normal_jax import ComplexNormalJax

            return ComplexNormalJax(*args, **kwargs)
        return super().__new__(cls)

    def __init__(
        self, mean: Tensor | complex, power: Tensor | float, validate_args: bool | None = None
    ) -> None:
        if isinstance(power, Tensor) and power.is_complex():
            raise TypeError("power must be real (it is E|x - mean|^2), found a complex tensor")
        self.power = torch.as_tensor(power, dtype=None if isinstance(power, Tensor) else _real())
        self.zero_mean = not isinstance(mean, Tensor) and mean == 0
        if not isinstance(mean, Tensor):
            mean = self.power.new_tensor(mean, dtype=_kind(mean, self.power))
        self._mean = mean
        super().__init__(_common_shape(mean, self.power), torch.Size(), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The mean, as given: not expanded to the batch shape."""
        return self._mean

    @property
    def variance(self) -> Tensor:
        """The power, under torch's name."""
        return self.power.expand(self.batch_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ComplexNormal:
        """Return the same law with a larger batch shape."""
        mean = 0.0 if self.zero_mean else self.mean.expand(batch_shape)
        return ComplexNormal(mean, self.power.expand(batch_shape), validate_args=False)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draw, differentiably."""
        shape = torch.Size(sample_shape) + self.batch_shape
        unit = torch.randn(shape, dtype=_complex(self.power), device=self.power.device)
        return self.mean + self.power.sqrt() * unit

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density at ``value``, with the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        residual = value if self.zero_mean else value - self.mean
        square = _SquaredMagnitude.apply if residual.is_complex() else torch.square
        return _LogDensity.apply(square(residual), self.power)

    def entropy(self) -> Tensor:
        r"""Differential entropy :math:`\log(\pi e v)`."""
        return (1.0 + math.log(math.pi) + self.power.log()).expand(self.batch_shape)

    def convolve(self, other: ComplexNormal) -> ComplexNormal:
        r"""Law of the sum: :math:`N_c(m_1 + m_2, v_1 + v_2)`."""
        power = self.power + other.power
        if self.zero_mean or other.zero_mean:
            mean = other.mean if self.zero_mean else self.mean
            return ComplexNormal(0.0 if self.zero_mean and other.zero_mean else mean, power)
        return ComplexNormal(self.mean + other.mean, power)

    def condition(self, noise: ComplexNormal, mixture: Tensor) -> ComplexNormal:
        r"""Wiener posterior of a draw of this law, given its sum with ``noise``.

        .. math:: s | x \sim N_c\left(m_s + G (x - m_s - m_b),\; G v_b\right),
            \quad G = v_s / (v_s + v_b)
        """
        gain = self.power / (self.power + noise.power)
        residual = mixture
        if not (self.zero_mean and noise.zero_mean):
            residual = mixture - self.mean - noise.mean
        return ComplexNormal(self.mean + gain * residual, gain * noise.power, validate_args=False)


def _common_shape(mean: Tensor, power: Tensor) -> torch.Size:
    """Shape of the law; torch's own broadcasting takes longer than the rest of the law."""
    if mean.dim() == 0 or mean.shape == power.shape:
        return power.shape
    try:
        return torch.Size(np.broadcast_shapes(mean.shape, power.shape))
    except ValueError:
        raise ValueError(
            f"mean of shape {tuple(mean.shape)} and power of shape "
            f"{tuple(power.shape)} do not broadcast"
        ) from None


class _SquaredMagnitude(torch.autograd.Function):
    """``|r|^2`` of complex values, of which autograd takes a view of either part at a time."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.real.square() + values.imag.square()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Tensor:
        (values,) = ctx.saved_tensors
        parts = torch.view_as_real(values) * (2.0 * grad_outputs[0])[..., None]
        return torch.view_as_complex(parts)


class _LogDensity(torch.autograd.Function):
    """``-log(pi v) - r / v`` with its gradient, in fewer passes over memory than autograd takes."""

    @staticmethod
    def forward(ctx: Any, squared: Tensor, power: Tensor) -> Tensor:
        ratio = squared / power
        ctx.save_for_backward(ratio, squared, power)
        ctx.shapes = squared.shape, power.shape
        return -(power.log() + _LOG_PI) - ratio

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, Tensor | None]:
        ratio, squared, power = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative: the saved ratio would be a constant
            ratio = squared / power
        scaled = grad_outputs[0] / power
        of_squared = -scaled if ctx.needs_input_grad[0] else None
        of_power = scaled * (ratio - 1.0) if ctx.needs_input_grad[1] else None
        return _fit(of_squared, ctx.shapes[0]), _fit(of_power, ctx.shapes[1])


def _real() -> torch.dtype:
    return torch.get_default_dtype()


def _complex(power: Tensor) -> torch.dtype:
    return torch.complex128 if power.dtype == torch.float64 else torch.complex64


def _kind(mean: complex, power: Tensor) -> torch.dtype:
    return _complex(power) if isinstance(mean, complex) else power.dtype


def _fit(gradient: Tensor | None, shape: torch.Size) -> Tensor | None:
    """Sum a gradient over the dimensions that were broadcast."""
    return None if gradient is None else gradient.sum_to_size(shape)


@kl.register_kl(ComplexNormal, ComplexNormal)
def _kl_complex_normal(p: ComplexNormal, q: ComplexNormal) -> Tensor:
    """``log(v_q / v_p) + (v_p + |m_p - m_q|^2) / v_q - 1``."""
    gap = (p.mean - q.mean).abs().square()
    ratio = p.power / q.power
    return ratio - 1.0 - ratio.log() + gap / q.power


def is_complex_normal(value: object) -> bool:
    """Whether a value is a `ComplexNormal` of the side that is running, torch or JAX.

    Examples
    --------
    >>> is_complex_normal(ComplexNormal(0.0, 1.0)), is_complex_normal(1.0)
    (True, False)
    """
    if on_jax():
        from avse_ppl.distributions.complex_normal_jax import ComplexNormalJax

        return isinstance(value, ComplexNormalJax)
    return isinstance(value, ComplexNormal)
