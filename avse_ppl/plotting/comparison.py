"""Model comparison: where in time and frequency one model predicts a recording better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.evaluation.comparison import Comparison
from avse_ppl.plotting.figure import (
    RANGE_DB,
    check_figure_path,
    convert_to_db,
    make_figure,
    save_figure,
)

_RANGE_NATS = 3.0  # a bin; the colours are full there
_MOST = 4  # models beside the best one that are drawn


def plot_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Plot the recording, and the pointwise elpd differences of the best model from the others.

    Red bins are predicted better by the best model and blue ones by the other, nats a bin; below
    each map is the difference of its frames, summed over frequencies.

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
    figure = make_figure(5.0 * (1 + len(others)), 6.0)
    axes: Any = figure.subplots(
        2, 1 + len(others), sharex=True, squeeze=False, height_ratios=[3, 1]
    )

    def draw_map(axis: Any, values: np.ndarray, **options: Any) -> Any:
        return axis.pcolormesh(
            time_s, freq_hz, values, shading="nearest", rasterized=True, **options
        )

    # The recording.
    top, bottom = axes[:, 0]
    draw_map(top, convert_to_db(power / power.max()), cmap="magma", vmin=-RANGE_DB, vmax=0.0)
    top.set(title="recording, dB", ylabel="frequency, Hz")
    bottom.plot(time_s, convert_to_db(power.mean(axis=0) + 1e-12), color="0.3", lw=1)
    bottom.set(xlabel="time, s", ylabel="level, dB")

    # Each other model against the best.
    images = []
    for (top, bottom), other in zip(axes[:, 1:].T, others, strict=True):
        difference = comparison.difference(comparison.best, other)
        images.append(draw_map(top, difference, cmap="RdBu_r", vmin=-_RANGE_NATS, vmax=_RANGE_NATS))
        total, error = difference.sum(), comparison.standard_error(difference)
        top.set_title(f"{comparison.best} over {other}: {total:+.0f} nats (s.e. {error:.0f})")
        width_s = stft.hop / stft.sample_rate_hz
        bottom.bar(time_s, difference.sum(axis=0), color="0.3", width=width_s)
        bottom.set(xlabel="time, s", ylabel="nats a frame")
    if images:
        figure.colorbar(images[0], ax=axes[0, :], label="nats a bin", shrink=0.8, extend="both")
    figure.suptitle("\n".join([f"draws: {comparison.kind}", *comparison.warnings]), fontsize=9)
    return save_figure(figure, path)
