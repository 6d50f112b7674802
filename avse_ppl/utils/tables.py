"""Short tables of facts, as text and as HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping

_LONGEST = 300  # characters of a fact
_MOST = 30  # rows


def format_facts(title: str, facts: Mapping[str, object]) -> str:
    """Facts as lines of text, empty ones left out.

    Examples
    --------
    >>> print(format_facts("Scene", {"noise": "nmf", "reliability": None}))
    Scene
      noise: nmf
    """
    return "\n".join([title, *(f"  {name}: {text}" for name, text in list_facts(facts))])


def format_facts_html(title: str, facts: Mapping[str, object]) -> str:
    """Facts as an HTML table; everything is escaped, long texts and tables are cut.

    Examples
    --------
    >>> format_facts_html("Scene", {"noise": "a < b"}).count("a &lt; b")
    1
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
        for name, text in list_facts(facts)
    )
    return f"<table><caption><b>{html.escape(title)}</b></caption>{rows}</table>"


def list_facts(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    """Names and texts of facts that are not empty, at most 30 of at most 300 characters."""
    rows = [(name, str(fact)) for name, fact in facts.items() if fact not in (None, "", (), [])]
    cut = [(n, t if len(t) <= _LONGEST else t[: _LONGEST - 3] + "...") for n, t in rows[:_MOST]]
    return cut if len(rows) <= _MOST else [*cut, ("...", f"{len(rows) - _MOST} more")]
