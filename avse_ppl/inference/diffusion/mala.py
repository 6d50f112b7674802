"""Metropolis-adjusted Langevin chains of a few latents, a chain for each row of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.core.setup import RandomStreams

_ACCEPTED = 0.65  # share of moves that the step size is fitted to
_FIRST_PROBES = 4  # of the curvature; one a call after that
_PROBE = 0.1  # deviations that the gradients are compared over
_FLATTEST = 1e-2  # of the precision that the first scale stands for: the least that is believed


class MetropolisLangevin:
    r"""Draws from a density on the real line by Langevin moves that are accepted or refused.

    .. math:: u' \sim N\left(u + \tfrac{h}{2} P\, \nabla \log p(u),\; h P\right), \quad
        \alpha = \min\left(1, \frac{p(u')\, q(u | u')}{p(u)\, q(u' | u)}\right)

    so that a step size h that is too long costs moves, and not the draws' being right. P is the
    inverse of the diagonal of the curvature, from differences of gradients along random signs
    (Hutchinson's estimator); h is fitted to an acceptance of 0.65 in each row. Both are fitted
    ever less, as they must be for the draws to be of p.

    Parameters
    ----------
    start
        First values, ``(row, ...)``.
    scale
        First guess of standard deviations, of the same shapes.
    streams
        Random numbers of each row.

    References
    ----------
    Roberts and Rosenthal, "Optimal scaling of discrete approximations to Langevin diffusions",
    JRSS B 1998. Andrieu and Thoms, "A tutorial on adaptive MCMC", Statistics and Computing 2008.

    Examples
    --------
    >>> chain = MetropolisLangevin(
    ...     {"u": torch.zeros(2, 1)},
    ...     {"u": torch.ones(2, 1)},
    ...     RandomStreams(0, 2, torch.device("cpu")),
    ... )
    >>> law = torch.distributions.Normal(3.0, 0.01)
    >>> draws = []
    >>> for _ in range(500):
    ...     chain.move(lambda u: law.log_prob(u["u"]).sum(-1), 2)
    ...     draws.append(chain.values["u"])
    >>> 0.009 < float(torch.cat(draws[50:]).std()) < 0.011
    True
    """

    def __init__(self, start: Values, scale: Values, streams: RandomStreams) -> None:
        self.values = {name: value.detach().clone() for name, value in start.items()}
        self.scale = {name: value.detach().clone() for name, value in scale.items()}
        self.streams = streams
        self.precision: Values = {}
        self.probes = self.moves = 0
        rows = len(next(iter(start.values())))
        self.log_step = next(iter(start.values())).new_zeros(rows)

    def move(self, log_density: Callable[[Values], Tensor], moves: int) -> None:
        """Make so many moves in a density, which returns ``(row,)``."""
        for _ in range(_FIRST_PROBES if not self.precision else 1):
            self.update_precision(log_density)
        metric = {
            name: 1.0 / torch.maximum(p, _FLATTEST / self.scale[name].square())
            for name, p in self.precision.items()
        }
        density, slopes = differentiate(log_density, self.values)
        for _ in range(moves):
            step = self.log_step.exp()
            proposal, forth = {}, 0.0
            for name, u in self.values.items():
                spread = (align(step, u) * metric[name]).sqrt()
                unit = self.streams.normal(u.shape, u.dtype)
                proposal[name] = u + 0.5 * spread.square() * slopes[name] + spread * unit
                forth = forth - 0.5 * unit.square().flatten(1).sum(1)
            proposed, new_slopes = differentiate(log_density, proposal)
            back = 0.0
            for name, u in proposal.items():
                spread = (align(step, u) * metric[name]).sqrt()
                gap = (self.values[name] - u) / spread - 0.5 * spread * new_slopes[name]
                back = back - 0.5 * gap.square().flatten(1).sum(1)
            accepted = (proposed - density + back - forth).exp().clamp(max=1.0).nan_to_num(0.0)
            uniform = torch.special.ndtr(
                self.streams.normal((len(density), 1), density.dtype)[:, 0]
            )
            taken = uniform < accepted
            density = torch.where(taken, proposed, density)
            for name, u in proposal.items():
                row = align(taken, u)
                self.values[name] = torch.where(row, u, self.values[name])
                slopes[name] = torch.where(row, new_slopes[name], slopes[name])
            self.moves += 1
            self.log_step = self.log_step + (accepted - _ACCEPTED) * 2.0 * self.moves**-0.6

    def update_precision(self, log_density: Callable[[Values], Tensor]) -> None:
        """Update the running mean of the curvature's diagonal, later estimates counting more."""
        signs = {n: self.streams.normal(u.shape, u.dtype).sign() for n, u in self.values.items()}
        reach = {name: _PROBE * self.scale[name] * sign for name, sign in signs.items()}
        ahead, behind = (
            differentiate(log_density, {n: u + way * reach[n] for n, u in self.values.items()})[1]
            for way in (1.0, -1.0)
        )
        self.probes += 1
        for name in signs:
            found = (behind[name] - ahead[name]) / (2.0 * reach[name])
            past = self.precision.get(name, found)
            found = torch.where(torch.isfinite(found), found, past)
            self.precision[name] = past.lerp(found, 2.0 / (self.probes + 1))
            known = torch.maximum(self.precision[name], _FLATTEST / self.scale[name].square())
            self.scale[name] = torch.minimum(self.scale[name], known.rsqrt())


def differentiate(
    log_density: Callable[[Values], Tensor], at: Mapping[str, Tensor]
) -> tuple[Tensor, Values]:
    """Log density ``(row,)`` at a point, and its gradient."""
    points = {name: u.detach().requires_grad_() for name, u in at.items()}
    density = log_density(points)
    slopes = torch.autograd.grad(density.sum(), list(points.values()))
    return density.detach(), dict(zip(points, slopes, strict=True))


def align(rows: Tensor, like: Tensor) -> Tensor:
    """Numbers of rows, with the axes that it takes to broadcast with ``(row, ...)``."""
    return rows.reshape(-1, *[1] * (like.dim() - 1))
