"""Frames of MPEG audio, against what FFmpeg's demuxer finds."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from avse_ppl.signal.audio import load_audio
from avse_ppl.signal.mpeg import is_mpeg, measure_id3, parse_frame, split_mpeg

RATES_HZ = [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000]


def encode(rate_hz, n_channels=1, n_samples=12000, seed=0):
    noise = np.random.default_rng(seed).standard_normal((n_samples, n_channels)) / 10
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, rate_hz, format="MP3")
    return buffer.getvalue()


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("n_channels", [1, 2])
def test_frames_follow_each_other(rate_hz, n_channels):
    import av

    data = encode(rate_hz, n_channels)
    with av.open(io.BytesIO(data)) as container:
        sizes = [packet.size for packet in container.demux(audio=0) if packet.size]
    at, found = 0, []
    while at < len(data):
        frame = parse_frame(data[at : at + 4])
        assert frame.kind[2:] == (rate_hz, n_channels == 1)
        found.append(frame.length)
        at += frame.length
    assert at == len(data)
    assert found[1:] == sizes  # the first holds the number of frames
    first = parse_frame(data)
    assert data[first.tag_at : first.tag_at + 4] in (b"Xing", b"Info")


@pytest.mark.parametrize(
    "header",
    [b"", b"\xff\xfb\x90", b"RIFF", b"\xff\xf1\x50\x80", b"\xff\xfb\xf0\0", b"\xff\xff\xff\xff"],
)
def test_other_bytes_are_no_frame(header):  # such as AAC, ff f1
    assert parse_frame(header) is None


def test_tags_are_measured():
    assert measure_id3(b"ID3\4\0\0\0\0\1\2" + bytes(130)) == 10 + 130
    assert measure_id3(b"ID3\4\0\x10\0\0\1\2" + bytes(140)) == 10 + 130 + 10  # with a footer
    assert measure_id3(b"ID3") == measure_id3(b"TAG" + bytes(125)) == 0
    assert is_mpeg(io.BytesIO(b"ID3\4\0\0\0\0\1\2" + bytes(130) + encode(16000)))


@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_a_file_without_a_count_of_frames_is_read_to_its_end(rate_hz):
    # libsndfile guesses its length from the first frame, and reads no further.
    counted = encode(rate_hz, n_samples=60000)
    data = counted[parse_frame(counted).length :]
    for tag in (b"", b"ID3\4\0\0\0\0\0\x0a" + bytes(10)):
        audio = load_audio(tag + data)
        assert 60000 <= audio.n_samples < 60000 + 3 * 1152


def test_a_file_that_ends_within_a_frame_is_remarked():
    data = encode(16000, n_samples=40000)
    body = data[parse_frame(data).length :]
    with pytest.warns(UserWarning, match="the bytes given: its last frame is cut"):
        cut = load_audio(body[: len(body) // 2 + 50])
    assert 15000 < cut.n_samples < 25000
    split_mpeg(io.BytesIO(body + b"TAG" + bytes(125)))  # no remark


def test_a_tag_within_a_stream_is_left_out():
    data = encode(16000, n_samples=40000)
    body = data[parse_frame(data).length :]
    cut = 0
    for _ in range(20):
        cut += parse_frame(body[cut : cut + 4]).length
    tagged = body[:cut] + b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + body[cut:]
    (part,) = split_mpeg(io.BytesIO(tagged))
    assert part.read() == body
    np.testing.assert_array_equal(load_audio(tagged).samples, load_audio(body).samples)
