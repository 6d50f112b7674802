"""What objects say of themselves in a terminal and in a notebook."""

from __future__ import annotations

import pytest

from avse_ppl import NMF, SVI, GaussianSpeech, Scene, diagnose
from avse_ppl.utils.tables import format_facts, format_facts_html, list_facts
from tests.helpers import STFT, waves


@pytest.fixture(scope="module")
def scene():
    return Scene(GaussianSpeech(stft=STFT), NMF(2))


@pytest.fixture(scope="module")
def posterior(scene):
    return SVI(steps=3, draws=4)(scene, waves(2, 3200), seed=0)


def test_a_posterior_says_what_it_is(posterior):
    for text in (repr(posterior), posterior._repr_html_()):
        assert len(text) < 5000
        for part in ("variational", "2, up to 0.20 s at 16000 Hz", "noise.spectra", "svi"):
            assert part in text


def test_a_scene_names_its_models(scene):
    assert repr(scene) == "Scene\n  speech: GaussianSpeech\n  noise: NMF"
    assert "NMF" in scene._repr_html_()


def test_diagnostics_have_a_verdict_a_recording(scene, posterior):
    found = diagnose(posterior, scene, posterior.observed_spectrogram())
    for text in (repr(found), found._repr_html_()):
        assert "recording 1" in text and "p_law" in text


def test_facts_are_cut_and_escaped():
    facts = {str(i): "<" * 1000 for i in range(40)}
    rows = list_facts(facts)
    assert len(rows) == 31 and rows[-1] == ("...", "10 more")
    assert max(len(text) for _, text in rows) == 300
    assert "<<" not in format_facts_html("a", facts)
    assert format_facts("a", {"b": None, "c": (), "d": 0}) == "a\n  d: 0"
