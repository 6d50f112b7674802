"""Noise models by name, with numbers, and added up; and what is said of texts that are none."""

from __future__ import annotations

import pytest

from avse_ppl import NMF, stationary
from avse_ppl.models import AlphaStable, AR1Gain, Clicks, Hum, StudentT, Sum, Wind, parse_noise
from avse_ppl.models.noise.parse import MODELS
from avse_ppl.pipeline.catalog import NOISE_MODELS, resolve_noise


def imported(path):
    return f"<{path}>".upper


def test_all_that_is_listed_can_be_made():
    assert set(NOISE_MODELS) == set(MODELS)


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("nmf", NMF()),
        ("nmf(8)", NMF(8)),
        (" nmf( rank = 8 ) ", NMF(8)),
        ("stationary", stationary),
        ("stationary()", stationary),
        ("ar1", AR1Gain()),
        ("ar1(3.0, correlation_s=None)", AR1Gain(gain_sd_db=3.0, correlation_s=None)),
        ("student-t", StudentT()),
        ("student-t(4)", StudentT(4)),
        ("alpha-stable(alpha=1.5)", AlphaStable(1.5)),
        ("hum", Hum(50)),
        ("hum(60, harmonics=5)", Hum(60, harmonics=5)),
        ("clicks(0.1)", Clicks(0.1)),
        ("wind(correlation_s=1e-1)", Wind(correlation_s=0.1)),
        ("nmf(8)+hum(50)", Sum((NMF(8), Hum(50)))),
        ("nmf + nmf(3) + clicks", NMF() + NMF(3) + Clicks()),
    ],
)
def test_names_with_numbers_and_sums(text, model):
    assert resolve_noise(text) == model


def test_modules_within_sums():
    noise = parse_noise("my_noise:hiss + nmf(3)", lambda path: lambda frames: path)
    assert noise.parts[0](None) == "my_noise:hiss"
    assert noise.parts[1] == NMF(3)
    model = resolve_noise("avse_ppl.models.noise.basic:stationary+stationary")
    assert [part.site for part in model.parts] == ["noise", "noise.1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nmf(8", "noise 'nmf(8': 'nmf(8' is not of the form name or name(numbers), such as"),
        ("nmf 8", "noise 'nmf 8': 'nmf 8' is not of the form name or name(numbers)"),
        ("nmf(8)hum", "'nmf(8)hum' is not of the form"),
        ("nmf+", "unknown noise model ''; known are alpha-stable, "),
        ("+", "unknown noise model ''; known are alpha-stable, "),
        ("humm(50)", "unknown noise model 'humm'; known are"),
        ("humm(50)", "did you mean 'hum'?"),
        ("my_noise:hiss(3)", "unknown noise model 'my_noise:hiss'"),
        ("nmf(rnk=8)", "noise 'nmf(rnk=8)': nmf has no setting 'rnk'; it takes rank"),
        ("nmf(1, 2)", "noise 'nmf(1, 2)': nmf has fewer settings; it takes rank"),
        ("nmf(site='x')", "nmf has no setting 'site'; it takes rank"),
        ("student-t(noise=3)", "student-t has no setting 'noise'; it takes df"),
        ("stationary(3)", "stationary has fewer settings; it takes nothing"),
        ("nmf(0)", "noise 'nmf(0)': rank must be a positive whole number, not 0"),
        ("nmf(8, rank=8)", "noise 'nmf(8, rank=8)': "),
        ("hum('fifty')", "noise \"hum('fifty')\": "),
        ("learned('nowhere')", "unknown noise prior 'nowhere'"),
        ("nmf(rank)", "expected numbers in the brackets, such as nmf(8) or nmf(rank=8), found"),
        ("nmf(8,)+nmf(])", "expected numbers in the brackets"),
        ("nmf(*[8])", "expected numbers in the brackets"),
        ("nmf(**{'rank': 8})", "expected numbers in the brackets"),
        ("nmf(8)(9)", "noise 'nmf(8)(9)': expected numbers in the brackets"),
    ],
)
def test_texts_that_stand_for_nothing(text, said):
    with pytest.raises(ValueError) as caught:
        resolve_noise(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "nmf(__import__('os').mkdir('made'))", "nmf(rank=open('made', 'w').write('x') or 1)",
        "nmf(1)+nmf((lambda: open('made', 'w'))() and 1)", "__import__('os').mkdir('made')",
        "nmf(1) or open('made','w'))",
    ],
)  # fmt: skip
def test_nothing_in_the_text_is_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError):
        resolve_noise(text)
    assert not list(tmp_path.iterdir())
