"""Sound headers: lengths that are wrong by little are put right, by much refused."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from avse_ppl.signal.audio import load_audio
from avse_ppl.signal.sound_header import find_samples, mend_header
from tests.helpers import RATE_HZ

STEPS = np.random.default_rng(0).integers(-8000, 8000, 4000).astype("int16")
SAMPLES = STEPS / np.float32(2**15)

# Where the length is written: after which bytes, how, and how much more it counts.
LENGTHS = {
    "WAV": (b"data", 4, "<I", 0),
    "RF64": (b"ds64", 16, "<Q", 0),
    "AIFF": (b"SSND", 4, ">I", 8),
    "AU": (b".snd", 8, ">I", 0),
    "CAF": (b"data", 4, ">q", 4),
    "W64": (b"data", 16, "<Q", 24),
}
UNKNOWN = {
    "WAV": [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000],
    "AIFF": [0xFFFFFFFF, 0],
    "AU": [0xFFFFFFFF, 0x7FFFFFFF],
    "CAF": [-1],
    "W64": [2**63, 2**64 - 1],
}


def encode(file_format, **options):
    buffer = io.BytesIO()
    options.setdefault("subtype", "PCM_16")
    soundfile.write(buffer, STEPS, RATE_HZ, format=file_format, **options)
    return buffer.getvalue()


def state_length(data, file_format, change=None, value=None):
    """Write a length of the samples into a header: changed by so many bytes, or this value."""
    marker, after, layout, extra = LENGTHS[file_format]
    at = data.index(marker) + after
    stated = 2 * len(STEPS) + extra + change if value is None else value
    return data[:at] + struct.pack(layout, stated) + data[at + struct.calcsize(layout) :]


@pytest.mark.parametrize("file_format", LENGTHS)
def test_samples_are_found(file_format):
    data = encode(file_format)
    span = find_samples(io.BytesIO(data))
    assert span.length == 2 * len(STEPS)
    assert (
        data[span.start : span.start + 4]
        == STEPS[:2].astype(">i2" if file_format in ("AIFF", "AU", "CAF") else "<i2").tobytes()
    )
    handle = io.BytesIO(data)
    assert mend_header(handle, "a file") is handle


def test_samples_of_a_nist_file_are_found():
    data = encode("NIST")
    span = find_samples(io.BytesIO(data))
    assert (span.start, span.length) == (1024, 2 * len(STEPS))
    with pytest.raises(ValueError, match="cut short: 4000 or more bytes are missing"):
        load_audio(data[:-4000])


@pytest.mark.parametrize("change", [1, 2, 8, 36, 44, 64])
@pytest.mark.parametrize("file_format", LENGTHS)
def test_a_length_that_counts_its_header_is_put_right(file_format, change):
    data = state_length(encode(file_format), file_format, change)
    with pytest.warns(UserWarning, match=f"promises {change} bytes more than there are; read to"):
        audio = load_audio(data)
    np.testing.assert_array_equal(audio.samples, SAMPLES)


@pytest.mark.parametrize("file_format", LENGTHS)
def test_a_length_that_was_never_filled_in_is_put_right(file_format):
    extra = LENGTHS[file_format][3]
    data = bytearray(state_length(encode(file_format), file_format, value=extra))
    if file_format in ("WAV", "AIFF"):
        data[4:8] = bytes(4)  # the length of all
    with pytest.warns(UserWarning, match="never filled in, as by a recorder that was stopped"):
        audio = load_audio(data)
    np.testing.assert_array_equal(audio.samples, SAMPLES)


@pytest.mark.parametrize(
    ("file_format", "value"), [(name, value) for name, some in UNKNOWN.items() for value in some]
)
def test_an_unknown_length_is_no_remark(file_format, value):
    data = state_length(encode(file_format), file_format, value=value)
    np.testing.assert_array_equal(load_audio(data).samples, SAMPLES)


@pytest.mark.parametrize("file_format", LENGTHS)
@pytest.mark.parametrize("missing", [100, 4000])
def test_a_file_that_was_cut_is_refused(file_format, missing):
    with pytest.raises(ValueError, match=rf"is cut short: {missing} or more bytes"):
        load_audio(encode(file_format)[:-missing])
    with pytest.raises(ValueError, match=rf"is cut short: {missing} or more bytes"):
        load_audio(state_length(encode(file_format), file_format, missing))


@pytest.mark.parametrize("n_bytes", [1, 7, 150])
def test_bytes_at_the_end_of_a_wav_file(n_bytes):
    data = encode("WAV") + b"\1" * n_bytes
    if n_bytes > 64:
        with pytest.warns(UserWarning, match="150 bytes after the samples belong to nothing"):
            audio = load_audio(data)
    else:
        audio = load_audio(data)
    np.testing.assert_array_equal(audio.samples, SAMPLES)


def test_a_wav_file_of_odd_length_keeps_its_whole_samples():
    with pytest.warns(UserWarning, match="promises 1 bytes more"):
        audio = load_audio(encode("WAV")[:-1])
    np.testing.assert_array_equal(audio.samples, SAMPLES[:-1])


def test_chunks_after_no_samples_are_no_samples():
    data = encode("WAV")
    empty = data[: data.index(b"data") + 4] + bytes(4)
    for more in (b"", b"LIST\4\0\0\0abcd"):
        with pytest.raises(ValueError, match="the recording is empty: it holds 0 samples"):
            load_audio(empty + more)


@pytest.mark.parametrize(
    "head",
    [
        *(b"", b"RIFF", b"RIFF\0\0\0\0WAVEfmt ", b"FORM\0\0\0\0AIFFCOMM\0\0\0\1", b".snd", b"caff"),
        *(b"riff" + bytes(20) + b"wave" + bytes(40), b"NIST_1A\n   1024\nsample_count -i x\n"),
    ],
)
def test_half_a_header_states_nothing(head):
    assert find_samples(io.BytesIO(head)) is None
