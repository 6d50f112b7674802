"""``avse-ppl report``: from a saved posterior to a page, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import xarray

from avse_ppl import SVI, GaussianSpeech, Scene, stationary
from tests.helpers import BUNDLED, STFT, error_of, run_cli, waves, write_recording


@pytest.fixture(scope="module")
def posterior():
    return SVI(steps=3, draws=4)(Scene(GaussianSpeech(stft=STFT), stationary), waves(2, 3200))


@pytest.fixture
def saved(posterior, tmp_path):
    return posterior.save(tmp_path / "p.nc")


def test_a_page_from_a_recording(tmp_path):
    write_recording(tmp_path / "street & <b>.wav", 0.5)
    options = ["--posterior", tmp_path / "p.nc", "--speech", "gaussian", "--draws", 5]
    noisy = tmp_path / "street & <b>.wav"
    made = run_cli("enhance", noisy, "-o", tmp_path / "out.wav", *options)
    assert made.exit_code == 0, made.stderr
    result = run_cli("report", tmp_path / "p.nc", "-o", tmp_path / "r.html")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{tmp_path / 'r.html'}: 1 recording, ")
    text = (tmp_path / "r.html").read_text("utf-8")
    assert "<h1>street &amp; &lt;b&gt;.wav</h1>" in text
    for told in ("version of avse-ppl", "version of torch", "real-time factor", "CPU time"):
        assert f">{told}</th>" in text
    assert str(tmp_path) not in text


def test_several_recordings_and_json(saved, tmp_path):
    result = run_cli("report", saved, "-o", tmp_path / "r.html", "--draws", 1, "--json")
    found = json.loads(result.stdout)
    assert found["recordings"] == 2 and found["draws"] == 1 and found["warnings"] == []
    assert found["megabytes"] == pytest.approx((tmp_path / "r.html").stat().st_size / 1e6, abs=0.01)
    text = (tmp_path / "r.html").read_text("utf-8")
    assert text.count("<audio ") == 8


def test_with_the_video_the_lips_are_shown(posterior, tmp_path):
    path = posterior.select(0).save(tmp_path / "one.nc")
    options = ["--video", BUNDLED / "mouth_in_red.mkv", "--video-offset", 0]
    result = run_cli("report", path, "-o", tmp_path / "r.html", *options)
    assert result.exit_code == 0, result.stderr
    text = (tmp_path / "r.html").read_text("utf-8")
    assert "Mean reliability of the lips: " in text and 'href="#lips"' in text
    assert "expected a video at" in error_of(
        run_cli("report", path, "-o", tmp_path / "r.html", "--video", tmp_path / "none.mkv")
    )


def test_with_the_models_there_are_predictive_checks(tmp_path):
    # Clicks in noise that the model takes for stationary.
    noisy = write_recording(tmp_path / "noisy.wav", 0.5)
    samples, rate_hz = soundfile.read(noisy)
    samples[2000::3000] = 0.9
    soundfile.write(noisy, samples, rate_hz)
    options = ["--speech", "gaussian", "--noise", "stationary"]
    made = run_cli("enhance", noisy, "-o", tmp_path / "out.wav", *options, "--posterior",
                   tmp_path / "p.nc", "--predictor", "none")  # fmt: skip
    assert made.exit_code == 0, made.stderr
    without = run_cli("report", tmp_path / "p.nc", "-o", tmp_path / "a.html")
    result = run_cli("report", tmp_path / "p.nc", "-o", tmp_path / "b.html", *options)
    assert (without.exit_code, result.exit_code, result.stderr) == (0, 0, "")
    text, checked = ((tmp_path / f"{name}.html").read_text("utf-8") for name in "ab")
    lacking = "of the models their names only: give them again, avse-ppl report with --noise"
    assert lacking in text and lacking not in checked
    assert "do not describe the recording in its crest factor: " in checked
    assert "do not describe" not in text and "predictive check, noise floor" in checked
    # What the file lacks, and models that it is not from.
    other = run_cli("report", tmp_path / "p.nc", "-o", tmp_path / "c.html", "--speech", "gaussian",
                    "--noise", "nmf")  # fmt: skip
    assert "the posterior holds ['noise.power'" in error_of(other)
    alone = run_cli("report", tmp_path / "p.nc", "-o", tmp_path / "c.html", "--predictor", "none")
    assert error_of(alone) == "--predictor conditions the models only; add --noise, and --speech"
    assert not (tmp_path / "c.html").exists()


def test_without_draws_it_says_so(posterior, tmp_path):
    bare = replace(posterior, speech=posterior.speech[:, :0])
    path = bare.save(tmp_path / "bare.nc")
    result = run_cli("report", path, "-o", tmp_path / "r.html", "--title", "bare & plain")
    assert result.exit_code == 0
    assert "holds no waveform draws" in result.stderr
    assert "<h1>bare &amp; plain</h1>" in (tmp_path / "r.html").read_text("utf-8")


def test_what_is_refused(saved, tmp_path):
    page = tmp_path / "r.html"
    assert f"no posterior at {tmp_path / 'none.nc'}" in error_of(
        run_cli("report", tmp_path / "none.nc", "-o", page)
    )
    (tmp_path / "text.nc").write_text("not a posterior")
    assert "is not a posterior saved by this library" in error_of(
        run_cli("report", tmp_path / "text.nc", "-o", page)
    )
    assert "ending in .html, .htm" in error_of(run_cli("report", saved, "-o", tmp_path / "r.txt"))
    assert "make the folder" in error_of(run_cli("report", saved, "-o", tmp_path / "no" / "r.html"))
    assert "probability must be between 0 and 1" in error_of(
        run_cli("report", saved, "-o", page, "--probability", 2)
    )
    folder = tmp_path / "folder.html"
    folder.mkdir()
    assert "it is a folder" in error_of(run_cli("report", saved, "-o", folder))
    assert not page.exists()


def test_a_posterior_of_another_version_is_refused(saved, tmp_path):
    with xarray.open_datatree(saved, engine="h5netcdf") as tree:
        tree.load()
    tree.attrs["avse_ppl_format"] = np.int64(99)
    tree.to_netcdf(tmp_path / "later.nc", engine="h5netcdf")
    text = error_of(run_cli("report", tmp_path / "later.nc", "-o", tmp_path / "r.html"))
    assert "avse_ppl_format is 99, this version of the library reads 1" in text
