"""Features of a corpus computed once: what is kept, what is computed again, what is told."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import soundfile

import avse_ppl.video
import avse_ppl.video.face_detector
from avse_ppl.data import (
    Clip,
    FeatureSettings,
    build_cache,
    clip_features,
    decode,
    load_cache,
    load_lips,
    prepare,
)
from avse_ppl.data.cache import PER_FRAME
from avse_ppl.data.clip_features import name_audio_file, name_lips_file
from avse_ppl.video import Lips
from tests.helpers import RATE_HZ, ROOT


def sound(path, seconds=0.5, freq_hz=300.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    soundfile.write(path, 0.25 * np.sin(2 * np.pi * freq_hz * time_s), RATE_HZ)
    return path


def lips_of(level, frames=12, rate_hz=25.0):
    shapes = {name: (frames, *axes) for name, (axes, _) in PER_FRAME.items()}
    columns = {name: np.full(shape, level, PER_FRAME[name][1]) for name, shape in shapes.items()}
    columns |= {"found": np.ones(frames, bool), "interpolated": np.arange(frames) % 5 == 0}
    roi = (
        np.full((frames, 88, 88), level, np.uint8)
        + np.arange(frames, dtype=np.uint8)[:, None, None]
    )
    return Lips(roi=roi, time_s=np.arange(frames) / rate_hz, **columns)


@pytest.fixture
def reads(monkeypatch):
    """The videos that were read, in order; a video's name says how its crops look."""
    paths = []

    def read_lips(source, *, face_model=None, face="auto"):
        paths.append(source.name)
        if "blind" in source.name:
            raise ValueError(f"no face in {source}")
        if "late" in source.name:
            warnings.warn("the sound starts 200 ms after its pictures", UserWarning, stacklevel=2)
        rate_hz = 30.0 if "fast" in source.name else 25.0
        return lips_of(len(source.stem) * 10, frames=15 if rate_hz > 25 else 12, rate_hz=rate_hz)

    monkeypatch.setattr(avse_ppl.video, "read_lips", read_lips)
    monkeypatch.setattr(avse_ppl.video.face_detector, "find_face_model", lambda path: path)
    monkeypatch.setattr(avse_ppl.video.face_detector, "load_detector", lambda path: path)
    return paths


@pytest.fixture
def decoded(monkeypatch):
    """The clips that were decoded, in order."""
    names = []

    def counted(clip, *settings):
        names.append(clip.path.name)
        return decode(clip, *settings)

    monkeypatch.setattr(clip_features, "decode", counted)
    return names


@pytest.fixture
def clips(tmp_path):
    """Two clips with video, one without."""

    def clip(name, speaker, split, video=None, **options):
        return Clip(sound(tmp_path / f"{name}.wav", **options), "m", speaker, split, video=video)

    for name in ("a.mp4", "fast.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    return [
        clip("a", "anna", "train", video=tmp_path / "a.mp4"),
        clip("b", "bert", "dev", seconds=0.25),
        clip("c", "carl", "train", video=tmp_path / "fast.mp4", freq_hz=500.0),
    ]


def test_it_holds_what_decoding_and_reading_lips_return(clips, tmp_path, reads, decoded):
    prepared = prepare(clips, tmp_path / "out" / "all")
    assert decoded == ["a.wav", "b.wav", "c.wav"] and reads == ["a.mp4", "fast.mp4"]
    assert prepared.left_out == prepared.without_lips == prepared.remarks == ()
    for i, clip in enumerate(clips):
        np.testing.assert_allclose(prepared.speech[i], decode(clip), rtol=2**-11, atol=2**-24)
    lips = prepared.lips
    assert lips.clips == prepared.speech.clips == tuple(clips) and len(lips) == 3
    assert isinstance(lips.frames, np.memmap) and lips.frames.dtype == np.uint8
    assert lips.offsets.tolist() == [0, 12, 12, 24]
    assert (len(lips[0]), len(lips[-1])) == (12, 12)
    assert lips[0].roi[:, 0, 0].tolist() == list(range(10, 22))
    np.testing.assert_array_equal(lips[0].time_s, np.arange(12) / 25)
    assert lips.has_frames.tolist() == [True, False, True]
    with pytest.raises(ValueError, match=r"b\.wav has no mouth.*has_frames"):
        lips[1]
    # Frame k shows what was shown at k / 25 s: every sixth of 30 frames a second is left out.
    assert lips[2].roi[:, 0, 0].tolist() == [40 + round(k * 30 / 25 - 1e-6) for k in range(12)]
    with pytest.raises(IndexError):
        lips[3]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["all.lips.npy", "all.lips.npz", "all.npy", "all.npz", "all.pieces"]


def test_the_sound_is_the_cache_that_build_cache_makes(clips, tmp_path, reads):
    prepare(clips, tmp_path / "p")
    built = build_cache(clips, tmp_path / "b")
    np.testing.assert_array_equal(load_cache(tmp_path / "p").samples, built.samples)
    before = (tmp_path / "p.npy").stat().st_mtime_ns
    build_cache(clips, tmp_path / "p")
    assert (tmp_path / "p.npy").stat().st_mtime_ns == before


def test_a_second_time_nothing_is_computed(clips, tmp_path, reads, decoded):
    first = prepare(clips, tmp_path / "all")
    second = prepare(clips, tmp_path / "all")
    assert len(decoded) == 3 and len(reads) == 2
    np.testing.assert_array_equal(first.lips.frames, second.lips.frames)


def test_clip_features_may_be_removed_when_the_caches_are_there(clips, tmp_path, reads, decoded):
    prepare(clips, tmp_path / "all")
    for path in sorted((tmp_path / "all.pieces").rglob("*.npz")):
        path.unlink()
    assert len(prepare(clips, tmp_path / "all").speech) == 3
    assert len(decoded) == 3 and len(reads) == 2


def test_a_corpus_split_anew_is_not_read_again(clips, tmp_path, reads, decoded):
    prepare(clips, tmp_path / "all")
    moved = [dataclasses.replace(clip, speaker="x", split="test") for clip in clips[::-1]]
    prepared = prepare(moved, tmp_path / "all")
    assert len(decoded) == 3 and len(reads) == 2
    assert prepared.speech.clips == prepared.lips.clips == tuple(moved)
    assert prepared.lips.offsets.tolist() == [0, 12, 12, 24]
    assert prepared.speech.indices("test").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "sounds", "videos"),
    [("rate", 3, 0), ("highpass", 3, 0), ("face", 0, 2), ("no lips", 0, 0), ("size", 1, 1)],
)
def test_only_what_a_change_touches_is_computed(
    clips, tmp_path, reads, decoded, change, sounds, videos
):
    prepare(clips, tmp_path / "all")
    decoded.clear(), reads.clear()
    features = {
        "rate": FeatureSettings(sample_rate_hz=8000),
        "highpass": FeatureSettings(highpass_hz=None),
        "face": FeatureSettings(face="largest"),
        "no lips": FeatureSettings(lips=False),
        "size": FeatureSettings(),
    }[change]
    if change == "size":
        sound(clips[0].path, seconds=0.6)
    prepared = prepare(clips, tmp_path / "all", features)
    assert (len(decoded), len(reads)) == (sounds, videos)
    assert (prepared.lips is None) == (change == "no lips")


def test_another_face_model_reads_the_videos_again(clips, tmp_path, reads):
    for number, name in enumerate(("m.onnx", "other.onnx", "m.onnx")):
        (tmp_path / name).write_bytes(b"x" * len(name))
        prepare(clips, tmp_path / "all", FeatureSettings(face_model=str(tmp_path / name)))
        assert len(reads) == (2, 4, 4)[number]


def test_a_run_that_is_cut_off_goes_on(clips, tmp_path, reads, decoded, monkeypatch):
    stored = clip_features.store_features

    def until_c(path, arrays):
        if len(decoded) == 3:
            raise KeyboardInterrupt
        stored(path, arrays)

    monkeypatch.setattr(clip_features, "store_features", until_c)
    with pytest.raises(KeyboardInterrupt):
        prepare(clips, tmp_path / "all")
    monkeypatch.setattr(clip_features, "store_features", stored)
    prepare(clips, tmp_path / "all")
    assert decoded == ["a.wav", "b.wav", "c.wav", "c.wav"]
    assert reads == ["a.mp4", "fast.mp4"]


def test_unreadable_clips_are_listed_and_the_rest_is_prepared(clips, tmp_path, reads):
    clips[1].path.unlink()
    clips.append(Clip(tmp_path / "d.wav", "m", "dora", "train"))
    clips[3].path.write_bytes(b"not audio at all")
    blind = tmp_path / "blind.mp4"
    blind.touch()
    clips.append(Clip(sound(tmp_path / "e.wav"), "m", "emil", "dev", video=blind))
    for _ in range(2):
        prepared = prepare(clips, tmp_path / "all")
        assert [clip.path.name for clip, _ in prepared.left_out] == ["b.wav", "d.wav"]
        assert "copy the corpus again" in prepared.left_out[0][1]
        assert [(c.path.name, r) for c, r in prepared.without_lips] == [
            ("e.wav", f"no face in {blind}")
        ]
        assert [clip.path.name for clip in prepared.speech.clips] == ["a.wav", "c.wav", "e.wav"]
        assert prepared.lips.offsets.tolist() == [0, 12, 24, 24]
    # As soon as they can be read, they are there.
    sound(clips[1].path), sound(clips[3].path)
    assert len(prepare(clips, tmp_path / "all").speech) == 5


def test_a_missing_video_leaves_the_sound(clips, tmp_path, reads):
    clips[0].video.unlink()
    prepared = prepare(clips, tmp_path / "all")
    assert [clip.path.name for clip, _ in prepared.without_lips] == ["a.wav"]
    assert len(prepared.speech) == 3 and prepared.lips.has_frames.tolist() == [False, False, True]


def test_remarks_come_with_their_clip(clips, tmp_path, reads):
    clips[0] = dataclasses.replace(clips[0], video=tmp_path / "late.mp4")
    clips[0].video.touch()
    prepared = prepare(clips, tmp_path / "all")
    assert prepared.remarks == ((clips[0], "the sound starts 200 ms after its pictures"),)


def test_a_changed_video_is_read_again(clips, tmp_path, reads, decoded):
    prepare(clips, tmp_path / "all")
    clips[0].video.write_bytes(b"another video")
    prepare(clips, tmp_path / "all")
    assert reads == ["a.mp4", "fast.mp4", "a.mp4"] and len(decoded) == 3


def test_crops_of_the_corpus_are_taken(clips, tmp_path):
    crops = np.random.default_rng(0).integers(1, 255, (15, 67, 67)).astype(np.uint8)
    np.save(tmp_path / "a.npy", crops.reshape(15, -1))
    clip = dataclasses.replace(clips[0], video=None, roi=tmp_path / "a.npy")
    prepared = prepare([clip, clips[1]], tmp_path / "all")
    assert prepared.lips.offsets.tolist() == [0, 12, 12] and prepared.lips.found.all()


def test_paired_noisy_recordings_are_in_the_same_order(clips, tmp_path, reads):
    pairs = [
        dataclasses.replace(clip, noisy=sound(tmp_path / f"n{i}.wav", 0.25, 700.0), video=None)
        for i, clip in enumerate(clips)
    ]
    prepared = prepare(pairs, tmp_path / "all")
    assert prepared.lips is None and prepared.speech.clips == prepared.noisy.clips == tuple(pairs)
    np.testing.assert_allclose(
        prepared.noisy[2], decode(Clip(pairs[2].noisy, "", "x", "dev")), rtol=2**-11, atol=2**-24
    )
    pairs[1].noisy.unlink()
    prepared = prepare(pairs, tmp_path / "all")
    assert [clip.path.name for clip, _ in prepared.left_out] == ["b.wav"]
    assert len(prepared.speech) == len(prepared.noisy) == 2


def test_clips_come_back_with_all_they_have(tmp_path):
    clip = Clip(
        sound(tmp_path / "a.wav"), "m", "anna", "test", roi=tmp_path / "a.mat",
        noisy=sound(tmp_path / "n.wav"), transcript="مرحبا bin\nblue",
    )  # fmt: skip
    prepare([clip], tmp_path / "all")
    assert load_cache(tmp_path / "all").clips == (clip,)


@pytest.mark.parametrize("damaged", ["sound", "lips"])
def test_damaged_features_are_computed_again(clips, tmp_path, reads, decoded, damaged):
    prepare(clips, tmp_path / "all")
    folder, features = tmp_path / "all.pieces", FeatureSettings()
    piece = (name_audio_file if damaged == "sound" else name_lips_file)(folder, clips[0], features)
    piece.write_bytes(piece.read_bytes()[:200])
    (tmp_path / "all.npz").unlink(), (tmp_path / "all.lips.npz").unlink()
    prepared = prepare(clips, tmp_path / "all")
    assert (len(decoded), len(reads)) == ((4, 2) if damaged == "sound" else (3, 3))
    assert prepared.lips.offsets.tolist() == [0, 12, 12, 24]


def test_a_damaged_piece_whose_clip_is_gone(clips, tmp_path, reads, monkeypatch):
    prepare(clips, tmp_path / "all")
    piece = name_audio_file(tmp_path / "all.pieces", clips[1], FeatureSettings())
    piece.write_bytes(b"")
    (tmp_path / "all.npz").unlink()
    clips[1].path.write_bytes(b"x" * clips[1].path.stat().st_size)
    with pytest.raises(OSError, match=r"b\.wav.*prepare the corpus again"):
        prepare(clips, tmp_path / "all")


def test_sound_that_was_damaged_before_its_video_was_read(clips, tmp_path, reads):
    prepare(clips, tmp_path / "all", FeatureSettings(lips=False))
    name_audio_file(tmp_path / "all.pieces", clips[0], FeatureSettings()).write_bytes(b"x")
    outcome = clip_features.compute_clip_features(
        clips[0], tmp_path / "all.pieces", FeatureSettings()
    )
    assert "stored audio" in outcome.lips_error and "damaged" in outcome.lips_error


def test_bad_settings_are_refused_before_anything_is_read(clips, tmp_path, reads, decoded):
    with pytest.raises(ValueError, match="no clips"):
        prepare([], tmp_path / "all")
    with pytest.raises(ValueError, match="jobs is 0"):
        prepare(clips, tmp_path / "all", jobs=0)
    with pytest.raises(ValueError, match="highpass_hz is 9000"):
        prepare(clips, tmp_path / "all", FeatureSettings(highpass_hz=9000.0))
    assert decoded == []


def test_without_a_face_detector_nothing_is_read(clips, tmp_path, decoded, monkeypatch):
    def find(path):
        raise FileNotFoundError("no face detector")

    monkeypatch.setattr(avse_ppl.video.face_detector, "find_face_model", find)
    with pytest.raises(FileNotFoundError, match="no face detector"):
        prepare(clips, tmp_path / "all")
    assert decoded == []
    assert len(prepare(clips, tmp_path / "all", FeatureSettings(lips=False)).speech) == 3


def test_when_nothing_can_be_read(tmp_path):
    clip = Clip(tmp_path / "a.wav", "m", "anna", "train")
    with pytest.raises(ValueError, match=r"none of the 1 clips.*a\.wav: no .*a\.wav"):
        prepare([clip], tmp_path / "all")


def test_a_full_disk_is_no_fault_of_the_clip(clips, tmp_path, reads, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(clip_features.np, "savez", full)
    with pytest.raises(OSError, match=r"cannot write .*no space left"):
        prepare(clips, tmp_path / "all")
    assert not [path for path in (tmp_path / "all.pieces").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_side_by_side_gives_the_same(clips, tmp_path):
    silent = [dataclasses.replace(clip, video=None) for clip in clips]
    silent[1].path.write_bytes(b"not audio at all")
    alone = prepare(silent, tmp_path / "alone")
    beside = prepare(silent, tmp_path / "beside", jobs=2, progress=True)
    np.testing.assert_array_equal(alone.speech.samples, beside.speech.samples)
    assert alone.left_out == beside.left_out


def test_workers_get_every_clip(clips, tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    module = sys.modules["avse_ppl.data.prepare"]
    monkeypatch.setattr(module, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    silent = [dataclasses.replace(clip, video=None) for clip in clips]
    silent[1].path.write_bytes(b"not audio at all")
    prepared = prepare(silent, tmp_path / "all", jobs=2, progress=True)
    assert [clip.path.name for clip, _ in prepared.left_out] == ["b.wav"]
    assert len(prepared.speech) == 2


def test_a_killed_worker_is_told(clips, tmp_path, monkeypatch):
    class Pool:
        def __init__(self, *_):
            pass

        def map(self, *_):
            raise BrokenProcessPool("gone")

        def shutdown(self, **_):
            pass

    module = sys.modules["avse_ppl.data.prepare"]
    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
    with pytest.raises(OSError, match=r"killed.*fewer --jobs"):
        prepare([dataclasses.replace(c, video=None) for c in clips], tmp_path / "all", jobs=2)


# The mouths by themselves


@pytest.mark.parametrize("suffix", [".lips.npy", ".lips.npz"])
def test_load_names_the_missing_file(clips, tmp_path, reads, suffix):
    prepare(clips, tmp_path / "all")
    (tmp_path / f"all{suffix}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"all\{suffix}.*avse-ppl prepare"):
        load_lips(tmp_path / "all")


def test_load_refuses_files_that_do_not_belong_together(clips, tmp_path, reads):
    prepare(clips, tmp_path / "all")
    np.save(tmp_path / "all.lips.npy", np.zeros((3, 88, 88), np.uint8))
    with pytest.raises(ValueError, match=r"shape \(3, 88, 88\).*describes \(24, 88, 88\)"):
        load_lips(tmp_path / "all")
    (tmp_path / "all.lips.npz").write_bytes(b"none")
    with pytest.raises(ValueError, match="is not an index of mouth crops of format"):
        load_lips(tmp_path / "all")
    assert len(prepare(clips, tmp_path / "all").lips) == 3


def test_crops_of_another_size_are_refused(clips, tmp_path):
    from avse_ppl.data.cache import make_empty_lips_arrays, write_lips_cache

    odd = {**make_empty_lips_arrays(), "roi": np.zeros((2, 96, 96), np.uint8)}
    with pytest.raises(ValueError, match=r"\(2, 96, 96\); expected \(length, \*\(88, 88\)\)"):
        write_lips_cache(clips[:2], [make_empty_lips_arrays(), odd], tmp_path / "all", "")
    with pytest.raises(ValueError, match="no arrays"):
        write_lips_cache([], [], tmp_path / "all", "")
    assert not list(tmp_path.glob("*.lips*"))


def test_real_video_frame_by_frame(shared, tmp_path):
    from avse_ppl.data import read_grid
    from avse_ppl.video import read_lips

    model = shared / "models" / "face" / "scrfd_500m_kps.onnx"
    clip = read_grid(shared / "data" / "grid_unseen")[0]
    prepared = prepare([clip], tmp_path / "all", FeatureSettings(face_model=str(model)))
    lips, alone = prepared.lips[0], read_lips(clip.video, face_model=model)
    assert len(lips) == round(25 * prepared.speech.duration_s) and lips.found.all()
    np.testing.assert_array_equal(lips.roi, alone.roi[: len(lips)])
    np.testing.assert_allclose(lips.keypoints, alone.keypoints[: len(lips)])


WORKERS = """
import sys
from pathlib import Path
from avse_ppl.data import Clip, prepare

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    clips = [Clip(path, "made up", "a", "train") for path in sorted(folder.glob("*.wav"))]
    prepare(clips, folder / "out" / "cache", jobs=2)
"""


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(WORKERS)
    for i in range(300):
        soundfile.write(tmp_path / f"{i}.wav", np.full(480_000, 0.1), 16000)
    arguments = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, env=environment)
    try:
        while len(list(tmp_path.glob("out/cache.pieces/*/*.npz"))) < 5 and parent.poll() is None:
            time.sleep(0.05)
        listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    finally:
        parent.kill()
        parent.wait()
    assert len(listed) >= 2
    limit_s = time.monotonic() + 10
    while any(is_running(child) for child in listed):
        assert time.monotonic() < limit_s, "the workers outlive their parent"
        time.sleep(0.1)
