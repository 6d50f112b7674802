"""Visual reliability over time: mouth crops, score, audio-visual synchrony, causes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.plotting.figure import (
    HATCHES,
    check_figure_path,
    draw_crops,
    save_figure,
    take_axes,
    use_style,
)
from avse_ppl.video.corruptions import CAUSES
from avse_ppl.video.lips import Lips
from avse_ppl.video.quality.score import Reliability

# Of the causes in their order, told apart by lightness and hatch as well.
_COLOURS = ("#EAF3EA", "#F6DE8D", "#E8A765", "#C98FB5", "#9DB4DF", "#63B8BD", "#D0D0D0", "#D96C6C")
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
    return save_figure(draw_reliability(reliability, lips)[0].figure, path)


@use_style()
def draw_reliability(reliability: Reliability, lips: Lips, axes: Any = None) -> np.ndarray:
    """Draw the reliability timeline: mouth crops, score and synchrony, probability of each cause.

    Parameters
    ----------
    reliability, lips
        What `score_lips` returned, and of what.
    axes
        Three axes, or None for a figure of its own.

    Returns
    -------
    ndarray
        The three axes.

    Raises
    ------
    ValueError
        If the two are not of one length, or there are other than three axes.

    Examples
    --------
    >>> from avse_ppl.video import score_lips
    >>> lips = Lips.from_crops(np.zeros((50, 88, 88), dtype=np.uint8), rate_hz=25)
    >>> draw_reliability(score_lips(lips), lips)[2].get_ylabel()
    'probability'
    """
    if len(lips) != len(reliability.score):
        raise ValueError(
            f"expected the reliability of these lips, {len(lips)} frames, found "
            f"{len(reliability.score)}"
        )
    layout = {"sharex": True, "height_ratios": [1.0, 1.6, 1.4]}
    strip, curves, causes = take_axes(axes, (3, 1), (12.0, 5.0), **layout)

    draw_crops(strip, lips, _CROPS)
    mean = float(reliability.score.mean())
    strip.set_title(f"{lips.name or 'mouth crops'}: mean reliability {mean:.2f}")

    curves.plot(reliability.time_s, reliability.score, color="k", ls="-", label="reliability")
    if np.isfinite(reliability.agreement).any():
        curves.plot(
            reliability.time_s, reliability.agreement, color="C0", ls="--",
            label="audio-visual synchrony",
        )  # fmt: skip
    # The likeliest cause, by name where there is room for it.
    width_s = float(reliability.time_s[-1] - reliability.time_s[0]) or 1.0
    for start_s, end_s, cause, _ in reliability.spans():
        place = CAUSES.index(cause)
        curves.axvspan(
            start_s, end_s, facecolor=_COLOURS[place], edgecolor="0.6", hatch=HATCHES[place], lw=0,
            alpha=0.6,
        )  # fmt: skip
        if end_s - start_s > 0.012 * width_s * len(cause):
            curves.text(
                (start_s + end_s) / 2, 1.08, cause, ha="center", va="bottom", fontsize=8,
                clip_on=True, bbox={"fc": "white", "ec": "none", "pad": 0.5},
            )  # fmt: skip
    curves.set(ylim=(-0.03, 1.25), yticks=(0, 0.5, 1), ylabel="in [0, 1]")
    curves.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    causes.stackplot(
        reliability.time_s, reliability.cause_probability.T, colors=_COLOURS, labels=CAUSES,
        hatch=HATCHES, edgecolor="0.5", lw=0.2,
    )  # fmt: skip
    causes.set(ylim=(0, 1), xlabel="time, s", ylabel="probability")
    causes.set_title("cause of a low score")
    causes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True, handleheight=1.2)
    return np.array([strip, curves, causes], dtype=object)
