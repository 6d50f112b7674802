r"""Adam, as the inference methods use it.

The numbers are those of ``torch.optim.Adam``, to the bit on a CPU. That class imports torch's
compiler when it is first made, which takes longer than the inference of a short recording.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_EPSILON = 1e-8


class Adam:
    r"""Adam with a learning rate for each step.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
        \theta \leftarrow \theta - \eta\, \frac{m / (1 - \beta_1^k)}{\sqrt{v / (1 - \beta_2^k)} +
        \epsilon}

    Parameters
    ----------
    parameters
        Tensors, changed in place; those without a gradient stay as they are.
    betas
        :math:`\beta_1, \beta_2`.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    Examples
    --------
    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> adam = Adam([x], betas=(0.9, 0.99))
    >>> for _ in range(200):
    ...     adam.clear_gradients()
    ...     x.square().sum().backward()
    ...     adam.step(0.1)
    >>> bool(x.abs() < 0.1)
    True
    """

    def __init__(self, parameters: Iterable[Tensor], betas: tuple[float, float]) -> None:
        self.parameters, self.betas = list(parameters), betas
        self.moments: dict[int, tuple[Tensor, Tensor, int]] = {}

    def clear_gradients(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float | Tensor) -> None:
        r"""Move the parameters against their gradients; ``learning_rate`` is :math:`\eta`.

        A tensor has a rate for each row of the parameters.
        """
        one, two = self.betas
        for i, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            zeros = torch.zeros_like
            first, second, count = self.moments.get(i) or (zeros(parameter), zeros(parameter), 0)
            count += 1
            first.lerp_(parameter.grad, 1 - one)
            second.mul_(two).addcmul_(parameter.grad, parameter.grad, value=1 - two)
            scale = (second.sqrt() / (1 - two**count) ** 0.5).add_(_EPSILON)
            rate = learning_rate / (1 - one**count)
            if isinstance(rate, Tensor):
                rows = rate.reshape(-1, *[1] * (parameter.ndim - 1))
                parameter.sub_(rows * first / scale)
            else:
                parameter.addcdiv_(first, scale, value=-rate)
            self.moments[i] = first, second, count
