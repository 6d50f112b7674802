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
from avse_ppl.models.protocols import name_of
from avse_ppl.models.validation import (
    check_count,
    check_positive,
    check_scene,
    check_unchanging,
    unknown_name,
)
from tests.helpers import STFT

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
        f"site 'site' is discrete ({type(law).__name__}); the gradient-based methods need "
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


# Names and priors of sites


@pytest.mark.parametrize("name", ["mixture", "speech", "recording", "freq", "time", "chain", "_x"])
def test_a_reserved_name(name):
    message = refused(
        lambda frames: ComplexNormal(0.0, pyro.sample(name, dist.LogNormal(0.0, 1.0)))
    )
    assert message == (
        f"site {name!r} of noise model '<lambda>' has a reserved name; the scene and the "
        "posterior's file use mixture, speech, recording, freq, time, chain, draw, freq_hz, "
        "time_s, sample_s, and names that start with '_'. Call it "
        f"'noise.{name.lstrip('_')}', for instance."
    )


@pytest.mark.parametrize(("name", "instead"), [("a/b", "a.b"), ("", "noise.level")])
def test_a_name_that_cannot_be_stored(name, instead):
    message = refused(
        lambda frames: ComplexNormal(0.0, pyro.sample(name, dist.LogNormal(0.0, 1.0)))
    )
    assert message == (
        f"site {name!r} of noise model '<lambda>' cannot be stored: expected a name without '/', "
        f"which NetCDF takes for a group. Call it {instead!r}."
    )


def test_a_name_used_twice_in_one_model():
    def my_noise(frames):
        levels = [pyro.sample("level", dist.LogNormal(0.0, 1.0)) for _ in range(3)]
        return ComplexNormal(0.0, levels[0] + levels[1] + levels[2])

    assert refused(my_noise) == (
        "noise model 'my_noise' samples 'level' 3 times; expected one site of a name. In a loop, "
        'number them, f"level_{i}", or sample them together on a plate.'
    )


def test_a_discrete_site_explains_why_a_model_failed():
    def my_noise(frames):
        return ComplexNormal(0.0, [0.1, 1.0][pyro.sample("kind", dist.Categorical(torch.ones(2)))])

    assert refused(my_noise).startswith("site 'kind' is discrete (Categorical)")


def test_a_discrete_site_is_named_before_the_power_that_it_makes():
    assert refused(sampled(dist.Bernoulli(1e-6))).startswith("site 'site' is discrete (Bernoulli)")


POSITIVE = torch.distributions.constraints.positive
IMPROPER_END = (
    "; with it the posterior need not exist. Use a proper prior whose draws are finite numbers, "
    "for instance LogNormal(0.0, 2.0), or Uniform between finite bounds."
)


@pytest.mark.parametrize(
    ("law", "said"),
    [
        (dist.ImproperUniform(POSITIVE, (), ()), "(ImproperUniform) is flat or masked"),
        (dist.LogNormal(0.0, 1.0).mask(False), "(LogNormal) is flat or masked"),
        (
            dist.LogNormal(0.0, 1.0).mask(torch.tensor([[[True], [False]]])),
            "(LogNormal) is flat or masked",
        ),
    ],
    ids=["improper", "masked", "partly masked"],
)
def test_a_flat_prior(law, said):
    expected = f"the prior of 'site' {said}, and has no integral{IMPROPER_END}"
    assert refused(sampled(law, lambda value: value.sum((-2, -1), True))) == expected


def test_a_prior_that_is_masked_from_outside():
    def my_noise(frames):
        with poutine.mask(mask=False):
            return ComplexNormal(0.0, pyro.sample("site", dist.LogNormal(0.0, 1.0)))

    assert "(LogNormal) is flat or masked" in refused(my_noise)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, math.inf), (-math.inf, 0.0), (-math.inf, math.inf)]
)
def test_a_uniform_prior_without_bounds(low, high):
    noise = sampled(dist.Uniform(torch.tensor(low), torch.tensor(high)), torch.exp)
    expected = f"the prior of 'site' (Uniform) gave a draw that is not finite{IMPROPER_END}"
    assert refused(noise) == expected


def test_a_prior_without_a_density_at_its_own_draw():
    class Broken(dist.LogNormal):
        def log_prob(self, value):
            return super().log_prob(value) - math.inf

        def expand(self, batch_shape, _instance=None):
            return super().expand(batch_shape, self._get_checked_instance(Broken, _instance))

    assert refused(sampled(Broken(0.0, 1.0))) == (
        f"the prior of 'site' (Broken) has no finite density at its own draw{IMPROPER_END}"
    )


def test_a_plate_that_takes_a_random_part():
    def my_noise(frames):
        with pyro.plate("some", frames.freq, subsample_size=4, dim=-2):
            power = pyro.sample("site", dist.LogNormal(0.0, 1.0))
        return ComplexNormal(0.0, power.sum(-2, keepdim=True))

    assert refused(my_noise) == (
        "plate 'some' of noise model 'my_noise' takes a random part of its rows each time; "
        "expected all of them, so that the density is the same each time. Leave subsample_size out."
    )


# Sites that change


def test_a_site_that_is_not_always_there():
    def my_noise(frames):
        level = pyro.sample("level", dist.LogNormal(0.0, 1.0))
        if float(level.max()) > 1.0:
            level = level + pyro.sample("burst", dist.LogNormal(0.0, 1.0))
        return ComplexNormal(0.0, level)

    assert refused(my_noise, recordings=1) == (
        "site 'burst' is there in some runs of the scene and not in others; expected the same "
        "sites whatever the others' values are. Sample it always, and choose with torch.where or "
        "a smooth weight."
    )


def test_a_site_whose_shape_depends_on_another():
    def my_noise(frames):
        level = pyro.sample("level", dist.Exponential(0.3))
        with pyro.plate("lines", 1 + int(level.max()), dim=-2):
            lines = pyro.sample("line", dist.LogNormal(0.0, 1.0))
        return ComplexNormal(0.0, lines.sum(-2, keepdim=True))

    message = refused(my_noise, recordings=1)
    assert message.startswith("site 'line' has shape (1, ")
    assert message.endswith(
        "in another; expected one shape whatever the other latents are. Sample the largest, and "
        "mask what is not used."
    )


def test_a_site_whose_support_depends_on_another():
    def my_noise(frames):
        top = pyro.sample("top", dist.LogNormal(0.0, 1.0))
        return ComplexNormal(0.0, 0.1 + pyro.sample("level", dist.Uniform(torch.zeros(()), top)))

    assert refused(my_noise) == (
        "the support of 'level' (Uniform) depends on other latents; expected the same bounds "
        "always. Sample on fixed bounds, for instance Uniform(0.0, 1.0), and scale the value in "
        "the model."
    )


def test_priors_may_depend_on_others_and_bounds_may_be_fixed():
    def my_noise(frames):
        middle = pyro.sample("middle", dist.Uniform(-1.0, 0.0))
        with pyro.plate("freq", frames.freq, dim=-2):
            power = pyro.sample("power", dist.LogNormal(middle, 0.5))
            share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
        return ComplexNormal(0.0, power * (0.1 + share[..., 0]))

    check_scene(Scene(SPEECH, my_noise), mixture())


def test_looking_for_changes_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    check_unchanging(Scene(SPEECH, stationary), mixture().frames)
    found = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(found, torch.rand(3))


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
