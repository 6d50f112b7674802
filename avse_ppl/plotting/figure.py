"""What all figures share: size, saving, magnitudes in dB, headlines, crops over time."""

from __future__ import annotations

import itertools
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avse_ppl.utils.files import check_writable, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from avse_ppl.video.lips import Lips

SAVE_SUFFIXES = (".png", ".pdf", ".svg")
RANGE_DB = 60.0
GOOD, BAD = "C0", "tab:red"


def make_figure(width_in: float, height_in: float) -> Figure:
    """Make a figure that needs no display, its panels laid out without overlap."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_figure_path(path: str | os.PathLike[str]) -> Path:
    """Make sure that a figure can be written, before it is drawn.

    Raises
    ------
    ValueError
        If the ending is not ``.png``, ``.pdf`` or ``.svg``.
    OSError
        If the folder does not exist or cannot be written to.
    """
    return check_writable(path, suffixes=SAVE_SUFFIXES)


def save_figure(figure: Figure, path: Path) -> Path:
    """Save a figure atomically at the resolution of all plots, 120 dots an inch."""
    return write_figure(figure, path, dpi=120)


def convert_to_db(power: np.ndarray, floor: float = 1e-12) -> np.ndarray:
    """Return powers in dB, those under the floor at it."""
    return 10 * np.log10(np.maximum(power, floor))


def set_headline(
    figure: Any, title: str, warnings: Sequence[str], width: int = 140, fontsize: float = 9
) -> None:
    """Write a title, and below it the warnings in red, each wrapped to `width` characters."""
    lines = [line for text in warnings for line in textwrap.wrap(text, width)]
    color = BAD if lines else "black"
    figure.suptitle(
        "\n".join([*([title] if title else []), *lines]), fontsize=fontsize, color=color
    )


def draw_message(axes: Axes, title: str, message: str) -> None:
    """Leave a panel empty and say why."""
    axes.set_axis_off()
    axes.set_title(title, color="0.5")
    axes.text(0.5, 0.5, message, ha="center", va="center", color="0.5", transform=axes.transAxes)


def draw_crops(axes: Axes, lips: Lips, count: int) -> None:
    """Draw a strip of mouth crops over time, each the one nearest to the middle of its place."""
    edges = np.linspace(float(lips.time_s[0]), lips.duration_s, count + 1)
    for left, right in itertools.pairwise(edges):
        row = int(np.argmin(np.abs(lips.time_s - (left + right) / 2)))
        axes.imshow(
            lips.roi[row], cmap="gray", vmin=0, vmax=255, extent=(left, right, 0, 1), aspect="auto"
        )
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1), yticks=[])
