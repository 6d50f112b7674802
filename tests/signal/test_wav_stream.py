"""WAV files in pipes: every kind that is written, read as it comes; damaged ones refused."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
import pytest
import soundfile

from avse_ppl.signal.wav_stream import (
    SampleStream,
    decode_samples,
    encode_samples,
    make_wav_header,
    read_sample_blocks,
    read_wav_header,
)

KINDS = {"PCM_U8": "u8", "PCM_16": "s16", "PCM_24": "s24", "PCM_32": "s32", "FLOAT": "f32",
         "DOUBLE": "f64"}  # fmt: skip
SAMPLES = np.random.default_rng(0).uniform(-0.9, 0.9, size=(500, 3))


class Pipe(io.BytesIO):
    """A pipe that gives a few bytes at a time."""

    def read1(self, size=-1):
        return super().read1(min(7, size))


def write_wav(subtype="PCM_16", samples=SAMPLES, format="WAV"):
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format=format, subtype=subtype)
    return file.getvalue()


def read_all(data):
    source = Pipe(data)
    stream = read_wav_header(source)
    blocks = list(read_sample_blocks(source, stream))
    return stream, np.concatenate(blocks, 1) if blocks else np.zeros((stream.channels, 0))


@pytest.mark.parametrize("format", ["WAV", "WAVEX"])
@pytest.mark.parametrize("subtype", KINDS)
def test_what_soundfile_writes_is_read(subtype, format):
    data = write_wav(subtype, format=format)
    stream, found = read_all(data)
    assert stream == SampleStream(8000, 3, KINDS[subtype], 500)
    expected = soundfile.read(io.BytesIO(data), dtype="float32")[0].T
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert found.dtype == np.float32


@pytest.mark.parametrize("length", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_an_unknown_length_is_read_to_the_end(length):
    data = write_wav()
    place = data.index(b"data") + 4
    stream, found = read_all(data[:place] + struct.pack("<I", length) + data[place + 4 :])
    assert stream.count is None and found.shape == (3, 500)


def test_chunks_before_and_after_the_samples_are_passed_over():
    data, note = write_wav(), b"LIST" + struct.pack("<I", 5) + b"hello\0"
    place = data.index(b"data")
    source = Pipe(data[:place] + note + data[place:] + note)
    blocks = list(read_sample_blocks(source, read_wav_header(source)))
    assert sum(block.shape[1] for block in blocks) == 500
    assert source.read() == b""  # all is taken, so that the writer of the pipe is not cut off


@pytest.mark.parametrize(("code", "subtype"), [("s16", "PCM_16"), ("f32", "FLOAT")])
@pytest.mark.parametrize("count", [None, 500])
def test_what_is_written_is_read_by_soundfile(code, subtype, count):
    stream = SampleStream(48000, 3, code, count)
    data = make_wav_header(stream) + encode_samples(SAMPLES, code)
    found, rate_hz = soundfile.read(io.BytesIO(data))
    assert rate_hz == 48000
    np.testing.assert_allclose(found, SAMPLES, atol=2e-5)
    assert soundfile.info(io.BytesIO(data)).subtype == subtype
    assert read_wav_header(io.BytesIO(data)) == stream


def test_a_length_above_4_gb_is_unknown():
    header = make_wav_header(SampleStream(48000, 2, "f32", 2**30))
    assert header[4:8] == header[-4:] == b"\xff\xff\xff\xff"


def test_int16_goes_through_unchanged_and_loud_samples_are_clipped():
    data = np.arange(-32768, 32768, 7, dtype="<i2").tobytes()
    assert encode_samples(decode_samples(data, "s16"), "s16") == data
    clipped = np.frombuffer(encode_samples(np.array([1.5, -1.5]), "s16"), "<i2")
    np.testing.assert_array_equal(clipped, [32767, -32768])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "stdin is empty.*--stream-format"),
        (b"fLaC" + bytes(40), "begins with b'fLaC"),
        (b"RIFF1234AVI ", "expected a WAV file"),
        (write_wav()[:11], "ends before the samples"),
        (write_wav()[:12], "ends before the samples"),
        (write_wav()[:30], "ends before the samples"),
        (b"RIFF1234WAVEdata" + bytes(40), "does not say what its samples are"),
        (b"RIFF1234WAVEjunk\xff\xff\xff\x7f", "is it damaged"),
        (write_wav("ULAW"), "8 bits of format 7"),
        (write_wav().replace(b"\1\0\3\0", b"\1\0\0\0", 1), "0 channels of 16 bits"),
        (write_wav().replace(b"\1\0\3\0", b"\1\0\xff\xff", 1), "65535 channels"),
    ],
)
def test_headers_that_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        read_wav_header(io.BytesIO(data))


def test_an_early_end_is_remarked():
    with pytest.warns(UserWarning, match="ended 1001 bytes before the end that its header states"):
        found = read_all(write_wav()[:-1001])[1]
    assert found.shape == (3, 333)
    source = Pipe(bytes(101))
    with pytest.warns(UserWarning, match="last 1 bytes of stdin are no whole sample"):
        assert sum(b.shape[1] for b in read_sample_blocks(source, SampleStream(8000))) == 50
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(read_sample_blocks(Pipe(bytes(100)), SampleStream(8000)))
