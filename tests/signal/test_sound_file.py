"""Sound files: every format, headers that claim anything, interrupts, broken disks, equal bytes."""

from __future__ import annotations

import io
import os
import signal
import struct
import time

import numpy as np
import pytest
import soundfile

from avse_ppl.signal import sound_file
from avse_ppl.signal.audio import Audio, load_audio, save_audio
from avse_ppl.signal.sound_file import read_with_soundfile
from tests.helpers import RATE_HZ

N_SAMPLES = 4000
SAMPLES = 0.3 * np.convolve(
    np.random.default_rng(0).standard_normal(N_SAMPLES), np.hanning(9) / 10, "same"
)

# What libsndfile writes and reads back by itself: not without a header, nor in two files.
KINDS = [
    (file_format, subtype)
    for file_format in sorted(soundfile.available_formats())
    for subtype in sorted(soundfile.available_subtypes(file_format))
    if file_format not in ("RAW", "SD2")
    and (file_format, subtype) != ("AIFF", "DWVW_12")
    and (file_format == "OGG" or "MPEG" not in subtype)
]


def encode(file_format, subtype, samples=SAMPLES, rate_hz=RATE_HZ):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=file_format, subtype=subtype)
    return buffer.getvalue()


def claim_frames(data, n_frames):
    """Write another total number of samples, 36 bits, into the header of a FLAC file."""
    data = bytearray(data)
    data[21] = data[21] & 0xF0 | n_frames >> 32
    data[22:26] = struct.pack(">I", n_frames & 0xFFFFFFFF)
    return bytes(data)


@pytest.mark.parametrize(("file_format", "subtype"), KINDS)
def test_every_format_is_read_to_its_end(file_format, subtype):
    rate_hz = 44100 if file_format == "XI" else 8000 if file_format == "WVE" else RATE_HZ
    data = encode(file_format, subtype, rate_hz=rate_hz)
    audio = load_audio(data)
    assert audio.sample_rate_hz == pytest.approx(rate_hz, rel=0.01)  # VOC has rates of 8 bits
    assert 0 <= audio.n_samples - N_SAMPLES < 600  # blocks of ADPCM are filled up
    error = audio.samples[:N_SAMPLES] - SAMPLES
    lossy = any(word in subtype for word in ("ADPCM", "GSM", "G72", "VORBIS", "OPUS"))
    assert error.std() < (0.6 if lossy else 0.05) * SAMPLES.std() + (file_format == "SDS")


@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [("OGG", "OPUS"), ("OGG", "VORBIS"), ("WAV", "MS_ADPCM"), ("FLAC", "PCM_16")],
)
def test_blocks_are_what_one_read_gives(monkeypatch, file_format, subtype):
    monkeypatch.setattr(sound_file, "_BLOCK", 300)
    data = encode(file_format, subtype)
    whole, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    np.testing.assert_array_equal(load_audio(data).samples, whole)


def test_headers_within_a_voc_file_are_no_samples(tmp_path):
    import av

    samples = np.round(np.tile(SAMPLES, 10) * 2.0**15).astype("int16")
    with av.open(str(tmp_path / "a.voc"), "w") as out:
        track = out.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
        for start in range(0, len(samples), 1000):  # a block each, with its header
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1000], layout="mono")
            frame.sample_rate, frame.pts = RATE_HZ, start
            out.mux(track.encode(frame))
        out.mux(track.encode(None))
    np.testing.assert_array_equal(load_audio(tmp_path / "a.voc").samples, samples / 2.0**15)


def test_flac_written_to_a_pipe_is_read():
    data = encode("FLAC", "PCM_16")
    piped = load_audio(claim_frames(data, 0))
    np.testing.assert_array_equal(piped.samples, load_audio(data).samples)


@pytest.mark.parametrize("n_frames", [2**33, 2**35, 2**36 - 1])
def test_nothing_is_allocated_for_what_a_header_claims(n_frames):
    with pytest.raises(ValueError, match=r"cut short: it promises \d+\.\d+ s, 0\.25 s are there"):
        load_audio(claim_frames(encode("FLAC", "PCM_16"), n_frames))


def test_a_header_that_claims_more_than_its_file_can_hold():
    data = bytearray(encode("SDS", "PCM_16"))  # libsndfile fills up with zeros
    data[10:13] = data[13:16] = b"\x7f\x7f\x7f"
    with pytest.raises(ValueError, match="is cut short: it promises 131 s of sound in"):
        load_audio(data)


@pytest.mark.parametrize("length", [-12, -1, -(2**62), 2**62])
def test_a_header_that_leads_anywhere_is_one_error(capfd, length):
    data = bytearray(encode("CAF", "PCM_16"))
    at = data.index(b"free") + 4
    data[at : at + 8] = struct.pack(">q", length)
    with pytest.raises(ValueError, match="expected audio or video in the bytes given, found"):
        load_audio(data)
    assert capfd.readouterr().err == ""  # no remark of the decoder beside it


# --- interrupts and broken disks ------------------------------------------------------------------


class Disk(io.BytesIO):
    """A file whose reads do something else from a position on."""

    def __init__(self, data, at, act):
        super().__init__(data)
        self.bad, self.act = at, act

    def readinto(self, buffer):
        if self.tell() + len(buffer) > self.bad:
            self.act()
        return super().readinto(buffer)


def break_disk():
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize(("file_format", "subtype"), [("WAV", "FLOAT"), ("FLAC", "PCM_16")])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.9])
def test_an_error_of_the_disk_is_raised_as_it_is(capfd, file_format, subtype, part):
    data = encode(file_format, subtype, np.tile(SAMPLES, 10))
    disk = Disk(data, int(part * len(data)), break_disk)
    with pytest.raises(OSError, match="Input/output error") as caught:
        read_with_soundfile(disk, "'a.wav'")
    assert caught.value.errno == 5
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("file_format", ["WAV", "OGG"])
def test_an_error_of_the_disk_names_the_file(tmp_path, monkeypatch, file_format):
    data = encode(file_format, None, np.tile(SAMPLES, 10))
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    disk = Disk(data, len(data) // 2, break_disk)
    monkeypatch.setattr("builtins.open", lambda *args: disk)
    with pytest.raises(OSError, match=r"Input/output error: '.*a\.wav'"):
        load_audio(path)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to itself")
def test_an_interrupt_while_a_file_is_read_is_an_interrupt(capfd):
    data = encode("WAV", "PCM_16", np.tile(SAMPLES, 60))
    n_late = []

    def interrupt():
        n_late.append(1)
        if len(n_late) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.02)

    with pytest.raises(KeyboardInterrupt):
        read_with_soundfile(Disk(data, len(data) // 4, interrupt), "'a.wav'")
    assert len(n_late) < 10  # of 45: it does not read on
    assert capfd.readouterr().err == ""


# --- equal bytes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_the_same_samples_make_the_same_bytes(tmp_path, monkeypatch, name, n_channels):
    audio = Audio(np.stack([SAMPLES] * n_channels), RATE_HZ)
    first = save_audio(tmp_path / name, audio).read_bytes()
    assert save_audio(tmp_path / name, audio).read_bytes() == first
    if name == "a.wav":
        at = first.index(b"PEAK")
        assert first[at + 12 : at + 16] == bytes(4)
        assert struct.unpack("<f", first[at + 16 : at + 20])[0] == audio.peak
    again = load_audio(first)
    assert again.n_samples == N_SAMPLES
    np.testing.assert_allclose(again.samples, audio.samples, atol=0.1 if name == "a.ogg" else 1e-6)
