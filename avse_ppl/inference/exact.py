"""Exact posterior by quadrature, for scenes with few latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.base import Draws, InferenceMethod, Problem
from avse_ppl.inference.core.build_posterior import Moments
from avse_ppl.inference.core.log_density import LogDensity, Site, Values, site_distribution
from avse_ppl.inference.core.resources import check_memory
from avse_ppl.inference.core.setup import Mixture, RandomStreams, Seed
from avse_ppl.models.scene import Scene
from avse_ppl.models.validation import check_count
from avse_ppl.posterior.approximation import Approximation

_SPAN = 6.0  # prior standard deviations that the first grid spans
_DROP = 15.0  # nats below the top at which the next grid ends
_REFINEMENTS = 2


@dataclass(frozen=True)
class Exact(InferenceMethod):
    r"""Closed form without latents; otherwise a grid over one latent a recording and one a frame.

    With b the latent of the recording and :math:`a_t` that of frame t,

    .. math:: p(b, a | x) \propto p(b) \prod_t p(a_t) \prod_f
        N_c\left(x_{ft}; 0, S_{ft}(a_t, b) + B_{ft}(a_t, b)\right)

    so that each frame is a one-dimensional integral given b, done on a grid that is refined
    around its mode. The moments are quadratures, not averages over draws.

    Parameters
    ----------
    nodes
        Grid points per latent, of the refined grid and of the one that finds it.
    draws, waveforms, tempering, device, dtype, progress
        Common to all methods; see `avse_ppl.inference.base.InferenceMethod`.

    Raises
    ------
    ValueError
        If a setting is out of range or, when called, the scene has other latents than these, or a
        predictor.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import Exact, GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> Exact()(Scene(GaussianSpeech(), stationary), wave)
    Traceback (most recent call last):
    ValueError: the exact posterior is known for scenes with at most one latent per recording ...
    """

    nodes: int = 33
    _: KW_ONLY
    dtype: torch.dtype = torch.float64

    name: ClassVar[str] = "exact"
    takes_predictor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("nodes", self.nodes, minimum=17)

    def pose(self, scene: Scene, mixture: Mixture, video: Any, seed: Seed) -> Problem:
        """Refuse a predictor before it runs, whose errors in bands are latents too many."""
        if scene.predictor is not None:
            raise ValueError(
                "exact inference has no quadrature over 'predictor.error', the error of a "
                "predictor in bands; take 'svi', 'em', 'nuts' or 'guided', or leave the predictor "
                "out"
            )
        return super().pose(scene, mixture, video, seed)

    def _run(self, problem: Problem) -> Draws:
        density = LogDensity(problem.scene, problem.spectrogram)
        check_memory(density, draws=self.draws, waveforms=self.n_waveforms)
        per_frame, per_recording = find_latents(density)
        grid = _Grid(density, per_frame, per_recording, self.nodes, self.tempering)
        outer = grid.outer()
        moments = integrate_moments(grid, outer)
        values = [grid.draw(outer, problem.streams) for _ in range(self.draws)]
        return Draws(values, Approximation("exact"), moments=moments)


class _Nodes(NamedTuple):
    """Grid of one latent: points and normalised weights ``(node, recording, 1, .)``."""

    points: Tensor
    weights: Tensor
    log_mass: Tensor  # log integral, ``(recording, 1, .)``


class _Outer(NamedTuple):
    """One value of the recording's latent, its weight ``(recording,)``, and the grid of frames."""

    fixed: Values
    weight: Tensor
    inner: _Nodes


class _Grid:
    """Quadrature over the latents of one scene."""

    def __init__(
        self, density: LogDensity, per_frame: Site | None, per_recording: Site | None, nodes: int,
        tempering: float,
    ) -> None:  # fmt: skip
        self.density, self.nodes, self.tempering = density, nodes, tempering
        self.per_frame, self.per_recording = per_frame, per_recording

    def outer(self) -> list[_Outer]:
        """Grid over the recording's latent, each node with its grid over the frame's."""
        site = self.per_recording
        if site is None:
            ones = torch.ones_like(self.density.mixture.scale)
            return [_Outer({}, ones, self.inner({}))]
        inners: list[_Nodes] = []

        def log_density(points: Tensor) -> Tensor:
            inners[:] = [self.inner({site.name: u}) for u in points]
            mass = torch.stack([inner.log_mass.sum(-1, keepdim=True) for inner in inners])
            return mass + self.log_prior(site, points, {})

        grid = refine_grid(log_density, site, self.nodes)
        rows = zip(grid.points, grid.weights.flatten(1), inners, strict=True)
        return [_Outer({site.name: u}, w, inner) for u, w, inner in rows]

    def inner(self, fixed: Values) -> _Nodes:
        """Grid over the frame's latent, the recording's given."""
        site = self.per_frame
        if site is None:
            mass = self.log_likelihood(fixed, 1)[0]
            return _Nodes(torch.zeros_like(mass)[None], torch.ones_like(mass)[None], mass)

        def log_density(points: Tensor) -> Tensor:
            count = len(points)
            repeated = {name: value.repeat(count, 1, 1) for name, value in fixed.items()}
            likelihood = self.log_likelihood({**repeated, site.name: points.flatten(0, 1)}, count)
            return likelihood + self.log_prior(site, points, fixed)

        return refine_grid(log_density, site, self.nodes)

    def law(self, unconstrained: Values) -> ComplexNormal:
        """Wiener posterior at given latents."""
        values, _ = self.density.constrain(unconstrained)
        laws = self.density.scene.laws_given(values, self.density.mixture)
        return laws.condition(self.density.mixture.values)

    def draw(self, outer: list[_Outer], randoms: RandomStreams) -> Values:
        """One draw of the latents, each recording and frame from its own weights."""
        weights = torch.stack([node.weight for node in outer])
        pick = [
            int(torch.multinomial(weights[:, r], 1, generator=g))
            for r, g in enumerate(randoms.generators)
        ]
        values: Values = {}
        if self.per_recording is not None:
            name = self.per_recording.name
            values[name] = torch.stack([outer[i].fixed[name][r] for r, i in enumerate(pick)])
        if self.per_frame is not None:
            rows = [
                draw_nodes(outer[i].inner, r, randoms.generators[r]) for r, i in enumerate(pick)
            ]
            values[self.per_frame.name] = torch.stack(rows)
        return self.density.constrain(values)[0]

    def log_likelihood(self, unconstrained: Values, count: int) -> Tensor:
        """Log likelihood of each frame, ``(count, recording, 1, time)``."""
        mixture = self.density.mixture
        values = {s.name: s.transform(unconstrained[s.name]) for s in self.density.sites}
        law = self.density.scene.laws_given(values, mixture).mixture
        terms = law.log_prob(mixture.values.repeat(count, 1, 1)).unflatten(0, (count, -1))
        if mixture.mask is not None:
            terms = torch.where(mixture.mask, terms, terms.new_zeros(()))
        return self.tempering * terms.sum(-2, keepdim=True)

    def log_prior(self, site: Site, points: Tensor, fixed: Values) -> Tensor:
        """Log prior density of an unconstrained latent at ``(node, recording, 1, .)``."""
        value = site.transform(points)
        law = site_distribution(self.density, site.name, self.density.constrain(fixed)[0])
        return law.log_prob(value) + site.transform.log_abs_det_jacobian(points, value)


def integrate_moments(grid: _Grid, outer: list[_Outer]) -> tuple[Tensor, Tensor]:
    """Mean and variance of speech by quadrature."""
    running = Moments()
    for node in outer:
        if float(node.weight.max()) < 1e-9:
            continue
        for u, weight in zip(node.inner.points, node.inner.weights, strict=True):
            values = dict(node.fixed)
            if grid.per_frame is not None:
                values[grid.per_frame.name] = u
            running.add(grid.law(values), weight * node.weight[:, None, None])
    return running.result()


def find_latents(density: LogDensity) -> tuple[Site | None, Site | None]:
    """Latent of the frame and of the recording; anything else has no exact posterior here."""
    if density.evidence:
        raise ValueError(
            f"exact inference integrates over priors alone, and the scene also has "
            f"{', '.join(map(repr, density.evidence))} (observations or factors beside the "
            "mixture); use 'svi' or 'nuts'"
        )
    recordings, time_ = density.mixture.recordings, density.mixture.frames.time
    frames = [s for s in density.sites if s.shape == (recordings, 1, time_) and time_ > 1]
    scalars = [s for s in density.sites if s.shape == (recordings, 1, 1)]
    if len(frames) > 1 or len(scalars) > 1 or len(frames) + len(scalars) < len(density.sites):
        found = ", ".join(f"{s.name} {tuple(s.shape)}" for s in density.sites)
        raise ValueError(
            "the exact posterior is known for scenes with at most one latent per recording "
            f"(recording, 1, 1) and one per frame (recording, 1, time); found {found}. Use SVI, or "
            "GaussianSpeech with a noise model of one unknown."
        )
    return (frames or [None])[0], (scalars or [None])[0]


def refine_grid(log_density: Callable[[Tensor], Tensor], site: Site, nodes: int) -> _Nodes:
    """Riemann sum on a wide grid, then twice on one that spans what the last one found."""
    unit = torch.linspace(0, 1, nodes, dtype=site.start.dtype, device=site.start.device)
    unit = unit.reshape(-1, *([1] * site.start.ndim))
    low, high = site.start - _SPAN * site.spread, site.start + _SPAN * site.spread
    for _ in range(_REFINEMENTS):
        points = low + (high - low) * unit
        log_p = log_density(points)
        inside = log_p > log_p.max(0).values - _DROP
        step = (high - low) / (nodes - 1)
        low = torch.where(inside, points, points.max()).amin(0) - step
        high = torch.where(inside, points, points.min()).amax(0) + step
    points = low + (high - low) * unit
    log_p = log_density(points)
    log_mass = torch.logsumexp(log_p, 0) + ((high - low) / (nodes - 1)).log()
    return _Nodes(points, torch.softmax(log_p, 0), log_mass)


def draw_nodes(inner: _Nodes, recording: int, generator: torch.Generator) -> Tensor:
    """One node for each frame, ``(1, time)``."""
    weights = inner.weights[:, recording, 0].T  # (time, node)
    node = torch.multinomial(weights, 1, generator=generator)
    return inner.points[:, recording, 0].T.gather(1, node).T
