"""Spans of recordings: the same samples as of the whole, each recording read once."""

from __future__ import annotations

import shutil
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
import soundfile

from avse_ppl import ComplexNormal, load_audio
from avse_ppl.pipeline import batching, jobs, spans
from avse_ppl.pipeline.enhance_files import enhance_files
from avse_ppl.pipeline.inputs import VideoOptions
from avse_ppl.pipeline.jobs import plan_manifest
from avse_ppl.pipeline.spans import SpanReader, cut_span
from avse_ppl.signal.sound_file import SeekableSound
from tests.helpers import BUNDLED, RATE_HZ, STFT

TIMES = [(0.0, 0.25), (0.5, 0.3), (0.1, 0.2), (0.7, None)]


def write_sound(path, subtype=None, channels=1, seconds=1.0):
    samples = 0.1 * np.random.default_rng(0).standard_normal((int(seconds * RATE_HZ), channels))
    soundfile.write(path, samples, RATE_HZ, subtype)
    return path


@pytest.fixture
def reads(monkeypatch):
    """Names of the functions that read a whole recording, one for each time."""
    called = []
    for name in ("load_audio", "observe"):
        true = getattr(spans, name)

        def count(source, *given, name=name, true=true, **settings):
            if not hasattr(source, "samples"):  # a file, and not what was cut out of one
                called.append(name)
            return true(source, *given, **settings)

        monkeypatch.setattr(spans, name, count)
    return called


def compare_spans(path, reader):
    """Read spans by the reader, and compare them with those of the whole recording."""
    whole = load_audio(path)
    for start_s, duration_s in TIMES:
        expected = cut_span(whole, start_s, duration_s).samples
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = reader.observe(path, STFT, start_s=start_s, duration_s=duration_s)
        # Infrasound is removed from what is observed, and nothing else.
        assert found.audio.samples.shape == expected.shape
        np.testing.assert_allclose(found.audio.samples, expected, atol=0.05)
        assert np.corrcoef(found.audio.samples.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("suffix", "subtype", "channels"),
    [(".wav", "PCM_16", 1), (".wav", "FLOAT", 2), (".wav", "PCM_24", 2), (".flac", "PCM_16", 1),
     (".flac", "PCM_24", 2), (".aiff", "PCM_16", 1), (".au", "PCM_16", 1)],
)  # fmt: skip
def test_samples_are_sought(tmp_path, reads, suffix, subtype, channels):
    path = write_sound(tmp_path / f"a{suffix}", subtype, channels)
    with SpanReader() as reader:
        compare_spans(path, reader)
        assert reads == []
        assert reader.held is not None and isinstance(reader.held.content, SeekableSound)
        exact = reader.held.content.read(4000, 9000)
    np.testing.assert_array_equal(exact, np.atleast_2d(load_audio(path).samples)[:, 4000:9000])


@pytest.mark.parametrize(
    ("suffix", "subtype"), [(".ogg", "VORBIS"), (".mp3", None), (".wav", "ULAW")]
)
def test_what_cannot_be_sought_is_decoded_once(tmp_path, reads, suffix, subtype):
    path = write_sound(tmp_path / f"a{suffix}", subtype)
    with SpanReader() as reader:
        compare_spans(path, reader)
    assert reads == ["load_audio"]


def test_another_recording_takes_the_place_of_the_one_that_is_held(tmp_path, reads):
    paths = [write_sound(tmp_path / f"{name}.ogg", "VORBIS") for name in "ab"]
    with SpanReader() as reader:
        for path in (*paths, paths[0]):
            reader.observe(path, STFT, start_s=0.1, duration_s=0.5)
    assert reads == ["load_audio"] * 3 and reader.held is None


def test_a_span_of_hours_takes_the_memory_of_the_span(tmp_path):
    path = tmp_path / "long.wav"
    n_bytes = 4 * 3600 * RATE_HZ * 2
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", n_bytes + 36, b"WAVE", b"fmt ", 16, 1, 1,
                         RATE_HZ, 2 * RATE_HZ, 2, 16, b"data", n_bytes)  # fmt: skip
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + n_bytes)
        file.seek(-RATE_HZ, 2)
        tone = 16384 * np.sin(np.arange(RATE_HZ // 2) / 5)
        file.write(tone.astype("<i2").tobytes())
    tracemalloc.start()
    with SpanReader() as reader:
        found = reader.observe(path, STFT, start_s=4 * 3600 - 1.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.audio.n_samples == RATE_HZ and found.audio.peak == pytest.approx(0.5, abs=0.05)
    assert peak < 10e6


def test_files_that_are_not_whole_are_refused(tmp_path):
    path = write_sound(tmp_path / "a.flac")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with SpanReader() as reader, pytest.raises(ValueError, match=r"a\.flac' is (damaged or )?cut"):
        reader.observe(path, STFT, start_s=0.8, duration_s=0.1)
    path = write_sound(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:20000])
    with SpanReader() as reader, pytest.raises(ValueError, match=r"a\.wav' is cut short"):
        reader.observe(path, STFT, start_s=0.1, duration_s=0.2)
    path.write_bytes(b"no sound")
    with SpanReader() as reader, pytest.raises(ValueError, match=r"a\.wav'"):
        reader.observe(path, STFT, start_s=0.1, duration_s=0.2)


def test_remarks_on_a_recording_come_with_each_of_its_spans(tmp_path):
    path = write_sound(tmp_path / "a.wav", "PCM_16")
    data = bytearray(path.read_bytes())
    data[40:44] = bytes(4)  # the length was never filled in
    path.write_bytes(data)
    with SpanReader() as reader:
        for _ in range(2):
            with pytest.warns(UserWarning, match="its length was never filled in"):
                found = reader.observe(path, STFT, start_s=0.1, duration_s=0.2)
            assert found.audio.n_samples == 3200


def test_values_that_are_no_sound_are_refused_in_a_span(tmp_path):
    samples = np.full(RATE_HZ, 0.1, "float32")
    samples[8000] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, "FLOAT")
    with SpanReader() as reader, pytest.raises(ValueError, match=r"finite samples in '.*a\.wav'"):
        reader.observe(tmp_path / "a.wav", STFT, start_s=0.4, duration_s=0.2)


def test_lips_of_spans_are_tracked_once_and_stay_in_time(reads):
    video = BUNDLED / "mouth.mkv"
    options = VideoOptions(offset_s=0.0)
    with SpanReader() as reader:
        cuts = [
            reader.observe(video, STFT, video, options, start_s=start_s, duration_s=0.4)
            for start_s in (0.0, 1.0, 0.6)
        ]
        whole = reader.held.content
    assert reads == ["observe"]
    for cut, start_s in zip(cuts, (0.0, 1.0, 0.6), strict=True):
        begin = round(start_s * RATE_HZ)
        np.testing.assert_array_equal(
            cut.audio.samples, whole.audio.samples[begin : begin + round(0.4 * RATE_HZ)]
        )
        np.testing.assert_allclose(cut.lips.time_s, whole.lips.time_s - start_s, atol=1e-9)


def test_the_cuts_of_a_corpus_are_read_once(tmp_path, reads, monkeypatch):
    for module in (batching, jobs):
        monkeypatch.setattr(module, "BATCH_S", 0.5)
    for name in "ab":
        write_sound(tmp_path / f"{name}.ogg", "VORBIS")
    write_sound(tmp_path / "c.ogg", "VORBIS", seconds=0.2)
    rows = ["audio,id,offset,duration", "c.ogg,whole,,"]
    rows += [f"{name}.ogg,{name}{i},{0.1 * i},{0.2 + 0.02 * i}" for i in range(6) for name in "ab"]
    (tmp_path / "m.csv").write_text("\n".join(rows))
    plan = plan_manifest(tmp_path / "m.csv", tmp_path / "out")
    settings = {"speech": "gaussian", "inference": "exact", "draws": 2, "device": "cpu"}
    outcomes = list(enhance_files(plan, noise=lambda frames: ComplexNormal(0.0, 0.5), **settings))
    assert [o.status for o in outcomes] == ["enhanced"] * 13
    assert outcomes[0].job.output.stem == "whole"
    assert reads == ["observe", "load_audio", "load_audio"]
    lengths = {o.job.output.stem: soundfile.info(o.job.output).frames for o in outcomes}
    assert lengths["a3"] == lengths["b3"] == round(0.26 * RATE_HZ)


def test_spans_of_a_video_in_a_manifest(tmp_path, reads):
    shutil.copy(BUNDLED / "mouth.mkv", tmp_path)
    rows = ["path,video,id,offset,duration"]
    rows += [f"mouth.mkv,mouth.mkv,cut{i},{0.5 * i},0.4" for i in range(3)]
    (tmp_path / "m.csv").write_text("\n".join(rows))
    plan = plan_manifest(tmp_path / "m.csv", tmp_path / "out", tmp_path / "nc")
    outcomes = list(
        enhance_files(
            plan, noise="stationary", draws=2, device="cpu", predictor="none", time_limit_s=2.0,
            video_options=VideoOptions(offset_s=0.0),
        )
    )  # fmt: skip
    assert [str(o.error or o.status) for o in outcomes] == ["enhanced"] * 3
    assert reads == ["observe"]
    assert {o.details["duration_s"] for o in outcomes} == {0.4}
