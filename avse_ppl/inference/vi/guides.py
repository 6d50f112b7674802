"""Guides: normal distributions over all latents, mean-field or with correlations.

A guide draws ``u = m + s x`` on the real line, with one location m and one scale s for each latent.
What sets guides apart is the law of x, a `Correlation`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.vi.correlations import Correlation, Independent, LowRank, Markov
from avse_ppl.models.validation import unknown_name

GUIDES = ("mean-field", "structured", "low-rank")
_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
_LOG_2_PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Layout:
    """Layout of all latents in one vector: those with a value for each frame come first.

    Parameters
    ----------
    shapes
        ``(recording, ...)`` of each latent, in the order of the vector.
    chains, time
        The vector starts with so many rows of so many frames.

    Examples
    --------
    >>> shapes = {"level": torch.Size((2, 1, 1)), "gain": torch.Size((2, 1, 7))}
    >>> layout = Layout.of(shapes, time=7)
    >>> list(layout.shapes), layout.chains, layout.size
    (['gain', 'level'], 1, 8)
    """

    shapes: Mapping[str, torch.Size]
    chains: int
    time: int

    @classmethod
    def of(cls, shapes: Mapping[str, torch.Size], time: int) -> Layout:
        """Lay out latents of given shapes, on a grid of ``time`` frames."""
        timed = {name: s for name, s in shapes.items() if s[-1] == time}
        rest = {name: s for name, s in shapes.items() if name not in timed}
        return cls(timed | rest, sum(s[1:].numel() for s in timed.values()) // time, time)

    @property
    def size(self) -> int:
        """Length of the vector."""
        return sum(shape[1:].numel() for shape in self.shapes.values())

    def join(self, values: Mapping[str, Tensor]) -> Tensor:
        """``(recording, latent)`` from one tensor for each name."""
        return torch.cat([values[name].flatten(1) for name in self.shapes], dim=1)

    def split(self, vector: Tensor) -> Values:
        """Inverse of ``join``."""
        sizes = [shape[1:].numel() for shape in self.shapes.values()]
        parts = vector.split(sizes, dim=1)
        return {n: p.unflatten(1, s[1:]) for (n, s), p in zip(self.shapes.items(), parts)}  # noqa: B905


@dataclass(frozen=True)
class Guide:
    r"""Normal law over all latents on the real line, of every recording.

    .. math:: u = m + s x, \quad H[q] = \sum_i \log s_i + \tfrac12 \log |C|
        + \tfrac{n}{2} \log 2 \pi e

    Parameters
    ----------
    layout
        Order of the latents.
    location, log_sd
        m and log s, ``(recording, latent)``.
    correlation
        Law of x, with covariance C.

    Examples
    --------
    >>> layout = Layout.of({"a": torch.Size((1, 1, 3))}, time=3)
    >>> guide = Guide(layout, torch.zeros(1, 3), torch.zeros(1, 3), Independent())
    >>> guide.log_density({"a": torch.zeros(1, 1, 3)}) + guide.entropy()  # n / 2
    tensor([1.5000])
    """

    layout: Layout
    location: Tensor
    log_sd: Tensor
    correlation: Correlation

    @property
    def kind(self) -> str:
        """What `Posterior.kind` says of it."""
        name = self.correlation.name
        return f"variational, {name}" if name else "variational"

    def parameters(self) -> list[Tensor]:
        """Everything that is fitted."""
        return [self.location, self.log_sd, *self.correlation.parameters()]

    def draw(self, randoms: RandomStreams) -> Values:
        """One draw of every latent, unconstrained, differentiable in the parameters."""
        unit = randoms.normal(self.location.shape, self.location.dtype)
        x = self.correlation.draw(unit, randoms)
        return self.layout.split(torch.addcmul(self.location, self.log_sd.exp(), x))

    def entropy(self) -> Tensor:
        """Exact, nats, ``(recording,)``."""
        scales = self.log_sd.sum(1) + _ENTROPY * self.layout.size
        return scales + self.correlation.log_det()

    def entropy_along(self, values: Mapping[str, Tensor]) -> Tensor:
        """Exact entropy, with the gradient of ``-log q`` along a draw, ``(recording,)``.

        Its mean is the gradient of the entropy. Where the guide is the posterior it cancels that of
        the density draw by draw, which leaves no noise to average over.

        References
        ----------
        Roeder, Wu and Duvenaud, "Sticking the landing: simple, lower-variance gradient estimators
        for variational inference", NeurIPS 2017.
        """
        fixed = Guide(
            self.layout, self.location.detach(), self.log_sd.detach(), self.correlation.fixed()
        )
        path = -fixed.log_density(values)
        return self.entropy().detach() + path - path.detach()

    def log_density(self, values: Mapping[str, Tensor]) -> Tensor:
        """Log density at unconstrained values, ``(recording,)``."""
        x = (self.layout.join(values) - self.location) / self.log_sd.exp()
        log_det = self.log_sd.sum(1) + self.correlation.log_det()
        return -0.5 * (self.correlation.quadratic(x) + _LOG_2_PI * self.layout.size) - log_det


def make_guide(
    name: str, location: Values, log_sd: Values, time: int, rank: int, randoms: RandomStreams
) -> Guide:
    """Make a guide with given means and standard deviations, and (almost) no correlations.

    Parameters
    ----------
    name
        One of ``GUIDES``.
    location, log_sd
        Of each latent, ``(recording, ...)``.
    time
        Number of frames.
    rank
        Of ``"low-rank"``, which starts at small random directions: none at all is a saddle.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> zero, randoms = {"gain": torch.zeros(1, 1, 5)}, RandomStreams(0, 1, torch.device("cpu"))
    >>> make_guide("structured", zero, zero, 5, 0, randoms).kind
    'variational, structured guide'
    """
    check_guide(name)
    layout = Layout.of({n: v.shape for n, v in location.items()}, time)
    mean, spread = layout.join(location), layout.join(log_sd)
    recordings = len(mean)
    if name == "structured" and layout.chains and time > 1:
        correlation: Correlation = Markov(mean.new_zeros(recordings, layout.chains, time - 1))
    elif name == "low-rank":
        shape = (recordings, layout.size, rank)
        directions = randoms.normal(shape, mean.dtype) / math.sqrt(layout.size)
        correlation = LowRank(directions, spread, spread.detach().clone())
    else:
        correlation = Independent("structured guide" if name == "structured" else "")
    guide = Guide(layout, mean, spread, correlation)
    for parameter in guide.parameters():
        parameter.requires_grad_()
    return guide


def check_guide(name: str) -> None:
    """Raise unless there is a guide of that name.

    Examples
    --------
    >>> check_guide("structured")
    """
    if name not in GUIDES:
        raise unknown_name("guide", name, GUIDES)
