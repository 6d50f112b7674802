"""Reading, checking, resampling and writing recordings."""

from __future__ import annotations

import dataclasses
import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from avse_ppl.signal.audio import (
    Audio,
    as_audio,
    check_audio,
    convert_rate,
    load_audio,
    save_audio,
)
from avse_ppl.signal.whole_file import count_missing_bytes
from tests.helpers import RATE_HZ

STEPS_16 = 2**15


def speech_like(n_samples=RATE_HZ, rate_hz=RATE_HZ, n_channels=1, seed=0):
    """Low-passed noise that 16 bits hold exactly: (channel, sample)."""
    rng = np.random.default_rng(seed)
    kernel = np.hanning(9) / 10
    noise = [np.convolve(rng.standard_normal(n_samples), kernel, "same") for _ in range(n_channels)]
    return np.round(np.stack(noise) * 0.3 * STEPS_16) / STEPS_16


def write_av(path, codec, samples, rate_hz=RATE_HZ, video=None, delay_s=0.0, start_s=0.0):
    """Write a container with an audio track (codec None: without) and perhaps a video track."""
    import av

    options = {} if path.suffix != ".m4a" else {"format": "mp4"}
    with av.open(str(path), "w", **options) as out:
        picture = out.add_stream(video, rate=25) if video else None
        layout = "stereo" if len(samples) == 2 else "mono"
        sound = out.add_stream(codec, rate=rate_hz, layout=layout) if codec else None
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
            for index in range(25):
                image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 9 * index, np.uint8))
                image.pts = index + round(start_s * 25)
                out.mux(picture.encode(image))
            out.mux(picture.encode(None))
        if sound is not None:
            packed = np.round(samples.T * STEPS_16).astype(np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            frame.sample_rate, frame.pts = rate_hz, round(delay_s * rate_hz)
            to_codec = av.AudioResampler(sound.format, layout, rate_hz)
            for block in (
                [*to_codec.resample(frame), *to_codec.resample(None)] if frame.samples else []
            ):
                out.mux(sound.encode(block))
            out.mux(sound.encode(None))
    return path


def best_lag(reference, other):
    size = 1 << (len(reference) + len(other)).bit_length()
    spectrum = np.fft.rfft(other, size) * np.fft.rfft(reference, size).conj()
    lag = int(np.fft.irfft(spectrum, size).argmax())
    return lag if lag < size // 2 else lag - size


# --- Audio ---------------------------------------------------------------------------------------


def test_audio_knows_its_shape_and_is_frozen():
    stereo = Audio(np.array([[0.5, -0.25, 0.0], [0.0, -0.75, 0.5]]), 8000)
    assert (stereo.n_channels, stereo.n_samples, stereo.peak) == (2, 3, 0.75)
    assert stereo.duration_s == 3 / 8000
    assert stereo.samples.dtype == np.float32
    np.testing.assert_array_equal(stereo.mono().samples, [0.25, -0.5, 0.25])
    np.testing.assert_array_equal(stereo.channels()[1].samples, [0.0, -0.75, 0.5])
    assert all(channel.sample_rate_hz == 8000 for channel in stereo.channels())
    with pytest.raises(dataclasses.FrozenInstanceError):
        stereo.sample_rate_hz = 16000


@pytest.mark.parametrize("n_channels", [1, 2, 4, 8])
def test_a_mono_to_listen_to_is_the_average_of_usual_channels(n_channels):
    audio = Audio(speech_like(2000, n_channels=n_channels), RATE_HZ)  # unrelated: -10 log10(K) dB
    np.testing.assert_array_equal(audio.audible_mono().samples, audio.mono().samples)
    silent = Audio(np.zeros((n_channels, 100)), RATE_HZ)
    assert not silent.audible_mono().samples.any()


@pytest.mark.parametrize("gain", [-1.0, -0.9, -0.5])
def test_a_mono_to_listen_to_does_not_cancel(gain):
    speech = speech_like(2000)[0].astype(np.float32)
    opposite = Audio(np.stack([gain * speech, speech]), RATE_HZ)
    heard = opposite.audible_mono().samples
    np.testing.assert_array_equal(heard, opposite.samples[0] if gain == -1 else speech)


def test_one_channel_is_one_dimensional():
    audio = Audio(np.ones((1, 5)), RATE_HZ)
    assert audio.samples.shape == (5,)
    assert audio.n_channels == 1
    assert audio.mono().samples.shape == (5,)
    assert [channel.samples.shape for channel in audio.channels()] == [(5,)]


def test_rate_may_be_a_numpy_integer():
    assert type(Audio(np.zeros(4), np.int64(RATE_HZ)).sample_rate_hz) is int


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [
        ("int16", [-(2**15), 0, 2**14], [-1.0, 0.0, 0.5]),
        ("int32", [-(2**31), 0, 2**30], [-1.0, 0.0, 0.5]),
        ("uint8", [0, 128, 192], [-1.0, 0.0, 0.5]),
        ("float64", [-1.5, 0.0, 0.5], [-1.5, 0.0, 0.5]),
        ("float16", [-1.5, 0.0, 0.5], [-1.5, 0.0, 0.5]),
    ],
)
def test_full_scale_is_one(dtype, stored, expected):
    np.testing.assert_array_equal(Audio(np.array(stored, dtype), RATE_HZ).samples, expected)


@pytest.mark.parametrize("dtype", ["complex64", "int64", "uint16", "bool", "object"])
def test_other_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match=f"expected real samples .* found {dtype}"):
        Audio(np.zeros(10).astype(dtype), RATE_HZ)


@pytest.mark.parametrize("shape", [(), (2, 3, 4), (0, 100)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected samples of shape \(sample,\)"):
        Audio(np.zeros(shape), RATE_HZ)


@pytest.mark.parametrize("rate_hz", [16000.0, "16000", True, None])
def test_rate_must_be_whole(rate_hz):
    with pytest.raises(TypeError, match="whole number of Hz"):
        Audio(np.zeros(10), rate_hz)


@pytest.mark.parametrize("rate_hz", [-16000, 0, 16, 3999])
def test_rate_must_be_plausible(rate_hz):
    with pytest.raises(ValueError, match=f"at least 4000, found {rate_hz}"):
        Audio(np.zeros(10), rate_hz)


# --- resampling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_channels", [1, 2])
def test_resample_keeps_sound_and_drops_what_the_rate_cannot_hold(n_channels):
    time_s = np.arange(44100) / 44100
    kept, lost = np.sin(2 * np.pi * 1000 * time_s), np.sin(2 * np.pi * 12000 * time_s)
    audio = Audio(np.stack([0.5 * kept + 0.4 * lost] * n_channels), 44100)
    resampled = audio.resample(RATE_HZ)
    assert (resampled.n_channels, resampled.sample_rate_hz) == (n_channels, RATE_HZ)
    assert resampled.n_samples == RATE_HZ
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE_HZ) / RATE_HZ)
    middle = slice(1000, -1000)
    for channel in resampled.channels():
        np.testing.assert_allclose(channel.samples[middle], expected[middle], atol=1e-3)


def test_resample_to_the_same_rate_is_the_same_object():
    audio = Audio(np.zeros(100), RATE_HZ)
    assert audio.resample(RATE_HZ) is audio


def test_resample_checks_the_rate():
    with pytest.raises(ValueError, match="at least 4000"):
        Audio(np.zeros(100), RATE_HZ).resample(16)


def test_to_rate_says_what_it_did():
    audio = Audio(np.zeros(44100), 44100)
    with pytest.warns(UserWarning, match=r"^resampled from 44100 Hz to 16000 Hz$"):
        resampled = convert_rate(audio, RATE_HZ)
    assert (resampled.sample_rate_hz, resampled.n_samples) == (RATE_HZ, RATE_HZ)


def test_to_rate_is_silent_where_nothing_is_done():
    audio = Audio(np.zeros(100), RATE_HZ)
    assert convert_rate(audio, RATE_HZ) is audio


# --- as_audio ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((100,), (100,)),
        ((2, 100), (2, 100)),
        ((100, 2), (2, 100)),
        ((100, 1), (100,)),
        ((1, 100), (100,)),
        ((100, 8), (8, 100)),
        ((16, 100), (16, 100)),
    ],
)
@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_arrays_come_channel_first(shape, expected, make):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 2048
    audio = as_audio(make(values), RATE_HZ)
    assert audio.samples.shape == expected
    time_axis = int(np.argmax(shape))
    np.testing.assert_array_equal(
        np.atleast_2d(audio.samples)[0, :3],
        values.take(0, axis=1 - time_axis)[:3] if len(shape) == 2 else values[:3],
    )


def test_a_tensor_that_needs_gradients_is_read():
    source = torch.full((10,), 0.5, requires_grad=True)
    np.testing.assert_array_equal(as_audio(source, RATE_HZ).samples, np.full(10, 0.5))


def test_audio_passes_through():
    audio = Audio(np.zeros(10), RATE_HZ)
    assert as_audio(audio) is audio
    assert as_audio(audio, RATE_HZ) is audio


def test_path_string_and_bytes_are_read(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, speech_like()[0], RATE_HZ, subtype="PCM_16")
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
        audio = as_audio(source)
        assert audio.sample_rate_hz == RATE_HZ
        np.testing.assert_array_equal(audio.samples, speech_like()[0])


def test_an_array_without_rate_is_refused():
    with pytest.raises(ValueError, match="pass it, for example sample_rate_hz=16000"):
        as_audio(np.zeros(10))


def test_an_ambiguous_array_is_refused():
    with pytest.raises(ValueError, match=r"cannot tell channels from samples .* \(100, 9\)"):
        as_audio(np.zeros((100, 9)), RATE_HZ)


def test_another_rate_than_stated_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 8000)
    for source in (Audio(np.zeros(10), 8000), tmp_path / "a.wav"):
        with pytest.raises(ValueError, match="expected a recording at 16000 Hz, found 8000 Hz"):
            as_audio(source, RATE_HZ)


@pytest.mark.parametrize("source", [[0.0, 1.0], None, 3.0])
def test_other_things_are_refused(source):
    with pytest.raises(TypeError, match="expected an Audio, a path, bytes"):
        as_audio(source, RATE_HZ)


# --- load_audio: what is there -------------------------------------------------------------------

LOSSLESS = [
    ("a.wav", "PCM_16"),
    ("a.wav", "PCM_24"),
    ("a.wav", "PCM_32"),
    ("a.wav", "FLOAT"),
    ("a.wav", "DOUBLE"),
    ("a.flac", "PCM_16"),
    ("a.flac", "PCM_24"),
    ("a.aiff", "PCM_16"),
    ("a.rf64", "PCM_16"),
]


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize(("name", "subtype"), LOSSLESS)
def test_lossless_files_come_back_exactly(tmp_path, name, subtype, rate_hz, n_channels):
    samples = speech_like(2000, rate_hz, n_channels)
    soundfile.write(tmp_path / name, samples.T, rate_hz, subtype=subtype)
    audio = load_audio(tmp_path / name)
    assert audio.sample_rate_hz == rate_hz
    np.testing.assert_array_equal(np.atleast_2d(audio.samples), samples)


def test_24_bits_are_kept(tmp_path):
    samples = np.array([1, -1, 3, 2**22 + 1]) / 2**23
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, subtype="PCM_24")
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav").samples, samples)


def test_float_beyond_full_scale_is_kept(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([3.5, -2.0]), RATE_HZ, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav").samples, [3.5, -2.0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.ogg", {}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", {}),
    ],
)
def test_lossy_files_keep_level_and_timing(tmp_path, name, options):
    samples = speech_like()[0]
    soundfile.write(tmp_path / name, samples, RATE_HZ, **options)
    audio = load_audio(tmp_path / name)
    assert (audio.sample_rate_hz, audio.n_samples) == (RATE_HZ, len(samples))
    assert best_lag(samples, audio.samples) == 0
    np.testing.assert_allclose(audio.samples.std(), samples.std(), rtol=0.1)


@pytest.mark.parametrize(
    ("name", "codec", "video"),
    [
        ("a.mkv", "flac", "mpeg4"),
        ("a.mkv", "pcm_s16le", "mpeg4"),
        ("a.mkv", "pcm_f32le", None),
        ("a.avi", "pcm_s16le", "mpeg4"),
        ("a.mov", "pcm_s24le", "mpeg4"),
    ],
)
@pytest.mark.parametrize("n_channels", [1, 2])
def test_lossless_sound_of_video_comes_back_exactly(tmp_path, name, codec, video, n_channels):
    samples = speech_like(n_channels=n_channels)
    path = write_av(tmp_path / name, codec, samples, video=video)
    for source in (path, path.read_bytes()):
        audio = load_audio(source)
        assert audio.sample_rate_hz == RATE_HZ
        np.testing.assert_array_equal(np.atleast_2d(audio.samples), samples)


@pytest.mark.parametrize(
    ("name", "codec", "video", "rate_hz"),
    [
        ("a.mp4", "aac", "mpeg4", 44100),
        ("a.mov", "aac", "mpeg4", 16000),
        ("a.m4a", "aac", None, 16000),
        ("a.aac", "aac", None, 16000),
        ("a.webm", "libopus", "vp8", 48000),
        ("a.mkv", "aac", "mpeg4", 48000),
    ],
)
def test_lossy_sound_of_video_keeps_level_and_rate(tmp_path, name, codec, video, rate_hz):
    samples = speech_like(rate_hz, rate_hz)
    audio = load_audio(write_av(tmp_path / name, codec, samples, rate_hz, video))
    assert audio.sample_rate_hz == rate_hz
    lag = best_lag(samples[0], audio.samples)
    assert lag == (1024 if name == "a.aac" else 0)  # ADTS cannot state the encoder's delay
    np.testing.assert_allclose(audio.samples.std(), samples.std(), rtol=0.1)


def test_sound_later_than_the_pictures_is_padded(tmp_path):
    path = write_av(tmp_path / "a.mkv", "pcm_s16le", speech_like(), video="mpeg4", delay_s=0.2)
    with pytest.warns(UserWarning, match="200 ms after its video frames; padded with silence"):
        audio = load_audio(path)
    assert not audio.samples[:3200].any()
    np.testing.assert_array_equal(audio.samples[3200:], speech_like()[0])


def test_delayed_sound_of_an_mp4_is_padded(tmp_path):
    path = write_av(tmp_path / "a.mp4", "aac", speech_like(), video="mpeg4", delay_s=0.2)
    with pytest.warns(UserWarning, match="ms after its video frames; padded with silence"):
        audio = load_audio(path)
    assert best_lag(speech_like()[0], audio.samples) == 3200


def test_cover_art_is_no_video(tmp_path):
    import av

    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as out:
        sound = out.add_stream("aac", rate=RATE_HZ, layout="mono")
        cover = out.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
        out.mux([*cover.encode(image), *cover.encode(None)])
        frame = av.AudioFrame.from_ndarray(speech_like().astype("f4"), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, 0
        out.mux([*sound.encode(frame), *sound.encode(None)])
    audio = load_audio(tmp_path / "a.m4a")
    assert best_lag(speech_like()[0], audio.samples) == 0


def test_sound_earlier_than_the_pictures_is_trimmed(tmp_path):
    path = write_av(tmp_path / "a.mkv", "pcm_s16le", speech_like(), video="mpeg4", start_s=0.2)
    with pytest.warns(UserWarning, match="starts 200 ms before its video frames; trimmed"):
        audio = load_audio(path)
    np.testing.assert_array_equal(audio.samples, speech_like()[0, 3200:])


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000])
def test_wav_written_to_a_pipe_is_read(tmp_path, length):
    soundfile.write(tmp_path / "a.wav", speech_like()[0], RATE_HZ, subtype="PCM_16")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = data[4:8] = struct.pack("<I", length)
    np.testing.assert_array_equal(load_audio(data).samples, speech_like()[0])


def test_wav_with_other_chunks_and_big_endian_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", speech_like()[0], RATE_HZ, subtype="PCM_16", endian="BIG")
    data = (tmp_path / "a.wav").read_bytes()
    assert data[:4] == b"RIFX"
    np.testing.assert_array_equal(load_audio(data).samples, speech_like()[0])
    extra = data[:12] + b"LIST" + struct.pack(">I", 3) + b"abc\0" + data[12:]
    np.testing.assert_array_equal(load_audio(extra).samples, speech_like()[0])
    with pytest.raises(ValueError, match="2000 or more bytes are missing"):
        load_audio(extra[:-2000])


def test_corpora_are_read(shared):
    expected = {
        "grid_unseen/*.mkv": {16000},
        "lrw_ar/0013*.mp4": {44100, 48000},
        "speechocean762/0024/*.opus": {16000},
        "noise/esc10/rain/1-1*.ogg": {16000},
        "noise/speech_commands/*.flac": {16000},
    }
    for pattern, rates in expected.items():
        paths = sorted((shared / "data").glob(pattern))[:3]
        assert paths, pattern
        for path in paths:
            audio = load_audio(path)
            assert audio.sample_rate_hz in rates
            assert audio.duration_s > 0.5
            assert 0.01 < audio.peak < 1.2


# --- load_audio: what is wrong -------------------------------------------------------------------


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a recording at '.*no\.wav'"):
        load_audio(tmp_path / "no.wav")


def test_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="found a folder"):
        load_audio(tmp_path)


def test_empty_file(tmp_path):
    (tmp_path / "a.wav").touch()
    for source in (tmp_path / "a.wav", b""):
        with pytest.raises(ValueError, match=r"found it empty \(0 bytes\)"):
            load_audio(source)


@pytest.mark.parametrize(
    "content",
    [
        b"abc",
        b"This is not a recording.\n" * 200,
        bytes(20000),
        np.random.default_rng(0).bytes(20000),
        b"RIFF\x10\x00\x00\x00WAVEfmt ",
        b"RIFF\x0c\x00\x00\x00WAVEds64\x00\x00\x00\x00",
        b"\x1a\x45\xdf\xa3",
        b"\x1a\x45\xdf\xa3\x80" + bytes(30),
        b"\x00\x00\x00\x00ftypisom" + bytes(30),
        b"\x00\x00\x00\x01ftyp\x00\x00\x00\x00\x00\x00\x00\x10",
    ],
)
def test_not_audio(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"expected audio or video in '.*', found neither"):
        load_audio(tmp_path / "a.wav")


def test_video_without_sound(tmp_path):
    path = write_av(tmp_path / "a.mp4", None, speech_like(), video="mpeg4")
    with pytest.raises(ValueError, match="found no audio track"):
        load_audio(path)


def test_track_without_sound(tmp_path):
    path = write_av(tmp_path / "a.mkv", "pcm_s16le", np.zeros((1, 0)), video="mpeg4")
    with pytest.raises(ValueError, match="its audio track holds no sound"):
        load_audio(path)


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {"subtype": "PCM_16"}),
        ("a.wav", {"subtype": "PCM_24"}),
        ("a.wav", {"subtype": "FLOAT"}),
        ("a.rf64", {"subtype": "PCM_16"}),
        ("a.aiff", {}),
        ("a.flac", {}),
        ("a.ogg", {}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
    ],
)
def test_half_a_recording_is_refused(tmp_path, name, options, kept):
    path = tmp_path / name
    soundfile.write(path, speech_like(4 * RATE_HZ)[0], RATE_HZ, **options)
    assert load_audio(path).n_samples == 4 * RATE_HZ
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    for source in (path, path.read_bytes()):
        with pytest.raises(ValueError, match="cut short") as caught:
            load_audio(source)
        assert "copy or record it again" in str(caught.value)


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("name", "codec", "video", "rate_hz"),
    [
        ("a.mkv", "flac", "mpeg4", RATE_HZ),
        ("a.mkv", "pcm_s16le", "mpeg4", RATE_HZ),
        ("a.mp4", "aac", "mpeg4", RATE_HZ),
        ("a.mov", "aac", "mpeg4", RATE_HZ),
        ("a.m4a", "aac", None, RATE_HZ),
        ("a.avi", "pcm_s16le", "mpeg4", RATE_HZ),
        ("a.webm", "libopus", "vp8", 48000),
    ],
)
def test_half_a_video_is_refused(tmp_path, name, codec, video, rate_hz, kept):
    path = write_av(tmp_path / name, codec, speech_like(rate_hz, rate_hz), rate_hz, video)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match="cut short"):
        load_audio(path)


def test_a_container_that_promises_more_than_it_holds_is_refused(tmp_path):
    path = write_av(tmp_path / "a.mkv", "pcm_s16le", speech_like(), video="mpeg4")
    data = path.read_bytes()
    segment = data.index(b"\x18\x53\x80\x67") + 4
    whole_length = data[:segment] + b"\x01" + b"\xff" * 7 + data[segment + 8 :]
    assert count_missing_bytes(io.BytesIO(whole_length)) == 0  # a live recording: length unknown
    np.testing.assert_array_equal(load_audio(whole_length).samples, speech_like()[0])
    assert data.count(b"00:00:01.000000000") == 2  # one tag a track
    longer = whole_length.replace(b"00:00:01.000000000", b"00:00:02.000000000")
    with pytest.raises(ValueError, match=r"it promises 2\.00 s, 1\.00 s are there"):
        load_audio(longer)


def test_an_mp3_cut_short_is_refused(tmp_path, capfd):
    soundfile.write(tmp_path / "a.mp3", speech_like(4 * RATE_HZ)[0], RATE_HZ)
    data = (tmp_path / "a.mp3").read_bytes()
    with pytest.raises(ValueError, match=r"it promises 4\.0\d s, 2\.0"):
        load_audio(data[: len(data) // 2])
    capfd.readouterr()  # the MP3 decoder remarks on it by itself


def test_damaged_sound_of_video_is_refused(tmp_path):
    path = write_av(tmp_path / "a.aac", "aac", speech_like())
    data = path.read_bytes()
    with pytest.raises(ValueError, match="damaged or cut short"):
        load_audio(data[: len(data) // 2])


def test_an_ogg_file_with_half_a_page_is_not_whole(tmp_path):
    soundfile.write(tmp_path / "a.ogg", speech_like()[0], RATE_HZ)
    data = (tmp_path / "a.ogg").read_bytes()
    last = data.rindex(b"OggS")
    for whole in (data, data + b"ID3", data[:last]):  # the last: pages without a mark at the end
        assert count_missing_bytes(io.BytesIO(whole)) == 0
    for cut in (data[: last + 20], data[: last + 28], data[:last] + bytes(70000)):
        assert count_missing_bytes(io.BytesIO(cut)) == 1


def test_wholeness_of_64_bit_lengths():
    body = b"mdat" + struct.pack(">Q", 116) + bytes(100)
    head = struct.pack(">I4s", 8, b"ftyp")
    box = head + struct.pack(">I", 1) + body
    assert count_missing_bytes(io.BytesIO(box)) == 0
    assert count_missing_bytes(io.BytesIO(box[:-30])) == 30
    ds64 = b"ds64" + struct.pack("<IQQ", 16, 0, 100)
    wav = b"RF64" + bytes(4) + b"WAVE" + ds64 + b"data\xff\xff\xff\xff" + bytes(100)
    assert count_missing_bytes(io.BytesIO(wav)) == 0
    assert count_missing_bytes(io.BytesIO(wav[:-30])) == 30


# --- check_audio ---------------------------------------------------------------------------------


def test_a_good_recording_passes_unchanged():
    audio = Audio(speech_like()[0], RATE_HZ)
    assert check_audio(audio, min_samples=RATE_HZ) is audio


def test_no_samples():
    with pytest.raises(ValueError, match="it holds 0 samples"):
        check_audio(Audio(np.zeros(0), RATE_HZ), min_samples=0)


def test_too_short():
    with pytest.raises(
        ValueError, match=r"at least 1024 samples \(0\.064 s at 16000 Hz\), found 9"
    ):
        check_audio(Audio(np.ones((2, 9)) * 0.1, RATE_HZ), min_samples=1024)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_not_finite(bad):
    samples = speech_like(n_channels=2)
    samples[1, 17] = bad
    with pytest.raises(ValueError, match="found 1 of 32000 NaN or infinite"):
        check_audio(Audio(samples, RATE_HZ), min_samples=1024)


@pytest.mark.parametrize("bad", [1e10, -1e30, 2.0**31 * 1.01])
def test_no_sound_is_that_large(tmp_path, bad):
    samples = speech_like()[0]
    samples[7] = bad
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, subtype="FLOAT")
    message = r"full scale at 1 in '.*a\.wav', found .*e\+.*sample format or order of bytes"
    with pytest.raises(ValueError, match=message):
        load_audio(tmp_path / "a.wav")
    with pytest.raises(ValueError, match="full scale at 1 in the recording"):
        check_audio(Audio(samples, RATE_HZ), min_samples=1024)


@pytest.mark.parametrize(("bits", "peak"), [(16, 2.0**15), (24, 2.0**22), (32, 2.0**31)])
def test_floats_that_look_like_integers_are_remarked(tmp_path, bits, peak):
    samples = speech_like()[0] * peak
    samples[0] = peak
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, subtype="FLOAT")
    message = f"{bits}-bit integers stored as floats; divide them by {2 ** (bits - 1)}"
    for source, rate_hz in ((tmp_path / "a.wav", None), (samples, RATE_HZ)):
        with pytest.warns(UserWarning, match=message):
            audio = as_audio(source, rate_hz)
        np.testing.assert_array_equal(audio.samples, samples.astype(np.float32))


def test_a_gain_beyond_full_scale_is_no_remark():
    assert as_audio(speech_like() * 3000, RATE_HZ).peak > 600


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_file_with_samples_that_are_not_finite_is_named(tmp_path, bad):
    samples = speech_like()[0]
    samples[7] = bad
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, subtype="DOUBLE")
    with pytest.raises(ValueError, match=r"in '.*a\.wav', found 1 of 16000 NaN or infinite"):
        load_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.ogg", "a.au", "a.caf", "a.w64"])
def test_a_file_without_samples_is_refused(tmp_path, name):
    soundfile.write(tmp_path / name, np.zeros(0), RATE_HZ)
    with pytest.raises(ValueError, match=r"empty|no sound|found neither") as caught:
        load_audio(tmp_path / name)
    assert name in str(caught.value)


def test_a_file_with_an_implausible_rate_is_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", speech_like()[0], 128)
    with pytest.raises(ValueError, match=r"at least 4000 Hz in '.*a\.wav', found 128"):
        load_audio(tmp_path / "a.wav")


def test_silence_is_remarked():
    with pytest.warns(UserWarning, match="silent: all samples are zero"):
        check_audio(Audio(np.zeros(RATE_HZ), RATE_HZ), min_samples=1024)


def test_one_silent_channel_is_no_remark():
    samples = speech_like(n_channels=2)
    samples[0] = 0
    check_audio(Audio(samples, RATE_HZ), min_samples=1024)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_clipping_is_remarked(dtype):
    time_s = np.arange(RATE_HZ) / RATE_HZ
    clipped = np.clip(1.5 * np.sin(2 * np.pi * 100 * time_s), -1, 1)
    samples = np.clip(clipped * STEPS_16, -STEPS_16, STEPS_16 - 1).astype("int16")
    with pytest.warns(UserWarning, match="clipped in 200 places"):
        check_audio(Audio(samples if dtype == "int16" else clipped, RATE_HZ), min_samples=1024)


@pytest.mark.parametrize("scale", [1.0, 0.9])
def test_peaks_that_are_not_held_are_no_clipping(scale):
    time_s = np.arange(RATE_HZ) / RATE_HZ
    touched = scale * np.clip(1.001 * np.sin(2 * np.pi * 1900 * time_s), -1, 1)
    held_below = np.clip(1.5 * np.sin(2 * np.pi * 100 * time_s), -1, 1) * 0.9
    check_audio(Audio(touched, RATE_HZ), min_samples=1024)
    check_audio(Audio(held_below, RATE_HZ), min_samples=1024)


def test_a_handful_of_clipped_places_is_no_remark():
    samples = speech_like()[0]
    for start in range(100, 600, 100):
        samples[start : start + 4] = 1.0
    check_audio(Audio(samples, RATE_HZ), min_samples=1024)
    samples[600:604] = 1.0
    with pytest.warns(UserWarning, match="clipped in 6 places"):
        check_audio(Audio(samples, RATE_HZ), min_samples=1024)


# --- save_audio ---------------------------------------------------------------


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize(
    ("name", "subtype", "stored"),
    [
        ("a.wav", None, "FLOAT"),
        ("a.WAV", None, "FLOAT"),
        ("a.wav", "PCM_16", "PCM_16"),
        ("a.wav", "PCM_24", "PCM_24"),
        ("a.flac", None, "PCM_24"),
        ("a.flac", "PCM_16", "PCM_16"),
    ],
)
def test_what_is_saved_comes_back_exactly(tmp_path, name, subtype, stored, n_channels):
    audio = Audio(speech_like(200_000, 44100, n_channels), 44100)
    path = save_audio(tmp_path / name, audio, subtype=subtype)
    assert soundfile.info(path).subtype == stored
    again = load_audio(path)
    assert again.sample_rate_hz == 44100
    np.testing.assert_array_equal(again.samples, audio.samples)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_saved_ogg_keeps_level_and_timing(tmp_path):
    audio = Audio(speech_like()[0], RATE_HZ)
    again = load_audio(save_audio(tmp_path / "a.ogg", audio))
    assert again.n_samples == audio.n_samples
    assert best_lag(audio.samples, again.samples) == 0
    np.testing.assert_allclose(again.samples.std(), audio.samples.std(), rtol=0.05)


@pytest.mark.slow
def test_a_long_ogg_can_be_written(tmp_path):
    # In one piece this ends the process (a stack overflow in the encoder), so: another process.
    code = (
        "import sys, numpy as np; from avse_ppl.signal.audio import Audio, save_audio;"
        "noise = np.random.default_rng(0).standard_normal(4_000_000).astype('f4') / 10;"
        "save_audio(sys.argv[1], Audio(noise, 16000))"
    )
    path = tmp_path / "a.ogg"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0
    assert soundfile.info(path).frames == 4_000_000


def test_float_wav_keeps_what_is_beyond_full_scale(tmp_path):
    audio = Audio(np.array([0.5, -2.5, 1.0]), RATE_HZ)
    again = load_audio(save_audio(tmp_path / "a.wav", audio))
    np.testing.assert_array_equal(again.samples, audio.samples)


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_16"), ("a.flac", None)])
def test_other_formats_are_scaled_down_not_clipped(tmp_path, name, subtype):
    audio = Audio(np.array([0.5, -2.0, 1.0]), RATE_HZ)
    with pytest.warns(UserWarning, match=r"peak 2\.000 is beyond full scale.*scaled by 0\.500"):
        path = save_audio(tmp_path / name, audio, subtype=subtype)
    np.testing.assert_allclose(load_audio(path).samples, [0.25, -1.0, 0.5], atol=2**-15)


@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "FLOAT"), ("a.wav", "PCM_17")])
def test_unknown_subtype(tmp_path, name, subtype):
    with pytest.raises(ValueError, match=f"files hold no '{subtype}' samples; expected one of PCM"):
        save_audio(tmp_path / name, Audio(np.zeros(10), RATE_HZ), subtype=subtype)
    assert not list(tmp_path.iterdir())


def test_unknown_ending(tmp_path):
    with pytest.raises(ValueError, match="expected a name ending in"):
        save_audio(tmp_path / "a.mp5", Audio(np.zeros(10), RATE_HZ))


def test_nothing_to_save(tmp_path):
    with pytest.raises(ValueError, match="the recording holds 0 samples"):
        save_audio(tmp_path / "a.wav", Audio(np.zeros(0), RATE_HZ))
    with pytest.raises(ValueError, match="expected finite samples"):
        save_audio(tmp_path / "a.wav", Audio(np.array([np.nan]), RATE_HZ))
    assert not list(tmp_path.iterdir())


def test_what_the_writer_cannot_do_leaves_nothing(tmp_path):
    (tmp_path / "a.flac").write_bytes(b"kept")
    many = Audio(np.zeros((9, 10)), RATE_HZ)  # FLAC holds 8 channels
    with pytest.raises(OSError, match="cannot write"):
        save_audio(tmp_path / "a.flac", many)
    assert [path.name for path in tmp_path.iterdir()] == ["a.flac"]
    assert (tmp_path / "a.flac").read_bytes() == b"kept"


def test_a_broken_write_keeps_the_file_that_was_there(tmp_path, monkeypatch):
    path = save_audio(tmp_path / "a.wav", Audio(np.ones(10) * 0.5, RATE_HZ))

    def disk_full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile.SoundFile, "write", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_audio(path, Audio(np.zeros(20), RATE_HZ))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.wav"]
    np.testing.assert_array_equal(load_audio(path).samples, np.full(10, 0.5))
