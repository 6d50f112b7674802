"""The decoded cache: what it holds, when it is built again, and what damage it notices."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

import avse_ppl.data.cache as cache_module
from avse_ppl.data import Clip, build_cache, decode, load_cache
from tests.helpers import RATE_HZ


def tone(path, freq_hz=440.0, seconds=0.5, rate_hz=RATE_HZ, channels=1, level=0.25):
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    samples = level * np.sin(2 * np.pi * freq_hz * time_s)
    soundfile.write(path, np.stack([samples] * channels, axis=1), rate_hz)
    return path


def speech(path, speaker="anna", split="train", **options):
    return Clip(tone(path, **options), "made_up", speaker, split)


@pytest.fixture
def clips(tmp_path):
    return [
        speech(tmp_path / "a.wav", seconds=0.5, freq_hz=300.0),
        speech(tmp_path / "b.flac", "bert", "dev", seconds=0.25, rate_hz=8000),
        Clip(tone(tmp_path / "c.wav", 20.0, seconds=0.75), "esc10", "", "train", "rain"),
    ]


def test_cache_holds_what_decode_returns(clips, tmp_path):
    cache = build_cache(clips, tmp_path / "out" / "all")
    assert len(cache) == 3
    assert cache.clips == tuple(clips)
    assert cache.duration_s == pytest.approx(1.5)
    assert cache.samples.dtype == np.float16
    assert isinstance(cache.samples, np.memmap)
    for i, clip in enumerate(clips):
        np.testing.assert_allclose(cache[i], decode(clip), rtol=2**-11, atol=2**-24)
        np.testing.assert_array_equal(
            cache[i], cache.samples[cache.offsets[i] : cache.offsets[i + 1]].astype(np.float32)
        )
    np.testing.assert_array_equal(cache[-1], cache[2])
    with pytest.raises(IndexError):
        cache[3]
    assert cache.indices("train").tolist() == [0, 2]
    assert cache.indices("dev").tolist() == [1]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["all.npy", "all.npz"]


def test_cache_can_be_loaded_again(clips, tmp_path):
    built = build_cache(clips, tmp_path / "all", sample_rate_hz=8000)
    loaded = load_cache(tmp_path / "all")
    assert loaded.sample_rate_hz == 8000
    assert loaded.clips == built.clips
    np.testing.assert_array_equal(loaded.samples, built.samples)
    with pytest.raises(ValueError, match="read-only"):
        loaded.samples[0] = 1.0


@pytest.fixture
def decoded_paths(monkeypatch):
    """Paths in the order in which the cache decodes them."""
    paths = []

    def counted(clip, *settings):
        paths.append(clip.path)
        return decode(clip, *settings)

    monkeypatch.setattr(cache_module, "decode", counted)
    return paths


def test_second_build_decodes_nothing(clips, tmp_path, decoded_paths):
    first = build_cache(clips, tmp_path / "all")
    assert decoded_paths == [clip.path for clip in clips]
    second = build_cache(clips, tmp_path / "all")
    assert len(decoded_paths) == 3
    np.testing.assert_array_equal(first.samples, second.samples)


@pytest.mark.parametrize("change", ["order", "split", "rate", "highpass", "size"])
def test_any_change_builds_again(clips, tmp_path, decoded_paths, change):
    build_cache(clips, tmp_path / "all")
    options = {}
    if change == "order":
        clips = clips[::-1]
    elif change == "split":
        clips[0] = Clip(clips[0].path, "made_up", "anna", "dev")
    elif change == "rate":
        options = {"sample_rate_hz": 8000}
    elif change == "highpass":
        options = {"highpass_hz": None}
    else:
        tone(clips[0].path, seconds=0.6)
    cache = build_cache(clips, tmp_path / "all", **options)
    assert len(decoded_paths) == 6
    assert cache.clips == tuple(clips)


def test_failed_build_leaves_the_old_cache(clips, tmp_path):
    build_cache(clips, tmp_path / "all")
    before = sorted(path.name for path in tmp_path.iterdir())
    clips[2].path.write_bytes(b"not audio at all")
    with pytest.raises(ValueError, match=r"c\.wav"):
        build_cache(clips, tmp_path / "all")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert len(load_cache(tmp_path / "all")) == 3


def test_build_rejects_bad_settings_before_decoding(clips, tmp_path, decoded_paths):
    with pytest.raises(ValueError, match="no clips to cache"):
        build_cache([], tmp_path / "all")
    with pytest.raises(ValueError, match="sample_rate_hz is 0"):
        build_cache(clips, tmp_path / "all", sample_rate_hz=0)
    for corner_hz in (0.0, -1.0, 8000.0, float("nan")):
        with pytest.raises(ValueError, match=r"highpass_hz is .* between 0 and 8000"):
            build_cache(clips, tmp_path / "all", highpass_hz=corner_hz)
    clips[1].path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*b\.flac"):
        build_cache(clips, tmp_path / "all")
    assert decoded_paths == []


def test_build_refuses_a_header_that_does_not_fit(clips, tmp_path, monkeypatch):
    def growing(file, header):
        file.write(b"x" * (128 + header["shape"][0]))

    monkeypatch.setattr(cache_module.np.lib.format, "write_array_header_1_0", growing)
    with pytest.raises(OSError, match="header of the sample file"):
        build_cache(clips, tmp_path / "all")
    assert not list(tmp_path.glob("*all*"))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_load_names_the_missing_file(clips, tmp_path, suffix):
    build_cache(clips, tmp_path / "all")
    (tmp_path / f"all{suffix}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"all\{suffix}.*build_cache"):
        load_cache(tmp_path / "all")


def test_load_refuses_files_that_do_not_belong_together(clips, tmp_path):
    build_cache(clips, tmp_path / "all")
    np.save(tmp_path / "all.npy", np.zeros(10, np.float16))
    with pytest.raises(ValueError, match=r"holds \(10,\) samples.*describes 24000"):
        load_cache(tmp_path / "all")


@pytest.mark.parametrize("damage", ["bytes", "empty", "other", "format"])
def test_a_damaged_index_is_refused_and_built_again(clips, tmp_path, damage):
    build_cache(clips, tmp_path / "all")
    index = tmp_path / "all.npz"
    if damage == "bytes":
        index.write_bytes(index.read_bytes()[:100])
    elif damage == "empty":
        index.write_bytes(b"")
    elif damage == "other":
        np.savez(index, something=np.zeros(3))
    else:
        with np.load(index) as old:
            columns = {**old, "format": np.array(999)}
        np.savez(index, **columns)
    with pytest.raises(ValueError, match="not a cache index of format"):
        load_cache(tmp_path / "all")
    assert len(build_cache(clips, tmp_path / "all")) == 3
