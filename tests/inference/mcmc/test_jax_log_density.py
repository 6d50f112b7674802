"""The density on JAX against the one on torch, for every model of the library and every prior."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as torch_dist
import pytest
import torch
from pyroapi import distributions as dist
from pyroapi import ops
from pyroapi import pyro as program

jax = pytest.importorskip("jax")
pytest.importorskip("numpyro")

from avse_ppl import NMF, ComplexNormal, GaussianSpeech, LatentSpeech, Scene, stationary  # noqa: E402
from avse_ppl.inference.core.log_density import LogDensity  # noqa: E402
from avse_ppl.inference.mcmc.jax_log_density import list_recordings, make_jax_log_density, to_jax  # noqa: E402
from avse_ppl.models import AlphaStable, AR1Gain, Clicks, Hum, NoiseVae, StudentT, Wind  # noqa: E402
from avse_ppl.models.networks import RvaeNetwork, TcvaeNetwork, VaeNetwork  # noqa: E402
from tests.helpers import STFT  # noqa: E402


def networks():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return (
            VaeNetwork(33, 3, hidden=(8, 6)),
            RvaeNetwork(33, 3, hidden=6),
            TcvaeNetwork(33, 3, hidden=8, encoder_hidden=8),
        )


VAE, RVAE, TCVAE = networks()
PRIORS = {
    "gaussian": GaussianSpeech(stft=STFT),
    "spectrum": GaussianSpeech(spectrum=torch.linspace(1, 2, 33), stft=STFT),
    "vae": LatentSpeech(VAE, stft=STFT),
    "rvae": LatentSpeech(RVAE, stft=STFT),
    "tcvae": LatentSpeech(TCVAE, stft=STFT),
}
NOISES = {
    "stationary": stationary, "nmf": NMF(2), "ar1": AR1Gain(), "student-t": StudentT(),
    "alpha-stable": AlphaStable(), "hum": stationary + Hum(1000.0, harmonics=3),
    "clicks": stationary + Clicks(), "wind": stationary + Wind(),
    "learned": NoiseVae(VAE, stft=STFT), "sum": NMF(2) + NMF(1),
}  # fmt: skip
PAIRS = [("nmf", prior) for prior in PRIORS]
PAIRS += [(noise, "gaussian") for noise in NOISES if noise != "nmf"]


def density_of(speech, noise, lengths=(320, 250)):
    rng = np.random.default_rng(0)
    waves = [rng.normal(size=n).astype("float32") for n in lengths]
    return LogDensity(Scene(speech, noise), STFT.analyse(waves))


def somewhere(density, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        site.name: (site.start + 0.3 * torch.randn(site.shape, generator=generator))
        .detach()
        .requires_grad_()
        for site in density.sites
    }


@pytest.mark.parametrize(("noise", "prior"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_density_and_gradient_are_the_same_on_both(noise, prior):
    density = density_of(PRIORS[prior], NOISES[noise])
    point = somewhere(density)
    expected = density(point, 0.7)
    slopes = torch.autograd.grad(expected.sum(), list(point.values()))
    recordings = list_recordings(density)
    made = make_jax_log_density(density)
    counterpart = jax.jit(
        jax.value_and_grad(lambda u, recording: made(u, recording, 0.7)),
        compiler_options={"xla_backend_optimization_level": 0},  # it runs twice
    )
    for r in range(2):
        here = {name: to_jax(value[r : r + 1]) for name, value in point.items()}
        found, gradient = counterpart(here, recordings[r])
        assert float(found) == pytest.approx(expected[r].item(), rel=1e-4)
        for name, slope in zip(point, slopes, strict=True):
            size = float(slope[r].abs().max())
            np.testing.assert_allclose(gradient[name][0], slope[r], rtol=1e-3, atol=1e-4 * size)


def plain(frames):
    """A noise model for Pyro only."""
    return ComplexNormal(0.0, pyro.sample("floor", torch_dist.LogNormal(-1.0, 1.0)))


def torch_inside(frames):
    """A noise model with torch where `ops` belongs."""
    return ComplexNormal(0.0, torch.exp(program.sample("floor", dist.Normal(-1.0, 1.0))))


def portable(frames):
    return ComplexNormal(0.0, ops.exp(program.sample("floor", dist.Normal(-1.0, 1.0))))


@pytest.mark.parametrize("noise", [plain, torch_inside])
def test_a_model_for_torch_only_is_told_how_to_port_it(noise):
    density = density_of(PRIORS["gaussian"], noise)
    with pytest.raises(ValueError, match="does not run on NumPyro") as error:
        make_jax_log_density(density)
    text = str(error.value)
    assert noise.__name__ in text
    assert "from pyroapi import distributions as dist" in text
    assert "from pyroapi import ops, pyro" in text
    assert "use the method 'nuts'" in text


def test_the_ported_model_runs():
    density = density_of(PRIORS["gaussian"], portable)
    assert make_jax_log_density(density).sites == {"floor", "speech.gain"}


def test_a_model_that_is_another_on_jax_is_refused():
    calls = []

    def moody(frames):
        calls.append(None)
        return ComplexNormal(
            0.0,
            ops.exp(program.sample("floor", dist.Normal(-1.0, 1.0)))
            * (2.0 if "jax" in type(frames.number(1.0)).__module__ else 1.0),
        )

    density = density_of(PRIORS["gaussian"], moody)
    with pytest.raises(ValueError, match=r"on torch and .* on JAX at the same latents"):
        make_jax_log_density(density)


def test_a_network_without_a_decoder_on_jax_is_named():
    class Own(VaeNetwork.__base__):
        latent = 3

        def decode(self, z):
            return torch.zeros(*z.shape[:-2], 33, z.shape[-1])

        def encode(self, power, sample=False):
            raise NotImplementedError

    density = density_of(LatentSpeech(Own(), stft=STFT), stationary)
    with pytest.raises(NotImplementedError, match=r"Own has no decoder on JAX; use .*'nuts'"):
        make_jax_log_density(density)
