"""Mass matrix of arrow form, in small blocks, from the Fisher information."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from avse_ppl.inference.mcmc.jax_log_density import JaxLogDensity, Latents, Recording

_LARGEST = 64  # rows of a block: its cost is cubic in them


class Layout(NamedTuple):
    """Which latents stand in which block, by their shapes.

    Parameters
    ----------
    time, freq
        Names of the latents ``(1, row, time)`` that make up one block for each frame, and of those
        ``(1, freq, row)`` that make up one for each bin.
    shared
        Names of the latents with one value for the recording.
    independent
        All others: a number for each value.
    """

    time: tuple[str, ...]
    freq: tuple[str, ...]
    shared: tuple[str, ...]
    independent: tuple[str, ...]


class Coordinates(NamedTuple):
    """Whitened latents, or anything else that has one value for each."""

    time: jax.Array  # (row, time)
    freq: jax.Array  # (row, freq)
    shared: jax.Array  # (row,)
    independent: Latents


class Metric(NamedTuple):
    r"""Affine map between latents u and coordinates w in which the posterior is nearly round.

    .. math:: u = u_0 + A w, \quad A A^T \approx F^{-1}

    for an information matrix F of arrow form: a block for each frame, one for each bin, and those
    latents that all frames share, such as the gain of speech, coupled with every frame. Without
    that coupling, a gain that the latents of the frames can make up for hardly moves.

    Parameters
    ----------
    location
        :math:`u_0`.
    time, freq
        Inverse roots of the blocks, ``(block, row, row)``.
    ridge
        How the latents of a frame give way to the shared ones, ``(time, row, shared)``.
    shared
        Inverse root of what is left for the shared ones, ``(shared, shared)``.
    independent
        Standard deviations of the others.
    """

    location: Latents
    time: jax.Array
    freq: jax.Array
    ridge: jax.Array
    shared: jax.Array
    independent: Latents


def arrange_latents(latents: Mapping[str, Any], freq: int, time: int) -> Layout:
    """Sort latents, ``(1, ...)`` each, into blocks, small ones first while they fit."""

    def fill_block(rows: Mapping[str, int]) -> tuple[str, ...]:
        total, names = 0, []
        for name in sorted(rows, key=lambda n: rows[n]):
            total += rows[name]
            if total <= _LARGEST:
                names.append(name)
        return tuple(names)

    shapes = {name: tuple(value.shape[1:]) for name, value in sorted(latents.items())}
    shared = [n for n, shape in shapes.items() if shape == (1, 1)]
    rest = [n for n in shapes if n not in shared]
    in_time = fill_block({n: shapes[n][0] for n in rest if shapes[n][1] == time})
    rest = [n for n in rest if n not in in_time]
    in_freq = fill_block({n: shapes[n][1] for n in rest if shapes[n][0] == freq})
    independent = [n for n in rest if n not in in_freq]
    return Layout(in_time, in_freq, tuple(shared), tuple(independent))


def to_latents(layout: Layout, metric: Metric, w: Coordinates) -> Latents:
    """Latents at whitened coordinates."""
    shared = metric.shared @ w.shared
    gap = Coordinates(
        jnp.einsum("nij,jn->in", metric.time, w.time) - (metric.ridge @ shared).T,
        jnp.einsum("nij,jn->in", metric.freq, w.freq),
        shared,
        {name: metric.independent[name] * w.independent[name] for name in layout.independent},
    )
    step = unpack_latents(layout, gap, metric.location)
    return {name: value + step[name] for name, value in metric.location.items()}


def to_whitened(layout: Layout, metric: Metric, latents: Latents) -> Coordinates:
    """Inverse of `to_latents`."""

    def solve_blocks(roots: jax.Array, rows: jax.Array) -> jax.Array:
        return jax.scipy.linalg.solve_triangular(roots, rows.T[..., None], lower=False)[..., 0].T

    gap = pack_latents(layout, {n: latents[n] - metric.location[n] for n in latents})
    return Coordinates(
        solve_blocks(metric.time, gap.time + (metric.ridge @ gap.shared).T),
        solve_blocks(metric.freq, gap.freq),
        jnp.linalg.solve(metric.shared, gap.shared),
        {name: gap.independent[name] / metric.independent[name] for name in layout.independent},
    )


def pack_latents(layout: Layout, latents: Latents) -> Coordinates:
    """Latents, ``(1, ...)`` each, as rows of their blocks."""

    def stack_rows(rows: list[jax.Array], width: int) -> jax.Array:
        return jnp.concatenate(rows, 0) if rows else jnp.zeros((0, width))

    shared = layout.shared
    return Coordinates(
        stack_rows([latents[n][0] for n in layout.time], 1),
        stack_rows([latents[n][0].T for n in layout.freq], 1),
        jnp.stack([latents[n][0, 0, 0] for n in shared]) if shared else jnp.zeros(0),
        {n: latents[n][0] for n in layout.independent},
    )


def unpack_latents(layout: Layout, packed: Coordinates, like: Latents) -> Latents:
    """Inverse of `pack_latents`; ``like`` has the shapes."""
    latents: Latents = {name: value[None] for name, value in packed.independent.items()}
    for names, axis, rows in ((layout.time, -2, packed.time), (layout.freq, -1, packed.freq)):
        first = 0
        for name in names:
            count = like[name].shape[axis]
            part = rows[first : first + count]
            latents[name] = (part if axis == -2 else part.T)[None]
            first += count
    for i, name in enumerate(layout.shared):
        latents[name] = packed.shared[i].reshape(1, 1, 1)
    return latents


class Information(NamedTuple):
    """Terms of the Fisher information at one state.

    Parameters
    ----------
    score
        Gradient of the log likelihood of one simulated mixture.
    prior
        Curvature of the log prior.
    coupling
        Information that shared latents have in common with those of a frame, ``(time, row,
        shared)``.
    shared
        That of the shared latents, ``(shared, shared)``.
    """

    score: Coordinates
    prior: Coordinates
    coupling: jax.Array
    shared: jax.Array


def compute_information(
    density: JaxLogDensity, layout: Layout, latents: Latents, recording: Recording, key: Any
) -> Information:
    """Terms of the Fisher information at one state, with one simulated mixture."""

    def log_power(u: Latents) -> jax.Array:
        power = density.mixture_power(u, recording)
        return jnp.where(recording.mask, jnp.log(power), 0.0)

    def log_prior(u: Latents) -> jax.Array:
        return density.joint(u, recording).prior

    # The prior: minus the row sums of the Hessian.
    ones = jax.tree.map(jnp.ones_like, latents)
    curvature = jax.jvp(jax.grad(log_prior), (latents,), (ones,))[1]
    negative = jax.tree.map(jnp.negative, curvature)

    # The likelihood: log p(x') as a function of the log power has the gradient |x'|^2 / power - 1.
    rows = pack_latents(layout, latents).time
    _, pull = jax.vjp(log_power, latents)
    excess = jax.random.exponential(key, recording.values.shape, rows.dtype) - 1.0

    # Shared latents: columns of the Jacobian of the log power.
    changes = []
    for name in layout.shared:
        unit = {n: jnp.full_like(u, float(n == name)) for n, u in latents.items()}
        changes.append(jax.jvp(log_power, (latents,), (unit,))[1])
    couplings = [pack_latents(layout, pull(c)[0]).time.T for c in changes]
    size = recording.values.size
    flat = jnp.stack([c.ravel() for c in changes]) if changes else jnp.zeros((0, size))
    coupling = jnp.stack(couplings, -1) if couplings else jnp.zeros((*rows.T.shape, 0))
    return Information(
        pack_latents(layout, pull(excess)[0]),
        pack_latents(layout, negative),
        coupling,
        flat @ flat.T,
    )


def fisher_metric(
    density: JaxLogDensity, layout: Layout, states: Latents, recording: Recording, key: Any,
    tempering: float = 1.0,
) -> Metric:  # fmt: skip
    r"""Metric from the Fisher information, averaged over states.

    .. math:: F = E_u\left[ E_{x' | u}[ g g^T ] - \nabla^2 \log p(u) \right], \quad
        g = \nabla_u \log p(x' | u)

    with one simulated mixture x' for each state; the coupling of shared latents, where noise would
    add up over the frames, from :math:`J^T J` with J the Jacobian of the log power. It averages
    curvatures, not variances: the smallest scale that a latent has anywhere decides, as it decides
    which steps are stable.

    Parameters
    ----------
    density
        What is sampled.
    layout
        From `arrange_latents`.
    states
        Latents, ``(state, 1, ...)`` each; several times as many as a block has rows.
    recording
        Its mask, its shape and its visual features matter.
    key
        Of the simulated mixtures.
    tempering
        Power of the likelihood.

    References
    ----------
    Girolami and Calderhead, "Riemann manifold Langevin and Hamiltonian Monte Carlo methods",
    JRSS B 2011.
    """
    count = len(next(iter(states.values())))
    terms = jax.lax.map(
        lambda pair: compute_information(density, layout, pair[0], recording, pair[1]),
        (states, jax.random.split(key, count)),
    )
    prior = jax.tree.map(lambda c: jnp.maximum(jnp.mean(c, 0), 0.01), terms.prior)
    time, freq = (
        jnp.einsum("sin,sjn->nij", g, g) * (tempering / count) + jax.vmap(jnp.diag)(p.T)
        for g, p in ((terms.score.time, prior.time), (terms.score.freq, prior.freq))
    )

    # Shared latents: what is left for them when those of the frames give way (Schur complement).
    coupling, shared = (tempering * jnp.mean(a, 0) for a in (terms.coupling, terms.shared))
    # The inverse of a mean of outer products is too large by this factor.
    rows = time.shape[-1]
    ridge = jnp.linalg.solve(time, coupling) * max(count - rows - 1, 1) / count
    left = shared - jnp.einsum("nri,nrj->ij", coupling, ridge)
    scale = jnp.sqrt(prior.shared)  # at least what the prior says
    values, vectors = jnp.linalg.eigh(left / scale / scale[:, None])
    shared_root = vectors / jnp.sqrt(1.0 + jnp.maximum(values, 0.0)) / scale[:, None]

    independent = {
        name: 1.0 / jnp.sqrt(tempering * jnp.mean(score**2, 0) + prior.independent[name])
        for name, score in terms.score.independent.items()
    }
    return Metric(
        {name: jnp.mean(value, 0) for name, value in states.items()},
        invert_to_root(time),
        invert_to_root(freq),
        ridge,
        shared_root,
        independent,
    )


def invert_to_root(information: jax.Array) -> jax.Array:
    """``A`` with ``A A^T = information^-1``, upper triangular, ``(..., row, row)``."""
    upper = jnp.moveaxis(jnp.linalg.cholesky(information), -1, -2)
    eye = jnp.broadcast_to(jnp.eye(information.shape[-1], dtype=information.dtype), upper.shape)
    return jax.scipy.linalg.solve_triangular(upper, eye, lower=False)
