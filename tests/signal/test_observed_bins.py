"""Bins that hold sound: edges of the band, silent stretches, and what inference makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soxr
import torch

import avse_ppl
from avse_ppl import NMF, SVI, Audio, Exact, GaussianSpeech, Scene, Stft, stationary
from avse_ppl.data import highpass, mix
from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.evaluation.diagnostics.predictive import normalise_periodograms
from avse_ppl.evaluation.loo import loo
from avse_ppl.evaluation.metrics import si_sdr
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.powers import log_powers
from avse_ppl.inference.diffusion.spectrogram import condition_on_observed
from avse_ppl.models.simulate import reference_scene
from avse_ppl.signal.audio import load_audio
from avse_ppl.signal.observed_bins import (
    describe_band,
    find_occupied_band,
    find_silent_frames,
    mark_observed,
)
from tests.helpers import BUNDLED

RATE_HZ = 16000
BIN_HZ = RATE_HZ / 1024


def white(seconds=1.0, seed=0):
    return np.random.default_rng(seed).normal(size=int(seconds * RATE_HZ)).astype("float32")


def through(wave, rate_hz):
    """A waveform resampled down and up again."""
    there = soxr.resample(wave, RATE_HZ, rate_hz)
    back = soxr.resample(there, rate_hz, RATE_HZ)
    return np.resize(back, len(wave)) if len(back) < len(wave) else back[: len(wave)]


@pytest.mark.parametrize("rate_hz", [8000, 11025, 12000, 14000])
def test_the_edge_of_a_resampled_recording_is_found(rate_hz):
    marked = mark_observed(Stft().analyse(through(white(), rate_hz)))
    low_hz, high_hz = marked.occupied_hz(0)
    assert low_hz == 0
    assert 0.92 * rate_hz / 2 < high_hz < rate_hz / 2


def test_the_lower_edge_of_a_telephone_is_found():
    spectrum = np.fft.rfft(white(2.0))
    freq_hz = np.fft.rfftfreq(2 * RATE_HZ, 1 / RATE_HZ)
    spectrum[(freq_hz < 300) | (freq_hz > 3400)] *= 1e-3
    marked = mark_observed(Stft().analyse(np.fft.irfft(spectrum).astype("float32")))
    low_hz, high_hz = marked.occupied_hz(0)
    assert 280 < low_hz < 350
    assert 3300 < high_hz < 3420
    [text] = describe_band(marked, 0)
    assert "below 0.3 kHz or above 3.4 kHz" in text


@pytest.mark.parametrize("slope_db", [-20.0, -50.0, -70.0])
def test_a_spectrum_that_falls_off_gently_is_observed_whole(slope_db):
    power = 10 ** (torch.linspace(0, slope_db, 513)[:, None] / 10).expand(-1, 40)
    assert find_occupied_band(power, BIN_HZ) == (0, 513)
    assert find_occupied_band(power.flip(0), BIN_HZ) == (0, 513)


def test_a_full_band_recording_comes_back_as_it_is():
    spectrogram = Stft().analyse(white())
    assert mark_observed(spectrogram) is spectrogram


def test_what_was_recorded_is_kept():
    wave = through(white(), 8000)
    marked = mark_observed(Stft().analyse(wave))
    np.testing.assert_allclose(Stft().synthesise(marked)[0], wave, atol=1e-5)


@pytest.mark.parametrize("level_db", [-60.0, -np.inf])
@pytest.mark.parametrize("at", [0, 2])
def test_long_quiet_stretches_are_not_observed_and_pauses_are(level_db, at):
    parts = [white(1.0, 1), white(1.0, 2)]
    parts.insert(at, 10 ** (level_db / 20) * white(2.0, 3))
    marked = mark_observed(Stft().analyse(np.concatenate(parts)))
    silent_s = float((~marked.observed[0].any(0)).sum()) * 256 / RATE_HZ
    assert 1.9 < silent_s < 2.1
    assert float(marked.values[0][:, ~marked.observed[0].any(0)].abs().max()) == 0

    pause = np.concatenate([white(1.0, 1), 1e-3 * white(0.8, 3), white(1.0, 2)])
    assert mark_observed(Stft().analyse(pause)).observed is None


def test_a_loud_bang_does_not_silence_the_rest():
    wave = white(6.0)
    wave[:1600] *= 300
    assert not find_silent_frames(Stft().analyse(wave).power[0], 256 / RATE_HZ).any()


def test_a_recording_is_marked_the_same_in_a_batch():
    narrow, full = through(white(1.5), 8000), white(2.0)
    both = mark_observed(Stft().analyse([narrow, full]))
    alone = mark_observed(Stft().analyse(narrow))
    time = alone.frames.time
    assert bool(both.observed[1].all())
    assert torch.equal(both.observed[0, :, :time], alone.observed[0])
    torch.testing.assert_close(both.values[0, :, :time], alone.values[0])
    torch.testing.assert_close(both.select(0).recorded, alone.recorded)
    assert not bool(both.mask[0, :, time:].any())


def test_values_of_unobserved_bins_do_not_enter_the_log_density():
    marked = mark_observed(Stft().analyse(through(white(0.3), 8000)))
    other = torch.where(marked.observed, marked.values, 7.0)
    scene = Scene(GaussianSpeech(), NMF(2))
    density = LogDensity(scene, marked)
    u = {site.name: site.start for site in density.sites}
    with torch.no_grad():
        expected = density(u)
        density.mixture = type(marked)(
            other, marked.frames, marked.n_samples, marked.scale, marked.stft, marked.observed
        )
        assert torch.equal(density(u), expected)


def test_conditioning_leaves_the_law_of_unobserved_bins():
    marked = mark_observed(Stft().analyse(through(white(0.3), 8000)))
    shape = marked.values.shape
    speech = ComplexNormal(torch.full(shape, 1.0 + 0j), torch.full(shape, 2.0))
    law = condition_on_observed(speech, ComplexNormal(0.0, torch.ones(shape)), marked)
    away = ~marked.observed
    assert torch.equal(law.mean[away], speech.mean[away])
    assert torch.equal(law.power[away], speech.power[away])
    assert float(law.power[marked.observed].max()) < 0.7


def test_nothing_is_added_outside_of_the_band():
    wave = through(white(0.5), 8000)
    posterior = SVI(steps=3, draws=4)(Scene(GaussianSpeech(), stationary), wave, seed=0)
    outside = int(4000 / BIN_HZ) + 2
    mixture = posterior.mixture[0, outside:]
    np.testing.assert_allclose(posterior.mean[0, outside:], mixture / 2, atol=1e-6)
    np.testing.assert_allclose(posterior.variance[0, outside:], np.abs(mixture) ** 2 / 4, rtol=1e-5)
    spectrum = np.abs(Stft().analyse(posterior.speech[0, :, 0]).values.numpy()) ** 2
    assert spectrum[:, outside:].mean() < 1e-4 * spectrum[:, : outside - 32].mean()
    assert any("above 3." in text for text in posterior.warnings)


# --- what it is for: a bundled sentence in rain, 0 dB, enhanced by default -----------------------


@pytest.fixture(scope="module")
def rain():
    speech = highpass(load_audio(BUNDLED / "speech.flac").mono().samples, RATE_HZ)
    mixed = mix(speech, load_audio(BUNDLED / "rain.flac").samples, 0.0, seed=0)
    return mixed.speech, mixed.mixture, enhance(mixed.mixture)


def enhance(wave):
    result = avse_ppl.enhance(Audio(wave, RATE_HZ), seed=0, keep_posterior=False)
    return result.speech.samples


@pytest.mark.parametrize("rate_hz", [8000, 11025, 14000])
def test_a_band_limited_recording_is_enhanced_as_well_as_a_full_one(rain, rate_hz):
    speech, mixture, full = (through(wave, rate_hz) for wave in rain)
    narrow = enhance(mixture)
    assert si_sdr(speech, narrow) > si_sdr(speech, full) - 0.4  # .31 at 8 kHz


@pytest.mark.parametrize("level_db", [-60.0, -np.inf])
def test_a_quiet_stretch_costs_nothing(rain, level_db):
    speech, mixture, full = rain
    hiss = 10 ** (level_db / 20) * mixture.std() * white(4.0)
    longer = enhance(np.concatenate([hiss, mixture]))[len(hiss) :]
    assert si_sdr(speech, longer) > si_sdr(speech, full) - 0.3


def test_an_offset_costs_nothing(rain):
    speech, mixture, full = rain
    with pytest.warns(UserWarning, match="constant offset"):
        moved = enhance(mixture + 3 * mixture.std())
    assert si_sdr(speech, moved) > si_sdr(speech, full) - 0.3


# --- nothing that is computed of a recording depends on what was imputed --------------------------


@pytest.fixture(scope="module")
def pair():
    """One mixture with two imputations: 4 kHz of band, and a silent second."""
    wave = np.concatenate([through(white(0.6), 8000), np.zeros(2 * RATE_HZ, np.float32)])
    marked = mark_observed(Stft().analyse(wave))
    other = torch.where(marked.observed, marked.values, 3.0 - 2.0j)
    assert not bool(marked.observed[0].any(0).all()) and not bool(marked.observed[0].any(1).all())
    return marked, replace(marked, values=other)


@pytest.fixture(scope="module")
def drawn(pair):
    scene = Scene(GaussianSpeech(), stationary)
    return scene, SVI(steps=5, draws=100, waveforms=2)(scene, pair[0], seed=0)


def test_exact_inference_does_not_see_it():
    marked = mark_observed(Stft().analyse(through(white(0.2), 8000)))
    mixtures = marked, replace(marked, values=torch.where(marked.observed, marked.values, 3.0 + 0j))
    method, scene = Exact(nodes=17, draws=2, waveforms=False), reference_scene(noise_known=False)
    one, other = (method(scene, mixture, seed=0) for mixture in mixtures)
    np.testing.assert_array_equal(one.mean, other.mean)
    for name, values in one.latents.items():
        np.testing.assert_array_equal(values, other.latents[name])


def test_leave_one_out_counts_it_as_nothing(pair, drawn):
    scene, posterior = drawn
    one, other = (loo(scene, mixture, posterior) for mixture in pair)
    np.testing.assert_array_equal(one.elpd, other.elpd)
    np.testing.assert_allclose(one.elpd[~pair[0].observed[0].numpy()], 0.0, atol=1e-12)
    assert one.elpd[pair[0].observed[0].numpy()].all()


def test_predictive_checks_leave_it_out(pair, drawn):
    scene, posterior = drawn
    values = {name: torch.from_numpy(value[0, 0]) for name, value in posterior.latents.items()}
    one, other = (normalise_periodograms(scene, mixture, values)[0] for mixture in pair)
    np.testing.assert_array_equal(one, other)
    assert one.shape[0] == int(pair[0].observed[0].any(1).sum())


def test_powers_are_those_of_what_is_observed(pair):
    marked = pair[0]
    tilted = torch.linspace(1.0, 100.0, 513)[:, None]
    scene = Scene(GaussianSpeech(), lambda frames: ComplexNormal(0.0, tilted))
    values = {"speech.gain": torch.zeros(1, 1, marked.frames.time)}
    powers = log_powers(scene, marked, [values])
    inside = marked.observed[0].any(1)
    sounding = marked.observed[0].any(0).numpy()
    frames = powers["noise.frame"][0, 0, 0]
    np.testing.assert_allclose(frames[sounding], float(tilted[inside].mean().log()), rtol=1e-5)
    assert np.isnan(frames[~sounding]).all()
    bands = powers["noise.band"][0, 0, 0]
    assert np.isnan(bands[-1]) and np.isfinite(bands[0])
