"""What every inference method promises, with every noise model and every prior.

The fast tests hold each method with one scene, and each noise model and prior with one method; all
combinations run in the slow ones.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from avse_ppl import EM, SVI, ComplexNormal, Posterior, Scene, Stft
from avse_ppl.inference.core.log_density import LogDensity
from tests.contract.cast import (
    ALL,
    FEW,
    ITERATIONS,
    KINDS,
    METHODS,
    ONE_EACH,
    STEPS,
    TIME,
    WITHOUT_SCENE,
    N,
    chains_of,
    draws_of,
    has_setting,
    make_method,
    make_scene,
    sites_of,
    trace_names,
)
from tests.helpers import STFT, arrays_of, waves


def parametrise(fast, cases=ALL):
    """Run through all cases; those that are not among the fast ones are slow."""
    rows = [pytest.param(*c, marks=[] if c in fast else pytest.mark.slow, id="-".join(c))
            for c in cases]  # fmt: skip
    return pytest.mark.parametrize(("method", "noise", "prior"), rows)


every_case = parametrise(FEW)
every_pair = parametrise(ONE_EACH, [c for i, c in enumerate(ALL) if i % 7 == 0 or c in ONE_EACH])
every_method = pytest.mark.parametrize("method", METHODS)
# NumPyro compiles anew for each setting, which takes seconds: its own tests hold those.
ON_TORCH = [method for method in METHODS if method != "numpyro-nuts"]
iterative = pytest.mark.parametrize("method", list(ITERATIONS))


def scene_for(method):
    """A quick scene that a method can run on."""
    if method == "guided-udiffse":
        return make_scene("known", "white")
    return make_scene("level" if method == "exact" else "known", "gaussian")


def run(method, scene=None, mixture=None, seed=0, **settings) -> Posterior:
    mixture = waves(1) if mixture is None else mixture
    scene = scene_for(method) if scene is None else scene
    return replace(make_method(method), **settings)(scene, mixture, seed=seed)


@cache
def run_batch_of_two(method, noise, prior):
    return run(method, make_scene(noise, prior), waves(), seed=3)


@cache
def run_second_alone(method, noise, prior):
    """The second recording of that batch."""
    return run(method, make_scene(noise, prior), waves()[1], seed=4)


@cache
def run_plain(method):
    """What several tests of settings compare with."""
    return run(method)


# --- every method, noise and prior ---------------------------------------------------------------


@every_case
def test_it_runs_and_returns_what_it_says(method, noise, prior):
    posterior = run_batch_of_two(method, noise, prior)
    grid = (2, 33, TIME)
    assert posterior.mean.shape == posterior.variance.shape == posterior.mixture.shape == grid
    assert posterior.mean.dtype == posterior.mixture.dtype == np.complex64
    chains, drawn = chains_of(method), 1 if method == "em" else draws_of(method)
    assert posterior.speech.shape == (chains, draws_of(method), 2, N)
    sites = {} if method in WITHOUT_SCENE else {**sites_of(prior), **sites_of(noise)}
    assert {k: v.shape for k, v in posterior.latents.items()} == {
        name: (chains, drawn, 2, *shape) for name, shape in sites.items()
    }
    assert posterior.n_samples == (N, N)
    assert posterior.stft == STFT
    assert all(np.isfinite(values).all() for values in arrays_of(posterior).values())
    assert (posterior.variance > 0).all()
    assert set(posterior.trace) == trace_names(method)
    assert all(values.shape == (STEPS, 2) for values in posterior.trace.values())
    for r in range(2):
        np.testing.assert_allclose(posterior.noisy(r), waves()[r], atol=1e-4)
        denoised = prior in ("white", "score") and method.startswith("guided")
        if not denoised and method not in WITHOUT_SCENE:
            # The Wiener filter takes away and never adds, up to the mean over draws; a denoised
            # spectrogram may be louder than the mixture, and so may what a network answers.
            assert (np.abs(posterior.mean[r]) <= np.abs(posterior.mixture[r]) * 1.0001).all()


@every_case
def test_it_says_what_was_approximated(method, noise, prior):
    posterior = run_batch_of_two(method, noise, prior)
    kind, _, about = posterior.kind.partition(" of ")
    if method == "guided":
        assert (kind, bool(about)) == (KINDS[method], True)  # bins or latents, and the noise
    else:
        assert posterior.kind == KINDS[method]
    assert posterior.attrs["seed"] == 3
    assert posterior.attrs["inference_s"] >= 0


@every_pair
def test_the_same_seed_is_the_same_to_the_bit(method, noise, prior):
    first = arrays_of(run_second_alone(method, noise, prior))
    torch.manual_seed(987)  # what the caller did to the global generators plays no part
    np.random.seed(987)
    second = arrays_of(run(method, make_scene(noise, prior), waves()[1], seed=4))
    assert list(first) == list(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@every_pair
def test_another_seed_is_another_result(method, noise, prior):
    first = run_second_alone(method, noise, prior)
    second = run(method, make_scene(noise, prior), waves()[1], seed=5)
    np.testing.assert_array_equal(first.mixture, second.mixture)
    assert (first.speech != second.speech).mean() > 0.99
    if method != "em":
        # The noise of EM is a point; few draws of one number on a grid may coincide.
        drawn = set(first.latents) - (set() if method.startswith("svi") else set(sites_of(noise)))
        for name in drawn:
            assert not np.array_equal(first.latents[name], second.latents[name]), name


@every_pair
def test_a_batch_is_the_loop(method, noise, prior):
    # Single precision; a few steps do not amplify its rounding by more than this. Seeds count up
    # along a batch: its second recording is that recording alone with the next seed.
    batch = run_batch_of_two(method, noise, prior).select(1)
    single = run_second_alone(method, noise, prior)
    gap = np.abs(batch.mean - single.mean)
    assert gap.max() < 1e-3 * np.abs(single.mixture).mean()
    np.testing.assert_allclose(batch.variance, single.variance, rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(batch.speech, single.speech, atol=5e-3)
    assert set(batch.latents) == set(single.latents)
    for name, values in single.latents.items():
        np.testing.assert_allclose(batch.latents[name], values, rtol=1e-2, atol=5e-3, err_msg=name)


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [m for m in ON_TORCH if has_setting(m, "tempering")])
def test_tempering_is_flagged(method):
    untempered, tempered = run_plain(method), run(method, tempering=0.25)
    assert tempered.kind.startswith(KINDS[method])
    assert tempered.kind.endswith(", tempered 0.25")
    assert not np.array_equal(untempered.mean, tempered.mean)


@pytest.mark.parametrize("method", ON_TORCH)
def test_waveforms_can_be_left_out(method):
    lean, full = run(method, waveforms=False), run_plain(method)
    assert lean.speech.shape == (chains_of(method), 0, 1, N)
    np.testing.assert_array_equal(lean.mean, full.mean)
    np.testing.assert_array_equal(lean.variance, full.variance)
    assert set(lean.latents) == set(full.latents)


@pytest.mark.parametrize("method", [m for m in ON_TORCH if has_setting(m, "draws")])
def test_as_many_draws_as_asked_for(method):
    for draws in (1, 5):
        posterior = run(method, draws=draws)
        assert posterior.speech.shape == (chains_of(method), draws, 1, N)
        assert posterior.draws().shape == (chains_of(method) * draws, N)


@pytest.mark.parametrize("method", ON_TORCH)
def test_double_precision_is_near_single(method):
    # Chains as short as these have to start near.
    near = {"init_steps": 40} if method in ("nuts", "hmc") else {}
    single, double = (run(method, dtype=dtype, **near) for dtype in (torch.float32, torch.float64))
    assert double.mean.dtype == np.complex64
    if method != "guided-udiffse":  # whose variance is the spread of a few chains
        # Each draws numbers of its own precision, which are other numbers.
        assert np.sqrt(np.mean(np.abs(single.mean - double.mean) ** 2 / double.variance)) < 1.0


@iterative
def test_progress_is_reported(method):
    steps = []
    run(method, progress=lambda step, count: steps.append((step, count)))
    assert steps == [(i + 1, STEPS) for i in range(STEPS)]


COUNT = ((0, -1, 2.5, True, "5"), "must be a whole number of at least")
NUMBER = ((0.0, -0.1, float("nan"), float("inf")), "must be a finite number above 0")
BAD_SETTINGS = [
    *(("svi", name, *COUNT) for name in ("steps", "draws", "rank")),
    ("svi", "moment_draws", (0, 2.5), "must be a whole number of at least"),
    ("svi", "noise_updates", (-1, 1.5, True, "5"), "must be a whole number of at least 0"),
    ("svi", "k_hat_draws", (-1, 1, 24, 50.0, True), "must be a whole number of at least 25"),
    ("svi", "tolerance", (-1e-6, float("nan")), "must be at least 0"),
    ("svi", "guide", ("banded", "", None), "unknown guide"),
    *(("svi", name, *NUMBER) for name in ("learning_rate", "tempering")),
    *(("em", name, *COUNT) for name in ("iterations", "e_steps")),
    *(("em", name, *NUMBER) for name in ("step_size", "tempering")),
    ("em", "e_step", ("gibbs", "", None), "must be one of"),
    *(("nuts", name, *COUNT)
      for name in ("draws", "chains", "init_steps", "warmup", "max_tree_depth")),
    ("nuts", "target_acceptance", (0.0, 1.0, float("nan")), "must be between 0 and 1"),
    ("nuts", "waveforms", (0, 2.5), "must be a whole number of at least"),
    ("nuts", "init", ("encoder",), "must be one of"),
    ("hmc", "steps", *COUNT),
    ("exact", "nodes", (0, 8, 33.0), "must be a whole number of at least"),
    ("exact", "draws", *COUNT),
]  # fmt: skip


@pytest.mark.parametrize(("method", "setting", "values", "text"), BAD_SETTINGS)
def test_a_bad_setting_is_refused_when_it_is_set(method, setting, values, text):
    for bad in values:
        with pytest.raises(ValueError, match=text) as caught:
            replace(make_method(method), **{setting: bad})
        assert setting in str(caught.value)


# --- input ---------------------------------------------------------------------------------------


@every_method
def test_arguments_are_checked(method):
    scene = scene_for(method)
    with pytest.raises(ValueError, match="audio-only and would ignore the video"):
        make_method(method)(scene, waves(1), np.zeros((9, 67, 67)), seed=0)
    for seed in (1.5, "0", None, True):
        with pytest.raises(ValueError, match="seed must be a whole number"):
            run(method, seed=seed)
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu' or 'cuda'"):
        run(method, device="tpu")
    grid = "was trained with hop" if method in WITHOUT_SCENE else "the speech prior was made for"
    for mixture, text in (
        (np.full(N, np.nan), "NaN or infinite samples"),
        (np.zeros(N), "is silent"),
        (np.ones(63), "at least 64 samples"),
        (Stft(n_fft=32, hop=8).analyse(waves(1)), grid),
    ):
        with pytest.raises(ValueError, match=text):
            run(method, mixture=mixture)


@every_method
def test_cuda_asked_for_and_absent(method, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch finds no CUDA device"):
        run(method, device="cuda")


@pytest.mark.parametrize("method", [m for m in METHODS if m not in WITHOUT_SCENE])
def test_the_noise_model_is_checked(method):
    def flat(frames):
        return ComplexNormal(0.0, torch.ones(frames.freq))

    speech = scene_for(method).speech
    with pytest.raises(ValueError, match=r"noise model 'flat' returned shape \(33,\)"):
        run(method, Scene(speech, flat))

    def discrete(frames):
        return ComplexNormal(0.0, pyro.sample("on", dist.Bernoulli(0.5)))

    with pytest.raises(ValueError, match="is discrete"):
        run(method, Scene(speech, discrete))


@iterative
def test_each_recording_may_have_its_seed(method):
    scene = make_scene("nmf", "gaussian")
    both = run(method, scene, waves(2), seed=[9, 4])
    assert both.attrs["seed"] == [9, 4]
    for row, seed in enumerate((9, 4)):
        alone = run(method, scene, waves(2)[row : row + 1], seed=seed)
        np.testing.assert_allclose(both.mean[row], alone.mean[0], atol=1e-3)
        np.testing.assert_allclose(both.speech[:, :, row], alone.speech[:, :, 0], atol=1e-3)
        assert both.select(row).attrs["seed"] == seed


@iterative
def test_recordings_of_different_length_share_a_batch(method):
    scene = make_scene("nmf", "gaussian")
    both = run(method, scene, [waves()[0], waves()[1][:200]], seed=3)
    assert both.n_samples == (N, 200)
    assert all(np.isfinite(values).all() for values in arrays_of(both).values())
    first = run(method, scene, waves()[:1], seed=3)
    np.testing.assert_allclose(both.mean[0], first.mean[0], atol=1e-2)


# --- what the iterations do ----------------------------------------------------------------------

OBJECTIVES = [("nmf", "gaussian"), ("heavy-tailed", "vae"), ("stationary", "rvae"),
              ("hierarchy", "dkf")]  # fmt: skip
every_objective = pytest.mark.parametrize(("noise", "prior"), OBJECTIVES)


@every_objective
def test_svi_raises_its_bound(noise, prior):
    method = SVI(steps=50, tolerance=0, draws=2, k_hat_draws=25, waveforms=False)
    elbo = method(make_scene(noise, prior), waves(), seed=0).trace["elbo"]
    before, after = elbo[:10], elbo[-20:]
    error = np.sqrt(before.var(0) / len(before) + after.var(0) / len(after))
    assert (after.mean(0) > before.mean(0) - 3 * error).all()
    assert (after.mean(0) - before.mean(0)).max() > 0


def test_svi_stops_when_nothing_rises():
    scene = make_scene("known", "gaussian")
    patient, hasty = (
        SVI(steps=400, tolerance=tolerance, draws=2, waveforms=False)(scene, waves(1), seed=0)
        for tolerance in (0.0, 0.01)
    )
    assert len(patient.trace["elbo"]) == patient.attrs["steps"] == 400
    assert len(hasty.trace["elbo"]) == hasty.attrs["steps"] < 400
    assert patient.attrs["converged"] and hasty.attrs["converged"]
    n = len(hasty.trace["elbo"])
    gain = patient.trace["elbo"][-50:].mean() - patient.trace["elbo"][n - 25 : n].mean()
    assert gain < 0.05 * 33 * TIME  # nats; the tolerance is 0.01 a bin a window


@every_objective
@pytest.mark.parametrize("tempering", [1.0, 0.25])
def test_em_climbs(noise, prior, tempering):
    # Adam's steps are not monotone by construction, but small ones are, to 0.1 nats in thousands.
    method = EM(iterations=20, step_size=0.01, draws=1, waveforms=False, tempering=tempering)
    log_joint = method(make_scene(noise, prior), waves(), seed=0).trace["log_joint"]
    assert np.diff(log_joint, axis=0).min() > -0.1
    assert (log_joint[-1] - log_joint[0] > 3).all()


@pytest.mark.parametrize("noise", ["nmf", "heavy-tailed"])
def test_the_log_joint_that_em_logs_is_that_of_the_scene(noise):
    # What iteration k logs is the density at the state that iteration k - 1 ended in.
    scene, mixture = make_scene(noise, "gaussian"), STFT.analyse(waves(1))
    method = EM(iterations=4, draws=1, waveforms=False, tempering=0.5)
    values = {
        name: torch.from_numpy(v[0, 0])
        for name, v in method(scene, mixture, seed=0).latents.items()
    }
    joint = LogDensity(scene, mixture).joint(values)
    logged = replace(method, iterations=5)(scene, mixture, seed=0).trace["log_joint"][-1]
    assert float(logged[0]) == pytest.approx(float(0.5 * joint.likelihood + joint.prior), abs=0.05)


def test_langevin_keeps_the_later_half():
    for iterations, draws, kept in ((12, 50, 6), (12, 3, 3), (1, 5, 1)):
        posterior = run("em-langevin", iterations=iterations, draws=draws)
        assert posterior.latents["speech.gain"].shape[1] == kept
        assert posterior.speech.shape[1] == draws


def test_more_e_steps_are_more_gradient_steps():
    known, stationary = make_scene("known", "gaussian"), make_scene("stationary", "gaussian")
    one, three = (run("em", stationary, iterations=2, e_steps=n) for n in (1, 3))
    six = run("em", known, iterations=6, e_steps=1)
    same = run("em", known, iterations=2, e_steps=3)
    assert not np.array_equal(one.mean, three.mean)
    np.testing.assert_allclose(six.latents["speech.gain"], same.latents["speech.gain"], atol=1e-5)
