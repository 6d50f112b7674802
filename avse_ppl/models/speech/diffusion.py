"""Diffusions (SDEs) of score priors, and the noise levels of a reverse run.

A denoiser knows one thing: clean values c under noise, ``y = c + sigma eps``. Every diffusion with
a Gaussian kernel, ``s_t = d_t c + sig_t eps``, is that up to a factor, ``y = s_t / d_t`` with
``sigma = sig_t / d_t``: which one was trained with, and which one is run, do not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from avse_ppl.models.protocols import Denoiser
from avse_ppl.models.validation import check_count, check_positive


class Sde(Protocol):
    r"""Diffusion :math:`ds = -\tfrac12 f_t s\,dt + g_t\,dw` from clean at t = 0 to noise at 1."""

    def scale(self, t: float) -> float:
        """Return d, what is left of the clean values at time t."""
        ...

    def marginal_sd(self, t: float) -> float:
        """Return sig, standard deviation of the (complex) noise at time t."""
        ...

    def decay(self, t: float) -> float:
        """Return f / 2, the rate at which values shrink."""
        ...

    def diffusion(self, t: float) -> float:
        """Return g."""
        ...


@dataclass(frozen=True)
class Ouve:
    r"""Ornstein-Uhlenbeck drift, exploding variance.

    .. math:: ds = -\gamma s\,dt + g(t)\,dw, \quad g(t) = \sigma_0 (\sigma_1 / \sigma_0)^t
        \sqrt{2 \log(\sigma_1 / \sigma_0)}

    Parameters
    ----------
    stiffness
        :math:`\gamma`.
    low, high
        :math:`\sigma_0` and :math:`\sigma_1`.

    References
    ----------
    Richter et al., "Speech enhancement and dereverberation with diffusion-based generative models",
    TASLP 2023; Nortier et al., ICASSP 2024.

    Examples
    --------
    >>> round(Ouve().scale(1.0), 3), round(Ouve().marginal_sd(1.0), 3)
    (0.223, 0.389)
    """

    stiffness: float = 1.5
    low: float = 0.05
    high: float = 0.5

    def __post_init__(self) -> None:
        check_positive("stiffness", self.stiffness)
        check_positive("low", self.low)
        if not self.high > self.low:
            raise ValueError(f"high must be above low={self.low:g}, found {self.high!r}")

    def scale(self, t: float) -> float:
        """See `Sde`."""
        return math.exp(-self.stiffness * t)

    def marginal_sd(self, t: float) -> float:
        """See `Sde`."""
        log = math.log(self.high / self.low)
        grown = math.exp(2 * log * t) - math.exp(-2 * self.stiffness * t)
        return self.low * math.sqrt(grown * log / (self.stiffness + log))

    def decay(self, t: float) -> float:
        """See `Sde`."""
        return self.stiffness

    def diffusion(self, t: float) -> float:
        """See `Sde`."""
        log = math.log(self.high / self.low)
        return self.low * math.exp(log * t) * math.sqrt(2 * log)


@dataclass(frozen=True)
class Vp:
    r"""Variance preserving.

    .. math:: ds = -\tfrac12 \beta(t) s\,dt + \sqrt{\beta(t)}\,dw, \quad
        \beta(t) = \beta_0 + t (\beta_1 - \beta_0)

    Parameters
    ----------
    low, high
        :math:`\beta_0` and :math:`\beta_1`.

    References
    ----------
    Song et al., "Score-based generative modeling through stochastic differential equations", ICLR
    2021.

    Examples
    --------
    >>> sde = Vp()
    >>> round(sde.scale(0.5) ** 2 + sde.marginal_sd(0.5) ** 2, 6)
    1.0
    """

    low: float = 0.1
    high: float = 8.0

    def __post_init__(self) -> None:
        check_positive("low", self.low)
        if not self.high > self.low:
            raise ValueError(f"high must be above low={self.low:g}, found {self.high!r}")

    def scale(self, t: float) -> float:
        """See `Sde`."""
        return math.exp(-0.5 * (self.low * t + 0.5 * (self.high - self.low) * t**2))

    def marginal_sd(self, t: float) -> float:
        """See `Sde`."""
        return math.sqrt(1.0 - self.scale(t) ** 2)

    def decay(self, t: float) -> float:
        """See `Sde`."""
        return 0.5 * (self.low + t * (self.high - self.low))

    def diffusion(self, t: float) -> float:
        """See `Sde`."""
        return math.sqrt(self.low + t * (self.high - self.low))


def noise_levels(high: float, low: float, steps: int, rho: float = 7.0) -> list[float]:
    r"""Noise levels from high to low, crowded towards the low end.

    .. math:: \sigma_i = \left(\sigma_0^{1/\rho} + \tfrac{i}{n - 1}
        (\sigma_{n-1}^{1/\rho} - \sigma_0^{1/\rho})\right)^\rho

    Parameters
    ----------
    high, low
        First and last.
    steps
        n.
    rho
        :math:`\rho`.

    References
    ----------
    Karras et al., NeurIPS 2022.

    Examples
    --------
    >>> [round(level, 2) for level in noise_levels(4.0, 0.1, 4)]
    [4.0, 1.43, 0.43, 0.1]
    """
    check_count("steps", steps)
    places = torch.linspace(0, 1, steps, dtype=torch.float64)
    ends = high ** (1 / rho), low ** (1 / rho)
    return [float((ends[0] + place * (ends[1] - ends[0])) ** rho) for place in places]


def renoising_coefficients(sigma: float, lower: float, memory: float) -> tuple[float, float]:
    r"""Share :math:`\kappa` of the noise that is kept at the next level, and level of the fresh.

    .. math:: \kappa = \eta\, \sigma' / \sigma, \qquad \sqrt{\sigma'^2 - \kappa^2 \sigma^2}

    Where a level is repeated, :math:`\kappa = \eta / 2`: kept as a whole, nothing would move.

    Examples
    --------
    >>> renoising_coefficients(1.0, 0.6, 1.0), renoising_coefficients(1.0, 0.6, 0.0)
    ((0.6, 0.0), (0.0, 0.6))
    """
    kept = memory * (lower / sigma if lower < sigma else 0.5)
    return kept, math.sqrt(max(lower**2 - (kept * sigma) ** 2, 0.0))


def denoises(speech: Any) -> bool:
    """Whether a speech prior is one that denoises spectrograms."""
    return isinstance(speech, Denoiser)
