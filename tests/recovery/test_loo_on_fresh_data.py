"""Leave-one-out densities of overlapping frames, against recordings never seen."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from avse_ppl import NMF, SVI, ComplexNormal, GaussianSpeech, Scene
from avse_ppl.evaluation.loo import loo
from avse_ppl.evaluation.pointwise_log_likelihood import make_pointwise_log_likelihood
from avse_ppl.inference.core.log_density import LogDensity
from tests.helpers import STFT

QUIET = GaussianSpeech(1e-6 * torch.ones(33), 0.0, STFT)
INNER = (slice(1, -1), slice(3, -3))  # neither real bins nor frames that reach past an end
RECORDINGS = 10


def level(frames):
    return ComplexNormal(0.0, pyro.sample("level", dist.LogNormal(0.0, 2.0)))


def score_new_data(noise, seed):
    """Sums over bins: left out with their neighbours, seen, and of a fresh recording."""
    seen, fresh = np.random.default_rng(seed).normal(size=(2, 1600)).astype("float32")
    scene, mixture = Scene(QUIET, noise), STFT.analyse(seen)
    posterior = SVI(steps=250, draws=300, waveforms=False, tempering=1.0, learning_rate=0.15)(
        scene, mixture, seed=0
    )
    found = loo(scene, mixture, posterior)
    other = STFT.forward(torch.from_numpy(fresh)[None]) / mixture.scale[:, None, None]
    draws = [
        {name: torch.from_numpy(value[0, d]) for name, value in posterior.latents.items()}
        for d in range(300)
    ]
    assert make_pointwise_log_likelihood(LogDensity(scene, mixture), posterior, 0).local == ()
    logs = torch.stack([scene.laws_given(d, mixture).mixture.log_prob(other)[0] for d in draws])
    expected = (logs.logsumexp(0) - np.log(300)).numpy()
    return [values[INNER].sum() for values in (found.elpd, found.in_sample, expected)]


@pytest.mark.slow
def test_a_model_is_not_credited_for_copies_of_what_is_left_out():
    # NMF has 266 latents too many for white noise; what they cost on fresh data is what
    # leaving out says they cost, to a quarter of it. In-sample densities see none of it.
    gaps = np.array([
        np.subtract(score_new_data(NMF(2), seed), score_new_data(level, seed))
        for seed in range(RECORDINGS)
    ])  # fmt: skip
    left_out, in_sample, fresh = gaps.T
    cost = -fresh.mean()
    error = (left_out - fresh).std(ddof=1) / np.sqrt(RECORDINGS)
    assert cost > 100
    assert abs((left_out - fresh).mean()) < 0.25 * cost + 3 * error
    assert (in_sample - fresh).mean() > 0.9 * cost
