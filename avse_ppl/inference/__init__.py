"""Inference routines: each takes a scene and a mixture, and returns a `Posterior`."""

if __name__ == "inference":
    raise ImportError("import avse_ppl.inference")

from avse_ppl.inference.em import EM
from avse_ppl.inference.exact import Exact
from avse_ppl.inference.guided import GuidedDiffusion
from avse_ppl.inference.joining import merge
from avse_ppl.inference.numpyro_nuts import NumPyroNUTS
from avse_ppl.inference.nuts import HMC, NUTS
from avse_ppl.inference.svi import SVI
from avse_ppl.inference.udiffse import UDiffSE

__all__ = [
    "EM",
    "HMC",
    "NUTS",
    "SVI",
    "Exact",
    "GuidedDiffusion",
    "NumPyroNUTS",
    "UDiffSE",
    "merge",
]
