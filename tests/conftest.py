"""What holds for the tests, and not for the examples in docstrings."""

from __future__ import annotations

import pytest

from avse_ppl.pipeline import catalog


@pytest.fixture(autouse=True)
def _no_default_predictor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the default predictor out, which hardly any test is about, but where it is marked."""
    if request.node.get_closest_marker("default_predictor") is None:
        monkeypatch.setattr(catalog, "DEFAULT_PREDICTORS", ())
