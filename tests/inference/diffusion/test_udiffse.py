"""UDiffSE, the published guided diffusion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avse_ppl import (
    NMF,
    ComplexNormal,
    GaussianSpeech,
    Scene,
    ScoreSpeech,
    UDiffSE,
    stationary,
)
from avse_ppl.models.networks.score_cnn import ScoreNetwork
from tests.helpers import STFT

N = 640


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


def test_it_requires_a_score_prior():
    scene = Scene(GaussianSpeech(stft=STFT), stationary)
    with pytest.raises(ValueError, match="UDiffSE wants a score prior"):
        UDiffSE()(scene, wave(), seed=0)


def test_it_runs_for_any_noise_model():
    def hiss(frames):
        return ComplexNormal(0.0, 0.1)

    for noise in (NMF(2), stationary, hiss):
        posterior = UDiffSE(steps=3, em_iterations=2)(score_scene(noise), wave(), seed=0)
        assert posterior.kind == "UDiffSE, spread of chains, tempered 1.5"
        assert np.isfinite(posterior.mean).all()
        assert posterior.speech.shape == (2, 1, 1, N)
