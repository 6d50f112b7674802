"""Docstrings for the site: what Griffe and Python-Markdown read otherwise than it is meant."""

# pyright: reportMissingImports=false
# Griffe comes with MkDocs, which is optional.
from __future__ import annotations

import re
import textwrap
from typing import Any

from griffe import Extension, Object

INLINE = re.compile(r":math:`([^`]+)`")
DISPLAY = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*|[ \t]*(?=\n\1 +\S)))*)", re.M)

SHARED = re.compile(r"^(\w+(?:, \w+)+)\n((?: {4,}\S.*\n|\n(?= {4}\S))+)", re.M)


def convert_formulas(text: str) -> str:
    r"""Convert formulas to Markdown.

    Examples
    --------
    >>> print(convert_formulas("The power :math:`|s|^2` is\n\n.. math:: a =\n    b\n\nnow."))
    The power $|s|^2$ is
    <BLANKLINE>
    $$a =
    b$$
    <BLANKLINE>
    now.
    """

    def render(found: re.Match[str]) -> str:
        lines = [line.strip() for line in found[2].splitlines() if line.strip()]
        return textwrap.indent("\n".join(["$$" + lines[0], *lines[1:]]) + "$$", found[1])

    return INLINE.sub(r"$\1$", DISPLAY.sub(render, text))


def part_parameters(text: str) -> str:
    r"""Give each of several parameters that share a description one of its own.

    Griffe would give all of them the type and the default of the first.

    Examples
    --------
    >>> print(part_parameters("lower, upper\n    Ends of the band.\n"), end="")
    lower
        Ends of the band.
    upper
        Ends of the band.
    """
    return SHARED.sub(
        lambda found: "".join(f"{name}\n{found[2]}" for name in found[1].split(", ")), text
    )


def indent_items(text: str) -> str:
    r"""Indent the paragraphs of list items by four, as Python-Markdown asks for.

    Examples
    --------
    >>> print(indent_items("- an item\n\n  and more of it\n\nafter it"))
    - an item
    <BLANKLINE>
        and more of it
    <BLANKLINE>
    after it
    """
    lines = []
    in_item = False
    for line in text.split("\n"):
        inside = in_item and line.startswith("  ")
        if line.startswith("- ") and lines and lines[-1].startswith("    "):
            lines.append("")  # the next item, and not a line of the paragraph
        in_item = inside or line.startswith("- ") or (in_item and not line)
        lines.append("  " + line if inside else line)
    return "\n".join(lines)


class Docstrings(Extension):
    """Converts every docstring."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Convert that of one object."""
        if obj.docstring:
            text = indent_items(convert_formulas(obj.docstring.value))
            obj.docstring.value = part_parameters(text + "\n")
