"""One thread at a time runs Pyro programs, and each gets what it would get alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from avse_ppl import GaussianSpeech, Scene, stationary
from avse_ppl.models.simulate import simulate
from tests.contract.cast import PRIORS, make_method
from tests.helpers import STFT, waves


@pytest.mark.parametrize("method", ["svi", "em", "nuts"])
def test_threads_get_what_they_would_get_alone(method):
    scene, rows = Scene(PRIORS["tcvae"], stationary), waves(6)

    def run(seed):
        return make_method(method)(scene, rows[seed], seed=seed).enhance()

    alone = [run(seed) for seed in range(6)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, range(6)))
    np.testing.assert_array_equal(together, alone)


def test_threads_may_simulate():
    scene = Scene(GaussianSpeech(stft=STFT), stationary)

    def draw(seed):
        return simulate(scene, 320, seed=seed).mixture.values

    alone = [draw(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(draw, range(8)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
