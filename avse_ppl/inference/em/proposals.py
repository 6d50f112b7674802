"""Proposal distributions of Metropolis steps: a random walk, and a Langevin step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.em.frame_density import FrameLogProb

_DECAY = 0.98  # of the running mean of squared gradients


class Proposal(Protocol):
    """Proposal distribution: draws, and their log density.

    ``sizes`` hold a step size for each entry, 0 for what does not change.
    """

    gradients: bool

    def draw(self, x: Values, here: FrameLogProb, sizes: Values, unit: Values) -> Values:
        """Propose from ``x`` by the standard-normal numbers ``unit``."""
        ...

    def log_density(self, to: Values, x: Values, here: FrameLogProb, sizes: Values) -> Values:
        """Log density of ``to`` given ``x``, by entry, up to a constant; empty if symmetric."""
        ...

    def learn(self, here: FrameLogProb) -> None:
        """Adapt to a state; only called during burn-in."""
        ...


class RandomWalk:
    r""":math:`u' = u + h \sigma \xi`, with :math:`\sigma` a guess of each latent's deviation.

    References
    ----------
    Roberts, Gelman and Gilks, "Weak convergence and optimal scaling of random walk Metropolis
    algorithms", Annals of Applied Probability 1997.
    """

    gradients = False

    def __init__(self, scale: Mapping[str, Tensor]) -> None:
        self.scale = dict(scale)

    def draw(self, x: Values, here: FrameLogProb, sizes: Values, unit: Values) -> Values:
        """See `Proposal`."""
        return {n: u + sizes[n] * self.scale[n] * unit[n] for n, u in x.items()}

    def log_density(self, to: Values, x: Values, here: FrameLogProb, sizes: Values) -> Values:
        """See `Proposal`: symmetric."""
        return {}

    def learn(self, here: FrameLogProb) -> None:
        """See `Proposal`: nothing to learn."""


class LangevinWalk:
    r"""A step along the gradient, and a random one.

    .. math:: u' = u + \tfrac{h^2}{2} P \nabla \log p(u) + h P^{1/2} \xi

    with 1 / P a running mean of squared gradients: at the posterior, their expectation is the
    Fisher information, so that P stands for the variance of each latent.

    References
    ----------
    Roberts and Tweedie, "Exponential convergence of Langevin distributions and their discrete
    approximations", Bernoulli 1996. Roberts and Stramer, "Langevin diffusions and
    Metropolis-Hastings algorithms", Methodology and Computing in Applied Probability 2002.
    """

    gradients = True

    def __init__(self, scale: Mapping[str, Tensor]) -> None:
        """Start from a guess of each latent's deviation."""
        self.precision = {n: s.square().reciprocal() for n, s in scale.items()}

    def draw(self, x: Values, here: FrameLogProb, sizes: Values, unit: Values) -> Values:
        """See `Proposal`."""
        return {
            n: self._middle(n, u, here, sizes) + sizes[n] * self.precision[n].rsqrt() * unit[n]
            for n, u in x.items()
        }

    def log_density(self, to: Values, x: Values, here: FrameLogProb, sizes: Values) -> Values:
        """See `Proposal`."""
        return {n: self._log_density(n, to[n], u, here, sizes) for n, u in x.items()}

    def learn(self, here: FrameLogProb) -> None:
        """See `Proposal`."""
        for n, gradient in here.gradients.items():
            seen = torch.lerp(gradient.square(), self.precision[n], _DECAY)
            self.precision[n] = seen.clamp_min(1e-8)

    def _middle(self, name: str, u: Tensor, here: FrameLogProb, sizes: Values) -> Tensor:
        if name not in here.gradients:  # known only for what changes
            return u
        return u + 0.5 * sizes[name].square() * here.gradients[name] / self.precision[name]

    def _log_density(
        self, name: str, to: Tensor, x: Tensor, here: FrameLogProb, sizes: Values
    ) -> Tensor:
        # What does not change has distance and step 0.
        steps = (to - self._middle(name, x, here, sizes)) / sizes[name].clamp_min(1e-12)
        return -0.5 * self.precision[name] * steps.square()
