"""What a noise model may say: every statement of Pyro, against exact answers, under every method.

The scenes have speech of known power S and noise of power ``exp(level)``, ``level ~ N(-1, 2)``, so
that densities have closed forms and the posterior is a sum over a grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyro
import pyro.distributions as pyro_dist
import pytest
import torch
from pyro import poutine
from pyro.infer.reparam import LocScaleReparam, TransformReparam
from pyro.nn import PyroModule, PyroParam, PyroSample
from pyroapi import distributions as dist
from pyroapi import ops
from pyroapi import pyro as generic

from avse_ppl import NMF, NUTS, SVI, ComplexNormal, NumPyroNUTS, Scene
from avse_ppl.evaluation.loo import loo
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.mcmc.jax_log_density import make_jax_log_density
from avse_ppl.models import hum
from avse_ppl.models.simulate import simulate
from tests.contract.cast import METHODS, PRIORS, WITHOUT_SCENE, N, make_method
from tests.helpers import STFT, waves

MEAN, SD = -1.0, 2.0
METER, METER_SD = -3.0, 0.05
SPEECH = PRIORS["white"]


def log_normal(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)


# --- models, and what they add to log N(level; -1, 2) + log p(x | level) --------------------------


def plain(frames):
    level = generic.sample("level", dist.Normal(frames.number(MEAN), SD))
    return ComplexNormal(0.0, ops.exp(level))


def metered(frames):
    level = generic.sample("level", dist.Normal(frames.number(MEAN), SD))
    generic.sample("meter", dist.Normal(level, METER_SD), obs=frames.number(METER))
    return ComplexNormal(0.0, ops.exp(level))


def metered_by_condition(frames):
    def model():
        level = pyro.sample("level", pyro_dist.Normal(MEAN, SD))
        pyro.sample("meter", pyro_dist.Normal(level, METER_SD))
        return ComplexNormal(0.0, level.exp())

    return poutine.condition(model, data={"meter": torch.tensor(METER)})()


def factored(frames):
    level = generic.sample("level", dist.Normal(frames.number(MEAN), SD))
    generic.factor("evidence", dist.Normal(level, METER_SD).log_prob(frames.number(METER)))
    return ComplexNormal(0.0, ops.exp(level))


def measured_in_each_frame(frames):
    level = generic.sample("level", dist.Normal(frames.number(MEAN), SD))
    with generic.plate("time", frames.time, dim=-1):
        generic.sample("meter", dist.Normal(level, 0.5), obs=0.1 * frames.time_s - 3.0)
    return ComplexNormal(0.0, ops.exp(level))


def deterministic(frames):
    level = generic.sample("level", dist.Normal(frames.number(MEAN), SD))
    return ComplexNormal(0.0, ops.exp(0.5 * generic.deterministic("double", 2.0 * level)))


def scaled(frames):
    level = generic.sample("level", dist.Normal(frames.number(MEAN), SD))
    with poutine.scale(scale=0.25):
        pyro.sample("meter", pyro_dist.Normal(level, METER_SD), obs=torch.tensor(METER))
    return ComplexNormal(0.0, level.exp())


def scaled_prior(frames):
    with poutine.scale(scale=3.0):
        level = pyro.sample("level", pyro_dist.Normal(MEAN, SD))
    return ComplexNormal(0.0, level.exp())


def masked(frames):
    level = generic.sample("level", dist.Normal(frames.number(MEAN), SD))
    with poutine.mask(mask=torch.arange(frames.time) < 2), pyro.plate("time", frames.time, dim=-1):
        pyro.sample("meter", pyro_dist.Normal(level, 0.5), obs=torch.full((), METER))
    return ComplexNormal(0.0, level.exp())


def masked_out(frames):
    level = generic.sample("level", dist.Normal(frames.number(MEAN), SD))
    with poutine.mask(mask=False):
        pyro.sample("meter", pyro_dist.Normal(level, METER_SD), obs=torch.tensor(METER))
    return ComplexNormal(0.0, level.exp())


def masked_law(frames):
    level = generic.sample("level", dist.Normal(frames.number(MEAN), SD))
    pyro.sample("meter", pyro_dist.Normal(level, METER_SD).mask(False), obs=torch.tensor(METER))
    return ComplexNormal(0.0, level.exp())


class Instance:
    """A callable object."""

    def __init__(self, sd):
        self.sd = sd

    def __call__(self, frames):
        level = generic.sample("level", dist.Normal(frames.number(MEAN), self.sd))
        return ComplexNormal(0.0, ops.exp(level))


class Module(PyroModule):
    """A Pyro module with a random and a frozen parameter."""

    def __init__(self):
        super().__init__()
        self.level = PyroSample(pyro_dist.Normal(MEAN, SD))
        self.gain = torch.nn.Parameter(torch.ones(()), requires_grad=False)

    def forward(self, frames):
        return ComplexNormal(0.0, (self.gain * self.level).exp())


def from_a_cell():
    """A model of which there is no source file, as in a notebook."""
    scope = {"ComplexNormal": ComplexNormal, "dist": dist, "pyro": generic, "ops": ops}
    exec(
        "def cell(frames):\n"
        f"    level = pyro.sample('level', dist.Normal(frames.number({MEAN}), {SD}))\n"
        "    return ComplexNormal(0.0, ops.exp(level))\n",
        scope,
    )
    return scope["cell"]


def with_sd(sd, frames):
    level = generic.sample("level", dist.Normal(frames.number(MEAN), sd))
    return ComplexNormal(0.0, ops.exp(level))


TIME_S = STFT.frames(N).time_s.double().numpy()
METERED = lambda level: log_normal(METER, level, METER_SD)  # noqa: E731
STATEMENTS = {
    # model, what it adds to the log density of the level, whether it runs on JAX
    "sample": (plain, lambda _: 0.0, True),
    "observed site": (metered, METERED, True),
    "condition": (metered_by_condition, METERED, False),
    "pyro.condition": (
        pyro.condition(metered_by_condition, data={"unknown": torch.ones(())}), METERED, False,
    ),
    "factor": (factored, METERED, True),
    "observed in a plate": (
        measured_in_each_frame,
        lambda level: log_normal(0.1 * TIME_S - 3.0, level, 0.5).sum(), True,
    ),
    "deterministic": (deterministic, lambda _: 0.0, True),
    "scale of an observation": (scaled, lambda level: 0.25 * METERED(level), False),
    "scale of a prior": (scaled_prior, lambda level: 2.0 * log_normal(level, MEAN, SD), False),
    "mask": (masked, lambda level: 2.0 * log_normal(METER, level, 0.5), False),
    "mask of all": (masked_out, lambda _: 0.0, False),
    "masked distribution": (masked_law, lambda _: 0.0, False),
    "instance": (Instance(SD), lambda _: 0.0, True),
    "partial": (partial(with_sd, SD), lambda _: 0.0, True),
    "lambda": (lambda frames: with_sd(SD, frames), lambda _: 0.0, True),
    "notebook cell": (from_a_cell(), lambda _: 0.0, True),
    "module": (Module(), lambda _: 0.0, False),
}  # fmt: skip


@dataclass(frozen=True)
class Exact:
    """Closed forms of a scene with one level."""

    extra: object
    tempering: float = 1.0

    def mixture(self):
        return STFT.analyse(waves(1, N))

    def log_likelihood(self, level):
        spectrogram = self.mixture()
        power = spectrogram.power[0].double().numpy()
        speech = SPEECH(spectrogram.frames).power.double().numpy()
        total = np.broadcast_to(speech, power.shape) + np.exp(level)
        return float((-np.log(np.pi * total) - power / total).sum())

    def log_density(self, level):
        prior = log_normal(level, MEAN, SD) + self.extra(level)
        return self.tempering * self.log_likelihood(level) + prior

    def moments(self):
        grid = np.linspace(-8.0, 4.0, 4001)
        logs = np.array([self.log_density(level) for level in grid])
        weights = np.exp(logs - logs.max())
        weights /= weights.sum()
        mean = (weights * grid).sum()
        return mean, np.sqrt((weights * (grid - mean) ** 2).sum())


@pytest.mark.parametrize("name", STATEMENTS)
def test_the_log_density_is_the_exact_one(name):
    model, extra, _ = STATEMENTS[name]
    exact = Exact(extra)
    density = LogDensity(Scene(SPEECH, model), exact.mixture().to("cpu", torch.float64))
    assert [site.name for site in density.sites] == ["level"]
    for level in (-3.1, -0.4, 1.2):
        value = torch.full((1, 1, 1), level, dtype=torch.float64)
        joint = density.joint({"level": value})
        assert float(joint.likelihood) == pytest.approx(exact.log_likelihood(level), rel=1e-5)
        expected = log_normal(level, MEAN, SD) + extra(level)
        assert float(joint.prior) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", [name for name, (*_, ported) in STATEMENTS.items() if ported])
def test_the_log_density_is_the_same_on_jax(name):
    mixture = Exact(None).mixture()
    make_jax_log_density(LogDensity(Scene(SPEECH, STATEMENTS[name][0]), mixture))  # compares them


def test_each_recording_of_a_batch_has_the_evidence_of_its_own():
    batch = STFT.analyse(waves(2, N)).to("cpu", torch.float64)
    both = LogDensity(Scene(SPEECH, metered), batch)
    level = torch.tensor([-2.0, 0.5], dtype=torch.float64)[:, None, None]
    expected = log_normal(level.flatten().numpy(), MEAN, SD) + METERED(level.flatten().numpy())
    np.testing.assert_allclose(both.joint({"level": level}).prior.numpy(), expected, rtol=1e-6)


# --- the posterior -------------------------------------------------------------------------------

CHAINS = {"warmup": 50, "draws": 100, "chains": 2, "max_tree_depth": 3, "waveforms": False}
CONVERGED = {
    "svi": SVI(
        steps=400, learning_rate=0.04, tolerance=0, draws=300, waveforms=False, tempering=1.0
    ),
    "nuts": NUTS(**CHAINS),
    # A step size of a short warm-up rejected most proposals on some processors.
    "numpyro-nuts": NumPyroNUTS(**{**CHAINS, "warmup": 200, "draws": 200}),
}


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("observed site", "svi"),
        pytest.param("observed site", "nuts", marks=pytest.mark.slow),
        ("observed in a plate", "numpyro-nuts"),
    ],
)
def test_the_posterior_is_the_exact_one(name, method):
    model, extra, _ = STATEMENTS[name]
    mean, sd = Exact(extra).moments()
    posterior = CONVERGED[method](Scene(SPEECH, model), waves(1, N)[0], seed=0)
    draws = posterior.latents["level"].ravel()
    assert abs(draws.mean() - mean) < 0.3 * sd
    assert 0.8 < draws.std() / sd < 1.25


def test_tempering_leaves_observations_of_the_noise_as_they_are():
    exact = Exact(METERED, tempering=0.25)
    mean, sd = exact.moments()
    method = replace(CONVERGED["svi"], tempering=0.25)
    draws = method(Scene(SPEECH, metered), waves(1, N)[0], seed=0).latents["level"]
    assert abs(draws.mean() - mean) < 0.3 * sd
    assert 0.8 < draws.std() / sd < 1.25


# --- reparameters: the same posterior in other coordinates ----------------------------------------


def hierarchical(frames):
    scale = pyro.sample("scale", pyro_dist.LogNormal(0.0, 0.5))
    level = pyro.sample("level", pyro_dist.Normal(torch.tensor(MEAN), scale))
    return ComplexNormal(0.0, level.exp())


def transformed(frames):
    base = pyro_dist.Normal(torch.tensor(MEAN), SD)
    power = pyro.sample(
        "power", pyro_dist.TransformedDistribution(base, torch.distributions.ExpTransform())
    )
    return ComplexNormal(0.0, power)


@pytest.mark.parametrize("centred", [0.0, 0.3])
def test_a_decentred_density_differs_by_its_jacobian(centred):
    mixture = STFT.analyse(waves(1, N)).to("cpu", torch.float64)
    reparam = poutine.reparam(hierarchical, config={"level": LocScaleReparam(centred)})
    plain_density = LogDensity(Scene(SPEECH, hierarchical), mixture)
    density = LogDensity(Scene(SPEECH, reparam), mixture)
    assert {site.name for site in density.sites} == {"scale", "level_decentered"}
    scale, level = (torch.full((1, 1, 1), v, dtype=torch.float64) for v in (1.7, -2.2))
    moved = (level - MEAN) * scale ** (centred - 1) + centred * MEAN
    one = plain_density.joint({"scale": scale, "level": level})
    other = density.joint({"scale": scale, "level_decentered": moved})
    assert float(other.likelihood) == pytest.approx(float(one.likelihood), rel=1e-6)
    jacobian = (1 - centred) * float(scale.log())
    assert float(other.prior) == pytest.approx(float(one.prior) + jacobian, rel=1e-6)


@pytest.mark.parametrize("centred", [0.0])
def test_a_decentred_posterior_is_the_same_and_holds_the_centred_latent(centred):
    def fixed(frames):
        level = pyro.sample("level", pyro_dist.Normal(torch.tensor(MEAN), SD))
        return ComplexNormal(0.0, level.exp())

    mean, sd = Exact(lambda _: 0.0).moments()
    model = poutine.reparam(fixed, config={"level": LocScaleReparam(centred)})
    posterior = CONVERGED["svi"](Scene(SPEECH, model), waves(1, N)[0], seed=0)
    assert set(posterior.latents) == {"level", "level_decentered"}
    assert posterior.latents["level"].shape == posterior.latents["level_decentered"].shape
    assert abs(posterior.latents["level"].mean() - mean) < 0.3 * sd
    assert 0.8 < posterior.latents["level"].std() / sd < 1.25


def test_other_reparameters_work_too():
    mean, sd = Exact(lambda _: 0.0).moments()
    model = poutine.reparam(transformed, config={"power": TransformReparam()})
    posterior = CONVERGED["svi"](Scene(SPEECH, model), waves(1, N)[0], seed=0)
    level = np.log(posterior.latents["power"])
    assert abs(level.mean() - mean) < 0.3 * sd
    assert 0.8 < level.std() / sd < 1.25


# --- everything at once, under every method -------------------------------------------------------


def everything(frames):
    """One noise model with every statement that all methods take."""
    floor = generic.sample("floor", dist.Normal(frames.number(MEAN), SD))
    generic.sample("meter", dist.Normal(floor, METER_SD), obs=frames.number(METER))
    generic.factor("evidence", -0.5 * floor**2)
    with generic.plate("band", 3, dim=-2), generic.plate("time", frames.time, dim=-1):
        shape = generic.sample("shape", dist.Normal(frames.number(0.0), 0.1))
        generic.deterministic("power", ops.exp(floor + shape))
    return ComplexNormal(0.0, ops.exp(floor + shape[..., :1, :] + 0.1 * shape[..., 1:2, :]))


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("exact", *WITHOUT_SCENE)])
def test_every_method_takes_every_statement(method):
    prior = PRIORS["gaussian" if method.startswith("guided") else "tcvae"]
    prior = PRIORS["white"] if method in ("guided-udiffse", "numpyro-nuts") else prior
    posterior = make_method(method)(Scene(prior, everything), waves(2, N), seed=0)
    names = {name for name in posterior.latents if not name.startswith("speech.")}
    assert names == {"floor", "shape", "power"}
    assert np.isfinite(posterior.enhance()).all()
    expected = np.exp(posterior.latents["floor"] + posterior.latents["shape"])
    np.testing.assert_allclose(posterior.latents["power"], expected, rtol=1e-4)
    assert posterior.axes["power"] == ("band", "time")


def test_exact_inference_refuses_observations_of_the_noise():
    with pytest.raises(ValueError, match=r"also has 'meter'.*use 'svi' or 'nuts'"):
        make_method("exact")(Scene(SPEECH, metered), waves(1, N)[0])


def test_recorded_values_are_saved_and_loaded(tmp_path):
    method = make_method("svi")
    posterior = method(Scene(SPEECH, deterministic), waves(1, N)[0], seed=0)
    loaded = type(posterior).load(posterior.save(tmp_path / "posterior.nc"))
    np.testing.assert_array_equal(loaded.latents["double"], posterior.latents["double"])
    np.testing.assert_allclose(posterior.latents["double"], 2 * posterior.latents["level"])


def test_leave_one_out_counts_the_mixture_alone():
    scenes = [Scene(SPEECH, model) for model in (metered, factored)]
    method = SVI(steps=50, draws=100, waveforms=False, tempering=1.0, learning_rate=0.15)
    for scene in scenes:
        posterior = method(scene, waves(1, N)[0], seed=0)
        pointwise = loo(scene, posterior.observed_spectrogram(), posterior)
        draws = torch.from_numpy(posterior.latents["level"][0])
        power = SPEECH(scene_frames := posterior.observed_spectrogram().frames).power
        law = ComplexNormal(0.0, power + draws.exp())
        assert scene_frames.time == law.power.shape[-1] or law.power.shape[-1] == 1
        in_sample = law.log_prob(posterior.observed_spectrogram().values).exp().mean(0).log()
        np.testing.assert_allclose(pointwise.in_sample.sum(), in_sample.sum(), rtol=1e-3)


# --- parts of sums, and models around models ------------------------------------------------------


def test_a_part_of_a_sum_keeps_its_statements():
    mixture = STFT.analyse(waves(1, N)).to("cpu", torch.float64)
    density = LogDensity(Scene(SPEECH, NMF(2) + metered), mixture)
    alone = LogDensity(Scene(SPEECH, NMF(2) + plain), mixture)
    assert density.evidence == {"meter": True}
    assert [site.name for site in density.sites] == [site.name for site in alone.sites]
    values = {site.name: site.transform(site.start) for site in density.sites}
    gap = density.joint(values).prior - alone.joint(values).prior
    assert float(gap) == pytest.approx(METERED(float(values["level"])), rel=1e-5)


def test_a_model_of_the_library_can_be_conditioned():
    mixture = STFT.analyse(waves(1, N))
    spectra = torch.full((STFT.freq, 2), 0.5)
    conditioned = poutine.condition(NMF(2), data={"noise.spectra": spectra})
    density = LogDensity(Scene(SPEECH, conditioned), mixture)
    assert [site.name for site in density.sites] == ["noise.activations"]
    posterior = make_method("svi")(Scene(SPEECH, conditioned), waves(1, N)[0], seed=0)
    assert "noise.spectra" not in posterior.latents
    assert isinstance(hum(50) + conditioned, type(hum(50) + plain))


# --- priors over vectors and matrices -------------------------------------------------------------


def mixture_of_spectra(frames):
    weights = pyro.sample("weights", pyro_dist.Dirichlet(torch.ones(3)))
    spectra = torch.linspace(0.1, 1.0, 3 * frames.freq).reshape(3, frames.freq)
    return ComplexNormal(0.0, (weights[..., None] * spectra).sum(-2)[..., 0, 0, :, None])


def correlated_bands(frames):
    scale = pyro.sample("scale", pyro_dist.HalfCauchy(torch.ones(2)).to_event(1))
    factor = pyro.sample("factor", pyro_dist.LKJCholesky(2, torch.tensor(2.0)))
    with pyro.plate("time", frames.time, dim=-1):
        law = pyro_dist.MultivariateNormal(torch.zeros(2), scale_tril=scale[..., None] * factor)
        bands = pyro.sample("bands", law)
    power = bands.exp().repeat_interleave(-(-frames.freq // 2), -1)[..., : frames.freq]
    return ComplexNormal(0.0, power.transpose(-1, -2)[..., 0, :, :])


def smooth_spectrum(frames):
    gap = frames.freq_hz - frames.freq_hz.T
    covariance = torch.exp(-0.5 * (gap / 2000.0) ** 2) + 1e-3 * torch.eye(frames.freq)
    law = pyro_dist.MultivariateNormal(torch.zeros_like(gap[0]), covariance)
    return ComplexNormal(0.0, pyro.sample("log_power", law).exp()[..., 0, 0, :, None])


def nested_scales(frames):
    spread = pyro.sample("spread", pyro_dist.HalfCauchy(1.0))
    with pyro.plate("freq", frames.freq, dim=-2):
        tilt = pyro.sample("tilt", pyro_dist.Normal(0.0, spread))
        with pyro.plate("time", frames.time, dim=-1):
            ripple = pyro.sample("ripple", pyro_dist.Normal(tilt, 0.1))
    return ComplexNormal(0.0, ripple.exp())


def check_prior_terms(model):
    """The prior's density is the sum of what torch says of each site."""
    mixture = STFT.analyse(waves(1, N)).to("cpu", torch.float64)
    scene = Scene(SPEECH, model)
    density = LogDensity(scene, mixture)
    values, _ = density.constrain({site.name: site.start for site in density.sites})
    with poutine.trace() as tracer, poutine.condition(data=values):
        scene(mixture)
    nodes = tracer.trace.nodes
    expected = sum(
        nodes[s.name]["fn"].log_prob(nodes[s.name]["value"]).sum() for s in density.sites
    )
    assert float(density.joint(values).prior) == pytest.approx(float(expected), rel=1e-8)


@pytest.mark.parametrize(
    "model", [mixture_of_spectra, correlated_bands, smooth_spectrum, nested_scales]
)
@pytest.mark.parametrize("method", ["svi", "nuts", "em"])
def test_priors_over_vectors_and_matrices(model, method):
    check_prior_terms(model)
    posterior = make_method(method)(Scene(SPEECH, model), waves(1, N)[0], seed=0)
    assert np.isfinite(posterior.enhance()).all()


# --- what is refused, with a way out --------------------------------------------------------------


def trained(frames):
    level = pyro.param("level", torch.tensor(0.0))
    return ComplexNormal(0.0, level.exp())


class Trained(PyroModule):
    def __init__(self):
        super().__init__()
        self.level = PyroParam(torch.zeros(()))

    def forward(self, frames):
        return ComplexNormal(0.0, self.level.exp())


class Unfrozen(PyroModule):
    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(()))

    def forward(self, frames):
        return ComplexNormal(0.0, self.level.exp())


def learned_centring(frames):
    return poutine.reparam(hierarchical, config={"level": LocScaleReparam()})(frames)


def hidden(frames):
    with poutine.block():
        level = pyro.sample("level", pyro_dist.Normal(0.0, 1.0))
    return ComplexNormal(0.0, level.exp())


def outside_of_the_support(frames):
    level = pyro.sample("level", pyro_dist.LogNormal(0.0, 1.0))
    pyro.sample("meter", pyro_dist.Uniform(0.0, 1.0), obs=torch.tensor(2.0))
    return ComplexNormal(0.0, level)


def infinite_factor(frames):
    level = pyro.sample("level", pyro_dist.LogNormal(0.0, 1.0))
    pyro.factor("evidence", torch.tensor(-torch.inf))
    return ComplexNormal(0.0, level)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (trained, r"parameter 'level' .*Sample it from a prior"),
        (Trained(), r"parameter 'level' .*Sample it from a prior"),
        (Unfrozen(), r"freeze the module with requires_grad_\(False\)"),
        (learned_centring, "parameter 'level_centered'"),
        (hidden, "returns another power each time"),
        (outside_of_the_support, "'meter' has a log density that is not finite"),
        (infinite_factor, "factor 'evidence' has a log density that is not finite"),
    ],
)
@pytest.mark.parametrize("method", ["svi", "nuts", "em", "guided"])
def test_it_is_refused_before_any_work(model, match, method):
    pyro.clear_param_store()
    prior = PRIORS["gaussian"] if method == "guided" else SPEECH
    with pyro.validation_enabled(False), pytest.raises(ValueError, match=match):
        make_method(method)(Scene(prior, model), waves(1, N)[0])
    pyro.clear_param_store()


def test_a_scene_that_observes_something_itself_is_not_simulated():
    with pytest.raises(ValueError, match="observes 'meter' beside the mixture"):
        simulate(Scene(SPEECH, metered), n_samples=N)
    simulated = simulate(Scene(SPEECH, deterministic), n_samples=N)
    assert set(simulated.latents) == {"level"}
