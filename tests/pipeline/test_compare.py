"""Comparison of noise models: densities against exact ones, and the preferences they lead to."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from avse_ppl import (
    EM,
    NMF,
    SVI,
    ComplexNormal,
    Exact,
    GaussianSpeech,
    GuidedDiffusion,
    Scene,
    Stft,
    compare,
    stationary,
)
from avse_ppl.cli.main import app
from avse_ppl.evaluation.comparison import Comparison, compute_stacking_weights
from avse_ppl.evaluation.loo import loo
from avse_ppl.evaluation.pointwise_log_likelihood import make_pointwise_log_likelihood
from avse_ppl.inference.base import InferenceMethod
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.models.noise.modulated import AR1Gain
from avse_ppl.models.simulate import reference_scene, simulate
from avse_ppl.pipeline.compare import name_noise_models
from avse_ppl.plotting import plot_comparison
from tests.helpers import RATE_HZ, STFT

QUIET = GaussianSpeech(1e-6 * torch.ones(33), 0.0, STFT)


def textured(frames):
    floor = pyro.sample("floor", dist.LogNormal(-1.0, 1.0))
    with pyro.plate("freq", frames.freq, dim=-2), pyro.plate("time", frames.time, dim=-1):
        texture = pyro.sample("texture", dist.InverseGamma(2.0, 1.0))
    return ComplexNormal(0.0, floor * texture)


def plain(frames):
    return ComplexNormal(0.0, pyro.sample("floor", dist.LogNormal(-1.0, 1.0)))


def smooth(frames):
    """A latent for each bin that reaches into the next frame."""
    with pyro.plate("freq", frames.freq, dim=-2), pyro.plate("time", frames.time, dim=-1):
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
    return ComplexNormal(0.0, torch.exp(u + u.roll(1, -1)))


def two_local(frames):
    with pyro.plate("freq", frames.freq, dim=-2), pyro.plate("time", frames.time, dim=-1):
        a = pyro.sample("a", dist.Normal(0.0, 0.7))
        b = pyro.sample("b", dist.Normal(0.5 * a, 0.7))  # depends on the other latent of its bin
    return ComplexNormal(0.0, torch.exp(a + b))


# --- leave-one-out densities ---------------------------------------------------------------------


def test_loo_is_the_exact_one():
    # One unknown level: p(x_i | all but its neighbours), by quadrature over the level.
    scene = reference_scene(noise_known=False, gain_sd_db=0.0, stft=STFT)
    mixture = simulate(scene, n_samples=200, seed=3).mixture
    posterior = Exact(draws=2000, waveforms=False)(scene, mixture, seed=0)
    found = loo(scene, mixture, posterior)
    level = torch.linspace(-6, 4, 2001, dtype=torch.float64)
    sd = 6.0 * np.log(10) / 10
    power = scene.speech(mixture.frames).power[:, :1].double() + level.exp()  # (freq, node)
    logs = -(np.pi * power[:, None]).log() - mixture.power[0].double()[..., None] / power[:, None]
    prior = -0.5 * ((level - np.log(0.3)) / sd) ** 2
    total = logs.sum((0, 1)) + prior
    near = sum(
        torch.nn.functional.pad(logs, (0, 0, 3, 3, 1, 1))[f : f + 33, t : t + logs.shape[1]]
        for f in range(3) for t in range(7)
    )  # fmt: skip
    exact = (total - near + logs).logsumexp(-1) - (total - near).logsumexp(-1)
    draws = posterior.latents["noise.level"].size
    log_mean = (logs * total.softmax(0)).sum(-1)  # posterior sd of each bin's log density
    sd_logs = (((logs - log_mean[..., None]) ** 2) * total.softmax(0)).sum(-1).sqrt()
    error = np.abs(found.elpd - exact.numpy())
    cost = ((logs + total.log_softmax(0)).logsumexp(-1) - exact).numpy()
    assert (error < 8 * sd_logs.numpy() / np.sqrt(draws) + 0.25 * np.abs(cost) + 1e-3).all()
    assert found.p_loo == pytest.approx(cost.sum(), rel=0.15)
    assert found.bad_share < 0.01 and found.integrated == ()
    assert found.in_sample.sum() > found.elpd.sum()


def test_latents_of_single_bins_are_integrated_out():
    # Without speech the integral over the texture is a Student's t density.
    scene = Scene(QUIET, textured)
    mixture = simulate(scene, n_samples=400, seed=1).mixture
    posterior = SVI(steps=150, draws=100, waveforms=False, tempering=1.0, learning_rate=0.15)(
        scene, mixture, seed=0
    )
    density = LogDensity(scene, mixture)
    bins = make_pointwise_log_likelihood(density, posterior, seed=0)
    assert bins.local == ("texture",)
    draws = [
        {n: torch.from_numpy(v[0, d]) for n, v in posterior.latents.items()} for d in range(100)
    ]
    found = torch.stack([bins(draw) for draw in draws])[:, 0]
    floor = torch.stack([draw["floor"] for draw in draws])[:, 0]
    r = mixture.power[0] / floor
    exact = np.log(2.0) - (np.pi * floor).log() - 3 * (r + 1).log()  # a = 2, b = 1
    gap = found - exact
    assert gap.abs().max() < 0.5 and gap.std() < 0.06
    assert gap.mean().abs() < 0.005
    assert (gap.mean(0)[r.mean(0) > 10]).abs().max() < 0.1  # the loudest bins, deep in the tail


def test_two_latents_of_one_bin_are_integrated_out_together():
    scene = Scene(QUIET, two_local)
    mixture = simulate(scene, n_samples=400, seed=1).mixture
    posterior = SVI(steps=150, draws=100, waveforms=False, tempering=1.0, learning_rate=0.15)(
        scene, mixture, seed=0
    )
    bins = make_pointwise_log_likelihood(LogDensity(scene, mixture), posterior, seed=0)
    assert set(bins.local) == {"a", "b"}
    draw = {n: torch.from_numpy(v[0, 0]) for n, v in posterior.latents.items()}
    found = torch.stack([bins(draw) for _ in range(50)]).logsumexp(0)[0] - np.log(50)
    # a + b = 1.5 a + noise is normal with variance 2.25 * 0.49 + 0.49
    u = torch.linspace(-9, 9, 1001, dtype=torch.float64)
    weight = (-0.5 * u**2 / 1.5925).softmax(0)
    logs = -(np.pi * u.exp()).log() - mixture.power[0].double()[..., None] / u.exp()
    exact = (logs + weight.log()).logsumexp(-1)
    gap = found - exact
    assert gap.mean().abs() < 0.01 and gap.abs().max() < 0.3


def test_a_latent_that_reaches_into_other_bins_is_not_integrated():
    scene = Scene(QUIET, smooth)
    mixture = simulate(scene, n_samples=400).mixture
    posterior = SVI(steps=3, draws=100, waveforms=False, tempering=1.0, learning_rate=0.15)(
        scene, mixture, seed=0
    )
    assert make_pointwise_log_likelihood(LogDensity(scene, mixture), posterior, seed=0).local == ()


def test_tempered_draws_are_reweighted_by_the_tempered_density():
    scene = reference_scene(noise_known=False, gain_sd_db=0.0, stft=STFT)
    mixture = simulate(scene, n_samples=200).mixture
    routine = Exact(draws=1000, waveforms=False, tempering=0.05)
    posterior = routine(scene, mixture, seed=0)
    plain_weights = replace(posterior, kind=posterior.kind.with_fields(tempering=1.0))
    right, wrong = (loo(scene, mixture, p) for p in (posterior, plain_weights))
    assert 0 < right.p_loo < wrong.p_loo / 4


def test_what_loo_refuses():
    scene = reference_scene(noise_known=False, stft=STFT)
    mixture = simulate(scene, n_samples=400).mixture
    run = SVI(steps=3, draws=100, waveforms=False, tempering=1.0, learning_rate=0.15)
    with pytest.raises(ValueError, match=r"holds 99 draws of its latents.*200 draws or more"):
        loo(scene, mixture, replace(run, draws=99)(scene, mixture, seed=0))
    with pytest.raises(ValueError, match="not a point estimate; use the method 'svi'"):
        loo(scene, mixture, EM(iterations=2, draws=2)(scene, mixture, seed=0))
    with pytest.raises(ValueError, match="pass the scene that was inferred"):
        loo(reference_scene(True, stft=STFT), mixture, run(scene, mixture, seed=0))
    two = simulate(scene, n_samples=400, recordings=2).mixture
    with pytest.raises(ValueError, match="expected one recording, found 2"):
        loo(scene, two, run(scene, two, seed=0))


def test_a_scene_without_latents_has_the_density_itself():
    scene = reference_scene(noise_known=True, gain_sd_db=0.0, stft=STFT)
    mixture = simulate(scene, n_samples=400).mixture
    found = loo(scene, mixture, Exact(draws=2)(scene, mixture, seed=0))
    law = scene.laws_given({}, mixture).mixture
    np.testing.assert_allclose(found.elpd, law.log_prob(mixture.values)[0], rtol=1e-5)
    assert found.p_loo == pytest.approx(0.0, abs=1e-3) and found.bad_share == 0.0


# --- sums of them --------------------------------------------------------------------------------


def test_stacking_finds_the_best_mixture():
    rng = np.random.default_rng(0)
    elpd = rng.normal(size=(3, 400)) + np.array([[0.0], [0.3], [-3.0]])
    ours = compute_stacking_weights(elpd)
    density = np.exp(elpd)
    grid = np.linspace(0, 1, 201)
    scores = [
        np.log(np.array([a, b, 1 - a - b]) @ density).sum() if a + b <= 1 else -np.inf
        for a in grid for b in grid
    ]  # fmt: skip
    assert np.log(ours @ density).sum() >= max(scores) - 1e-6
    assert ours.sum() == pytest.approx(1.0) and ours[2] < 0.05 < ours[0]


def made(elpd, **options):
    models = tuple(f"m{i}" for i in range(len(elpd)))
    count = len(models)
    values = {
        "models": models, "elpd": elpd, "k_hat": np.zeros_like(elpd), "p_loo": (1.0,) * count,
        "good_k": 0.7, "weights": (1.0 / count,) * count, "elbo": (None,) * count,
        "power": np.ones(elpd.shape[1:]), "stft": STFT, "kind": "exact",
    }  # fmt: skip
    return Comparison(**{**values, **options})


def test_standard_errors_are_those_of_blocks_of_frames():
    # Frames that repeat four times are what overlap at 75 % makes of independent ones.
    rng = np.random.default_rng(0)
    sums = [rng.normal(size=(33, 50)).repeat(4, axis=1) for _ in range(200)]
    found = np.mean([made(np.stack([s, s])).standard_error(s) for s in sums])
    true = np.std([s.sum() for s in sums])
    assert found == pytest.approx(true, rel=0.15)
    assert np.isnan(made(np.zeros((2, 33, 4))).standard_error(np.ones((33, 4))))


def test_the_table():
    elpd = np.random.default_rng(0).normal(size=(2, 33, 40)) + np.array([1.0, 0.0])[:, None, None]
    comparison = made(elpd)
    first, second = comparison.table()
    assert comparison.best == first["model"] == "m0"
    assert first["difference"] == first["difference_se"] == 0.0
    assert second["difference"] == pytest.approx((elpd[1] - elpd[0]).sum())
    gap = (elpd[1] - elpd[0]).sum(0).reshape(10, 4).sum(1)
    assert second["difference_se"] == pytest.approx(np.sqrt(10 * gap.var(ddof=1)))
    np.testing.assert_array_equal(comparison.difference("m0", "m1"), elpd[0] - elpd[1])
    with pytest.raises(ValueError, match="no model 'm7' here; compared were m0, m1"):
        comparison.difference("m0", "m7")


def test_no_verdict_within_a_standard_error():
    noise = np.random.default_rng(0).normal(size=(33, 40))
    for gap, undecided in ((0.0, ("m1",)), (5.0, ())):
        elpd = np.stack([noise, np.random.default_rng(1).normal(size=(33, 40)) - gap])
        comparison = made(elpd if elpd[0].sum() >= elpd[1].sum() else elpd[::-1])
        assert comparison.undecided == undecided
    equal = made(np.stack([noise, noise]))
    assert equal.undecided == ("m1",)


@pytest.mark.slow
def test_the_true_model_is_picked():
    models = {"stationary": stationary, "nmf": NMF(2), "ar1": AR1Gain()}
    picked = []
    for seed in range(20):
        name = list(models)[seed % 3]
        scene = Scene(GaussianSpeech(), models[name])
        wave = draw_wave(simulate(scene, n_samples=16000, seed=seed).mixture)
        found = compare(
            wave, models, speech="gaussian", sample_rate_hz=16000, draws=100, device="cpu"
        )
        picked.append(found.best == name)
    assert sum(picked) >= 18


def draw_wave(mixture):
    """Waveform of one simulated mixture."""
    return mixture.stft.synthesise(mixture)[0]


# --- preferences ---------------------------------------------------------------------------------

FAST = SVI(steps=80, draws=100, waveforms=False, tempering=1.0, learning_rate=0.15)


def simulated_wave(heavy, seed, n=2000):
    """White noise, or white noise that bursts."""
    rng = np.random.default_rng(seed)
    wave = rng.normal(size=n)
    if heavy:
        for begin in rng.integers(0, n - 100, size=6):
            wave[begin : begin + 40] *= 30.0
    return wave.astype("float32")


@pytest.mark.parametrize("heavy", [True, False])
def test_bursts_are_distinguished_from_hiss(heavy):
    models = {"hiss": "stationary", "heavy": "student-t"}
    comparison = compare(
        simulated_wave(heavy, 0), models, speech=replace(QUIET), inference=FAST,
        sample_rate_hz=RATE_HZ,
    )  # fmt: skip
    assert comparison.best == ("heavy" if heavy else "hiss")
    gap = comparison.table()[1]
    assert gap["difference"] < -2 * gap["difference_se"]
    assert comparison.weights[0] > 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.* below 20 Hz")  # of the clock's recording
@pytest.mark.parametrize(("clip", "prefers"), [("clock_tick", True), ("rain", False)])
def test_clicks_are_found_in_a_clock_and_not_in_rain(clip, prefers):
    from pathlib import Path

    from avse_ppl import Audio, load_audio
    from avse_ppl.data import highpass, mix

    data = Path(__file__).resolve().parents[2] / "examples" / "data"
    sentence, noise = (load_audio(data / f"{name}.flac") for name in ("speech", clip))
    clean = highpass(sentence.samples, sentence.sample_rate_hz)
    mixture = mix(clean, noise.samples, 0.0, seed=0)
    comparison = compare(Audio(mixture.mixture, RATE_HZ), ["stationary", "stationary+clicks"])
    assert (comparison.best == "stationary+clicks") is prefers


# --- the call ------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_and_the_order_does_not_matter():
    wave = simulated_wave(True, 1, 500)
    wave = wave / np.abs(wave).max()
    quick = replace(FAST, steps=4)
    options = {"speech": QUIET, "inference": quick, "sample_rate_hz": RATE_HZ}
    first = compare(wave, ["stationary", "student-t"], seed=3, **options)
    again = compare(wave, ["student-t", "stationary"], seed=3, **options)
    assert first.models == again.models
    np.testing.assert_array_equal(first.elpd, again.elpd)
    other = compare(wave, ["stationary", "student-t"], seed=4, **options)
    assert not np.array_equal(first.elpd, other.elpd)
    assert first.elbo[0] is not None and first.kind == "variational"


def test_long_recordings_are_compared_in_pieces():
    stft = Stft(n_fft=1024, hop=512)
    prior = GaussianSpeech(1e-6 * torch.ones(513), 0.0, stft)
    wave = simulated_wave(False, 2, 16 * RATE_HZ)
    models = {f"{power:g}": reference_scene(True, noise_power=power).noise for power in (1.0, 2.0)}
    comparison = compare(
        wave, models, speech=prior, inference=Exact(draws=1), sample_rate_hz=RATE_HZ
    )  # fmt: skip
    assert comparison.best == "1"
    assert comparison.attrs["chunks"] == 2
    assert comparison.power.shape[1] == 2 * stft.count_frames(8 * RATE_HZ)
    assert comparison.elpd.shape == (2, *comparison.power.shape)


def test_unreliable_weights_are_warned_of():
    wave = simulated_wave(True, 0)  # bursts that one level cannot explain
    models = {"level": plain, "hiss": "stationary"}
    comparison = compare(wave, models, speech=QUIET, inference=FAST, sample_rate_hz=RATE_HZ)
    assert any("Pareto k-hat above 0.50 in" in text for text in comparison.warnings)


def noisy(n=4000):
    return np.random.default_rng(0).normal(size=n).astype("float32")


@pytest.mark.parametrize(
    ("noise", "options", "text"),
    [
        (["nmf"], {}, "expected two noise models or more to compare, found 1: nmf"),
        ("nmf", {}, "found 1: nmf"),
        ([], {}, "found 0: none"),
        (["nmf", "nmf"], {}, "noise model 'nmf' stands twice"),
        ([NMF(2), NMF(3)], {}, "stands twice; name each once, or in Python give a"),
        (["nmf", "statonary"], {}, "unknown noise model 'statonary'.*did you mean 'stationary'"),
        (["nmf", "stationary"], {"draws": 50}, "draws must be a whole number of at least 100"),
        (["nmf", "stationary"], {"seed": 1.5}, "seed must be a whole number"),
    ],
)
def test_what_compare_refuses(noise, options, text):
    with pytest.raises(ValueError, match=text):
        compare(noisy(), noise, speech="gaussian", sample_rate_hz=RATE_HZ, **options)


POINT_ESTIMATES = [
    "em", "em-langevin", "em-mala", "em-mh", "em-variational", "guided", "guided-udiffse",
    EM(iterations=2), GuidedDiffusion(steps=2),
]  # fmt: skip


@pytest.mark.parametrize("inference", POINT_ESTIMATES, ids=str)
def test_point_estimates_are_refused_before_anything_is_inferred(inference, monkeypatch):
    monkeypatch.setattr(InferenceMethod, "__call__", lambda *_, **__: pytest.fail("it was run"))
    monkeypatch.setitem(compare.__globals__, "observe", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=r"makes a point estimate of the noise 'NMF'.*use.*'svi'"):
        compare(
            noisy(), ["nmf", "stationary"], speech="latent-diffusion", sample_rate_hz=RATE_HZ,
            inference=inference,
        )  # fmt: skip


def test_which_methods_draw_all_latents():
    scene = Scene(GaussianSpeech(stft=STFT), textured)  # no M-step: its latents have a guide
    assert GuidedDiffusion().draws_all_latents(scene) and SVI().draws_all_latents(scene)
    assert not GuidedDiffusion().draws_all_latents(replace(scene, noise=NMF(2)))
    assert not EM().draws_all_latents(scene)


def test_several_channels_are_refused():
    with pytest.raises(ValueError, match="expected one channel to compare models on, found 2"):
        compare(np.stack([noisy()] * 2), speech="gaussian", sample_rate_hz=RATE_HZ)


def test_models_may_have_names_of_their_own():
    assert name_noise_models({"two": NMF(2), "four": NMF(4)})["four"].rank == 4
    assert list(name_noise_models([textured, "nmf"])) == ["textured", "nmf"]


# --- picture and command line --------------------------------------------------------------------


def test_the_picture(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (
        seen.append(self), path.write_bytes(b"")))  # fmt: skip
    elpd = np.random.default_rng(0).normal(size=(3, 33, 40))
    comparison = made(elpd, warnings=("m1: Pareto k-hat",))
    assert plot_comparison(comparison, tmp_path / "where.png").exists()
    [figure] = seen
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    total = (elpd[0] - elpd[1]).sum()
    assert any(title.startswith(f"m0 over m1: {total:+.0f} nats") for title in titles)
    assert sum("over" in title for title in titles) == 2
    assert "m1: Pareto k-hat" in figure.get_suptitle()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("n.wav", 0.1 * noisy(4000), RATE_HZ, subtype="FLOAT")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_the_command(here):
    options = ("--speech", "gaussian", "--draws", 100)
    result = run("n.wav", *options, "--plot", "where.png", "--noise", "hum", "stationary")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["model", "elpd", "difference"]
    assert lines[1].split()[0] == "stationary" and lines[2].split()[0] == "hum"
    assert (here / "where.png").stat().st_size > 10_000
    report = json.loads(
        run("n.wav", *options, "--noise", "hum", "--noise", "stationary", "--json").stdout
    )
    assert (report["best"], report["undecided"]) == ("stationary", [])
    assert [row["model"] for row in report["models"]] == ["stationary", "hum"]
    assert f"{report['models'][1]['difference']:.0f}" == lines[2].split()[2]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("n.wav", "--noise", "nmf"), "expected two noise models or more"),
        (("lost.wav", "--noise", "nmf", "stationary"), "expected a recording at 'lost.wav'"),
        (("n.wav", "--noise", "nmf", "stationary", "--plot", "no/w.png"), "make the folder"),
        (("n.wav", "--noise", "nmf", "stationary", "--inference", "em"), "point estimate"),
        (("n.wav", "--noise", "nmf", "stationary", "--draws", "9"), "at least 100"),
    ],
)
def test_the_command_refuses(here, arguments, text):
    result = run(*arguments, "--speech", "gaussian")
    assert (result.exit_code, result.stdout) == (2, "")
    assert text in result.stderr and len(result.stderr.splitlines()) == 1
