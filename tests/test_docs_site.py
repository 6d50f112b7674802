"""The documentation site: every page is in its navigation, and Markdown is converted as meant."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.helpers import ROOT

sys.path.append(str(ROOT / "scripts" / "docs_site"))  # no package: MkDocs loads its files by path

import cli_pages
import markdown_pages


def list_nav(entries: list[Any]) -> list[str]:
    """The pages of a navigation, of all its levels."""
    pages = []
    for entry in entries:
        below = next(iter(entry.values())) if isinstance(entry, dict) else entry
        pages += list_nav(below) if isinstance(below, list) else [below]
    return pages


def test_the_navigation_lists_every_page() -> None:
    yaml = pytest.importorskip("mkdocs.utils.yaml")
    with open(ROOT / "mkdocs.yml", encoding="utf-8") as file:
        listed = list_nav(yaml.yaml_load(file)["nav"])
    made = set(markdown_pages.PLACES.values())
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    written = {place for place in written if place != "index.md"} | {"index.md", "contents.md"}
    pages = [page for page in listed if not page.endswith("/*")]
    assert len(pages) == len(set(pages))
    assert written - set(pages) == set()
    assert set(pages) - written - made == set()


@pytest.mark.parametrize(
    ("place", "text", "expected"),
    [
        ("index.md", "[a](docs/models/vae.md#cards)", "[a](models/vae.md#cards)"),
        ("contents.md", "[a](../README.md)", "[a](index.md)"),
        ("models/vae.md", "[a](../../avse_ppl/models/pretrained)", "[a](../cards/index.md)"),
        ("cards/tcvae.md", "[a](../vae/README.md)", "[a](vae.md)"),
        ("models/vae.md", "[the file](../../Makefile)", "the file"),
        ("models/vae.md", "a\n- b\n- c\n  d\n\n- e", "a\n\n- b\n- c\n  d\n\n- e"),
        ("models/vae.md", "is <!-- figure: a.b.c -->1.2<!-- end -->.", "is 1.2."),
        ("models/vae.md", "```\na\n- [b](../index.md)\n```\n", "```\na\n- [b](../index.md)\n```\n"),
    ],
)
def test_markdown_of_the_repository_becomes_that_of_the_site(
    place: str, text: str, expected: str
) -> None:
    assert markdown_pages.convert_page(text, place, ROOT) == expected


def test_formulas_become_mathml() -> None:
    pytest.importorskip("latex2mathml")
    html = markdown_pages.convert_html(r'<p><span class="arithmatex">\(a &lt; b\)</span></p>')
    assert html.startswith("<p><math")
    assert "<mo>&#x0003C;</mo>" in html and "arithmatex" not in html


def test_every_command_has_a_page() -> None:
    from avse_ppl.cli.main import app

    pages = cli_pages.make_pages()
    names = {command.name for command in app.registered_commands} | {"predictors", "index"}
    assert set(pages) == {f"cli/{name}.md" for name in names}
    assert "\n`-o, --output OUT`\n:   File ending in" in pages["cli/enhance.md"]
    assert "## avse-ppl predictors fit" in pages["cli/predictors.md"]
    assert "[bold]" not in "".join(pages.values()) and "\b" not in "".join(pages.values())
