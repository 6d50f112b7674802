"""Guided diffusion: diffusions, compression, settings, refusals, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avse_ppl import (
    NMF,
    SVI,
    Audio,
    ComplexNormal,
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
from avse_ppl.inference.diffusion.warm_start import infer_gate
from avse_ppl.models import Ouve, Vp
from avse_ppl.models.networks import LipEncoder, SequentialVaeNetwork, TcvaeNetwork
from avse_ppl.models.networks.latent_diffusion import LatentDiffusionNetwork
from avse_ppl.models.networks.score_cnn import ScoreNetwork
from avse_ppl.models.speech.compression import Compression
from avse_ppl.models.speech.diffusion import noise_levels
from avse_ppl.models.visual.reliability import Beta, Switching, soft
from tests.helpers import STFT

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


def scored(noise=stationary, network=None, **settings):
    return Scene(ScoreSpeech(network or denoiser(), stft=STFT, **settings), noise)


# --- diffusions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", [Ouve(), Ouve(0.5, 0.01, 1.0), Vp(), Vp(0.2, 4.0)])
def test_a_kernel_is_that_of_its_equation(sde):
    # Mean and variance of the linear equation, integrated in small steps.
    steps = 20_000
    mean, variance = 1.0, 0.0
    for i in range(steps):
        t = (i + 0.5) / steps
        mean -= sde.decay(t) * mean / steps
        variance += (sde.diffusion(t) ** 2 - 2 * sde.decay(t) * variance) / steps
    assert mean == pytest.approx(sde.scale(1.0), rel=1e-3)
    assert variance == pytest.approx(sde.spread(1.0) ** 2, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Ouve(stiffness=0.0), "stiffness must be"),
        (lambda: Ouve(low=0.5, high=0.5), r"high must be above low=0\.5"),
        (lambda: Vp(low=-1.0), "low must be"),
        (lambda: Vp(low=2.0, high=1.0), "high must be above low=2"),
        (lambda: noise_levels(1.0, 0.1, 0), "steps must be a whole number of at least 1"),
        (lambda: Compression(0.3), "exponent of a compression is 0.5 or 1, not 0.3"),
    ],
)
def test_a_diffusion_that_makes_no_sense(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_one_level_is_the_highest():
    assert noise_levels(2.0, 0.1, 1) == pytest.approx([2.0])


# --- compression ---------------------------------------------------------------------------------


def test_compression_is_undone():
    speech = torch.randn(100, dtype=torch.complex64)
    for compression in (Compression(), Compression(1.0)):
        back = compression.expand(compression.compress(speech))
        torch.testing.assert_close(back, speech, rtol=1e-5, atol=1e-6)
    assert Compression().compress(torch.zeros(1, dtype=torch.complex64)) == 0


@pytest.mark.parametrize(("mean", "variance"), [(0, 1.0), (0.3, 1.0), (1 + 1j, 0.5), (3j, 0.01)])
def test_moments_of_expanded_bins_are_exact(mean, variance):
    generator = torch.Generator().manual_seed(0)
    unit = torch.randn(400_000, dtype=torch.complex128, generator=generator)
    drawn = Compression().expand(mean + variance**0.5 * unit)
    given = torch.tensor(mean, dtype=torch.complex128), torch.tensor(variance, dtype=torch.float64)
    law = Compression().law(*given)
    error = float(law.power.sqrt()) / 400_000**0.5
    assert abs(complex(drawn.mean()) - complex(law.mean)) < 4 * error
    spread = (drawn - law.mean).abs().square()
    assert abs(float(spread.mean() - law.power)) < 4 * float(spread.std()) / 400_000**0.5


def test_a_sure_bin_keeps_a_positive_variance():
    law = Compression().law(torch.tensor([30.0 + 0j]), torch.tensor([1e-9]))
    assert float(law.power) == pytest.approx(4 * 900 * 1e-9, rel=0.6)
    assert float(law.power) > 0


# --- the network ---------------------------------------------------------------------------------


def test_lips_whose_gate_is_shut_are_no_lips():
    network, noisy = denoiser(visual=5), torch.randn(2, 33, 9, dtype=torch.complex64)
    sigma, visual = torch.tensor([0.2, 1.0]), torch.randn(2, 6, 9)
    deaf = network(noisy, sigma)
    for mine, other in zip(network(noisy, sigma, 0 * visual), deaf, strict=True):
        assert torch.equal(mine, other)
    assert not torch.equal(network(noisy, sigma, visual)[0], deaf[0])


@pytest.mark.parametrize(
    "network",
    [
        ScoreNetwork(33, bins=8, hidden=8, blocks=1, wide=8, wide_blocks=1, spread=0.5),
    ],
)
def test_an_untrained_network_is_the_wiener_filter_of_white_bins(network):
    noisy, sigma = torch.randn(1, 33, 4, dtype=torch.complex64), torch.tensor([0.5])
    mean, variance = network(noisy, sigma)
    torch.testing.assert_close(mean, 0.5 * noisy)
    torch.testing.assert_close(variance, torch.full((1, 33, 4), 0.125))


# --- settings and refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routine", "settings", "text"),
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
        (UDiffSE, {"tempering": 0.5}, "tempered by guidance_weight"),
        (UDiffSE, {"t_epsilon": 1.0}, r"t_epsilon must be within \(0, 1\)"),
    ],
)
def test_a_bad_setting(routine, settings, text):
    with pytest.raises(ValueError, match=text):
        routine(**settings)


@pytest.mark.parametrize("routine", [SVI(steps=2), SVI(guide="structured", steps=2)])
def test_a_score_prior_has_no_density(routine):
    with pytest.raises(ValueError, match=r"is a score prior.*take --inference guided"):
        routine(scored(), wave(), seed=0)
    with pytest.raises(ValueError, match="take GaussianSpeech for routines that want a law"):
        routine(Scene(GaussianScore(torch.ones(33, 1), stft=STFT), stationary), wave(), seed=0)


def test_latents_that_follow_each_other_have_no_closed_score():
    network = SequentialVaeNetwork(33, 3, hidden=8, encoder_hidden=8, prior="gated")
    scene = Scene(LatentSpeech(network, stft=STFT), stationary)
    with pytest.raises(ValueError, match=r"speech\.z has no score in closed form"):
        GuidedDiffusion(**SHORT)(scene, wave(), seed=0)


def test_the_published_setting_wants_a_score_prior():
    scene = Scene(GaussianSpeech(stft=STFT), stationary)
    with pytest.raises(ValueError, match="UDiffSE wants a score prior"):
        UDiffSE()(scene, wave(), seed=0)


@pytest.mark.parametrize("routine", [GuidedDiffusion(**SHORT), UDiffSE(steps=3, em_iterations=1)])
def test_another_front_end(routine):
    mixture = Stft(n_fft=32, hop=8).analyse(wave())
    with pytest.raises(ValueError, match="the speech prior was made for"):
        routine(scored(), mixture, seed=0)


@pytest.mark.parametrize("routine", [GuidedDiffusion(**SHORT), UDiffSE(steps=3, em_iterations=1)])
def test_a_denoiser_that_loses_its_numbers(routine):
    class Broken(ScoreSpeech):
        def denoise(self, noisy, sigma, visual=None):
            mean, variance = super().denoise(noisy, sigma, visual)
            return (mean * float("nan") if float(sigma[0]) < 1.0 else mean), variance

    scene = Scene(Broken(denoiser(), stft=STFT), stationary)
    with pytest.raises(ValueError, match=r"NaN or infinity at step \d of 4|at step \d of 3"):
        routine(scene, wave(), seed=0)


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


def test_lips_matter_as_far_as_they_are_believed():
    visual = torch.randn(1, 6, STFT.count_frames(N))
    visual[:, 0] = 1.0

    def mean(gate, reliability=soft):
        speech = ScoreSpeech(denoiser(5), LipEncoder(5, 4), stft=STFT)
        seen = visual.clone()
        seen[:, 0] = gate
        scene = Scene(speech, stationary, reliability)
        return GuidedDiffusion(**SHORT)(scene, wave(), seen, seed=0).mean

    deaf = mean(0.0)
    np.testing.assert_array_equal(mean(1.0, lambda frames, seen: 0.0 * seen[:, 0]), deaf)
    assert not np.array_equal(mean(1.0), deaf)


def test_chains_start_and_end_apart_and_recordings_do_not_meet():
    posterior = GuidedDiffusion(chains=3, **SHORT)(scored(NMF(2)), wave()[None], seed=5)
    activations = posterior.latents["noise.activations"]
    assert activations.shape[:2] == (3, 2)
    assert not np.array_equal(activations[0], activations[1])
    both = GuidedDiffusion(chains=3, **SHORT)(scored(NMF(2)), np.stack([wave(1), wave()]), seed=4)
    np.testing.assert_allclose(both.mean[1], posterior.mean[0], atol=1e-4)


def test_memory_that_is_short_is_used_in_turns(monkeypatch):
    whole = GuidedDiffusion(chains=3, **SHORT)(scored(), wave(), seed=0)
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


def test_it_starts_from_another_prior():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = LatentSpeech(TcvaeNetwork(33, 3, hidden=8, encoder_hidden=8), stft=STFT)
    routine = GuidedDiffusion(base_prior=start, **SHORT)
    warm = routine(scored(NMF(2)), wave(), seed=0)
    cold = replace(routine, base_prior=None)(scored(NMF(2)), wave(), seed=0)
    assert not np.array_equal(warm.mean, cold.mean)
    assert cold.kind == "guided diffusion of bins, noise a point estimate"
    assert warm.kind == "guided diffusion of bins from latent speech, noise a point estimate"
    again = routine(scored(NMF(2)), wave(), seed=0)
    np.testing.assert_array_equal(warm.mean, again.mean)


def test_a_start_that_sees_otherwise_is_refused():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SequentialVaeNetwork(33, 3, hidden=8, encoder_hidden=8, visual=5, prior="visual")
        eyes, others = LipEncoder(5, 4), LipEncoder(5, 4)
    visual = torch.ones(1, 6, STFT.count_frames(N))
    scene = scored(NMF(2), denoiser(5), lips=eyes)
    start = LatentSpeech(network, lips=eyes, stft=STFT)
    assert np.isfinite(GuidedDiffusion(base_prior=start, **SHORT)(scene, wave(), visual).mean).all()
    with pytest.raises(ValueError, match="have different visual encoders"):
        GuidedDiffusion(base_prior=replace(start, lips=others), **SHORT)(scene, wave(), visual)


def test_interrupted_it_keeps_the_rounds_so_far():
    def stop(step, _steps):
        if step == 4:
            raise KeyboardInterrupt

    routine = GuidedDiffusion(steps=3, sweeps=5, progress=stop)
    with pytest.warns(UserWarning, match="interrupted after 2 of 5 sweeps"):
        posterior = routine(scored(NMF(2)), wave(), seed=0)
    assert posterior.latents["noise.activations"].shape[1] == 2
    assert posterior.attrs["interrupted"]


def test_the_published_setting_runs_for_any_noise():
    def hiss(frames):
        return ComplexNormal(0.0, 0.1)

    for noise in (NMF(2), stationary, hiss):
        posterior = UDiffSE(steps=3, em_iterations=2)(scored(noise), wave(), seed=0)
        assert posterior.kind == "UDiffSE, spread of chains, tempered 1.5"
        assert np.isfinite(posterior.mean).all()
        assert posterior.speech.shape == (2, 1, 1, N)


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
    """Latent diffusion, prior with a switch that sees through the same eyes, and what is seen."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        eyes, tiny = LipEncoder(5, 4), {"hidden": 8, "encoder_hidden": 8, "visual": 5}
        own = LatentDiffusionNetwork(33, 3, denoiser_hidden=8, denoiser_blocks=1, **tiny)
        looking = SequentialVaeNetwork(33, latent, prior="visual", **tiny)
        # So that lips change what they say.
        for weight in (*own.denoiser.parameters(), *looking.prior.parameters()):
            torch.nn.init.normal_(weight, std=0.2)
        visual = torch.randn(1, 6, STFT.count_frames(N))
    visual[:, 0] = 0.6
    own_prior, start = (LatentSpeech(n, lips=eyes, stft=STFT) for n in (own, looking))
    return own_prior, start, visual


def test_under_a_switch_lips_count_as_far_as_the_start_finds_out():
    speech, start, visual = av_priors()
    scene = Scene(speech, NMF(2), Switching())
    posterior = GuidedDiffusion(base_prior_av=start, **SHORT)(scene, wave(), visual, seed=2)
    by_start = SVI(steps=13, draws=10, k_hat_draws=0, tempering=1.0, waveforms=False)(
        Scene(start, NMF(2), Switching()), wave(), visual, seed=2
    )
    np.testing.assert_allclose(posterior.reliability, by_start.reliability, rtol=1e-5)
    assert (by_start.reliability < 0.55).any()
    plain = replace(scene, reliability=soft)
    other = GuidedDiffusion(base_prior_av=start, **SHORT)(plain, wave(), visual, seed=2)
    np.testing.assert_allclose(other.reliability, 0.6, rtol=1e-6)
    assert not np.array_equal(posterior.mean, other.mean)


def test_under_a_switch_lips_never_count_for_more_than_their_score():
    def sure(scene, mixture, seed):
        gate = np.linspace(0.0, 1.0, mixture.frames.time, dtype="float32")
        return SimpleNamespace(reliability=gate[None])

    _, start, visual = av_priors()
    mixture = STFT.analyse(wave()).with_visual(visual)
    found = infer_gate(Scene(start, NMF(2), Switching()), mixture, sure, 0).frames.visual
    gate = torch.linspace(0.0, 1.0, mixture.frames.time).clamp(max=0.6)
    torch.testing.assert_close(found[0, 0], gate)
    assert torch.equal(found[:, 1:], visual[:, 1:])


def test_under_a_switch_nothing_seen_is_by_ear():
    speech, start, visual = av_priors()
    routine = GuidedDiffusion(base_prior_av=start, **SHORT)
    scene, visual[:, 0] = Scene(speech, NMF(2), Switching()), 0.0
    by_ear = routine(Scene(speech, NMF(2)), wave(), seed=2)
    np.testing.assert_array_equal(routine(scene, wave(), visual, seed=2).mean, by_ear.mean)


@pytest.mark.parametrize("start", [None, "tcvae"])
def test_a_switch_that_nobody_can_find_out(start):
    speech, _, visual = av_priors()
    with pytest.raises(
        ValueError, match=f"found base_prior_av={start!r}. Take base_prior_av='av-d"
    ):
        GuidedDiffusion(base_prior_av=start)(Scene(speech, NMF(2), Switching()), wave(), visual)


def test_latents_start_where_another_encoder_looks():
    speech, start, visual = av_priors()
    fewer = av_priors(latent=2)[1].network
    scene = Scene(speech, NMF(2))
    routine = GuidedDiffusion(base_prior_av=start, **SHORT)
    plain = GuidedDiffusion(**SHORT)
    assert not np.array_equal(
        routine(scene, wave(), visual).mean, plain(scene, wave(), visual).mean
    )
    np.testing.assert_array_equal(routine(scene, wave()).mean, plain(scene, wave()).mean)
    for other, text in (
        (replace(start, lips=LipEncoder(5, 4)), "different visual encoders"),
        (replace(start, network=fewer), "the base prior has 2 latents, the speech prior 3"),
    ):
        with pytest.raises(ValueError, match=text):
            GuidedDiffusion(base_prior_av=other, **SHORT)(scene, wave(), visual)
