"""Guided diffusion: settings, refusals, base priors, the gate under a switch, interruption."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avse_ppl import (
    NMF,
    SVI,
    Audio,
    GaussianScore,
    GaussianSpeech,
    GuidedDiffusion,
    LatentSpeech,
    Scene,
    ScoreSpeech,
    Stft,
    UDiffSE,
    enhance,
    stationary,
)
from avse_ppl.evaluation.diagnostics import diagnose
from avse_ppl.evaluation.diagnostics.posterior_inputs import latent_draws
from avse_ppl.inference.core.convergence import chain_figures
from avse_ppl.inference.core.powers import log_powers
from avse_ppl.inference.diffusion.warm_start import infer_gate
from avse_ppl.models.networks import LipEncoder, SequentialVaeNetwork, TcvaeNetwork
from avse_ppl.models.networks.latent_diffusion import LatentDiffusionNetwork
from avse_ppl.models.networks.score_cnn import ScoreNetwork
from avse_ppl.models.predictors.predictor import Predictor
from avse_ppl.models.visual.reliability import Beta, Switching, soft
from avse_ppl.posterior.approximation import Approximation
from tests.helpers import STFT, known_noise

N = 640
SHORT = {"steps": 3, "sweeps": 2, "draws": 4}


def denoiser(visual=0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ScoreNetwork(33, visual, bins=8, hidden=8, blocks=2, wide=8, wide_blocks=1)
        for layer in (network.leave.weight, network.whole.leave.weight):
            torch.nn.init.normal_(layer, std=0.05)
    return network


def wave(seed=0, n_samples=N):
    return np.random.default_rng(seed).normal(size=n_samples).astype("float32")


def score_scene(noise=stationary, network=None, **settings):
    return Scene(ScoreSpeech(network or denoiser(), stft=STFT, **settings), noise)


# --- compression ---------------------------------------------------------------------------------


# --- settings and refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "settings", "text"),
    [
        *((GuidedDiffusion, {k: 0}, f"{k} must be") for k in ("steps", "sweeps", "chains")),
        (GuidedDiffusion, {"langevin_steps": 0}, "langevin_steps must be"),
        (GuidedDiffusion, {"sigma_last": 0.0}, "sigma_last must be"),
        (GuidedDiffusion, {"sigma_start": 0.0}, "sigma_start must be"),
        (
            GuidedDiffusion,
            {"sigma_start": 0.05, "sigma_last": 0.1},
            r"sigma_start must be at least sigma_last=0\.1",
        ),
        (GuidedDiffusion, {"noise_retention": 1.5}, r"noise_retention must be within \[0, 1\]"),
        (GuidedDiffusion, {"noise_updates": -1}, "noise_updates must be"),
        (UDiffSE, {"steps": 0}, "steps must be"),
        (UDiffSE, {"guidance_weight": 0.0}, "guidance_weight must be"),
        (UDiffSE, {"corrector_snr": -0.1}, "corrector_snr must be at least 0"),
        (UDiffSE, {"t_epsilon": 1.0}, r"t_epsilon must be within \(0, 1\)"),
    ],
)
def test_a_bad_setting(method, settings, text):
    with pytest.raises(ValueError, match=text):
        method(**settings)


@pytest.mark.parametrize("method", [SVI(steps=2), SVI(guide="structured", steps=2)])
def test_a_score_prior_has_no_density(method):
    with pytest.raises(ValueError, match=r"is a score prior.*take --inference guided"):
        method(score_scene(), wave(), seed=0)
    with pytest.raises(ValueError, match="take GaussianSpeech for routines that want a law"):
        method(Scene(GaussianScore(torch.ones(33, 1), stft=STFT), stationary), wave(), seed=0)


def test_latents_that_follow_each_other_have_no_closed_score():
    network = SequentialVaeNetwork(33, 3, hidden=8, encoder_hidden=8, prior="gated")
    scene = Scene(LatentSpeech(network, stft=STFT), stationary)
    with pytest.raises(ValueError, match=r"speech\.z has no score in closed form"):
        GuidedDiffusion(**SHORT)(scene, wave(), seed=0)


@pytest.mark.parametrize("method", [GuidedDiffusion(**SHORT), UDiffSE(steps=3, em_iterations=1)])
def test_another_front_end(method):
    mixture = Stft(n_fft=32, hop=8).analyse(wave())
    with pytest.raises(ValueError, match="the speech prior was made for"):
        method(score_scene(), mixture, seed=0)


@pytest.mark.parametrize("method", [GuidedDiffusion(**SHORT), UDiffSE(steps=3, em_iterations=1)])
def test_a_denoiser_that_loses_its_numbers(method):
    class Broken(ScoreSpeech):
        def denoise(self, noisy, sigma, visual=None):
            mean, variance = super().denoise(noisy, sigma, visual)
            return (mean * float("nan") if float(sigma[0]) < 1.0 else mean), variance

    scene = Scene(Broken(denoiser(), stft=STFT), stationary)
    with pytest.raises(ValueError, match=r"NaN or infinity at step \d of 4|at step \d of 3"):
        method(scene, wave(), seed=0)


def test_visual_features_of_another_length():
    lips = LipEncoder(features=5, width=4)
    scene = Scene(ScoreSpeech(denoiser(5), lips, stft=STFT), stationary, soft)
    with pytest.raises(ValueError, match="visual features have shape"):
        GuidedDiffusion(**SHORT)(scene, wave(), torch.ones(1, 6, 7), seed=0)


def test_a_gate_that_is_a_latent_is_refused():
    scene = Scene(ScoreSpeech(denoiser(5), LipEncoder(5, 4), stft=STFT), stationary, Beta())
    visual = torch.ones(1, 6, STFT.count_frames(N))
    with pytest.raises(ValueError, match="take --reliability soft"):
        GuidedDiffusion(**SHORT)(scene, wave(), visual, seed=0)


# --- results -------------------------------------------------------------------------------------


def test_visual_features_are_gated():
    visual = torch.randn(1, 6, STFT.count_frames(N))
    visual[:, 0] = 1.0

    def mean(gate, reliability=soft):
        speech = ScoreSpeech(denoiser(5), LipEncoder(5, 4), stft=STFT)
        seen = visual.clone()
        seen[:, 0] = gate
        scene = Scene(speech, stationary, reliability)
        return GuidedDiffusion(**SHORT)(scene, wave(), seen, seed=0).mean

    audio_only = mean(0.0)
    np.testing.assert_array_equal(mean(1.0, lambda frames, seen: 0.0 * seen[:, 0]), audio_only)
    assert not np.array_equal(mean(1.0), audio_only)


def test_chains_start_and_end_apart_and_recordings_do_not_meet():
    posterior = GuidedDiffusion(chains=3, **SHORT)(score_scene(NMF(2)), wave()[None], seed=5)
    activations = posterior.latents["noise.activations"]
    assert activations.shape[:2] == (3, 2)
    assert not np.array_equal(activations[0], activations[1])
    both = GuidedDiffusion(chains=3, **SHORT)(
        score_scene(NMF(2)), np.stack([wave(1), wave()]), seed=4
    )
    np.testing.assert_allclose(both.mean[1], posterior.mean[0], atol=1e-4)


def test_rows_are_denoised_in_turns_where_memory_is_short(monkeypatch):
    whole = GuidedDiffusion(chains=3, **SHORT)(score_scene(), wave(), seed=0)
    monkeypatch.setattr("avse_ppl.inference.diffusion.spectrogram.free_memory", lambda device: 1.0)
    calls = []

    class Counting(ScoreSpeech):
        def denoise(self, noisy, sigma, visual=None):
            calls.append(len(noisy))
            return super().denoise(noisy, sigma, visual)

    scene = Scene(Counting(denoiser(), stft=STFT), stationary)
    turns = GuidedDiffusion(chains=3, **SHORT)(scene, wave(), seed=0)
    assert set(calls) == {1}
    np.testing.assert_allclose(turns.mean, whole.mean, atol=1e-4)


# --- how far it can be believed ------------------------------------------------------------------


def gaussian_scene(noise=stationary):
    return Scene(GaussianSpeech(stft=STFT), noise)


def test_short_chains_are_judged_and_warned_of():
    posterior = GuidedDiffusion(sweeps=8)(gaussian_scene(), wave()[None].repeat(2, 0), seed=0)
    assert posterior.kind.startswith("guided diffusion of latents in short unadjusted chains")
    assert Approximation.parse(str(posterior.kind)).method == posterior.kind.method
    for info in posterior.fit:
        figures = info.chain_figures
        assert figures is not None
        assert (figures["chains"], figures["draws"]) == (2, 8)
        assert figures["r_hat"] > 1.05 and 1 < figures["ess_bulk"] < 40
        [text] = info.warnings
        assert text.startswith(f"short chains: R-hat up to {figures['r_hat']:.2f}")
        assert text.endswith("rough; take more sweeps, langevin_steps or chains")
    found = diagnose(posterior)
    assert found.figures[0]["r_hat"] == posterior.diagnostics[0]["r_hat"]
    assert found.warnings == tuple(info.warnings for info in posterior.fit)


def test_figures_are_those_of_the_draws():
    scene = gaussian_scene()
    mixture = STFT.analyse(wave())
    posterior = GuidedDiffusion(sweeps=8, chains=3)(scene, mixture, seed=0)
    powers = log_powers(scene, mixture, list(latent_draws(posterior)), chains=3)
    [figures] = chain_figures(powers, {})
    found = posterior.diagnostics[0]
    assert found["r_hat_of"] == figures["r_hat_of"]
    for name in ("quantities", "draws", "r_hat", "ess_bulk", "ess_tail"):
        assert found[name] == pytest.approx(figures[name], rel=1e-3)


def test_long_chains_agree_and_are_not_warned_of():
    scene = Scene(GaussianSpeech(gain_sd_db=2.0, stft=STFT), known_noise)
    method = GuidedDiffusion(
        sweeps=400, sigma_start=3.0, sigma_last=3.0, langevin_steps=5, langevin_step_size=1.0,
        draws=2, waveforms=False,
    )  # fmt: skip
    posterior = method(scene, wave(), seed=0)
    assert posterior.kind.startswith("guided diffusion of latents in unadjusted chains")
    assert posterior.diagnostics[0]["r_hat"] < 1.05
    assert posterior.warnings == ()


def test_chains_of_bins_are_judged_by_the_speech_they_leave():
    posterior = GuidedDiffusion(**{**SHORT, "sweeps": 6})(score_scene(known_noise), wave(), seed=0)
    assert posterior.diagnostics[0]["r_hat_of"].startswith("speech.")
    assert posterior.diagnostics[0]["r_hat"] > 1.0


def test_sweeps_that_are_too_few_to_judge():
    posterior = GuidedDiffusion(**SHORT)(gaussian_scene(), wave(), seed=0)
    assert posterior.warnings == (
        "short chains: 2 sweeps of 2 chains are too few to judge whether they agree; take more "
        "sweeps, langevin_steps or chains",
    )
    assert posterior.diagnostics[0]["r_hat"] is None


# --- starts and ends -----------------------------------------------------------------------------


def test_a_warm_start_from_a_base_prior():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        base_prior = LatentSpeech(TcvaeNetwork(33, 3, hidden=8, encoder_hidden=8), stft=STFT)
    method = GuidedDiffusion(base_prior=base_prior, **SHORT)
    warm = method(score_scene(NMF(2)), wave(), seed=0)
    cold = replace(method, base_prior=None)(score_scene(NMF(2)), wave(), seed=0)
    assert not np.array_equal(warm.mean, cold.mean)
    assert (
        cold.kind == "guided diffusion of bins in short unadjusted chains, noise a point estimate"
    )
    assert warm.kind == (
        "guided diffusion of bins from latent speech in short unadjusted chains, "
        "noise a point estimate"
    )
    again = method(score_scene(NMF(2)), wave(), seed=0)
    np.testing.assert_array_equal(warm.mean, again.mean)


def test_a_base_prior_with_another_visual_encoder_is_refused():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SequentialVaeNetwork(33, 3, hidden=8, encoder_hidden=8, visual=5, prior="visual")
        encoder, others = LipEncoder(5, 4), LipEncoder(5, 4)
    visual = torch.ones(1, 6, STFT.count_frames(N))
    scene = score_scene(NMF(2), denoiser(5), visual_encoder=encoder)
    base_prior = LatentSpeech(network, visual_encoder=encoder, stft=STFT)
    assert np.isfinite(
        GuidedDiffusion(base_prior=base_prior, **SHORT)(scene, wave(), visual).mean
    ).all()
    with pytest.raises(ValueError, match="have different visual encoders"):
        GuidedDiffusion(base_prior=replace(base_prior, visual_encoder=others), **SHORT)(
            scene, wave(), visual
        )


def test_an_interrupt_keeps_the_sweeps_so_far():
    def stop(step, _steps):
        if step == 4:
            raise KeyboardInterrupt

    method = GuidedDiffusion(steps=3, sweeps=5, progress=stop)
    with pytest.warns(UserWarning, match="interrupted after 2 of 5 sweeps"):
        posterior = method(score_scene(NMF(2)), wave(), seed=0)
    assert posterior.latents["noise.activations"].shape[1] == 2
    assert posterior.attrs["interrupted"]


@pytest.mark.parametrize(("name", "inference"), [("score", None), ("latent-diffusion", "guided")])
def test_shipped_weights(name, inference):
    enhanced = enhance(
        Audio(wave(n_samples=12_000), 16_000), speech=name, inference=inference, draws=4
    )
    assert enhanced.kind is not None
    assert enhanced.kind.startswith("guided diffusion of ")
    assert np.isfinite(enhanced.speech.samples).all()
    # White noise is not speech: most of it has to go.
    assert np.mean(enhanced.speech.samples**2) < 0.3


def av_priors(latent=3):
    """Latent diffusion, base prior with a switch and the same visual encoder, visual features."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, tiny = LipEncoder(5, 4), {"hidden": 8, "encoder_hidden": 8, "visual": 5}
        own = LatentDiffusionNetwork(33, 3, denoiser_hidden=8, denoiser_blocks=1, **tiny)
        audio_visual = SequentialVaeNetwork(33, latent, prior="visual", **tiny)
        # So that lips change what they say.
        for weight in (*own.denoiser.parameters(), *audio_visual.prior.parameters()):
            torch.nn.init.normal_(weight, std=0.2)
        visual = torch.randn(1, 6, STFT.count_frames(N))
    visual[:, 0] = 0.6
    own_prior, base_prior = (
        LatentSpeech(n, visual_encoder=encoder, stft=STFT) for n in (own, audio_visual)
    )
    return own_prior, base_prior, visual


def test_under_a_switch_the_gate_is_inferred_with_the_base_prior():
    speech, base_prior, visual = av_priors()
    scene = Scene(speech, NMF(2), Switching())
    posterior = GuidedDiffusion(base_prior_av=base_prior, **SHORT)(scene, wave(), visual, seed=2)
    by_base_prior = SVI(steps=13, draws=10, k_hat_draws=0, tempering=1.0, waveforms=False)(
        Scene(base_prior, NMF(2), Switching()), wave(), visual, seed=2
    )
    np.testing.assert_allclose(posterior.reliability, by_base_prior.reliability, rtol=1e-5)
    assert (by_base_prior.reliability < 0.55).any()
    plain = replace(scene, reliability=soft)
    other = GuidedDiffusion(base_prior_av=base_prior, **SHORT)(plain, wave(), visual, seed=2)
    np.testing.assert_allclose(other.reliability, 0.6, rtol=1e-6)
    assert not np.array_equal(posterior.mean, other.mean)


def test_the_gate_is_inferred_with_the_prediction_that_the_scene_has():
    speech, base_prior, visual = av_priors()
    enhancers = (lambda wave, rate_hz: 0.9 * wave, lambda wave, rate_hz: 0.3 * wave)
    scene = Scene(speech, NMF(2), Switching())
    scenes = [scene, *(replace(scene, predictor=Predictor(enhance)) for enhance in enhancers)]
    method = GuidedDiffusion(base_prior_av=base_prior, **SHORT)
    gates = [method(one, wave(), visual, seed=2).reliability for one in scenes]
    by_base_prior = SVI(steps=13, draws=10, k_hat_draws=0, tempering=1.0, waveforms=False)(
        replace(scenes[1], speech=base_prior), wave(), visual, seed=2
    )
    expected = np.minimum(by_base_prior.reliability, 0.6)
    np.testing.assert_allclose(gates[1], expected, rtol=1e-5)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in combinations(gates, 2))


def test_the_inferred_gate_never_exceeds_the_score():
    def infer_certainly(scene, mixture, seed):
        gate = np.linspace(0.0, 1.0, mixture.frames.time, dtype="float32")
        return SimpleNamespace(reliability=gate[None])

    _, base_prior, visual = av_priors()
    mixture = STFT.analyse(wave()).with_visual(visual)
    inferred = infer_gate(
        Scene(base_prior, NMF(2), Switching()), mixture, infer_certainly, 0
    ).frames.visual
    gate = torch.linspace(0.0, 1.0, mixture.frames.time).clamp(max=0.6)
    torch.testing.assert_close(inferred[0, 0], gate)
    assert torch.equal(inferred[:, 1:], visual[:, 1:])


def test_under_a_switch_a_closed_gate_is_audio_only():
    speech, base_prior, visual = av_priors()
    method = GuidedDiffusion(base_prior_av=base_prior, **SHORT)
    scene, visual[:, 0] = Scene(speech, NMF(2), Switching()), 0.0
    audio_only = method(Scene(speech, NMF(2)), wave(), seed=2)
    np.testing.assert_array_equal(method(scene, wave(), visual, seed=2).mean, audio_only.mean)


@pytest.mark.parametrize("base_prior", [None, "tcvae"])
def test_a_switch_without_a_base_prior_that_supports_it(base_prior):
    speech, _, visual = av_priors()
    with pytest.raises(
        ValueError, match=f"found base_prior_av={base_prior!r}. Take base_prior_av='av-d"
    ):
        GuidedDiffusion(base_prior_av=base_prior)(
            Scene(speech, NMF(2), Switching()), wave(), visual
        )


def test_latents_start_at_the_guess_of_an_audio_visual_encoder():
    speech, base_prior, visual = av_priors()
    fewer = av_priors(latent=2)[1].network
    scene = Scene(speech, NMF(2))
    method = GuidedDiffusion(base_prior_av=base_prior, **SHORT)
    plain = GuidedDiffusion(**SHORT)
    assert not np.array_equal(method(scene, wave(), visual).mean, plain(scene, wave(), visual).mean)
    np.testing.assert_array_equal(method(scene, wave()).mean, plain(scene, wave()).mean)
    for other, text in (
        (replace(base_prior, visual_encoder=LipEncoder(5, 4)), "different visual encoders"),
        (replace(base_prior, network=fewer), "the base prior has 2 latents, the speech prior 3"),
    ):
        with pytest.raises(ValueError, match=text):
            GuidedDiffusion(base_prior_av=other, **SHORT)(scene, wave(), visual)
