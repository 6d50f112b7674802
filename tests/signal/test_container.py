"""Sound of containers: time stamps, tracks, names, changes on the way, errors in reading."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import warnings

import av
import numpy as np
import pytest
from av.stream import Disposition

from avse_ppl.pipeline.inputs import find_video, has_audio_stream, has_video_stream
from avse_ppl.pipeline.jobs import measure_duration
from avse_ppl.signal.audio import load_audio
from avse_ppl.signal.container import read_with_ffmpeg
from avse_ppl.video.frames import read_video_frames

RATE_HZ = 16000
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def make_sound(seconds=3.0, rate_hz=RATE_HZ, n_channels=1, seed=0):
    """Low-passed noise that 16 bits hold exactly: (channel, sample)."""
    rng = np.random.default_rng(seed)
    size = (n_channels, round(seconds * rate_hz))
    noise = np.stack([np.convolve(row, np.hanning(9), "same") for row in rng.normal(size=size)])
    return np.round(noise * 0.03 * 2**15).astype("f4") / 2**15


def write_media(path, codec="pcm_s16le", sound=None, rate_hz=RATE_HZ, video="mpeg4", *, lost=(),
                sound_s=0.0, video_s=0.0, n_frames=25, tracks=1, sample_format=None,
                block=None, file_format=None, jump=(1 << 40, 0.0)):  # fmt: skip
    """Write a container; packets of the sound may be lost, or their clock jump.

    Returns the length of each packet in samples.
    """
    sound = make_sound() if sound is None else sound
    layout = LAYOUTS[len(sound)]
    with av.open(str(path), "w", format=file_format) as out:
        pictures = out.add_stream(video, rate=25) if video else None
        audio = []
        for number in range(tracks):
            one = out.add_stream(codec, rate=rate_hz, layout=layout)
            if sample_format:
                one.format = sample_format
            one.metadata["language"] = ["eng", "deu", "fra"][number]
            one.metadata["title"] = ["Director", "Studio", "Far"][number]
            one.disposition = Disposition.default if number == 1 else Disposition(0)
            audio.append(one)
        if pictures is not None:
            pictures.width = pictures.height = 64
            pictures.pix_fmt = "yuv420p"
            for index in range(n_frames):
                image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 9 * index % 255, np.uint8))
                image.pts = index + round(video_s * 25)
                out.mux(pictures.encode(image))
            out.mux(pictures.encode(None))
        for number, one in enumerate(audio):
            frame = av.AudioFrame.from_ndarray(sound / (1 + number), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate_hz, round(sound_s * rate_hz)
            size = block or one.codec_context.frame_size or 320
            convert = av.AudioResampler(one.format, layout, rate_hz, frame_size=size)
            packets = []
            for part in [*convert.resample(frame), *convert.resample(None)]:
                packets += one.encode(part)
            packets += one.encode(None)
            for index, packet in enumerate(packets):
                if index >= jump[0]:
                    packet.pts = packet.dts = packet.pts + round(jump[1] / packet.time_base)
                if index not in lost:
                    out.mux(packet)
        return audio[0].codec_context.frame_size or size


def read(source, **options):
    """`load_audio`, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        audio = load_audio(source, **options)
    return audio, [str(one.message) for one in caught if one.category is UserWarning]


def find_lag(reference, other):
    size = 1 << (len(reference) + len(other)).bit_length()
    product = np.fft.rfft(other, size) * np.fft.rfft(reference, size).conj()
    lag = int(np.fft.irfft(product, size).argmax())
    return lag if lag < size // 2 else lag - size


# --- gaps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "video"), [("a.mkv", "mpeg4"), ("a.mka", None)])
def test_lost_packets_are_silence_to_the_sample(tmp_path, name, video):
    sound, lost = make_sound(), [*range(10, 16), 30, *range(40, 49)]
    write_media(tmp_path / name, "pcm_f32le", sound, video=video, lost=lost, block=800)
    audio, remarks = read(tmp_path / name)
    expected = sound[0].copy()
    for index in lost:
        expected[800 * index : 800 * (index + 1)] = 0
    np.testing.assert_array_equal(audio.samples, expected)
    assert len(remarks) == 1
    assert re.search(r"has 3 gaps in its time stamps, 0\.80 s in all", remarks[0])


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz", "video"),
    [
        ("a.mp4", "aac", 48000, "mpeg4"),
        ("a.mp4", "aac", 16000, "mpeg4"),
        ("a.mp4", "libmp3lame", 48000, "mpeg4"),
        ("a.mp4", "ac3", 48000, "mpeg4"),
        ("a.mov", "alac", 48000, "mpeg4"),
        ("a.m4a", "aac", 44100, None),
        ("a.3gp", "aac", 16000, "mpeg4"),
        ("a.mkv", "aac", 44100, "mpeg4"),
        ("a.mkv", "libmp3lame", 44100, "mpeg4"),
        ("a.mkv", "flac", 48000, "mpeg4"),
        ("a.webm", "libopus", 48000, "vp8"),
        ("a.ts", "aac", 48000, "mpeg2video"),
        ("a.flv", "aac", 44100, "flv"),
    ],
)
def test_after_lost_packets_the_sound_is_in_time(tmp_path, name, codec, rate_hz, video):
    sound = make_sound(3.0, rate_hz)
    file_format = "mp4" if name == "a.m4a" else None
    media = [tmp_path / f"{which}{name[1:]}" for which in ("whole", "lossy")]
    write_media(media[0], codec, sound, rate_hz, video, file_format=file_format)
    size = write_media(
        media[1], codec, sound, rate_hz, video, lost=range(5, 11), file_format=file_format
    )
    (whole, before), (lossy, after) = read(media[0]), read(media[1])
    assert not any("gap" in text for text in before)
    text = f"has a gap in its time stamps, {6 * size / rate_hz:.2f} s in all"
    assert sum(text in one for one in after) == 1
    assert lossy.n_samples == whole.n_samples
    rest = slice(14 * size, None)  # codecs overlap their blocks
    assert find_lag(whole.samples[rest], lossy.samples[rest]) == 0
    assert np.corrcoef(lossy.samples[rest], whole.samples[rest])[0, 1] > 0.95


@pytest.mark.parametrize("lost", [{30}, {30, 45, 70}])
def test_single_lost_opus_packets_are_seen(tmp_path, lost):
    sound = make_sound(3.0, 48000)
    write_media(tmp_path / "a.webm", "libopus", sound, 48000, "vp8", lost=lost)
    audio, remarks = read(tmp_path / "a.webm")
    assert audio.n_samples == sound.shape[1]
    assert find_lag(sound[0, 96000:], audio.samples[96000:]) == 0
    assert f"{0.02 * len(lost):.2f} s in all" in remarks[0]


# --- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz", "video"),
    [
        ("a.mkv", "pcm_s16le", 16000, "mpeg4"),
        ("a.mkv", "aac", 16000, "mpeg4"),
        ("a.mka", "aac", 16000, None),
        ("a.webm", "libopus", 48000, "vp8"),
        ("a.mp4", "aac", 16000, "mpeg4"),
        ("a.mov", "pcm_s16le", 16000, "mpeg4"),
        ("a.ts", "ac3", 48000, "mpeg2video"),
    ],
)
@pytest.mark.parametrize("start_s", [5.0, 5000.0])
def test_a_clock_that_starts_late_is_read_whole(tmp_path, name, codec, rate_hz, video, start_s):
    sound = make_sound(3.0, rate_hz)
    write_media(
        tmp_path / name, codec, sound, rate_hz, video, sound_s=start_s, video_s=start_s,
        n_frames=75,
    )  # fmt: skip
    audio, remarks = read(tmp_path / name)
    assert audio.duration_s == pytest.approx(3.0, abs=0.07)
    assert abs(find_lag(sound[0], audio.samples)) <= 0.02 * rate_hz
    assert not any("cut short" in text or "gap" in text for text in remarks)
    if video:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            frames = list(read_video_frames(tmp_path / name))
        assert len(frames) == 75 and frames[0].time_s == 0
    for text in remarks:
        assert "ms before its video frames" in text  # the delay of the encoder


@pytest.mark.parametrize("start_s", [40_000.0, 300_000.0])
@pytest.mark.parametrize("name", ["a.mkv", "a.mov"])
def test_an_implausible_start_is_refused_and_not_padded(tmp_path, name, start_s):
    write_media(tmp_path / name, sound_s=start_s)
    text = rf"a\.{name[2:]}' starts after the first video frame by {start_s:.0f} s and lasts 3\.0 s"
    with pytest.raises(ValueError, match=f"{text}.*cannot be right; save the sound as a WAV"):
        load_audio(tmp_path / name)


@pytest.mark.parametrize("jump_s", [700.0, 40_000.0])
def test_an_implausible_gap_is_refused(tmp_path, jump_s):
    write_media(tmp_path / "a.mkv", sound=make_sound(6.0), video=None, block=800, jump=(60, jump_s))
    text = rf"has gaps of {jump_s:.0f} s and lasts 6\.0 s without.*cannot be right"
    with pytest.raises(ValueError, match=text):
        load_audio(tmp_path / "a.mkv")


def test_sound_some_minutes_after_the_pictures_is_padded(tmp_path):
    write_media(tmp_path / "a.mkv", sound_s=300.0)
    audio, remarks = read(tmp_path / "a.mkv")
    assert audio.n_samples == 303 * RATE_HZ
    assert not audio.samples[: 300 * RATE_HZ].any()
    np.testing.assert_array_equal(audio.samples[300 * RATE_HZ :], make_sound()[0])
    assert "starts 300000 ms after its video frames" in remarks[0]


def test_sound_that_ends_before_the_pictures_is_refused(tmp_path):
    write_media(tmp_path / "a.mkv", video_s=40_000.0)
    with pytest.raises(ValueError, match="ends 39997 s before its first video frame"):
        load_audio(tmp_path / "a.mkv")


@pytest.mark.parametrize("tag", [b"", b"unknown", b"nan", b"1:2", b"-1:00:00.0", b"\xff\xfe"])
def test_a_duration_tag_that_is_no_number_is_passed_over(tmp_path, tag):
    write_media(tmp_path / "a.mkv")
    data = (tmp_path / "a.mkv").read_bytes()
    assert data.count(b"00:00:03.000000000") == 1
    data = data.replace(b"00:00:03.000000000", tag.ljust(18, b"\0"))
    np.testing.assert_array_equal(read(data)[0].samples, make_sound()[0])


def test_a_size_beyond_the_file_is_one_error(tmp_path, capfd):
    write_media(tmp_path / "a.mkv")
    data = (tmp_path / "a.mkv").read_bytes()
    header = data[:4] + b"\x01" + b"\x7f" * 7 + data[5:]  # of the EBML header: 2**55 bytes
    at = data.index(b"\x18\x53\x80\x67") + 4
    segment = data[:at] + b"\x01" + b"\x7f" * 7 + data[at + 8 :]
    for number, bad in enumerate((header, segment)):
        path = tmp_path / f"{number}.mkv"
        path.write_bytes(bad)
        for source in (path, bad):
            with pytest.raises(ValueError, match=r"(\.mkv'|the bytes given).*; "):
                load_audio(source)
            assert has_video_stream(path) in (True, False)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["a.aac", "a.mp3"])
def test_a_guessed_length_is_not_held_against_a_raw_stream(tmp_path, name):
    sound = np.concatenate([np.zeros((1, 20 * 48000), "f4"), make_sound(2.0, 48000)], axis=1)
    with av.open(str(tmp_path / name), "w", options={"write_xing": "0"}) as out:
        track = out.add_stream("aac" if name == "a.aac" else "libmp3lame", 48000, layout="mono")
        track.codec_context.qscale = True  # variable bit rate
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        convert = av.AudioResampler(track.format, "mono", 48000, 1024 if name == "a.aac" else 1152)
        for part in [*convert.resample(frame), *convert.resample(None)]:
            out.mux(track.encode(part))
        out.mux(track.encode(None))
    assert load_audio(tmp_path / name).duration_s == pytest.approx(22.0, abs=0.06)


# --- changes on the way --------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_joined_transport_streams_are_read_whole(tmp_path, order):
    parts = [tmp_path / "0.ts", tmp_path / "1.ts"]
    write_media(parts[0], "aac", make_sound(2.0, 48000), 48000, "mpeg2video", n_frames=50)
    write_media(parts[1], "aac", make_sound(4.0, 44100, 2), 44100, "mpeg2video", n_frames=100)
    joined = b"".join(parts[number].read_bytes() for number in order)
    audio, remarks = read(joined)
    assert (audio.sample_rate_hz, audio.n_channels) == (44100, 2)
    assert audio.duration_s == pytest.approx(6.0, abs=0.1)
    mono = make_sound(2.0, 48000)[0]
    position = 0 if order == (0, 1) else 4 * 44100
    first = audio.mono().resample(48000).samples[round(position * 48 / 44.1) :][: 2 * 48000]
    lag = find_lag(mono, first)
    assert abs(lag) < 0.05 * 48000
    shifted = np.roll(first, -lag)[5000:80000]
    assert np.corrcoef(shifted, mono[5000:80000])[0, 1] > 0.9
    text = " ".join(remarks)
    assert "changes on its way" in text and "converted to 44100 Hz stereo" in text
    assert "time stamps that go back once (joined recordings?)" in text
    with pytest.warns(UserWarning, match="video of .* go back once"):
        times = [frame.time_s for frame in read_video_frames(joined)]
    np.testing.assert_allclose(times, np.arange(150) / 25, atol=1e-3)


def test_joined_raw_streams_are_read_whole(tmp_path):
    write_media(tmp_path / "0.aac", "aac", make_sound(2.0, 48000), 48000, None, file_format="adts")
    write_media(
        tmp_path / "1.aac", "aac", make_sound(3.0, 44100, 2), 44100, None, file_format="adts"
    )
    audio, remarks = read((tmp_path / "0.aac").read_bytes() + (tmp_path / "1.aac").read_bytes())
    assert audio.duration_s == pytest.approx(5.07, abs=0.06)
    assert len(remarks) == 1 and "changes on its way" in remarks[0]


@pytest.mark.parametrize(
    ("name", "codec", "tolerance"),
    [
        ("a.mkv", "pcm_f64le", 0.0),
        ("a.mov", "pcm_f64be", 0.0),
        ("a.mkv", "pcm_f32le", 0.0),
        ("a.mkv", "pcm_s24le", 0.0),
        ("a.mkv", "pcm_s32le", 0.0),
        ("a.mkv", "pcm_s16be", 0.0),
        ("a.mkv", "pcm_u8", 1 / 128),
        ("a.mov", "alac", 0.0),
        ("a.nut", "pcm_f64le", 0.0),
    ],
)
def test_sample_formats(tmp_path, name, codec, tolerance):
    sound = make_sound(1.0, n_channels=2)
    write_media(tmp_path / name, codec, sound)
    audio, remarks = read(tmp_path / name)
    assert remarks == []
    np.testing.assert_allclose(audio.samples, sound, atol=tolerance)


def test_six_channels_are_kept(tmp_path):
    sound = make_sound(1.0, n_channels=6)
    write_media(tmp_path / "a.mkv", "pcm_s16le", sound)
    np.testing.assert_array_equal(load_audio(tmp_path / "a.mkv").samples, sound)


# --- tracks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mkv", "a.mka"])
def test_the_default_audio_track_is_taken_and_told(tmp_path, name):
    sound = make_sound()
    write_media(
        tmp_path / name, "pcm_f32le", sound, video=None if name == "a.mka" else "mpeg4", tracks=3
    )
    audio, remarks = read(tmp_path / name)
    np.testing.assert_array_equal(audio.samples, sound[0] / 2)
    assert len(remarks) == 1
    for text in ("3 audio tracks", "0 (eng, 'Director', 1 channel)", "1 (deu, 'Studio'",
                 "took number 1, flagged as the default", "track="):  # fmt: skip
        assert text in remarks[0]
    for number in range(3):
        audio, remarks = read(tmp_path / name, track=number)
        np.testing.assert_array_equal(audio.samples, sound[0] / np.float32(1 + number))
        assert remarks == []
    for bad in (3, -1, "deu"):
        with pytest.raises(
            ValueError, match=rf"expected audio track {bad!r} \(from 0\) .* found 3"
        ):
            load_audio(tmp_path / name, track=bad)


def test_a_recording_of_one_track_has_number_0_only(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", make_sound()[0], RATE_HZ)
    assert load_audio(tmp_path / "a.wav", track=0).n_samples == 3 * RATE_HZ
    with pytest.raises(ValueError, match=r"expected audio track 1 \(from 0\) in .* found 1"):
        load_audio(tmp_path / "a.wav", track=1)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "take:1.mkv", "14:05 meeting.mkv", "http:x.mkv", "concat:a|b.mkv", "-take.mkv", "a%03d.mkv",
        "Gespräch 会議.mkv", "pipe:0.mkv", "a?b#c.mkv", "file:a.mkv", "[a].mkv", "a\nb.mkv",
    ],
)  # fmt: skip
def test_no_name_is_taken_for_a_protocol(tmp_path, monkeypatch, name):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    write_media(tmp_path / "plain.mkv")
    (tmp_path / "plain.mkv").rename(tmp_path / name)
    assert has_video_stream(name) and has_audio_stream(name)
    assert find_video(Path(name), None) == Path(name)
    assert measure_duration(Path(name)) == pytest.approx(3.0, abs=0.01)
    np.testing.assert_array_equal(load_audio(name).samples, make_sound()[0])
    assert len(list(read_video_frames(name))) == 25


def test_a_playlist_opens_nothing(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "secret.wav", make_sound()[0], RATE_HZ)
    lists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {tmp_path}/secret.wav\n",
    ]
    for text in lists:
        (tmp_path / "a.mp4").write_text(text)
        with pytest.raises(ValueError, match=r"'.*a\.mp4'"):
            load_audio(tmp_path / "a.mp4")


def test_metadata_of_another_encoding_is_no_error(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        out.metadata["title"] = "Gesprxch"
        track = out.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(make_sound(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, 0
        for part in av.AudioResampler("s16", "mono", RATE_HZ).resample(frame):
            out.mux(track.encode(part))
        out.mux(track.encode(None))
    data = (tmp_path / "a.mkv").read_bytes().replace(b"Gesprxch", b"Gespr\xe4ch")
    np.testing.assert_array_equal(load_audio(data).samples, make_sound()[0])


# --- errors in reading ---------------------------------------------------------------------------


class BrokenFile(io.BytesIO):
    """A file whose reading fails beyond a place."""

    def __init__(self, data, beyond, error):
        super().__init__(data)
        self.beyond, self.error = beyond, error

    def read(self, size=-1):
        if self.tell() >= self.beyond:
            if self.error is None:
                signal.raise_signal(signal.SIGINT)
            else:
                raise self.error
        return super().read(size)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(5, "Input/output error"), OSError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (MemoryError(), MemoryError),
        (None, KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("name", ["a.mkv", "a.mov", "a.avi"])
@pytest.mark.parametrize("part", [0.0, 0.4, 0.8])
def test_what_reading_raises_is_raised(tmp_path, capfd, name, error, expected, part):
    write_media(tmp_path / name, sound=make_sound(20.0))
    data = (tmp_path / name).read_bytes()
    handle = BrokenFile(data, part * len(data), error)
    with pytest.raises(expected) as caught:
        read_with_ffmpeg(handle, "'a file'")
    if expected is OSError:
        assert caught.value.errno == 5
        assert str(caught.value) == "[Errno 5] Input/output error: 'a file'"
    assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert load_audio(data).n_samples == 20 * RATE_HZ  # nothing is left over for the next file


@pytest.mark.parametrize("level", ["VERBOSE", "DEBUG", "ERROR"])
def test_a_host_that_logs_does_not_hang(level):
    code = (
        f"import av; av.logging.set_level(av.logging.{level})\n"
        "from avse_ppl.video.frames import read_video_frames\n"
        "clip = 'examples/data/speech.mkv'\n"
        "for _ in range(10): next(read_video_frames(clip))\n"
        "print(len(list(read_video_frames(clip))), av.logging.get_level())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split()[0] == "75" and done.stdout.split()[1] != "None"
