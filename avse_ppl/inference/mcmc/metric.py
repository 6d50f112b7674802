"""A mass matrix from the Fisher information, in small blocks: what makes chains move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from avse_ppl.inference.mcmc.jax_log_density import JaxDensity, Latents, Recording

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
    alone
        All others: a number for each value.
    """

    time: tuple[str, ...]
    freq: tuple[str, ...]
    shared: tuple[str, ...]
    alone: tuple[str, ...]


class Coordinates(NamedTuple):
    """Whitened latents, or anything else that has one value for each."""

    time: jax.Array  # (row, time)
    freq: jax.Array  # (row, freq)
    shared: jax.Array  # (row,)
    alone: Latents


class Metric(NamedTuple):
    r"""Affine map between latents u and coordinates w in which the posterior is nearly round.

    .. math:: u = u_0 + A w, \quad A A^T \approx F^{-1}

    for an information matrix F of arrow form: a block for each frame, one for each bin, and those
    latents that all frames share, such as the level of speech, coupled with every frame. Without
    that coupling, a level that the latents of the frames can make up for hardly moves.

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
    alone
        Standard deviations of the others.
    """

    location: Latents
    time: jax.Array
    freq: jax.Array
    ridge: jax.Array
    shared: jax.Array
    alone: Latents


def arrange_latents(latents: Mapping[str, Any], freq: int, time: int) -> Layout:
    """Sort latents, ``(1, ...)`` each, into blocks."""
    shapes = {name: tuple(value.shape[1:]) for name, value in sorted(latents.items())}
    shared = [n for n, shape in shapes.items() if shape == (1, 1)]
    rest = [n for n in shapes if n not in shared]
    in_time = _fitting({n: shapes[n][0] for n in rest if shapes[n][1] == time})
    rest = [n for n in rest if n not in in_time]
    in_freq = _fitting({n: shapes[n][1] for n in rest if shapes[n][0] == freq})
    alone = [n for n in rest if n not in in_freq]
    return Layout(in_time, in_freq, tuple(shared), tuple(alone))


def _fitting(rows: Mapping[str, int]) -> tuple[str, ...]:
    """Return the names that fit into one block, small ones first."""
    total, names = 0, []
    for name in sorted(rows, key=lambda n: rows[n]):
        total += rows[name]
        if total <= _LARGEST:
            names.append(name)
    return tuple(names)


def to_latents(places: Layout, metric: Metric, w: Coordinates) -> Latents:
    """Latents at whitened coordinates."""
    shared = metric.shared @ w.shared
    gap = Coordinates(
        jnp.einsum("nij,jn->in", metric.time, w.time) - (metric.ridge @ shared).T,
        jnp.einsum("nij,jn->in", metric.freq, w.freq),
        shared,
        {name: metric.alone[name] * w.alone[name] for name in places.alone},
    )
    step = _unpack(places, gap, metric.location)
    return {name: value + step[name] for name, value in metric.location.items()}


def to_whitened(places: Layout, metric: Metric, latents: Latents) -> Coordinates:
    """Inverse of `to_latents`."""
    gap = _pack(places, {n: latents[n] - metric.location[n] for n in latents})
    return Coordinates(
        _solve(metric.time, gap.time + (metric.ridge @ gap.shared).T),
        _solve(metric.freq, gap.freq),
        jnp.linalg.solve(metric.shared, gap.shared),
        {name: gap.alone[name] / metric.alone[name] for name in places.alone},
    )


def fisher_metric(
    density: JaxDensity, places: Layout, states: Latents, of: Recording, key: Any,
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
    places
        From `arrange_latents`.
    states
        Latents, ``(state, 1, ...)`` each; several times as many as a block has rows.
    of
        The recording, of which the mask, the shape and what is seen matter.
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

    def at(pair: tuple[Latents, Any]) -> _Information:
        return _information(density, places, pair[0], of, pair[1])

    found = jax.lax.map(at, (states, jax.random.split(key, count)))
    prior = jax.tree.map(lambda c: jnp.maximum(jnp.mean(c, 0), 0.01), found.prior)
    time, freq = (
        jnp.einsum("sin,sjn->nij", g, g) * (tempering / count) + jax.vmap(jnp.diag)(p.T)
        for g, p in ((found.score.time, prior.time), (found.score.freq, prior.freq))
    )
    coupling, among = (tempering * jnp.mean(a, 0) for a in (found.coupling, found.among))
    # The inverse of a mean of outer products is too large by this factor.
    rows = time.shape[-1]
    ridge = jnp.linalg.solve(time, coupling) * max(count - rows - 1, 1) / count
    left = among - jnp.einsum("nri,nrj->ij", coupling, ridge)
    alone = {
        name: 1.0 / jnp.sqrt(tempering * jnp.mean(score**2, 0) + prior.alone[name])
        for name, score in found.score.alone.items()
    }
    return Metric(
        {name: jnp.mean(value, 0) for name, value in states.items()}, _inverse_root(time),
        _inverse_root(freq), ridge, _positive_root(left, prior.shared), alone,
    )  # fmt: skip


class _Information(NamedTuple):
    """What one state says."""

    score: Coordinates
    prior: Coordinates  # curvature
    coupling: jax.Array  # (time, row, shared)
    among: jax.Array  # (shared, shared)


def _information(
    density: JaxDensity, places: Layout, latents: Latents, of: Recording, key: Any
) -> _Information:
    def log_power(u: Latents) -> jax.Array:
        return jnp.where(of.mask, jnp.log(density.mixture_power(u, of)), 0.0)

    def prior(u: Latents) -> jax.Array:
        return density.parts(u, of)[1]

    def change(name: str) -> jax.Array:
        unit = {n: jnp.full_like(u, float(n == name)) for n, u in latents.items()}
        return jax.jvp(log_power, (latents,), (unit,))[1]

    ones = jax.tree.map(jnp.ones_like, latents)
    curvature = jax.jvp(jax.grad(prior), (latents,), (ones,))[1]
    rows = _pack(places, latents).time
    _, pull = jax.vjp(log_power, latents)
    # log p(x') as a function of the log power has the gradient |x'|^2 / power - 1.
    excess = jax.random.exponential(key, of.values.shape, rows.dtype) - 1.0
    changes = [change(name) for name in places.shared]
    couplings = [_pack(places, pull(c)[0]).time.T for c in changes]
    flat = jnp.stack([c.ravel() for c in changes]) if changes else jnp.zeros((0, of.values.size))
    coupling = jnp.stack(couplings, -1) if couplings else jnp.zeros((*rows.T.shape, 0))
    negative = jax.tree.map(jnp.negative, curvature)
    return _Information(
        _pack(places, pull(excess)[0]), _pack(places, negative), coupling, flat @ flat.T
    )


def _inverse_root(information: jax.Array) -> jax.Array:
    """``A`` with ``A A^T = information^-1``, upper triangular, ``(..., row, row)``."""
    upper = jnp.moveaxis(jnp.linalg.cholesky(information), -1, -2)
    eye = jnp.broadcast_to(jnp.eye(information.shape[-1], dtype=information.dtype), upper.shape)
    return jax.scipy.linalg.solve_triangular(upper, eye, lower=False)


def _positive_root(left: jax.Array, prior: jax.Array) -> jax.Array:
    """Inverse root of what the prior and the data leave: at least what the prior says."""
    scale = jnp.sqrt(prior)
    values, vectors = jnp.linalg.eigh(left / scale / scale[:, None])
    return vectors / jnp.sqrt(1.0 + jnp.maximum(values, 0.0)) / scale[:, None]


def _solve(roots: jax.Array, rows: jax.Array) -> jax.Array:
    return jax.scipy.linalg.solve_triangular(roots, rows.T[..., None], lower=False)[..., 0].T


def _pack(places: Layout, latents: Latents) -> Coordinates:
    def stacked(rows: list[jax.Array], width: int) -> jax.Array:
        return jnp.concatenate(rows, 0) if rows else jnp.zeros((0, width))

    return Coordinates(
        stacked([latents[n][0] for n in places.time], 1),
        stacked([latents[n][0].T for n in places.freq], 1),
        jnp.stack([latents[n][0, 0, 0] for n in places.shared]) if places.shared else jnp.zeros(0),
        {n: latents[n][0] for n in places.alone},
    )


def _unpack(places: Layout, packed: Coordinates, like: Latents) -> Latents:
    """Inverse of `_pack`."""
    found: Latents = {name: value[None] for name, value in packed.alone.items()}
    for names, axis, rows in ((places.time, -2, packed.time), (places.freq, -1, packed.freq)):
        first = 0
        for name in names:
            count = like[name].shape[axis]
            part = rows[first : first + count]
            found[name] = (part if axis == -2 else part.T)[None]
            first += count
    for i, name in enumerate(places.shared):
        found[name] = packed.shared[i].reshape(1, 1, 1)
    return found
