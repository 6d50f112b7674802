"""CUDA against the CPU: what is inferred agrees, and repeats itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from avse_ppl import EM, NMF, SVI, Amortized, LatentSpeech, Scene, Stft, load_speech, stationary
from avse_ppl.models.networks import RvaeNetwork
from tests.contract.cast import ALL, LONGER, METHODS, ONE_EACH, make_method, make_scene
from tests.helpers import arrays_of
from tests.helpers import waves as white_waves

pytestmark = [
    pytest.mark.gpu,
    # The CPU's part of a comparison takes minutes.
    pytest.mark.filterwarnings("ignore::avse_ppl.utils.run_time.LongRunWarning"),
]

STFT = Stft(n_fft=256, hop=64)


def scene():
    torch.manual_seed(0)
    network = RvaeNetwork(freq=STFT.freq, latent=4, hidden=16).eval().requires_grad_(False)
    return Scene(LatentSpeech(network, stft=STFT), NMF(2))


def waves():
    return list(np.random.default_rng(0).normal(size=(3, 6400)).astype(np.float32))


@pytest.mark.parametrize("routine", [SVI, EM])
def test_cuda_repeats_itself(routine):
    keywords = {"steps": 20} if routine is SVI else {"iterations": 20}
    first, again = (routine(device="cuda", **keywords)(scene(), waves(), seed=3) for _ in "ab")
    np.testing.assert_array_equal(first.mean, again.mean)


def test_cuda_and_cpu_agree_in_what_they_infer():
    # Their random numbers differ: the posterior means are compared in posterior deviations.
    posteriors = [
        SVI(steps=300, tolerance=0, draws=100, moment_draws=None, device=device)(
            scene(), waves(), seed=0
        )
        for device in ("cpu", "cuda")
    ]
    gap = np.abs(posteriors[0].mean - posteriors[1].mean) / posteriors[0].sd
    assert np.median(gap) < 0.2


@pytest.mark.parametrize(
    ("method", "noise", "prior"),
    [
        pytest.param(*case, marks=[] if case in ONE_EACH else pytest.mark.slow, id="-".join(case))
        for i, case in enumerate(ALL)
        if i % 7 == 0 or case in ONE_EACH
    ],
)
def test_cuda_is_near_the_cpu(method, noise, prior):
    # The generators of the two differ, and with them starts and draws: the same posterior up to
    # its own spread, and to the bit where nothing was drawn.
    if method == "guided-udiffse":
        pytest.skip("its variance is the spread of a few chains")
    settings = LONGER[method.split("-")[0]]
    cpu, cuda = (
        replace(make_method(method), device=device, draws=50, **settings)(
            make_scene(noise, prior), white_waves(), seed=3
        )
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(cpu.mixture, cuda.mixture, rtol=1e-3, atol=1e-4)
    gap = np.abs(cpu.mean - cuda.mean) / cpu.sd
    assert np.sqrt(np.mean(gap**2)) < (1e-3 if method == "exact" else 0.5)
    assert cuda.kind == cpu.kind
    assert all(np.isfinite(values).all() for values in arrays_of(cuda).values())


@pytest.mark.parametrize("method", [m for m in METHODS if m != "numpyro-nuts"])
def test_auto_takes_cuda_where_it_is(method):
    scene = make_scene("known", "white" if method in ("guided-udiffse", "exact") else "gaussian")
    auto, cuda = (
        replace(make_method(method), device=device)(scene, white_waves(1), seed=0)
        for device in ("auto", "cuda")
    )
    np.testing.assert_array_equal(auto.speech, cuda.speech)


def test_a_network_that_sees_lips_sees_them_on_cuda():
    speech, generator = load_speech("av-dkf"), torch.Generator().manual_seed(0)
    mixture = speech.stft.analyse(white_waves(1, 8000))
    visual = torch.randn(1, 65, mixture.frames.time, generator=generator)
    visual[:, 0] = 1.0
    seen, heard = mixture.with_visual(visual), mixture
    found = {
        (device, what): Amortized(draws=2, device=device)(Scene(speech, stationary), given, seed=0)
        for device in ("cpu", "cuda")
        for what, given in (("seen", seen), ("heard", heard))
    }
    assert found["cuda", "seen"].attrs["predictor"] == "av-predictor"
    for what in ("seen", "heard"):
        cpu, cuda = found["cpu", what].mean, found["cuda", what].mean
        np.testing.assert_allclose(cpu, cuda, rtol=1e-3, atol=1e-3 * np.abs(cpu).max())
    assert not np.allclose(found["cuda", "seen"].mean, found["cuda", "heard"].mean)
