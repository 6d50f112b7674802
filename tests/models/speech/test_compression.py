"""Amplitude compression: its inverse, and moments of expanded bins."""

from __future__ import annotations

import pytest
import torch

from avse_ppl.models.speech.compression import Compression


def test_compression_is_undone():
    speech = torch.randn(100, dtype=torch.complex64)
    for compression in (Compression(), Compression(1.0)):
        back = compression.expand(compression.compress(speech))
        torch.testing.assert_close(back, speech, rtol=1e-5, atol=1e-6)
    assert Compression().compress(torch.zeros(1, dtype=torch.complex64)) == 0


@pytest.mark.parametrize(("mean", "variance"), [(0, 1.0), (0.3, 1.0), (1 + 1j, 0.5), (3j, 0.01)])
def test_moments_of_expanded_bins_are_exact(mean, variance):
    generator = torch.Generator().manual_seed(0)
    unit = torch.randn(400_000, dtype=torch.complex128, generator=generator)
    drawn = Compression().expand(mean + variance**0.5 * unit)
    given = torch.tensor(mean, dtype=torch.complex128), torch.tensor(variance, dtype=torch.float64)
    law = Compression().law(*given)
    error = float(law.power.sqrt()) / 400_000**0.5
    assert abs(complex(drawn.mean()) - complex(law.mean)) < 4 * error
    spread = (drawn - law.mean).abs().square()
    assert abs(float(spread.mean() - law.power)) < 4 * float(spread.std()) / 400_000**0.5


@pytest.mark.parametrize("mean", [30.0, 3.0 - 4.0j])
def test_a_sure_bin_has_the_variance_of_its_slope(mean):
    # s = c |c| changes by 2 |c| along c and by |c| across it, each with half of the variance of c.
    given = torch.tensor([mean], dtype=torch.complex128), torch.tensor([1e-4]).double()
    law = Compression().law(*given)
    assert float(law.power) == pytest.approx((4 + 1) / 2 * abs(mean) ** 2 * 1e-4, rel=1e-4)
    assert abs(complex(law.mean) - mean * abs(mean)) < 1e-4


def test_a_sure_bin_keeps_a_positive_variance():
    # In single precision nothing is left of the difference of two numbers of 8e5: what stays is
    # the lower bound 2 |m|^2 v, a fifth below the variance above.
    law = Compression().law(torch.tensor([30.0 + 0j]), torch.tensor([1e-9]))
    assert float(law.power) == pytest.approx(2.5 * 900 * 1e-9, rel=0.21)
    assert float(law.power) > 0
