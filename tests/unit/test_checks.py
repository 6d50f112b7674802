"""What is said about a scene that cannot be inverted, word for word."""

from __future__ import annotations

import math
import re

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from avse_ppl import NMF, ComplexNormal, GaussianSpeech, Scene, Stft, stationary
from avse_ppl.checks import check_count, check_positive, check_scene, name_of, unknown_name

STFT = Stft(64, 16)
SPEECH = GaussianSpeech(stft=STFT)
SHAPE_HINT = (
    "Did you forget plate('freq', frames.freq, dim=-2) or plate('time', frames.time, dim=-1)?"
)


def mixture(recordings: int = 2):
    rng = np.random.default_rng(0)
    return STFT.analyse(list(rng.normal(size=(recordings, 300)).astype(np.float32)))


def refused(noise, kind=ValueError, speech=SPEECH, recordings: int = 2) -> str:
    with pytest.raises(kind) as caught:
        check_scene(Scene(speech, noise), mixture(recordings))
    assert type(caught.value) is kind
    return str(caught.value)


def law_of(power, mean=0.0):
    def my_noise(frames):
        return ComplexNormal(mean, torch.as_tensor(power))

    return my_noise


def sampled(law, then=lambda value: value):
    def my_noise(frames):
        return ComplexNormal(0.0, then(pyro.sample("site", law)))

    return my_noise


# What passes


@pytest.mark.parametrize("noise", [stationary, NMF(rank=2)], ids=["stationary", "nmf"])
@pytest.mark.parametrize("recordings", [1, 3])
def test_good_scenes_pass_and_give_their_trace(noise, recordings):
    trace = check_scene(Scene(SPEECH, noise), mixture(recordings))
    found = {n for n, s in trace.nodes.items() if s["type"] == "sample" and not s["is_observed"]}
    own = {"noise.power"} if noise is stationary else {"noise.spectra", "noise.activations"}
    assert found == {"speech.gain"} | own
    assert trace.nodes["mixture"]["is_observed"]
    assert all(trace.nodes[name]["value"].shape[0] == recordings for name in found)


def test_a_scene_without_any_latent_passes():
    speech = GaussianSpeech(gain_sd_db=0, stft=STFT)
    trace = check_scene(Scene(speech, law_of(1.0)), mixture())
    assert [n for n, s in trace.nodes.items() if s["type"] == "sample"] == ["mixture"]


def test_observed_sites_of_a_model_may_be_discrete():
    def noise(frames):
        pyro.sample("flag", dist.Bernoulli(0.5), obs=torch.tensor(1.0))
        return ComplexNormal(0.0, 1.0)

    assert "flag" in check_scene(Scene(SPEECH, noise), mixture()).nodes


def test_a_check_leaves_nothing_in_an_outer_trace_but_the_scene():
    with poutine.trace() as tracer:
        check_scene(Scene(SPEECH, stationary), mixture())
    names = [n for n, s in tracer.trace.nodes.items() if s["type"] == "sample"]
    assert sorted(names) == ["mixture", "noise.power", "speech.gain"]


# Not a model at all


def test_speech_that_is_not_callable():
    assert refused(stationary, TypeError, speech=3.0) == (
        "speech prior must be a function of frames, found float: 3.0"
    )


def test_noise_that_is_not_callable():
    assert refused("nmf", TypeError) == (
        "noise model must be a function of frames, found str: 'nmf'"
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.0, "float"),
        (None, "NoneType"),
        (torch.ones(33, 1), "a tensor of shape (33, 1)"),
        (dist.Normal(0.0, 1.0), "Normal"),
    ],
)
def test_a_model_that_returns_something_else(value, said):
    def my_noise(frames):
        return value

    expected = f"noise model 'my_noise' returned {said}; expected ComplexNormal(mean, power)"
    assert refused(my_noise, TypeError) == expected


def test_a_speech_prior_that_returns_something_else():
    def my_speech(frames, visual=None):
        return torch.ones(3)

    said = "speech prior 'my_speech' returned a tensor of shape (3,); expected ComplexNormal"
    message = refused(stationary, TypeError, speech=_at(STFT, my_speech))
    assert message.startswith(said)


def _at(stft, function):
    """A function that says which front end it was made for."""
    function.stft = stft
    return function


# Front ends


def test_a_mixture_of_another_front_end():
    other = Stft(128, 32)
    message = refused(stationary, speech=GaussianSpeech(stft=other))
    assert message == (
        f"the mixture was analysed with {STFT}, but the speech prior was made for {other}; use "
        "scene.stft.analyse(samples), or pass the samples themselves"
    )


# Shapes


@pytest.mark.parametrize("shape", [(33,), (20, 33), (5, 1), (2, 2, 33, 20), (3, 33, 20), (21,)])
def test_a_law_of_the_wrong_shape(shape):
    assert refused(law_of(torch.ones(shape))) == (
        f"noise model 'my_noise' returned shape {shape}; expected something broadcastable to "
        f"(recording=2, freq=33, time=20). {SHAPE_HINT}"
    )


@pytest.mark.parametrize(
    "shape", [(), (20,), (33, 1), (33, 20), (1, 33, 1), (2, 33, 20), (2, 1, 1)]
)
def test_laws_of_every_broadcastable_shape_pass(shape):
    check_scene(Scene(SPEECH, law_of(torch.ones(shape))), mixture())


def test_a_mean_of_the_wrong_shape():
    assert "returned shape (33,)" in refused(law_of(1.0, mean=torch.zeros(33)))


def test_a_forgotten_plate():
    noise = sampled(dist.LogNormal(torch.zeros(33), 1.0))
    assert refused(noise) == (
        "noise model 'my_noise' returned shape (2, 1, 33); expected something broadcastable to "
        f"(recording=2, freq=33, time=20). {SHAPE_HINT}"
    )


def test_a_plate_without_its_dim():
    def my_noise(frames):
        with pyro.plate("freq", frames.freq):
            return ComplexNormal(0.0, pyro.sample("site", dist.LogNormal(0.0, 1.0)))

    assert "returned shape (2, 1, 33); expected something broad" in refused(my_noise)


@pytest.mark.parametrize("recordings", [1, 2])
def test_a_law_whose_shape_is_wrong_only_beside_the_recordings(recordings):
    # Alone the value is (33, 1), which fits; as an event it comes right of the recordings.
    noise = sampled(dist.LogNormal(torch.zeros(33, 1), 1.0).to_event(2))
    message = refused(noise, recordings=recordings)
    assert f"returned shape ({recordings}, 1, 1, 33, 1)" in message


def test_a_speech_prior_of_the_wrong_shape():
    message = refused(
        stationary, speech=_at(STFT, lambda f, visual=None: ComplexNormal(0.0, torch.ones(7)))
    )
    assert message.startswith("speech prior '<lambda>' returned shape (7,); expected something")


# Powers and means


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize(("power", "shown"), [(-1.0, "-1"), (0.0, "0"), (-0.25, "-0.25")])
def test_a_power_that_is_not_positive(power, shown, validated):
    values = torch.ones(33, 1)
    values[3] = power
    with pyro.validation_enabled(validated):
        message = refused(_after_the_plate(values))
    assert message == (
        f"noise model 'my_noise' returned a power with minimum {shown}; expected positive "
        "numbers. Sample scales from LogNormal, Gamma or Exponential, or add a small floor."
    )


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("power", [math.nan, math.inf])
def test_a_power_that_is_not_finite(power, validated):
    with pyro.validation_enabled(validated):
        message = refused(law_of(torch.tensor([[power]])))
    assert message == (
        "noise model 'my_noise' returned a power with NaN or infinity; expected finite numbers"
    )


@pytest.mark.parametrize("mean", [math.nan, math.inf, complex(0, math.nan)])
def test_a_mean_that_is_not_finite(mean):
    assert refused(law_of(1.0, mean=torch.tensor(mean))) == (
        "noise model 'my_noise' returned a mean with NaN or infinity; expected finite numbers"
    )


def test_a_speech_prior_with_a_negative_power():
    speech = _at(STFT, lambda frames, visual=None: ComplexNormal(0.0, -torch.ones(())))
    assert "speech prior '<lambda>' returned a power with minimum -1" in refused(
        stationary, speech=speech
    )


def _after_the_plate(power):
    def my_noise(frames):
        floor = pyro.sample("floor", dist.Uniform(1.0, 1.0 + 1e-6))
        return ComplexNormal(0.0, power * floor)

    return my_noise


# Sites


@pytest.mark.parametrize(
    "law",
    [
        dist.Bernoulli(0.5),
        dist.Categorical(torch.ones(3)),
        dist.Poisson(3.0),
        dist.Binomial(5, torch.tensor(0.5)),
        dist.Geometric(0.5),
    ],
    ids=lambda law: type(law).__name__,
)
def test_a_discrete_site(law):
    assert refused(sampled(law, lambda value: value + 1.0)) == (
        f"site 'site' is discrete ({type(law).__name__}); the gradient-based routines need "
        "continuous latents. Use a relaxed law (Beta, RelaxedBernoulli) or sum it out."
    )


def test_a_complex_site():
    noise = sampled(ComplexNormal(0.0, torch.ones(())), lambda value: value.abs() + 1.0)
    assert refused(noise) == (
        "site 'site' is complex; expected real latents. Return ComplexNormal(mean, power) "
        "instead of sampling it: the scene integrates over it exactly."
    )


@pytest.mark.parametrize("size", [1, 2, 5])
def test_own_use_of_the_dimension_of_the_recordings(size):
    def my_noise(frames):
        with pyro.plate("mine", size, dim=-3):
            site = pyro.sample("site", dist.LogNormal(0.0, 1.0))
        return ComplexNormal(0.0, site.sum(-3))

    assert refused(my_noise) == (
        'noise model \'my_noise\' failed: at plates "mine" and "recording", collide at dim=-3. '
        "Use dims -2 and -1 only: dim=-3 is that of the plate over recordings."
    )


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("recordings", [1, 2])
def test_own_use_of_a_dimension_left_of_the_recordings(size, recordings):
    def my_noise(frames):
        with pyro.plate("mine", size, dim=-4):
            site = pyro.sample("site", dist.LogNormal(0.0, 1.0))
        return ComplexNormal(0.0, site.sum(0))

    assert refused(my_noise, recordings=recordings) == (
        f"site 'site' has batch shape ({size}, {recordings}, 1, 1); expected (recording="
        f"{recordings}, ., .). Use dims -2 and -1 only for your own plates."
    )


def test_one_name_in_speech_and_noise():
    def my_noise(frames):
        return ComplexNormal(0.0, pyro.sample("speech.gain", dist.LogNormal(0.0, 1.0)))

    assert refused(my_noise) == (
        "the scene cannot be run: Multiple sample sites named 'speech.gain'. Give the sites of "
        "speech and noise different names."
    )


# Errors inside a model


def test_an_error_inside_a_model_is_passed_on_with_its_cause():
    def my_noise(frames):
        return ComplexNormal(0.0, {}["level"])

    with pytest.raises(ValueError, match=r"^noise model 'my_noise' failed: 'level'$") as caught:
        check_scene(Scene(SPEECH, my_noise), mixture())
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_without_a_text_is_named():
    def my_noise(frames):
        raise NotImplementedError

    assert refused(my_noise) == "noise model 'my_noise' failed: NotImplementedError"


@pytest.mark.parametrize("other", [(7, 5), (7,)])
def test_an_error_about_shapes_inside_a_model_comes_with_a_hint(other):
    def my_noise(frames):
        return ComplexNormal(0.0, torch.ones(frames.freq, 5) * torch.ones(other))

    message = refused(my_noise)
    assert message.startswith("noise model 'my_noise' failed: ")
    assert message.endswith(SHAPE_HINT)
    assert "\n" not in message


def test_mean_and_power_that_do_not_fit_come_with_a_hint():
    message = refused(law_of(torch.ones(33, 1), mean=torch.zeros(5, 7)))
    assert "mean of shape (5, 7) and power of shape (33, 1) do not broadcast" in message
    assert message.endswith(SHAPE_HINT)


def test_wrong_parameters_of_a_users_own_law_are_told_without_the_hint_about_plates():
    def my_noise(frames):
        return ComplexNormal(0.0, pyro.sample("site", dist.Exponential(torch.tensor(-1.0))).abs())

    message = refused(my_noise)
    assert message.startswith("the scene cannot be run: Expected parameter rate")
    assert "plate(" not in message
    assert "-1.0" in message


def test_an_error_that_depends_on_the_second_run():
    runs = []

    def my_noise(frames):
        runs.append(1)
        if len(runs) > 1:
            raise RuntimeError("out of luck")
        return ComplexNormal(0.0, 1.0)

    assert refused(my_noise) == "the scene cannot be run: out of luck"


# Names and numbers


def test_models_are_called_by_their_name():
    class Named:
        name = "rvae"

    assert name_of(Named()) == "rvae"
    assert name_of(stationary) == "stationary"
    assert name_of(NMF(rank=3)) == "NMF"
    assert name_of(lambda frames: None) == "<lambda>"


def test_an_unknown_name_comes_with_close_matches():
    error = unknown_name("noise model", "nfm", ["nmf", "stationary"])
    assert isinstance(error, ValueError)
    assert str(error) == (
        "unknown noise model 'nfm'; known are nmf, stationary; did you mean 'nmf'?"
    )
    assert str(unknown_name("x", "rvaee", ["vae", "rvae"])).endswith(
        "did you mean 'rvae' or 'vae'?"
    )
    assert str(unknown_name("x", "zzz", ["b", "a"])) == "unknown x 'zzz'; known are a, b"


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", None, True, math.nan])
def test_a_count_that_is_none(value):
    expected = f"draws must be a whole number of at least 1, not {value!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        check_count("draws", value)


def test_counts_that_are_fine():
    check_count("draws", 1)
    check_count("draws", 0, minimum=0)
    with pytest.raises(ValueError, match="at least 2, not 1"):
        check_count("draws", 1, minimum=2)


@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_positive(value):
    expected = f"step must be a finite number above 0, not {value!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        check_positive("step", value)


def test_numbers_that_are_fine():
    check_positive("step", 1e-9)
    check_positive("step", 3)
