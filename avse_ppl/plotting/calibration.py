"""Calibration: coverage, sparsification, and rank ECDFs of simulation-based calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.evaluation.calibration.coverage import (
    Coverage,
    average_coverage,
    compute_clean_stft,
)
from avse_ppl.evaluation.calibration.coverage import coverage as measure_coverage
from avse_ppl.evaluation.calibration.ranks import rank_ecdf, simultaneous_band
from avse_ppl.evaluation.calibration.scores import Sparsification, sparsification
from avse_ppl.evaluation.calibration.simulation import SimulationBasedCalibration
from avse_ppl.plotting.figure import (
    BAD,
    check_figure_path,
    make_figure,
    save_figure,
    take_axes,
    use_style,
)
from avse_ppl.posterior.posterior import Posterior

_COLUMNS = 4
_LEAST_ERROR = 1e-5  # of the rest, relative to all: what an axis shows


@use_style()
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
        axis.plot(points, ecdf - points, color="C0", lw=1.2, ls="-")
        axis.set_title(name, fontsize=9)
    figure.supxlabel("rank of the truth / number of draws", fontsize=9)
    figure.supylabel("ECDF - diagonal", fontsize=9)
    figure.suptitle(f"{result.simulations} simulations, posterior {result.kind}", fontsize=10)
    return save_figure(figure, path)


@use_style()
def draw_coverage(coverage: Coverage | Sequence[Coverage], axis: Any = None) -> Any:
    """Draw calibration curves: the share of truths inside regions, over the mass they state.

    Below the diagonal the posterior is too sure, above it not sure enough. A line each for the bins
    of the STFT and for the samples of the waveform, plain, and weighted by expected energy.

    Parameters
    ----------
    coverage
        From `avse_ppl.evaluation.calibration.coverage`, of one recording or of several.
    axis
        Axes, or None for a figure of its own.

    Returns
    -------
    Axes
        The axes.

    Raises
    ------
    ValueError
        If there are no recordings, or their probabilities differ.

    Examples
    --------
    >>> shares = np.array([0.4, 0.8])
    >>> one = Coverage((0.5, 0.9), shares, shares, shares, shares, 0.1, 0.5, 0.2, 0.2)
    >>> draw_coverage(one).get_xlabel()
    'stated mass'
    """
    rows = [coverage] if isinstance(coverage, Coverage) else list(coverage)
    mean = average_coverage(rows)
    [axis] = take_axes(axis, (1, 1), (4.2, 4.0))
    axis.plot([0, 1], [0, 1], color="0.5", lw=0.9, ls="-")
    for name, values, marker in (
        ("bins", mean.bins, "o"),
        ("bins, by energy", mean.bins_by_energy, "s"),
        ("samples", mean.waveform, "^"),
        ("samples, by energy", mean.waveform_by_energy, "D"),
    ):
        if np.isfinite(values).all():
            axis.plot(mean.probabilities, values, marker=marker, ms=4, label=name)
    axis.set(xlabel="stated mass", ylabel="share inside", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axis.set_title("coverage" if len(rows) == 1 else f"coverage, {len(rows)} recordings")
    axis.legend(loc="upper left")
    return axis


@use_style()
def draw_sparsification(curve: Sparsification, axis: Any = None) -> Any:
    """Draw the sparsification curve: the error of the rest, as the least certain bins are left out.

    The lower the better; the oracle leaves out the bins of largest error, and the area between the
    two (AUSE) is what the variance misses.

    Parameters
    ----------
    curve
        From `avse_ppl.evaluation.calibration.sparsification`.
    axis
        Axes, or None for a figure of its own.

    Returns
    -------
    Axes
        The axes.

    References
    ----------
    Ilg et al., "Uncertainty estimates and multi-hypotheses networks for optical flow", ECCV 2018.

    Examples
    --------
    >>> error = np.random.default_rng(0).exponential(size=1000)
    >>> draw_sparsification(sparsification(error, error)).get_title(loc="left")
    'sparsification: AUSE 0.000'
    """
    [axis] = take_axes(axis, (1, 1), (4.6, 4.0))
    share = 100 * curve.fraction
    rows = [np.maximum(row, _LEAST_ERROR) for row in (curve.curve, curve.oracle)]
    axis.fill_between(share, rows[1], rows[0], color="0.88", lw=0)
    axis.plot(share, rows[0], label="by posterior variance")
    axis.plot(share, rows[1], label="oracle: by the error itself")
    axis.axhline(1.0, color=BAD, lw=0.8, ls=":", label="variance of no use")
    axis.set(xlabel="left out, %", ylabel="mean squared error of the rest / of all", xlim=(0, 100))
    axis.set(yscale="log", ylim=(_LEAST_ERROR, 2.0))
    axis.set_title(f"sparsification: AUSE {curve.ause:.3f}")
    axis.legend(loc="lower left")
    return axis


@use_style()
def draw_calibration(
    posterior: Posterior, clean: np.ndarray, axes: Any = None, *, recording: int = 0
) -> np.ndarray:
    """Draw coverage and sparsification of a posterior against the clean recording.

    Parameters
    ----------
    posterior
        Of one or several recordings.
    clean
        Clean waveform of one of them, ``(sample,)``, aligned, on the scale of the mixture.
    axes
        Two axes, or None for a figure of its own.
    recording
        Which one.

    Returns
    -------
    ndarray
        The two axes.

    Raises
    ------
    ValueError
        If the clean waveform has another length than the recording, or there are other than two
        axes.
    """
    one = posterior.select(recording)
    masses = tuple(np.round(np.arange(0.1, 1.0, 0.1), 2).tolist())
    left, right = take_axes(axes, (1, 2), (9.0, 4.2))
    draw_coverage(measure_coverage(one, clean, masses), left)
    error = np.abs(compute_clean_stft(one, clean) - one.mean[0]) ** 2
    draw_sparsification(sparsification(error, one.variance[0]), right)
    return np.array([left, right], dtype=object)
