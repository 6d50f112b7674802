"""Resampling of streams: like that of the whole, in time, with the stated delay."""

from __future__ import annotations

import numpy as np
import pytest
import soxr

from avse_ppl.signal.stream_resampler import StreamResampler

PAIRS = ((8000, 16000), (16000, 8000), (44100, 16000), (16000, 44100), (48000, 16000),
         (16000, 48000), (22050, 16000), (4001, 16000))  # fmt: skip


def smooth(rate_hz, top_hz, seconds=0.3, channels=2):
    """Noise below a frequency, ``(sample, channel)``, which begins and ends softly."""
    count = int(seconds * rate_hz)
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=(count, channels)), axis=0)
    spectrum[np.fft.rfftfreq(count, 1 / rate_hz) > top_hz] = 0
    wave = np.fft.irfft(spectrum, n=count, axis=0) * np.hanning(count)[:, None]
    return (wave / np.abs(wave).max()).astype("float32")


@pytest.mark.parametrize(("rate_in_hz", "rate_out_hz"), PAIRS)
def test_it_is_what_a_library_makes_of_the_whole(rate_in_hz, rate_out_hz):
    wave = smooth(rate_in_hz, 0.4 * min(rate_in_hz, rate_out_hz))
    stream = StreamResampler(rate_in_hz, rate_out_hz, channels=2)
    parts, delay = [], round(stream.latency_s * rate_out_hz) + 1
    for end in range(7, len(wave) + 7, 7):
        parts.append(stream.process(wave[end - 7 : end]))
        taken = min(end, len(wave))
        assert sum(map(len, parts)) >= taken * rate_out_hz / rate_in_hz - delay
    parts.append(stream.flush())
    found = np.concatenate(parts)
    assert found.dtype == np.float32
    assert len(found) == -(-len(wave) * rate_out_hz // rate_in_hz)
    expected = soxr.resample(wave, rate_in_hz, rate_out_hz)[: len(found)]
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-3)


def test_cuts_do_not_count():
    wave, stream = smooth(44100, 6000), StreamResampler(44100, 16000, channels=2)
    whole = np.concatenate((stream.process(wave), stream.flush()))
    random = np.random.default_rng(1)
    parts = [stream.process(part) for part in np.split(wave, np.sort(random.integers(0, 13000, 9)))]
    np.testing.assert_allclose(np.concatenate([*parts, stream.flush()]), whole, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 100])
def test_short_streams_have_their_length(count):
    stream = StreamResampler(48000, 16000)
    found = np.concatenate((stream.process(np.ones((count, 1), np.float32)), stream.flush()))
    assert found.shape == (-(-count // 3), 1)


def test_what_is_above_the_lower_nyquist_frequency_is_filtered_out():
    tone = np.sin(2 * np.pi * 8800 * np.arange(9600) / 48000).astype("float32")[:, None]
    assert np.abs(StreamResampler(48000, 16000).process(tone))[200:].max() < 1e-3
