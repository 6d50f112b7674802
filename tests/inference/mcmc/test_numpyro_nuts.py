"""NumPyro's sampler as an inference method: what it promises, and what it refuses."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as torch_dist
import pytest
import torch

jax = pytest.importorskip("jax")
pytest.importorskip("numpyro")

import jax.numpy as jnp  # noqa: E402

from avse_ppl import (  # noqa: E402
    NMF,
    ComplexNormal,
    GaussianSpeech,
    LatentSpeech,
    NumPyroNUTS,
    Scene,
)
from avse_ppl.inference.core.convergence import ess  # noqa: E402
from avse_ppl.inference.core.log_density import LogDensity  # noqa: E402
from avse_ppl.inference.mcmc.jax_chains import JaxChains  # noqa: E402
from avse_ppl.inference.mcmc.jax_log_density import list_recordings, make_jax_log_density, to_jax  # noqa: E402
from avse_ppl.inference.mcmc.metric import (  # noqa: E402
    arrange_latents,
    fisher_metric,
)
from avse_ppl.models.networks import RvaeNetwork, TcvaeNetwork, VaeNetwork  # noqa: E402
from avse_ppl.models.simulate import reference_scene, simulate  # noqa: E402
from avse_ppl.pipeline.catalog import resolve_noise  # noqa: E402
from tests.helpers import STFT  # noqa: E402

with torch.random.fork_rng():
    torch.manual_seed(0)
    PRIORS = {
        "gaussian": GaussianSpeech(stft=STFT),
        "vae": LatentSpeech(VaeNetwork(33, 3, hidden=(8,)), stft=STFT),
        "rvae": LatentSpeech(RvaeNetwork(33, 3, hidden=6), stft=STFT),
        "tcvae": LatentSpeech(TcvaeNetwork(33, 3, hidden=8, encoder_hidden=8), stft=STFT),
    }
QUICK = NumPyroNUTS(draws=25, warmup=25, chains=2, metrics=1, max_tree_depth=3, init_steps=20)


def waves(count=1, n_samples=320, seed=0):
    return np.random.default_rng(seed).normal(size=(count, n_samples)).astype("float32")


def nmf_scene():
    return Scene(GaussianSpeech(stft=STFT), NMF(2))


# --- the method ---------------------------------------------------------------------------------


def test_it_runs_is_reproducible_and_a_batch_is_a_loop():
    steps = []
    method = NumPyroNUTS(
        draws=25, warmup=25, chains=2, metrics=1, max_tree_depth=3, init_steps=20,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    mixtures = waves(2)
    batch = method(nmf_scene(), mixtures, seed=5)
    assert batch.kind == "NUTS"
    assert batch.attrs["routine"] == "numpyro-nuts"
    assert batch.speech.shape == (2, 25, 2, 320)
    assert batch.latents["noise.spectra"].shape == (2, 25, 2, 33, 2)
    assert {name: values.shape for name, values in batch.stats.items()} == dict.fromkeys(
        ("lp", "energy", "diverging", "n_steps", "acceptance_rate"), (2, 25, 2)
    )
    assert np.isfinite(batch.mean).all()
    assert (batch.variance > 0).all()
    assert len(batch.fit) == 2
    assert all(info.warnings for info in batch.fit)  # so few draws have to be warned of
    assert steps == [(25, 100), (50, 100), (75, 100), (100, 100)]
    alone = QUICK(nmf_scene(), mixtures[1], seed=6)
    np.testing.assert_array_equal(alone.latents["speech.gain"][:, :, 0],
                                  batch.latents["speech.gain"][:, :, 1])  # fmt: skip
    np.testing.assert_allclose(alone.speech[:, :, 0], batch.speech[:, :, 1], atol=1e-6)


def test_step_sizes_are_adapted_in_the_warm_up_and_frozen_after_it(monkeypatch):
    # Draws of a chain whose step size follows its own states are not of a Markov chain.
    blocks, run = [], JaxChains.run

    def watch(*args, **settings):
        for block in run(*args, **settings):
            blocks.append(np.asarray(block.step_size))
            yield block

    monkeypatch.setattr(JaxChains, "run", watch)
    replace(QUICK, draws=50)(nmf_scene(), waves(), seed=0)
    warmup, *after = blocks
    assert warmup.shape == (25, 2)
    assert (np.diff(warmup, axis=0) != 0).mean() > 0.9
    assert len(after) == 2
    frozen = np.concatenate(after)
    np.testing.assert_array_equal(frozen, np.broadcast_to(frozen[0], frozen.shape))
    assert frozen[0, 0] != frozen[0, 1]  # each chain has its own


def test_an_interrupt_keeps_the_draws_so_far():
    def stop(done, total):
        if done >= 100:
            raise KeyboardInterrupt

    method = NumPyroNUTS(
        draws=200, warmup=25, chains=2, metrics=1, max_tree_depth=3, init_steps=20, progress=stop
    )
    posterior = method(nmf_scene(), waves(), seed=0)
    assert posterior.latents["speech.gain"].shape[:2] == (2, 75)
    assert posterior.attrs["interrupted"]
    assert "interrupted: kept 75 draws of 2 chains" in posterior.warnings[0]


def test_an_interrupt_in_the_warm_up_is_one():
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(QUICK, progress=stop)(nmf_scene(), waves(), seed=0)


def test_a_scene_without_latents_needs_no_chain():
    scene = reference_scene(noise_known=True, gain_sd_db=0.0, stft=STFT)
    posterior = QUICK(scene, waves(), seed=0)
    assert posterior.latents == {}
    assert (posterior.variance > 0).all()


def test_a_plain_pyro_model_is_told_how_to_port_it():
    def hiss(frames):
        return ComplexNormal(0.0, pyro.sample("floor", torch_dist.LogNormal(-1.0, 1.0)))

    with pytest.raises(ValueError, match="'hiss' does not run on NumPyro"):
        QUICK(Scene(GaussianSpeech(stft=STFT), hiss), waves(), seed=0)


def test_without_jax_it_says_what_to_install(monkeypatch):
    drawn_values = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "numpyro" else drawn_values(name)
    )
    with pytest.raises(ImportError, match=r"pip install 'avse-ppl\[jax\]'"):
        QUICK(nmf_scene(), waves(), seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"metrics": 0}, "metrics must be"), ({"max_tree_depth": 0}, "max_tree_depth must be")],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        NumPyroNUTS(**settings)


NOISES = (
    "nmf(2)", "stationary", "ar1", "student-t", "alpha-stable(1.8)", "stationary+hum(1000)",
    "stationary+clicks", "stationary+wind", "nmf(1)+nmf(2)",
)  # fmt: skip
# Each noise model with a prior in turn, each prior with NMF: one minute of compilation a pair, and
# the density on JAX is compared with torch, alone, in test_jax_log_density.py.
PAIRS = [(noise, list(PRIORS)[i % len(PRIORS)]) for i, noise in enumerate(NOISES)]
PAIRS += [("nmf(2)", prior) for prior in PRIORS if ("nmf(2)", prior) not in PAIRS]


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "prior"), PAIRS)
def test_it_runs_every_noise_model_and_every_prior(noise, prior):
    scene = Scene(PRIORS[prior], resolve_noise(noise))
    mixtures = waves(2)
    batch = QUICK(scene, mixtures, seed=0)
    again = QUICK(scene, mixtures, seed=0)
    assert batch.mean.shape == batch.variance.shape == (2, 33, 21)
    assert batch.speech.shape == (2, 25, 2, 320)
    assert (batch.variance > 0).all()
    for name, values in {"mean": batch.mean, "speech": batch.speech, **batch.latents}.items():
        assert np.isfinite(values).all(), name
    np.testing.assert_array_equal(again.speech, batch.speech)
    alone = QUICK(scene, mixtures[1], seed=1)
    np.testing.assert_allclose(alone.mean[0], batch.mean[1], atol=1e-4)


def test_xla_runs_its_parts_of_a_program_on_one_thread():
    # More wait for each other without end, on two cores in three of three runs of the next test.
    code = (
        "import avse_ppl.inference.mcmc.jax_log_density, jax, os; jax.numpy.ones(1); "
        "print(os.environ['PJRT_NPROC'])"
    )
    for given, found in ((None, "1"), ("3", "3")):  # what a user asks for is kept
        env = {name: text for name, text in os.environ.items() if name != "PJRT_NPROC"}
        env |= {} if given is None else {"PJRT_NPROC": given}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == found


@pytest.mark.slow
def test_chains_come_to_an_end():
    code = (
        "import numpy; from avse_ppl import NMF, NumPyroNUTS, Scene, load_speech\n"
        "wave = numpy.random.default_rng(0).normal(size=16000).astype('float32')\n"
        "method = NumPyroNUTS(draws=25, warmup=25, chains=2, metrics=1, waveforms=False)\n"
        "print(method(Scene(load_speech('tcvae'), NMF(4)), wave, seed=0).attrs['gradients'])"
    )
    # Programs as users have them, compiled well and not soon.
    env = {name: text for name, text in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=900)
    assert int(done.stdout) > 100


# --- its metric ----------------------------------------------------------------------------------


def metric_of(scene, mixture, states=400):
    density = LogDensity(scene, mixture)
    density_on_jax = make_jax_log_density(density)
    start = {site.name: to_jax(site.start[:1]) for site in density.sites}
    layout = arrange_latents(start, mixture.frames.freq, mixture.frames.time)
    many = {name: jnp.repeat(value[None], states, 0) for name, value in start.items()}
    metric = fisher_metric(
        density_on_jax, layout, many, list_recordings(density)[0], jax.random.key(0)
    )
    return density, layout, metric, start


# --- against the exact posterior -----------------------------------------------------------------


class Estimate(NamedTuple):
    """Mean and sd of each latent from draws ``(chain, draw, ...)``, and their standard errors."""

    mean: np.ndarray
    mean_error: np.ndarray
    sd: np.ndarray
    sd_error: np.ndarray

    @classmethod
    def of(cls, draws):
        mean = draws.mean((0, 1))
        squared = (draws - mean) ** 2
        sd = np.sqrt(squared.mean((0, 1)))
        size, of_squared = (
            ess(values.reshape(*values.shape[:2], -1), "bulk").reshape(values.shape[2:])
            for values in (draws, squared)
        )
        error = squared.std((0, 1)) / np.sqrt(of_squared)  # of the variance
        return cls(mean, sd / np.sqrt(size), sd, error / (2 * sd))


@pytest.mark.slow
def test_it_finds_the_exact_posterior_of_the_reference_scene():
    from avse_ppl import Exact

    scene = reference_scene(noise_known=False, stft=STFT)
    mixture = simulate(scene, n_samples=320, seed=2).mixture
    exact = Exact(draws=2000, waveforms=False)(scene, mixture, seed=0)
    drawn = NumPyroNUTS(draws=500, warmup=150, chains=2, waveforms=False)(scene, mixture, seed=0)
    assert drawn.warnings == ()
    for name, truth in exact.latents.items():
        scale = np.log if name == "noise.level" else np.asarray
        ours, its = (Estimate.of(scale(values)) for values in (drawn.latents[name], truth))
        # 22 latents, of which none is off by more than Monte Carlo error explains.
        means = (ours.mean - its.mean) / np.hypot(ours.mean_error, its.mean_error)
        sds = (ours.sd - its.sd) / np.hypot(ours.sd_error, its.sd_error)
        for z in (means, sds):
            assert np.abs(z).max() < 4.5, name
            assert np.sqrt(np.mean(z**2)) < (1.6 if z.size > 1 else 4.5), name
        # So that the lines above can fail: a tenth of an sd, and a fifth of one.
        assert (ours.mean_error / its.sd).max() < 0.1 / 2
        assert (ours.sd_error / its.sd).max() < 0.2 / 3
    # The gains move the mean of a bin by a fraction of its sd, which the sampler knows to 1 / 30.
    gap = np.abs(drawn.mean - exact.mean) / exact.sd
    assert gap.max() < 4.5 / 30
    assert np.sqrt(np.mean(gap**2)) < 0.5 / 30
    np.testing.assert_allclose(drawn.sd, exact.sd, rtol=0.05)
