"""Time limits of all methods, and the announcement of long runs."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest

from avse_ppl import (
    EM,
    HMC,
    NMF,
    NUTS,
    SVI,
    ComplexNormal,
    GaussianSpeech,
    GuidedDiffusion,
    NumPyroNUTS,
    Posterior,
    Scene,
    stationary,
)
from avse_ppl.utils import run_time
from avse_ppl.utils.run_time import LongRunWarning
from tests.helpers import STFT

CHAINS = {"draws": 6, "warmup": 20, "chains": 2, "init": "prior"}
METHODS = {
    "svi": SVI(steps=20, draws=3, tolerance=0.0),
    "em": EM(iterations=20, draws=3),
    "em-langevin": EM("langevin", iterations=20, draws=3),
    "em-mh": EM("mh", iterations=20, draws=3),
    "em-variational": EM("variational", iterations=20, draws=3),
    "guided": GuidedDiffusion(steps=3, sweeps=20, draws=4),
    "hmc": HMC(steps=2, **CHAINS),
    "nuts": NUTS(max_tree_depth=2, **CHAINS),
}
SPEECH = GaussianSpeech(stft=STFT)


class Ticking:
    """A clock that goes on by a second with each step."""

    def __init__(self, monkeypatch):
        self.now, self.steps = 0.0, []
        monkeypatch.setattr(run_time, "perf_counter", lambda: self.now)

    def progress(self, step, steps):
        self.now += 1.0
        self.steps.append(step)


@pytest.fixture
def ticking(monkeypatch):
    return Ticking(monkeypatch)


def wave(count=1, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 320)).astype("float32")


def run(method, clock=None, count=1, **settings):
    method = replace(method, progress=clock and clock.progress, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LongRunWarning)
        return method(Scene(SPEECH, NMF(2)), wave(count), seed=3)


# --- the limit -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_limit_ends_early_with_what_there_is(name, ticking):
    posterior = run(METHODS[name], ticking, count=2, time_limit_s=16.0)
    assert len(ticking.steps) == 16
    assert posterior.kind.ended_early
    assert "ended early" in posterior.kind
    assert posterior.attrs["interrupted"] is True
    assert all("time limit of 16 s was reached" in info.warnings[0] for info in posterior.fit)
    assert np.isfinite(posterior.enhance()).all()
    assert np.isfinite(posterior.mean).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_limit_that_is_not_reached_changes_nothing(name):
    limited, free = run(METHODS[name], time_limit_s=1e6), run(METHODS[name])
    np.testing.assert_array_equal(limited.mean, free.mean)
    np.testing.assert_array_equal(limited.speech, free.speech)
    assert limited.kind == free.kind
    assert not free.kind.ended_early
    assert limited.fit == free.fit


def test_svi_returns_the_guide_of_the_steps_so_far(ticking):
    short = run(SVI(steps=20, draws=3, tolerance=0.0), ticking, time_limit_s=7.0)
    assert short.attrs["steps"] == 7
    assert short.attrs["converged"] is False
    assert short.warnings[0] == "the time limit of 7 s was reached after 7 of 20 steps"
    whole = run(SVI(steps=20, draws=3, tolerance=0.0))
    np.testing.assert_array_equal(short.trace["elbo"], whole.trace["elbo"][:7])


@pytest.mark.parametrize("name", ["hmc", "nuts"])
def test_a_warm_up_takes_at_most_half_of_the_time(name, ticking):
    posterior = run(METHODS[name], ticking, time_limit_s=24.0)
    assert posterior.attrs["chains"] == 1
    assert posterior.attrs["draws"] == 6  # after 13 draws of the warm-up
    assert "kept 6 draws of 1 chain, of 6 draws of 2 chains asked for" in posterior.warnings[0]


@pytest.mark.parametrize("name", ["hmc", "nuts"])
def test_draws_of_a_warm_up_are_kept_where_there_are_no_others(name, ticking):
    posterior = run(METHODS[name], ticking, time_limit_s=6.0)
    assert posterior.latents["noise.spectra"].shape[:2] == (1, 3)
    assert posterior.warnings[0] == (
        "the time limit of 6 s was reached in the warm-up: its last 3 draws of 1 chain were kept, "
        "of 6 draws of 2 chains asked for; they need not be near the posterior"
    )


@pytest.mark.parametrize("name", ["hmc", "nuts", "guided"])
def test_nothing_usable_is_one_error(name, monkeypatch):
    calls = iter(range(10**9))
    monkeypatch.setattr(run_time, "perf_counter", lambda: float(next(calls)))
    with pytest.raises(TimeoutError, match=rf"time limit of 2 s was reached, and {name} has noth"):
        run(METHODS[name], time_limit_s=2.0)


def test_recordings_of_chains_share_the_time(ticking):
    posterior = run(METHODS["nuts"], ticking, count=2, time_limit_s=40.0)
    assert posterior.speech.shape[2] == 2
    assert posterior.attrs["draws"] == 6
    assert len(posterior.fit) == 2


@pytest.mark.slow
def test_numpyro_ends_early_with_what_there_is(ticking):
    method = NumPyroNUTS(draws=100, warmup=75, chains=2, max_tree_depth=2, init="prior")
    posterior = run(method, ticking, time_limit_s=125.0)  # of single draws
    assert 10 < posterior.attrs["draws"] < 100
    assert posterior.kind.ended_early
    early = run(method, ticking, time_limit_s=10.0)
    assert re.search(r"in the warm-up: its last \d draws of 2 chains", early.warnings[0])


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_that_is_no_time(limit):
    with pytest.raises(ValueError, match="time_limit_s"):
        SVI(time_limit_s=limit)


def test_the_flag_is_kept_in_files(tmp_path, ticking):
    posterior = run(METHODS["em"], ticking, time_limit_s=4.0)
    loaded = Posterior.load(posterior.save(tmp_path / "early.nc"))
    assert loaded.kind.ended_early
    assert loaded.kind == posterior.kind
    assert loaded.warnings == posterior.warnings


# --- estimates -----------------------------------------------------------------------------------


def latent_in_each_bin(frames):
    with pyro.plate("freq", frames.freq, dim=-2), pyro.plate("time", frames.time, dim=-1):
        power = pyro.sample("power", dist.LogNormal(frames.number(0.0), 1.0))
    return ComplexNormal(0.0, power)


@pytest.mark.parametrize("method", [NUTS(init="prior"), HMC(init="prior")])
@pytest.mark.parametrize("most_s", [600.0, 40.0])  # if trajectories are as long as they may be
def test_a_long_run_of_chains_says_so_before_it(method, most_s, monkeypatch):
    class Stop(Exception):
        pass

    def refuse(*_):
        raise Stop

    gradient_s = most_s / (method.chains * (method.warmup + method.draws) * method.most_steps)
    monkeypatch.setattr("avse_ppl.inference.mcmc.hmc.check_initial_state", lambda *_: gradient_s)
    monkeypatch.setattr("avse_ppl.inference.mcmc.hmc.run_chain", refuse)
    with pytest.warns(LongRunWarning) as caught, pytest.raises(Stop):
        method(Scene(SPEECH, latent_in_each_bin), wave(), seed=0)
    text = str(caught[0].message)
    # The upper end holds if a step takes up to twice as long as a gradient, timed by itself.
    assert f" to {'20 min' if most_s == 600 else '80 s'}: 4 chains" in text
    assert f"{method.name} of {33 * 21 + 21} latents takes about" in text
    assert "4 chains of 500 draws" in text
    assert "'svi'" in text
    assert "--time-limit" in text


def test_estimates_draw_no_random_numbers():
    import torch

    from avse_ppl.inference.core.log_density import LogDensity
    from avse_ppl.inference.mcmc.jax_log_density import time_gradient

    density = LogDensity(Scene(SPEECH, stationary), STFT.analyse(wave()))
    state = torch.random.get_rng_state()
    start = {site.name: site.start for site in density.sites}
    assert 0 < time_gradient(density, start) < 1.0
    assert torch.equal(torch.random.get_rng_state(), state)
