"""Reference of the Python interface: a page for each room, filled from docstrings."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

# In the order of a reader, who begins with a recording and ends with training.
ROOMS = (
    "pipeline", "models", "inference", "posterior", "signal", "distributions", "evaluation",
    "video", "plotting", "report", "data", "training",
)  # fmt: skip
# Rooms whose names are not all in one list: modules shown whole, behind the public names.
MODULES = {
    "models": ("avse_ppl.models.protocols", "avse_ppl.models.simulate"),
}


def read_docstring(path: Path) -> str:
    """Read the docstring of a module."""
    return inspect.cleandoc(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")


def read_names(path: Path) -> list[str]:
    """Read ``__all__`` of a module, or nothing where it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def make_pages(root: Path) -> dict[str, str]:
    """Make a page for each room, names of ``avse_ppl`` first, and one that lists those names."""
    import avse_ppl

    package = root / "avse_ppl"
    pages = {}
    index = [
        "# Python API",
        "What `import avse_ppl` offers, by the room that it is from. Each room has more, and its"
        " page shows the names of this list first.",
    ]
    for room in ROOMS:
        path = package / room / "__init__.py"
        top = [name for name, source in avse_ppl._SOURCES.items() if source.split(".")[1] == room]
        rest = [name for name in read_names(path) if name not in top]
        text = [f"# `avse_ppl.{room}`", read_docstring(path)]
        text += [f"::: avse_ppl.{name}" for name in top]
        text += [f"::: avse_ppl.{room}.{name}" for name in rest]
        text += [f"::: {module}" for module in MODULES.get(room, ())]
        pages[f"api/{room}.md"] = "\n\n".join(text) + "\n"
        links = ", ".join(f"[`{name}`]({room}.md#avse_ppl.{name})" for name in top or ())
        summary = read_docstring(path).split("\n\n")[0]
        index.append(
            f"**[`avse_ppl.{room}`]({room}.md)**: {summary}" + (f" {links}" if top else "")
        )
    return {"api/index.md": "\n\n".join(index) + "\n", **pages}
