"""The metric of NumPyro's chains: whitening, layout of the latents, Fisher information."""

from __future__ import annotations

import numpy as np
import pytest
import torch

jax = pytest.importorskip("jax")
pytest.importorskip("numpyro")

import jax.numpy as jnp  # noqa: E402

from avse_ppl import NMF, ComplexNormal, GaussianSpeech, Scene  # noqa: E402
from avse_ppl.inference.core.log_density import LogDensity  # noqa: E402
from avse_ppl.inference.mcmc.jax_log_density import (  # noqa: E402
    list_recordings,
    make_jax_log_density,
    to_jax,
)
from avse_ppl.inference.mcmc.metric import (  # noqa: E402
    arrange_latents,
    fisher_metric,
    to_latents,
    to_whitened,
)
from tests.helpers import STFT  # noqa: E402


def waves(count=1, n_samples=320, seed=0):
    return np.random.default_rng(seed).normal(size=(count, n_samples)).astype("float32")


def nmf_scene():
    return Scene(GaussianSpeech(stft=STFT), NMF(2))


def compute_metric(scene, mixture, states=400):
    density = LogDensity(scene, mixture)
    density_on_jax = make_jax_log_density(density)
    start = {site.name: to_jax(site.start[:1]) for site in density.sites}
    layout = arrange_latents(start, mixture.frames.freq, mixture.frames.time)
    many = {name: jnp.repeat(value[None], states, 0) for name, value in start.items()}
    metric = fisher_metric(
        density_on_jax, layout, many, list_recordings(density)[0], jax.random.key(0)
    )
    return density, layout, metric, start


def test_whitening_is_undone():
    _, layout, metric, start = compute_metric(nmf_scene(), STFT.analyse(waves()), states=40)
    latents = {name: value + 0.3 * jnp.ones_like(value) for name, value in start.items()}
    back = to_latents(layout, metric, to_whitened(layout, metric, latents))
    for name, value in latents.items():
        np.testing.assert_allclose(back[name], value, atol=1e-4)


def test_latents_are_sorted_by_what_they_share():
    sizes = {"z": (1, 3, 9), "w": (1, 33, 2), "level": (1, 1, 1), "bins": (1, 33, 9),
             "wide": (1, 63, 9), "odd": (1, 5, 1)}  # fmt: skip
    layout = arrange_latents(
        {name: np.zeros(size) for name, size in sizes.items()}, freq=33, time=9
    )
    assert layout.time == ("z", "bins")
    assert layout.freq == ("w",)
    assert layout.shared == ("level",)
    assert set(layout.independent) == {"odd", "wide"}


def test_the_metric_is_the_inverse_of_the_expected_curvature():
    # Power exp(u_t) in each of 33 bins: information 33 from the data and 1 from the prior.
    def level(frames):
        from pyroapi import distributions as dist
        from pyroapi import ops
        from pyroapi import pyro as program

        with program.plate("time", frames.time, dim=-1):
            return ComplexNormal(0.0, ops.exp(program.sample("u", dist.Normal(0.0, 1.0))))

    speech = GaussianSpeech(spectrum=torch.full((33,), 1e-6), gain_sd_db=0.0, stft=STFT)
    _, _, metric, _ = compute_metric(Scene(speech, level), STFT.analyse(waves()))
    # 400 scores make a variance to 1 / sqrt(200) = 7 %: the sd to half of that.
    np.testing.assert_allclose(metric.time[:, 0, 0], 34**-0.5, rtol=4 * 0.035)


def test_a_shared_latent_that_frames_can_make_up_for_has_the_sd_of_its_ridge():
    # Power exp(l + u_t): given u the data know l to 1 / sqrt(33 T + 1), but u may give way.
    def level(frames):
        from pyroapi import distributions as dist
        from pyroapi import ops
        from pyroapi import pyro as program

        shared = program.sample("l", dist.Normal(0.0, 1.0))
        with program.plate("time", frames.time, dim=-1):
            return ComplexNormal(0.0, ops.exp(shared + program.sample("u", dist.Normal(0.0, 1.0))))

    speech = GaussianSpeech(spectrum=torch.full((33,), 1e-6), gain_sd_db=0.0, stft=STFT)
    mixture = STFT.analyse(waves())
    states = 20_000
    _, _, metric, _ = compute_metric(Scene(speech, level), mixture, states)
    time = mixture.frames.time
    left = time * (33 - 33**2 / 34)  # Schur complement; prior curvatures are 1
    # What frames cannot make up for is the small difference of large numbers, one of them from
    # simulated scores: a sum of 33 Exp(1) - 1, squared, has the relative variance 2 + 6 / 33.
    error = (time * (2 + 6 / 33) / states) ** 0.5 * 33**3 / 34**2
    assert float(metric.shared[0, 0]) == pytest.approx(
        (1 + left) ** -0.5, rel=4.5 * 0.5 * error / (1 + left)
    )
    assert error / (1 + left) < 0.08  # so that the line above can fail
    assert float(metric.shared[0, 0]) > 3 * (1 + 33 * time) ** -0.5
