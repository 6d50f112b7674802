"""Model comparison: which model predicts a recording better, and where in time and frequency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.evaluation.comparison import Comparison
from avse_ppl.plotting.figure import (
    BAD,
    DARK,
    DIFFERENCE_MAP,
    LEVEL_MAP,
    RANGE_DB,
    check_figure_path,
    convert_to_db,
    make_figure,
    save_figure,
    take_axes,
    use_style,
)

_RANGE_NATS = 3.0  # a bin; the colours are full there
_MOST = 4  # models beside the best one that are drawn


@use_style()
def plot_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Plot the recording, and the pointwise elpd differences of the best model from the others.

    Yellow bins are predicted better by the best model and blue ones by the other, nats a bin, grey
    ones by both alike; below each map is the difference of its frames, summed over frequencies.
    Under the recording, all models: `draw_comparison`.

    Parameters
    ----------
    comparison
        From `compare`.
    path
        PNG, PDF or SVG file.

    Returns
    -------
    Path
        The file.
    """
    path = check_figure_path(path)
    stft, power = comparison.stft, comparison.power
    time_s = np.arange(power.shape[1]) * stft.hop / stft.sample_rate_hz
    freq_hz = np.arange(power.shape[0]) * stft.sample_rate_hz / stft.n_fft
    others = comparison.models[1 : 1 + _MOST]
    figure = make_figure(4.6 * (1 + len(others)), 6.0)
    axes: Any = figure.subplots(2, 1 + len(others), squeeze=False, height_ratios=[3, 1.2])
    for top, bottom in axes[:, 1:].T:
        bottom.sharex(top)

    def draw_map(axis: Any, values: np.ndarray, **options: Any) -> Any:
        return axis.pcolormesh(
            time_s, freq_hz, values, shading="nearest", rasterized=True, **options
        )

    # The recording.
    top, bottom = axes[:, 0]
    draw_map(top, convert_to_db(power / power.max()), cmap=LEVEL_MAP, vmin=-RANGE_DB, vmax=0.0)
    top.set(title="recording, 60 dB from black to white", xlabel="time, s", ylabel="frequency, Hz")
    draw_comparison(comparison, bottom)

    # Each other model against the best.
    images = []
    for (top, bottom), other in zip(axes[:, 1:].T, others, strict=True):
        difference = comparison.difference(comparison.best, other)
        images.append(
            draw_map(top, difference, cmap=DIFFERENCE_MAP, vmin=-_RANGE_NATS, vmax=_RANGE_NATS)
        )
        total, error = difference.sum(), comparison.standard_error(difference)
        top.set_title(f"{comparison.best} over {other}: {total:+.0f} nats (s.e. {error:.0f})")
        top.tick_params(labelleft=False)
        width_s = stft.hop / stft.sample_rate_hz
        bottom.bar(time_s, difference.sum(axis=0), color="0.3", width=width_s)
        bottom.set(xlabel="time, s", ylabel="nats a frame")
    if images:
        figure.colorbar(images[0], ax=axes[0, :], label="nats a bin", shrink=0.8, extend="both")
    figure.suptitle("\n".join([f"draws: {comparison.kind}", *comparison.warnings]), fontsize=9)
    return save_figure(figure, path)


@use_style()
def draw_comparison(comparison: Comparison, axis: Any = None) -> Any:
    """Draw the elpd of each model below that of the best one, with standard errors and weights.

    A model whose bar reaches zero is not told from the best by this recording.

    Parameters
    ----------
    comparison
        From `compare`.
    axis
        Axes, or None for a figure of its own.

    Returns
    -------
    Axes
        The axes.

    References
    ----------
    Vehtari, Gelman and Gabry, "Practical Bayesian model evaluation using leave-one-out
    cross-validation and WAIC", Statistics and Computing 2017.
    """
    from matplotlib.ticker import MaxNLocator

    rows = comparison.table()
    [axis] = take_axes(axis, (1, 1), (7.0, 1.0 + 0.5 * len(rows)))
    places = np.arange(len(rows))
    differences = np.array([row["difference"] for row in rows])
    errors = np.nan_to_num([row["difference_se"] for row in rows])
    axis.errorbar(differences, places, xerr=errors, fmt="o", color=DARK, ms=5, capsize=3, ls="none")
    axis.axvline(0.0, color=BAD, lw=0.8, ls="--")
    names = [f"{row['model']}\nweight {row['weight']:.2f}" for row in rows]
    axis.set(
        yticks=places, yticklabels=names, ylim=(len(rows) - 0.5, -0.5),
        xlabel="elpd - elpd of the best, nats (bars: 1 s.e.)",
    )  # fmt: skip
    axis.xaxis.set_major_locator(MaxNLocator(4))
    return axis
