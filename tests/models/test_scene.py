"""The scene as a Pyro program: one mixture, speech integrated out, recordings side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from avse_ppl import NMF, ComplexNormal, Frames, GaussianSpeech, Scene, Stft, stationary
from avse_ppl.models.handlers import reuse_plates
from tests.helpers import STFT

SPEECH = GaussianSpeech(stft=STFT)


def mixture(*lengths: int):
    waves = [np.random.default_rng(n).normal(size=n).astype(np.float32) for n in lengths]
    return STFT.analyse(waves).to("cpu", torch.float64)


def hiss(frames):
    with pyro.plate("freq", frames.freq, dim=-2):
        floor = pyro.sample("noise.floor", dist.LogNormal(-1.0, 1.0))
    with pyro.plate("time", frames.time, dim=-1):
        gain = pyro.sample("noise.gain", dist.LogNormal(0.0, 0.5))
    return ComplexNormal(0.0, floor * gain)


def offset_speech(frames, visual=None):
    mean = torch.full((frames.freq, frames.time), 0.3 - 0.2j, dtype=torch.complex128)
    return ComplexNormal(mean, torch.tensor(0.7, dtype=torch.float64))


def latents(trace):
    return {
        name: node["value"]
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and not node["is_observed"]
    }


def trace_of(scene, observed, values=None):
    program = poutine.condition(scene, data=values) if values else scene
    return poutine.trace(program).get_trace(observed)


def log_density(x, mean, power):
    return -np.log(np.pi * power) - np.abs(x - mean) ** 2 / power


# Speech is integrated out


@pytest.mark.parametrize("speech", [SPEECH, offset_speech], ids=["gaussian", "with a mean"])
def test_the_mixture_has_the_law_of_the_sum(speech):
    observed = mixture(200, 200)
    trace = trace_of(Scene(speech, hiss), observed)
    values = latents(trace)
    laws = Scene(speech, hiss).laws_given(values, observed)
    power = (laws.speech.power + laws.noise.power).numpy()
    mean = (laws.speech.mean + laws.noise.mean).numpy()
    expected = log_density(observed.values.numpy(), mean, power)
    assert expected.shape == (2, 33, 14)
    trace.compute_log_prob()
    assert float(trace.nodes["mixture"]["log_prob_sum"]) == pytest.approx(expected.sum())
    assert set(trace.observation_nodes) == {"mixture"}
    assert "speech" not in trace.nodes  # never sampled: its law is enough


def test_the_log_joint_is_prior_plus_likelihood():
    observed = mixture(200)
    trace = trace_of(Scene(SPEECH, hiss), observed)
    values = latents(trace)
    assert set(values) == {"speech.gain", "noise.floor", "noise.gain"}
    prior = (
        dist.Normal(0.0, 1.0).log_prob(values["speech.gain"]).sum()
        + dist.LogNormal(-1.0, 1.0).log_prob(values["noise.floor"]).sum()
        + dist.LogNormal(0.0, 0.5).log_prob(values["noise.gain"]).sum()
    )
    law = Scene(SPEECH, hiss).laws_given(values, observed).mixture
    assert values["noise.floor"].shape == (1, 33, 1)
    assert values["noise.gain"].shape == values["speech.gain"].shape == (1, 1, 14)
    expected = float(prior + law.log_prob(observed.values).sum())
    assert float(trace.log_prob_sum()) == pytest.approx(expected, rel=1e-5)


def test_integrating_speech_out_agrees_with_averaging_over_draws_of_speech():
    # log E_s p(x | s): 200,000 draws for each of 3 bins; within 6 standard errors, so that a
    # false failure has odds below 1e-8 (and the seed is fixed).
    speech = ComplexNormal(0.2, torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64))
    noise = ComplexNormal(0.0, torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64))
    x = torch.tensor([1.0 + 0.5j, -0.3j, 2.0], dtype=torch.complex128)
    weights = noise.log_prob(x - speech.sample((200_000,))).exp()
    error = weights.std(0) / 200_000**0.5
    exact = speech.convolve(noise).log_prob(x).exp()
    assert bool(((weights.mean(0) - exact).abs() < 6 * error).all())
    assert bool((error < 0.01 * exact).all())


# Plates


def test_speech_and_noise_may_use_the_same_plate_names():
    trace = trace_of(Scene(SPEECH, stationary), mixture(200))  # both have "time" or "freq"
    assert set(latents(trace)) == {"speech.gain", "noise.power"}


def test_a_noise_model_may_open_one_plate_name_twice():
    def noise(frames):
        with pyro.plate("time", frames.time, dim=-1):
            first = pyro.sample("first", dist.LogNormal(0.0, 1.0))
        with pyro.plate("time", frames.time, dim=-1):
            second = pyro.sample("second", dist.LogNormal(0.0, 1.0))
        return ComplexNormal(0.0, first + second)

    observed = mixture(200, 150)
    trace = trace_of(Scene(SPEECH, noise), observed)
    assert latents(trace)["first"].shape == latents(trace)["second"].shape == (2, 1, 14)
    assert np.isfinite(float(trace.log_prob_sum()))


def test_without_the_handler_a_plate_name_is_refused_twice():
    def program():
        for name in ("a", "b"):
            with pyro.plate("time", 3, dim=-1):
                pyro.sample(name, dist.Normal(0.0, 1.0))

    with pytest.raises(RuntimeError, match="Multiple sample sites named 'time'"):
        poutine.trace(program).get_trace()
    trace = poutine.trace(reuse_plates()(program)).get_trace()
    assert set(latents(trace)) == {"a", "b"}


def test_latents_without_plates_are_one_for_each_recording():
    def noise(frames):
        return ComplexNormal(0.0, pyro.sample("floor", dist.LogNormal(0.0, 1.0)))

    floor = latents(trace_of(Scene(SPEECH, noise), mixture(200, 150, 90)))["floor"]
    assert floor.shape == (3, 1, 1)
    assert len(set(floor.flatten().tolist())) == 3


# Batches and padding


@pytest.mark.parametrize(
    "noise", [hiss, NMF(rank=2), stationary], ids=["hiss", "nmf", "stationary"]
)
@pytest.mark.parametrize("lengths", [(200, 200), (200, 90, 150)], ids=["equal", "padded"])
def test_a_batch_has_the_log_joint_of_its_recordings(noise, lengths):
    scene, observed = Scene(SPEECH, noise), mixture(*lengths)
    values = latents(trace_of(scene, observed))
    whole = trace_of(scene, observed, values)
    whole.compute_log_prob()
    parts = 0.0
    for i in range(len(lengths)):
        one = observed.select(i)
        time = one.frames.time
        own = {
            name: v[i : i + 1, ..., : time if v.shape[-1] == observed.frames.time else None]
            for name, v in values.items()
        }
        trace = trace_of(scene, one, own)
        trace.compute_log_prob()
        parts += float(trace.nodes["mixture"]["log_prob_sum"])
    assert float(whole.nodes["mixture"]["log_prob_sum"]) == pytest.approx(parts)


def test_a_batch_of_equal_lengths_has_the_sum_of_the_whole_log_joints():
    scene, observed = Scene(SPEECH, hiss), mixture(200, 199, 198)
    values = latents(trace_of(scene, observed))
    whole = float(trace_of(scene, observed, values).log_prob_sum())
    parts = [
        float(
            trace_of(
                scene, observed.select(i), {name: v[i : i + 1] for name, v in values.items()}
            ).log_prob_sum()
        )
        for i in range(3)
    ]
    assert whole == pytest.approx(sum(parts))
    assert len({round(p, 3) for p in parts}) == 3


def test_padded_frames_do_not_count():
    scene, observed = Scene(SPEECH, hiss), mixture(200, 90)
    values = latents(trace_of(scene, observed))

    def likelihood(spectrogram, changed):
        trace = trace_of(scene, spectrogram, changed)
        trace.compute_log_prob()
        return float(trace.nodes["mixture"]["log_prob_sum"])

    before = likelihood(observed, values)
    padded = STFT.count_frames(90)
    noisy = observed.values.clone()
    noisy[1, :, padded:] = 1e3
    assert likelihood(replace(observed, values=noisy), values) == before
    louder = dict(values, **{"noise.gain": values["noise.gain"].clone()})
    louder["noise.gain"][1, :, padded:] *= 100
    assert likelihood(observed, louder) == before
    noisy[1, :, padded - 1] = 1e3  # the last frame that counts
    assert likelihood(replace(observed, values=noisy), values) < before - 1e3


# Running forwards


def test_bare_frames_simulate_a_mixture():
    frames = Frames(33, 14, hop=16, n_fft=64)
    scene = Scene(SPEECH, hiss)
    trace = poutine.trace(scene).get_trace(frames)
    site = trace.nodes["mixture"]
    assert not site["is_observed"]
    assert site["value"].shape == (1, 33, 14)
    assert site["value"].dtype == torch.complex64
    again = poutine.trace(scene).get_trace(frames).nodes["mixture"]["value"]
    assert not torch.equal(site["value"], again)


def test_simulated_mixtures_have_the_power_of_speech_plus_noise():
    # |x|^2 / (S + B) is exponential, of mean and variance 1: 6 / sqrt(n), odds below 1e-8.
    frames = Frames(33, 2000, hop=16, n_fft=64)
    trace = poutine.trace(Scene(SPEECH, hiss)).get_trace(frames)
    laws = poutine.condition(Scene(SPEECH, hiss), data=latents(trace))(frames)
    ratio = trace.nodes["mixture"]["value"].abs().square() / laws.mixture.power
    assert float(ratio.mean()) == pytest.approx(1.0, abs=6 / ratio.numel() ** 0.5)


def test_a_scene_returns_its_laws():
    observed = mixture(200)
    laws = Scene(SPEECH, hiss)(observed)
    assert laws.speech.power.shape == laws.noise.power.shape == (1, 33, 14)
    torch.testing.assert_close(laws.mixture.power, laws.speech.power + laws.noise.power)


# Given values


def test_laws_given_values_are_those_of_the_models():
    scene, observed = Scene(SPEECH, hiss), mixture(200, 200)
    values = {
        "speech.gain": torch.zeros(2, 1, 14),
        "noise.floor": torch.full((2, 33, 1), 2.0),
        "noise.gain": torch.tensor([1.0, 3.0])[:, None, None].expand(2, 1, 14).requires_grad_(),
    }
    laws = scene.laws_given(values, observed)
    torch.testing.assert_close(
        laws.noise.power, torch.tensor([2.0, 6.0])[:, None, None].expand(2, 33, 14)
    )
    expected = GaussianSpeech(gain_sd_db=0, stft=STFT)(observed.frames).power
    torch.testing.assert_close(laws.speech.power.double(), expected.expand(2, 33, 14))
    assert not laws.noise.power.requires_grad


def test_laws_given_no_values_have_the_recordings_of_the_mixture():
    noise_seen = []

    def noise(frames):
        noise_seen.append(pyro.sample("floor", dist.LogNormal(0.0, 1.0)))
        return ComplexNormal(0.0, noise_seen[-1])

    Scene(SPEECH, noise).laws_given({}, mixture(200, 200, 200))
    assert noise_seen[0].shape == (3, 1, 1)


def test_laws_given_values_leave_no_trace_behind():
    scene, observed = Scene(SPEECH, hiss), mixture(200)
    values = latents(trace_of(scene, observed))
    with poutine.trace() as tracer:
        scene.laws_given(values, observed)
    assert not [n for n, node in tracer.trace.nodes.items() if node["type"] == "sample"]


# Reliability and front end


def test_reliability_gates_the_video():
    seen = []

    def speech(frames, visual=None):
        seen.append(visual)
        return ComplexNormal(0.0, torch.ones(()))

    gate = torch.tensor([[1.0]]).expand(1, 14)  # the first row: where there is a picture
    video = torch.cat((gate, torch.arange(1.0, 15.0)[None]))[None]
    scores = torch.linspace(0, 1, 14)[None]
    frames = mixture(200).frames

    def reliability(given_frames, given_video):
        assert given_frames is frames
        assert given_video is video
        return scores

    Scene(speech, hiss, reliability).laws(frames, video)
    torch.testing.assert_close(seen[0], video * scores)
    Scene(speech, hiss).laws(frames, video)
    assert seen[1] is video
    Scene(speech, hiss, reliability).laws(frames)
    assert seen[2] is None
    Scene(speech, hiss, reliability)(mixture(200), video=None)
    assert seen[3] is None


def test_the_front_end_is_that_of_the_speech_prior():
    assert Scene(SPEECH, hiss).stft == STFT
    assert Scene(offset_speech, hiss).stft == Stft()
