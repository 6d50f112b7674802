"""Guides and their correlations, against dense linear algebra."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.vi.correlations import Independent, LowRank, Markov, linear_recurrence
from avse_ppl.inference.vi.guides import GUIDES, Guide, Layout, check_guide, make_guide
from tests.helpers import CPU

TIME = 5
SHAPES = {
    "level": torch.Size((2, 1, 1)),
    "z": torch.Size((2, 3, TIME)),
    "spectrum": torch.Size((2, 4, 1)),
    "gain": torch.Size((2, 1, TIME)),
}
LAYOUT = Layout.of(SHAPES, TIME)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def guide_of(correlation):
    return Guide(LAYOUT, normal(2, LAYOUT.size), 0.3 * normal(2, LAYOUT.size, seed=1), correlation)


CORRELATIONS = {
    "independent": Independent(),
    "markov": Markov(normal(2, LAYOUT.chains, TIME - 1, seed=2)),
    "low-rank": LowRank(
        normal(2, LAYOUT.size, 3, seed=3),
        0.3 * normal(2, LAYOUT.size, seed=1),
        0.2 * normal(2, LAYOUT.size, seed=5),
    ),
}
every_correlation = pytest.mark.parametrize("name", CORRELATIONS)


def covariance_of_x(correlation, row):
    """From what the definition says, ``(latent, latent)``."""
    size = LAYOUT.size
    if isinstance(correlation, LowRank):
        ratio = (correlation.log_start - correlation.log_sd)[row].exp().numpy()
        factors = correlation.directions[row].numpy() * ratio[:, None]
        return np.eye(size) + factors @ factors.T
    full = np.eye(size)
    if isinstance(correlation, Markov):
        rho = np.tanh(correlation.r[row].numpy())
        for chain in range(LAYOUT.chains):
            for i in range(TIME):
                for j in range(i):
                    # An autoregression with unit variance: the product of what lies between.
                    a, b = chain * TIME + i, chain * TIME + j
                    full[a, b] = full[b, a] = np.prod(rho[chain, j:i])
    return full


def covariance(guide, row):
    sd = guide.log_sd[row].exp().numpy()
    return sd[:, None] * covariance_of_x(guide.correlation, row) * sd


# --- layout --------------------------------------------------------------------------------------


def test_latents_with_a_value_for_each_frame_come_first():
    assert list(LAYOUT.shapes) == ["z", "gain", "level", "spectrum"]
    assert LAYOUT.chains == 4
    assert LAYOUT.size == 3 * TIME + TIME + 1 + 4


def test_split_undoes_join():
    values = {name: normal(*shape, seed=i) for i, (name, shape) in enumerate(SHAPES.items())}
    back = LAYOUT.split(LAYOUT.join(values))
    assert set(back) == set(values)
    for name, value in values.items():
        assert torch.equal(back[name], value)


def test_one_frame_is_a_chain_of_one():
    layout = Layout.of({"level": torch.Size((1, 1, 1)), "gain": torch.Size((1, 1, 1))}, 1)
    assert (layout.chains, layout.size) == (2, 2)
    zero = {name: torch.zeros(1, 1, 1) for name in layout.shapes}
    guide = make_guide("structured", zero, zero, 1, 1, RandomStreams(0, 1, CPU))
    assert guide.kind == "variational, structured guide"
    assert guide.draw(RandomStreams(0, 1, CPU))["gain"].shape == (1, 1, 1)


# --- laws ----------------------------------------------------------------------------------------


@every_correlation
def test_density_and_entropy_are_those_of_the_dense_normal(name):
    guide = guide_of(CORRELATIONS[name])
    values = {n: normal(*shape, seed=9 + i) for i, (n, shape) in enumerate(SHAPES.items())}
    found, entropy = guide.log_density(values), guide.entropy()
    flat = LAYOUT.join(values).numpy()
    for row in range(2):
        law: Any = multivariate_normal(guide.location[row].numpy(), covariance(guide, row))  # type: ignore[arg-type]
        assert float(found[row]) == pytest.approx(law.logpdf(flat[row]), abs=1e-8)
        assert float(entropy[row]) == pytest.approx(law.entropy(), abs=1e-8)


def many_draws(guide, row, draws=3000):
    """Draws of one recording, made as those of as many equal recordings."""

    def alike(values):
        return values[row : row + 1].expand(draws, *values.shape[1:])

    parts = [value for value in vars(guide.correlation).values() if isinstance(value, Tensor)]
    correlation = type(guide.correlation)(*map(alike, parts))
    copies = Guide(LAYOUT, alike(guide.location), alike(guide.log_sd), correlation)
    values = copies.draw(RandomStreams(4, draws, CPU))
    return LAYOUT.join(values).numpy(), copies.log_density(values).numpy()


@every_correlation
def test_draws_have_its_moments(name):
    guide = guide_of(CORRELATIONS[name])
    draws, log_density = many_draws(guide, row=1)
    expected, entropy = covariance(guide, 1), float(guide.entropy()[1])
    sd = np.sqrt(np.diag(expected))
    gap = (draws.mean(0) - guide.location[1].numpy()) / sd
    assert np.abs(gap).max() < 5 / np.sqrt(len(draws))
    scale = sd[:, None] * sd
    error = (np.cov(draws.T) - expected) / scale
    assert np.abs(error).max() < 5 * np.sqrt(2 / len(draws))
    assert log_density.mean() == pytest.approx(
        -entropy, abs=5 * np.sqrt(LAYOUT.size / 2 / len(draws))
    )
    related = np.abs(expected / scale - np.eye(len(sd))).max()
    assert name == "independent" or related > 0.3  # so that the lines above can fail


@every_correlation
def test_everything_is_fitted(name):
    guide = guide_of(CORRELATIONS[name])
    for parameter in guide.parameters():
        parameter.requires_grad_()
    draw = LAYOUT.join(guide.draw(RandomStreams(0, 2, CPU)))
    ((draw**2).sum() + guide.entropy().sum()).backward()
    for parameter in guide.parameters():
        assert parameter.grad is not None
        assert bool((parameter.grad != 0).all())
        parameter.grad = None
        parameter.requires_grad_(False)


@every_correlation
def test_the_gradient_along_a_draw_is_on_average_that_of_the_entropy(name):
    guide, draws = guide_of(CORRELATIONS[name]), 400
    location = guide.location.clone().requires_grad_()
    guide = Guide(LAYOUT, location, guide.log_sd, guide.correlation)
    rows, randoms = [], RandomStreams(0, 2, CPU)
    for _ in range(draws):
        path = guide.entropy_along(guide.draw(randoms))
        torch.testing.assert_close(path.detach(), guide.entropy())
        rows.append(torch.autograd.grad(path.sum(), location)[0])
    # The entropy does not depend on the location: 0 on average, and never 0.
    gradients = torch.stack(rows)
    assert (gradients.mean(0).abs() < 5 * gradients.std(0) / np.sqrt(draws)).all()
    assert bool((gradients != 0).all())


def test_where_the_guide_is_the_posterior_no_noise_is_left():
    chain = normal(2, LAYOUT.chains, TIME - 1, seed=2)
    target, guide = guide_of(Markov(chain)), guide_of(Markov(chain.clone()))
    for parameter in guide.parameters():
        parameter.requires_grad_()
    for seed in range(3):
        draw = guide.draw(RandomStreams(seed, 2, CPU))
        bound = target.log_density(draw) + guide.entropy_along(draw)
        for gradient in torch.autograd.grad(bound.sum(), guide.parameters()):
            assert gradient.abs().max() < 1e-9


def test_strong_correlations_stay_finite():
    chain = Markov(torch.full((1, 1, 7), 30.0), "")
    assert float(chain.log_det()) == pytest.approx(7 * (np.log(2) - 30), abs=1e-3)
    assert bool(chain.draw(torch.ones(1, 8), RandomStreams(0, 1, CPU)).isfinite().all())


# --- the start -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_starts_at_the_given_law(name):
    location = {n: normal(*shape, seed=i) for i, (n, shape) in enumerate(SHAPES.items())}
    log_sd = {n: torch.full_like(v, -1.0) for n, v in location.items()}
    guide = make_guide(name, location, log_sd, TIME, 2, RandomStreams(0, 2, CPU))
    assert guide.kind == ("variational" if name == "mean-field" else f"variational, {name} guide")
    assert torch.equal(guide.location, LAYOUT.join(location))
    assert all(parameter.requires_grad for parameter in guide.parameters())
    mean_field = LAYOUT.size * (0.5 * np.log(2 * np.pi * np.e) - 1.0)
    # The directions of the low-rank guide have a length of about 1 in all.
    assert (guide.entropy() - mean_field).abs().max() < (1.0 if name == "low-rank" else 1e-9)


def test_the_directions_of_a_recording_are_its_own():
    location = {"z": torch.zeros(2, 3, TIME)}
    both = make_guide("low-rank", location, location, TIME, 2, RandomStreams(7, 2, CPU))
    one = {"z": torch.zeros(1, 3, TIME)}
    alone = make_guide("low-rank", one, one, TIME, 2, RandomStreams(8, 1, CPU))
    assert torch.equal(both.parameters()[2][1:], alone.parameters()[2])


@pytest.mark.parametrize("name", ["banded", "structure", ""])
def test_an_unknown_guide(name):
    with pytest.raises(ValueError, match=r"unknown guide .*; known are low-rank, mean"):
        check_guide(name)
    with pytest.raises(ValueError, match="unknown guide"):
        make_guide(name, {}, {}, 1, 1, RandomStreams(0, 1, CPU))


# --- recurrence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 33, 188])
def test_the_recurrence_is_the_loop(length):
    factor, drive = normal(2, 3, length), normal(2, 3, length, seed=1)
    x, rows = torch.zeros(2, 3, dtype=torch.float64), []
    for t in range(length):
        x = factor[..., t] * x + drive[..., t]
        rows.append(x)
    torch.testing.assert_close(linear_recurrence(factor, drive), torch.stack(rows, -1))


def test_its_gradient_is_right():
    arguments = [normal(2, 11, seed=i).requires_grad_() for i in range(2)]
    assert torch.autograd.gradcheck(linear_recurrence, arguments)


def test_its_cost_is_linear_in_time():
    def cost_s(length):
        factor, drive = (normal(40, length, seed=i) for i in range(2))
        linear_recurrence(factor, drive)
        begin = time.process_time()
        for _ in range(3):
            linear_recurrence(factor, drive)
        return time.process_time() - begin

    assert min(cost_s(16000) for _ in range(3)) < 30 * min(cost_s(2000) for _ in range(3))
