"""Plurals: words that agree with the number before them."""

from __future__ import annotations


def choose_form(count: float, one: str, many: str) -> str:
    """Singular for 1, plural for any other number.

    Examples
    --------
    >>> [choose_form(count, "is", "are") for count in (0, 1, 2)]
    ['are', 'is', 'are']
    """
    return one if count == 1 else many


def name_count(count: int, one: str, many: str | None = None) -> str:
    """Number with the word for what was counted.

    Parameters
    ----------
    count
        The number.
    one, many
        The word in the singular, and in the plural: by default with an s.

    Examples
    --------
    >>> name_count(1, "chain"), name_count(2, "chain"), name_count(0, "piece of it", "pieces of it")
    ('1 chain', '2 chains', '0 pieces of it')
    """
    return f"{count} {choose_form(count, one, many or f'{one}s')}"
