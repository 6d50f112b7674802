"""Hamiltonian Monte Carlo: what is logged, how they are interrupted, what Pyro's kernels do."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from avse_ppl import HMC, NUTS, ComplexNormal, GaussianSpeech, Posterior, Scene, stationary
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.mcmc.chains import ChainRun
from avse_ppl.inference.mcmc.pyro_kernels import HmcKernel, NutsKernel, Potential, run_chain
from avse_ppl.models.simulate import reference_scene
from avse_ppl.utils.plurals import name_count
from tests.helpers import STFT

SPEECH = GaussianSpeech(stft=STFT)
SCENE = reference_scene(False, stft=STFT)
SHORT = {"draws": 4, "warmup": 3, "chains": 3, "init": "prior"}
METHODS = {"nuts": NUTS(max_tree_depth=2, **SHORT), "hmc": HMC(steps=2, **SHORT)}
both = pytest.mark.parametrize("name", METHODS)


def waves(count=1, n_samples=200, seed=0):
    return np.random.default_rng(seed).normal(size=(count, n_samples)).astype("float32")


def run(name, scene=SCENE, mixture=None, seed=0, **settings):
    mixture = waves() if mixture is None else mixture
    return replace(METHODS[name], **settings)(scene, mixture, seed=seed)


@cache
def usual(name):
    return run(name)


@cache
def two_recordings(name):
    return run(name, mixture=[waves()[0], waves(seed=1)[0][:120]], seed=7)


# --- what is logged ------------------------------------------------------------------------------


@both
def test_statistics_of_each_draw(name):
    posterior = usual(name)
    assert set(posterior.stats) == {"lp", "energy", "diverging", "n_steps", "acceptance_rate"}
    assert all(values.shape == (3, 4, 1) for values in posterior.stats.values())
    stats = posterior.stats
    assert stats["diverging"].dtype == bool
    assert np.issubdtype(stats["n_steps"].dtype, np.integer)
    assert ((stats["acceptance_rate"] >= -1e-9) & (stats["acceptance_rate"] <= 1 + 1e-9)).all()
    assert (stats["n_steps"] >= 1).all()
    assert posterior.attrs["gradients"] > stats["n_steps"].sum()
    assert posterior.attrs["chains"] == 3
    assert posterior.attrs["draws"] == 4
    assert posterior.attrs["warmup"] == 3


@both
@pytest.mark.parametrize("tempering", [1.0, 0.5])
def test_lp_is_the_log_density_of_the_draw(name, tempering):
    spectrogram = STFT.analyse(waves())
    posterior = run(name, mixture=spectrogram, tempering=tempering)
    density = LogDensity(SCENE, spectrogram)
    for chain, draw in ((0, 0), (2, 3)):
        values = {k: torch.from_numpy(v[chain, draw]) for k, v in posterior.latents.items()}
        expected = density(density.unconstrain(values), tempering)
        assert posterior.stats["lp"][chain, draw, 0] == pytest.approx(float(expected), abs=0.01)


@both
def test_energy_is_potential_and_kinetic(name):
    # 2 K is chi-squared with as many degrees of freedom as there are latents.
    posterior = run(name, draws=40, warmup=10, chains=1, waveforms=False)
    size = sum(v[0, 0, 0].size for v in posterior.latents.values())
    lp = posterior.stats["lp"][0, :, 0]
    kinetic = posterior.stats["energy"][0, 1:, 0] + lp[:-1]  # before the move
    assert kinetic.min() > 0
    assert kinetic.mean() == pytest.approx(size / 2, abs=4 * np.sqrt(size / 2 / 39))


def test_a_trajectory_of_hmc_has_at_most_its_steps():
    counts = run("hmc", steps=3, draws=15, chains=1).stats["n_steps"]
    assert set(np.unique(counts)) == {2, 3}


def test_a_trajectory_of_nuts_is_bounded_by_its_depth():
    shallow, deep = (run("nuts", max_tree_depth=d, warmup=8, chains=1) for d in (2, 4))
    assert shallow.stats["n_steps"].max() == 3
    assert 3 < deep.stats["n_steps"].max() <= 15


@both
def test_a_scene_without_latents_is_the_filter(name):
    scene = Scene(GaussianSpeech(gain_sd_db=0.0, stft=STFT), lambda frames: ComplexNormal(0.0, 0.5))
    posterior = run(name, scene=scene)
    assert posterior.latents == {}
    assert posterior.speech.shape == (3, 4, 1, 200)
    np.testing.assert_array_equal(posterior.stats["acceptance_rate"], 1.0)
    np.testing.assert_array_equal(posterior.stats["n_steps"], 0)


# --- recordings, chains and seeds ----------------------------------------------------------------


@both
def test_a_recording_is_the_same_alone_as_beside_a_longer_one(name):
    batch = two_recordings(name)
    alone = run(name, mixture=waves(seed=1)[0][:120], seed=8)
    one = batch.select(1)
    np.testing.assert_array_equal(one.mean, alone.mean)
    np.testing.assert_array_equal(one.speech, alone.speech)
    np.testing.assert_array_equal(one.stats["energy"], alone.stats["energy"])
    for site, values in alone.latents.items():
        np.testing.assert_array_equal(one.latents[site], values)


def test_chains_do_not_share_their_random_numbers():
    lengths = run("hmc", steps=9, draws=8, chains=2, waveforms=False).stats["n_steps"]
    assert not np.array_equal(lengths[0], lengths[1])


@both
def test_a_padded_posterior_is_saved_and_read(name, tmp_path):
    batch = two_recordings(name)
    read = Posterior.load(batch.save(tmp_path / "posterior.nc"))
    for site, values in batch.latents.items():
        np.testing.assert_array_equal(read.latents[site], values)
    for stat, values in batch.stats.items():
        np.testing.assert_array_equal(read.stats[stat], values)
    assert read.warnings == batch.warnings


@both
def test_chains_differ(name):
    values = usual(name).latents["speech.gain"]
    assert not np.array_equal(values[0], values[1])
    assert not np.array_equal(values[1], values[2])


def test_the_callers_random_numbers_are_left_alone():
    density = LogDensity(SCENE, STFT.analyse(waves()))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    potential = Potential(density, 1.0)
    kernel = NutsKernel(potential_fn=potential, max_tree_depth=2)
    start = {site.name: site.start for site in density.sites}
    ones = {site.name: torch.ones(site.shape) for site in density.sites}
    run_chain(kernel, potential, start, ones, (2, 2), 0, ChainRun(), lambda: None)
    assert torch.equal(torch.rand(3), expected)


def test_chains_may_start_from_a_fit():
    # Under a vague prior, a level is found by the fit and not by chains this short.
    vague = reference_scene(False, noise_sd_db=40.0, stft=STFT)
    short = {"draws": 1, "warmup": 2, "chains": 3, "init_steps": 40}
    fitted, prior = (run("hmc", scene=vague, init=s, **short) for s in ("svi", "prior"))
    assert np.ptp(np.log(fitted.latents["noise.level"])) < 1.0
    assert np.ptp(np.log(prior.latents["noise.level"])) > 4.0


def test_the_first_metric_is_that_of_the_fit():
    density = LogDensity(SCENE, STFT.analyse(waves()))
    potential = Potential(density, 1.0)
    kernel = HmcKernel(2, potential_fn=potential)
    start = {site.name: site.start for site in density.sites}
    variances = {site.name: torch.full(site.shape, 0.5 + i) for i, site in enumerate(density.sites)}
    calls = []

    def note():
        calls.extend(kernel.inverse_mass_matrix.items())

    run_chain(kernel, potential, start, variances, (2, 1), 0, ChainRun(), note)
    names, diagonal = calls[0]
    expected = torch.cat([variances[name].flatten() for name in names])
    torch.testing.assert_close(diagonal, expected)


@pytest.mark.parametrize(("warmup", "adapted"), [(149, False), (150, True)])
def test_the_metric_is_adapted_in_a_long_warm_up(warmup, adapted):
    method = replace(METHODS["nuts"], warmup=warmup)
    kernel = method.make_kernel(Potential(LogDensity(SCENE, STFT.analyse(waves())), 1.0))
    assert kernel._adapter.adapt_mass_matrix is adapted


@both
def test_a_short_warm_up_finds_a_step_size(name):
    easy = run(name, draws=20, warmup=20, chains=1, init="svi", init_steps=50, waveforms=False)
    assert not easy.stats["diverging"].any()
    assert easy.stats["acceptance_rate"].mean() > 0.5


@both
def test_step_size_and_metric_are_frozen_after_the_warm_up(name):
    # Draws of a chain that adapts to its own states are not of a Markov chain.
    density = LogDensity(SCENE, STFT.analyse(waves()))
    potential = Potential(density, 1.0)
    kernel = replace(METHODS[name], warmup=150).make_kernel(potential)
    start = {site.name: site.start for site in density.sites}
    ones = {site.name: torch.ones(site.shape) for site in density.sites}
    sizes, metrics = [], []

    def note():
        sizes.append(float(kernel.step_size))
        metrics.append(next(iter(kernel.inverse_mass_matrix.values())).clone())

    run_chain(kernel, potential, start, ones, (150, 30), 0, ChainRun(), note)
    assert len(set(sizes[:149])) > 100
    assert len(set(sizes[150:])) == 1
    assert not torch.equal(metrics[0], metrics[150])
    assert all(torch.equal(metric, metrics[150]) for metric in metrics[150:])


# --- progress and interruption -------------------------------------------------------------------


@both
def test_progress_counts_every_draw_of_every_chain_and_recording(name):
    calls = []
    run(name, mixture=waves(2), draws=2, progress=lambda done, total: calls.append((done, total)))
    total = 2 * 3 * (3 + 2)
    assert calls == [(i + 1, total) for i in range(total)]


def interrupt_at(step):
    def progress(done, total):
        if done == step:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize(
    ("step", "kept"),
    [(4, (1, 1)), (7, (1, 4)), (7 + 4, (1, 4)), (7 + 6, (2, 3)), (14 + 7, (3, 4))],
)
def test_an_interrupt_keeps_what_there_is(step, kept):
    chains, draws = kept
    whole = usual("hmc")
    stopped = run("hmc", progress=interrupt_at(step))
    for site, values in whole.latents.items():
        np.testing.assert_array_equal(stopped.latents[site], values[:chains, :draws])
    for stat, values in whole.stats.items():
        np.testing.assert_array_equal(stopped.stats[stat], values[:chains, :draws])
    assert (stopped.attrs["chains"], stopped.attrs["draws"]) == kept
    if kept == (3, 4):  # nothing is missing
        assert "interrupted" not in stopped.attrs
        return
    assert stopped.attrs["interrupted"] is True
    assert stopped.warnings[0] == (
        f"interrupted: kept {name_count(draws, 'draw')} of {name_count(chains, 'chain')}, "
        "of 4 draws of 3 chains asked for"
    )
    assert "interrupted" not in whole.attrs


def test_an_interrupt_leaves_every_recording_the_same():
    # The first chain of both recordings is done, the second of one of them.
    stopped = run("nuts", mixture=waves(2), progress=interrupt_at(3 * 7 + 2))
    assert stopped.speech.shape[:3] == (1, 4, 2)
    assert [info.warnings[0][:11] for info in stopped.fit] == ["interrupted"] * 2


@both
@pytest.mark.parametrize("step", [1, 3])
def test_an_interrupt_before_the_first_draw_is_passed_on(name, step):
    with pytest.raises(KeyboardInterrupt):
        run(name, progress=interrupt_at(step))


# --- what is refused -----------------------------------------------------------------------------


def test_a_chain_that_cannot_start():
    def steep(frames):
        wild = pyro.sample("wild", dist.Normal(0.0, 60.0))
        return ComplexNormal(0.0, 1.0 + torch.exp(wild.clamp(max=80.0)) ** 2)

    with pytest.raises(ValueError, match="a chain cannot start: the log density is"):
        run("nuts", scene=Scene(SPEECH, steep), init="prior", chains=8)


@both
def test_divergences_are_noticed(name):
    # Three draws do not find a step size: it is left far too large.
    scene = Scene(SPEECH, stationary)
    posterior = run(name, scene=scene, draws=5, chains=1, waveforms=False)
    assert posterior.stats["diverging"].all()
    assert posterior.warnings[0].startswith("every draw diverged")
    assert np.ptp(posterior.latents["noise.power"], axis=1).max() == 0  # and nothing was accepted
