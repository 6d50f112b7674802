"""The report as text: what is on the page, what is escaped, and what cannot be reported."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from PIL import Image

from avse_ppl import NMF, NUTS, SVI, GaussianSpeech, Scene, diagnose
from avse_ppl.evaluation.diagnostics.discrepancy import DiscrepancyCheck
from avse_ppl.plotting.player import LOSSLESS_S, encode_sound
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.report import render_report, write_report
from avse_ppl.report.charts import average_blocks, make_charts, pack_numbers
from avse_ppl.report.page import list_costs, list_settings
from avse_ppl.report.sounds import make_sounds
from avse_ppl.report.verdicts import explain_kind, judge_recording
from tests.helpers import STFT, known_noise, waves

HOSTILE = '<script>alert(1)</script>" onload="alert(2)'
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Elements with their attributes, and whether every tag is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def infer(count=1, draws=25):
    scene = Scene(GaussianSpeech(stft=STFT), NMF(2))
    return SVI(steps=12, draws=draws)(scene, 0.1 * waves(count, 4000), seed=3)


@pytest.fixture(scope="module")
def posterior():
    found = infer()
    attrs = {"recording": "noisy.wav", "predictor": "deepfilternet",
             "cost": {"wall_s": 2.0, "cpu_s": 1.5, "real_time_factor": 0.4},
             "versions": {"torch": "9.9"}}  # fmt: skip
    return replace(found, attrs={**found.attrs, **attrs})


@pytest.fixture(scope="module")
def text(posterior):
    return render_report(posterior)


def decode(uri):
    return base64.b64decode(uri.partition("base64,")[2])


# --- the page ------------------------------------------------------------------------------------


def test_the_page_is_whole_and_loads_nothing(text):
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("h1", "main", "nav", "title")] == [1, 1, 1, 1]
    for tag in ("img", "audio", "link", "script", "source", "iframe"):
        for attrs in page.all(tag):
            place = attrs.get("src", attrs.get("href"))
            assert place is None or place.startswith("data:")
    assert "http://" not in text and "https://" not in text
    assert all(len(image["alt"]) > 20 for image in page.all("img"))
    assert all(audio["aria-label"] for audio in page.all("audio"))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [a["href"].removeprefix("#") for a in page.all("a")]
    assert set(links) <= set(ids)
    labels = [attrs["aria-labelledby"] for _, attrs in page.elements if "aria-labelledby" in attrs]
    assert set(labels) <= set(ids)


def test_only_our_script_may_run(text):
    import hashlib

    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    [policy] = [
        m["content"] for m in Page(text).all("meta") if "default-src" in m.get("content", "")
    ]
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert len(script) == 1 and f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_texts_from_a_file_are_text(posterior):
    attrs = {**posterior.attrs, "recording": HOSTILE, "predictor": HOSTILE, HOSTILE: HOSTILE}
    attrs |= {"versions": {HOSTILE: HOSTILE}, "odd": "a\udcffb\x00c", "long": "x" * 5000}
    fit = (replace(posterior.fit[0], warnings=(HOSTILE,)),)
    latents = {**posterior.latents, f"{HOSTILE}.spectra": posterior.latents["noise.spectra"],
               f"{HOSTILE}.activations": posterior.latents["noise.activations"]}  # fmt: skip
    kind = Approximation(HOSTILE)
    hostile = replace(posterior, attrs=attrs, fit=fit, latents=latents, kind=kind, axes={})
    text = render_report(hostile, title=None)
    page = Page(text)
    assert "<script>alert" not in text and "onload" not in {k for _, a in page.elements for k in a}
    assert len([a for a in page.all("script") if "type" not in a]) == 1
    assert ">abc<" in text and "x" * 301 not in text
    assert text.encode("utf-8")


def test_what_the_reader_is_told(posterior, text):
    words = " ".join(re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL).split())
    assert "noisy.wav: posterior over the clean speech" in words
    assert "<code>variational, tempered 0.25</code>" in words
    assert "The predictor deepfilternet was asked, and its answer was not used." in words
    settings = dict(list_settings(posterior))
    assert settings["speech prior"] == "GaussianSpeech" and settings["noise model"] == "NMF"
    assert (settings["seed"], settings["version of torch"]) == ("3", "9.9")
    assert "cost" not in settings and "versions" not in settings
    costs = dict(list_costs(posterior))
    assert costs["audio"] == "0.25 s" and costs["real-time factor"] == "0.40"
    alone = replace(posterior, attrs={"inference_s": 0.5})
    assert dict(list_costs(alone))["real-time factor of the inference"] == "2.00"


def test_several_recordings_have_a_section_each():
    text = render_report(infer(2), draws=1)
    page = Page(text)
    assert "Recording 1 of 2" in text and "Recording 2 of 2" in text
    assert len(page.all("audio")) == 2 * 4
    assert {"recording-0", "recording-1"} <= {a.get("id") for a in page.all("section")}


def test_pages_are_written_atomically(posterior, tmp_path):
    path = write_report(posterior, tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_what_cannot_be_reported(posterior, tmp_path):
    with pytest.raises(ValueError, match=r"ending in \.html, \.htm, found"):
        write_report(posterior, tmp_path / "report.pdf")
    with pytest.raises(FileNotFoundError, match="make the folder"):
        write_report(posterior, tmp_path / "no" / "report.html")
    for draws in (-1, 2.0, True):
        with pytest.raises(ValueError, match="draws must be a whole number of at least 0"):
            render_report(posterior, draws=draws)
    with pytest.raises(ValueError, match="probability must be between 0 and 1, not 1"):
        render_report(posterior, probability=1)
    with pytest.raises(ValueError, match="diagnostics of 1 recordings, found those of 2"):
        render_report(posterior, diagnostics=diagnose(infer(2)))


# --- sounds --------------------------------------------------------------------------------------


def test_noisy_is_enhanced_plus_noise(posterior):
    sounds, gain_db = make_sounds(posterior, 3)
    assert [s.name for s in sounds] == [
        "noisy",
        "enhanced",
        "noise",
        "draw 1",
        "draw 13",
        "draw 25",
    ]
    waves_ = {s.name: soundfile.read(io.BytesIO(decode(s.uri)))[0] for s in sounds}
    np.testing.assert_allclose(waves_["noisy"], waves_["enhanced"] + waves_["noise"], atol=1e-4)
    gain = 10 ** (gain_db / 20)
    np.testing.assert_allclose(waves_["draw 13"], gain * posterior.draws()[12], atol=1e-4)
    assert max(np.abs(wave).max() for wave in waves_.values()) == pytest.approx(0.9, abs=1e-3)


def test_long_recordings_are_mp3():
    short, long = (np.zeros(int((LOSSLESS_S + more) * 16000)) for more in (0.0, 0.1))
    assert encode_sound(short, 16000).startswith("data:audio/flac;")
    uri = encode_sound(long, 16000)
    assert uri.startswith("data:audio/mpeg;") and len(uri) < 300_000
    assert encode_sound(np.zeros(240_000), 10_007).startswith("data:audio/flac;")  # no MP3 of it


def test_silence_is_not_amplified(posterior):
    silent = replace(posterior, mixture=0 * posterior.mixture, mean=0 * posterior.mean,
                     speech=0 * posterior.speech)  # fmt: skip
    assert make_sounds(silent, 1)[1] == 0.0
    Page(render_report(silent))


# --- charts --------------------------------------------------------------------------------------


def unpack(curve):
    whole = np.frombuffer(base64.b64decode(curve["data"]), "<i2").astype(float)
    whole[whole == -32768] = np.nan
    return (curve["scale"] * whole + curve["offset"]).reshape(curve["rows"], -1)


def test_packed_numbers_come_back():
    row = np.array([3.0, np.nan, -7.5, 1e3])
    found = unpack(pack_numbers([row, -row]))
    np.testing.assert_allclose(found, [row, -row], atol=2000 / 65532)
    assert unpack(pack_numbers([np.full(2, 4.0)])).tolist() == [[4.0, 4.0]]


def test_the_charts_hold_the_posterior(posterior):
    charts = {chart["id"]: chart for chart in make_charts(posterior)}
    assert list(charts) == ["spectrograms", "waveform", "level", "spectra-noise",
                            "activations-noise", "trace"]  # fmt: skip
    image = np.asarray(Image.open(io.BytesIO(decode(charts["spectrograms"]["images"][1]["uri"]))))
    level_db = image[::-1] / 255 * 60 - 60
    expected = np.abs(posterior.mean[0]) / np.abs(posterior.mixture).max()
    expected_db = np.clip(20 * np.log10(expected), -60, 0)
    np.testing.assert_allclose(level_db, expected_db, atol=0.13)
    low, high = posterior.interval(0.9)
    band = unpack(charts["waveform"]["curves"][1])
    np.testing.assert_allclose(band, [low[0], high[0]], atol=1e-4)
    np.testing.assert_allclose(
        unpack(charts["trace"]["curves"][0])[0], posterior.trace["elbo"][:, 0], rtol=1e-3
    )
    json.dumps(list(charts.values()), allow_nan=False)


def test_without_draws_there_are_no_bands(posterior):
    bare = replace(posterior, speech=posterior.speech[:, :0])
    charts = {chart["id"]: chart for chart in make_charts(bare)}
    assert "level" not in charts and len(charts["waveform"]["curves"]) == 2
    assert charts["spectrograms"]["images"][2]["name"] == "posterior standard deviation"
    text = render_report(bare)
    assert len(Page(text).all("audio")) == 3
    assert "holds no waveform draws to listen to" in text


def test_with_video_there_is_the_gate(posterior):
    gate = np.full((1, 25, 1, 1, posterior.mean.shape[2]), 0.25)
    seen = replace(posterior, latents={**posterior.latents, "reliability": gate})
    [chart] = [chart for chart in make_charts(seen) if chart["id"] == "gate"]
    assert unpack(chart["curves"][0])[0] == pytest.approx(0.25)
    assert "Its mean is 0.25" in chart["text"]


def test_blocks_keep_the_mean():
    values = np.random.default_rng(0).normal(size=(7, 100))
    small = average_blocks(values, 7, 10)
    assert small.shape == (7, 10) and small.mean() == pytest.approx(values.mean())
    assert average_blocks(values, 7, 100) is values


# --- verdicts ------------------------------------------------------------------------------------


def test_what_fails_comes_first(posterior):
    fit = (replace(posterior.fit[0], warnings=("the sky fell",), k_hat=0.4),)
    doubted = replace(posterior, fit=fit)
    verdicts = judge_recording(doubted, diagnose(doubted), 0)
    assert (verdicts[0].status, verdicts[0].text) == ("failed", "the sky fell")
    found = {verdict.name: verdict.status for verdict in verdicts}
    assert found["k-hat"] == found["draws"] == "passed"
    assert found["predictive checks"] == "open"
    text = render_report(doubted)
    doubts = sum(verdict.status == "failed" for verdict in verdicts)
    assert ("One check gives" if doubts == 1 else f"{doubts} checks give") in text


def test_the_page_says_one_thing_of_convergence(posterior):
    def judge(one):
        verdicts = judge_recording(one, diagnose(one), 0)
        return {verdict.name: verdict for verdict in verdicts}

    # Eight steps at the whole rate: nobody can say. Many that are level: settled, whatever the
    # stopping rule made of it, which is of the whole batch and not shown.
    brief = judge(posterior)["convergence"]
    assert brief.status == "open" and "too few to see" in brief.text
    level = np.random.default_rng(0).normal(size=(80, 1))
    attrs = {**posterior.attrs, "converged": False}
    settled = replace(posterior, trace={"elbo": level}, attrs=attrs)
    assert judge(settled)["convergence"].status == "passed"
    assert "converged" not in render_report(settled)
    rising = replace(settled, trace={"elbo": level + 1e3 * np.arange(80)[:, None]})
    assert "convergence" not in judge(rising)
    assert "still rising" in judge(rising)["warning"].text


def test_one_is_no_plural(posterior):
    single = replace(posterior, speech=posterior.speech[:, :1])
    [text] = [v.text for v in judge_recording(single, diagnose(single), 0) if v.name == "draws"]
    assert text.startswith("With 1 waveform draw the bands")
    assert dict(list_settings(single))["waveform draws"] == "1 chain of 1"


def test_a_k_hat_that_is_too_large_does_not_pass(posterior):
    doubted = replace(posterior, fit=(replace(posterior.fit[0], k_hat=0.9),))
    names = [v.name for v in judge_recording(doubted, diagnose(doubted), 0)]
    assert "k-hat" not in names and "warning" in names


def test_suitability_is_told(posterior):
    def judge(ordinary, expected):
        from avse_ppl.evaluation.suitability import SuitabilityModel

        names = SuitabilityModel.load().classes
        scores = dict.fromkeys(names, (1 - ordinary) / (len(names) - 1))
        scores |= {"ordinary": ordinary, "expected_si_sdr_db": expected}
        one = replace(posterior, attrs={**posterior.attrs, "suitability": scores})
        return [v for v in judge_recording(one, diagnose(one), 0) if v.name == "suitability"]

    [good] = judge(0.98, 11.0)
    assert good.status == "passed" and "98%" in good.text and "11 dB" in good.text
    [bad] = judge(0.0001, 11.0)
    assert bad.status == "failed"


def test_chains_and_predictive_checks_have_verdicts():
    scene = Scene(GaussianSpeech(stft=STFT), known_noise)
    routine = NUTS(draws=8, warmup=4, chains=2, init="prior", max_tree_depth=1)
    posterior = routine(scene, waves(1, 1600), seed=0)
    diagnostics = diagnose(posterior, scene)
    verdicts = {v.name: v for v in judge_recording(posterior, diagnostics, 0)}
    assert verdicts["divergences"].status == "passed"
    assert any(name.startswith("predictive check, ") for name in verdicts)
    assert "predictive checks" not in verdicts
    charts = {chart["id"]: chart for chart in make_charts(posterior)}
    assert [c["name"] for c in charts["trace"]["curves"]] == ["chain 1", "chain 2"]


def test_what_is_far_from_all_that_the_models_produce_fails(posterior):
    check = DiscrepancyCheck(
        {"crest factor": 20.0, "kurtosis": 2.0, "level flux": 1.4},
        {"crest factor": np.linspace(10.0, 12.0, 50), "kurtosis": np.linspace(1.0, 3.0, 50),
         "level flux": np.linspace(0.0, 1.3, 50)},  # outside of all, and not far
    )  # fmt: skip
    verdicts = judge_recording(posterior, diagnose(posterior), 0, check)
    found = {one.name: one for one in verdicts if one.name.startswith("predictive check,")}
    assert {name.split(", ")[1]: one.status for name, one in found.items()} == {
        "crest factor": "failed", "kurtosis": "passed", "level flux": "passed"
    }  # fmt: skip
    text = found["predictive check, crest factor"].text
    assert "20 in the recording, 11 ± 0.59 in mixtures drawn from them" in text
    with pytest.raises(ValueError, match="expected discrepancies of 1 recordings, found those of"):
        render_report(posterior, discrepancies=[check, check])


def test_progress_is_told(posterior):
    told = []
    render_report(posterior, progress=lambda step, steps: told.append((step, steps)))
    assert told == [(1, 2), (2, 2)]


def test_a_posterior_without_latents_says_what_it_lacks(posterior):
    bare = replace(posterior, latents={})
    text = {one.name: one.text for one in judge_recording(bare, diagnose(bare), 0)}
    assert "cannot be: the file has no latents" in text["predictive checks"]


def test_every_reservation_of_the_kind_is_explained():
    kind = Approximation("Langevin", "point estimate", 0.5, True, True, True, True)
    texts = explain_kind(kind)
    assert len(texts) == 7
    assert [text.split(":")[0] for text in texts[2:]] == [
        "Amortised prior", "Pooled with a predictor", "Tempered 0.5", "Ended early", "Recalibrated",
    ]  # fmt: skip
    assert explain_kind(Approximation("exact")) == [
        "Exact: computed to numerical precision, given the models."
    ]
