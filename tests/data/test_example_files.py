"""Example recordings that come with the package."""

from __future__ import annotations

import pytest

from avse_ppl.data import get_example_path
from tests.helpers import BUNDLED


def test_the_examples_of_the_checkout_are_those_of_the_package() -> None:
    for path in BUNDLED.iterdir():
        assert get_example_path(path.name).samefile(path)


@pytest.mark.parametrize("name", ["violin.flac", "../__init__.py", "", "."])
def test_another_name_is_an_error_that_lists_them(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected one of .*speech\.flac.*; found"):
        get_example_path(name)
