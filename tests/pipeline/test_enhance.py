"""The whole way: recordings of every form in, speech and posterior out."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import soundfile
import torch

from avse_ppl import EM, SVI, ComplexNormal, Exact, GaussianSpeech, Scene
from avse_ppl import enhance as package_level
from avse_ppl.pipeline import batching
from avse_ppl.pipeline.enhance import Enhanced, enhance, enhance_batch
from avse_ppl.signal.audio import Audio
from tests.helpers import RATE_HZ

MODULE = sys.modules["avse_ppl.pipeline.enhance"]  # the package has a function of the same name
N = 8000
FEW = SVI(steps=3, draws=2, tolerance=0, tempering=1.0)
QUICK = {"speech": "gaussian", "noise": "stationary", "inference": FEW}


def wave(n_samples=N, seed=0, channels=None):
    shape = n_samples if channels is None else (channels, n_samples)
    return 0.1 * np.random.default_rng(seed).normal(size=shape).astype("float32")


def known_noise(frames):
    return ComplexNormal(0.0, torch.tensor(0.5, dtype=frames.dtype))


def known_level(frames):
    return ComplexNormal(0.0, pyro.sample("level", dist.LogNormal(-1.0, 1.0)))


CLOSED = {"speech": GaussianSpeech(gain_sd_db=0.0), "noise": known_noise,
          "inference": Exact(draws=2)}  # fmt: skip


class Spy:
    """An inference method that records the lengths of what it gets."""

    def __init__(self, method):
        self.method, self.batches = method, []

    def __call__(self, scene, spectrogram, video=None, *, seed):
        self.batches.append(list(spectrogram.n_samples))
        return self.method(scene, spectrogram, video, seed=seed)


# --- forms of input ------------------------------------------------------------------------------


def test_an_array():
    found = enhance(wave(), sample_rate_hz=RATE_HZ, **QUICK)
    assert isinstance(found, Enhanced)
    assert found.speech.samples.shape == (N,)
    assert found.speech.samples.dtype == np.float32
    assert found.speech.sample_rate_hz == RATE_HZ
    assert found.posterior.n_samples == (N,)
    assert found.posterior.speech.shape == (1, 2, 1, N)
    assert found.kind == found.posterior.kind == "variational"
    np.testing.assert_array_equal(found.speech.samples, found.posterior.enhance())
    np.testing.assert_allclose(found.posterior.noisy(), wave(), atol=1e-5)


def file_bytes():
    buffer = io.BytesIO()
    soundfile.write(buffer, wave(), RATE_HZ, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["audio", "tensor", "bytes", "path", "text"])
def test_every_form_of_the_same_recording(tmp_path, form):
    path = tmp_path / "noisy.wav"
    path.write_bytes(file_bytes())
    source, rate = {
        "audio": (Audio(wave(), RATE_HZ), None),
        "tensor": (torch.from_numpy(wave()), RATE_HZ),
        "bytes": (file_bytes(), None),
        "path": (path, None),
        "text": (str(path), None),
    }[form]
    found = enhance(source, sample_rate_hz=rate, **QUICK)
    expected = enhance(wave(), sample_rate_hz=RATE_HZ, **QUICK)
    np.testing.assert_array_equal(found.speech.samples, expected.speech.samples)


def test_the_package_offers_it():
    found = package_level(wave(2000), sample_rate_hz=RATE_HZ, **QUICK)
    assert found.speech.samples.shape == (2000,)


def test_stereo_is_two_recordings_of_one_posterior():
    samples = wave(channels=2)
    found = enhance(samples, sample_rate_hz=RATE_HZ, seed=4, **QUICK)
    assert found.speech.samples.shape == (2, N)
    assert found.posterior.recordings == 2
    for c in range(2):
        alone = enhance(samples[c], sample_rate_hz=RATE_HZ, seed=4, **QUICK)
        np.testing.assert_allclose(
            found.speech.samples[c], alone.speech.samples, atol=1e-3 * np.abs(samples).max()
        )
        np.testing.assert_array_equal(found.posterior.enhance(c), found.speech.samples[c])


def test_one_channel_in_two_dimensions_keeps_them():
    found = enhance(Audio(wave(channels=1), RATE_HZ), **QUICK)
    assert found.speech.samples.shape == Audio(wave(channels=1), RATE_HZ).samples.shape


@pytest.mark.parametrize("rate", [8000, 44100])
def test_another_rate_is_resampled_and_said_so(rate):
    with pytest.warns(UserWarning, match=f"resampled from {rate} Hz to 16000 Hz"):
        found = enhance(wave(rate // 2), sample_rate_hz=rate, **QUICK)
    assert found.speech.sample_rate_hz == RATE_HZ
    assert found.speech.n_samples == pytest.approx(N, abs=1)
    assert found.posterior.n_samples == (found.speech.n_samples,)


# --- what cannot be enhanced, and what need not be -----------------------------------------------


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (np.array([0.1, np.nan] * N), "NaN"),
        (np.array([0.1, np.inf] * N), "infinite"),
        (np.ones(1023), "at least 1024 samples"),
        (np.zeros(0), "empty"),
    ],
    ids=["NaN", "inf", "short", "empty"],
)
def test_a_recording_that_is_not_usable(bad, text):
    with pytest.raises(ValueError, match=text):
        enhance(bad, sample_rate_hz=RATE_HZ, **QUICK)


def test_an_array_without_its_rate():
    with pytest.raises(ValueError, match="pass it, for example sample_rate_hz=16000"):
        enhance(wave(), **QUICK)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        enhance(tmp_path / "missing.wav", **QUICK)


@pytest.mark.parametrize(
    ("what", "name", "text"),
    [
        ("speech", "gausian", "did you mean 'gaussian'"),
        ("noise", "stationery", "did you mean 'stationary'"),
        ("inference", "sv", "did you mean 'svi'"),
    ],
)
def test_an_unknown_name(what, name, text):
    with pytest.raises(ValueError, match=text):
        enhance(wave(), sample_rate_hz=RATE_HZ, **{**QUICK, what: name})


def test_cuda_asked_for_and_absent(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch finds no CUDA device"):
        enhance(wave(), sample_rate_hz=RATE_HZ, device="cuda", **{**QUICK, "inference": "em"})


def test_video_for_a_prior_that_does_not_see():
    with pytest.raises(ValueError, match="audio-only"):
        enhance(wave(), np.zeros((5, 67, 67)), sample_rate_hz=RATE_HZ, **QUICK)


def test_a_bad_seed():
    with pytest.raises(ValueError, match="seed must be a whole number"):
        enhance(wave(), sample_rate_hz=RATE_HZ, seed=0.5, **QUICK)


@pytest.mark.parametrize("channels", [None, 2])
def test_silence_is_returned_as_it_is(channels):
    silence = np.zeros_like(wave(channels=channels))
    with pytest.warns(UserWarning, match="the recording is silent"):
        found = enhance(silence, sample_rate_hz=RATE_HZ, **QUICK)
    np.testing.assert_array_equal(found.speech.samples, silence)
    assert found.posterior is None
    assert found.kind is None
    assert found.cost["real_time_factor"] == 0.0


@pytest.mark.parametrize("silent", [0, 1])
def test_a_silent_channel_stays_silent(silent):
    samples = wave(channels=2)
    samples[silent] = 0.0
    found = enhance(samples, sample_rate_hz=RATE_HZ, **QUICK)
    assert not found.speech.samples[silent].any()
    assert found.posterior.recordings == 1
    alone = enhance(samples[1 - silent], sample_rate_hz=RATE_HZ, **QUICK)
    np.testing.assert_array_equal(found.speech.samples[1 - silent], alone.speech.samples)


def test_clipping_is_said():
    clipped = np.clip(20 * wave(), -1, 1)
    with pytest.warns(UserWarning, match="clipped in"):
        enhance(clipped, sample_rate_hz=RATE_HZ, **QUICK)


# --- settings ------------------------------------------------------------------------------------


def test_seeds():
    one, same, other = (
        enhance(wave(), sample_rate_hz=RATE_HZ, seed=seed, **QUICK) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.posterior.speech, same.posterior.speech)
    assert not np.array_equal(one.posterior.speech, other.posterior.speech)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("svi", "variational"),
        ("em", "point estimate"),
        ("em-langevin", "Langevin, noise a point estimate"),
        ("exact", "exact"),
    ],
)
def test_routines_by_name(name, kind):
    found = enhance(
        wave(2000), sample_rate_hz=RATE_HZ, speech="gaussian", noise=known_noise, inference=name,
        draws=3,
    )  # fmt: skip
    assert found.kind.split(", tempered")[0] == kind
    assert found.posterior.speech.shape == (1, 3, 1, 2000)


def test_a_noise_model_of_the_user():
    found = enhance(wave(), sample_rate_hz=RATE_HZ, **{**QUICK, "noise": known_level})
    assert set(found.posterior.latents) == {"speech.gain", "level"}


@pytest.mark.parametrize("channels", [None, 2])
def test_the_posterior_can_be_left_out(channels):
    samples = wave(channels=channels)
    full = enhance(samples, sample_rate_hz=RATE_HZ, **QUICK)
    lean = enhance(samples, sample_rate_hz=RATE_HZ, keep_posterior=False, **QUICK)
    assert lean.posterior is None
    assert lean.kind == "variational"
    np.testing.assert_array_equal(lean.speech.samples, full.speech.samples)


def test_leaving_it_out_draws_no_waveforms(monkeypatch):
    from avse_ppl.inference.core import build_posterior as summary

    def drawn(*_):
        raise RuntimeError("a waveform was drawn")

    monkeypatch.setattr(summary, "draw_waveform", drawn)
    settings = {"speech": "gaussian", "noise": known_noise, "inference": "exact"}
    enhance(wave(2000), sample_rate_hz=RATE_HZ, keep_posterior=False, **settings)
    with pytest.raises(RuntimeError, match="a waveform was drawn"):
        enhance(wave(2000), sample_rate_hz=RATE_HZ, **settings)


def test_draws_of_a_long_recording_are_limited_and_said_so(monkeypatch):
    monkeypatch.setattr(MODULE, "_DRAWS_SAMPLES", 3.5 * N)
    settings = {"speech": "gaussian", "noise": known_noise, "inference": "exact"}
    with pytest.warns(UserWarning, match="kept 3 draws instead of 50: the recording has 8000"):
        found = enhance(wave(), sample_rate_hz=RATE_HZ, **settings)
    assert found.posterior.speech.shape[1] == 3
    # Said only where it happens: not where none are kept, few enough, or the routine decides.
    enhance(wave(), sample_rate_hz=RATE_HZ, keep_posterior=False, **settings)
    enhance(wave(), sample_rate_hz=RATE_HZ, draws=3, **settings)
    settings["inference"] = Exact(draws=6)
    assert enhance(wave(), sample_rate_hz=RATE_HZ, **settings).posterior.speech.shape[1] == 6


def test_it_costs_something_and_says_how_much():
    cost = enhance(wave(), sample_rate_hz=RATE_HZ, **QUICK).cost
    assert set(cost) == {"wall_s", "cpu_s", "real_time_factor"}
    assert 0 < cost["wall_s"] < 60
    assert cost["cpu_s"] > 0
    assert cost["real_time_factor"] == pytest.approx(cost["wall_s"] / 0.5)


def test_it_enhances():
    # Noise with the long-term spectrum and the bursts of speech, in white noise at 0 dB.
    rng = np.random.default_rng(0)
    burst = 0.05 + np.clip(np.sin(2 * np.pi * 3 * np.arange(2 * RATE_HZ) / RATE_HZ), 0, 1)
    power = GaussianSpeech()(GaussianSpeech().stft.frames(2 * RATE_HZ)).power
    shape = np.interp(np.fft.rfftfreq(2 * RATE_HZ, 1 / RATE_HZ), np.arange(513) * 15.625,
                      np.sqrt(np.ravel(power[:, 0] if power.ndim > 1 else power)))  # fmt: skip
    with torch.no_grad():
        clean = burst * np.fft.irfft(np.fft.rfft(rng.normal(size=2 * RATE_HZ)) * shape)
    clean *= 0.1 / clean.std()
    noise = 0.1 * rng.normal(size=2 * RATE_HZ)
    found = enhance(
        (clean + noise).astype("float32"), sample_rate_hz=RATE_HZ, speech="gaussian",
        noise="stationary", inference=EM(iterations=40, draws=1), keep_posterior=False,
    )  # fmt: skip
    error = found.speech.samples - clean
    assert 10 * np.log10(np.mean(noise**2) / np.mean(error**2)) > 5  # dB


# --- long recordings -----------------------------------------------------------------------------


def test_a_long_recording_goes_in_chunks():
    n = 40 * RATE_HZ
    spy = Spy(FEW)
    found = enhance(wave(n), sample_rate_hz=RATE_HZ, **{**QUICK, "inference": spy})
    assert sum(len(batch) for batch in spy.batches) == 4
    assert max(max(batch) for batch in spy.batches) < 12 * RATE_HZ
    assert found.speech.samples.shape == (n,)
    posterior = found.posterior
    assert posterior.n_samples == (n,)
    assert posterior.mean.shape == (1, 513, posterior.stft.count_frames(n))
    assert posterior.speech.shape == (1, 2, 1, n)
    assert posterior.attrs["chunks"] == 4
    assert np.isfinite(posterior.speech).all()
    assert (posterior.variance > 0).all()
    np.testing.assert_allclose(posterior.noisy(), wave(n), atol=1e-4)
    np.testing.assert_array_equal(found.speech.samples, posterior.enhance())


def test_chunks_of_a_closed_form_are_the_whole():
    # One Wiener filter for all of it, up to the level of each chunk: the model is scaled to it.
    n = 20 * RATE_HZ
    found = enhance(wave(n), sample_rate_hz=RATE_HZ, **CLOSED)
    whole = CLOSED["inference"](Scene(CLOSED["speech"], known_noise), wave(n), seed=0)
    gap = found.speech.samples - whole.enhance()
    assert np.sqrt(np.mean(gap**2)) < 0.01 * whole.enhance().std()
    ratio = found.posterior.variance / whole.variance
    assert np.abs(ratio - 1).max() < 0.05
    lean = enhance(wave(n), sample_rate_hz=RATE_HZ, keep_posterior=False, **CLOSED)
    gap = lean.speech.samples - found.speech.samples
    assert np.sqrt(np.mean(gap**2)) < 1e-3 * whole.enhance().std()


def test_a_long_pause_is_left_out():
    n = 40 * RATE_HZ
    samples = wave(n)
    samples[int(9 * RATE_HZ) : int(22 * RATE_HZ)] = 0.0
    spy = Spy(CLOSED["inference"])
    found = enhance(samples, sample_rate_hz=RATE_HZ, **{**CLOSED, "inference": spy})
    assert sum(len(batch) for batch in spy.batches) == 3
    pause = slice(int(11 * RATE_HZ), int(19 * RATE_HZ))
    assert not found.speech.samples[pause].any()
    assert not found.posterior.speech[..., pause].any()
    assert found.speech.samples.shape == (n,)
    np.testing.assert_allclose(found.posterior.noisy(), samples, atol=1e-4)


# --- several at once -----------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_recordings():
    lengths = (3000, 9000, 8800, 5000)
    audios = [Audio(wave(n, seed=n), RATE_HZ) for n in lengths]
    found = enhance_batch(audios, **CLOSED)
    for audio, one in zip(audios, found, strict=True):
        assert one.speech.n_samples == audio.n_samples
        alone = enhance(audio, **CLOSED)
        np.testing.assert_allclose(one.speech.samples, alone.speech.samples, atol=1e-5)
        np.testing.assert_allclose(one.posterior.variance, alone.posterior.variance, rtol=1e-3)


def test_recordings_of_similar_length_share_a_batch(monkeypatch):
    lengths = (10000, 9100, 8900, 5000, 4999, 4998, 4997)
    spy = Spy(CLOSED["inference"])
    monkeypatch.setattr(batching, "BATCH_S", 20000 / RATE_HZ)
    audios = [Audio(wave(n, seed=n), RATE_HZ) for n in lengths]
    enhance_batch(audios, **{**CLOSED, "inference": spy})
    # 8900 is under nine tenths of 10000; three of 5000 and the next would be over 20000.
    assert spy.batches == [[10000, 9100], [8900], [5000, 4999, 4998, 4997]]


def test_a_result_does_not_depend_on_what_else_is_enhanced():
    audios = [Audio(wave(n, seed=n), RATE_HZ) for n in (5000, 5000, 3000)]
    together = enhance_batch(audios, **QUICK)
    for audio, one in zip(audios, together, strict=True):
        alone = enhance(audio, **QUICK)
        assert one.posterior.attrs["seed"] == alone.posterior.attrs["seed"] == 0
        np.testing.assert_allclose(one.speech.samples, alone.speech.samples, atol=1e-4)
        np.testing.assert_allclose(one.posterior.speech, alone.posterior.speech, atol=1e-4)


def test_channels_in_batches_of_their_own_may_stop_at_different_steps(monkeypatch):
    monkeypatch.setattr(batching, "BATCH_S", N / RATE_HZ)
    steps = iter([3, 5])

    def routine(*arguments, **settings):
        return replace(FEW, steps=next(steps))(*arguments, **settings)

    found = enhance(wave(channels=2), sample_rate_hz=RATE_HZ, **{**QUICK, "inference": routine})
    elbo = found.posterior.trace["elbo"]
    assert np.isfinite(elbo[:, 1]).all()
    assert np.isfinite(elbo[:3, 0]).all()
    assert np.isnan(elbo[3:, 0]).all()
    assert elbo.shape == (5, 2)


def test_no_recordings_no_results():
    assert enhance_batch([], **QUICK) == []


def test_costs_are_shared_by_length():
    audios = [Audio(wave(n, seed=n), RATE_HZ) for n in (8000, 7600)]
    costs = [one.cost for one in enhance_batch(audios, **QUICK)]
    assert costs[0]["wall_s"] / costs[1]["wall_s"] == pytest.approx(8000 / 7600)
    factors = [cost["real_time_factor"] for cost in costs]
    assert factors[0] == pytest.approx(factors[1])


def test_a_bad_recording_stops_the_batch_before_any_work():
    spy = Spy(FEW)
    audios = [Audio(wave(), RATE_HZ), Audio(np.full(N, np.nan), RATE_HZ)]
    with pytest.raises(ValueError, match="NaN"):
        enhance_batch(audios, **{**QUICK, "inference": spy})
    assert spy.batches == []


def test_enhanced_is_frozen():
    found = enhance(wave(2000), sample_rate_hz=RATE_HZ, **QUICK)
    with pytest.raises(AttributeError):
        found.posterior = None
    assert replace(found, posterior=None).posterior is None
