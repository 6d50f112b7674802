"""What is asked of arviz, in words that its releases 0.2x and 1.x both understand."""

from __future__ import annotations

from typing import Any

import numpy as np

_MIN_DRAWS = 4  # of a chain; below that arviz has nothing to say


def r_hat(values: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat of each column of ``(chain, draw, quantity)``.

    Of one chain, its two halves are compared as if they were two. NaN where there are under 4
    draws; infinite where each chain stands still, and not all in one place.
    """
    if values.shape[0] == 1:
        half = values.shape[1] // 2
        values = np.concatenate([values[:, :half], values[:, half : 2 * half]])
    if values.shape[1] < _MIN_DRAWS:
        return _nan(values)
    apart = (np.ptp(values, axis=1) == 0).all(axis=0) & (np.ptp(values, axis=(0, 1)) > 0)
    return np.where(apart, np.inf, _asked("rhat", values, "rank"))


def ess(values: np.ndarray, method: str) -> np.ndarray:
    """Effective sample size of each column of ``(chain, draw, quantity)``, all chains together.

    ``method`` is ``"bulk"`` or ``"tail"``. NaN where there are under 4 draws.
    """
    return _nan(values) if values.shape[1] < _MIN_DRAWS else _asked("ess", values, method)


def _asked(function: str, values: np.ndarray, method: str) -> np.ndarray:
    import arviz
    import xarray

    data = xarray.Dataset({"x": (("chain", "draw", "quantity"), values.astype(np.float64))})
    with np.errstate(divide="ignore", invalid="ignore"):  # chains that stand still
        result: Any = getattr(arviz, function)(data, method=method)
    return np.asarray(result["x"].values, dtype=np.float64)


def _nan(values: np.ndarray) -> np.ndarray:
    return np.full(values.shape[2], np.nan)
