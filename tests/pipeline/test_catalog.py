"""What the names stand for, and what is said of those that stand for nothing."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import fields, replace

import pytest

from avse_ppl import (
    EM,
    HMC,
    NMF,
    NUTS,
    SVI,
    Amortized,
    Exact,
    GaussianSpeech,
    load_speech,
    stationary,
)
from avse_ppl.inference import presets
from avse_ppl.models import pretrained_names
from avse_ppl.pipeline.catalog import (
    INFERENCE_METHODS,
    NOISE_MODELS,
    default_inference,
    resolve_inference,
    resolve_noise,
    resolve_speech,
    speech_names,
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, with the import path and modules put back afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def module(folder, name, text):
    (folder / f"{name}.py").write_text(textwrap.dedent(text))


MY_NOISE = """
    from avse_ppl import ComplexNormal

    level = 3.0

    def hiss(frames):
        return ComplexNormal(0.0, level)

    def _hidden(frames):
        return None
"""


# Speech


def test_speech_by_name_folder_or_itself(tmp_path):
    prior = GaussianSpeech(gain_sd_db=3.0)
    assert resolve_speech(prior) is prior
    assert isinstance(resolve_speech("gaussian"), GaussianSpeech)
    with pytest.raises(FileNotFoundError, match=r"holds no config.json"):
        resolve_speech(tmp_path)
    with pytest.raises(ValueError, match="unknown speech prior 'gausian'"):
        resolve_speech("gausian")


def test_speech_names_are_those_that_load():
    names = speech_names()
    assert set(names) == {"gaussian", *pretrained_names()}
    assert all(line and "\n" not in line for line in names.values())
    for name in names:
        assert type(resolve_speech(name)) is type(load_speech(name))


# Noise


def test_noise_by_name_or_itself():
    assert isinstance(resolve_noise("nmf"), NMF)
    assert resolve_noise("stationary") is stationary
    assert resolve_noise(stationary) is stationary
    assert all(callable(resolve_noise(name)) for name in NOISE_MODELS)


def test_noise_from_a_module_of_the_current_folder(here):
    module(here, "my_noises", MY_NOISE)
    noise = resolve_noise("my_noises:hiss")
    assert noise.__name__ == "hiss"
    assert float(noise(None).power) == 3.0


def test_noise_from_an_installed_module():
    assert resolve_noise("avse_ppl.models.noise.basic:stationary") is stationary
    assert resolve_noise("avse_ppl.models:NMF") is NMF


@pytest.mark.parametrize("name", ["nfm", "", "NMF", "stationry"])
def test_unknown_noise(name):
    with pytest.raises(
        ValueError, match=f"unknown noise model '{name}'; known are alpha-stable, ar1, clicks, "
    ):
        resolve_noise(name)


def test_unknown_noise_comes_with_close_matches():
    with pytest.raises(ValueError, match="did you mean 'stationary'"):
        resolve_noise("stationry")


def test_a_module_that_is_not_there(here):
    with pytest.raises(ValueError) as caught:
        resolve_noise("no_such_module:hiss")
    assert str(caught.value) == (
        "no module 'no_such_module' for noise 'no_such_module:hiss'; expected no_such_module.py "
        f"in {here} or an installed module"
    )


@pytest.mark.parametrize("name", [":hiss", "my_noises.py:hiss", "my_noises:"])
def test_a_name_that_is_not_of_the_form_module_function(name, here):
    with pytest.raises(ValueError, match=r"write my_noise:hiss"):
        resolve_noise(name)


def test_a_module_name_that_is_none(here):
    with pytest.raises(ValueError, match=r"module '.*'"):
        resolve_noise("a..b:hiss")


def test_a_missing_part_of_a_package(here):
    with pytest.raises(ValueError, match=r"no module 'avse_ppl.no_such_part' for noise"):
        resolve_noise("avse_ppl.no_such_part:hiss")


def test_a_module_that_imports_what_is_missing(here):
    module(here, "needs_more", "import not_installed_at_all\n")
    with pytest.raises(ValueError) as caught:
        resolve_noise("needs_more:hiss")
    assert str(caught.value) == ("needs_more.py imports 'not_installed_at_all', which is missing")


@pytest.mark.parametrize(
    ("text", "said"),
    [("1 / 0\n", "ZeroDivisionError"), ("def hiss(:\n", "SyntaxError"), ("import os.nope\n", "")],
)
def test_a_module_that_fails_on_import(text, said, here):
    module(here, "fails", text)
    with pytest.raises(ValueError, match=rf"fails.*{said}"):
        resolve_noise("fails:hiss")


def test_a_module_without_the_function(here):
    module(here, "my_noises", MY_NOISE)
    with pytest.raises(ValueError) as caught:
        resolve_noise("my_noises:his")
    assert str(caught.value) == "module 'my_noises' has no function 'his'; did you mean 'hiss'?"
    with pytest.raises(ValueError) as caught:
        resolve_noise("my_noises:zzz")
    assert str(caught.value) == "module 'my_noises' has no function 'zzz'"
    with pytest.raises(ValueError, match="has no function 'level'"):  # it is there, not callable
        resolve_noise("my_noises:level")


# Routines


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("svi", SVI),
        ("svi-structured", SVI),
        ("svi-low-rank", SVI),
        ("em", EM),
        ("em-langevin", EM),
        ("em-mala", EM),
        ("em-mh", EM),
        ("em-variational", EM),
        ("exact", Exact),
        ("amortized", Amortized),
        ("nuts", NUTS),
        ("hmc", HMC),
    ],
)
def test_routine_by_name(name, kind):
    assert name in INFERENCE_METHODS
    assert type(resolve_inference(name)) is kind


def test_every_routine_that_is_listed_is_there():
    assert all(callable(resolve_inference(name)) for name in INFERENCE_METHODS)


def test_em_differs_by_its_e_step():
    assert resolve_inference("em").e_step == "point"
    for e_step in ("langevin", "mala", "mh", "variational"):
        assert resolve_inference(f"em-{e_step}").e_step == e_step
        assert resolve_inference(f"em-{e_step}", tempering=1.0).tempering == 1.0


def test_settings_reach_the_routine():
    assert resolve_inference("svi", draws=7).draws == 7
    assert resolve_inference("exact", draws=7).draws == 7
    assert resolve_inference("em", draws=7).draws == 7
    with pytest.raises(TypeError, match="no_such_setting"):
        resolve_inference("svi", no_such_setting=1)


def test_draws_of_chains_are_waveforms_to_keep():
    own = NUTS(draws=50, warmup=50, chains=2, max_tree_depth=6)
    assert resolve_inference("nuts") == own
    assert resolve_inference("nuts", draws=30) == replace(own, waveforms=30)
    assert resolve_inference("nuts", draws=30, waveforms=False) == replace(own, waveforms=False)
    assert resolve_inference("hmc", draws=30, chains=3).chains == 3


def test_a_routine_stands_for_itself():
    routine = SVI(draws=3)
    assert resolve_inference(routine) is routine


def test_unknown_routine():
    with pytest.raises(ValueError) as caught:
        resolve_inference("svl")
    assert str(caught.value) == (
        f"unknown inference method 'svl'; known are {', '.join(sorted(INFERENCE_METHODS))}; "
        "did you mean 'svi'?"
    )


def test_a_prior_without_a_density_is_inverted_by_guided_diffusion():
    assert default_inference(load_speech("score")) == "guided"
    assert default_inference(load_speech("latent-diffusion")) == "svi"


def test_presets_differ_from_their_class_where_they_say():
    assert resolve_inference("svi") == SVI()
    for preset in presets.values():
        defaults = {field.name: field.default for field in fields(preset.method)}
        assert all(defaults[name] != value for name, value in preset.settings.items())
