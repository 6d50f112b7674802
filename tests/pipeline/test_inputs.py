"""From the video of a recording to lips in time with it."""

import warnings

import numpy as np
import pytest

from avse_ppl import Audio, Stft
from avse_ppl.pipeline.inputs import VideoOptions, has_video_stream, observe_all, prepare_lips
from avse_ppl.video import Lips

SOUND = Audio(np.random.default_rng(0).normal(size=16000).astype("float32"), 16000)


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
