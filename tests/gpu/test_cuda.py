import numpy as np
import pytest
import torch

from avse_ppl import EM, NMF, SVI, LatentSpeech, Scene, Stft
from avse_ppl.models.networks import RvaeNetwork

pytestmark = pytest.mark.gpu

STFT = Stft(n_fft=256, hop=64)


def scene():
    torch.manual_seed(0)
    network = RvaeNetwork(freq=STFT.freq, latent=4, hidden=16).eval().requires_grad_(False)
    return Scene(LatentSpeech(network, stft=STFT), NMF(2))


def waves():
    return list(np.random.default_rng(0).normal(size=(3, 6400)).astype(np.float32))


@pytest.mark.parametrize("routine", [SVI, EM])
def test_cuda_repeats_itself(routine):
    keywords = {"steps": 20} if routine is SVI else {"rounds": 20}
    first, again = (routine(device="cuda", **keywords)(scene(), waves(), seed=3) for _ in "ab")
    np.testing.assert_array_equal(first.mean, again.mean)


def test_cuda_and_cpu_agree_in_what_they_infer():
    # Their random numbers differ: the posterior means are compared in posterior deviations.
    posteriors = [
        SVI(steps=300, tolerance=0, draws=100, device=device)(scene(), waves(), seed=0)
        for device in ("cpu", "cuda")
    ]
    gap = np.abs(posteriors[0].mean - posteriors[1].mean) / posteriors[0].sd
    assert np.median(gap) < 0.2
