"""Correlations of a guide: none, chains over time, or a few directions common to all latents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from avse_ppl.inference.core.setup import RandomStreams

_ENTRIES = 100.0  # of a direction that may move at the learning rate


class Correlation(Protocol):
    """Law of x, normal with mean 0, ``(recording, latent)``."""

    @property
    def name(self) -> str:
        """What ``posterior.kind`` says of it; empty for none."""
        ...

    @property
    def rate(self) -> float:
        """Learning rate of its parameters, times that of locations and scales."""
        ...

    def parameters(self) -> list[Tensor]:
        """What is fitted."""
        ...

    def fixed(self) -> Correlation:
        """Return the same law as a constant, through which no gradient flows."""
        ...

    def draw(self, unit: Tensor, randoms: RandomStreams) -> Tensor:
        """X from standard-normal numbers ``(recording, latent)``, and more if need be."""
        ...

    def log_det(self) -> Tensor | float:
        """Half the log determinant of the covariance of x, ``(recording,)``."""
        ...

    def quadratic(self, x: Tensor) -> Tensor:
        """``x^T C^{-1} x`` with the covariance C of x, ``(recording,)``."""
        ...


@dataclass(frozen=True)
class Independent:
    """No correlations: the mean field.

    Examples
    --------
    >>> Independent().quadratic(torch.ones(2, 5))
    tensor([5., 5.])
    """

    name: str = ""
    rate: float = 1.0

    def parameters(self) -> list[Tensor]:
        """Return nothing."""
        return []

    def fixed(self) -> Independent:
        """Return itself."""
        return self

    def draw(self, unit: Tensor, randoms: RandomStreams) -> Tensor:
        """Return the standard-normal numbers."""
        return unit

    def log_det(self) -> float:
        """Return 0."""
        return 0.0

    def quadratic(self, x: Tensor) -> Tensor:
        """Sum of squares."""
        return x.square().sum(1)


@dataclass(frozen=True)
class Markov:
    r"""A chain over time for each latent that has a value for each frame; others independent.

    .. math:: x_t = \rho_t x_{t-1} + \sqrt{1 - \rho_t^2}\, \epsilon_t, \quad
        \rho_t = \tanh r_t, \quad \tfrac12 \log |C| = \tfrac12 \sum_t \log(1 - \rho_t^2)

    Every normal law in which a frame depends on the past through the frame before it, which is
    every one with a tridiagonal precision. Each :math:`x_t` has unit variance. Time and memory are
    linear in the number of frames.

    Parameters
    ----------
    r
        ``(recording, chain, time - 1)``; the chains are the first part of the vector.

    References
    ----------
    Archer, Park, Buesing, Cunningham and Paninski, "Black box variational inference for state
    space models", 2015. Tan and Nott, "Gaussian variational approximation with sparse precision
    matrices", Statistics and Computing 2018.

    Examples
    --------
    >>> chain = Markov(torch.zeros(1, 1, 2))  # three frames, rho = 0; then another latent
    >>> chain.quadratic(torch.tensor([[1.0, 0.5, 0.5, 2.0]]))
    tensor([5.5000])
    """

    r: Tensor
    name: str = "structured guide"
    rate: float = 3.0

    def parameters(self) -> list[Tensor]:
        """Return r."""
        return [self.r]

    def fixed(self) -> Markov:
        """Return the same law as a constant."""
        return Markov(self.r.detach())

    def draw(self, unit: Tensor, randoms: RandomStreams) -> Tensor:
        """Run the chains from standard-normal numbers."""
        rho, log_spread = self._rho()
        timed, rest = self._parts(unit)
        spread = pad(log_spread, (1, 0)).exp()
        chains = linear_recurrence(pad(rho, (1, 0)), spread * timed)
        return torch.cat([chains.flatten(1), rest], dim=1)

    def log_det(self) -> Tensor:
        """Sum of log conditional deviations."""
        return self._rho()[1].flatten(1).sum(1)

    def quadratic(self, x: Tensor) -> Tensor:
        """Sum of squares of what drove the chains."""
        rho, log_spread = self._rho()
        timed, rest = self._parts(x)
        steps = (timed[..., 1:] - rho * timed[..., :-1]) / log_spread.exp()
        first = timed[..., 0].square().sum(1)
        return first + steps.square().flatten(1).sum(1) + rest.square().sum(1)

    def _rho(self) -> tuple[Tensor, Tensor]:
        """Correlation with the frame before, and log of the deviation that it leaves."""
        # log sqrt(1 - tanh(r)^2), without cancellation where r is large.
        log_spread = math.log(2) - self.r - softplus(-2 * self.r)
        return self.r.tanh(), log_spread

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        chains, time = self.r.shape[1], self.r.shape[2] + 1
        return x[:, : chains * time].unflatten(1, (chains, time)), x[:, chains * time :]


@dataclass(frozen=True)
class LowRank:
    r"""A few directions common to all latents, on top of independent ones.

    .. math:: x = \epsilon + F \eta, \quad F = V\, s_0 / s, \quad C = I + F F^T, \quad
        \log |C| = \log |I + F^T F|, \quad C^{-1} = I - F (I + F^T F)^{-1} F^T

    The directions are in units of the scales :math:`s_0` of the start, so that they stay what they
    are as the scale s of what is independent shrinks.

    Parameters
    ----------
    directions
        V, ``(recording, latent, rank)``.
    log_sd, log_start
        :math:`\log s` and :math:`\log s_0`, ``(recording, latent)``.

    References
    ----------
    Ong, Nott and Smith, "Gaussian variational approximation with a factor covariance structure",
    Journal of Computational and Graphical Statistics 2018.

    Examples
    --------
    >>> pair = LowRank(torch.ones(1, 2, 1), torch.zeros(1, 2), torch.zeros(1, 2))
    >>> pair.log_det() * 2, pair.quadratic(torch.tensor([[1.0, 1.0]]))  # C = [[2, 1], [1, 2]]
    (tensor([1.0986]), tensor([0.6667]))
    """

    directions: Tensor
    log_sd: Tensor
    log_start: Tensor
    name: str = "low-rank guide"

    @property
    def rate(self) -> float:
        """Slower for many latents: Adam moves also those entries whose gradient is noise."""
        return min(3.0, _ENTRIES / self.directions.shape[1])

    def parameters(self) -> list[Tensor]:
        """Return V."""
        return [self.directions]

    def fixed(self) -> LowRank:
        """Return the same law as a constant."""
        return LowRank(self.directions.detach(), self.log_sd.detach(), self.log_start)

    def draw(self, unit: Tensor, randoms: RandomStreams) -> Tensor:
        """Add the common directions to standard-normal numbers."""
        recordings, _, rank = self.directions.shape
        common = randoms.normal((recordings, rank, 1), unit.dtype)
        return unit + (self._factors() @ common).squeeze(2)

    def log_det(self) -> Tensor:
        """By the determinant lemma."""
        return _cholesky(self._factors()).diagonal(dim1=1, dim2=2).log().sum(1)

    def quadratic(self, x: Tensor) -> Tensor:
        """By Woodbury's identity."""
        factors = self._factors()
        inner = factors.mT @ x[:, :, None]
        whitened = torch.linalg.solve_triangular(_cholesky(factors), inner, upper=False)
        return x.square().sum(1) - whitened.square().flatten(1).sum(1)

    def _factors(self) -> Tensor:
        return self.directions * (self.log_start - self.log_sd).exp()[:, :, None]


def _cholesky(factors: Tensor) -> Tensor:
    """Lower factor of ``I + F^T F``."""
    inner = factors.mT @ factors
    return torch.linalg.cholesky(inner + torch.eye(inner.shape[-1]).to(inner))


def linear_recurrence(factor: Tensor, drive: Tensor) -> Tensor:
    r"""Solve :math:`x_t = a_t x_{t-1} + b_t` with :math:`x_{-1} = 0`, along the last dimension.

    Every other step is eliminated, again and again: as many operations as a loop, but in
    ``log2(time)`` rounds.

    Parameters
    ----------
    factor, drive
        a and b, ``(..., time)``.

    Examples
    --------
    >>> linear_recurrence(torch.full((4,), 0.5), torch.tensor([8.0, 0.0, 0.0, 1.0]))
    tensor([8., 4., 2., 2.])
    """
    time = drive.shape[-1]
    if time == 1:
        return drive
    first, second = drive[..., 0 : time - 1 : 2], drive[..., 1::2]
    later = factor[..., 1::2]
    odd = linear_recurrence(
        later * factor[..., 0 : time - 1 : 2], torch.addcmul(second, later, first)
    )
    before = pad(odd, (1, 0))[..., : (time + 1) // 2]
    even = torch.addcmul(drive[..., ::2], factor[..., ::2], before)
    if time % 2:
        odd = pad(odd, (0, 1))
    return torch.stack([even, odd], dim=-1).flatten(-2)[..., :time]
