"""Where in time and frequency one model explains a recording better than another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.evaluation.comparison import Comparison
from avse_ppl.utils.files import write_figure

_RANGE_DB = 60.0
_RANGE_NATS = 3.0  # a bin; the colours are full there
_MOST = 4  # models beside the best one that are drawn


def plot_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Draw the recording, and beside it where the best model gains on each of the others.

    Red bins are explained better by the best model and blue ones by the other, nats a bin; below
    each map is the gain of its frames, summed over frequencies.

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
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    path = Path(path)
    others = comparison.models[1 : 1 + _MOST]
    figure = Figure(figsize=(5.0 * (1 + len(others)), 6.0), layout="constrained")
    axes: Any = figure.subplots(
        2, 1 + len(others), sharex=True, squeeze=False, height_ratios=[3, 1]
    )
    _recording(axes[0, 0], axes[1, 0], comparison)
    images = [
        _gain(axes[0, column], axes[1, column], comparison, other)
        for column, other in enumerate(others, start=1)
    ]
    figure.colorbar(images[0], ax=axes[0, :], label="nats a bin", shrink=0.8, extend="both")
    figure.suptitle("\n".join([f"draws: {comparison.kind}", *comparison.warnings]), fontsize=9)
    return write_figure(figure, path)


def _recording(top: Any, bottom: Any, comparison: Comparison) -> None:
    power_db = 10 * np.log10(np.maximum(comparison.power / comparison.power.max(), 1e-12))
    _map(top, power_db, comparison, cmap="magma", vmin=-_RANGE_DB, vmax=0.0)
    top.set(title="recording, dB", ylabel="frequency, Hz")
    level_db = 10 * np.log10(comparison.power.mean(axis=0) + 1e-12)
    bottom.plot(_time_s(comparison), level_db, color="0.3", lw=1)
    bottom.set(xlabel="time, s", ylabel="level, dB")


def _gain(top: Any, bottom: Any, comparison: Comparison, other: str) -> Any:
    difference = comparison.difference(comparison.best, other)
    image = _map(
        top, difference, comparison, cmap="RdBu_r", vmin=-_RANGE_NATS, vmax=_RANGE_NATS
    )  # fmt: skip
    total, error = difference.sum(), comparison.standard_error(difference)
    top.set_title(f"{comparison.best} over {other}: {total:+.0f} nats (s.e. {error:.0f})")
    bottom.bar(
        _time_s(comparison), difference.sum(axis=0), color="0.3",
        width=comparison.stft.hop / comparison.stft.sample_rate_hz,
    )  # fmt: skip
    bottom.set(xlabel="time, s", ylabel="nats a frame")
    return image


def _map(axis: Any, values: np.ndarray, comparison: Comparison, **options: Any) -> Any:
    freq_hz = np.arange(values.shape[0]) * comparison.stft.sample_rate_hz / comparison.stft.n_fft
    return axis.pcolormesh(
        _time_s(comparison), freq_hz, values, shading="nearest", rasterized=True, **options
    )


def _time_s(comparison: Comparison) -> np.ndarray:
    frames = comparison.power.shape[1]
    return np.arange(frames) * comparison.stft.hop / comparison.stft.sample_rate_hz
