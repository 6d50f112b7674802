"""Rank statistics: ranks of the truth among draws, their ECDF, and its simultaneous band."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from avse_ppl.models.validation import check_count


class Band(NamedTuple):
    """Simultaneous confidence band of the ECDF of uniform ranks, ``(point,)`` each."""

    points: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def compute_ranks(truth: np.ndarray, draws: np.ndarray) -> np.ndarray:
    r"""Rank of each truth among its draws.

    .. math:: r = \#\{d : \theta_d < \theta\} \in \{0, ..., D\}

    Uniform if truth and draws are from the same posterior (Talts et al. 2018). Draws that equal the
    truth count as not below it.

    Parameters
    ----------
    truth
        ``(...)``.
    draws
        ``(draw, ...)``.

    Returns
    -------
    numpy.ndarray
        Whole numbers of the shape of ``truth``.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> compute_ranks(np.array([0.5, 9.0]), np.array([[0.0, 1.0], [1.0, 2.0]])).tolist()
    [1, 2]
    """
    truth, draws = np.asarray(truth), np.asarray(draws)
    if draws.ndim == 0 or draws.shape[1:] != truth.shape or len(draws) == 0:
        raise ValueError(
            f"expected draws of shape (draw, ...) over the truth's {truth.shape}, found "
            f"{draws.shape}"
        )
    return (draws < truth).sum(axis=0)


def rank_ecdf(rank: np.ndarray, draws: int) -> tuple[np.ndarray, np.ndarray]:
    r"""ECDF of ranks at :math:`z_k = k / (D + 1)`, where uniform ranks have :math:`F(z_k) = z_k`.

    Parameters
    ----------
    rank
        ``(simulation,)``, each from 0 to ``draws``.
    draws
        Number of draws D behind each rank.

    Returns
    -------
    tuple
        Points and ECDF, ``(draws,)`` each.

    Examples
    --------
    >>> rank_ecdf(np.array([0, 1, 2, 3]), 3)[1].tolist()
    [0.25, 0.5, 0.75]
    """
    points = np.arange(1, draws + 1) / (draws + 1)
    below = np.bincount(np.asarray(rank), minlength=draws + 1).cumsum()[:draws]
    return points, below / np.size(rank)


def simultaneous_band(simulations: int, draws: int, probability: float = 0.95) -> Band:
    r"""Band that holds the whole ECDF of uniform ranks with the stated probability.

    At each point the ECDF of N uniform ranks is binomial, so that a pointwise band at level
    :math:`1 - \gamma` is

    .. math:: \left[Q_{\gamma / 2}, Q_{1 - \gamma / 2}\right] / N, \quad
        Q \text{ quantiles of } \mathrm{Bin}(N, z_k)

    and :math:`\gamma` is the largest for which the ECDF leaves the band nowhere with the stated
    probability. That probability is computed, not simulated: counts between the points are Poisson
    given their total, so that it is a chain of convolutions cut off at the band.

    Parameters
    ----------
    simulations
        N, number of ranks, independent of each other.
    draws
        D, draws behind each rank.
    probability
        That uniform ranks stay inside, in (0, 1).

    Returns
    -------
    Band
        Points :math:`z_k = k / (D + 1)` and bounds of the ECDF.

    Raises
    ------
    ValueError
        If a count is not positive or the probability outside (0, 1).

    References
    ----------
    Säilynoja, Bürkner and Vehtari, "Graphical test for discrete uniformity and its applications in
    goodness-of-fit evaluation and multiple sample comparison", Statistics and Computing 2022.

    Examples
    --------
    >>> band = simultaneous_band(100, 9)
    >>> float(band.lower[4]), float(band.upper[4])
    (0.37, 0.63)
    """
    from scipy.stats import binom

    check_count("simulations", simulations)
    check_count("draws", draws)
    if not 0 < probability < 1:
        raise ValueError(f"probability must be between 0 and 1, not {probability}")
    points = np.arange(1, draws + 1) / (draws + 1)

    def compute_bounds(gamma: float) -> tuple[np.ndarray, np.ndarray]:
        lower = binom.ppf(gamma / 2, simulations, points) if gamma > 0 else np.zeros_like(points)
        upper = binom.isf(gamma / 2, simulations, points) if gamma > 0 else whole
        return lower.clip(0, simulations), upper

    whole = np.full_like(points, simulations)
    low, high = 0.0, 1.0 - probability  # of gamma: never above the pointwise level
    for _ in range(25):
        middle = (low + high) / 2
        inside = compute_stay_probability(*compute_bounds(middle), simulations)
        low, high = (middle, high) if inside >= probability else (low, middle)
    lower, upper = compute_bounds(low)
    return Band(points, lower / simulations, upper / simulations)


def compute_stay_probability(lower: np.ndarray, upper: np.ndarray, count: int) -> float:
    """Probability that counts of ``count`` uniform ranks stay within bounds at all points."""
    from scipy.stats import poisson

    totals = np.arange(count + 1)
    step = poisson.pmf(totals, count * (1 / (len(lower) + 1)))  # the points are equally far apart
    mass = np.zeros(count + 1)
    mass[0] = 1.0
    for least, most in zip(lower, upper, strict=True):
        mass = np.convolve(mass, step)[: count + 1]
        mass[(totals < least) | (totals > most)] = 0.0
    last = np.convolve(mass, step)[count]
    return float(last / poisson.pmf(count, count))
