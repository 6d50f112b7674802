"""``avse-ppl summarise``: from a posterior's file and a table of words to a table of means."""

from __future__ import annotations

import csv
import json
import re

import h5py
import pytest

from avse_ppl import SVI, Exact, GaussianSpeech, Scene, stationary
from avse_ppl.posterior.segment_table import COLUMNS
from tests.helpers import STFT, error_of, known_noise, run_cli, waves


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("summarise")
    scene = Scene(GaussianSpeech(stft=STFT, gain_sd_db=0.0), known_noise)
    Exact(draws=20)(scene, waves(1, 3200)[0], seed=0).save(place / "p.nc")
    SVI(steps=3, draws=20)(
        Scene(GaussianSpeech(stft=STFT), stationary), list(waves(2, 3200)), seed=0
    ).save(place / "two.nc")
    (place / "words.csv").write_text("name,start_s,end_s\nbin,0.02,0.08\nblue,0.1,0.2\n")
    return place


def test_a_table_of_words(folder, tmp_path):
    done = run_cli("summarise", folder / "p.nc", "--segments", folder / "words.csv")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[0] == "segment" and len(lines) == 7
    assert "recording" not in lines[0] and lines[1].split()[:5] == [
        "bin", "0.020", "0.080", "level,", "dB",
    ]  # fmt: skip
    out = tmp_path / "table.csv"
    done = run_cli(
        "summarise", folder / "p.nc", "--segments", folder / "words.csv", "-o", out,
        "--functional", "exceeds(-3)", "--functional", "level(500-4000)", "--interval", "hdi",
    )  # fmt: skip
    assert (done.exit_code, done.stdout) == (0, f"{out}: 4 rows, posterior exact\n"), done.stderr
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and [row["functional"] for row in rows[:2]] == [
        "exceeds(-3)",
        "level(500-4000)",
    ]
    assert float(rows[1]["low"]) < float(rows[1]["mean"]) < float(rows[1]["high"])


def test_several_recordings_have_a_column(folder):
    words = ["summarise", folder / "two.nc", "--segments", folder / "words.csv"]
    done = run_cli(*words, "--functional", "level")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["recording", *"0011"]
    report = json.loads(run_cli(*words, "--json").stdout)
    assert len(report["rows"]) == 12 and report["rows"][6]["recording"] == 1
    assert report["probability"] == 0.9 and report["warnings"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.nc", "--segments", "words.csv"], "no posterior at"),
        (["p.nc", "--segments", "none.csv"], "no table of segments at"),
        (["p.nc", "--segments", "empty.csv"], "it holds no segments; add some"),
        (["p.nc", "--segments", "long.csv"], "not within recording 0, which is 0.2 s long"),
        (["p.nc", "--segments", "twice.csv"], "overlap; those of one tier"),
        (["old.nc", "--segments", "words.csv"], "avse_ppl_format is 7, this version .* reads 1"),
        (["bare.nc", "--segments", "words.csv"], "holds 0 waveform draws; .* --draws 50"),
        (["p.nc", "--segments", "words.csv", "--functional", "loud"], "no functional 'loud'"),
        (["p.nc", "--segments", "words.csv", "-o", "out.txt"], "a name ending in .csv"),
        (["p.nc", "--segments", "words.csv", "-o", "words.csv"], "would overwrite an input"),
        (["p.nc", "--segments", "words.csv", "--probability", "90"], "between 0 and 1, not 90"),
        (["p.nc", "--segments", "words.csv", "--recalibrate"], "no recalibration is shipped for"),
        (["p.nc", "--segments", "words.csv", "--tier", "w"], "no segments of the tier 'w'"),
    ],
)
def test_refusals_are_one_line(folder, monkeypatch, words, said):
    monkeypatch.chdir(folder)
    (folder / "empty.csv").write_text("name,start_s,end_s\n")
    (folder / "long.csv").write_text("name,start_s,end_s\na,0.1,20\n")
    (folder / "twice.csv").write_text("name,start_s,end_s\na,0.1,0.2\nb,0.15,0.2\n")
    (folder / "old.nc").write_bytes((folder / "p.nc").read_bytes())
    with h5py.File(folder / "old.nc", "r+") as file:
        file.attrs["avse_ppl_format"] = 7
    scene = Scene(GaussianSpeech(stft=STFT, gain_sd_db=0.0), known_noise)
    Exact(draws=2, waveforms=False)(scene, waves(1, 3200)[0], seed=0).save(folder / "bare.nc")
    assert re.search(said, error_of(run_cli("summarise", *words)))
