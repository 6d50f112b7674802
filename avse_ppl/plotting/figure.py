"""House style of all figures: colours, line styles, maps; axes, saving, magnitudes in dB.

Lines differ in their style and not only in their colour, and maps grow steadily lighter, so that a
figure reads in grey and to colour-blind readers.
"""

from __future__ import annotations

import itertools
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
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
NOISY, DARK = "0.6", "#00324F"  # of what is given, and of a line on a band
# Perceptually uniform, and lighter with every step: levels, and differences around 0, which is the
# grey in the middle.
LEVEL_MAP, DIFFERENCE_MAP = "magma", "cividis"
# Colours by Okabe and Ito, which colour-blind readers tell apart, each with a line style.
LINES: tuple[tuple[str, Any], ...] = (
    ("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"),
    ("#000000", (0, (6, 1, 1, 1, 1, 1))), ("#E69F00", (0, (6, 2))), ("#56B4E9", (0, (3, 1, 1, 1))),
    ("#7A5195", (0, (1, 1))),
)  # fmt: skip
HATCHES = ("", "...", "///", "\\\\\\", "xxx", "---", "ooo", "|||")
STYLE: Mapping[str, Any] = MappingProxyType(
    {
        "font.size": 9.0,
        "axes.titlesize": 10.0,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "lines.linewidth": 1.3,
        "legend.fontsize": 8.0,
        "legend.framealpha": 0.85,
        "legend.edgecolor": "none",
        "hatch.linewidth": 0.6,
        "image.cmap": LEVEL_MAP,
    }
)


@contextmanager
def use_style() -> Iterator[None]:
    """Draw in the house style; a context, or a decorator of a function that draws.

    References
    ----------
    Okabe and Ito, "Color universal design", 2008. Nuñez, Anderton and Renslow, "Optimizing
    colormaps with consideration for color vision deficiency", PLOS ONE 2018 (cividis).

    Examples
    --------
    >>> import matplotlib
    >>> with use_style():
    ...     matplotlib.rcParams["axes.spines.top"]
    False
    """
    import matplotlib
    from matplotlib import rcsetup

    colours, styles = zip(*LINES, strict=True)
    cycle = rcsetup.cycler(color=colours, linestyle=styles)
    settings: Any = {**STYLE, "axes.prop_cycle": cycle}
    with matplotlib.rc_context(settings):
        yield


def take_axes(
    axes: Any, shape: tuple[int, int], size_in: tuple[float, float], **layout: Any
) -> list[Any]:
    """Take the axes of the caller, row by row, or make a figure of this shape.

    Parameters
    ----------
    axes
        One axes, several in any arrangement, or None.
    shape
        Rows and columns that are drawn.
    size_in
        Width and height of a figure that is made, inches.
    layout
        For ``Figure.subplots``.

    Raises
    ------
    ValueError
        If the caller gave another number of axes.

    Examples
    --------
    >>> len(take_axes(None, (1, 3), (9.0, 3.0)))
    3
    """
    rows, columns = shape
    if axes is None:
        return list(make_figure(*size_in).subplots(rows, columns, squeeze=False, **layout).flat)
    found = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(found) != rows * columns:
        raise ValueError(
            f"expected {rows * columns} axes, found {len(found)}; pass as many, or none"
        )
    return found


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


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Save a figure atomically at the resolution of all plots, 120 dots an inch.

    Raises
    ------
    ValueError, OSError
        As `check_figure_path`.
    """
    return write_figure(figure, check_figure_path(path), dpi=120)


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
