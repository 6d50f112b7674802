"""Pointwise log-likelihood: of each time-frequency bin, its own latents integrated out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.log_density import LogDensity, Site
from avse_ppl.models.handlers import LogProbByBin, recording_plate
from avse_ppl.posterior.posterior import Posterior

_NODES = 8
_WIDER = 1.5  # than the posterior of the latent: the proposal must cover what it covers
_FREEDOM = 6.0  # of the proposal's Student-t: heavier tails than those of a latent's posterior
_LEAST_SD = 0.05

Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class PointwiseLogLikelihood:
    r"""Log-likelihood of each bin, given a draw of the latents that bins share.

    Latents u with one value for each bin are integrated out by importance sampling,

    .. math:: p(x_{ft} | \theta) \approx \frac1M \sum_m
        \frac{p(x_{ft} | \theta, u^m)\, p(u^m | \theta)}{r_{ft}(u^m)}

    where the proposal r is a Student-t on the real line, at the mean of the latent's posterior
    draws in that bin and 1.5 times as wide, and the M = 8 nodes are stratified: one uniform number
    in each M-th of its probability. Unbiased for any M.

    Parameters
    ----------
    density
        Scene and mixture, of one recording.
    proposals
        Location and scale of r for each such latent, ``(1, freq, time)``, on the real line.
    generator
        Of the nodes.
    """

    density: LogDensity
    proposals: Mapping[str, tuple[Tensor, Tensor]]
    generator: torch.Generator

    @property
    def local(self) -> tuple[str, ...]:
        """Names of the latents that are integrated out."""
        return tuple(self.proposals)

    def __call__(self, draw: Values) -> Tensor:
        """Log densities, ``(1, freq, time)``, given values of all latents, ``(1, ...)`` each."""
        shared = {name: value for name, value in draw.items() if name not in self.proposals}
        sites = {site.name: site for site in self.density.sites}
        observed = self.density.mixture.values
        with torch.no_grad():
            if not self.proposals:
                law, _ = mixture_distribution(self.density, shared, ())
                return law.log_prob(observed).expand(observed.shape)
            speech = None
            if all(sites[name].of_noise for name in self.proposals):
                # Nodes of noise latents leave the distribution of speech as it is.
                laws = self.density.scene.laws_given(draw, self.density.mixture)
                speech = laws.informed
            total: Any = None
            for nodes in self.draw_nodes():
                term = self.evaluate_node(shared, nodes, speech)
                total = term if total is None else torch.logaddexp(total, term)
            return total - math.log(_NODES)

    def evaluate_node(
        self, shared: Values, nodes: Sequence[float], speech: ComplexNormal | None
    ) -> Tensor:
        """Log of one summand: the same node, in units of its proposal, in each bin."""
        sites = {site.name: site for site in self.density.sites}
        v = _FREEDOM
        constant = math.lgamma((v + 1) / 2) - math.lgamma(v / 2) - 0.5 * math.log(v * math.pi)
        values, log_weight = dict(shared), torch.zeros(())
        for node, (name, (location, scale)) in zip(nodes, self.proposals.items(), strict=True):
            u = location + scale * node
            values[name] = sites[name].transform(u)
            jacobian = sites[name].transform.log_abs_det_jacobian(u, values[name])
            log_t = constant - (v + 1) / 2 * math.log1p(node * node / v)  # Student's t
            log_weight = log_weight + jacobian - (log_t - scale.log())
        if speech is None:
            law, log_prior = mixture_distribution(self.density, values, self.local)
        else:
            noise, log_prior = mixture_distribution(
                self.density, values, self.local, noise_only=True
            )
            law = speech.convolve(noise)
        observed = self.density.mixture.values
        term = law.log_prob(observed).expand(observed.shape) + log_prior + log_weight
        # Where numbers overflow, the prior has no mass: such a node adds nothing.
        return torch.where(term.isfinite(), term, -torch.inf)

    def draw_nodes(self) -> list[list[float]]:
        """Draw stratified Student-t quantiles, ``(node, latent)``: a Latin hypercube."""
        from scipy.special import stdtrit

        columns = []
        for _ in self.proposals:
            strata = torch.randperm(_NODES, generator=self.generator)
            within = torch.rand(_NODES, generator=self.generator, dtype=torch.float64)
            columns.append(stdtrit(_FREEDOM, ((strata + within) / _NODES).numpy()).tolist())
        return [list(row) for row in zip(*columns, strict=True)]


def make_pointwise_log_likelihood(
    density: LogDensity, posterior: Posterior, seed: int
) -> PointwiseLogLikelihood:
    """Find the latents of single bins, and fit their proposals to the posterior's draws."""
    local = [site for site in density.sites if is_local(density, site)]
    proposals = {}
    for site in local:
        values = torch.as_tensor(posterior.latents[site.name]).to(density.mixture.scale)
        u = site.transform.inv(values.flatten(0, 1))
        proposals[site.name] = u.mean(0), _WIDER * u.std(0).clamp_min(_LEAST_SD)
    return PointwiseLogLikelihood(density, proposals, torch.Generator().manual_seed(seed))


def mixture_distribution(
    density: LogDensity, values: Values, local: Sequence[str], *, noise_only: bool = False
) -> tuple[ComplexNormal, Tensor]:
    """Distribution of the mixture (or noise), log prior of local latents, ``(1, freq, time)``."""
    mixture = density.mixture
    with (
        poutine.block(),
        LogProbByBin(values, local) as log_prob,
        recording_plate(mixture.recordings, device=mixture.scale.device, validated=False),
    ):
        scene, frames = density.scene, mixture.frames
        law = scene.noise(frames) if noise_only else scene.laws(frames).mixture
    return law, log_prob.log_prior


def is_local(density: LogDensity, site: Site) -> bool:
    """Whether a latent has a value for each bin that matters to that bin alone.

    Half of the values are moved, and nothing may change in the bins of the other half: neither the
    law of the mixture, nor the log prior of any latent of that shape.
    """
    shape = density.mixture.values.shape
    if site.shape != shape:
        return False
    alike = [other.name for other in density.sites if other.shape == shape]
    values = {other.name: other.transform(other.start) for other in density.sites}
    generator = torch.Generator().manual_seed(0)
    moved = (torch.rand(shape, generator=generator) < 0.5).to(site.start.device)
    step = 0.5 * site.spread.clamp_min(0.1)
    others = {
        **values,
        site.name: site.transform(torch.where(moved, site.start + step, site.start)),
    }
    with torch.no_grad():
        before, after = (mixture_distribution(density, some, alike) for some in (values, others))
    pairs = [(before[1], after[1]), (before[0].power, after[0].power),
             (before[0].mean, after[0].mean)]  # fmt: skip
    return all(torch.equal(a.expand(shape)[~moved], b.expand(shape)[~moved]) for a, b in pairs)
