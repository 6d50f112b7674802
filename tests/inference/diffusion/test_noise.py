"""The noise inside a guided diffusion against posteriors known by quadrature and in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from avse_ppl import NMF, ComplexNormal
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.diffusion.noise import NoiseFit
from avse_ppl.models.simulate import reference_scene
from tests.helpers import CPU, STFT, waves

ROWS = 2
MEDIAN, SD_DB = 0.1, 1.0  # of the level's prior, which is off and sure of it
NEPERS = np.log(10) / 10 * SD_DB


def draw_speech(shape, seed=0):
    """Means of any size and variances around 1 of what a denoiser knows of speech."""
    generator = torch.Generator().manual_seed(seed)
    mean = 2.0 * torch.randn(shape, dtype=torch.complex64, generator=generator)
    return mean, 0.2 + 1.6 * torch.rand(shape, generator=generator)


def mix(mean, power):
    """Mixture whose bins lie ``power ** 0.5`` from ``mean``, at phases all around."""
    generator = torch.Generator().manual_seed(1)
    angle = 2 * torch.pi * torch.rand(mean.shape, generator=generator)
    values = mean + power.sqrt() * torch.polar(torch.ones_like(angle), angle)
    return replace(STFT.analyse(waves(len(mean))), values=values)


def level_moments(power, variance, tempering):
    """Posterior mean and sd of the log level of white noise beside that ``variance``, by rows."""
    log_level = np.linspace(-5, 4, 3001)[:, None, None]
    found = []
    for squared, v in zip(power.numpy(), variance.numpy(), strict=True):
        total = v + np.exp(log_level)
        log_p = tempering * (-np.log(total) - squared / total).sum((1, 2))
        log_p = log_p - 0.5 * ((log_level[:, 0, 0] - np.log(MEDIAN)) / NEPERS) ** 2
        weight = np.exp(log_p - log_p.max())
        weight /= weight.sum()
        mean = weight @ log_level[:, 0, 0]
        found.append((mean, np.sqrt(weight @ (log_level[:, 0, 0] - mean) ** 2)))
    return np.array(found).T


@pytest.mark.parametrize("tempering", [1.0, 0.25])
def test_a_level_beside_what_the_denoiser_does_not_know(tempering):
    # White noise of power 0.5: more than half of what is left of the mixture is speech.
    shape = (ROWS, STFT.freq, STFT.count_frames(320))
    mean, variance = draw_speech(shape)
    drawn = torch.from_numpy(np.random.default_rng(2).exponential(size=shape)).float()
    power = drawn * (variance + 0.5)
    mixture = mix(mean, power)
    truth, sd = level_moments(power, variance, tempering)

    scene = reference_scene(False, noise_power=MEDIAN, noise_sd_db=SD_DB, stft=STFT)
    law = ComplexNormal(0.0, 1.0).expand(shape)
    fit = NoiseFit(scene.noise, mixture, RandomStreams(0, ROWS, CPU), law, tempering)
    locations, log_sds = [], []
    for _ in range(200):
        fit.fit(ComplexNormal(mean, variance), 1)
        locations.append(fit.location["noise.level"].detach().flatten().numpy().copy())
        log_sds.append(fit.log_sd["noise.level"].detach().flatten().numpy().copy())
    # Adam's steps do not shrink: the guide walks around its optimum by about 0.7 sd, with some ten
    # updates to forget where it was. The mean over 150 of them is known to 0.2 sd; a level that had
    # to explain what the denoiser does not know, too, would lie 8 sd or more away.
    gap = (np.mean(locations[50:], 0) - truth) / sd
    assert np.abs(gap).max() < 4 * 0.2
    assert np.abs(np.mean(log_sds[50:], 0) - np.log(sd)).max() < 0.2


def test_factors_beside_what_the_denoiser_does_not_know():
    # All bins alike, at 4 times the variance of speech: the mode is one power b of the noise for
    # all. With g the slope of the log likelihood of a bin, and W and H exponential of rate 1, it is
    # where T h g = 1 and F w g = 1, hence g^2 = 1 / (F T b).
    shape = (ROWS, STFT.freq, STFT.count_frames(320))
    mean, _ = draw_speech(shape)
    variance, power = torch.ones(shape), torch.full(shape, 4.0)
    start = ComplexNormal(0.0, variance)
    fit = NoiseFit(NMF(1), mix(mean, power), RandomStreams(0, ROWS, CPU), start)
    fit.fit(ComplexNormal(mean, variance), 60)

    def excess_slope(b):
        return 4.0 / (1.0 + b) ** 2 - 1.0 / (1.0 + b) - 1.0 / np.sqrt(shape[1] * shape[2] * b)

    best = brentq(excess_slope, 1.0, 3.0)
    np.testing.assert_allclose(fit.draw()[1].power.numpy(), best, rtol=2e-3)
