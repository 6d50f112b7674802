"""The posterior over clean speech: moments, draws, files."""

from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.fit_info import FitInfo
from avse_ppl.posterior.posterior import Posterior

__all__ = ["Approximation", "FitInfo", "Posterior"]
