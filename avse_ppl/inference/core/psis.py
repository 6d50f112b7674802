"""Pareto-smoothed importance sampling (PSIS)."""

from __future__ import annotations

import numpy as np

_FEWEST = 5  # weights a tail needs before a shape can be fitted to it
_EVEN = 1e-9  # log ratios that differ by less are even weights
_ELEMENTS = 4_000_000  # of the largest array: bounds the memory, whatever the number of rows


def psis(log_ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Smooth importance weights by a generalised Pareto fit to their tail.

    The M largest of S weights, :math:`M = \lceil \min(S / 5, 3 \sqrt S) \rceil`, are replaced by
    the quantiles of a Pareto law with shape :math:`\hat k`. A weighted mean has a finite variance
    below :math:`k = 0.5`; above 0.7 no practical number of draws makes up for the mismatch.

    Parameters
    ----------
    log_ratios
        Log importance ratios up to a constant of each problem, ``(..., draw)``. ``-inf`` is a
        weight of 0.

    Returns
    -------
    log_weights
        Smoothed, ``(..., draw)``; their exponentials sum to 1 over the draws.
    k_hat
        :math:`\hat k`, ``(...)``. Infinite where the tail has fewer than five different weights, as
        it always does below 21 draws; 0 where all weights are the same.

    Raises
    ------
    ValueError
        If there are no draws, a ratio is NaN or plus infinity, or all of a problem are ``-inf``.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto smoothed importance sampling", JMLR 2024.
    Zhang and Stephens, "A new and efficient estimation method for the generalized Pareto
    distribution", Technometrics 2009.

    Examples
    --------
    >>> import numpy as np
    >>> exponential = np.random.default_rng(0).exponential(size=(3, 4000))
    >>> log_weights, k_hat = psis(np.array([[0.2], [0.5], [1.0]]) * exponential)
    >>> k_hat < 0.7  # weights with Pareto tails of shape 0.2, 0.5 and 1
    array([ True,  True, False])
    """
    array = np.asarray(log_ratios, dtype=float)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(
            f"expected log ratios (..., draw) with at least one draw, found {array.shape}"
        )
    if np.isnan(array).any() or (array == np.inf).any():
        raise ValueError(
            "log ratios hold NaN or +inf; a draw that its own law calls impossible has no weight"
        )
    if array.size and (array.max(axis=-1) == -np.inf).any():
        raise ValueError("all log ratios of one problem are -inf: no draw has any weight")
    rows = array.reshape(-1, array.shape[-1])
    weights = rows - rows.max(axis=1, keepdims=True)
    k_hat = np.full(len(rows), np.inf)
    k_hat[weights.min(axis=1) > -_EVEN] = 0.0

    # Indices of the largest weights of each row, rising, and the cutoff below them.
    draws = weights.shape[1]
    size = min(int(np.ceil(min(draws / 5, 3 * np.sqrt(draws)))), draws - 1)
    top = np.argpartition(weights, draws - size - 1, axis=1)[:, draws - size - 1 :]
    order = np.argsort(np.take_along_axis(weights, top, 1), axis=1)
    top = np.take_along_axis(top, order, 1)
    cutoff = np.take_along_axis(weights, top[:, :1], 1)
    cutoff = np.maximum(cutoff, np.log(np.finfo(float).tiny))
    tails = top[:, 1:]

    # Rows whose tails have the same length together, as many at once as the memory allows.
    count = (np.take_along_axis(weights, tails, 1) > cutoff).sum(axis=1)
    for length in np.unique(count[(count >= _FEWEST) & (k_hat > 0)]):
        same = np.flatnonzero((count == length) & (k_hat > 0))
        most = max(1, _ELEMENTS // int(length * count_nodes(length)))
        for begin in range(0, len(same), most):
            some = same[begin : begin + most]
            smooth_tails(weights, k_hat, some, tails[some, -length:], cutoff[some])
    weights -= log_sum_exp(weights)
    return weights.reshape(array.shape), k_hat.reshape(array.shape[:-1])


def smooth_tails(
    weights: np.ndarray, k_hat: np.ndarray, rows: np.ndarray, tails: np.ndarray, cutoff: np.ndarray
) -> None:
    """Replace tails of the same length by quantiles of the fitted Pareto laws, in place."""
    here = rows[:, None], tails
    above = np.exp(weights[here]) - np.exp(cutoff)
    fitted = above[:, 0] > 0  # else the differences are lost in rounding
    rows, tails, cutoff = rows[fitted], tails[fitted], cutoff[fitted]
    k, scale = pareto_fit(above[fitted])
    length = tails.shape[1]
    probability = np.arange(0.5, length) / length
    quantiles = pareto_quantile(probability, k[:, None], scale[:, None])
    k_hat[rows] = k
    # No weight larger than the largest there was.
    weights[rows[:, None], tails] = np.minimum(np.log(quantiles + np.exp(cutoff)), 0.0)


def pareto_fit(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Shape and scale of generalised Pareto laws, by Zhang and Stephens's posterior mean.

    With :math:`b = -k / \sigma`, the profile likelihood of b is averaged over a grid of quantiles
    of its prior; the shape is then drawn to 0.5 with the weight of ten observations.

    Parameters
    ----------
    values
        Rising positive values, ``(row, value)``, at least two each.

    Returns
    -------
    shape, scale
        ``(row,)`` each.

    Examples
    --------
    >>> values = np.expm1(0.3 * -np.log1p(-(np.arange(1000) + 0.5) / 1000)) / 0.3
    >>> shape, scale = pareto_fit(values[None])
    >>> shape.round(1), scale.round(1)
    (array([0.3]), array([1.]))
    """
    n = values.shape[1]
    nodes = count_nodes(n)
    grid = 1.0 - np.sqrt(nodes / (np.arange(nodes) + 0.5))
    quartile = values[:, int(n / 4 + 0.5) - 1 : int(n / 4 + 0.5)]
    b = grid / (3.0 * quartile) + 1.0 / values[:, -1:]
    mean_log = np.log1p(-b[:, :, None] * values[:, None]).mean(axis=2)
    profile = n * (np.log(-b / mean_log) - mean_log - 1.0)
    mass = np.exp(profile - log_sum_exp(profile))
    mass[mass < 10 * np.finfo(float).eps] = 0.0
    b = (b * mass).sum(axis=1) / mass.sum(axis=1)
    shape = np.log1p(-b[:, None] * values).mean(axis=1)
    return (n * shape + 5.0) / (n + 10.0), -shape / b


def pareto_quantile(probability: np.ndarray, shape: np.ndarray, scale: np.ndarray) -> np.ndarray:
    r"""Quantile :math:`\sigma ((1 - p)^{-k} - 1) / k` of a generalised Pareto law.

    Examples
    --------
    >>> pareto_quantile(np.array([0.5]), np.array([1.0]), np.array([2.0]))
    array([2.])
    """
    log_survival = np.log1p(-probability)
    small = np.abs(shape) < np.finfo(float).eps
    safe = np.where(small, 1.0, shape)
    return scale * np.where(small, -log_survival, np.expm1(-safe * log_survival) / safe)


def count_nodes(n: int) -> int:
    """Number of grid nodes of the shape for n values."""
    return 30 + int(np.sqrt(n))


def log_sum_exp(values: np.ndarray) -> np.ndarray:
    """Log of the sum of exponentials of each row, ``(row, 1)``."""
    top = values.max(axis=1, keepdims=True)
    return top + np.log(np.exp(values - top).sum(axis=1, keepdims=True))
