"""Every inference method, noise model and speech prior that ships, with small settings.

Methods come from the catalog, noise models from the grammar of their names: a new one joins by
itself, or a test says what to add here.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

import pyro
import torch
from pyroapi import distributions as dist
from pyroapi import pyro as generic

from avse_ppl import ComplexNormal, GaussianSpeech, LatentSpeech, Scene, ScoreSpeech, Stft
from avse_ppl.models import NoiseVae, parse_noise
from avse_ppl.models.networks import SequentialVaeNetwork
from avse_ppl.models.networks.latent_diffusion import LatentDiffusionNetwork
from avse_ppl.models.networks.score_cnn import ScoreNetwork
from avse_ppl.models.networks.tcn import TcnNetwork
from avse_ppl.models.noise.parse import MODELS
from avse_ppl.models.predictors.network import NetworkPredictor
from avse_ppl.pipeline.catalog import INFERENCE_METHODS, resolve_inference
from tests.helpers import STFT, known_noise, make_network, perturb, trace_model, waves

N = 320
TIME = STFT.count_frames(N)
DRAWS = 3
STEPS = 6  # half of them are kept by Langevin: as many as there are draws

# --- speech priors -------------------------------------------------------------------------------


def make_denoiser() -> Any:
    network = ScoreNetwork(33, bins=8, hidden=8, blocks=2, wide=8, wide_blocks=1)
    torch.nn.init.normal_(network.leave.weight, std=0.05)  # so that its answers are no closed form
    return network.eval().requires_grad_(False)


with torch.random.fork_rng():
    torch.manual_seed(0)
    PRIORS: dict[str, Any] = {
        "gaussian": GaussianSpeech(stft=STFT),
        "white": GaussianSpeech(gain_sd_db=0.0, stft=STFT),
        **{k: LatentSpeech(make_network(k), stft=STFT, name=k) for k in ("vae", "rvae", "tcvae")},
        "dkf": LatentSpeech(
            perturb(SequentialVaeNetwork(33, 3, 8, 1, 8, 1, prior="gated")), stft=STFT, name="dkf"
        ),
        "latent-diffusion": LatentSpeech(
            perturb(LatentDiffusionNetwork(33, 3, 4, 8, 1, 8, 1, 8, 2)), stft=STFT, name="diffusion"
        ),
        "score": ScoreSpeech(make_denoiser(), stft=STFT),
    }

# --- noise models --------------------------------------------------------------------------------


def heavy_tailed(frames):
    """A user's noise model, as in the documentation: plain numbers, two plates."""
    floor = generic.sample("floor", dist.LogNormal(-1.0, 1.0))
    with generic.plate("freq", frames.freq, dim=-2), generic.plate("time", frames.time, dim=-1):
        texture = generic.sample("texture", dist.InverseGamma(2.0, 1.0))
    return ComplexNormal(0.0, floor * texture)


def hierarchy(frames):
    """A user's noise model in which the prior of one latent depends on another."""
    middle = pyro.sample("middle", pyro.distributions.Normal(-1.0, 1.0))
    with pyro.plate("freq", frames.freq, dim=-2):
        power = pyro.sample("power", pyro.distributions.LogNormal(middle, 0.5))
    return ComplexNormal(0.0, power)


def unknown_level(frames):
    return ComplexNormal(0.0, pyro.sample("level", pyro.distributions.LogNormal(-1.0, 1.0)))


# Where the name alone does not make a model for 33 bins, or for no bins at all.
_TEXTS = {
    "hum": "stationary+hum(1000, harmonics=3)",
    "clicks": "stationary+clicks",
    "wind": "stationary+wind",
}
NOISES: dict[str, Any] = {
    "known": known_noise,
    "level": unknown_level,
    "heavy-tailed": heavy_tailed,
    "hierarchy": hierarchy,
    **{
        name: NoiseVae(make_network("vae"), stft=STFT)
        if name == "learned"
        else parse_noise(_TEXTS.get(name, name), lambda path: None)
        for name in MODELS
    },
}

# --- inference methods ---------------------------------------------------------------------------


def make_predictor() -> NetworkPredictor:
    """A small network with random weights, with the hop of the scenes here."""
    torch.manual_seed(0)
    network = TcnNetwork(freq=257, widths=(4, 8), inner=12, repeats=1, dilations=2)
    return NetworkPredictor(network, Stft(512, STFT.hop))


_SVI = {
    "steps": STEPS, "tolerance": 0, "draws": DRAWS, "k_hat_draws": 25, "moment_draws": None,
    "tempering": 1.0, "learning_rate": 0.15,
}  # fmt: skip
_EM = {"iterations": STEPS, "draws": DRAWS, "e_steps": 1, "warm_up": 0, "tempering": 1.0}
_CHAINS = {"warmup": 2, "chains": 2, "init_steps": 5}
SETTINGS: dict[str, dict[str, Any]] = {
    "svi": _SVI,
    "svi-structured": _SVI,
    "svi-low-rank": {**_SVI, "rank": 2},
    "em": {**_EM, "step_size": 0.05},
    "em-langevin": {**_EM, "step_size": 0.05},
    "em-mala": {**_EM, "step_size": 0.3},
    "em-mh": {**_EM, "step_size": 0.3, "e_steps": 9},
    "em-variational": {**_EM, "step_size": 0.05},
    "nuts": {**_CHAINS, "max_tree_depth": 2},
    "hmc": {**_CHAINS, "steps": 2},
    "numpyro-nuts": {**_CHAINS, "max_tree_depth": 2, "metrics": 1},
    "guided": {"steps": 4, "sweeps": DRAWS, "chains": 1, "draws": DRAWS, "noise_updates": 3,
               "langevin_steps": 2, "base_prior": None, "base_prior_av": None},
    "guided-udiffse": {"em_iterations": 2, "steps": 4, "chains": DRAWS, "noise_updates": 3},
    "exact": {"nodes": 17, "draws": DRAWS},
    "amortized": {"predictor": make_predictor(), "draws": DRAWS},
}  # fmt: skip
LONGER: dict[str, dict[str, int]] = {  # by the first word of a method: long enough to compare
    "svi": {"steps": 150}, "em": {"iterations": 150}, "nuts": {"warmup": 50}, "hmc": {"warmup": 50},
    "numpyro": {"warmup": 50}, "guided": {"steps": 20, "sweeps": 50}, "exact": {},
    "amortized": {},
}  # fmt: skip
ITERATIONS = {name: STEPS for name in SETTINGS if name.startswith(("svi", "em"))}
KINDS = {
    "svi": "variational",
    "svi-structured": "variational, structured guide",
    "svi-low-rank": "variational, low-rank guide",
    "em": "point estimate",
    "em-langevin": "Langevin, noise a point estimate",
    "em-mala": "Metropolis-adjusted Langevin, noise a point estimate",
    "em-mh": "random walk Metropolis, noise a point estimate",
    "em-variational": "variational, noise a point estimate",
    "nuts": "NUTS",
    "hmc": "HMC",
    "numpyro-nuts": "NUTS",
    "guided": "guided diffusion",
    "guided-udiffse": "UDiffSE, spread of chains, tempered 1.5",
    "exact": "exact",
    "amortized": "amortized, one pass of a network",
}
MARKOV_CHAINS = ("nuts", "hmc", "numpyro-nuts")  # of the whole posterior: latents have draws too
WITHOUT_SCENE = ("amortized",)  # the law is a network's: no latents, no models, no likelihood
METHODS = list(INFERENCE_METHODS)


@cache
def make_method(name: str) -> Any:
    """Make a method of the catalog with few steps and draws."""
    assert name in SETTINGS and name in KINDS, f"add {name!r} to SETTINGS and KINDS here"
    if name in MARKOV_CHAINS:
        return type(resolve_inference(name))(draws=DRAWS, **SETTINGS[name])
    return resolve_inference(name, **SETTINGS[name])


def has_setting(method: str, setting: str) -> bool:
    """Whether a method uses a setting; UDiffSE has a tempering and as many draws of its own."""
    if setting == "tempering" and method in WITHOUT_SCENE:
        return False
    return setting in {f.name for f in fields(make_method(method))} and method != "guided-udiffse"


def chains_of(method: str) -> int:
    if method == "guided-udiffse":
        return DRAWS  # each chain leaves one draw
    return 2 if method in MARKOV_CHAINS else 1


def draws_of(method: str) -> int:
    return 1 if method == "guided-udiffse" else DRAWS


def trace_names(method: str) -> set[str]:
    """Which curves of its iterations a method keeps."""
    if method not in ITERATIONS:
        return set()
    return {"elbo"} if method.startswith("svi") or method == "em-variational" else {"log_joint"}


# --- scenes --------------------------------------------------------------------------------------


@cache
def sites_of(model: str) -> dict[str, tuple[int, ...]]:
    """Latent sites of a prior or a noise model, and their shapes for one recording."""
    if model == "score":
        return {}
    program = PRIORS[model] if model in PRIORS else NOISES[model]
    trace = trace_model(program, STFT.analyse(waves(1, N)).frames, recordings=1)
    return {
        name: tuple(site["value"].shape[1:])
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and type(site["fn"]).__name__ != "_Subsample"
    }


def is_supported(method: str, noise: str, prior: str) -> bool:
    """Whether a method can run on a scene."""
    if method in WITHOUT_SCENE:
        return True
    if method == "exact":
        return noise in ("known", "level") and prior in ("gaussian", "white")
    if method == "guided-udiffse":
        return prior in ("white", "score")
    if method == "guided":
        return prior != "dkf"  # whose latents have no score in closed form
    if prior == "score" or not {**sites_of(noise), **sites_of(prior)}:
        return False  # no density, or nothing to iterate on
    # Models that import Pyro itself do not run on JAX, nor does the decoder of latent diffusion.
    on_jax = noise not in ("level", "hierarchy") and prior != "latent-diffusion"
    return method != "numpyro-nuts" or on_jax


ALL = [(m, n, p) for m in METHODS for n in NOISES for p in PRIORS if is_supported(m, n, p)]


def choose_few() -> list[tuple[str, str, str]]:
    """Each method once, then each noise model and each prior that is still without a method."""
    few: list[tuple[str, str, str]] = []
    taken = {"known"}  # says least: for the methods that can do no more
    for method in METHODS:
        cases = [case for case in ALL if case[0] == method]
        few.append(max(cases, key=lambda case: len(set(case) - taken)))
        taken.update(few[-1])
    for place, names in ((1, NOISES), (2, PRIORS)):
        for name in names:
            if name not in {case[place] for case in few}:
                few.append(next(c for c in ALL if c[place] == name and c[0] in ("svi", "guided")))
    return few


FEW = choose_few()
ONE_EACH = FEW[: len(METHODS)]


def make_scene(noise: str, prior: str) -> Scene:
    return Scene(PRIORS[prior], NOISES[noise])
