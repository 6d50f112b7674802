"""Video on its way into a scene."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pyroapi import distributions as dist
from pyroapi import ops, pyro

from avse_ppl import (
    NMF,
    SVI,
    ComplexNormal,
    GaussianSpeech,
    LatentSpeech,
    NumPyroNUTS,
    Scene,
    Stft,
)
from avse_ppl.inference.core.video import condition_on_video
from avse_ppl.models.networks import LipEncoder, SequentialVaeNetwork
from avse_ppl.models.visual.reliability import soft
from avse_ppl.video import Lips
from tests.helpers import STFT

WAVES = np.random.default_rng(0).normal(size=(2, 1600)).astype("float32")


@pytest.fixture(scope="module")
def prior():
    torch.manual_seed(0)
    network = SequentialVaeNetwork(33, 3, 12, 3, 10, visual=4, prior="gated", sight_hidden=8).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    eyes = LipEncoder(4, 4).eval().requires_grad_(False)
    return LatentSpeech(network.requires_grad_(False), visual_encoder=eyes, stft=STFT, name="toy")


def lips(seed=0, frames=3):
    crops = np.random.default_rng(seed).integers(0, 255, (frames, 88, 88)).astype("uint8")
    return Lips.from_crops(crops, rate_hz=25)


def invert(prior, video, waves=WAVES, seed=0):
    routine = SVI(steps=3, draws=2, k_hat_draws=0)
    return routine(Scene(prior, NMF(1)), waves, video, seed=seed)


def test_lips_change_the_answer_and_their_absence_does_not(prior):
    heard = invert(prior, None)
    assert not np.allclose(invert(prior, lips()).mean, heard.mean)
    assert np.array_equal(invert(prior, [None, None]).mean, heard.mean)
    dark = torch.zeros(2, 5, STFT.count_frames(1600))
    assert np.array_equal(invert(prior, dark).mean, heard.mean)


def test_one_recording_sees_and_the_other_does_not(prior):
    both = invert(prior, [lips(), None])
    assert np.allclose(both.mean[1], invert(prior, None).mean[1], atol=1e-5)
    alone = invert(prior, lips(), waves=WAVES[:1])
    assert np.allclose(both.mean[0], alone.mean[0], atol=1e-5)


@dataclass(frozen=True)
class AsLoudAsSeen:
    """A speech prior of one latent, which JAX compiles soon."""

    stft: Stft = STFT

    def __call__(self, frames, visual=None):
        level = pyro.sample("level", dist.Normal(frames.number(0.0), 1.0))
        return ComplexNormal(0.0, ops.exp(level + visual[..., 1:, :]))


def test_compiled_chains_of_one_call_look_at_their_own_video():
    pytest.importorskip("numpyro")
    from avse_ppl.inference.mcmc import jax_chains

    routine = NumPyroNUTS(
        draws=25, warmup=25, chains=1, metrics=1, max_tree_depth=2, init_steps=3, waveforms=False
    )
    scene = Scene(AsLoudAsSeen(), lambda frames: ComplexNormal(0.0, 0.3))
    mixture = STFT.analyse(np.stack([WAVES[0, :320]] * 2))
    seen = torch.randn(2, 2, mixture.frames.time)
    jax_chains._compiled.clear()
    both = routine(scene, mixture.with_visual(seen), seed=[0, 0])
    alone = routine(scene, mixture.select(1).with_visual(seen[1:]), seed=0)
    np.testing.assert_allclose(both.mean[1], alone.mean[0], atol=1e-4)
    (program,) = jax_chains._compiled.values()  # and none was compiled for the second video
    assert program.draw_block._cache_size() == 1


def test_the_score_listens_to_each_recording(prior, monkeypatch):
    heard = []

    def scored(one, audio=None):
        heard.append(audio and audio.samples)
        return SimpleNamespace(time_s=one.time_s, score=np.full(len(one), 0.5))

    monkeypatch.setattr("avse_ppl.video.quality.score.score_lips", scored)
    waves = 3.0 * np.random.default_rng(1).normal(size=(2, 8000)).astype("float32")
    scene = Scene(prior, NMF(1), soft)
    visual = condition_on_video(
        scene, STFT.analyse(waves), [lips(0, 13), lips(1, 13)]
    ).frames.visual
    assert torch.equal(visual[:, 0], torch.full_like(visual[:, 0], 0.5 * prior.visual_weight))
    for found, wave in zip(heard, waves, strict=True):
        np.testing.assert_allclose(found, wave, atol=1e-3)
    condition_on_video(scene, STFT.analyse(waves[:, :4000]), [lips(0, 7), None])
    assert heard[2:] == [None]  # a quarter of a second tells nothing


def test_a_score_of_zero_closes_the_eyes(prior):
    def blind(frames, video):
        return torch.zeros(video.shape[0], frames.time)

    scene = Scene(prior, NMF(1), reliability=blind)
    found = SVI(steps=3, draws=2, k_hat_draws=0)(scene, WAVES, lips(), seed=0)
    assert np.array_equal(found.mean, invert(prior, None).mean)


def test_select_keeps_what_is_seen(prior):
    mixture = condition_on_video(Scene(prior, NMF(1)), STFT.analyse(WAVES), [lips(), lips(1)])
    one = mixture.select(1)
    assert torch.equal(one.frames.visual, mixture.frames.visual[1:])


@dataclass
class Blind:
    """A prior of somebody's that takes no video."""

    def __call__(self, frames, visual=None):
        return GaussianSpeech()(frames)


@pytest.mark.parametrize("speech", [GaussianSpeech(stft=STFT), Blind()])
def test_a_blind_prior_refuses_video(speech):
    with pytest.raises(ValueError, match="audio-only and would ignore"):
        condition_on_video(Scene(speech, NMF(1)), STFT.analyse(WAVES), lips())


def test_a_latent_prior_without_visual_encoder_refuses_video(prior):
    from dataclasses import replace

    blind = replace(prior, visual_encoder=None)
    with pytest.raises(ValueError, match="audio-only and would ignore"):
        condition_on_video(Scene(blind, NMF(1)), STFT.analyse(WAVES), lips())
    with pytest.raises(ValueError, match="has no visual encoder"):
        blind.visual_features(lips(), STFT.frames(1600))


@pytest.mark.parametrize(
    ("video", "text"),
    [
        ([None], "1 videos for 2 recordings"),
        (torch.zeros(1, 5, 7), r"shape \(1, 5, 7\); expected \(recording=2"),
        (torch.full((2, 5, 101), float("nan")), "NaN or infinity"),
    ],
)
def test_video_that_does_not_fit_is_refused(prior, video, text):
    with pytest.raises(ValueError, match=text):
        condition_on_video(Scene(prior, NMF(1)), STFT.analyse(WAVES), video)
