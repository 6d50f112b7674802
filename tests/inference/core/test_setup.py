"""What every routine does first: devices, seeds, waveforms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from avse_ppl import GaussianSpeech, LatentSpeech, Scene, stationary
from avse_ppl.inference.base import Problem
from avse_ppl.inference.core.resources import limit_threads
from avse_ppl.inference.core.setup import RandomStreams, check_waves, resolve_device
from avse_ppl.models.networks import VaeNetwork
from avse_ppl.signal.audio import Audio
from tests.helpers import CPU, STFT

SCENE = Scene(GaussianSpeech(stft=STFT), stationary)


def waves(count=1, n_samples=640, seed=0):
    return np.random.default_rng(seed).normal(size=(count, n_samples)).astype("float32")


def ready(mixture, scene=SCENE, video=None, seed=0, device="cpu", dtype=torch.float32):
    problem = Problem.of(scene, mixture, video, seed=seed, device=device, dtype=dtype)
    return problem.scene, problem.spectrogram, problem.streams


# --- randomness ----------------------------------------------------------------------------------


def test_a_recording_draws_the_same_alone_as_in_a_batch():
    batch = RandomStreams(7, 3, CPU)
    alone = [RandomStreams(7 + r, 1, CPU) for r in range(3)]
    for shape in ((1, 5), (4,), (2, 2)):
        together = batch.normal((3, *shape), torch.float32)
        rows = [randoms.normal((1, *shape), torch.float32) for randoms in alone]
        assert torch.equal(together, torch.cat(rows))
    assert not torch.equal(together[0], together[1])


def test_draws_have_the_type_asked_for():
    draws = RandomStreams(0, 2, CPU).normal((2, 3), torch.float64)
    assert draws.dtype == torch.float64
    assert draws.shape == (2, 3)


@pytest.mark.parametrize("seed", [1.5, "0", None, True, np.float64(3.0), ["0"], [1.0], [True]])
def test_a_bad_seed(seed):
    with pytest.raises(ValueError, match="seed must be a whole number, not"):
        ready(waves(), seed=seed)


@pytest.mark.parametrize("seed", [0, 12345, np.int64(3), -1])
def test_whole_numbers_are_seeds(seed):
    _, _, randoms = ready(waves(), seed=seed)
    again = torch.Generator().manual_seed(int(seed))
    assert torch.equal(randoms.normal((1, 4), torch.float32)[0], torch.randn(4, generator=again))


def test_each_recording_may_have_its_seed():
    several = RandomStreams([5, 5, 1], 3, CPU).normal((3, 2, 4), torch.float32)
    assert torch.equal(several[0], several[1])
    assert torch.equal(several[:1], RandomStreams(5, 1, CPU).normal((1, 2, 4), torch.float32))
    assert torch.equal(several[2:], RandomStreams(1, 1, CPU).normal((1, 2, 4), torch.float32))


@pytest.mark.parametrize("seeds", [[], [1], [1, 2, 3]])
def test_seeds_are_as_many_as_recordings(seeds):
    with pytest.raises(ValueError, match=rf"{len(seeds)} seeds for 2 recordings"):
        ready(waves(2), seed=seeds)


@pytest.mark.parametrize(("bad", "text"), [(float("nan"), "NaN or infinite"), (0.0, "silent")])
def test_a_spectrogram_that_is_not_usable(bad, text):
    _, spectrogram, _ = ready(waves(2))
    values = spectrogram.values.clone()
    values[1] = bad
    with pytest.raises(ValueError, match=f"recording 1 of the spectrogram .*{text}"):
        ready(replace(spectrogram, values=values))


# --- devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tpu", "mps", "", "CPU", None])
def test_an_unknown_device(name):
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu' or 'cuda', not"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_cuda_asked_for_and_absent(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch finds no CUDA device here; use device='cpu'"):
        resolve_device(name)
    with pytest.raises(ValueError, match="torch finds no CUDA device here"):
        ready(waves(), device=name)


@pytest.mark.parametrize(("there", "found"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_what_is_there(monkeypatch, there, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert resolve_device("auto") == torch.device(found)


def test_video_without_a_prior_that_sees():
    with pytest.raises(ValueError, match="audio-only and would ignore the video"):
        ready(waves(), video=np.zeros((10, 67, 67)))


def test_scene_and_mixture_move_to_one_type():
    network = VaeNetwork(freq=33, latent=2, hidden=(4,))
    speech = LatentSpeech(network, stft=STFT)
    scene, spectrogram, _ = ready(waves(), Scene(speech, stationary), dtype=torch.float64)
    assert spectrogram.values.dtype == torch.complex128
    assert spectrogram.frames.dtype == spectrogram.scale.dtype == torch.float64
    assert next(scene.speech.network.parameters()).dtype == torch.float64
    assert next(network.parameters()).dtype == torch.float32  # that of the caller stays
    assert scene.noise is stationary


# --- waveforms -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        lambda w: w,
        lambda w: torch.from_numpy(w),
        lambda w: list(w),
        lambda w: tuple(torch.from_numpy(row) for row in w),
        lambda w: STFT.analyse(w),
        lambda w: Audio(w, 16000),
    ],
    ids=["array", "tensor", "list", "tuple of tensors", "spectrogram", "audio"],
)
def test_a_mixture_in_every_form_is_the_same(form):
    wave = waves(2)
    _, spectrogram, randoms = ready(form(wave))
    assert torch.equal(spectrogram.values, STFT.analyse(wave).values)
    assert spectrogram.n_samples == (640, 640)
    assert len(randoms.generators) == 2


@pytest.mark.parametrize("form", [str, lambda p: p, lambda p: p.read_bytes()])
def test_a_mixture_from_a_file(tmp_path, form):
    path, wave = tmp_path / "noisy.wav", waves()[0] / 4
    soundfile.write(path, wave, 16000, subtype="FLOAT")
    _, spectrogram, _ = ready(form(path))
    assert torch.equal(spectrogram.values, STFT.analyse(wave).values)


def test_audio_at_another_rate_is_resampled_and_said_so():
    with pytest.warns(UserWarning, match="resampled from 8000 Hz to 16000 Hz"):
        _, spectrogram, _ = ready(Audio(waves()[0], 8000))
    assert spectrogram.n_samples == (1280,)


def test_recordings_of_any_length():
    ragged = [waves()[0], waves()[0][:400]]
    _, spectrogram, _ = ready(ragged)
    assert spectrogram.n_samples == (640, 400)
    assert spectrogram.mask is not None


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (np.ones(63, "float32"), r"recording 0 has shape \(63,\); expected .* at least 64 samples"),
        (np.float32(1.0), r"recording 0 has shape \(\); expected \(sample,\)"),
        (np.ones((1, 2, 640), "float32"), r"recording 0 has shape \(2, 640\)"),
        ([np.ones(640), np.ones(10)], r"recording 1 has shape \(10,\)"),
        (np.full(640, np.nan), "recording 0 holds NaN or infinite samples"),
        ([np.ones(640), np.full(640, np.inf)], "recording 1 holds NaN or infinite samples"),
        ([np.ones(640), np.zeros(640)], "recording 1 is silent"),
        (torch.zeros(640), "recording 0 is silent"),
        ([], "expected waveforms of shape"),
        ([0.1, 0.2], r"recording 0 has shape \(\)"),
    ],
    ids=["short", "scalar", "3-D", "second short", "NaN", "inf", "second silent", "silent tensor",
         "no recordings", "list of numbers"],
)  # fmt: skip
def test_waveforms_that_are_not_usable(bad, text):
    with pytest.raises(ValueError, match=text):
        ready(bad)


def test_an_audio_that_is_too_short():
    with pytest.raises(ValueError, match="at least 64 samples"):
        ready(Audio(np.ones(63, "float32"), 16000))


def test_check_waves_returns_what_it_got():
    wave = waves(2)
    np.testing.assert_array_equal(check_waves(wave, 64), wave)


# --- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_samples", "wanted"), [(640, 1), (2_000_000, 2)])
def test_a_small_mixture_is_inverted_by_one_thread(monkeypatch, n_samples, wanted):
    used = [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: used[-1])
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    _, spectrogram, _ = ready(waves(1, n_samples))
    with pytest.raises(KeyError), limit_threads(spectrogram):
        assert used[-1] == wanted
        raise KeyError
    assert used[-1] == 2  # as it was, whatever happened
