"""Streams: the same samples however they are cut, in time, soon, in constant memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

import avse_ppl
from avse_ppl import Stft, StreamEnhancer, enhance_stream
from avse_ppl.data import highpass, mix
from avse_ppl.models.networks.attention_fusion import AttentionFusionNetwork
from avse_ppl.models.networks.tcn import TcnNetwork
from avse_ppl.models.predictors.network import NetworkPredictor
from tests.helpers import BUNDLED, make_network, perturb

RATES_HZ = (8000, 16000, 44100, 48000)
FRONT_END = Stft(512, 256)


def make_predictor(stft=FRONT_END):
    network = TcnNetwork(stft.freq, widths=(4, 8), inner=12, repeats=2, dilations=3)
    return NetworkPredictor(perturb(network), stft, causal=True)


def make_identity():
    """A network whose mask is 1, and whose error has the power of the mixture."""
    predictor = make_predictor()
    with torch.no_grad():
        predictor.network.output.weight.zero_()
        predictor.network.output.bias.copy_(torch.tensor([20.0, 0.0, 0.0]))
    return predictor


@pytest.fixture
def predictor():
    return make_predictor()


def noise(count, seed=0):
    """White noise whose loudness changes."""
    random = np.random.default_rng(seed)
    gain = np.repeat(random.uniform(0.01, 1.0, count // 1000 + 1), 1000)[:count]
    return (gain * random.normal(size=count)).astype("float32")


def run(stream, wave, sizes=(100_000,)):
    """Speech, lower and upper ``(3, sample)`` of a wave cut into blocks of these sizes."""
    parts, begin, turn = [], 0, 0
    while begin < len(wave):
        size = sizes[turn % len(sizes)]
        parts.append(np.stack(stream.process(wave[begin : begin + size])))
        begin, turn = begin + size, turn + 1
    return np.concatenate([*parts, np.stack(stream.flush())], axis=1)


# --- the same samples ----------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [*RATES_HZ, 22050])
def test_any_cut_gives_the_same_samples(predictor, rate_hz):
    wave = noise(9001)
    stream = StreamEnhancer(rate_hz, predictor=predictor)
    whole = run(stream, wave)
    assert whole.shape == (3, len(wave)) and whole.dtype == np.float32
    for seed in range(3):
        sizes = np.random.default_rng(seed).integers(1, (60, 600, 5000)[seed], size=50)
        np.testing.assert_allclose(run(stream, wave, sizes), whole, atol=2e-5)


def test_a_known_level_gives_what_the_causal_network_gives(predictor):
    wave = noise(75001)  # more frames than its running mean takes as they are
    values = FRONT_END.forward(torch.from_numpy(wave))
    level = float(values.abs().square().mean().sqrt())
    stream = StreamEnhancer(16000, predictor=predictor, level=level)
    expected = FRONT_END.inverse(predictor.predict_law(torch.from_numpy(wave)).mean[0], len(wave))
    np.testing.assert_allclose(run(stream, wave, (5000,))[0], expected.numpy(), atol=1e-5)
    other = replace(predictor, causal=False).predict_law(torch.from_numpy(wave)).mean[0]
    assert np.abs(FRONT_END.inverse(other, len(wave)).numpy() - expected.numpy()).max() > 1e-3


def test_a_network_that_sees_the_lips_only_hears_in_a_stream():
    settings = {"widths": (4, 8), "inner": 12, "repeats": 1, "dilations": 2, "visual": 3}
    network = perturb(AttentionFusionNetwork(257, **settings))
    wave = noise(3000)
    both = NetworkPredictor(network, FRONT_END), NetworkPredictor(network.trunk, FRONT_END)
    found, alone = (run(StreamEnhancer(16000, predictor=one), wave) for one in both)
    np.testing.assert_array_equal(found, alone)


def test_int16_is_in_units_of_full_scale(predictor):
    stream = StreamEnhancer(16000, predictor=predictor)
    integers = (8000 * noise(3000)).clip(-32768, 32767).astype("int16")
    floats = integers / 32768.0
    np.testing.assert_array_equal(run(stream, integers), run(stream, floats))


def test_loudness_does_not_count(predictor):
    stream = StreamEnhancer(16000, predictor=predictor)
    wave = noise(20000)
    np.testing.assert_allclose(run(stream, 1e-3 * wave), 1e-3 * run(stream, wave), atol=1e-7)


def test_a_new_stream_begins_after_flush_and_after_reset(predictor):
    stream, wave = StreamEnhancer(48000, predictor=predictor), noise(20000)
    first = run(stream, wave)
    np.testing.assert_array_equal(run(stream, wave), first)
    stream.process(5.0 * noise(7777, seed=1))
    stream.reset()
    np.testing.assert_array_equal(run(stream, wave), first)


def test_streams_on_one_network_do_not_mix(predictor):
    waves = noise(12000), noise(12000, seed=1)
    alone = [run(StreamEnhancer(16000, predictor=predictor), wave, (500,)) for wave in waves]
    streams = [StreamEnhancer(16000, predictor=predictor) for _ in waves]
    parts = [[], []]
    for begin in range(0, 12000, 500):
        for i in range(2):
            parts[i].append(np.stack(streams[i].process(waves[i][begin : begin + 500])))
    for i in range(2):
        together = np.concatenate([*parts[i], np.stack(streams[i].flush())], 1)
        np.testing.assert_array_equal(together, alone[i])


# --- in time, and soon ---------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [4000, *RATES_HZ, 192000])
def test_as_many_samples_come_out_as_went_in(predictor, rate_hz):
    stream = StreamEnhancer(rate_hz, predictor=predictor)
    for count in (0, 1, 2, 33, 255, 256, 257, 511, 512, 513, 1024, 3001):
        assert run(stream, noise(count), (300,)).shape == (3, count)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_what_passes_is_in_time(rate_hz):
    stream = StreamEnhancer(rate_hz, predictor=make_identity())
    time_s = np.arange(rate_hz // 4) / rate_hz
    for freq_hz in (100.0, 1000.0, 0.43 * min(rate_hz, 16000)):
        tone = np.sin(2 * np.pi * freq_hz * time_s).astype("float32")
        found = run(stream, tone, (4410,))[0]
        inside = slice(rate_hz // 20, -rate_hz // 20)
        assert np.abs(found - tone)[inside].max() < 2e-3


def test_what_is_above_the_nyquist_frequency_is_gone():
    stream = StreamEnhancer(48000, predictor=make_identity())
    tone = np.sin(2 * np.pi * 9000 * np.arange(24000) / 48000).astype("float32")
    assert np.abs(run(stream, tone)[0])[2400:-2400].max() < 1e-3


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_latency_is_kept_and_at_most_64_ms(predictor, rate_hz):
    stream = StreamEnhancer(rate_hz, predictor=predictor)
    assert stream.latency_s <= 0.064
    wave, returned, step = noise(rate_hz // 6), 0, rate_hz // 1000
    for taken in range(step, len(wave), step):
        returned += len(stream.process(wave[taken - step : taken]).speech)
        # All but the samples of the last moments are there.
        assert taken - returned <= stream.latency_s * rate_hz


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_sample_changes_nothing_that_was_returned_before_it(predictor, rate_hz):
    stream = StreamEnhancer(rate_hz, predictor=predictor)
    wave = noise(rate_hz // 2)
    changed, place = wave.copy(), rate_hz // 3
    changed[place] += 1.0
    begin = np.flatnonzero(np.abs(run(stream, wave) - run(stream, changed)).max(0) > 1e-6)[0]
    assert place - stream.latency_s * rate_hz <= begin <= place


# --- in constant memory --------------------------------------------------------------------------


def count_bytes(item):
    """Bytes of all arrays that a stream holds, without its network."""
    if isinstance(item, torch.Tensor | np.ndarray):
        return item.nbytes
    if isinstance(item, list | tuple):
        return sum(count_bytes(part) for part in item)
    if isinstance(item, NetworkPredictor | TcnNetwork) or not hasattr(item, "__dict__"):
        return 0
    return sum(count_bytes(part) for part in vars(item).values())


@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_what_is_kept_does_not_grow(predictor, rate_hz):
    stream = StreamEnhancer(rate_hz, predictor=predictor)
    sizes = []
    for second in range(10):
        for part in np.array_split(noise(rate_hz, second), 2):
            stream.process(part)
        sizes.append(count_bytes(stream))
    assert sizes[0] > 10_000
    assert max(sizes) - min(sizes) < 10_000


@pytest.mark.slow
def test_memory_is_constant_over_an_hour(predictor):
    stream, second = StreamEnhancer(48000, predictor=predictor), noise(48000)
    stream.process(second)
    tracemalloc.start()
    for number in range(3600):
        stream.process(second)
        if number == 60:
            early = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
    late, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert late - early < 100_000
    assert peak < 20e6


def test_a_long_block_takes_no_more_than_its_output(predictor):
    stream = StreamEnhancer(48000, predictor=predictor)
    block = np.zeros(48000 * 10, np.float32)
    tracemalloc.start()
    stream.process(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * block.nbytes


# --- bands ---------------------------------------------------------------------------------------


def test_bands_are_ordered_and_nest(predictor):
    wave = noise(16000)
    bands = [
        run(StreamEnhancer(16000, predictor=predictor, probability=p), wave) for p in (0.5, 0.9)
    ]
    for speech, lower, upper in bands:
        assert (lower <= speech).all() and (speech <= upper).all()
        np.testing.assert_allclose(upper - speech, speech - lower, atol=1e-6)
    ratio = (bands[1][2] - bands[1][1]).sum() / (bands[0][2] - bands[0][1]).sum()
    assert ratio == pytest.approx(1.644854 / 0.674490, rel=1e-5)


def test_the_width_of_a_band_is_that_of_the_law():
    # White noise of variance 1, and an error of the power of the mixture.
    wave = np.random.default_rng(0).normal(size=160000).astype("float32")
    _, lower, upper = run(StreamEnhancer(16000, predictor=make_identity()), wave)
    variance = ((upper - lower) / (2 * 1.644854))[1000:-1000] ** 2
    assert variance.mean() == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("rate_hz", [16000, 48000])
def test_bands_cover_speech_in_rain(rate_hz):
    clean, rain = (
        avse_ppl.load_audio(BUNDLED / f"{name}.flac").samples for name in ("speech", "rain")
    )
    mixed = mix(highpass(clean, 16000), rain, 3.0, seed=0)
    speech, noisy = (
        avse_ppl.Audio(wave.astype("float32"), 16000).resample(rate_hz).samples
        for wave in (mixed.speech, mixed.mixture)
    )
    found, lower, upper = run(StreamEnhancer(rate_hz), noisy)
    active = np.convolve(speech**2, np.ones(rate_hz // 50), "same")
    active = active > 1e-4 * active.max()
    covered = ((lower <= speech) & (speech <= upper))[active].mean()
    assert 0.88 < covered < 0.97
    assert ((found - speech) ** 2).sum() < 0.2 * ((noisy - speech) ** 2).sum()


# --- silence, and what is refused ----------------------------------------------------------------


def test_silence_stays_silent(predictor):
    stream = StreamEnhancer(16000, predictor=predictor)
    quiet = run(stream, np.zeros(5000, np.float32))
    assert np.abs(quiet).max() < 1e-8
    # And is not counted as loudness: what follows is as it would be without it.
    wave = noise(40000)
    after = run(stream, np.concatenate((np.zeros(51200, np.float32), wave)))[:, 51200:]
    assert np.corrcoef(after[0], run(stream, wave)[0])[0, 1] > 0.98


def test_blocks_are_taken_lazily(predictor):
    taken = []

    def blocks():
        for number in range(10):
            taken.append(number)
            yield noise(400, number)

    found = enhance_stream(blocks(), 16000, predictor=predictor)
    assert taken == []
    first = next(found)
    assert taken == [0, 1] and len(first.speech) == 512
    assert len(first.speech) + sum(len(block.speech) for block in found) == 4000


@pytest.mark.parametrize(
    ("block", "error", "message"),
    [
        (np.zeros((2, 100)), ValueError, "one channel, .*shape \\(2, 100\\)"),
        (np.float32(1.0), ValueError, "one channel"),
        (np.array([0.0, np.nan]), ValueError, "NaN, infinite"),
        (np.array([0.0, -np.inf]), ValueError, "NaN, infinite"),
        (np.array([1e30]), ValueError, "above 1e9"),
        (np.zeros(4, np.int32), TypeError, "int16 or of floating point, found int32"),
        (np.zeros(4, bool), TypeError, "found bool"),
        (np.zeros(4, complex), TypeError, "found complex128"),
        (["a"], TypeError, "found <U1"),
    ],
)
def test_a_block_that_is_none(predictor, block, error, message):
    stream, wave = StreamEnhancer(16000, predictor=predictor), noise(4000)
    expected = run(stream, wave)
    first = np.stack(stream.process(wave[:1000]))
    with pytest.raises(error, match=message):
        stream.process(block)
    rest = run(stream, wave[1000:])  # what was refused has left no trace
    np.testing.assert_allclose(np.concatenate((first, rest), 1), expected, atol=1e-6)


def test_an_empty_block_is_nothing(predictor):
    assert len(StreamEnhancer(16000, predictor=predictor).process([]).speech) == 0


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"sample_rate_hz": 3999}, ValueError, "at least 4000"),
        ({"sample_rate_hz": 192001}, ValueError, "at most 192000"),
        ({"sample_rate_hz": 16000.0}, TypeError, "whole number"),
        ({"probability": 0.0}, ValueError, "between 0 and 1"),
        ({"probability": 90}, ValueError, "between 0 and 1"),
        ({"level": 0.0}, ValueError, "level must be a positive"),
        ({"level": float("nan")}, ValueError, "level must be a positive"),
        ({"predictor": lambda wave, rate_hz: wave}, TypeError, "found function"),
        ({"predictor": "tcvae"}, ValueError, "expected 'tcn'"),
        ({"predictor": "nowhere"}, FileNotFoundError, "nowhere"),
        ({"predictor": make_network("vae")}, TypeError, "found VaeNetwork"),
        ({"predictor": make_predictor(Stft(512, 128))}, ValueError, "windows of two hops"),
    ],
)
def test_settings_that_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        enhance_stream([], **{"sample_rate_hz": 16000, **settings})
