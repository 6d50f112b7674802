"""Inference routines: each takes a scene and a mixture, and returns a `Posterior`."""

if __name__ == "inference":
    raise ImportError("import avse_ppl.inference")

from avse_ppl.inference.em import EM
from avse_ppl.inference.exact import Exact
from avse_ppl.inference.svi import SVI

__all__ = ["EM", "SVI", "Exact"]
