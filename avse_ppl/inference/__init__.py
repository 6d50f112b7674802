"""Inference methods: each takes a scene and a mixture, and returns a `Posterior`."""

if __name__ == "inference":
    raise ImportError("import avse_ppl.inference")

from avse_ppl.inference.amortized import Amortized
from avse_ppl.inference.base import InferenceMethod
from avse_ppl.inference.core.merge import merge
from avse_ppl.inference.diffusion.guided import GuidedDiffusion
from avse_ppl.inference.diffusion.udiffse import UDiffSE
from avse_ppl.inference.em.em import EM
from avse_ppl.inference.exact import Exact
from avse_ppl.inference.mcmc.hmc import HMC, NUTS
from avse_ppl.inference.mcmc.numpyro_nuts import NumPyroNUTS
from avse_ppl.inference.preset import Preset, presets
from avse_ppl.inference.vi.svi import SVI

__all__ = [
    "EM",
    "HMC",
    "NUTS",
    "SVI",
    "Amortized",
    "Exact",
    "GuidedDiffusion",
    "InferenceMethod",
    "NumPyroNUTS",
    "Preset",
    "UDiffSE",
    "merge",
    "presets",
]
