"""``avse-ppl enhance`` with video."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from avse_ppl.audio import load_audio
from avse_ppl.cli import app
from avse_ppl.models.networks import DynamicNetwork, LipsNetwork
from avse_ppl.models.weights import save_lips, save_weights
from avse_ppl.posterior import Posterior
from avse_ppl.stft import Stft

DATA = Path(__file__).parents[2] / "examples" / "data"
SIZES = {"latent": 2, "hidden": 8, "encoder_hidden": 8, "blocks": 1, "encoder_blocks": 1}
SETTINGS = {**SIZES, "visual": 3, "prior": "visual", "sight_hidden": 4}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Weights of a small prior that sees, of random numbers."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "toy"
    network = DynamicNetwork(513, **SETTINGS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_weights(folder, network, "dynamic", SETTINGS, Stft(), name="toy", card={}, lips="lips")
    save_lips(folder / "lips", LipsNetwork(3, 4), name="lips", card={})
    return str(folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a mouth, a face and a sound, on a machine without a face detector."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AVSE_PPL_FACE_MODEL", raising=False)
    for name in ("mouth.mkv", "speech.mkv", "speech.flac"):
        shutil.copy(DATA / name, tmp_path)
    return tmp_path


def enhance(*arguments):
    return CliRunner().invoke(app, ["enhance", *arguments])


def samples(path):
    return soundfile.read(path)[0]


def test_a_video_is_heard_and_seen(here, toy):
    result = enhance("mouth.mkv", "-o", "a.wav", "--speech", toy, "--show-lips", "lips.png")
    assert result.exit_code == 0, result.stderr
    assert (here / "lips.png").stat().st_size > 1000
    soundfile.write("sound.wav", load_audio("mouth.mkv").mono().samples, 16000)
    assert enhance("sound.wav", "-o", "b.wav", "--speech", toy).exit_code == 0
    assert not np.allclose(samples("a.wav"), samples("b.wav"), atol=1e-4)
    apart = enhance("sound.wav", "-o", "c.wav", "--speech", toy, "--video", "mouth.mkv")
    assert apart.exit_code == 0
    assert np.allclose(samples("a.wav"), samples("c.wav"), atol=1e-4)


def test_how_far_the_video_is_believed_is_a_choice(here, toy):
    soundfile.write("sound.wav", load_audio("mouth.mkv").mono().samples, 16000)
    given = ["--speech", toy, "--seed", "3"]
    for name in ("never", "always", "markov"):
        posterior = ["--posterior", f"{name}.nc"]
        found = enhance("mouth.mkv", "-o", f"{name}.wav", "--reliability", name, *given, *posterior)
        assert found.exit_code == 0, found.stderr
    assert enhance("sound.wav", "-o", "heard.wav", *given).exit_code == 0
    assert np.allclose(samples("never.wav"), samples("heard.wav"), atol=1e-6)
    assert not np.allclose(samples("always.wav"), samples("heard.wav"), atol=1e-4)
    gate = Posterior.load("markov.nc").reliability
    assert gate is not None
    assert 0.0 <= gate.min() <= gate.max() <= 1.0


def test_without_a_detector_it_says_how_to_get_one_or_goes_on_by_ear(here, toy):
    result = enhance("speech.mkv", "-o", "e.wav", "--speech", toy)
    assert result.exit_code == 2
    assert "AVSE_PPL_FACE_MODEL" in result.stderr
    assert not (here / "e.wav").exists()
    result = enhance("speech.mkv", "-o", "e.wav", "--speech", toy, "--video-optional", "--json")
    assert result.exit_code == 0
    said = json.loads(result.stdout)["files"][0]["warnings"]
    assert any("sound enhanced alone" in text for text in said)


def test_a_prior_without_eyes_hears_a_video(here):
    options = ("--speech", "gaussian", "--noise", "stationary")
    assert enhance("speech.mkv", "-o", "e.wav", *options).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("speech.flac", "--video", "face.mp4"), "expected a video at 'face.mp4'"),
        (("speech.flac", "--video", "mouth.mkv", "--speech", "gaussian"), "audio-only and would"),
        (("speech.flac", "--show-lips", "l.png"), "needs a single recording with video"),
        (("mouth.mkv", "--show-lips", "l.jpg"), "expected a name ending in .png"),
        (("mouth.mkv", "--video-offset", "soon"), "a number of seconds or 'auto'"),
        (("mouth.mkv", "--reliability", "blindly"), "unknown model of reliability 'blindly'"),
    ],
)
def test_refusals(here, toy, arguments, text):
    given = arguments if "--speech" in arguments else (*arguments, "--speech", toy)
    result = enhance(*given, "-o", "e.wav")
    assert result.exit_code == 2
    assert text in " ".join(result.stderr.split())
    assert not (here / "e.wav").exists()


def test_one_video_is_not_for_two_recordings(here, toy):
    result = enhance("mouth.mkv", "speech.flac", "-o", "out", "--video", "mouth.mkv")
    assert result.exit_code == 2
    assert "one video for 2 recordings" in " ".join(result.stderr.split())


def test_several_videos_and_sounds_together(here, toy):
    result = enhance("mouth.mkv", "speech.flac", "-o", "out", "--speech", toy)
    assert result.exit_code == 0, result.stderr
    assert sorted(p.name for p in (here / "out").glob("*.wav")) == ["mouth.wav", "speech.wav"]
