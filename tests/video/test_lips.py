"""Mouth crops over time: what they hold, resampling by time stamps, ready-made ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avse_ppl.plotting import plot_tracking
from avse_ppl.video import Lips


def lips_of(n_frames: int = 50, rate_hz: float = 25.0) -> Lips:
    """Crops whose grey level is the number of the frame plus 10."""
    levels = np.arange(n_frames, dtype=np.uint8)[:, None, None] + 10
    return Lips.from_crops(np.tile(levels, (1, 88, 88)), rate_hz)


def levels(lips: Lips) -> list[int]:
    return lips.roi[:, 0, 0].tolist()


@pytest.mark.parametrize("size", [67, 88, 96])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("scale", [255, 1.0])
def test_ready_made_crops_are_accepted(size, channels, scale):
    crops = np.ones((4, size, size, *channels)) * scale
    lips = Lips.from_crops(crops.astype(np.uint8) if scale == 255 else crops, 30)
    assert lips.roi.shape == (4, 88, 88)
    assert np.all(lips.roi == 255)
    assert lips.time_s == pytest.approx(np.arange(4) / 30)


def test_of_larger_crops_the_centre_is_taken():
    crops = np.zeros((1, 96, 96), np.uint8)
    crops[0, 4, 4] = 200
    assert Lips.from_crops(crops, 25).roi[0, 0, 0] == 200


def test_a_black_crop_is_not_found():
    crops = np.full((3, 88, 88), 90, np.uint8)
    crops[1] = 0
    lips = Lips.from_crops(crops, 25)
    assert lips.found.tolist() == [True, False, True]
    assert lips.score.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        (np.zeros((5, 64, 64), np.uint8), "size 67, 88, 96, found"),
        (np.zeros((0, 88, 88), np.uint8), "found"),
        (np.zeros((5, 88, 96), np.uint8), "found"),
        (np.zeros((5, 88, 88, 2), np.uint8), "found"),
        (np.zeros((5, 88, 88), np.int64), "int64"),
        (np.full((5, 88, 88), 1.5), "values from 1.5 to 1.5"),
        (np.full((5, 88, 88), np.nan), "values from nan"),
    ],
)
def test_other_crops_are_refused(crops, message):
    with pytest.raises(ValueError, match=message):
        Lips.from_crops(crops, 25)


@pytest.mark.parametrize("rate_hz", [0.0, np.nan, 1000.0])
def test_an_impossible_rate_of_crops_is_refused(rate_hz):
    with pytest.raises(ValueError, match="1 to 240 crops"):
        Lips.from_crops(np.zeros((5, 88, 88), np.uint8), rate_hz)


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"expected score of shape \(50,\)"):
        replace(lips_of(), score=np.zeros(3))


def test_times_must_grow():
    lips = lips_of()
    with pytest.raises(ValueError, match="times that grow"):
        replace(lips, time_s=lips.time_s[::-1])


def test_the_same_rate_gives_the_same_frames():
    assert levels(lips_of().resample(25)) == levels(lips_of())


def test_a_faster_video_gives_the_nearest_frames():
    lips = lips_of(60, 30).resample(25)
    assert len(lips) == 50
    assert levels(lips)[:6] == [10, 11, 12, 14, 15, 16]


def test_a_slow_video_is_blended():
    lips = lips_of(10, 5).resample(25)
    assert len(lips) == 50
    assert levels(lips)[:11] == [10] * 3 + [11] * 5 + [12] * 3
    assert lips.found.all()
    assert lips.interpolated.sum() == 0


def test_a_longer_sound_leaves_the_rest_not_found():
    lips = lips_of(50).resample(25, duration_s=3.0)
    assert len(lips) == 75
    assert lips.found.sum() == 50
    assert not lips.roi[50:].any()
    assert np.isnan(lips.pose_deg[50:]).all()


def test_a_shorter_sound_cuts():
    assert len(lips_of(50).resample(25, duration_s=0.5)) == 12


def test_variable_rate_follows_the_time_stamps():
    lips = lips_of(4)
    lips = replace(lips, time_s=np.array([0.0, 0.04, 0.2, 0.24]))
    resampled = lips.resample(25)
    assert levels(resampled) == [10, 11, 11, 11, 12, 12, 13]
    assert not resampled.interpolated[[0, 1, 5, 6]].any()


def test_a_frozen_picture_is_marked_then_not_found():
    lips = replace(lips_of(4), time_s=np.array([0.0, 0.04, 0.08, 2.0]))
    resampled = lips.resample(25)
    assert resampled.interpolated[6]
    assert not resampled.found[25]
    assert resampled.found[-1]


@pytest.mark.parametrize(("rate_hz", "duration_s"), [(0.0, None), (-1.0, None), (25.0, 0.0)])
def test_resampling_to_nothing_is_refused(rate_hz, duration_s):
    with pytest.raises(ValueError, match="expected"):
        lips_of().resample(rate_hz, duration_s)


def test_shifting_moves_the_times():
    shifted = lips_of().shifted(-0.08).resample(25, duration_s=2.0)
    assert levels(shifted)[:3] == [12, 13, 14]
    assert shifted.found.sum() == 48


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_the_picture_is_written_whole(tmp_path: Path, suffix):
    lips = lips_of(30)
    found = np.arange(30) % 10 != 3
    lips = replace(lips, found=found, interpolated=~found, name="speech.mkv")
    path = plot_tracking(lips, tmp_path / f"lips{suffix}")
    assert path.stat().st_size > 5000
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_picture_of_another_kind_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="ending in"):
        plot_tracking(lips_of(5), tmp_path / "lips.gif")


def test_a_picture_into_nowhere_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="make the folder"):
        plot_tracking(lips_of(5), tmp_path / "nowhere" / "lips.png")
