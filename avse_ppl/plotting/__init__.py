"""Figures of posteriors, diagnostics, comparisons, calibration, tracked lips and their quality."""

from avse_ppl.plotting.calibration import plot_ranks
from avse_ppl.plotting.comparison import plot_comparison
from avse_ppl.plotting.diagnostics import plot_diagnostics
from avse_ppl.plotting.figure import SAVE_SUFFIXES
from avse_ppl.plotting.posterior import plot_posterior
from avse_ppl.plotting.reliability import plot_reliability
from avse_ppl.plotting.tracking import plot_tracking

__all__ = [
    "SAVE_SUFFIXES",
    "plot_comparison",
    "plot_diagnostics",
    "plot_posterior",
    "plot_ranks",
    "plot_reliability",
    "plot_tracking",
]
