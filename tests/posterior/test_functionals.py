"""Functionals of speech against waveforms of which they are known, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avse_ppl import Posterior, Stft
from avse_ppl.posterior.functionals import (
    F0,
    SNR,
    BinPower,
    Energy,
    Exceeds,
    Level,
    SpeechDraws,
    VoiceActivity,
    weigh_bands,
)

RATE_HZ = 16000
TIME_S = np.arange(RATE_HZ) / RATE_HZ


def tone(freq_hz, amplitude=1.0):
    return amplitude * np.sin(2 * np.pi * freq_hz * TIME_S)


def take_draws(*waves, mixture=None, stft=None):
    stft = stft or Stft()
    waves = np.stack(waves).astype("float32")
    mixture = waves[0] if mixture is None else np.asarray(mixture, "float32")
    return SpeechDraws(waves, stft.forward(torch.from_numpy(mixture)).numpy(), stft)


def make_posterior(draws=400, variance=0.5, seed=0):
    """A posterior whose bins are of one variance: waveform draws are then exactly of its law."""
    stft, n = Stft(n_fft=64, hop=16), 1600
    random = np.random.default_rng(seed)
    mean = stft.forward(torch.from_numpy(random.normal(size=n).astype("float32")))
    sd = torch.full(mean.shape, variance**0.5)
    generator = torch.Generator().manual_seed(seed)
    waves = [stft.draw_waveform(mean, sd, n, generator).numpy() for _ in range(draws)]
    speech = np.array(waves, np.float32).reshape(1, draws, 1, n)
    grid = mean.numpy()[None]
    variances = np.full(grid.shape, variance, np.float32)
    return Posterior(grid, variances, 2 * grid, speech, {}, (n,), stft, "exact")  # type: ignore[arg-type]


@pytest.mark.parametrize("stft", [Stft(), Stft(n_fft=512, hop=128, window="hann"), Stft(401, 100)])
def test_the_mean_square_of_bins_is_that_of_the_waveform(stft):
    wave = np.random.default_rng(0).normal(size=RATE_HZ)
    found = Level().evaluate(take_draws(wave, stft=stft))
    expected = 10 * np.log10(np.mean(wave**2))
    # Up to the half windows beyond either end.
    np.testing.assert_allclose(found, expected, atol=0.2)


def test_level_of_tones_in_bands_and_spans():
    wave = tone(500, 0.2) + tone(3000, 0.02) * (TIME_S > 0.5)
    bands, spans = ((400.0, 600.0), (2900.0, 3100.0)), ((0.1, 0.4), (0.6, 0.9))
    found = Level(bands, spans).evaluate(take_draws(wave, 10 * wave))
    expected = np.array([[-17.0, -17.0], [-90.0, -37.0]])
    np.testing.assert_allclose(found[0][expected > -90], expected[expected > -90], atol=0.1)
    assert found[0, 1, 0] < -60
    np.testing.assert_allclose(found[1][expected > -90], 20 + expected[expected > -90], atol=0.1)


def test_energy_is_the_mean_square_times_the_length():
    draws = take_draws(tone(500, 0.2))
    np.testing.assert_allclose(Energy(spans_s=((0.2, 0.7),)).evaluate(draws), [[0.01]], rtol=1e-3)
    np.testing.assert_allclose(Energy().evaluate(draws), [0.02], rtol=0.05)
    frames = Energy(spans_s="frames").evaluate(draws)
    np.testing.assert_allclose(frames[0, 10], 0.02 * 256 / RATE_HZ, rtol=1e-2)


def test_silence_has_the_least_level():
    np.testing.assert_allclose(Level().evaluate(take_draws(0 * TIME_S)), [-120.0])


def test_snr_is_of_the_draw_and_of_what_it_leaves():
    draws = take_draws(tone(500), mixture=tone(500) + tone(1500, 0.1))
    np.testing.assert_allclose(SNR(spans_s=((0.2, 0.8),)).evaluate(draws), [[20.0]], atol=0.1)
    [[low], [high]] = SNR(((400.0, 600.0), (1400.0, 1600.0)), ((0.2, 0.8),)).evaluate(draws)[0]
    assert low > 50 and high < -50


def test_exceeds_has_a_threshold():
    draws = take_draws(tone(500, 0.2), tone(500, 0.02))
    np.testing.assert_array_equal(Exceeds(threshold_db=-30.0).evaluate(draws), [1.0, 0.0])


def test_voice_is_active_above_the_margin_and_for_the_hangover():
    wave = tone(500) * (TIME_S < 0.3) + tone(500, 1e-3)
    frames = VoiceActivity(hangover_s=0.0).evaluate(take_draws(wave))[0]
    held = VoiceActivity(hangover_s=0.1).evaluate(take_draws(wave))[0]
    assert held.sum() - frames.sum() == round(0.1 * RATE_HZ / 256) == 6
    assert frames[:18].all() and not frames[22:].any()
    # Louder or softer, a margin stays; a threshold does not.
    soft = take_draws(wave, 0.001 * wave)
    assert (VoiceActivity().evaluate(soft)[1] == held).all()
    assert not VoiceActivity(threshold_db=-50.0).evaluate(soft)[1].any()
    share = VoiceActivity(spans_s=((0.0, 0.6),), hangover_s=0.0).evaluate(take_draws(wave))
    assert 0.45 < share[0, 0] < 0.6


def test_f0_of_a_buzz_and_of_noise():
    buzz = np.sum([tone(150 * k, 0.1) for k in range(1, 10)], axis=0)
    noise = np.random.default_rng(0).normal(size=RATE_HZ)
    draws = take_draws(buzz[:8100], noise[:8100])
    frames = F0().evaluate(draws)
    assert frames.shape == (2, len(draws.time_s))
    np.testing.assert_allclose(np.nanmedian(frames[0]), 150, rtol=0.01)
    assert np.isfinite(frames[0, 5:-5]).all() and np.isnan(frames[1]).mean() > 0.8
    spans = F0(spans_s=((0.1, 0.2), (0.2, 0.4))).evaluate(draws)
    np.testing.assert_allclose(spans[0], [150, 150], rtol=0.01)


def test_energy_and_bin_power_have_the_mean_of_the_closed_form():
    posterior = make_posterior()
    power = posterior.of(BinPower())
    inside = np.s_[:, :, 4:-4]  # frames that do not reach past the ends
    gaps = ((power.mean - power.exact_mean) / power.sd)[inside]
    # 400 draws: standard errors of 0.05 posterior standard deviations.
    assert abs(gaps.mean()) < 0.02 and gaps.std() < 0.08
    energy = posterior.of(Energy(((500.0, 2000.0), (2000.0, 6000.0)), ((0.02, 0.08),)))
    assert np.all(np.abs(energy.mean - energy.exact_mean) < 4 * energy.mcse + 0.05 * energy.sd)
    # Bins of the interior are as variable as circular Gaussian ones: Var |s|^2 = v^2 + 2 |m|^2 v.
    variance = 0.25 + 2 * np.abs(posterior.mean) ** 2 * 0.5
    ratio = (power.sd**2 / variance)[:, 2:-2, 4:-4]
    assert abs(ratio.mean() - 1) < 0.05


def test_the_closed_form_needs_no_draws():
    whole = make_posterior(draws=20)
    none = make_posterior(draws=20)
    none = Posterior(
        none.mean, none.variance, none.mixture, none.speech[:, :0], {}, none.n_samples, none.stft,
        none.kind,
    )  # fmt: skip
    found = none.of(Energy())
    np.testing.assert_allclose(found.mean, whole.of(Energy()).exact_mean)
    with pytest.raises(ValueError, match="at least 2 draws, this one is of 0"):
        found.interval()
    with pytest.raises(ValueError, match=r"holds no waveform draws, of which .* make it again"):
        none.of(Level())


def test_bands_and_spans_are_checked():
    with pytest.raises(ValueError, match=r"from 600 to 400 Hz holds no bin; bins are 15\.625 Hz"):
        weigh_bands(((600.0, 400.0),), Stft())
    for span in ((-0.1, 0.5), (0.5, 0.5), (0.5, 1.1)):
        with pytest.raises(ValueError, match="is not within the recording of 1 s"):
            Level(spans_s=(span,)).evaluate(take_draws(tone(500)))


def test_a_span_shorter_than_a_hop_takes_the_nearest_frame():
    found = Level(spans_s=((0.501, 0.502),)).evaluate(take_draws(tone(500) * (TIME_S > 0.4)))
    np.testing.assert_allclose(found, [[-3.0]], atol=0.1)
