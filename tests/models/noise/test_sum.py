"""Sums of noise models: their law, the names of their latents, where they start."""

from __future__ import annotations

from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from avse_ppl import NMF, SVI, ComplexNormal, Frames, GaussianSpeech, Scene, stationary
from avse_ppl.models import AR1Gain, Hum, StudentT, Sum, clicks, hum, wind
from avse_ppl.models.handlers import reuse_plates
from avse_ppl.models.noise.basic import Stationary
from avse_ppl.models.noise.sum import initial_values, noise_floor, rename_sites, residual_spectrum
from tests.helpers import STFT

FRAMES = Frames(freq=33, time=9, hop=16, n_fft=64)


def hiss(frames):
    return ComplexNormal(0.0, pyro.sample("hiss", dist.LogNormal(0.0, 1.0)))


def tone(frames):
    return ComplexNormal(frames.number(2.0), frames.number(3.0))


def sites(model):
    with poutine.trace() as tracer, reuse_plates(), pyro.plate("recording", 1, dim=-3):
        model(FRAMES)
    return [name for name, node in tracer.trace.nodes.items() if node["type"] == "sample"]


def test_means_and_powers_add():
    def other(frames):
        return ComplexNormal(frames.number(-0.5), torch.arange(1.0, 34.0)[:, None])

    law = Sum((tone, other))(FRAMES)
    assert float(law.mean) == 1.5
    torch.testing.assert_close(law.power, torch.arange(4.0, 37.0)[:, None])
    zero = (stationary + clicks)(FRAMES)
    assert zero.zero_mean


def test_plus_takes_models_and_functions_in_any_order():
    assert (NMF(2) + hiss).parts == (NMF(2), hiss)
    assert (hiss + NMF(2)).parts == (hiss, NMF(2))
    assert isinstance(hiss + clicks + tone, Sum)
    nested = (stationary + hiss) + (clicks + hum(50))
    assert [type(part) for part in nested.parts] == [
        type(part) for part in (stationary, hiss, clicks, hum(50))
    ]


@pytest.mark.parametrize(
    "model",
    [
        NMF(1) + NMF(2) + NMF(3),
        stationary + (stationary + stationary),
        stationary + AR1Gain() + StudentT(),
        (AR1Gain(noise=NMF(1)) + NMF(1)) + (NMF(1) + NMF(1)),
        StudentT(3.0, stationary + AR1Gain()) + (stationary + wind),
        stationary + hiss + stationary,
        Sum((Stationary("noise.1"), NMF(1), AR1Gain(), hum(600.0), hum(700.0))),
    ],
)
def test_every_latent_has_a_name_of_its_own(model):
    names = sites(model)
    assert len(set(names)) == len(names) >= len(model.parts)
    assert all(name.startswith("noise.") or name == "hiss" for name in names)
    own = [part.site for part in model.parts if hasattr(part, "site")]
    assert len(set(own)) == len(own)


def test_names_follow_the_place_in_the_sum():
    assert sites(NMF(1) + hiss + stationary) == [
        "noise.spectra", "noise.activations", "hiss", "noise.2.power",
    ]  # fmt: skip
    assert sites(StudentT(2.0, AR1Gain(gain_sd_db=1.0)) + stationary) == [
        "noise.power", "noise.innovations", "noise.texture", "noise.1.power",
    ]  # fmt: skip


def test_the_inner_model_is_renamed_with_the_outer():
    model = rename_sites(AR1Gain(noise=NMF(2) + hiss + stationary), "fan")
    assert sites(model) == [
        "fan.spectra", "fan.activations", "hiss", "fan.2.power", "fan.gain_sd_db",
        "fan.innovations",
    ]  # fmt: skip
    assert rename_sites(hiss, "fan") is hiss


def test_a_sum_inverts_under_svi():
    scene = Scene(GaussianSpeech(stft=STFT), NMF(1) + hiss + Hum(1000.0, harmonics=3))
    wave = torch.randn(400).numpy()
    posterior = SVI(steps=5, draws=2)(scene, wave, seed=0)
    assert {"noise.spectra", "hiss", "noise.2.lines", "noise.2.drift"} <= set(posterior.latents)


@pytest.mark.parametrize(
    ("parts", "kind", "said"),
    [
        ((), ValueError, "a sum of noise models needs at least one part, found none"),
        ((stationary, 3), TypeError, "must be a function of frames, found int: 3"),
        ((hiss, NMF(1), hiss), ValueError, "'hiss' is in the sum twice"),
    ],
)
def test_parts_that_are_refused(parts, kind, said):
    with pytest.raises(kind, match=said):
        Sum(parts)


def test_a_part_that_returns_something_else():
    def wrong(frames):
        return torch.ones(33, 9)

    with pytest.raises(TypeError, match=r"'wrong', a part of a sum .*, returned Tensor; expected"):
        (stationary + wrong)(FRAMES)


# Starts


def noisy(time=4000):
    g = torch.Generator().manual_seed(0)
    level = torch.tensor([0.01, 1.0, 100.0])[None, :, None]
    return level, level * torch.empty(1, 3, time).exponential_(generator=g)


def test_the_floor_is_the_geometric_mean_of_frames_that_hold_sound():
    _, power = noisy()
    torch.testing.assert_close(noise_floor(power), power.log().mean(-1, keepdim=True).exp())
    padded = torch.cat((power, torch.zeros(1, 3, 900)), -1)
    torch.testing.assert_close(noise_floor(padded), noise_floor(power))


@pytest.mark.parametrize("speech", [0.0, 0.3, 3.0])
def test_the_settled_spectrum_is_what_is_left_beside_speech(speech):
    level, power = noisy(40000)
    heard = power * (1.0 + speech / level)  # speech of that power, of the same law
    found = residual_spectrum(heard, torch.full_like(power, speech))
    for step in pairwise((0.0, *found.flatten().tolist())):
        assert step[1] > step[0]
    # The lowest level under loud speech is one part in 300: known to a tenth of the whole only.
    loud = found[:, level[0, :, 0] > 0.3 * speech]
    torch.testing.assert_close(loud, level[:, level[0, :, 0] > 0.3 * speech], rtol=0.06, atol=0)


def test_padding_plays_no_part_in_the_settled_spectrum():
    _, power = noisy(400)
    speech = torch.full_like(power, 0.3)
    padded = [torch.cat((x, torch.zeros(1, 3, 90)), -1) for x in (power, speech)]
    torch.testing.assert_close(residual_spectrum(*padded), residual_spectrum(power, speech))


def test_stationary_noise_starts_settled_alone_and_at_the_floor_in_a_sum():
    _, power = noisy()
    speech, g = torch.full_like(power, 0.01), torch.Generator()
    alone = initial_values(stationary, power, speech, g)["noise.power"]
    torch.testing.assert_close(alone, residual_spectrum(power, speech))
    values = (clicks + stationary).initial(power, speech, g)
    torch.testing.assert_close(values["noise.1.power"], noise_floor(power))
    assert set(values) == {"noise.clicks", "noise.1.power"}
    values = (hum(1000.0) + stationary + hiss).initial(power, speech, g)  # they hold no bursts
    torch.testing.assert_close(values["noise.1.power"], residual_spectrum(power, speech))


def test_nmf_starts_after_updates_of_its_own_wherever_it_is():
    _, power = noisy(50)
    speech = torch.full_like(power, 0.01)

    def seeded():
        return torch.Generator().manual_seed(4)

    values = NMF(2).initial(power, speech, seeded())
    for _ in range(20):
        values = NMF(2).maximise(values, power, speech[None])
    for model in (NMF(2) + hum(1000.0), AR1Gain(noise=NMF(2)), StudentT(noise=NMF(2) + hiss)):
        found = model.initial(power, speech, seeded())
        assert set(found) == set(values)
        for name, value in values.items():
            torch.testing.assert_close(found[name], value)


def test_a_model_without_a_start_has_none():
    assert initial_values(hiss, torch.ones(1, 3, 4), torch.ones(1, 3, 4), torch.Generator()) == {}
