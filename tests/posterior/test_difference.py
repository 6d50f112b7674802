"""Difference of two posteriors against numerical integrals, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from avse_ppl import Posterior, Stft
from avse_ppl.posterior.difference import compare_posteriors


def make_posterior(mean_wave, variance, mixture=None, recordings=1):
    import torch

    stft = Stft(n_fft=512, hop=128)
    n = len(mean_wave)
    mean = stft.forward(torch.from_numpy(np.asarray(mean_wave, "float32"))).numpy()[None]
    mean = np.repeat(mean, recordings, axis=0)
    variances = np.broadcast_to(np.float32(variance), mean.shape)
    speech = np.zeros((1, 0, recordings, n), np.float32)
    mixture = 2 * mean if mixture is None else mixture
    return Posterior(mean, variances, mixture, speech, {}, (n,) * recordings, stft, "exact")  # type: ignore[arg-type]


def tone(freq_hz, amplitude):
    return amplitude * np.sin(2 * np.pi * freq_hz * np.arange(8000) / 16000)


def test_divergences_are_the_integrals_of_the_densities():
    first = make_posterior(tone(500, 1.0), 0.5)
    second = make_posterior(tone(500, 1.0), 1.25, first.mixture)
    mean = first.mean.copy()
    mean[0, 3, 10] += 0.6 + 0.8j
    found = compare_posteriors(first, replace(second, mean=mean))
    x, y = np.meshgrid(*2 * [np.linspace(-8, 9, 1701)])
    p, q = (
        np.exp(-((x - a) ** 2 + (y - b) ** 2) / v) / (np.pi * v)
        for a, b, v in ((0, 0, 0.5), (0.6, 0.8, 1.25))
    )
    area = 0.01**2
    assert found.overlap[3, 10] == pytest.approx(np.sum(np.sqrt(p * q)) * area, rel=1e-4)
    ratio = (p - q) * (
        -(x**2 + y**2) / 0.5 + ((x - 0.6) ** 2 + (y - 0.8) ** 2) / 1.25 + np.log(1.25 / 0.5)
    )
    assert found.symmetric_kl[3, 10] == pytest.approx(np.sum(ratio) * area, rel=1e-4)
    assert found.sd_units[3, 10] == pytest.approx(1 / np.sqrt(0.875), rel=1e-4)
    same = compare_posteriors(first, first)
    assert (same.overlap == 1).all() and np.abs(same.symmetric_kl).max() < 1e-12
    assert same.mean_sd_units == 0.0 and same.level_db < -100


def test_the_summary_says_how_loud_and_where():
    late = tone(2000, 0.1) * (np.arange(8000) > 6000)
    first = make_posterior(tone(500, 1.0) + late, 0.1)
    second = make_posterior(tone(500, 1.0), 0.1, first.mixture)
    found = compare_posteriors(first, second)
    np.testing.assert_allclose(found.wave, late, atol=1e-4)
    assert found.level_db == pytest.approx(-20 - 6, abs=0.3)
    time_s, freq_hz, level_db = found.loudest
    assert time_s > 6000 / 16000 and abs(freq_hz - 2000) < 32
    assert level_db == pytest.approx(-20, abs=0.5)
    bands = found.level_by_band_db()
    assert bands[300.0, 1000.0] < -50 and bands[1000.0, 3000.0] > 0
    assert "relative to the speech" in repr(found) and "<table>" in found._repr_html_()


def test_other_recordings_are_refused():
    first = make_posterior(tone(500, 1.0), 0.1)
    with pytest.raises(ValueError, match="of different recordings, or of one by different front"):
        compare_posteriors(first, make_posterior(tone(600, 1.0), 0.1))
    with pytest.raises(ValueError, match="of different recordings"):
        compare_posteriors(first, make_posterior(tone(500, 1.0)[:7990], 0.1))
    with pytest.raises(ValueError, match=r"one recording each, found 1 and 2; select\(i\)"):
        compare_posteriors(first, make_posterior(tone(500, 1.0), 0.1, recordings=2))
