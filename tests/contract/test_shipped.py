"""Every name of the catalog is in the contract, and what it stands for runs at full resolution.

The shipped priors are run by the floors of quality, in tests/golden.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from avse_ppl import Scene
from avse_ppl.models.noise.parse import MODELS
from avse_ppl.pipeline.catalog import (
    INFERENCE_METHODS,
    NOISE_MODELS,
    resolve_inference,
    resolve_noise,
    resolve_speech,
)
from tests.contract.cast import KINDS, LONGER, SETTINGS, make_method
from tests.helpers import waves


def test_every_method_is_in_the_contract():
    assert set(SETTINGS) == set(KINDS) == set(INFERENCE_METHODS)
    for name in INFERENCE_METHODS:
        method = make_method(name)
        if name != "guided-udiffse":
            assert replace(method, **LONGER[name.split("-")[0]]).name == method.name


def test_every_noise_model_has_a_name_and_a_line():
    assert set(NOISE_MODELS) == set(MODELS)
    assert all(NOISE_MODELS.values())


@pytest.mark.parametrize("noise", NOISE_MODELS)
def test_every_noise_model_is_inferred_at_full_resolution(noise):
    added = noise in ("hum", "clicks", "wind")
    scene = Scene(
        resolve_speech("gaussian"), resolve_noise(f"stationary+{noise}" if added else noise)
    )
    posterior = resolve_inference("svi", draws=2, steps=2)(scene, waves(1, 3000), seed=0)
    assert np.isfinite(posterior.enhance()).all()
