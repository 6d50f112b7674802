"""The convolutional score network."""

from __future__ import annotations

import pytest
import torch

from avse_ppl.models.networks.score_cnn import ScoreNetwork


def denoiser(visual=0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ScoreNetwork(33, visual, bins=8, hidden=8, blocks=2, wide=8, wide_blocks=1)
        for layer in (network.leave.weight, network.whole.leave.weight):
            torch.nn.init.normal_(layer, std=0.05)
    return network


def test_a_closed_gate_is_audio_only():
    network, noisy = denoiser(visual=5), torch.randn(2, 33, 9, dtype=torch.complex64)
    sigma, visual = torch.tensor([0.2, 1.0]), torch.randn(2, 6, 9)
    audio_only = network(noisy, sigma)
    for mine, other in zip(network(noisy, sigma, 0 * visual), audio_only, strict=True):
        assert torch.equal(mine, other)
    assert not torch.equal(network(noisy, sigma, visual)[0], audio_only[0])


@pytest.mark.parametrize(
    "network",
    [
        ScoreNetwork(33, bins=8, hidden=8, blocks=1, wide=8, wide_blocks=1, sigma_data=0.5),
    ],
)
def test_an_untrained_network_is_the_wiener_filter_of_white_bins(network):
    noisy, sigma = torch.randn(1, 33, 4, dtype=torch.complex64), torch.tensor([0.5])
    mean, variance = network(noisy, sigma)
    torch.testing.assert_close(mean, 0.5 * noisy)
    torch.testing.assert_close(variance, torch.full((1, 33, 4), 0.125))
