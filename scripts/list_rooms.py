"""Write the tables of rooms in docs/architecture.md from the docstrings of the package.

``python scripts/list_rooms.py``: one table for each folder, one row for each file with the first
sentence of its docstring. Everything outside the section "Rooms" stays as it is.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "avse_ppl"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "## Rooms\n", "## Decisions\n"
# In the order of the data; folders inside one follow it.
ORDER = (
    "signal", "distributions", "models", "inference", "posterior", "evaluation", "video", "data",
    "training", "plotting", "report", "pipeline", "cli", "utils",
)  # fmt: skip


def first_sentence(path: Path) -> str:
    """Return the first sentence of a module's docstring, on one line."""
    text = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
    return " ".join(text.split())


def render_rooms() -> str:
    """Render a table for each folder that holds modules."""
    rooms = [path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    known = [room for room in rooms if room.relative_to(PACKAGE).parts[0] in ORDER]
    known.sort(key=lambda room: (ORDER.index(room.relative_to(PACKAGE).parts[0]), room.parts))
    sections = []
    for room in known:
        files = sorted(path for path in room.glob("*.py") if path.name != "__init__.py")
        if files:
            rows = [f"| `{path.name}` | {first_sentence(path)} |" for path in files]
            head = f"### `{room.relative_to(PACKAGE)}/`\n\n{first_sentence(room / '__init__.py')}\n"
            sections.append("\n".join([head, "| file | content |", "|---|---|", *rows, ""]))
    return "\n".join(sections)


def main() -> None:
    """Replace the section."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{render_rooms()}\n{END}{after}")


if __name__ == "__main__":
    main()
