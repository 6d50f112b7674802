"""Reverse diffusion of latents: what the prior's denoiser does to them, in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from avse_ppl import ComplexNormal, GaussianSpeech, Scene
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.diffusion.latent import LatentDiffusion
from tests.helpers import CPU, STFT, waves

ROWS = 100
START = 3.0


def drown_speech(frames):
    """Noise so loud that the mixture says nothing of the gains of speech."""
    return ComplexNormal(0.0, 1e8)


def draw_gains(sigmas, step_size, langevin_steps):
    """Gains after a run without evidence from ``START``, ``(recording, time)``."""
    scene = Scene(GaussianSpeech(gain_sd_db=6.0, stft=STFT), drown_speech)
    streams = RandomStreams(0, ROWS, CPU)
    diffusion = LatentDiffusion(scene, STFT.analyse(waves(ROWS)), streams, 1.0, step_size)
    for name, u in diffusion.clean.items():
        diffusion.clean[name] = u.new_full(u.shape, START)
    for _ in diffusion.run(sigmas, langevin_steps, noise_updates=0, noise_retention=0.0):
        pass
    return diffusion.clean["speech.gain"][:, 0].numpy()


def predict_moments(sigmas, step_size, langevin_steps):
    r"""Mean and variance of a gain after that run: all is linear and normal.

    At each level, :math:`y = z + \sigma \epsilon`, and each move kicks the velocity towards
    :math:`y / (1 + \sigma^2)`, goes half a step, renews the velocity and goes the other half.
    """
    mean, cov = np.array([START, 0.0, 0.0, 0.0]), np.diag([0.0, 1.0, 0.0, 0.0])  # z, v, y, past y
    kept, past = 0.37, None
    for sigma in sigmas:
        shrink, w = 1 / (1 + sigma**2), sigma**2 / (1 + sigma**2)
        size = np.sqrt(step_size * w)
        renoise = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]])
        mean, cov = renoise @ mean, renoise @ cov @ renoise.T + np.diag([0, 0, sigma**2, 0])
        go, renew = np.eye(4), np.diag([1.0, kept, 1.0, 1.0])
        go[0, 1] = size / 2
        for step in range(langevin_steps):
            kick, pull = np.eye(4), np.array([-1.0, 0, shrink, 0]) / w
            if step == 0 and past is not None:  # half of the kick is of the past
                pull = (pull + past) / 2
            kick[1] += size * pull
            move, fresh = renew @ go @ kick, np.diag([0.0, 1 - kept**2, 0.0, 0.0])
            mean, cov = go @ move @ mean, go @ (move @ cov @ move.T + fresh) @ go.T
        past = np.array([-1.0, 0, 0, shrink]) / w
    return mean[0], cov[0, 0]


@pytest.mark.parametrize(
    ("sigmas", "step_size", "langevin_steps"),
    [
        ([1.0, 0.7, 0.5, 0.5], 0.5, 1),  # on the way from the start to the prior
        ([2.0] + [1.0] * 12, 0.2, 3),  # there
    ],
)
def test_without_evidence_latents_go_to_the_prior_as_fast_as_its_denoiser_says(
    sigmas, step_size, langevin_steps
):
    gains = draw_gains(sigmas, step_size, langevin_steps)
    mean, variance = predict_moments(sigmas, step_size, langevin_steps)
    assert gains.mean() == pytest.approx(mean, abs=4.5 * np.sqrt(variance / gains.size))
    assert gains.var() == pytest.approx(variance, abs=4.5 * variance * np.sqrt(2 / gains.size))


def test_many_small_steps_without_evidence_end_at_the_prior():
    # The prediction itself.
    mean, variance = predict_moments([1.0] * 200, 0.01, 20)
    assert mean == pytest.approx(0.0, abs=0.01)
    assert variance == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("step_size", [0.5, 1.0, 2.0])
def test_the_size_of_the_moves_does_not_widen_a_normal_law(step_size):
    mean, variance = predict_moments([1.0] * 200, step_size, 1)
    assert mean == pytest.approx(0.0, abs=0.01)
    assert variance == pytest.approx(1.0, abs=0.01)
