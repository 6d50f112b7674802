"""Rank ECDFs of simulation-based calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avse_ppl.evaluation.calibration.ranks import rank_ecdf, simultaneous_band
from avse_ppl.evaluation.calibration.simulation import SimulationBasedCalibration
from avse_ppl.plotting.figure import check_figure_path, make_figure, save_figure

_COLUMNS = 4


def plot_ranks(
    result: SimulationBasedCalibration, path: str | Path, *, probability: float = 0.95
) -> Path:
    """Plot the rank ECDF of each quantity minus the diagonal, with the band of uniform ranks.

    A hump means that the posterior lies too high, a wave that starts upwards that it is too narrow.

    Parameters
    ----------
    result
        From `simulation_based_calibration`.
    path
        PNG, PDF or SVG file.
    probability
        That the ECDF of uniform ranks stays in the band.

    Returns
    -------
    Path
        The file.
    """
    path = check_figure_path(path)
    band = simultaneous_band(result.simulations, result.draws, probability)
    rows = -(-len(result.ranks) // _COLUMNS)
    figure = make_figure(11, 2.2 * rows)
    axes: Any = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(result.ranks) :]:
        axis.axis("off")
    for axis, (name, rank) in zip(axes.flat, result.ranks.items(), strict=False):
        points, ecdf = rank_ecdf(rank, result.draws)
        axis.fill_between(
            points, band.lower - points, band.upper - points, color="0.85", step="mid"
        )
        axis.plot(points, ecdf - points, color="C0", lw=1.2)
        axis.set_title(name, fontsize=9)
    figure.supxlabel("rank of the truth / number of draws", fontsize=9)
    figure.supylabel("ECDF - diagonal", fontsize=9)
    figure.suptitle(f"{result.simulations} simulations, posterior {result.kind}", fontsize=10)
    return save_figure(figure, path)
