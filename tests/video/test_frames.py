"""Files and weights: what is missing, damaged or something else, and real clips."""

from __future__ import annotations

import io
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from avse_ppl.signal.audio import Audio
from avse_ppl.video import Lips, estimate_offset, find_face_model, load_detector, read_lips
from avse_ppl.video.face_detector import Face
from avse_ppl.video.frames import VideoFrame, count_video_frames, read_video_frames

CLIP = "examples/data/speech.mkv"


def nobody(picture: np.ndarray, size_px: int) -> list[Face]:
    return []


def test_sound_alone_is_refused():
    with pytest.raises(ValueError, match="found no video track"):
        read_lips("examples/data/speech.flac", face_model=nobody)


def test_what_is_no_container_is_refused():
    with pytest.raises(ValueError, match="expected video in the bytes given, found none"):
        read_lips(b"no video at all" * 100, face_model=nobody)


def test_a_missing_file_is_told():
    with pytest.raises(FileNotFoundError, match="found nothing there"):
        read_lips("nowhere.mkv", face_model=nobody)


def test_damaged_pictures_are_left_out():
    data = bytearray(Path(CLIP).read_bytes())
    for place in np.random.default_rng(0).integers(40_000, len(data) - 5000, 40):
        data[place] ^= 255
    with pytest.warns(UserWarning, match="damaged|cut short"):
        times = [picture.time_s for picture in read_video_frames(bytes(data))]
    assert 10 < len(times) < 75
    assert np.all(np.diff(times) > 0)


def test_a_video_cut_short_is_told():
    data = Path(CLIP).read_bytes()
    with pytest.warns(UserWarning, match=r"cut short: it promises 3.0. s"):
        assert 5 < len(list(read_video_frames(data[: len(data) // 2]))) < 70


def test_a_video_whose_pictures_are_all_damaged_is_refused():
    data = bytearray(Path(CLIP).read_bytes())
    data[1000:] = bytes(len(data) - 1000)  # after the headers
    with pytest.raises(ValueError, match="damaged"):
        list(read_video_frames(bytes(data)))


def test_pictures_turned_by_the_container_are_turned_back():
    class Turned:
        width, height, rotation = 4, 2, 90

        def reformat(self, **_):
            return self

        def to_ndarray(self):
            return np.arange(8, dtype=np.uint8).reshape(2, 4)

    picture = VideoFrame(0, 0.0, Turned())  # pyright: ignore[reportArgumentType]
    assert picture.size_px == (2, 4)
    assert picture.grey().tolist() == [[3, 7], [2, 6], [1, 5], [0, 4]]


def test_pictures_are_counted():
    assert count_video_frames(CLIP) == len(list(read_video_frames(CLIP))) == 75


def test_missing_weights_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.delenv("AVSE_PPL_FACE_MODEL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"insightface fetches them.*AVSE_PPL_FACE_MODEL"):
        read_lips(CLIP)


def test_weights_are_looked_for_in_order(monkeypatch, tmp_path):
    pack = tmp_path / ".insightface" / "models" / "buffalo_s"
    pack.mkdir(parents=True)
    (pack / "det_500m.onnx").touch()
    (tmp_path / "own.onnx").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AVSE_PPL_FACE_MODEL", raising=False)
    assert find_face_model() == pack / "det_500m.onnx"
    monkeypatch.setenv("AVSE_PPL_FACE_MODEL", str(tmp_path / "own.onnx"))
    assert find_face_model() == tmp_path / "own.onnx"
    assert find_face_model(pack) == pack / "det_500m.onnx"


def test_weights_of_something_else_are_refused(tmp_path):
    import onnx

    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ValueError, match="expected an SCRFD face detector"):
        load_detector(tmp_path / "text.onnx")
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])), tmp_path / "e.onnx"
    )
    with pytest.raises(ValueError, match="found 0 outputs"):
        load_detector(tmp_path / "e.onnx")


def test_missing_insightface_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "insightface.model_zoo.scrfd", None)
    with pytest.raises(ModuleNotFoundError, match=r"avse-ppl\[video\]"):
        load_detector(tmp_path / "any.onnx")


def test_too_little_to_compare_is_refused():
    lips = Lips.from_crops(np.full((10, 88, 88), 90, np.uint8), 25)
    with pytest.raises(ValueError, match=r"expected 1.0 s or more of lips and sound"):
        estimate_offset(lips, Audio(np.zeros(16000), 16000))


def test_real_clips(shared):
    detector = load_detector(find_face_model(shared / "models/face/scrfd_500m_kps.onnx"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("grid_unseen/brbk7n.mkv", "lrw_ar/00139.mp4"):
            lips = read_lips(shared / "data" / name, face_model=detector)
            assert lips.found.all() and not lips.interpolated.any()
            assert lips.score.min() > 0.5 and lips.pose_confidence.min() > 0.4


# --- tracks, clocks, errors in reading ------------------------------------------------------------


def write_video(path, shades=(100,), times=range(25), sizes=(64,), default=0):
    """Write video tracks, each of one shade and size; times in frames of 25 a second."""
    with av.open(str(path), "w") as out:
        tracks = []
        for number, size in enumerate(sizes):
            track = out.add_stream("mpeg4", rate=25)
            track.width = track.height = size
            track.pix_fmt = "yuv420p"
            track.disposition = Disposition.default if number == default else Disposition(0)
            tracks.append(track)
        for track, shade, size in zip(tracks, shades, sizes, strict=True):
            for index in times:
                frame = av.VideoFrame.from_ndarray(np.full((size, size, 3), shade, np.uint8))
                frame.pts = index
                out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return path


def test_the_default_video_track_is_taken_and_told(tmp_path):
    path = write_video(tmp_path / "a.mkv", (40, 200), sizes=(64, 128), default=1)
    text = (
        r"2 video tracks in .*: 0 \(64x64\), 1 \(128x128\); took number 1, flagged as the default"
    )
    with pytest.warns(UserWarning, match=text + r".*track="):
        assert next(read_video_frames(path)).size_px == (128, 128)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = next(read_video_frames(path, track=0))
        assert first.size_px == (64, 64) and abs(first.grey().mean() - 40) < 5
        assert next(read_video_frames(path, quiet=True)).size_px == (128, 128)
        assert count_video_frames(path, track=0) == 25
    with pytest.raises(ValueError, match=r"expected video track 2 \(from 0\) in .*, found 2"):
        next(read_video_frames(path, track=2))


def test_a_track_of_ready_made_crops_is_chosen(tmp_path):
    path = write_video(tmp_path / "a.mkv", (40, 200), sizes=(88, 128), default=1)
    with pytest.warns(UserWarning, match="nothing moves"):
        lips = read_lips(path, track=0)
    assert lips.roi.shape == (25, 88, 88)


def test_frames_with_an_implausible_gap_are_refused(tmp_path):
    path = write_video(tmp_path / "a.mkv", times=[*range(10), *range(1_000_000, 1_000_010)])
    with pytest.raises(ValueError, match=r"shows nothing from 0 s to 40000 s.*cannot be right"):
        list(read_video_frames(path))


def test_frames_with_a_pause_keep_their_times(tmp_path):
    path = write_video(tmp_path / "a.mkv", times=[*range(10), *range(500, 510)])
    times = [frame.time_s for frame in read_video_frames(path)]
    np.testing.assert_allclose(times, np.array([*range(10), *range(500, 510)]) / 25, atol=1e-3)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_what_reading_raises_is_raised(monkeypatch, error):
    data = Path(CLIP).read_bytes()

    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > len(data) // 2:
                raise error
            return super().read(size)

    @contextmanager
    def open_broken(source):
        yield Broken(data), "'clip.mkv'"

    monkeypatch.setattr("avse_ppl.video.frames.open_media", open_broken)
    seen = []
    with pytest.raises(type(error)) as caught:
        seen.extend(frame.index for frame in read_video_frames(CLIP))
    assert "clip.mkv" in str(caught.value) or isinstance(error, KeyboardInterrupt)
