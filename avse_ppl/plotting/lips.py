"""A picture of what was tracked."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avse_ppl.utils.files import check_writable, write_figure
from avse_ppl.video.lips import Lips
from avse_ppl.video.mouth_alignment import runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAVE_SUFFIXES = (".png", ".pdf", ".svg")

_CROPS = 16  # on the strip
_WIDTH_IN, _HEIGHT_IN = 12.0, 5.5
_GAP, _BRIDGE = "#d9534f", "#f0ad4e"


def save_lips_picture(lips: Lips, path: str | os.PathLike[str]) -> Path:
    """Draw a strip of crops over time, above what the tracker knows of each.

    The curves are score, confidence of the pose, sharpness (over its largest value), and the
    pose; bands show where the face was lost or bridged. The file is written beside and renamed.

    Parameters
    ----------
    lips
        What `read_lips` returned.
    path
        Ends in ``.png``, ``.pdf`` or ``.svg``.

    Raises
    ------
    ValueError
        If the ending is another.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> lips = Lips.from_crops(np.full((50, 88, 88), 90, dtype=np.uint8), rate_hz=25)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_lips_picture(lips, Path(folder) / "lips.png").name
    'lips.png'
    """
    path = check_writable(path, suffixes=SAVE_SUFFIXES)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
    FigureCanvasAgg(figure)
    strip, curves, pose = figure.subplots(3, 1, sharex=True, height_ratios=[1.0, 1.6, 1.2])
    _draw_strip(strip, lips)
    _draw_curves(curves, lips)
    _draw_pose(pose, lips)
    return write_figure(figure, path, dpi=110)


def _draw_strip(axes: Axes, lips: Lips) -> None:
    start_s, end_s = float(lips.time_s[0]), lips.duration_s
    edges = np.linspace(start_s, end_s, _CROPS + 1)
    for left, right in itertools.pairwise(edges):
        row = int(np.argmin(np.abs(lips.time_s - left)))
        axes.imshow(
            lips.roi[row], cmap="gray", vmin=0, vmax=255, extent=(left, right, 0, 1), aspect="auto"
        )
    axes.set(xlim=(start_s, end_s), ylim=(0, 1), yticks=[])
    found = f"found in {int(lips.found.sum())} of {len(lips)} pictures"
    bridged = f", {int(lips.interpolated.sum())} bridged" if lips.interpolated.any() else ""
    axes.set_title(f"{lips.name or 'mouth crops'}: {found}{bridged}", loc="left")


def _draw_curves(axes: Axes, lips: Lips) -> None:
    sharpest = max(float(lips.blur.max()), 1e-6)
    axes.plot(lips.time_s, lips.score, label="score of the detection")
    axes.plot(lips.time_s, lips.pose_confidence, label="confidence of the pose")
    axes.plot(lips.time_s, lips.blur / sharpest, label=f"sharpness / {sharpest:.0f}")
    _shade(axes, lips.time_s, ~lips.found, lips.step_s, _GAP, "lost")
    _shade(axes, lips.time_s, lips.interpolated, lips.step_s, _BRIDGE, "bridged")
    axes.set(ylim=(-0.05, 1.05))
    axes.legend(loc="lower left", ncols=5, fontsize="small")


def _draw_pose(axes: Axes, lips: Lips) -> None:
    for column, label in enumerate(("yaw", "pitch", "roll")):
        axes.plot(lips.time_s, lips.pose_deg[:, column], label=label)
    axes.set(xlabel="time (s)", ylabel="pose (degrees)")
    axes.legend(loc="lower left", ncols=3, fontsize="small")


def _shade(
    axes: Axes, time_s: np.ndarray, where: np.ndarray, step_s: float, colour: str, label: str
) -> None:
    for number, (start, stop) in enumerate(runs(where)):
        axes.axvspan(
            float(time_s[start]),
            float(time_s[stop - 1]) + step_s,
            color=colour,
            alpha=0.3,
            lw=0,
            label=label if number == 0 else None,
        )
