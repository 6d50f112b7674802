"""Diffusions of score priors: kernels, and noise levels."""

from __future__ import annotations

import pytest

from avse_ppl.models import Ouve, Vp
from avse_ppl.models.speech.compression import Compression
from avse_ppl.models.speech.diffusion import noise_levels


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
    assert variance == pytest.approx(sde.marginal_sd(1.0) ** 2, rel=1e-3)


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
