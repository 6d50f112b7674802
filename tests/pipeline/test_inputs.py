"""Recordings and videos made ready for inference, each once."""

import sys
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr
import torch

import avse_ppl.video.quality.score
from avse_ppl import Audio, ComplexNormal, Exact, GaussianSpeech, Scene, Stft, compare, enhance
from avse_ppl.pipeline.enhance_files import enhance_files
from avse_ppl.pipeline.inputs import VideoOptions, has_video_stream, observe_all, prepare_lips
from avse_ppl.pipeline.jobs import plan_jobs
from avse_ppl.video import Lips
from tests.helpers import known_noise, run_cli

SOUND = Audio(np.random.default_rng(0).normal(size=16000).astype("float32"), 16000)


def louder_noise(frames):
    return ComplexNormal(0.0, 0.5)


def lips(frames=25):
    crops = np.random.default_rng(0).integers(0, 255, (frames, 88, 88)).astype("uint8")
    return Lips.from_crops(crops, rate_hz=25)


def test_a_stated_offset_is_corrected():
    assert prepare_lips(lips(), SOUND, VideoOptions(offset_s=0.2)).time_s[0] == pytest.approx(0.2)


def test_no_video_is_no_lips():
    assert prepare_lips(None, SOUND, VideoOptions()) is None
    assert [one.lips for one in observe_all([SOUND, SOUND], Stft())] == [None, None]


def test_an_estimated_offset_is_reported_or_corrected(monkeypatch):
    monkeypatch.setattr("avse_ppl.video.estimate_offset", lambda *_: (0.3, 0.9))
    with pytest.warns(UserWarning, match="300 ms later than the lips; correct it"):
        assert prepare_lips(lips(), SOUND, VideoOptions()).time_s[0] == 0.0
    with pytest.warns(UserWarning, match="300 ms later than the lips: corrected"):
        assert prepare_lips(lips(), SOUND, VideoOptions(offset_s="auto")).time_s[
            0
        ] == pytest.approx(0.3)


def test_an_offset_is_estimated_from_a_sound_that_does_not_cancel(monkeypatch):
    heard = []
    monkeypatch.setattr(
        "avse_ppl.video.estimate_offset", lambda _, audio: heard.append(audio) or (0.0, 0.0)
    )
    prepare_lips(lips(), Audio(np.stack([SOUND.samples, -SOUND.samples]), 16000), VideoOptions())
    np.testing.assert_array_equal(heard[0].samples, SOUND.samples)


@pytest.mark.parametrize("found", [(0.3, 0.1), (0.02, 0.9)])
def test_an_offset_that_is_small_or_unsure_is_not_spoken_of(monkeypatch, found):
    monkeypatch.setattr("avse_ppl.video.estimate_offset", lambda *_: found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepare_lips(lips(), SOUND, VideoOptions(offset_s="auto")).time_s[0] == 0.0


@pytest.mark.parametrize(
    ("frames", "text"), [(5, "the rest is enhanced audio-only"), (60, "the rest is cut")]
)
def test_other_lengths_are_said(frames, text):
    with pytest.warns(UserWarning, match=text):
        prepare_lips(lips(frames), SOUND, VideoOptions(offset_s=0.0))


def test_an_optional_video_may_fail(tmp_path):
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(b"no video at all")
    with pytest.raises(ValueError):
        prepare_lips(broken, SOUND, VideoOptions())
    with pytest.warns(UserWarning, match="left out and the recording enhanced audio-only"):
        assert prepare_lips(broken, SOUND, VideoOptions(optional=True)) is None
    assert not has_video_stream(broken)
    assert not has_video_stream(tmp_path / "absent.mkv")


def test_what_is_no_video_is_refused():
    with pytest.raises(ValueError, match="expected a video as a path"):
        prepare_lips(3.0, SOUND, VideoOptions())
    with pytest.raises(ValueError, match="1 videos for 2 recordings"):
        observe_all([SOUND, SOUND], Stft(), [None])
    with pytest.raises(ValueError, match="offset_s must be"):
        VideoOptions(offset_s="soon")


def test_a_clip_has_video_stream(shared):
    assert has_video_stream(next((shared / "data" / "grid_unseen").glob("*.mkv")))


# --- each once -----------------------------------------------------------------------------------


class AudioVisualPrior(GaussianSpeech):
    """A Gaussian prior that takes lips, and leaves them unused."""

    def visual_features(self, lips, frames):
        return torch.ones(2, frames.time)


@pytest.fixture
def calls(monkeypatch):
    """Number of calls of everything that loads, checks, resamples, tracks, scores or analyses."""
    counted = Counter()

    def count(owner, name, result=None):
        real = getattr(owner, name)

        def counting(*arguments, **settings):
            counted[name] += 1
            return real(*arguments, **settings) if result is None else result

        for module in [m for key, m in sys.modules.items() if key.startswith("avse_ppl")]:
            if vars(module).get(name) is real:
                monkeypatch.setattr(module, name, counting)
        monkeypatch.setattr(owner, name, counting)

    count(avse_ppl.signal.audio, "load_audio")
    count(avse_ppl.signal.audio, "check_audio")
    count(soxr, "resample")
    count(avse_ppl.video, "read_lips", lips(13))
    count(avse_ppl.video, "estimate_offset", (0.0, 0.0))
    scored = SimpleNamespace(time_s=np.arange(13) / 25, score=np.full(13, 0.5))
    count(avse_ppl.video.quality.score, "score_lips", scored)
    count(Stft, "analyse")
    return counted


PREPARATION = (
    "load_audio", "check_audio", "resample", "read_lips", "estimate_offset", "score_lips",
    "analyse",
)  # fmt: skip
ONCE = dict.fromkeys(PREPARATION, 1)
MODELS = {"speech": AudioVisualPrior(gain_sd_db=0.0)}


def record(path):
    """A quarter of a second at another rate than the prior's."""
    soundfile.write(path, 0.1 * SOUND.samples[:6000], 24000)
    return path


@pytest.mark.filterwarnings("ignore:resampled")
def test_enhance_prepares_every_input_once(tmp_path, calls):
    settings = {**MODELS, "noise": known_noise, "inference": Exact(draws=2)}
    enhance(record(tmp_path / "noisy.wav"), tmp_path / "face.mkv", **settings)
    assert calls == ONCE


def test_enhance_files_prepares_every_input_once(tmp_path, calls):
    plan = plan_jobs([record(tmp_path / "noisy.wav")], tmp_path / "out.wav", tmp_path / "out.nc")
    settings = {**MODELS, "noise": known_noise, "inference": Exact(draws=2)}
    (tmp_path / "face.mkv").touch()
    [outcome] = enhance_files(plan, video=tmp_path / "face.mkv", **settings)
    assert outcome.status == "enhanced", outcome.error
    assert calls == ONCE


@pytest.mark.filterwarnings("ignore:resampled")
def test_compare_prepares_every_input_once_for_all_models(tmp_path, calls):
    found = compare(
        record(tmp_path / "noisy.wav"), {"one": known_noise, "other": louder_noise},
        video=tmp_path / "face.mkv", reliability=["soft", "ungated"],
        inference=Exact(draws=100), draws=100, **MODELS,
    )  # fmt: skip
    assert len(found.models) == 4
    assert calls == ONCE


@pytest.mark.parametrize("frontalise", [True, False])
@pytest.mark.parametrize("name", ["enhance", "compare", "diagnose", "reliability"])
def test_frontalise_reaches_the_tracker(tmp_path, monkeypatch, name, frontalise):
    asked = []

    def read(video, **settings):
        asked.append(settings["frontalise"])
        raise ValueError("enough")

    monkeypatch.setattr(avse_ppl.video, "read_lips", read)
    monkeypatch.chdir(tmp_path)
    record("noisy.wav")
    Path("face.mkv").touch()
    prior = AudioVisualPrior(gain_sd_db=0.0)
    posterior = Exact(draws=1)(Scene(prior, known_noise), SOUND.samples)
    monkeypatch.setattr("avse_ppl.posterior.posterior.Posterior.load", lambda path: posterior)
    monkeypatch.setattr("avse_ppl.pipeline.inputs.resolve_speech", lambda *_, **__: prior)
    options = {
        "enhance": ("noisy.wav", "-o", "out.wav", "--video", "face.mkv"),
        "compare": ("noisy.wav", "--noise", "nmf", "stationary", "--video", "face.mkv"),
        "diagnose": ("p.nc", "--noise", "nmf", "--video", "face.mkv"),
        "reliability": ("face.mkv", "--no-audio"),
    }[name]
    result = run_cli(name, *options, *(["--frontalise"] if frontalise else []))
    assert asked == [frontalise], result.stderr
