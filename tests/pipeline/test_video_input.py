"""From the video of a recording to lips in time with it."""

import warnings

import numpy as np
import pytest

from avse_ppl import Audio
from avse_ppl.pipeline.video_input import Viewing, has_pictures, watch, watch_all
from avse_ppl.video import Lips

SOUND = Audio(np.random.default_rng(0).normal(size=16000).astype("float32"), 16000)


def lips(frames=25):
    crops = np.random.default_rng(0).integers(0, 255, (frames, 88, 88)).astype("uint8")
    return Lips.from_crops(crops, rate_hz=25)


def test_a_stated_offset_is_corrected():
    assert watch(lips(), SOUND, Viewing(offset_s=0.2)).time_s[0] == pytest.approx(0.2)


def test_no_video_is_no_lips():
    assert watch(None, SOUND, Viewing()) is None
    assert watch_all(None, [SOUND, SOUND], Viewing()) == [None, None]


def test_an_estimated_offset_is_reported_or_corrected(monkeypatch):
    monkeypatch.setattr("avse_ppl.video.estimate_offset", lambda *_: (0.3, 0.9))
    with pytest.warns(UserWarning, match="300 ms later than the lips; correct it"):
        assert watch(lips(), SOUND, Viewing()).time_s[0] == 0.0
    with pytest.warns(UserWarning, match="300 ms later than the lips: corrected"):
        assert watch(lips(), SOUND, Viewing(offset_s="auto")).time_s[0] == pytest.approx(0.3)


@pytest.mark.parametrize("found", [(0.3, 0.1), (0.02, 0.9)])
def test_an_offset_that_is_small_or_unsure_is_not_spoken_of(monkeypatch, found):
    monkeypatch.setattr("avse_ppl.video.estimate_offset", lambda *_: found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert watch(lips(), SOUND, Viewing(offset_s="auto")).time_s[0] == 0.0


@pytest.mark.parametrize(("frames", "text"), [(5, "enhanced by ear"), (60, "cut off")])
def test_other_lengths_are_said(frames, text):
    with pytest.warns(UserWarning, match=text):
        watch(lips(frames), SOUND, Viewing(offset_s=0.0))


def test_an_optional_video_may_fail(tmp_path):
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(b"no video at all")
    with pytest.raises(ValueError):
        watch(broken, SOUND, Viewing())
    with pytest.warns(UserWarning, match="left out and the sound enhanced alone"):
        assert watch(broken, SOUND, Viewing(optional=True)) is None
    assert not has_pictures(broken)
    assert not has_pictures(tmp_path / "absent.mkv")


def test_what_is_no_video_is_refused():
    with pytest.raises(ValueError, match="expected a video as a path"):
        watch(3.0, SOUND, Viewing())
    with pytest.raises(ValueError, match="1 videos for 2 recordings"):
        watch_all([None], [SOUND, SOUND], Viewing())
    with pytest.raises(ValueError, match="offset_s must be"):
        Viewing(offset_s="soon")


def test_a_clip_has_pictures(shared):
    assert has_pictures(next((shared / "data" / "grid_unseen").glob("*.mkv")))
