"""ComplexNormal against its definition: moments, density, sums, divergences, conditioning."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import kl_divergence

from avse_ppl import ComplexNormal

# A sample mean of n draws lies within 6 of its standard errors with a probability above
# 1 - 2e-9; with about 200 such comparisons in this file, a false failure has odds below 1e-6 (and
# the seeds are fixed, so that it fails always or never).
SIGMAS = 6.0
MEANS = [0.0, 2.5, 1.0 - 2.0j]


def near(sample: torch.Tensor, expected: complex | torch.Tensor) -> None:
    """Assert that the mean over the first dimension is what is expected, up to its own noise."""
    parts = [sample.real, sample.imag] if sample.is_complex() else [sample]
    target = torch.as_tensor(expected).expand(sample.shape[1:])
    if sample.is_complex():
        target = target.to(sample.dtype)
        targets = [target.real, target.imag]
    else:
        targets = [target]
    for part, wanted in zip(parts, targets, strict=True):
        part = part.double()
        error = part.std(0) / math.sqrt(len(part))
        assert bool(((part.mean(0) - wanted).abs() <= SIGMAS * error + 1e-12).all())


def log_density(x: np.ndarray, mean: complex, power: float) -> np.ndarray:
    """The formula in NumPy, independent of the code."""
    return -np.log(np.pi * power) - np.abs(x - mean) ** 2 / power


def random_law(generator: torch.Generator, shape=(4, 3)) -> ComplexNormal:
    mean = torch.randn(shape, generator=generator, dtype=torch.complex128)
    power = torch.rand(shape, generator=generator, dtype=torch.float64) * 3 + 0.1
    return ComplexNormal(mean, power)


# Draws


@pytest.mark.parametrize("mean", MEANS)
def test_draws_have_the_mean_and_power_of_the_law_and_are_circular(mean):
    power = torch.tensor([0.01, 1.0, 30.0])
    x = ComplexNormal(mean, power).sample((40_000,))
    assert x.shape == (40_000, 3)
    assert x.dtype == torch.complex64
    near(x, mean)
    centred = x - mean
    near(centred.abs().square(), power)
    near(centred.square(), 0.0)  # circular: no relation between real and imaginary part
    near(centred.real.square(), power / 2)
    near(centred.real * centred.imag, 0.0)
    near(centred.abs().pow(4), 2 * power.square())  # of a Gaussian, not of any circular law


def test_draws_are_independent_across_a_broadcast_mean():
    law = ComplexNormal(torch.zeros(3, 1), torch.ones(4))
    x = law.sample((20_000,))
    assert x.shape == (20_000, 3, 4)
    near(x[:, 0] * x[:, 1].conj(), 0.0)
    near(x[:, :, 0] * x[:, :, 1].conj(), 0.0)


def test_draws_depend_on_the_seed_only():
    law = ComplexNormal(0.0, torch.ones(5))
    torch.manual_seed(3)
    first = law.sample()
    torch.manual_seed(3)
    assert torch.equal(first, law.sample())
    assert not torch.equal(first, law.sample())


def test_rsample_lets_gradients_through():
    power = torch.full((20_000,), 4.0, requires_grad=True)
    mean = torch.zeros(20_000, dtype=torch.complex64, requires_grad=True)
    x = ComplexNormal(mean, power).rsample()
    x.abs().square().sum().backward()
    assert power.grad is not None
    assert mean.grad is not None
    # |x|^2 = v |u|^2, so the gradient in v is |u|^2, of mean 1.
    torch.testing.assert_close(power.grad, (x.abs().square() / 4.0).detach())
    near(power.grad, 1.0)
    assert not ComplexNormal(0.0, power).sample().requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_and_densities_have_the_precision_of_the_power(dtype):
    law = ComplexNormal(0.0, torch.ones(3, dtype=dtype))
    x = law.sample()
    assert x.dtype == {torch.float32: torch.complex64}.get(dtype, torch.complex128)
    assert law.log_prob(x).dtype == law.entropy().dtype == law.mean.dtype == dtype


def test_the_device_is_that_of_the_power():
    law = ComplexNormal(0.0, torch.ones(3, device="meta"), validate_args=False)
    assert law.sample().device.type == law.mean.device.type == "meta"


# Density


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("power", [0.2, 1.0, 5.0])
def test_log_prob_is_the_formula_and_integrates_to_one(mean, power):
    half, points = 8 * math.sqrt(power), 401
    axis = np.linspace(-half, half, points)
    grid = axis[:, None] + 1j * axis[None, :] + mean
    law = ComplexNormal(mean, torch.tensor(power, dtype=torch.float64))
    found = law.log_prob(torch.from_numpy(grid)).numpy()
    np.testing.assert_allclose(found, log_density(grid, mean, power), rtol=1e-12)
    cell = (axis[1] - axis[0]) ** 2
    weights = np.exp(found) * cell
    assert weights.sum() == pytest.approx(1.0, abs=1e-9)
    assert complex((weights * grid).sum()) == pytest.approx(mean, abs=1e-9)
    assert (weights * np.abs(grid - mean) ** 2).sum() == pytest.approx(power, rel=1e-8)
    assert float(law.entropy()) == pytest.approx(-(weights * found).sum(), rel=1e-8)


def test_log_prob_of_real_values_is_that_on_the_real_axis():
    law = ComplexNormal(0.5, torch.tensor([0.3, 2.0]))
    x = torch.tensor([1.0, -2.0])
    torch.testing.assert_close(law.log_prob(x), law.log_prob(x.to(torch.complex64)))


def test_log_prob_broadcasts_values_mean_and_power():
    law = ComplexNormal(torch.zeros(4, 1) + 1j, torch.rand(3) + 0.5)
    assert law.batch_shape == (4, 3)
    x = torch.randn(2, 1, 3, dtype=torch.complex64)
    found = law.log_prob(x)
    assert found.shape == (2, 4, 3)
    expected = log_density(x.numpy(), 1j, law.power.numpy())
    np.testing.assert_allclose(found, np.broadcast_to(expected, (2, 4, 3)), rtol=1e-5)


@pytest.mark.parametrize("shapes", [((3, 2), (3, 2)), ((3, 1), (2,)), ((), (3, 2)), ((2,), ())])
def test_gradients_of_log_prob_agree_with_finite_differences(shapes):
    mean_shape, power_shape = shapes
    value = torch.randn(3, 2, dtype=torch.complex128)
    options = {"dtype": torch.float64, "requires_grad": True}
    real, imag = torch.randn(mean_shape, **options), torch.randn(mean_shape, **options)
    power = (torch.rand(power_shape, dtype=torch.float64) + 0.3).requires_grad_()

    def of_parts(real, imag, power):
        return ComplexNormal(torch.complex(real, imag), power).log_prob(value)

    assert torch.autograd.gradcheck(of_parts, (real, imag, power))


def test_gradients_of_log_prob_in_power_and_value_for_zero_mean():
    value = torch.randn(3, 2, dtype=torch.complex128, requires_grad=True)
    power = (torch.rand(3, 1, dtype=torch.float64) + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: ComplexNormal(0.0, v).log_prob(value), (power,))
    assert torch.autograd.gradcheck(
        lambda re, im: ComplexNormal(0.0, power.detach()).log_prob(torch.complex(re, im)),
        tuple(torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)),
    )


def test_second_derivatives_of_log_prob_agree_with_finite_differences():
    value = torch.randn(3, 2, dtype=torch.complex128)
    options = {"dtype": torch.float64, "requires_grad": True}
    real, imag = torch.randn(3, 1, **options), torch.randn(3, 1, **options)
    power = (torch.rand(2, dtype=torch.float64) + 0.3).requires_grad_()

    def of_parts(real, imag, power):
        return ComplexNormal(torch.complex(real, imag), power).log_prob(value)

    assert torch.autograd.gradgradcheck(of_parts, (real, imag, power))
    found = torch.autograd.functional.hessian(
        lambda v: ComplexNormal(0.0, v).log_prob(value[0, 0]), power[0].detach()
    )
    v, r = float(power[0].detach()), float(value[0, 0].abs().square())
    assert float(found) == pytest.approx(1 / v**2 - 2 * r / v**3)


# Sums, divergences, conditioning


def test_convolve_is_the_law_of_the_sum_of_draws():
    speech = ComplexNormal(torch.tensor([0.0, 1.0 + 1.0j]), torch.tensor([0.5, 2.0]))
    noise = ComplexNormal(torch.tensor([-1.0j, 3.0]), torch.tensor([[1.0], [4.0]]))
    both = speech.convolve(noise)
    assert both.batch_shape == (2, 2)
    x = speech.expand((2, 2)).sample((40_000,)) + noise.expand((2, 2)).sample((40_000,))
    near(x, both.mean)
    near((x - both.mean).abs().square(), both.power)
    near(both.log_prob(x), -both.entropy())


def test_convolve_of_zero_mean_laws_stays_zero_mean():
    both = ComplexNormal(0.0, torch.ones(2)).convolve(ComplexNormal(0.0, torch.full((3, 1), 2.0)))
    assert both.zero_mean
    assert torch.equal(both.power, torch.full((3, 2), 3.0))


def test_kl_is_registered_and_agrees_with_monte_carlo():
    generator = torch.Generator().manual_seed(0)
    p, q = random_law(generator), random_law(generator)
    x = p.sample((40_000,))
    near(p.log_prob(x) - q.log_prob(x), kl_divergence(p, q))
    assert bool((kl_divergence(p, q) > 0).all())
    torch.testing.assert_close(kl_divergence(p, p), torch.zeros(4, 3, dtype=torch.float64))


def test_kl_is_minus_entropy_minus_the_expected_log_density():
    # E_p log q is quadratic in x, so that four points p.mean +- sqrt(v), +- i sqrt(v) give it.
    generator = torch.Generator().manual_seed(1)
    p, q = random_law(generator), random_law(generator)
    turns = torch.tensor([1, 1j, -1, -1j], dtype=torch.complex128)[:, None, None]
    cross = q.log_prob(p.mean + p.power.sqrt() * turns).mean(0)
    torch.testing.assert_close(kl_divergence(p, q), -p.entropy() - cross)


def test_gradients_of_kl_agree_with_finite_differences():
    options = {"dtype": torch.float64, "requires_grad": True}
    means = [torch.randn(3, **options) for _ in range(4)]
    powers = [(torch.rand(3, dtype=torch.float64) + 0.3).requires_grad_() for _ in range(2)]

    def divergence(a, b, c, d, v, w):
        p, q = ComplexNormal(torch.complex(a, b), v), ComplexNormal(torch.complex(c, d), w)
        return kl_divergence(p, q)

    assert torch.autograd.gradcheck(divergence, (*means, *powers))


def test_kl_broadcasts():
    p = ComplexNormal(0.0, torch.ones(4, 1))
    q = ComplexNormal(1j, torch.full((3,), 2.0))
    expected = torch.full((4, 3), math.log(2) + (1 + 1) / 2 - 1)
    torch.testing.assert_close(kl_divergence(p, q), expected)


def test_condition_is_the_joint_gaussian_formula():
    # The pair (s, x = s + b) as a four-dimensional real Gaussian, conditioned by linear algebra.
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        speech, noise = random_law(generator, ()), random_law(generator, ())
        x = torch.randn((), dtype=torch.complex128, generator=generator) * 3
        found = speech.condition(noise, x)
        vs, vb = float(speech.power), float(noise.power)
        within = np.eye(2) * vs / 2
        total = np.eye(2) * (vs + vb) / 2
        gap = complex(x - speech.mean - noise.mean)
        shift = within @ np.linalg.inv(total) @ [gap.real, gap.imag]
        cov = within - within @ np.linalg.inv(total) @ within
        assert complex(found.mean) == pytest.approx(complex(speech.mean) + complex(*shift))
        assert float(found.power) == pytest.approx(np.trace(cov))


def test_condition_agrees_with_draws_whose_sum_is_close_to_the_mixture():
    speech, noise = ComplexNormal(0.0, torch.tensor(2.0)), ComplexNormal(1.0, torch.tensor(1.0))
    s, b = speech.sample((400_000,)), noise.sample((400_000,))
    x = torch.tensor(1.5 + 1.0j)
    kept = s[(s + b - x).abs() < 0.1]
    law = speech.condition(noise, x)
    assert len(kept) > 500
    near(kept - law.mean, 0.0)
    near((kept - law.mean).abs().square(), law.power)


def test_condition_on_every_part_adds_up_to_the_mixture():
    generator = torch.Generator().manual_seed(3)
    speech, noise = random_law(generator), random_law(generator)
    x = torch.randn(4, 3, dtype=torch.complex128, generator=generator)
    ours, theirs = speech.condition(noise, x), noise.condition(speech, x)
    torch.testing.assert_close(ours.mean + theirs.mean, x)
    torch.testing.assert_close(ours.power, theirs.power)  # s and b = x - s are equally unsure


# Shapes and bad input


def test_expand_keeps_the_law():
    law = ComplexNormal(torch.tensor([1j, 2.0]), torch.tensor([[1.0], [3.0]]))
    large = law.expand((5, 2, 2))
    assert isinstance(large, ComplexNormal)
    assert large.batch_shape == large.variance.shape == large.sample().shape == (5, 2, 2)
    x = torch.randn(5, 2, 2, dtype=torch.complex64)
    torch.testing.assert_close(large.log_prob(x), law.log_prob(x))
    assert ComplexNormal(0.0, torch.ones(3)).expand((2, 3)).zero_mean
    assert not large.zero_mean


def test_variance_and_mean_and_entropy_have_their_shapes():
    law = ComplexNormal(0.0, torch.ones(3, 1))
    assert law.variance.shape == law.entropy().shape == (3, 1)
    assert torch.equal(law.variance, law.power)
    wide = ComplexNormal(torch.zeros(4), torch.ones(3, 1))
    assert wide.variance.shape == wide.entropy().shape == (3, 4)


def test_plain_numbers_are_taken():
    law = ComplexNormal(1.0 + 2.0j, 3.0)
    assert law.batch_shape == ()
    assert law.power.dtype == torch.get_default_dtype()
    assert complex(law.mean) == 1 + 2j
    assert law.sample().shape == ()


def test_complex_power_is_refused():
    with pytest.raises(TypeError, match=r"power must be real.*found a complex tensor"):
        ComplexNormal(0.0, torch.ones(2, dtype=torch.complex64))


def test_shapes_that_do_not_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"mean of shape \(3,\) and power of shape \(4,\) do not"):
        ComplexNormal(torch.zeros(3), torch.ones(4))


@pytest.mark.parametrize("power", [0.0, -1.0, float("nan")])
def test_power_must_be_positive(power):
    with pytest.raises(ValueError, match="parameter power"):
        ComplexNormal(0.0, torch.tensor([1.0, power]), validate_args=True)
    ComplexNormal(0.0, torch.tensor([1.0, power]), validate_args=False)


def test_values_of_the_wrong_shape_or_nan_are_refused():
    law = ComplexNormal(0.0, torch.ones(3), validate_args=True)
    with pytest.raises(ValueError, match="not broadcastable"):
        law.log_prob(torch.zeros(4, dtype=torch.complex64))
    with pytest.raises(ValueError, match="within the support"):
        law.log_prob(torch.tensor([0.0, 1.0, complex(0.0, math.nan)]))


# As a Pyro distribution


def test_sample_site_on_plates_has_their_shape_and_adds_its_log_density():
    power = torch.rand(4, 1) + 0.5

    def model(x=None):
        gain = pyro.sample("gain", dist.LogNormal(0.0, 1.0))
        with pyro.plate("freq", 4, dim=-2), pyro.plate("time", 5, dim=-1):
            return pyro.sample("x", ComplexNormal(0.0, gain * power), obs=x)

    assert model().shape == (4, 5)
    x = torch.randn(4, 5, dtype=torch.complex64)
    trace = poutine.trace(model).get_trace(x)
    gain = trace.nodes["gain"]["value"]
    expected = log_density(x.numpy(), 0.0, (gain * power).numpy()).sum()
    expected += float(dist.LogNormal(0.0, 1.0).log_prob(gain))
    assert float(trace.log_prob_sum()) == pytest.approx(expected, rel=1e-5)
    assert trace.nodes["x"]["fn"].batch_shape == (4, 5)


def test_masked_sites_count_only_what_is_observed():
    x = torch.randn(4, 5, dtype=torch.complex64)
    mask = torch.arange(5) < 3

    def model():
        with pyro.plate("freq", 4, dim=-2), pyro.plate("time", 5, dim=-1), poutine.mask(mask=mask):
            pyro.sample("x", ComplexNormal(0.0, torch.tensor(2.0)), obs=x)

    found = poutine.trace(model).get_trace().log_prob_sum()
    assert float(found) == pytest.approx(log_density(x[:, :3].numpy(), 0, 2.0).sum(), rel=1e-5)


def test_as_an_event_and_under_a_scale():
    law = ComplexNormal(0.0, torch.ones(4, 5)).to_event(1)
    assert law.batch_shape == (4,)
    x = torch.randn(4, 5, dtype=torch.complex64)
    torch.testing.assert_close(law.log_prob(x), ComplexNormal(0.0, 1.0).log_prob(x).sum(-1))
