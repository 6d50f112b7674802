"""A predictor under every inference method: what it must agree with, and who refuses it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pyroapi import distributions as dist
from pyroapi import pyro

from avse_ppl import EM, NMF, SVI, ComplexNormal, Exact, Frames, GaussianSpeech, Scene, stationary
from avse_ppl.evaluation.diagnostics.diagnose import diagnose
from avse_ppl.evaluation.diagnostics.discrepancy import draw_posterior_predictive
from avse_ppl.evaluation.diagnostics.predictive import predictive_check
from avse_ppl.evaluation.loo import loo
from avse_ppl.evaluation.pointwise_log_likelihood import (
    PointwiseLogLikelihood,
    mixture_distribution,
)
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.diffusion.guided import GuidedDiffusion
from avse_ppl.inference.diffusion.udiffse import UDiffSE
from avse_ppl.inference.diffusion.warm_start import compute_warm_start
from avse_ppl.inference.em import em
from avse_ppl.inference.em.frame_density import FrameLogDensity
from avse_ppl.inference.em.m_step import maximise_noise, noise_objective
from avse_ppl.inference.mcmc.hmc import NUTS
from avse_ppl.inference.vi import optimize
from avse_ppl.inference.vi.guides import make_guide
from avse_ppl.models.predictors.predictor import BANDS, Predictor, condition_on_predictor
from avse_ppl.models.simulate import simulate
from avse_ppl.signal.stft import Spectrogram
from tests.helpers import STFT, known_noise, waves

ERROR = "predictor.error"
N = 640


def smooth(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Keep the low frequencies of a wave, fainter."""
    return 0.7 * np.convolve(wave, [0.25, 0.5, 0.25], "same").astype(wave.dtype)


def refuse(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    raise AssertionError("the predictor has run")


def scene_of(noise: Any = stationary, gain_sd_db: float = 6.0, enhance: Any = smooth) -> Scene:
    speech = GaussianSpeech(gain_sd_db=gain_sd_db, stft=STFT)
    return Scene(speech, noise, predictor=Predictor(enhance))


def observe(scene: Scene, count: int = 1, n_samples: int = N) -> Spectrogram:
    return condition_on_predictor(scene, STFT.analyse(waves(count, n_samples)))


def move_prediction(mixture: Spectrogram, factor: float) -> Spectrogram:
    predicted: Any = mixture.frames.predicted
    moved = torch.cat((factor * predicted[:, :2], predicted[:, 2:]), 1)
    return mixture.with_predicted(moved)


def square(values: Any) -> Any:
    return values.real**2 + values.imag**2


# --- the pool ------------------------------------------------------------------------------------


def test_the_pooled_posterior_is_the_product_of_laws_to_their_exponents() -> None:
    scene = scene_of(known_noise, gain_sd_db=0.0)
    mixture = observe(scene).to("cpu", torch.float64)
    values = {ERROR: torch.zeros(1, BANDS, 1, dtype=torch.float64)}
    found = scene.laws_given(values, mixture).condition(mixture.values)

    predictor: Any = scene.predictor
    speech = scene.speech(mixture.frames)
    columns: Any = mixture.frames.predicted
    prediction, error = torch.complex(columns[:, 0], columns[:, 1]), columns[:, 2].exp()
    precisions = (
        predictor.prior_weight / speech.power, predictor.mixture_weight / 0.3, 1.0 / error,
    )  # fmt: skip
    variance: Any = 1.0 / sum(precisions)
    mean = variance * (precisions[1] * mixture.values + precisions[2] * prediction)
    torch.testing.assert_close(found.power.expand(variance.shape), variance, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.mean, mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("latent_share", [0.05, None])
def test_a_prediction_that_does_not_count_changes_nothing(latent_share: float | None) -> None:
    scene = scene_of(known_noise)
    predictor: Any = replace(scene.predictor, latent_share=latent_share, noise_share=3.0)
    scene = replace(scene, predictor=predictor)
    mixture = observe(scene)
    columns: Any = mixture.frames.predicted
    useless = torch.cat((columns[:, :2], 25.0 + 0 * columns[:, 2:3], 0 * columns[:, 3:]), 1)
    gain = {"speech.gain": torch.randn(1, 1, mixture.frames.time)}
    bare = Scene(scene.speech, scene.noise).laws_given(gain, mixture).condition(mixture.values)
    values = gain | {ERROR: torch.ones(1, BANDS, 1)}
    found = scene.laws_given(values, mixture.with_predicted(useless)).condition(mixture.values)
    torch.testing.assert_close(found.mean, bare.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.power, bare.power, rtol=1e-4, atol=1e-4)
    if latent_share is not None:  # neither does one that the posterior has given up
        given_up = gain | {ERROR: torch.full((1, BANDS, 1), 40.0)}
        found = scene.laws_given(given_up, mixture).condition(mixture.values)
        torch.testing.assert_close(found.mean, bare.mean, rtol=1e-4, atol=1e-4)
    believed = scene.laws_given(values, mixture).condition(mixture.values)
    assert (believed.mean - bare.mean).abs().max() > 0.05


def cut(scene: Scene, **fields: Any) -> Scene:
    """The same scene, its latents inferred without the prediction."""
    predictor: Any = scene.predictor
    return replace(scene, predictor=replace(predictor, latent_share=None, **fields))


def test_a_cut_pools_with_a_prior_that_has_not_heard_the_prediction() -> None:
    scene = cut(scene_of(known_noise, gain_sd_db=0.0), prior_weight=0.3, noise_share=2.0)
    mixture = observe(scene).to("cpu", torch.float64)
    laws = scene.laws_given({}, mixture)
    speech = scene.speech(mixture.frames)
    torch.testing.assert_close(laws.informed.power, speech.power)
    columns: Any = mixture.frames.predicted
    prediction, error = torch.complex(columns[:, 0], columns[:, 1]), columns[:, 2].exp()
    noise = 0.3 / 0.05 + 2.0 * error  # power of the noise over the weight, and the least of it
    precisions = (0.3 / speech.power, 1.0 / noise, 1.0 / error)
    variance: Any = sum(precisions) ** -1
    mean = variance * (precisions[1] * mixture.values + precisions[2] * prediction)
    found = laws.condition(mixture.values)
    torch.testing.assert_close(found.power.expand(variance.shape), variance, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.mean, mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "method",
    [
        SVI(steps=8, draws=4), EM(iterations=5, draws=4),
        NUTS(draws=3, warmup=3, chains=1, init="prior"),
        GuidedDiffusion(steps=2, sweeps=2, draws=4, chains=2, waveforms=False),
    ],
    ids=["svi", "em", "nuts", "guided"],
)  # fmt: skip
def test_latents_under_a_cut_are_those_without_a_predictor(method: Any) -> None:
    scene = cut(scene_of(), noise_share=2.0)
    found = method(scene, waves(1, N), seed=0)
    bare = method(replace(scene, predictor=None), waves(1, N), seed=0)
    assert found.latents.keys() == bare.latents.keys()
    for name, values in bare.latents.items():
        np.testing.assert_allclose(found.latents[name], values, rtol=1e-5)
    assert found.kind.pooled and not bare.kind.pooled
    assert square(found.mean - bare.mean).mean() > 1e-3 * square(bare.mean).mean()


def test_a_cut_is_a_density_on_jax_too() -> None:
    pytest.importorskip("numpyro")
    from avse_ppl.inference.mcmc.jax_log_density import make_jax_log_density

    scene = cut(scene_of())
    density = LogDensity(scene, observe(scene))
    assert ERROR not in [site.name for site in density.sites]
    assert make_jax_log_density(density).sites == {site.name for site in density.sites}


def test_guided_diffusion_of_bins_pools_under_a_cut() -> None:
    scene = cut(scene_of(known_noise, gain_sd_db=0.0), prior_weight=0.3, noise_share=2.0)
    method = GuidedDiffusion(steps=4, sweeps=6, draws=6, chains=2, waveforms=False)
    posterior = method(scene, waves(1, N), seed=0)
    mixture = observe(scene)
    law = scene.laws_given({}, mixture).condition(mixture.values)
    expected = (law.mean * mixture.scale[:, None, None]).numpy()
    assert square(posterior.mean - expected).mean() < 0.02 * square(expected).mean()
    assert ERROR not in posterior.latents


def test_svi_takes_fewer_steps_beside_a_prediction_that_informs_the_latents() -> None:
    method = SVI(draws=2, tolerance=0.0, waveforms=False)
    scenes = (scene_of(), cut(scene_of()), Scene(scene_of().speech, stationary))
    steps = [method(scene, waves(1, N), seed=0).attrs["steps"] for scene in scenes]
    assert steps == [120, 150, 150]


def test_the_density_of_the_latents_does_not_wait_for_the_pool() -> None:
    scene = scene_of(known_noise)
    density = LogDensity(scene, observe(scene))
    laws = density.joint({site.name: site.start for site in density.sites}).laws
    evidence: Any = laws.evidence
    assert set(vars(evidence)) & {"plug_in", "speech", "mixture_weight"} == {"plug_in"}
    assert laws.speech is evidence.speech is not evidence.plug_in


def test_bare_frames_are_simulated_without_a_prediction() -> None:
    simulated = simulate(scene_of(), n_samples=N)
    assert simulated.mixture.frames.predicted is None
    assert simulated.latents[ERROR].shape == (1, BANDS, 1)


# --- EM ------------------------------------------------------------------------------------------


def e_step(noise: Any) -> tuple[LogDensity, dict[str, Any], Any]:
    scene = scene_of(noise)
    density = LogDensity(scene, observe(scene))
    state = {site.name: site.start.clone() for site in density.sites}
    frames = FrameLogDensity(density)
    return density, state, frames(frames.speech_of(state), frames.noise_of(state), gradients=True)


def test_the_log_joint_of_frames_adds_up_to_that_of_the_scene() -> None:
    density, state, found = e_step(stationary)
    values, _ = density.constrain(state)
    joint = density.joint(values)
    jacobian = sum(
        site.transform.log_abs_det_jacobian(state[site.name], values[site.name]).sum()
        for site in density.sites if not site.of_noise
    )  # fmt: skip
    torch.testing.assert_close(found.total, joint.prior + joint.likelihood + jacobian)
    assert found.gradients[ERROR].abs().sum() > 0


def test_the_e_step_hands_on_the_law_that_informs_the_latents() -> None:
    density, state, found = e_step(stationary)
    laws = density.scene.laws_given(density.constrain(state)[0], density.mixture)
    assert laws.evidence is not None
    torch.testing.assert_close(found.power, laws.informed.power)
    torch.testing.assert_close(found.residual, density.mixture.values - laws.informed.mean)


def test_the_objective_of_the_m_step_is_the_likelihood_of_the_scene() -> None:
    density, state, found = e_step(stationary)
    names = density.names(of_noise=True)

    def rise(of_scene: bool) -> torch.Tensor:
        """Change of the objective, or of the log joint, from one power of noise to another."""
        ends = []
        for power in (0.0, 0.7):
            moved = state | {name: state[name] + power for name in names}
            if of_scene:
                joint = density.joint(density.constrain(moved)[0])
                ends.append(joint.prior + joint.likelihood)
            else:
                noise = {name: moved[name] for name in names}
                ends.append(
                    noise_objective(density, noise, found.power[None], 1.0, found.residual[None])
                )
        return ends[1] - ends[0]

    torch.testing.assert_close(rise(of_scene=False), rise(of_scene=True), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("noise", [stationary, NMF(2)], ids=["by gradient", "in closed form"])
def test_the_m_step_never_lowers_the_objective_of_several_draws(noise: Any) -> None:
    density, state, found = e_step(noise)
    names = density.names(of_noise=True)
    powers = torch.stack([found.power, 0.5 * found.power])
    residual = torch.stack([found.residual, 0.1 * found.residual])

    def measure(state: dict[str, Any]) -> torch.Tensor:
        return noise_objective(density, {n: state[n] for n in names}, powers, 1.0, residual)

    trace = [measure(state)]
    for _ in range(20):
        state = state | maximise_noise(density, state, powers, 1.0, residual)
        trace.append(measure(state))
    assert (torch.stack(trace).diff(dim=0) > -1e-2).all()
    assert trace[-1] > trace[0] + 1.0


@pytest.mark.parametrize("e_step", ["point", "langevin", "mala", "mh", "variational"])
def test_em_finds_the_noise_that_is_left_beside_the_prediction(e_step: str) -> None:
    """The mixture is its own prediction, nearly: little noise is left; without, much is."""
    method = EM(e_step, iterations=40, draws=8, step_size=0.1, waveforms=False)
    scene = scene_of(enhance=lambda wave, rate_hz: 0.9 * wave)
    found = method(scene, waves(1, N), seed=0)
    bare = method(Scene(scene.speech, scene.noise), waves(1, N), seed=0)
    assert found.latents[ERROR].shape[-2:] == (BANDS, 1)
    assert found.latents["noise.power"].mean() < 0.7 * bare.latents["noise.power"].mean()
    assert found.kind.pooled and not bare.kind.pooled


@pytest.mark.parametrize("e_step", ["point", "langevin", "mala", "mh", "variational"])
def test_the_m_step_gets_what_is_left_at_the_state_of_the_e_step(
    e_step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []

    def record(density: LogDensity, state: Any, powers: Any, tempering: float, residual: Any):
        seen.append((density, dict(state), powers, residual))
        return {}

    monkeypatch.setattr(em, "maximise_noise", record)
    EM(e_step, iterations=4, draws=1, e_steps=5, waveforms=False)(scene_of(), waves(1, N), seed=0)
    assert len(seen) == 4
    for density, state, powers, residual in seen:
        assert residual.shape == powers.shape
        if e_step in ("mala", "mh", "variational"):  # results are of the state after the step
            laws = density.scene.laws_given(density.constrain(state)[0], density.mixture)
            expected = density.mixture.values - laws.informed.mean
            torch.testing.assert_close(residual[0], expected, rtol=1e-4, atol=1e-4)


# --- variational inference ------------------------------------------------------------------------


def test_the_noise_of_a_guide_is_what_is_left_beside_the_law_that_informs_the_latents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = scene_of(NMF(2))
    density = LogDensity(scene, observe(scene))
    location = {site.name: site.start.clone() for site in density.sites}
    log_sd = {name: torch.full_like(value, -2.0) for name, value in location.items()}
    guide = make_guide(
        "mean-field",
        location,
        log_sd,
        density.mixture.frames.time,
        1,
        RandomStreams(0, 1, torch.device("cpu")),
    )
    seen: dict[str, Any] = {}

    def record(density: LogDensity, noise: Any, speech: Any, **given: Any) -> Any:
        seen.update(given, speech=speech)
        return noise

    monkeypatch.setattr(optimize, "fit_noise", record)
    optimize.update_noise(density, guide, 3)
    law = scene.laws_given(density.constrain(location)[0], density.mixture).informed
    torch.testing.assert_close(seen["power"], square(density.mixture.values - law.mean))
    torch.testing.assert_close(seen["speech"][0], law.power.expand(density.mixture.values.shape))


# --- Markov chains -------------------------------------------------------------------------------


def test_nuts_runs_with_a_predictor() -> None:
    posterior = NUTS(draws=3, warmup=3, chains=1, init="prior")(scene_of(), waves(1, N), seed=0)
    assert np.isfinite(posterior.mean).all() and (posterior.latents[ERROR] > 0).all()


def test_jax_has_the_same_density() -> None:
    jax = pytest.importorskip("jax")
    from avse_ppl.inference.mcmc.jax_log_density import list_recordings, make_jax_log_density

    scene = scene_of()
    density = LogDensity(scene, observe(scene))
    made, recording = make_jax_log_density(density), list_recordings(density)[0]
    counterpart = jax.jit(lambda latents: made(latents, recording, 0.5))
    for shift in (-1.0, 1.5):  # away from where it is checked
        state = {site.name: site.start + shift for site in density.sites}
        latents = {name: jax.numpy.asarray(u.numpy()) for name, u in state.items()}
        np.testing.assert_allclose(
            float(counterpart(latents)), density(state, 0.5).item(), rtol=1e-4
        )


@pytest.mark.slow
def test_numpyro_runs_with_a_predictor() -> None:
    pytest.importorskip("numpyro")
    from avse_ppl.inference.mcmc.numpyro_nuts import NumPyroNUTS

    method = NumPyroNUTS(draws=3, warmup=3, chains=1)
    posterior = method(scene_of(), waves(1, N), seed=0)
    assert np.isfinite(posterior.mean).all() and (posterior.latents[ERROR] > 0).all()


# --- guided diffusion ----------------------------------------------------------------------------


@pytest.mark.parametrize("gain_sd_db", [6.0, 0.0], ids=["of latents", "of bins"])
def test_guided_diffusion_pools(gain_sd_db: float) -> None:
    """Its mean is near that of the same scene in closed form, and far from that without."""
    scene = scene_of(known_noise, gain_sd_db)
    method = GuidedDiffusion(steps=4, sweeps=6, draws=6, chains=2, waveforms=False)
    posterior = method(scene, waves(1, N), seed=0)
    bare = method(Scene(scene.speech, scene.noise), waves(1, N), seed=0)
    assert (posterior.latents[ERROR] == 0).all()
    assert "error of the predictor as its law" in str(posterior.kind)
    assert posterior.kind.pooled and not bare.kind.pooled
    mixture = observe(scene)
    values = {ERROR: torch.zeros(1, BANDS, 1)}
    if gain_sd_db:
        values["speech.gain"] = torch.as_tensor(posterior.latents["speech.gain"].mean((0, 1)))
    law = scene.laws_given(values, mixture).condition(mixture.values)
    expected = (law.mean * mixture.scale[:, None, None]).numpy()
    apart = square(posterior.mean - expected).mean()
    assert apart < 0.05 * square(bare.mean - expected).mean()
    variance = (law.power * mixture.scale[:, None, None] ** 2).numpy()
    np.testing.assert_allclose(posterior.variance.mean(), variance.mean(), rtol=0.2)


@pytest.mark.parametrize("gain_sd_db", [6.0, 0.0], ids=["of latents", "of bins"])
def test_guided_diffusion_gives_each_recording_its_own_prediction(gain_sd_db: float) -> None:
    scene = scene_of(known_noise, gain_sd_db)
    method = GuidedDiffusion(steps=2, sweeps=2, draws=4, chains=2, waveforms=False)
    both = method(scene, waves(2, N), seed=[0, 1])
    for r in range(2):
        alone = method(scene, waves(2, N)[r : r + 1], seed=[r])
        np.testing.assert_allclose(both.mean[r], alone.mean[0], rtol=1e-3, atol=1e-3)


def test_a_warm_start_uses_the_prediction_too() -> None:
    scene = scene_of(stationary, 0.0)
    base_prior = GaussianSpeech(stft=STFT)
    method = GuidedDiffusion(base_prior=base_prior, draws=4, waveforms=False)
    posterior = method(scene, waves(1, N), seed=0)
    assert np.isfinite(posterior.mean).all() and (posterior.latents[ERROR] == 0).all()
    law = Scene(base_prior, stationary, predictor=scene.predictor)
    bare = Scene(base_prior, stationary)
    mixture = observe(scene)
    rows = [compute_warm_start(base_prior, SVI(steps=5, draws=4, waveforms=False), one, mixture, 0)
            for one in (law, bare)]  # fmt: skip
    assert (rows[0].mean - rows[1].mean).abs().max() > 0.05
    assert rows[0].noise.keys() == {"noise.power"}


def test_the_prediction_informs_the_latents_of_a_guided_diffusion() -> None:
    """A prediction twice as loud, of the same mixture, raises the gains of speech."""
    gains = []
    for factor in (0.5, 1.5):
        scene = scene_of(known_noise)
        mixture = move_prediction(observe(scene), factor)
        method = GuidedDiffusion(steps=4, sweeps=12, draws=12, chains=2, waveforms=False)
        gains.append(method(scene, mixture, seed=0).latents["speech.gain"].mean())
    assert gains[1] > gains[0] + 0.3


def test_guided_diffusion_of_latents_has_the_moments_of_a_quadrature() -> None:
    """Each frame has one gain, the noise is known, and the error of the prediction is held at 0."""
    scene = scene_of(known_noise)
    mixture = observe(scene)
    method = GuidedDiffusion(steps=8, sweeps=150, draws=150, chains=2, waveforms=False)
    found = method(scene, mixture, seed=0).latents["speech.gain"]

    nodes = torch.linspace(-4.0, 4.0, 161)
    values = {ERROR: torch.zeros(161, BANDS, 1)}
    values["speech.gain"] = nodes[:, None, None].expand(161, 1, mixture.frames.time)
    predictor: Any = scene.predictor
    laws = scene.laws_given(values, mixture)
    belief = predictor.weigh(mixture.frames)
    power = scene.laws_given(values, mixture.with_predicted(None)).speech.power
    evidence = predictor.predict_law(ComplexNormal(0.0, power), belief)
    log_p = evidence.log_prob(belief.predicted) + laws.mixture.log_prob(mixture.values)
    log_p = log_p.sum(1) - 0.5 * nodes[:, None].square()
    weights = torch.softmax(log_p, 0)
    exact = (weights * nodes[:, None]).sum(0)
    sd = ((weights * nodes[:, None].square()).sum(0) - exact.square()).sqrt()
    gap = (torch.as_tensor(found.mean((0, 1))[0, 0]) - exact) / sd
    assert gap.square().mean().sqrt() < 0.3
    spread = torch.as_tensor(found.std((0, 1))[0, 0]) / sd
    assert 0.7 < spread.mean() < 1.3


@pytest.mark.parametrize("gain_sd_db", [6.0, 0.0], ids=["of latents", "of bins"])
def test_guided_diffusion_fits_the_noise_to_what_is_left(gain_sd_db: float) -> None:
    method = GuidedDiffusion(steps=4, sweeps=4, draws=4, noise_updates=10, waveforms=False)
    scene = scene_of(NMF(1), gain_sd_db, enhance=lambda wave, rate_hz: 0.9 * wave)
    level = []
    for one in (scene, Scene(scene.speech, scene.noise)):
        latents = method(one, waves(1, N), seed=0).latents
        level.append((latents["noise.spectra"] @ latents["noise.activations"]).mean())
    assert level[0] < 0.7 * level[1]


# --- who refuses, and the checks -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "text"),
    [(Exact(), "'predictor.error'.*take 'svi'"), (UDiffSE(), "takes no predictor; take 'svi'")],
)
def test_a_method_that_cannot_refuses_before_the_predictor_runs(method: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        method(scene_of(enhance=refuse), waves(1, N), seed=0)


def test_checks_and_leave_one_out_are_of_the_mixture_given_the_prediction() -> None:
    scene = scene_of()
    raw = STFT.analyse(waves(1, 4800))
    mixture = condition_on_predictor(scene, raw)
    posterior = SVI(steps=30, draws=100, waveforms=False)(scene, raw, seed=0)
    result = loo(scene, raw, posterior)
    draw = {n: torch.as_tensor(v[0, 0]) for n, v in posterior.latents.items()}
    law, _ = mixture_distribution(LogDensity(scene, mixture), draw, ())
    laws = scene.laws_given(draw, mixture)
    torch.testing.assert_close(law.power, laws.mixture.power)
    rows = []
    for d in range(100):
        draw = {n: torch.as_tensor(v[0, d]) for n, v in posterior.latents.items()}
        rows.append(scene.laws_given(draw, mixture).mixture.log_prob(mixture.values)[0])
    in_sample = torch.stack(rows).double().logsumexp(0) - np.log(100)
    np.testing.assert_allclose(result.in_sample, in_sample.numpy(), atol=1e-2)
    found = predictive_check(posterior, scene, raw)
    np.testing.assert_equal(
        found.p_values["law"], predictive_check(posterior, scene, mixture).p_values["law"]
    )
    bare = predictive_check(posterior, Scene(scene.speech, scene.noise, predictor=scene.predictor),
                            raw.with_predicted(0 * mixture.frames.predicted))  # fmt: skip
    assert not np.array_equal(bare.sizes["law"], found.sizes["law"])


def test_a_posterior_without_its_predictions_is_checked_by_the_scene_given() -> None:
    scene = scene_of(enhance=lambda wave, rate_hz: 0.0 * wave)
    alone = replace(scene, predictor=None)
    raw = STFT.analyse(waves(1, 4800))
    posterior = SVI(steps=30, draws=100)(scene, raw, seed=0)
    assert not posterior.kind.pooled and ERROR not in posterior.latents
    found, expected = (diagnose(posterior, given, raw).figures for given in (scene, alone))
    assert found == expected
    for check in (
        lambda given: loo(given, raw, posterior).elpd,
        lambda given: predictive_check(posterior, given, raw).p_values["law"],
        lambda given: draw_posterior_predictive(posterior, given, draws=3, mixture=raw).mixture,
    ):
        np.testing.assert_array_equal(check(scene), check(alone))


def test_leave_one_out_of_latents_of_bins_integrates_under_the_law_of_the_mixture() -> None:
    def noise(frames: Frames) -> ComplexNormal:
        with pyro.plate("freq", frames.freq, dim=-2), pyro.plate("time", frames.time, dim=-1):
            return ComplexNormal(0.0, pyro.sample("noise.bin", dist.LogNormal(0.0, 1e-3)))

    scene = scene_of(noise)
    mixture = observe(scene)
    density = LogDensity(scene, mixture)
    shape = mixture.values.shape
    proposals = {"noise.bin": (torch.zeros(shape), torch.full(shape, 1.5e-3))}
    bins = PointwiseLogLikelihood(density, proposals, torch.Generator().manual_seed(0))
    draw = {site.name: site.transform(site.start) for site in density.sites}
    draw["noise.bin"] = torch.ones(shape)
    expected = scene.laws_given(draw, mixture).mixture.log_prob(mixture.values)
    torch.testing.assert_close(bins(draw), expected, atol=0.1, rtol=0.02)
