"""Has a bound, or an objective, stopped rising."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avse_ppl.inference.vi.optimize import NOTICEABLE

_WINDOW = 25
_ERRORS = 3.0


@dataclass(frozen=True)
class ElboRise:
    """How a trace ends.

    Parameters
    ----------
    steps
        Its length.
    rise, error
        How far it rose from the window before the last to the last one, and the standard error of
        that; NaN where it is shorter than two windows of 5 steps.
    window
        Length of a window, steps.
    rising
        Whether it rose by more than three standard errors and more than matters.
    """

    steps: int
    rise: float
    error: float
    window: int
    rising: bool


def measure_rise(trace: np.ndarray, bins: int) -> ElboRise:
    """Judge the end of a trace of an evidence lower bound or log joint density.

    Parameters
    ----------
    trace
        Nats, ``(step,)``; NaN after the end of a run that stopped early.
    bins
        Number of time-frequency bins: a rise of under 0.0265 nats a bin, which is what powers cost
        that are wrong by 1 dB, does not matter.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=100)
    >>> measure_rise(noise, 500).rising, measure_rise(noise + np.arange(100), 500).rising
    (False, True)
    """
    values = np.asarray(trace, float)
    values = values[np.isfinite(values)]
    window = min(_WINDOW, len(values) // 2)
    if window < 5:
        return ElboRise(len(values), np.nan, np.nan, window, False)
    now, before = values[-window:], values[-2 * window : -window]
    rise = float(now.mean() - before.mean())
    error = float(np.sqrt(_scatter(now) / window + _scatter(before) / window))
    rising = rise > _ERRORS * error and rise > NOTICEABLE * bins
    return ElboRise(len(values), rise, error, window, bool(rising))


def _scatter(values: np.ndarray) -> float:
    """Variance about a trend, from successive differences."""
    return float(np.square(np.diff(values)).mean() / 2)
