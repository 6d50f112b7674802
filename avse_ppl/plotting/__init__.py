"""Figures of posteriors, diagnostics, comparisons, calibration, predictors, tracked lips.

A ``plot_...`` writes a file; a ``draw_...`` draws on axes of yours, or on a figure of its own, and
returns the axes: ``save_figure(axes.figure, path)`` keeps it. `play_audio` plays in a notebook.
"""

from avse_ppl.plotting.calibration import (
    draw_calibration,
    draw_coverage,
    draw_sparsification,
    plot_ranks,
)
from avse_ppl.plotting.comparison import draw_comparison, plot_comparison
from avse_ppl.plotting.diagnostics import plot_diagnostics
from avse_ppl.plotting.figure import SAVE_SUFFIXES, save_figure, use_style
from avse_ppl.plotting.noise import draw_noise_factors
from avse_ppl.plotting.player import AudioPlayers, play_audio
from avse_ppl.plotting.posterior import (
    draw_gate,
    draw_level,
    draw_spectrograms,
    draw_waveform,
    plot_posterior,
)
from avse_ppl.plotting.predictor import draw_error_excess, draw_error_law
from avse_ppl.plotting.reliability import draw_reliability, plot_reliability
from avse_ppl.plotting.tracking import plot_tracking

__all__ = [
    "SAVE_SUFFIXES",
    "AudioPlayers",
    "draw_calibration",
    "draw_comparison",
    "draw_coverage",
    "draw_error_excess",
    "draw_error_law",
    "draw_gate",
    "draw_level",
    "draw_noise_factors",
    "draw_reliability",
    "draw_sparsification",
    "draw_spectrograms",
    "draw_waveform",
    "play_audio",
    "plot_comparison",
    "plot_diagnostics",
    "plot_posterior",
    "plot_ranks",
    "plot_reliability",
    "plot_tracking",
    "save_figure",
    "use_style",
]
