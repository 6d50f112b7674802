"""Scores of predicted uncertainty: CRPS, sparsification error, rank correlation."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Sparsification(NamedTuple):
    """Sparsification curve: relative mean squared error of the rest, over the share left out."""

    fraction: np.ndarray
    curve: np.ndarray
    oracle: np.ndarray

    @property
    def ause(self) -> float:
        """Area between the curve and the oracle's: 0 is perfect."""
        return float(np.trapezoid(self.curve - self.oracle, self.fraction))


def sparsification(squared_error: np.ndarray, variance: np.ndarray) -> Sparsification:
    r"""Sparsification curve: the error of the rest as bins of largest variance are left out.

    .. math:: c(f) = \frac{\mathrm{mean}\{e_i^2 : \text{rank of } v_i \text{ below } (1 - f) n\}}
        {\mathrm{mean}\{e_i^2\}}, \quad \mathrm{AUSE} = \int_0^1 c(f) - o(f)\, df

    with o the oracle's curve, which sorts by the error itself. An uninformative variance has c = 1.

    Parameters
    ----------
    squared_error, variance
        Of the same shape.

    Returns
    -------
    Sparsification
        At 0, 1, ..., 99 % left out.

    Raises
    ------
    ValueError
        If the shapes differ, or there are fewer than 100 values or no error at all.

    References
    ----------
    Ilg, Çiçek, Galesso, Klein, Makansi, Hutter and Brox, "Uncertainty estimates and
    multi-hypotheses networks for optical flow", ECCV 2018.

    Examples
    --------
    >>> error = np.linspace(0.0, 1.0, 1000)
    >>> sparsification(error, error).ause
    0.0
    """
    error, predicted = np.ravel(squared_error), np.ravel(variance)
    if error.shape != predicted.shape or error.size < 100 or not error.sum() > 0:
        raise ValueError(
            "expected squared errors, not all zero, and variances of one shape and at least 100 "
            f"of them, found {np.shape(squared_error)} and {np.shape(variance)}"
        )
    fraction = np.arange(100) / 100
    kept = np.ceil((1 - fraction) * error.size).astype(int)
    by_variance, by_error = (
        error[np.argsort(key, kind="stable")].cumsum(dtype=np.float64)[kept - 1] / kept
        for key in (predicted, error)
    )
    whole = by_variance[0]
    return Sparsification(fraction, by_variance / whole, by_error / whole)


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays, such as squared errors and variances.

    Ties take the order in which they stand. A perfect posterior does not reach 1, since errors are
    random given their variance.

    References
    ----------
    Spearman, "The proof and measurement of association between two things", 1904.

    Examples
    --------
    >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])), 6)
    1.0
    """
    first, second = (np.argsort(np.argsort(np.ravel(v), kind="stable")) for v in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def crps_gaussian(truth: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    r"""Continuous ranked probability score of Gaussian predictions, in closed form.

    .. math:: \mathrm{CRPS} = \sigma \left(z (2 \Phi(z) - 1) + 2 \phi(z) - \pi^{-1/2}\right),
        \quad z = (y - m) / \sigma

    In the unit of the truth; less is better, and the truth's own law is best on average.

    Parameters
    ----------
    truth, mean, sd
        Real arrays that broadcast.

    References
    ----------
    Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA 2007.

    Examples
    --------
    >>> round(float(crps_gaussian(0.0, 0.0, 1.0)), 4)
    0.2337
    """
    from scipy.special import ndtr

    z = (np.asarray(truth) - mean) / sd
    density = np.exp(-0.5 * np.square(z)) / math.sqrt(2 * math.pi)
    return sd * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))


def crps_draws(truth: np.ndarray, draws: np.ndarray) -> np.ndarray:
    r"""Continuous ranked probability score of draws, unbiased for any number D of them.

    .. math:: \frac{1}{D} \sum_d |y - x_d| - \frac{1}{2 D (D - 1)} \sum_{d, e} |x_d - x_e|

    Parameters
    ----------
    truth
        ``(...)``.
    draws
        ``(draw, ...)``, at least two.

    Raises
    ------
    ValueError
        If there are fewer than two draws, or their shape is not the truth's.

    References
    ----------
    Gneiting and Raftery 2007; the unbiased form: Ferro, "Fair scores for ensemble forecasts", QJRMS
    2014.

    Examples
    --------
    >>> float(crps_draws(np.array(0.0), np.array([-1.0, 1.0])))
    0.0
    """
    count = len(draws)
    if count < 2 or draws.shape[1:] != np.shape(truth):
        raise ValueError(
            f"expected at least 2 draws of shape {np.shape(truth)}, found {draws.shape}"
        )
    distance = np.abs(draws - truth).mean(axis=0)
    # The sum over pairs by ranks: the i-th smallest of D is added 2 i - D - 1 times.
    weights = 2.0 * np.arange(1, count + 1) - count - 1
    dispersion = np.tensordot(weights, np.sort(draws, axis=0), axes=1)
    return distance - dispersion / (count * (count - 1))
