"""Named inference methods: a class each, and the settings that differ from its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from avse_ppl.inference.amortized import Amortized
from avse_ppl.inference.diffusion.guided import GuidedDiffusion
from avse_ppl.inference.diffusion.udiffse import UDiffSE
from avse_ppl.inference.em.em import EM
from avse_ppl.inference.exact import Exact
from avse_ppl.inference.mcmc.hmc import HMC, NUTS
from avse_ppl.inference.mcmc.numpyro_nuts import NumPyroNUTS
from avse_ppl.inference.vi.svi import SVI


@dataclass(frozen=True)
class Preset:
    """A named inference method.

    Parameters
    ----------
    method
        Its class.
    description
        One line for users.
    settings
        Fields of the class with other values than its defaults.
    """

    method: type[Any]
    description: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, **settings: Any) -> Any:
        """Method with these settings on top of the preset's own."""
        return self.method(**{**self.settings, **settings})


# Guides with correlations take more steps than the mean field, and are checked with more draws.
_CORRELATED = {"steps": 200, "moment_draws": None, "k_hat_draws": 100}
_HMC = {"draws": 50, "warmup": 50, "chains": 2}
_METROPOLIS = {"iterations": 80, "warm_up": 40, "tempering": 0.4}

presets: Mapping[str, Preset] = MappingProxyType(
    {
        "svi": Preset(SVI, "mean-field variational posterior over all latents (the default)"),
        "svi-structured": Preset(
            SVI,
            "variational, each latent that changes over time a chain",
            {"guide": "structured", **_CORRELATED},
        ),
        "svi-low-rank": Preset(
            SVI,
            "variational, with a few directions common to all latents",
            {"guide": "low-rank", **_CORRELATED},
        ),
        "em": Preset(EM, "point estimate by expectation-maximisation"),
        "em-langevin": Preset(
            EM,
            "Langevin draws of the speech latents, point estimate of the noise",
            {"e_step": "langevin", "iterations": 100, "step_size": 0.4, "tempering": 0.4},
        ),
        "em-mala": Preset(
            EM,
            "Metropolis-adjusted Langevin draws of speech, point estimate of the noise",
            {"e_step": "mala", "e_steps": 3, "step_size": 0.2, **_METROPOLIS},
        ),
        "em-mh": Preset(
            EM,
            "random walk Metropolis draws of speech, point estimate of the noise",
            {"e_step": "mh", "e_steps": 6, "step_size": 1.0, **_METROPOLIS},
        ),
        "em-variational": Preset(
            EM,
            "mean-field posterior of speech, point estimate of the noise",
            {"e_step": "variational", "iterations": 60, "step_size": 0.1, "tempering": 0.4},
        ),
        "nuts": Preset(
            NUTS,
            "Hamiltonian draws from the posterior itself; a minute for each second of audio",
            {**_HMC, "max_tree_depth": 6},
        ),
        "numpyro-nuts": Preset(
            NumPyroNUTS,
            "the same on JAX, compiled: a minute or two for a few seconds of audio",
            {"draws": 200, "warmup": 225, "chains": 2},
        ),
        "hmc": Preset(HMC, "Hamiltonian draws by trajectories of a given number of steps", _HMC),
        "guided": Preset(
            GuidedDiffusion,
            "reverse diffusion; for the speech priors score and latent-diffusion",
            {"base_prior": "latent-diffusion", "base_prior_av": "av-dkf"},
        ),
        "guided-udiffse": Preset(
            UDiffSE, "the published guided diffusion, for comparison; tempered, slow"
        ),
        "exact": Preset(
            Exact, "closed form or grid; for the Gaussian prior with at most one noise unknown"
        ),
        "amortized": Preset(
            Amortized, "one pass of a network, and its own law; no speech prior, no noise model"
        ),
    }
)
