"""Results are what they were: every network, routine and variant against stored values.

A failure after a change that is meant to change results is answered with
``python tests/golden/write.py NAME``, and the change of the values belongs in the same commit. With
``AVSE_PPL_GOLDEN=exact`` the bytes have to be the same too: only where the values were written, on
one machine with one set of libraries.
"""

from __future__ import annotations

import os

import pytest

from tests.golden.cases import CASES, compute
from tests.golden.store import Golden

GOLDEN = Golden.load()


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if c.slow else []) for n, c in CASES.items()],
)
def test_it_is_what_it_was(name):
    found, case = GOLDEN.difference(name, compute(name)), CASES[name]
    assert not found.beyond(case.tolerance, case.spared, case.held)
    if os.environ.get("AVSE_PPL_GOLDEN") == "exact":
        assert found.equal, f"other bits in {', '.join(found.bits)}"


def test_every_case_is_stored_and_no_other():
    assert set(GOLDEN.told) == set(GOLDEN.vectors) == set(CASES)
