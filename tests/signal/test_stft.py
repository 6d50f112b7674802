"""The front end: there and back again, at any length, alone or in a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avse_ppl import Frames, Spectrogram, Stft

FRONT_ENDS = [
    Stft(n_fft, hop, window)
    for n_fft, hop in [(1024, 256), (1024, 512), (512, 128), (512, 200), (64, 32), (33, 11)]
    for window in ("sine", "hann")
]


def noise(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n).astype(np.float32)


def direct(wave: np.ndarray, stft: Stft) -> np.ndarray:
    """The definition, in float64: ``X_ft = sum_n w_n x_{n + tH} exp(-2 i pi f n / N)``."""
    n = np.arange(stft.n_fft)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / stft.n_fft)
    window = np.sqrt(hann) if stft.window == "sine" else hann
    half = stft.n_fft // 2
    padded = np.pad(wave.astype(np.float64), (half, 2 * stft.n_fft))
    count = 1 + int(np.ceil(len(wave) / stft.hop))
    pieces = [padded[t * stft.hop : t * stft.hop + stft.n_fft] * window for t in range(count)]
    return np.fft.rfft(pieces, axis=-1).T


@pytest.mark.parametrize("stft", FRONT_ENDS, ids=str)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(n=st.integers(1, 5000), seed=st.integers(0, 10_000))
def test_reconstruction_is_perfect_at_any_length(stft, n, seed):
    wave = noise(n, seed)
    back = stft.synthesise(stft.analyse(wave))
    assert len(back) == 1
    assert back[0].shape == wave.shape
    assert back[0].dtype == np.float32
    assert np.abs(back[0] - wave).max() < 1e-5


@pytest.mark.parametrize("n", [1, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 1279, 1281, 4999])
def test_reconstruction_is_perfect_to_the_last_sample_around_frame_edges(n):
    for window in ("sine", "hann"):
        for hop in (256, 512):
            stft = Stft(1024, hop, window)
            assert np.abs(stft.synthesise(stft.analyse(noise(n)))[0] - noise(n)).max() < 1e-5


@pytest.mark.parametrize("stft", FRONT_ENDS, ids=str)
@pytest.mark.parametrize("n", [1, 700, 1024])
def test_forward_is_the_sum_of_the_definition(stft, n):
    wave = noise(n)
    values = stft.forward(torch.from_numpy(wave))
    expected = direct(wave, stft)
    assert values.shape == (stft.freq, stft.count_frames(n)) == expected.shape
    np.testing.assert_allclose(values.numpy(), expected, atol=2e-4)


def test_forward_and_inverse_keep_leading_dimensions_and_float64():
    stft = Stft(64, 16)
    waves = torch.randn(2, 3, 200, dtype=torch.float64)
    values = stft.forward(waves)
    assert values.shape == (2, 3, 33, 14)
    assert values.dtype == torch.complex128
    torch.testing.assert_close(values[1, 2], stft.forward(waves[1, 2]))
    back = stft.inverse(values, 200)
    assert back.dtype == torch.float64
    torch.testing.assert_close(back, waves, atol=1e-12, rtol=0)


def test_inverse_ignores_frames_past_the_end():
    stft = Stft(64, 16)
    wave = torch.from_numpy(noise(200))
    values = torch.nn.functional.pad(stft.forward(wave), (0, 5), value=7.0)
    torch.testing.assert_close(stft.inverse(values, 200), wave, atol=1e-5, rtol=0)


def test_a_batch_is_the_same_as_a_loop():
    stft = Stft(256, 64)
    waves = [noise(n, seed=n) * (1 + i) for i, n in enumerate((1000, 3000, 999, 64, 1))]
    batch = stft.analyse(waves)
    assert batch.recordings == 5
    assert batch.n_samples == (1000, 3000, 999, 64, 1)
    back = stft.synthesise(batch)
    for i, wave in enumerate(waves):
        alone = stft.analyse(wave)
        one = batch.select(i)
        assert one.frames == alone.frames
        assert one.n_samples == alone.n_samples
        assert one.stft == alone.stft
        torch.testing.assert_close(one.values, alone.values, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(one.scale, alone.scale)
        assert np.abs(back[i] - wave).max() < 1e-5
        assert np.abs(stft.synthesise(one)[0] - wave).max() < 1e-5


@pytest.mark.parametrize("form", ["array", "tensor", "list of arrays", "list of tensors"])
def test_equally_long_waveforms_come_in_any_form(form):
    stft, rows = Stft(64, 16), np.stack([noise(300, 1), noise(300, 2)])
    waves = {
        "array": rows,
        "tensor": torch.from_numpy(rows),
        "list of arrays": list(rows),
        "list of tensors": list(torch.from_numpy(rows)),
    }[form]
    found = stft.analyse(waves)
    torch.testing.assert_close(found.values[1:], stft.analyse(rows[1]).values)
    assert found.recordings == 2


def test_float64_and_integer_samples_are_taken_as_numbers():
    stft = Stft(64, 16)
    counted = np.array([3, -2, 1, 0, 4] * 20)
    as_float = stft.analyse(counted.astype(np.float32))
    for other in (counted, counted.astype(np.float64)):
        torch.testing.assert_close(stft.analyse(other).values, as_float.values)


@pytest.mark.parametrize("level", [1e-6, 1.0, 1e4])
def test_each_recording_has_unit_mean_power_over_its_own_frames(level):
    stft = Stft(256, 64)
    spectrogram = stft.analyse([level * noise(5000), level * 3 * noise(1234), level * noise(9)])
    for i in range(3):
        assert float(spectrogram.select(i).power.mean()) == pytest.approx(1.0, rel=1e-4)
    wave = level * noise(5000)
    expected = direct(wave, stft)
    assert float(spectrogram.scale[0]) == pytest.approx(
        np.sqrt(np.mean(np.abs(expected) ** 2)), rel=1e-4
    )


def test_power_is_the_squared_magnitude():
    spectrogram = Stft(64, 16).analyse(noise(100))
    torch.testing.assert_close(spectrogram.power, spectrogram.values.abs().square())


def test_silence_stays_silence_and_finite():
    stft = Stft(64, 16)
    spectrogram = stft.analyse(np.zeros(500, np.float32))
    assert not spectrogram.values.abs().any()
    assert float(spectrogram.scale) > 0
    assert not stft.synthesise(spectrogram)[0].any()


def test_mask_marks_the_frames_of_each_recording():
    stft = Stft(64, 16)
    spectrogram = stft.analyse([noise(100), noise(161)])
    assert spectrogram.mask is not None
    assert spectrogram.mask.shape == (2, 1, 12)
    assert spectrogram.mask[0, 0].tolist() == [True] * 8 + [False] * 4
    assert bool(spectrogram.mask[1].all())
    assert not spectrogram.values[0, :, 8:].abs().any()
    assert bool((spectrogram.values[0, :, :8].abs().sum(0) > 0).all())


def test_no_mask_where_nothing_is_padded():
    assert Stft(64, 16).analyse(noise(100)).mask is None
    assert Stft(64, 16).analyse([noise(100), noise(97)]).mask is None  # both have 8 frames


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_changes_every_array_and_the_frames(dtype):
    original = Stft(64, 16).analyse([noise(100), noise(161)])
    moved = original.to("cpu", dtype)
    assert isinstance(moved, Spectrogram)
    assert moved.values.dtype == {torch.float32: torch.complex64}.get(dtype, torch.complex128)
    assert moved.scale.dtype == moved.power.dtype == dtype
    assert moved.frames.dtype == moved.frames.freq_hz.dtype == moved.frames.time_s.dtype == dtype
    assert moved.frames.device == torch.device("cpu")
    torch.testing.assert_close(moved.values.to(torch.complex64), original.values)
    assert original.frames.dtype == torch.float32
    for i, n in enumerate((100, 161)):
        assert np.abs(Stft(64, 16).synthesise(moved)[i] - noise(n)).max() < 1e-5


def test_to_reaches_another_device():
    moved = Stft(64, 16).analyse([noise(100), noise(161)]).to("meta", torch.float64)
    arrays = [moved.values, moved.scale, moved.frames.freq_hz, moved.frames.time_s, moved.power]
    assert {a.device.type for a in arrays} == {"meta"}


@pytest.mark.gpu
def test_round_trip_on_cuda():
    stft = Stft()
    moved = stft.analyse([noise(5000), noise(3001)]).to("cuda", torch.float64)
    assert moved.mask is not None
    assert moved.mask.is_cuda
    assert moved.frames.freq_hz.is_cuda
    for wave, back in zip([noise(5000), noise(3001)], stft.synthesise(moved), strict=True):
        assert np.abs(wave - back).max() < 1e-5


def test_frames_say_where_bins_and_frames_lie():
    stft = Stft(512, 128, sample_rate_hz=8000)
    frames = stft.frames(1000)
    assert (frames.freq, frames.time) == (257, 9)
    assert frames.freq_hz.shape == (257, 1)
    np.testing.assert_allclose(frames.freq_hz[:, 0], np.fft.rfftfreq(512, 1 / 8000))
    assert frames.time_s.shape == (9,)
    np.testing.assert_allclose(frames.time_s, np.arange(9) * 0.016, rtol=1e-6)
    spectrogram = stft.analyse(noise(1000))
    assert spectrogram.frames == frames
    assert spectrogram.values.shape == (1, frames.freq, frames.time)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_frames_arrays_have_the_asked_device_and_dtype(device, dtype):
    frames = Frames(freq=5, time=7, device=torch.device(device), dtype=dtype)
    for array in (frames.freq_hz, frames.time_s):
        assert array.device.type == device
        assert array.dtype == dtype


def test_a_tone_peaks_at_its_bin_and_a_click_at_its_frame():
    stft = Stft()
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    spectrogram = stft.analyse(tone)
    peak = int(spectrogram.power[0, :, 30].argmax())
    assert float(spectrogram.frames.freq_hz[peak]) == pytest.approx(1000, abs=8)
    click = np.zeros(16000, np.float32)
    click[8000] = 1.0
    spectrogram = stft.analyse(click)
    peak = int(spectrogram.power[0].sum(0).argmax())
    assert float(spectrogram.frames.time_s[peak]) == pytest.approx(0.5, abs=0.009)


@pytest.mark.parametrize("window", ["sine", "hann"])
@pytest.mark.parametrize(("n_fft", "hop"), [(256, 64), (256, 128), (256, 100)])
def test_unit_noise_has_unit_power_and_the_correlation_of_overlapping_frames(n_fft, hop, window):
    # 400 x 51 x 40 values for each moment. Draws of neighbouring bins and frames are correlated,
    # but no two that lie 4 bins and a whole window apart, so that at least 400 x 12 x 10 = 48000
    # are independent: sd of a mean below 1 / sqrt(48000) = 0.0046, and 0.025 is over 5 sd,
    # a false-failure rate below 1e-6 a bound.
    stft = Stft(n_fft, hop, window)
    n_samples = 39 * hop
    xi = stft.draw_unit_noise((400,), n_samples, torch.Generator().manual_seed(1))
    assert xi.shape == (400, stft.freq, 40)
    inner = xi[:, 10:112:2]
    assert float(inner.abs().square().mean()) == pytest.approx(1.0, abs=0.025)
    edges = xi[..., [0, -1]].abs().square().mean((0, 1))  # no fading at either end
    np.testing.assert_allclose(edges, 1.0, atol=0.05)
    assert abs(complex(inner.square().mean())) < 0.025  # circular
    assert abs(complex(inner.mean())) < 0.025
    n = torch.arange(n_fft, dtype=torch.float64)
    hann = 0.5 - 0.5 * torch.cos(2 * torch.pi * n / n_fft)
    taper = hann.sqrt() if window == "sine" else hann
    for lag in (1, 2):
        overlap = (taper[lag * hop :] * taper[: n_fft - lag * hop]).sum() / taper.square().sum()
        bins = torch.arange(10, 112, 2)
        turn = torch.exp(-2j * torch.pi * bins * lag * hop / n_fft)
        product = (inner[..., :-lag] * inner[..., lag:].conj() * turn[:, None].conj()).mean()
        assert abs(complex(product) - float(overlap)) < 0.03


def test_unit_noise_depends_on_its_generator_only_and_takes_any_shape():
    stft = Stft(64, 16)
    torch.manual_seed(0)
    first = stft.draw_unit_noise((), 100, torch.Generator().manual_seed(3))
    torch.manual_seed(1)
    second = stft.draw_unit_noise((), 100, torch.Generator().manual_seed(3))
    assert torch.equal(first, second)
    assert first.shape == (33, 8)
    assert stft.draw_unit_noise((2, 3), 100, torch.Generator()).shape == (2, 3, 33, 8)
    assert not torch.equal(first, stft.draw_unit_noise((), 100, torch.Generator().manual_seed(4)))


def test_unknown_window_is_refused():
    with pytest.raises(ValueError, match=r"window must be 'sine' or 'hann', not 'hamming'"):
        Stft(window="hamming")


@pytest.mark.parametrize("hop", [0, -1, 513, 1024])
def test_hop_without_enough_overlap_is_refused(hop):
    expected = f"hop must be between 1 and n_fft // 2 = 512 samples.*not {hop}"
    with pytest.raises(ValueError, match=expected):
        Stft(n_fft=1024, hop=hop)


@pytest.mark.parametrize(
    ("waves", "shapes"),
    [
        (np.zeros(0), r"\[\(0,\)\]"),
        ([], r"\[\]"),
        (np.zeros((0, 5)), r"\[\]"),
        (np.array(1.0), r"\[\(\)\]"),
        (np.zeros((2, 3, 4)), r"\[\(3, 4\), \(3, 4\)\]"),
        ([np.zeros(5), np.zeros(0)], r"\[\(5,\), \(0,\)\]"),
    ],
    ids=["empty", "no rows", "no recordings", "scalar", "three dimensions", "one empty"],
)
def test_waveforms_of_other_shapes_are_refused(waves, shapes):
    with pytest.raises(ValueError, match=rf"expected waveforms of shape \(sample,\).*{shapes}"):
        Stft().analyse(waves)
