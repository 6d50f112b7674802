"""Visual quality: score, audio-visual synchrony and causes over time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from avse_ppl.plotting.figure import check_figure_path, draw_crops, make_figure, save_figure
from avse_ppl.video.corruptions import CAUSES
from avse_ppl.video.lips import Lips
from avse_ppl.video.quality.score import Reliability

_COLOURS = ("#dcefdc", "#f7e3a1", "#f4b183", "#d9a3c7", "#b7c9e8", "#9ad0d3", "#e6e6e6", "#f19999")
_CROPS = 18


def plot_reliability(reliability: Reliability, lips: Lips, path: str | os.PathLike[str]) -> Path:
    """Plot crops over time, above the score, the synchrony with the audio, and the causes.

    Parameters
    ----------
    reliability, lips
        What `score_lips` returned, and of what.
    path
        PNG, PDF or SVG file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the ending is another, or the two are not of one length.
    OSError
        If the file cannot be written.
    """
    path = check_figure_path(path)
    if len(lips) != len(reliability.score):
        raise ValueError(
            f"expected the reliability of these lips, {len(lips)} frames, found "
            f"{len(reliability.score)}"
        )
    figure = make_figure(12.0, 5.0)
    strip, curves, causes = figure.subplots(3, 1, sharex=True, height_ratios=[1.0, 1.8, 1.4])

    draw_crops(strip, lips, _CROPS)
    mean = float(reliability.score.mean())
    strip.set_title(f"{lips.name or 'mouth crops'}: mean reliability {mean:.2f}", loc="left")

    curves.plot(reliability.time_s, reliability.score, color="k", label="reliability")
    if np.isfinite(reliability.agreement).any():
        curves.plot(
            reliability.time_s, reliability.agreement, color="tab:blue", ls="--",
            label="audio-visual synchrony",
        )  # fmt: skip
    for start_s, end_s, cause, _ in reliability.spans():
        curves.axvspan(start_s, end_s, color=_COLOURS[CAUSES.index(cause)], lw=0, alpha=0.8)
    curves.set(ylim=(-0.03, 1.03), ylabel="in [0, 1]")
    curves.legend(loc="lower left", ncols=2, fontsize="small")

    causes.stackplot(
        reliability.time_s, reliability.cause_probability.T, colors=_COLOURS, labels=CAUSES
    )
    causes.set(ylim=(0, 1), xlabel="time (s)", ylabel="cause")
    causes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    return save_figure(figure, path)
