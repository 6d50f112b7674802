"""How far a posterior is to be trusted: convergence, and checks against the data."""

from avse_ppl.evaluation.diagnostics.diagnose import Diagnostics, diagnose
from avse_ppl.evaluation.diagnostics.predictive import PredictiveCheck, predictive_check
from avse_ppl.inference.core.convergence import (
    ElboRise,
    chain_figures,
    chain_warnings,
    measure_rise,
)
from avse_ppl.inference.core.powers import log_powers

__all__ = [
    "Diagnostics",
    "ElboRise",
    "PredictiveCheck",
    "chain_figures",
    "chain_warnings",
    "diagnose",
    "log_powers",
    "measure_rise",
    "predictive_check",
]
