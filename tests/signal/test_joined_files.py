"""Joined files: each recording is found, decoded by itself, and comes in its turn."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from avse_ppl.signal.audio import load_audio
from avse_ppl.signal.joined_files import search, split_joined
from tests.helpers import RATE_HZ

ID3 = b"ID3\4\0\0\0\0\0\x0a" + bytes(10)


def encode(file_format, seed=0, n_samples=8000, rate_hz=RATE_HZ, n_channels=1, **options):
    noise = np.random.default_rng(seed).standard_normal((n_samples + 8, n_channels)) / 10
    smooth = sum(noise[shift : shift + n_samples] for shift in range(9 - 1)) / 4
    buffer = io.BytesIO()
    soundfile.write(buffer, smooth, rate_hz, format=file_format, **options)
    return buffer.getvalue()


KINDS = [
    ("WAV", {"subtype": "PCM_16"}),
    ("WAV", {"subtype": "PCM_U8"}),
    ("WAV", {"subtype": "FLOAT"}),
    ("WAVEX", {"subtype": "PCM_24"}),
    ("RF64", {}),
    ("AIFF", {}),
    ("AU", {}),
    ("CAF", {}),
    ("W64", {}),
    ("NIST", {}),
    ("FLAC", {}),
    ("OGG", {}),
    ("OGG", {"subtype": "OPUS"}),
    ("MP3", {}),
]


@pytest.mark.parametrize(("file_format", "options"), KINDS)
@pytest.mark.parametrize("n_parts", [2, 3])
def test_all_parts_are_read(file_format, options, n_parts):
    parts = [encode(file_format, seed, 8000 + 100 * seed, **options) for seed in range(n_parts)]
    expected = np.concatenate([load_audio(part).samples for part in parts])
    assert len(expected) == sum(8000 + 100 * seed for seed in range(n_parts))
    with pytest.warns(UserWarning, match=f"is {n_parts} recordings joined end to end; all are"):
        audio = load_audio(b"".join(parts))
    assert audio.sample_rate_hz == RATE_HZ
    np.testing.assert_array_equal(audio.samples, expected)


@pytest.mark.parametrize(("file_format", "options"), KINDS)
def test_one_recording_is_left_as_it_is(file_format, options):
    handle = io.BytesIO(encode(file_format, **options))
    assert split_joined(handle) == [handle]


@pytest.mark.parametrize("file_format", ["FLAC", "MP3"])
@pytest.mark.parametrize("between", [ID3, b"TAG" + bytes(125), bytes(300)])
def test_tags_between_and_before_are_no_sound(file_format, between):
    one, other = encode(file_format, 0), encode(file_format, 1)
    expected = np.concatenate([load_audio(one).samples, load_audio(other).samples])
    with pytest.warns(UserWarning, match="2 recordings joined"):
        audio = load_audio(ID3 + one + between + other)
    np.testing.assert_array_equal(audio.samples, expected)


def test_codecs_of_ogg_may_differ():
    parts = [encode("OGG", 0), encode("OGG", 1, subtype="OPUS")]
    with pytest.warns(UserWarning, match="2 recordings joined"):
        audio = load_audio(b"".join(parts))
    assert audio.n_samples == 16000


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("change", [{"rate_hz": 8000}, {"n_channels": 2}])
def test_parts_of_different_kinds_are_refused(file_format, change):
    data = encode(file_format) + encode(file_format, **change)
    with pytest.raises(ValueError, match="2 recordings joined end to end, of different kinds"):
        load_audio(data)


@pytest.mark.parametrize("file_format", ["WAV", "AIFF", "OGG"])
def test_a_last_part_that_was_cut_is_refused(file_format):
    with pytest.raises(ValueError, match="cut short"):
        load_audio(encode(file_format) + encode(file_format)[:-1000])


def test_a_marker_within_samples_is_no_beginning():
    samples = np.zeros(2000, "int16")
    samples[100:106] = np.frombuffer(b"RIFF0000WAVE", "int16")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE_HZ, format="WAV", subtype="PCM_16")
    np.testing.assert_array_equal(load_audio(buffer.getvalue()).samples, samples / 2.0**15)


def test_recordings_written_to_a_pipe_are_told_apart():
    data = bytearray(encode("WAV", subtype="PCM_16"))
    at = data.index(b"data") + 4
    data[at : at + 4] = data[4:8] = b"\xff" * 4
    with pytest.warns(UserWarning, match="2 recordings joined"):
        audio = load_audio(2 * data)
    np.testing.assert_array_equal(audio.samples, np.tile(load_audio(data).samples, 2))


@pytest.mark.parametrize("size", [8, 11, 12, 13, 30, 1000])
def test_search_finds_what_lies_across_pieces(monkeypatch, size):
    import re

    from avse_ppl.signal import joined_files

    monkeypatch.setattr(joined_files, "_PIECE", size)
    data = b"12345678" + bytes(5) + b"12345678" + bytes(40) + b"12345678"
    assert list(search(io.BytesIO(data), re.compile(b"12345678"))) == [0, 13, 61]
    assert list(search(io.BytesIO(data), re.compile(b"12345678"), 14)) == [61]
