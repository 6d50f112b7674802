"""Hooks of MkDocs that make the documentation site from the files as they stand in the repository.

Pages are written for readers of the repository. When the site is built, this adds what lies
outside ``docs/`` (README, changelog, model cards), the reference of the command line and of the
Python interface, and turns the Markdown of code forges into that of Python-Markdown. Formulas
become MathML, which browsers render by themselves.
"""

# pyright: reportMissingImports=false
# MkDocs is optional.
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import api_pages
import cli_pages
import markdown_pages

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(__file__).resolve().parent / "assets"


def make_pages() -> dict[str, str]:
    """Make the pages that are not in ``docs/``: their place on the site, and their Markdown."""
    return {
        **markdown_pages.collect_pages(ROOT),
        **cli_pages.make_pages(),
        **api_pages.make_pages(ROOT),
    }


def expand_nav(entries: list[Any], made: list[str]) -> list[Any]:
    """Replace ``folder/*`` by the pages of that folder that are made, its index first."""
    expanded: list[Any] = []
    for entry in entries:
        if isinstance(entry, dict):
            expanded += [
                {title: expand_nav(below, made) if isinstance(below, list) else below}
                for title, below in entry.items()
            ]
        elif entry.endswith("/*"):
            expanded += [page for page in made if page.startswith(entry[:-1])]
        else:
            expanded.append(entry)
    return expanded


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the pages once, and put them into the navigation."""
    config.extra["made_pages"] = make_pages()
    config.nav = expand_nav(config.nav or [], list(config.extra["made_pages"]))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and the style of the site."""
    from mkdocs.structure.files import File

    for place, text in config.extra["made_pages"].items():
        if known := files.get_file_from_path(place):
            files.remove(known)
        files.append(File.generated(config, place, content=text))
    for path in sorted(ASSETS.iterdir()):
        files.append(File.generated(config, f"assets/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the Markdown of code forges into that of Python-Markdown."""
    return markdown_pages.convert_page(markdown, page.file.src_uri, ROOT)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn formulas into MathML."""
    return markdown_pages.convert_html(html)
