"""What holds for the tests, and not for the examples in docstrings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from avse_ppl.pipeline import catalog

_DEFAULTS = catalog.DEFAULT_PREDICTORS


@pytest.fixture(scope="session", autouse=True)
def _no_default_predictor() -> Iterator[None]:
    """Leave the default predictor out, which hardly any test is about."""
    patch = pytest.MonkeyPatch()
    patch.setattr(catalog, "DEFAULT_PREDICTORS", ())
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _default_predictor_where_marked(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take it in tests that are marked ``default_predictor``."""
    if request.node.get_closest_marker("default_predictor") is not None:
        monkeypatch.setattr(catalog, "DEFAULT_PREDICTORS", _DEFAULTS)
