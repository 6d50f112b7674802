"""Face tracking: mouth crops, detection score, sharpness and head pose over time."""

from __future__ import annotations

import os
from pathlib import Path

from avse_ppl.plotting.figure import (
    check_figure_path,
    draw_crops,
    make_figure,
    save_figure,
    use_style,
)
from avse_ppl.video.lips import Lips
from avse_ppl.video.mouth_alignment import find_runs

_CROPS = 16
_LOST, _BRIDGED = ("#B5403C", "xxx"), ("#F0C88A", "///")  # colour and hatch


@use_style()
def plot_tracking(lips: Lips, path: str | os.PathLike[str]) -> Path:
    """Plot a strip of crops over time, above what the tracker knows of each.

    The curves are score, confidence of the pose, sharpness (over its largest value), and the
    pose; bands show where the face was lost or bridged.

    Parameters
    ----------
    lips
        What `read_lips` returned.
    path
        PNG, PDF or SVG file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the ending is another.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> lips = Lips.from_crops(np.full((50, 88, 88), 90, dtype=np.uint8), rate_hz=25)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot_tracking(lips, Path(folder) / "lips.png").name
    'lips.png'
    """
    path = check_figure_path(path)
    figure = make_figure(12.0, 5.5)
    strip, curves, pose = figure.subplots(3, 1, sharex=True, height_ratios=[1.0, 1.6, 1.2])

    draw_crops(strip, lips, _CROPS)
    tracked = f"face found in {int(lips.found.sum())} of {len(lips)} video frames"
    bridged = f", {int(lips.interpolated.sum())} bridged" if lips.interpolated.any() else ""
    strip.set_title(f"{lips.name or 'mouth crops'}: {tracked}{bridged}")

    sharpest = max(float(lips.blur.max()), 1e-6)
    curves.plot(lips.time_s, lips.score, label="score of the detection")
    curves.plot(lips.time_s, lips.pose_confidence, label="confidence of the pose")
    curves.plot(lips.time_s, lips.blur / sharpest, label=f"sharpness / {sharpest:.0f}")
    for mask, (colour, hatch), label in (
        (~lips.found, _LOST, "lost"),
        (lips.interpolated, _BRIDGED, "bridged"),
    ):
        for number, (start, stop) in enumerate(find_runs(mask)):
            curves.axvspan(
                float(lips.time_s[start]), float(lips.time_s[stop - 1]) + lips.step_s,
                facecolor=colour, edgecolor="0.4", hatch=hatch, alpha=0.45, lw=0,
                label=label if number == 0 else None,
            )  # fmt: skip
    curves.set(ylim=(-0.05, 1.05), ylabel="in [0, 1]")
    curves.legend(loc="lower left", ncols=5, fontsize="small")

    for column, label in enumerate(("yaw", "pitch", "roll")):
        pose.plot(lips.time_s, lips.pose_deg[:, column], label=label)
    pose.set(xlabel="time, s", ylabel="pose, degrees")
    pose.legend(loc="lower left", ncols=3, fontsize="small")
    return save_figure(figure, path)
