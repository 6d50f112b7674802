"""A picture of how far a video can be believed."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avse_ppl.plotting.lips import SAVE_SUFFIXES
from avse_ppl.utils.files import check_writable, write_figure
from avse_ppl.video.corruptions.kind import CAUSES
from avse_ppl.video.lips import Lips
from avse_ppl.video.quality.score import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#dcefdc", "#f7e3a1", "#f4b183", "#d9a3c7", "#b7c9e8", "#9ad0d3", "#e6e6e6", "#f19999")
_CROPS = 18
_SIZE_IN = (12.0, 5.0)


def save_reliability_picture(
    reliability: Reliability, lips: Lips, path: str | os.PathLike[str]
) -> Path:
    """Draw crops over time, above the score, the agreement with the sound, and the causes.

    Parameters
    ----------
    reliability, lips
        What `score_lips` returned, and of what.
    path
        Ends in ``.png``, ``.pdf`` or ``.svg``; written beside and renamed.

    Raises
    ------
    ValueError
        If the ending is another, or the two are not of one length.
    OSError
        If the file cannot be written.
    """
    path = check_writable(path, suffixes=SAVE_SUFFIXES)
    if len(lips) != len(reliability.score):
        raise ValueError(
            f"expected the reliability of these lips, {len(lips)} frames, found "
            f"{len(reliability.score)}"
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    FigureCanvasAgg(figure)
    strip, curves, causes = figure.subplots(3, 1, sharex=True, height_ratios=[1.0, 1.8, 1.4])
    _draw_strip(strip, lips, reliability)
    _draw_curves(curves, reliability)
    _draw_causes(causes, reliability)
    return write_figure(figure, path, dpi=110)


def _draw_strip(axes: Axes, lips: Lips, reliability: Reliability) -> None:
    edges = np.linspace(float(lips.time_s[0]), lips.duration_s, _CROPS + 1)
    for left, right in itertools.pairwise(edges):
        row = int(np.argmin(np.abs(lips.time_s - (left + right) / 2)))
        axes.imshow(
            lips.roi[row], cmap="gray", vmin=0, vmax=255, extent=(left, right, 0, 1), aspect="auto"
        )
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1), yticks=[])
    mean = float(reliability.score.mean())
    axes.set_title(f"{lips.name or 'mouth crops'}: mean reliability {mean:.2f}", loc="left")


def _draw_curves(axes: Axes, reliability: Reliability) -> None:
    axes.plot(reliability.time_s, reliability.score, color="k", label="reliability")
    if np.isfinite(reliability.agreement).any():
        axes.plot(
            reliability.time_s, reliability.agreement, color="tab:blue", ls="--",
            label="agreement of lips and sound",
        )  # fmt: skip
    for start_s, end_s, cause, _ in reliability.spans():
        axes.axvspan(start_s, end_s, color=_COLOURS[CAUSES.index(cause)], lw=0, alpha=0.8)
    axes.set(ylim=(-0.03, 1.03), ylabel="in [0, 1]")
    axes.legend(loc="lower left", ncols=2, fontsize="small")


def _draw_causes(axes: Axes, reliability: Reliability) -> None:
    axes.stackplot(
        reliability.time_s, reliability.cause_probability.T, colors=_COLOURS, labels=CAUSES
    )
    axes.set(ylim=(0, 1), xlabel="time (s)", ylabel="cause")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
