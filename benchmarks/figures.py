"""Fill the tables and figures of the pages from the results of the benchmarks.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``, on lines of their own; a
figure in running text is ``<!-- figure: TABLE.ROW.VALUE -->9.14<!-- end -->``. What is outside
stays as it is. Rendered Markdown does not show the markers.
"""

from __future__ import annotations

import re
from pathlib import Path

from results import Table, read_tables

ROOT = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"<!-- (table|figure): (\S+) -->(.*?)<!-- end -->", re.S)
_LOOSE = re.compile(r"<!--\s*(?:table|figure|end)\b")


def list_pages(root: Path = ROOT) -> list[Path]:
    """Every page that may have markers: README, docs, model cards and the benchmarks' results."""
    cards = root.glob("avse_ppl/models/pretrained/*/README.md")
    pages = [*root.glob("docs/**/*.md"), *cards, root / "benchmarks" / "RESULTS.md"]
    return [root / "README.md", *sorted(pages)]


def format_figure(name: str, tables: dict[str, Table]) -> str:
    """Format the figure ``TABLE.ROW.VALUE``.

    Raises
    ------
    ValueError
        If no benchmark has it.
    """
    table, _, rest = name.rpartition(".")
    table, _, key = table.rpartition(".")
    try:
        return tables[table].format_figure(key, rest)
    except KeyError as error:
        raise ValueError(f"no benchmark has the figure {name!r}: {error} is missing") from None


def fill_text(text: str, tables: dict[str, Table]) -> str:
    """Fill the markers of a page.

    Raises
    ------
    ValueError
        If a marker names what no benchmark has, is not closed or is spelled in another way, or if a
        figure begins a line, of which Markdown would then leave all as it is.
    """

    def fill(found: re.Match[str]) -> str:
        kind, name, content = found.groups()
        if _LOOSE.search(content):
            raise ValueError(f"the marker of {name!r} is not closed before the next one")
        if kind == "table":
            if name not in tables:
                raise ValueError(f"no benchmark has the table {name!r}; there are {list(tables)}")
            new = f"\n\n{tables[name].format_markdown()}\n\n"
        else:
            if not text[text.rfind("\n", 0, found.start()) + 1 : found.start()].strip():
                raise ValueError(f"the figure {name!r} begins a line; put a word before it")
            new = format_figure(name, tables)
        return f"<!-- {kind}: {name} -->{new}<!-- end -->"

    rest = _LOOSE.search(MARKER.sub("", text))
    if rest:
        raise ValueError(f"a marker is open or misspelled: {rest[0]!r}")
    return MARKER.sub(fill, text)


def list_unshown(tables: dict[str, Table], root: Path = ROOT) -> list[str]:
    """Tables for which no page has a marker."""
    texts = [page.read_text(encoding="utf-8") for page in list_pages(root)]
    shown = {name for text in texts for kind, name, _ in MARKER.findall(text) if kind == "table"}
    return [name for name in tables if name not in shown]


def write_pages(root: Path = ROOT, tables: dict[str, Table] | None = None) -> list[Path]:
    """Fill the markers of all pages; the pages that changed.

    Raises
    ------
    ValueError
        Of the first page whose markers cannot be filled; then no page is written.
    """
    tables = read_tables(root / "benchmarks" / "results") if tables is None else tables
    filled = {}
    for page in list_pages(root):
        text = page.read_text(encoding="utf-8")
        try:
            new = fill_text(text, tables)
        except ValueError as error:
            raise ValueError(f"{page.relative_to(root)}: {error}") from None
        if new != text:
            filled[page] = new
    for page, new in filled.items():
        page.write_text(new, encoding="utf-8")
    return list(filled)
