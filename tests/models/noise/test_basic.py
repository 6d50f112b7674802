"""The noise models: their laws and priors, and the monotone steps of the NMF."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from avse_ppl import NMF, ComplexNormal, Frames, stationary
from avse_ppl.models.handlers import reuse_plates

FRAMES = Frames(freq=6, time=9)


def trace_of(model, frames=FRAMES, recordings: int = 2):
    def program():
        with pyro.plate("recording", recordings, dim=-3):
            return model(frames)

    return poutine.trace(reuse_plates()(program)).get_trace()


def objective(values, power, speech_power, rank: int, tempering: float = 1.0) -> torch.Tensor:
    """Return E_s w log p(x | s, W, H) + log p(W, H), written out, ``(recording,)``."""
    w, h = values["noise.spectra"], values["noise.activations"]
    law = ComplexNormal(0.0, speech_power + w @ h + 1e-8)  # the floor of the model
    likelihood = law.log_prob(power.sqrt().to(torch.complex128)).mean(0).sum((-2, -1))
    prior = dist.Exponential(1.0).log_prob(w).sum((-2, -1))
    prior = prior + dist.Exponential(float(rank)).log_prob(h).sum((-2, -1))
    return tempering * likelihood + prior


def random_problem(seed: int, draws: int = 3, recordings: int = 2, freq: int = 6, time: int = 9):
    """Powers over many orders of magnitude, some of them zero."""
    g = torch.Generator().manual_seed(seed)
    options = {"generator": g, "dtype": torch.float64}
    spread = float(10 ** (2 * torch.rand((), **options)))
    power = torch.exp(torch.randn(recordings, freq, time, **options) * math.log(spread))
    power[torch.rand(power.shape, **options) < 0.1] = 0.0
    speech = torch.exp(2 * torch.randn(draws, recordings, freq, time, **options) - 2)
    rank = 1 + seed % 4
    w = torch.exp(torch.randn(recordings, freq, rank, **options))
    h = torch.exp(torch.randn(recordings, rank, time, **options)) / rank
    return {"noise.spectra": w, "noise.activations": h}, power, speech, rank


# Laws and priors


def test_stationary_noise_has_one_power_a_bin_and_recording():
    trace = trace_of(stationary)
    site, law = trace.nodes["noise.power"], trace.nodes["_RETURN"]["value"]
    assert site["value"].shape == law.power.shape == (2, 6, 1)
    assert torch.equal(site["value"], law.power)
    assert isinstance(law, ComplexNormal)
    assert law.zero_mean
    assert len(set(law.power.flatten().tolist())) == 12
    x = torch.tensor([0.01, 1.0, 30.0])
    expected = -(x * 2 * math.sqrt(2 * math.pi)).log() - (x.log() + 2) ** 2 / 8
    found = site["fn"].log_prob(x[:, None, None, None])
    torch.testing.assert_close(found, expected[:, None, None, None].expand(3, 2, 6, 1))


def test_nmf_noise_is_the_product_of_its_factors():
    trace = trace_of(NMF(rank=3))
    w, h = (trace.nodes[f"noise.{name}"]["value"] for name in ("spectra", "activations"))
    law = trace.nodes["_RETURN"]["value"]
    assert w.shape == (2, 6, 3)
    assert h.shape == (2, 3, 9)
    assert law.zero_mean
    torch.testing.assert_close(law.power, torch.einsum("rfk,rkt->rft", w, h), rtol=1e-5, atol=2e-8)
    names = {n for n, s in trace.nodes.items() if s["type"] == "sample"}
    assert names == {"noise.spectra", "noise.activations"}


def test_priors_of_nmf_factors_are_exponential_with_unit_mean_power():
    trace = trace_of(NMF(rank=3))
    x = torch.tensor([0.1, 1.0, 4.0])[:, None, None, None]
    spectra, activations = (trace.nodes[f"noise.{n}"]["fn"] for n in ("spectra", "activations"))
    torch.testing.assert_close(spectra.log_prob(x), (-x).expand(3, 2, 6, 3))
    torch.testing.assert_close(
        activations.log_prob(x), (math.log(3) - 3 * x).expand(3, 2, 3, 9), rtol=1e-5, atol=1e-6
    )
    # A priori E[(WH)_ft] = 1 whatever the rank, and its variance is 3 / K <= 3, so that the mean
    # over 4000 draws has a standard deviation of at most 0.0274: 6 of them, odds below 1e-8.
    for rank in (1, 8):
        with pyro.plate("draws", 4000, dim=-3):
            power = NMF(rank)(Frames(1, 1)).power
        assert float(power.mean()) == pytest.approx(1.0, abs=0.17)


@pytest.mark.parametrize("model", [stationary, NMF(rank=2)], ids=["stationary", "nmf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_powers_are_on_the_device_and_in_the_dtype_of_the_frames(model, dtype):
    power = model(Frames(freq=6, time=9, dtype=dtype)).power
    assert power.dtype == dtype
    assert bool((power > 0).all())


@pytest.mark.parametrize("rank", [0, -1, 2.0, "4", None, True])
def test_rank_must_be_a_positive_whole_number(rank):
    with pytest.raises(ValueError, match=f"rank must be a positive whole number, not {rank!r}"):
        NMF(rank=rank)


# The M-step


@pytest.mark.parametrize("tempering", [1.0, 0.3, 4.0])
def test_maximise_never_lowers_the_objective_on_200_random_problems(tempering):
    for seed in range(200):
        values, power, speech, rank = random_problem(seed, draws=1 + seed % 5)
        before = objective(values, power, speech, rank, tempering)
        start = before
        for _ in range(8):
            values = NMF(rank).maximise(values, power, speech, tempering)
            after = objective(values, power, speech, rank, tempering)
            assert bool((after >= before - 1e-10 * before.abs().clamp_min(1.0)).all()), seed
            before = after
        assert bool((after > start + 1e-3).all()), seed  # it does go up, in every recording


@pytest.mark.parametrize(("tempering", "seeds"), [(1.0, (0, 10)), (0.3, (5, 15))])
def test_a_fixed_point_of_maximise_has_zero_gradient(tempering, seeds):
    # Seeds of ranks 1 to 4; the steps are first order, so that many are needed.
    for seed in seeds:
        values, power, speech, rank = random_problem(seed)
        power = power.clamp_min(0.05)
        for _ in range(4000):
            values = NMF(rank).maximise(values, power, speech, tempering)
        # On the log scale, so that a factor that goes to zero counts as having arrived.
        logs = {name: value.log().requires_grad_() for name, value in values.items()}
        there = {name: log.exp() for name, log in logs.items()}
        total = objective(there, power, speech, rank, tempering).sum()
        gradients = torch.autograd.grad(total, list(logs.values()))
        assert max(float(g.abs().max()) for g in gradients) < 2e-3


def test_each_activation_moves_along_its_gradient_and_stays_where_that_is_zero():
    for seed in range(20):
        values, power, speech, rank = random_problem(seed)
        w, h = values["noise.spectra"], values["noise.activations"].clone().requires_grad_()
        now = {"noise.spectra": w, "noise.activations": h}
        (slope,) = torch.autograd.grad(objective(now, power, speech, rank).sum(), h)
        moved = NMF(rank).maximise(values, power, speech)["noise.activations"] - h.detach()
        clear = slope.abs() > 1e-9
        assert bool((moved.sign() == slope.sign())[clear].all())
        assert bool(clear.float().mean() > 0.9)


def test_a_single_component_without_speech_has_its_closed_form():
    # One bin, one frame, K = 1: -log(w h) - v / (w h) - w - h is stationary where
    # -1 / w + v / (w^2 h) = 1, and the same with w and h exchanged: w = h, v / w^3 = 1 / w + 1.
    v, one = 3.7, torch.ones(1, 1, 1, dtype=torch.float64)
    values = {"noise.spectra": one, "noise.activations": 2 * one}
    for _ in range(500):
        values = NMF(1).maximise(values, v * one, torch.zeros_like(one)[None])
    w, h = float(values["noise.spectra"]), float(values["noise.activations"])
    assert w == pytest.approx(h, rel=1e-6)
    assert v / w**3 == pytest.approx(1 / w + 1.0, rel=1e-4)


def test_maximise_treats_recordings_apart():
    values, power, speech, rank = random_problem(3)
    both = NMF(rank).maximise(values, power, speech)
    for i in range(2):
        one = {name: value[i : i + 1] for name, value in values.items()}
        alone = NMF(rank).maximise(one, power[i : i + 1], speech[:, i : i + 1])
        for name, value in alone.items():
            torch.testing.assert_close(both[name][i : i + 1], value)


def test_maximise_keeps_the_factors_positive_and_finite_where_all_is_zero():
    values, power, speech, rank = random_problem(1)
    for _ in range(50):
        values = NMF(rank).maximise(values, 0 * power, 0 * speech)
    assert all(bool((v > 0).all()) and bool(torch.isfinite(v).all()) for v in values.values())


def test_maximise_recovers_noise_of_low_rank():
    g = torch.Generator().manual_seed(0)
    w = torch.rand(1, 40, 2, generator=g, dtype=torch.float64)
    h = torch.rand(1, 2, 200, generator=g, dtype=torch.float64)
    power = (w @ h) * torch.empty(1, 40, 200).double().exponential_(generator=g)
    speech = torch.full((1, 1, 40, 200), 1e-4, dtype=torch.float64)
    values = NMF(2).initial(power, speech, g)

    def error():
        found = values["noise.spectra"] @ values["noise.activations"]
        return float((found / (w @ h)).log().abs().mean())

    assert error() > 0.7
    for _ in range(200):
        values = NMF(2).maximise(values, power, speech)
    assert error() < 0.3  # each activation is estimated from 40 exponential draws


# Starts


def test_initial_factors_depend_on_the_generator_only():
    _, power, speech, _ = random_problem(0)
    power = power.float()

    def start(seed):
        return NMF(3).initial(power, speech, torch.Generator().manual_seed(seed))

    first, second, other = start(1), start(1), start(2)
    for name in ("noise.spectra", "noise.activations"):
        assert torch.equal(first[name], second[name])
        assert not torch.equal(first[name], other[name])
        assert first[name].dtype == torch.float32
        assert bool((first[name] > 0).all())
    assert first["noise.spectra"].shape == (2, 6, 3)
    assert first["noise.activations"].shape == (2, 3, 9)


def test_initial_factors_follow_the_floor_of_each_bin():
    g = torch.Generator().manual_seed(0)
    floor = torch.tensor([0.01, 1.0, 100.0])[None, :, None]
    power = floor * torch.empty(1, 3, 4000).exponential_(generator=g)
    bursts = power.clone()
    bursts[..., ::20] *= 1e4  # speech now and then
    for mixture in (power, bursts):
        values = NMF(4).initial(mixture, torch.ones(1, 1, 3, 4000), g)
        level = (values["noise.spectra"] @ values["noise.activations"]).mean(-1)[0]
        ratio = level / floor[0, :, 0]
        assert bool((ratio > 0.25).all())
        assert bool((ratio < 2.5).all())


def test_initial_factors_are_positive_for_silent_bins():
    values = NMF(2).initial(torch.zeros(1, 6, 9), torch.ones(1, 1, 6, 9), torch.Generator())
    assert all(bool((v > 0).all()) for v in values.values())
