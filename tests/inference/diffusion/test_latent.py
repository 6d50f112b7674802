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
    r"""Mean and variance of a gain after that run.

    At each level, :math:`y = z + \sigma \epsilon`, and each Langevin step draws
    :math:`z \leftarrow a z + (1 - a) y / (1 + \sigma^2) + \sqrt{h w}\, \xi` with
    :math:`a = 1 - h / 2` and :math:`w = \sigma^2 / (1 + \sigma^2)`: all is linear and normal.
    """
    mean, variance, keep = START, 0.0, 1 - step_size / 2
    for sigma in sigmas:
        shrink, w = 1 / (1 + sigma**2), sigma**2 / (1 + sigma**2)
        of_z, of_y, fresh = 1.0, 0.0, 0.0  # z as a z_0 + c y + independent noise
        for _ in range(langevin_steps):
            of_z, of_y = keep * of_z, keep * of_y + (1 - keep) * shrink
            fresh = keep**2 * fresh + step_size * w
        mean *= of_z + of_y
        variance = (of_z + of_y) ** 2 * variance + (of_y * sigma) ** 2 + fresh
    return mean, variance


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
    # The prediction itself: of the standard normal prior but for the bias of the steps' size.
    mean, variance = predict_moments([1.0] * 200, 0.01, 20)
    assert mean == pytest.approx(0.0, abs=0.01)
    assert variance == pytest.approx(1.0, abs=0.01)
