"""``avse-ppl reliability``, ``corrupt-video`` and ``train reliability``."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from avse_ppl.models.networks.reliability import ReliabilityNetwork
from avse_ppl.models.weights.io import save_reliability
from avse_ppl.signal.audio import load_audio
from tests.helpers import ROOT, run_cli

DETECTOR = ROOT.parent / "shared" / "models" / "face" / "scrfd_500m_kps.onnx"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Weights of a small network, of random numbers."""
    torch.manual_seed(0)
    network = ReliabilityNetwork(width=4, hidden=8, features=8, tower=4)
    return str(save_reliability(tmp_path_factory.mktemp("toy"), network, name="toy", card={}))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a mouth and a face, on a machine without a face detector."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AVSE_PPL_FACE_MODEL", raising=False)
    for name in ("mouth.mkv", "speech.mkv"):
        shutil.copy(ROOT / "examples" / "data" / name, tmp_path)
    return tmp_path


def test_a_video_is_judged(here, toy):
    result = run_cli(
        "reliability", "mouth.mkv", "--network", toy, "--csv", "a.csv", "--plot", "a.png"
    )
    assert result.exit_code == 0, result.stderr
    assert "of 75 frames are reliable" in result.stdout
    rows = list(csv.DictReader((here / "a.csv").read_text().splitlines()))
    assert len(rows) == 75
    assert all(0 <= float(row["score"]) <= 1 for row in rows)
    assert all(row["agreement"] for row in rows[8:-8])
    assert rows[0]["agreement"] == ""  # too near to the beginning to compare
    assert (here / "a.png").stat().st_size > 10_000


def test_as_json_with_another_sound_or_none(here, toy):
    soundfile.write("b.wav", load_audio("mouth.mkv").mono().samples, 16000)
    apart = run_cli("reliability", "mouth.mkv", "--audio", "b.wav", "--network", toy, "--json")
    own = run_cli("reliability", "mouth.mkv", "--network", toy, "--json")
    silent = run_cli("reliability", "mouth.mkv", "--no-audio", "--network", toy, "--json")
    apart, own, silent = (json.loads(result.stdout) for result in (apart, own, silent))
    scores = [[frame["score"] for frame in one["frames"]] for one in (apart, own, silent)]
    assert np.allclose(scores[0], scores[1], atol=1e-3)
    assert own["with_audio"]
    assert not silent["with_audio"]
    assert silent["frames"][0]["synchrony"] is None
    assert own["spans"][0]["start_s"] == 0


def test_a_video_without_sound_says_so(here, toy):
    import av

    with av.open("mute.mkv", "w") as made:
        track = made.add_stream("ffv1", rate=25)
        track.width, track.height, track.pix_fmt = 88, 88, "gray"
        for level in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((88, 88), 60 + level, np.uint8), "gray")
            made.mux(track.encode(frame))
        made.mux(track.encode(None))
    result = run_cli("reliability", "mute.mkv", "--network", toy)
    assert result.exit_code == 0, result.stderr
    assert "has no audio" in result.stderr
    assert "scored without audio" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.mkv"], "found nothing there"),
        (["speech.mkv"], "AVSE_PPL_FACE_MODEL"),
        (["mouth.mkv", "--csv", "a.txt"], "ending in .csv"),
        (["mouth.mkv", "--plot", "a.gif"], "ending in .png"),
        (["mouth.mkv", "--csv", "no/a.csv"], "make the folder"),
        (["mouth.mkv", "--face", "left"], "--face is 'left'"),
        (["mouth.mkv", "--audio", "mouth.mkv", "--no-audio"], "found both"),
        (["mouth.mkv", "--network", "tcvae"], "expected 'reliability'"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(here, arguments, message):
    result = run_cli("reliability", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("error:") == 1


def test_a_video_is_corrupted(here):
    command = ("corrupt-video", "mouth.mkv", "a.mkv", "--kind", "hand", "--start", 1, "--end", 2)
    result = run_cli(*command, "--seed", 3, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["first_frame"], told["end_frame"]) == (25, 50)
    assert len(told["reliability"]) == len(told["cause"]) == 75
    first = (here / "a.mkv").read_bytes()
    assert "hand in 25 of 75 frames" in run_cli(*command, "--seed", 3).stdout
    assert (here / "a.mkv").read_bytes() == first
    run_cli(*command, "--seed", 4)
    assert (here / "a.mkv").read_bytes() != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "hnad"], "did you mean 'hand'"),
        (["--kind", "hand", "--start", 2, "--end", 1], "--end after --start"),
        (["--kind", "hand", "--start", 5], "end after the start"),
        (["--kind", "hand", "--severity", 2], "from 0 to 1"),
        (["--kind", "zoom"], "mistake of the tracker"),
        (["--kind", "other-speaker"], "--with FILE"),
    ],
)
def test_what_cannot_be_corrupted_is_refused_in_one_line(here, arguments, message):
    result = run_cli("corrupt-video", "mouth.mkv", "a.mkv", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (here / "a.mkv").exists()


def test_the_input_stays(here):
    before = (here / "mouth.mkv").read_bytes()
    result = run_cli("corrupt-video", "mouth.mkv", "./mouth.mkv", "--kind", "hand")
    assert result.exit_code == 2
    assert "overwrite an input" in result.stderr
    assert (here / "mouth.mkv").read_bytes() == before


@pytest.mark.skipif(not DETECTOR.is_file(), reason="no face detector in ../shared")
def test_a_face_in_a_video_is_covered_and_noticed(here):
    settings = ("--face-model", DETECTOR)
    made = run_cli(
        "corrupt-video", "speech.mkv", "a.mkv", "--kind", "bar", "--severity", 1, "--start", 1,
        "--end", 2, *settings,
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    judged = json.loads(run_cli("reliability", "a.mkv", "--json", *settings).stdout)
    scores = np.array([frame["score"] for frame in judged["frames"]])
    assert scores[28:47].mean() < scores[np.r_[0:22, 55:75]].mean() - 0.2


def test_training_needs_its_materials(here):
    result = run_cli("train", "reliability", "-o", "out")
    assert result.exit_code == 2
    assert "--lips CACHE" in result.stderr
