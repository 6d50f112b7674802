"""Markdown of a repository as pages of a site: links, markers, lists and formulas."""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path

# Files outside docs/, and their place on the site.
PLACES = {
    "README.md": "index.md",
    "docs/index.md": "contents.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/RESULTS.md": "results/benchmarks.md",
    "examples/data/ATTRIBUTION.md": "attribution.md",
    # Folders, which a forge lists
    "docs/results": "results/benchmarks.md",
    "avse_ppl/models/pretrained": "cards/index.md",
}
CARDS = "avse_ppl/models/pretrained"
FENCE = re.compile(r"^(```.*?^```[ \t]*\n?)", re.M | re.S)
LINK = re.compile(r"(?P<bang>!?)\[(?P<text>[^\]]*)\]\((?P<path>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")
MARKER = re.compile(r"<!-- (?:table|figure|not run): .*? -->|<!-- end -->", re.S)
ITEM = re.compile(r"(?:[-*+]|\d+\.) ")
FORMULA = re.compile(r'<(div|span) class="arithmatex">\\[\[(](.*?)\\[\])]</\1>', re.S)


def find_place(path: str) -> str | None:
    """Find where a file of the repository is on the site, or None if it is not there."""
    card = re.fullmatch(rf"{CARDS}/([\w-]+)(/README\.md)?", path)
    if path in PLACES:
        return PLACES[path]
    if card:
        return f"cards/{card[1]}.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def find_source(place: str) -> str:
    """Find which file of the repository a page is made from."""
    sources = {to: path for path, to in PLACES.items() if path.endswith(".md")}
    card = re.fullmatch(r"cards/([\w-]+)\.md", place)
    if card and card[1] != "index":
        return f"{CARDS}/{card[1]}/README.md"
    return sources.get(place, f"docs/{place}")


def collect_pages(root: Path) -> dict[str, str]:
    """Collect the pages that lie outside ``docs/``, among them the model cards and their list."""
    paths = [path for path in PLACES if path.endswith(".md")]
    pages = {PLACES[path]: (root / path).read_text(encoding="utf-8") for path in paths}
    cards = {
        path.parent.name: path.read_text(encoding="utf-8")
        for path in sorted((root / CARDS).glob("*/README.md"))
    }
    rows = []
    for name, text in cards.items():
        what = re.search(r"^(?!#)\S.*", text, re.M)
        rows.append(f"| [{name}]({name}.md) | {what[0] if what else ''} |")
    pages["cards/index.md"] = "\n".join(
        [
            "# Model cards",
            "",
            "What each shipped network was trained on, under which licences, and how well it does.",
            "",
            "| weights | what |",
            "|---|---|",
            *rows,
            "",
        ]
    )
    return pages | {f"cards/{name}.md": text for name, text in cards.items()}


def rewrite_links(text: str, place: str) -> str:
    """Rewrite links between files of the repository as links between pages of the site.

    A link to a file that has no page leaves its text.
    """
    folder = posixpath.dirname(find_source(place))

    def rewrite(found: re.Match[str]) -> str:
        path = found["path"]
        if not path or path.startswith(("http", "mailto")):
            return found[0]
        target = find_place(posixpath.normpath(posixpath.join(folder, path)))
        if target is None:
            return found["text"]
        relative = posixpath.relpath(target, posixpath.dirname(place) or ".")
        return f"{found['bang']}[{found['text']}]({relative}{found['anchor'] or ''})"

    return LINK.sub(rewrite, text)


def part_lists(text: str) -> str:
    """Put an empty line before each list: without one, Python-Markdown sees a paragraph."""
    lines: list[str] = []
    in_list = False
    for line in text.split("\n"):
        starts = ITEM.match(line) is not None
        before = lines[-1] if lines else ""
        if starts and not in_list and before.strip():
            lines.append("")
        in_list = starts or (in_list and bool(line.strip()))
        lines.append(line)
    return "\n".join(lines)


def convert_page(text: str, place: str, root: Path) -> str:
    """Convert a page of the repository to one of the site."""
    if not (root / find_source(place)).exists():
        return text  # made for the site
    parts = FENCE.split(text)
    parts[::2] = [part_lists(rewrite_links(MARKER.sub("", part), place)) for part in parts[::2]]
    return "".join(parts)


def convert_html(text: str) -> str:
    """Convert formulas, which Python-Markdown has marked, to MathML."""
    from latex2mathml.converter import convert  # pyright: ignore[reportMissingImports]

    def render(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        formula = convert(html.unescape(found[2]).strip(), display=display)
        return f'<div class="formula">{formula}</div>' if found[1] == "div" else formula

    return FORMULA.sub(render, text)
