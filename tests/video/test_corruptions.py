"""Corruptions of mouth crops: their truth, their columns, and videos made with them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avse_ppl.signal.audio import load_audio
from avse_ppl.video import Lips, read_lips
from avse_ppl.video.corruptions import (
    CAUSES,
    KINDS,
    corrupt,
    corruption_kinds,
    label_clean_clip,
    mouth_weight,
)
from avse_ppl.video.corruptions.compositing import composite_crop, make_placement
from avse_ppl.video.corruptions.video import corrupt_video, find_span
from avse_ppl.video.mouth_alignment import MEAN_FACE

MOUTH = Path(__file__).parents[2] / "examples" / "data" / "mouth.mkv"


@pytest.fixture(scope="module")
def mouth():
    """A real clip, 75 frames of crops."""
    return read_lips(MOUTH)


@pytest.fixture(scope="module")
def other(mouth):
    """Another clip: the same backwards and mirrored."""
    return Lips.from_crops(mouth.roi[::-1, :, ::-1], rate_hz=25)


def tracked(lips):
    """The clip with a pose, as if tracked."""
    return replace(lips, pose_deg=np.full((len(lips), 3), 2.0), pose_confidence=np.ones(len(lips)))


@pytest.mark.parametrize("kind", corruption_kinds())
def test_one_seed_one_result_and_only_the_span_changes(mouth, other, kind):
    first, again = (
        corrupt(mouth, kind, severity=0.8, span=(20, 40), seed=3, donor=other) for _ in range(2)
    )
    assert np.array_equal(first.lips.roi, again.lips.roi)
    assert np.array_equal(first.reliability, again.reliability)
    outside = np.r_[0:20, 40:75]
    assert np.array_equal(first.lips.roi[outside], mouth.roi[outside])
    assert (first.reliability[outside] == 1).all()
    assert not np.array_equal(first.lips.roi[20:40], mouth.roi[20:40])
    assert ((first.reliability >= 0) & (first.reliability <= 1)).all()
    assert first.reliability[20:40].mean() < 0.9
    assert set(first.cause) <= set(CAUSES)


@pytest.mark.parametrize("kind", corruption_kinds())
def test_reliability_never_rises_with_severity(mouth, other, kind):
    means = [
        corrupt(mouth, kind, severity=s, seed=5, donor=other).reliability.mean()
        for s in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert (np.diff(means) <= 1e-9).all(), means


@pytest.mark.parametrize("kind", ["hand", "patch", "bar", "microphone", "item", "scarf"])
def test_reliability_is_what_is_left_to_see_of_the_mouth(mouth, kind):
    known = corrupt(mouth, kind, severity=0.7, seed=1)
    touched = known.lips.roi != mouth.roi
    hidden = (touched * mouth_weight()).sum(axis=(1, 2))
    # A touched pixel at an edge is partly seen, one that happens to be as light is not counted.
    assert np.abs(known.reliability - (1 - hidden)).max() < 0.15
    assert set(known.cause[known.reliability < 0.9]) == {"occluded"}


def test_time_is_corrupted_as_said(mouth, other):
    frozen = corrupt(mouth, "freeze", span=(10, 30), severity=1.0)
    assert (frozen.lips.roi[10:30] == mouth.roi[9]).all()
    late = corrupt(mouth, "shift", severity=0.0, seed=0).lips.roi
    assert any(np.array_equal(late[10:60], mouth.roi[10 + k : 60 + k]) for k in (-5, 5))
    swapped = corrupt(mouth, "other-speaker", donor=other, seed=0).lips.roi
    assert any(np.array_equal(swapped[0], crop) for crop in other.roi)
    back = corrupt(mouth, "backwards", span=(0, 75))
    assert np.array_equal(back.lips.roi, mouth.roi[::-1])
    assert set(back.cause) == {"out of sync"}


def test_a_face_that_is_gone_is_gone_in_every_column(mouth):
    known = corrupt(tracked(mouth), "drop", span=(5, 10))
    lips = known.lips
    assert not lips.found[5:10].any()
    assert lips.found[10:].all()
    assert (lips.roi[5:10] == 0).all()
    assert (lips.score[5:10] == 0).all()
    assert np.isnan(lips.pose_deg[5:10]).all()
    assert (known.reliability[5:10] == 0).all()
    assert set(known.cause[5:10]) == {"missing"}


def test_columns_follow_the_picture(mouth):
    blurred = corrupt(tracked(mouth), "blur", severity=0.8, seed=2)
    assert (blurred.lips.blur < 0.3 * mouth.blur).all()
    turned = [corrupt(tracked(mouth), "yaw", severity=1.0, seed=s) for s in range(8)]
    yaws = [abs(float(one.lips.pose_deg[:, 0].mean())) for one in turned]
    assert max(yaws) > 60
    assert min(yaws) < 10  # a tracker does not always notice
    assert set(turned[0].cause) == {"extreme pose"}


def test_truth_before_any_corruption(mouth):
    turned = replace(mouth, pose_deg=np.tile([30.0, 0.0, 0.0], (len(mouth), 1)))
    known = label_clean_clip(turned)
    assert np.allclose(known.reliability, 1 / (1 + (30 / 45) ** 4))
    assert set(known.cause) == {"non-frontal"}
    twice = corrupt(corrupt(mouth, "blur", severity=0.4), "noise", severity=0.4)
    once = corrupt(mouth, "blur", severity=0.4)
    assert (twice.reliability < once.reliability).all()


def test_families_are_apart():
    trained, held_out = set(corruption_kinds("trained")), set(corruption_kinds("held out"))
    assert trained | held_out == set(KINDS)
    assert not trained & held_out
    for cause in set(CAUSES) - {"frontal", "extreme pose"}:
        assert any(KINDS[name].cause == cause for name in held_out), cause


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "hnad"}, "did you mean 'hand'"),
        ({"severity": 1.5}, "from 0 to 1"),
        ({"span": (10, 5)}, "ends after it starts"),
        ({"span": (0, 99)}, "within the 75 frames"),
        ({"kind": "other-speaker"}, "--with FILE"),
    ],
)
def test_bad_input_is_refused(mouth, settings, message):
    kind = settings.pop("kind", "hand")
    with pytest.raises(ValueError, match=message):
        corrupt(mouth, kind, **settings)


def test_a_video_holds_the_corruption_and_its_sound(mouth, tmp_path):
    made = corrupt_video(MOUTH, tmp_path / "a.mkv", "microphone", mouth, start_s=1.0, end_s=2.0)
    again = corrupt_video(MOUTH, tmp_path / "b.mkv", "microphone", mouth, start_s=1.0, end_s=2.0)
    assert made.path.read_bytes() == again.path.read_bytes()
    assert (made.start, made.stop) == (25, 50)
    seen = read_lips(made.path)
    assert np.allclose(seen.time_s, mouth.time_s, atol=1e-3)
    error = np.abs(seen.roi.astype(float) - made.known.lips.roi).mean(axis=(1, 2))
    assert error.max() < 12  # fine speckle is lost to the codec, and the border fades
    assert np.abs(seen.roi[25:50].astype(float) - mouth.roi[25:50]).mean() > 20
    before, after = load_audio(MOUTH), load_audio(made.path)
    assert np.array_equal(before.samples, after.samples)
    assert sorted(tmp_path.iterdir()) == [made.path, again.path]


@pytest.mark.parametrize("kind", ["freeze", "drop", "backwards", "other-speaker"])
def test_whole_pictures_are_exchanged(mouth, other, tmp_path, kind):
    pair = (MOUTH, mouth) if kind == "other-speaker" else None
    made = corrupt_video(MOUTH, tmp_path / "a.mp4", kind, mouth, start_s=1.0, other=pair)
    seen = read_lips_quietly(made.path)
    assert len(seen) == 75
    error = np.abs(seen.roi[25:].astype(float) - made.known.lips.roi[25:]).mean()
    assert error < (20 if kind == "drop" else 6)  # black, in limited range, is not quite 0


def read_lips_quietly(path):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return read_lips(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "drift"}, "mistake of the tracker"),
        ({"kind": "nothing"}, "unknown corruption"),
        ({"kind": "other-speaker"}, "--with FILE"),
        ({"severity": -1.0}, "from 0 to 1"),
        ({"start_s": 2.0, "end_s": 1.0}, "end after the start"),
        ({"start_s": 9.0, "end_s": 10.0}, "within the video"),
        ({"output": "a.txt"}, "ending in .mkv"),
    ],
)
def test_a_video_that_cannot_be_made_is_refused(mouth, tmp_path, settings, message):
    kind, output = settings.pop("kind", "hand"), tmp_path / settings.pop("output", "a.mkv")
    with pytest.raises(ValueError, match=message):
        corrupt_video(MOUTH, output, kind, mouth, **settings)
    assert not list(tmp_path.iterdir())


def test_spans_in_seconds(mouth):
    assert find_span(mouth, 0.0, None) == (0, 75)
    assert find_span(mouth, 0.04, 0.12) == (1, 3)


def test_paint_goes_where_the_crop_came_from(mouth):
    """Of a face twice as large, 100 pixels away, the mouth is painted there and nowhere else."""
    points = np.tile(2.0 * MEAN_FACE + [100.0, 60.0], (len(mouth), 1, 1))
    place = make_placement(replace(mouth, keypoints=points))(3, (400, 300))
    picture = np.full((300, 400, 3), 90, np.uint8)
    before = np.full((88, 88), 90, np.uint8)
    after = before.copy()
    after[40:48, 40:48] = 250
    painted = composite_crop(picture, before, after, place)
    rows, columns = np.nonzero(painted[..., 0] > 200)
    assert abs(rows.mean() - (2 * 43.5 + 60)) < 1.5
    assert abs(columns.mean() - (2 * 43.5 + 100)) < 1.5
    assert (painted[:60] == 90).all()
