"""Standard input to standard output: formats, channels, odd reads, bands."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from avse_ppl import StreamEnhancer
from avse_ppl.pipeline.stream_pipe import StreamProgress, enhance_pipe
from avse_ppl.signal.wav_stream import SampleStream, encode_samples
from tests.pipeline.test_stream import make_predictor, noise, run


class Pipe(io.BytesIO):
    """A pipe that gives 999 bytes at a time."""

    def read1(self, size=-1):
        return super().read1(min(999, size))


@pytest.fixture
def predictor(monkeypatch):
    """A small network in place of the one that is shipped."""
    found = make_predictor()
    monkeypatch.setattr("avse_ppl.pipeline.stream.load_predictor", lambda *_: found)
    return found


def write_wav(channels, rate_hz=16000, subtype="FLOAT"):
    file = io.BytesIO()
    soundfile.write(file, np.stack(channels, 1), rate_hz, format="WAV", subtype=subtype)
    return file.getvalue()


def pipe(data, **settings):
    sink = io.BytesIO()
    progress = enhance_pipe(Pipe(data), sink, **settings)
    return sink.getvalue(), progress


def read(data):
    return soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T


@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_channels_are_enhanced_by_themselves(predictor, rate_hz):
    channels = [noise(5000, seed=0), noise(5000, seed=1)]
    data, progress = pipe(write_wav(channels, rate_hz))
    for wave, found in zip(channels, read(data), strict=True):
        alone = run(StreamEnhancer(rate_hz, predictor=predictor), wave)[0]
        np.testing.assert_allclose(found, alone, atol=1e-5)
    assert progress.sound_s == pytest.approx(5000 / rate_hz) and progress.real_time_factor > 0


def test_bands_follow_each_channel(predictor):
    channels = [noise(3000, seed=0), noise(3000, seed=1)]
    data, _ = pipe(write_wav(channels), band=0.5)
    found = read(data)
    assert found.shape == (6, 3000)
    for number, wave in enumerate(channels):
        alone = run(StreamEnhancer(16000, predictor=predictor, probability=0.5), wave)
        np.testing.assert_allclose(found[3 * number : 3 * number + 3], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("subtype", "expected"),
    [("PCM_U8", "PCM_16"), ("PCM_16", "PCM_16"), ("PCM_24", "FLOAT"), ("DOUBLE", "FLOAT")],
)
def test_the_kind_of_sample_that_goes_out(predictor, subtype, expected):
    data, _ = pipe(write_wav([0.1 * noise(2000)], subtype=subtype))
    info = soundfile.info(io.BytesIO(data))
    assert (info.subtype, info.frames, info.samplerate) == (expected, 2000, 16000)


@pytest.mark.parametrize("code", ["s16", "f32"])
def test_raw_samples_have_no_header(predictor, code):
    wave = 0.1 * noise(3001)
    raw = SampleStream(8000, code=code)
    data, _ = pipe(encode_samples(wave, code), raw=raw)
    found = np.frombuffer(data, "<i2" if code == "s16" else "<f4")
    expected = run(StreamEnhancer(8000, predictor=predictor), wave)[0]
    np.testing.assert_allclose(found / (32768 if code == "s16" else 1), expected, atol=1e-4)


def test_no_samples_are_an_error_and_bad_ones_too(predictor):
    with pytest.raises(ValueError, match="stdin held no samples"):
        pipe(b"", raw=SampleStream(16000))
    with pytest.raises(ValueError, match="NaN, infinite"):
        pipe(np.full(1000, np.nan, "<f4").tobytes(), raw=SampleStream(16000, code="f32"))
    with pytest.raises(ValueError, match="at least 4000"):
        pipe(bytes(2000), raw=SampleStream(1000))


def test_what_was_done_is_known_when_the_reader_goes_away(predictor):
    class Closed(io.BytesIO):
        def write(self, data):
            raise BrokenPipeError

    progress = StreamProgress()
    with pytest.raises(BrokenPipeError):
        enhance_pipe(Pipe(bytes(32000)), Closed(), raw=SampleStream(16000), progress=progress)
    assert 0 < progress.sound_s < 0.2
