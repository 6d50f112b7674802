"""Perceptual loss: what it hears, and that it ranks as PESQ does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avse_ppl import load_audio
from avse_ppl.data.example_files import get_example_path
from avse_ppl.evaluation.metrics import compute_pesq_wb
from avse_ppl.signal.stft import Stft
from avse_ppl.training.loudness import LoudnessDisturbance, compute_bark, compute_threshold_db

STFT = Stft(512, 256)


@pytest.fixture
def disturbance() -> LoudnessDisturbance:
    return LoudnessDisturbance(STFT)


def draw_speech(seed: int = 0, frames: int = 60) -> torch.Tensor:
    """Values whose level changes by 30 dB from frame to frame, falling over frequency."""
    generator = torch.Generator().manual_seed(seed)
    level = 10 ** (-1.5 * torch.rand(1, 1, frames, generator=generator))
    tilt = 1.0 / (1.0 + torch.arange(257.0)[:, None] / 30.0)
    return tilt * level * torch.randn(1, 257, frames, dtype=torch.complex64, generator=generator)


def test_every_bin_above_the_lowest_is_in_bands_that_sum_to_it(disturbance) -> None:
    assert torch.allclose(disturbance.bands.sum(1)[1:], torch.ones(256))
    assert float(disturbance.bands[0].abs().sum()) == 0.0
    assert (disturbance.bands.sum(0) > 0).all()
    assert (disturbance.threshold > 0).all()


def test_what_is_added_disturbs_more_than_what_is_missing(disturbance) -> None:
    speech = draw_speech()
    hissing = speech + 0.1 * draw_speech(1)
    added, missing = disturbance(hissing, speech), disturbance(speech, hissing)
    assert float(added) > 2.0 * float(missing) > 0.02
    assert float(disturbance(speech * 1.05, speech)) < 1e-3  # masked
    assert float(disturbance(-speech, speech)) == 0.0  # phases are not heard


def test_a_difference_below_the_threshold_of_hearing_is_none(disturbance) -> None:
    speech = draw_speech()
    silent = speech.clone()
    silent[..., 30:] = 0.0
    hiss = torch.zeros_like(speech)
    hiss[..., 30:] = 1e-7 * draw_speech(1)[..., 30:]
    assert float(disturbance(silent + hiss, silent)) == 0.0
    assert float(disturbance(silent + 1e5 * hiss, silent)) > 0.1


def test_it_does_not_depend_on_the_level_of_the_recording(disturbance) -> None:
    speech, noise = draw_speech(), 0.1 * draw_speech(1)
    one = disturbance(speech + noise, speech)
    torch.testing.assert_close(disturbance(100 * (speech + noise), 100 * speech), one)


def test_its_gradient_is_finite_and_leads_to_the_speech(disturbance) -> None:
    speech = draw_speech()
    for start in (torch.zeros_like(speech), speech.clone(), speech + 0.3 * draw_speech(1)):
        start.requires_grad_()
        disturbance(start, speech).sum().backward()
        assert start.grad is not None
        assert start.grad.isfinite().all()
    noisy = (speech + 0.3 * draw_speech(1)).requires_grad_()
    optimiser = torch.optim.Adam([noisy], lr=3e-3)
    course = []
    for _ in range(60):
        loss = disturbance(noisy, speech).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        course.append(loss.item())
    assert course[-1] < 0.7 * course[0]


@pytest.mark.parametrize("name", ["rain.flac", "running_tap.flac"])
def test_it_ranks_noise_as_pesq_does(name, disturbance) -> None:
    speech, noise = (
        load_audio(get_example_path(one)).mono().samples for one in ("speech.flac", name)
    )
    noise = np.resize(noise, len(speech))
    noise = noise * np.sqrt(np.mean(speech**2) / np.mean(noise**2))
    found, expected = [], []
    for snr_db in (0, 5, 10, 20):
        mixture = (speech + noise * 10 ** (-snr_db / 20)).astype(np.float32)
        values, truth = (STFT.forward(torch.from_numpy(w))[None] for w in (mixture, speech))
        found.append(float(disturbance(values, truth)))
        expected.append(compute_pesq_wb(speech, mixture, "mixture"))
    assert np.all(np.diff(found) < 0)
    assert np.all(np.diff(expected) > 0)


def test_scales_of_hearing() -> None:
    # Table values: Zwicker and Terhardt, 24 critical bands up to 15.5 kHz.
    found = compute_bark(np.array([100.0, 1000.0, 4400.0]))
    assert found == pytest.approx([1.0, 9.0, 18.0], abs=0.6)
    found = compute_threshold_db(np.array([100.0, 1000.0, 3300.0]))
    assert found[2] < found[1] < found[0]
    assert found == pytest.approx([23.0, 3.4, -5.0], abs=0.6)
