"""From containers to mouth crops, with drawn faces that a colour detector finds."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from avse_ppl.signal.audio import Audio
from avse_ppl.video import estimate_offset, read_lips
from avse_ppl.video.face_detector import Face
from avse_ppl.video.frames import read_video_frames
from avse_ppl.video.mouth_alignment import MEAN_FACE

COLOURS = [(0, 0, 255), (0, 255, 0), (255, 0, 0), (0, 255, 255), (255, 0, 255)]
SIZE_PX = (240, 200)
CLIP = "examples/data/speech.mkv"


def draw(canvas: np.ndarray, centre: tuple[float, float], opened: float = 0.0) -> np.ndarray:
    """Draw a face: a texture, a dark mouth, and a dot of its own colour at each keypoint."""
    texture = np.random.default_rng(1).integers(90, 160, (12, 12), dtype=np.uint8)
    texture = cv2.resize(texture, (110, 130), interpolation=cv2.INTER_CUBIC)
    move = np.array([[1.0, 0.0, centre[0] - 55], [0.0, 1.0, centre[1] - 65]])
    size = canvas.shape[1::-1]
    face = cv2.warpAffine(texture, move, size)
    shape = cv2.warpAffine(np.full_like(texture, 255), move, size)
    canvas = np.where(shape[..., None] > 127, face[..., None], canvas)
    points = MEAN_FACE - [44.0, 10.0] + centre
    low = points[3:].mean(axis=0)
    cv2.ellipse(
        canvas, (int(low[0]), int(low[1])), (14, 1 + int(9 * opened)), 0, 0, 360, (20,) * 3, -1
    )
    for point, colour in zip(points, COLOURS, strict=True):
        cv2.circle(canvas, (round(point[0] * 16), round(point[1] * 16)), 56, colour, -1, shift=4)
    return canvas.astype(np.uint8)


def find_colours(picture: np.ndarray, size_px: int) -> list[Face]:
    """Find drawn faces by their dots, from left to right."""
    rows = []
    for colour in COLOURS:
        low, high = np.array(colour) - 70.0, np.array(colour) + 70.0
        mask = cv2.inRange(picture, low, high)
        n_blobs, _, stats, middles = cv2.connectedComponentsWithStats(mask)
        blobs = [middles[n] for n in range(1, n_blobs) if stats[n, cv2.CC_STAT_AREA] >= 4]
        rows.append(sorted(blobs, key=lambda middle: middle[0]))
    faces = min(len(row) for row in rows)
    return [Face(0.9, np.array([row[number] for row in rows])) for number in range(faces)]


def blank() -> np.ndarray:
    return np.full((SIZE_PX[1], SIZE_PX[0], 3), 60, np.uint8)


def moving(n_frames: int = 25) -> list[np.ndarray]:
    level = np.abs(np.sin(np.arange(n_frames) * 0.9))
    return [draw(blank(), (100 + row, 90), level[row]) for row in range(n_frames)]


def write(
    path: Path,
    frames: list[np.ndarray],
    *,
    rate: int = 25,
    times_s: np.ndarray | None = None,
    samples: np.ndarray | None = None,
) -> Path:
    with av.open(path, "w") as container:
        track = container.add_stream("ffv1", rate=rate)
        track.height, track.width = frames[0].shape[:2]
        track.pix_fmt = "bgr0"
        track.codec_context.time_base = Fraction(1, 1000)
        sound = (
            container.add_stream("pcm_s16le", rate=16000, layout="mono")
            if samples is not None
            else None
        )
        for row, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="bgr24")
            time_s = row / rate if times_s is None else times_s[row]
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            container.mux(track.encode(frame))
        container.mux(track.encode())
        if sound is not None and samples is not None:
            block = av.AudioFrame.from_ndarray(
                (samples * 32767).astype(np.int16)[None], format="s16", layout="mono"
            )
            block.sample_rate, block.pts = 16000, 0
            container.mux(sound.encode(block))
            container.mux(sound.encode())
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("video") / "plain.mkv", moving())


def test_every_picture_of_a_face_is_found(plain):
    told: list[tuple[int, int]] = []
    lips = read_lips(plain, face_model=find_colours, progress=lambda *step: told.append(step))
    assert lips.found.all() and not lips.interpolated.any()
    truth = MEAN_FACE - [44.0, 10.0] + np.stack([100 + np.arange(25), np.full(25, 90)], -1)[:, None]
    off = np.abs(lips.keypoints - truth)
    assert off.mean() < 0.5 and off.max() < 3.0  # the corners of the mouth are pulled by its motion
    assert lips.time_s == pytest.approx(np.arange(25) / 25)
    assert lips.score.min() == pytest.approx(0.9)
    assert np.abs(lips.pose_deg).max() < 8
    assert lips.blur.min() > 0
    assert lips.name == "plain.mkv"
    assert told == [(row, 25) for row in range(1, 26)]


def test_crops_do_not_jitter(plain):
    lips = read_lips(plain, face_model=find_colours)
    corner = lips.roi[:, 38:48, 14:26].astype(int)  # around a corner of the mouth, which is fixed
    assert np.abs(np.diff(corner, axis=0)).mean() < 4


def test_bytes_are_read_like_files(plain):
    lips = read_lips(plain.read_bytes(), face_model=find_colours)
    assert lips.found.all() and lips.name == ""


@pytest.mark.parametrize("turns", [1, 2])
def test_a_face_lying_or_upside_down_comes_out_upright(tmp_path, plain, turns):
    frames = [np.rot90(frame, turns) for frame in moving(10)]
    lips = read_lips(write(tmp_path / "t.mkv", frames), face_model=find_colours)
    upright = read_lips(plain, face_model=find_colours)
    assert np.abs(lips.roi[5].astype(int) - upright.roi[5]).mean() < 6
    assert abs(abs(lips.pose_deg[5, 2]) - 90 * turns) < 5


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    path = tmp_path / "t.mkv"
    with av.open(path, "w") as container:
        track = container.add_stream("libx264", rate=25)
        track.width, track.height, track.pix_fmt = 120, 200, "yuv420p"
        track.codec_context.sample_aspect_ratio = Fraction(2, 1)
        frame = av.VideoFrame.from_ndarray(cv2.resize(moving(1)[0], (120, 200)), format="bgr24")
        container.mux(track.encode(frame))
        container.mux(track.encode())
    picture = next(read_video_frames(path))
    assert picture.size_px == SIZE_PX
    assert np.abs(picture.grey().astype(int) - cv2.cvtColor(moving(1)[0], 6)).mean() < 10


def test_variable_rate_keeps_its_times(tmp_path):
    times_s = np.cumsum(np.tile([0.02, 0.1, 0.04], 9))[:25]
    path = write(tmp_path / "t.mkv", moving(), times_s=times_s)
    lips = read_lips(path, face_model=find_colours)
    assert lips.time_s == pytest.approx(times_s - times_s[0], abs=2e-3)
    assert lips.found.all()


def test_a_short_gap_is_bridged_and_a_long_one_is_lost(tmp_path):
    frames = moving(60)
    for row in [*range(10, 16), *range(30, 52)]:
        frames[row] = blank()
    path = write(tmp_path / "t.mkv", frames)
    with pytest.warns(UserWarning, match="the face was lost in 2. of the 60 pictures"):
        lips = read_lips(path, face_model=find_colours)
    assert lips.found[8:18].all() and lips.interpolated[10:16].all()
    assert not lips.found[33:50].any() and lips.found[54:].all()
    assert not lips.pose_confidence[lips.interpolated].any()
    assert not lips.score[~lips.found].any() and not lips.roi[~lips.found].any()
    assert np.isnan(lips.keypoints[~lips.found]).all()


def two_faces(path: Path, samples: np.ndarray | None, level: np.ndarray) -> Path:
    other = np.abs(np.sin(np.arange(len(level)) * 0.37))
    frames = []
    for row in range(len(level)):
        canvas = np.full((200, 480, 3), 60, np.uint8)
        frames.append(draw(draw(canvas, (110, 90), other[row]), (350, 90), level[row]))
    return write(path, frames, samples=samples)


def speech_like(n_frames: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    level = np.repeat(rng.random(n_frames // 3 + 1), 3)[:n_frames]
    envelope = np.interp(np.arange(n_frames * 640) / 640, np.arange(n_frames), level)
    return level, 0.3 * envelope**2 * rng.normal(size=len(envelope)).clip(-3, 3)


def test_the_face_that_moves_with_the_sound_is_taken(tmp_path):
    level, samples = speech_like(60)
    path = two_faces(tmp_path / "two.mkv", samples, level)
    with pytest.warns(UserWarning, match="2 faces in two.mkv; took number 1 from the left"):
        lips = read_lips(path, face_model=find_colours)
    assert lips.keypoints[0, 2, 0] > 240
    offset_s, _ = estimate_offset(lips, Audio(samples, 16000))
    assert abs(offset_s) < 0.06


def test_a_face_is_chosen_by_number_or_by_size(tmp_path):
    path = two_faces(tmp_path / "two.mkv", None, speech_like(12)[0])
    assert read_lips(path, face_model=find_colours, face=1).keypoints[0, 2, 0] > 240
    assert read_lips(path, face_model=find_colours, face=0).keypoints[0, 2, 0] < 240
    assert read_lips(path, face_model=find_colours, face="largest").found.all()
    with pytest.raises(ValueError, match=r"expected face 2 .* found 2 faces"):
        read_lips(path, face_model=find_colours, face=2)
    with pytest.warns(UserWarning, match="the largest: there is no sound"):
        read_lips(path, face_model=find_colours)


@pytest.mark.parametrize("face", [True, 1.5, None])
def test_a_face_that_is_no_choice_is_refused(face):
    with pytest.raises(TypeError, match="expected face to be a number"):
        read_lips(CLIP, face_model=find_colours, face=face)


@pytest.mark.parametrize("face", [-1, "left"])
def test_a_face_that_cannot_be_is_refused(face):
    with pytest.raises(ValueError, match="expected face to be a number"):
        read_lips(CLIP, face_model=find_colours, face=face)


def test_a_video_without_face_is_refused(tmp_path):
    path = write(tmp_path / "t.mkv", [blank()] * 5)
    with pytest.raises(ValueError, match=r"found no face in any of its 5 pictures"):
        read_lips(path, face_model=find_colours)


@pytest.mark.parametrize("n_frames", [1, 10])
def test_a_still_image_is_told(tmp_path, n_frames):
    path = write(tmp_path / "t.mkv", moving(1) * n_frames)
    with pytest.warns(UserWarning, match="still image"):
        assert len(read_lips(path, face_model=find_colours)) == n_frames


def test_frontal_crops_of_a_frontal_face_are_alike(plain):
    crops = [
        read_lips(plain, face_model=find_colours, frontalise=frontalise).roi[12].astype(int)
        for frontalise in (False, True)
    ]
    assert np.abs(crops[0] - crops[1]).mean() < 12


@pytest.mark.parametrize("size", [67, 88, 96])
def test_a_video_of_mouth_crops_needs_no_weights(tmp_path, monkeypatch, size):
    monkeypatch.setenv("AVSE_PPL_FACE_MODEL", "/nowhere")
    frames = [np.full((size, size, 3), 90 + 10 * row, np.uint8) for row in range(5)]
    lips = read_lips(write(tmp_path / "t.mkv", frames, rate=30))
    assert lips.roi.shape == (5, 88, 88)
    assert lips.time_s == pytest.approx(np.arange(5) / 30, abs=1e-3)
