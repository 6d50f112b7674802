"""How far a posterior is to be trusted: convergence, and checks against the data."""

from avse_ppl.evaluation.diagnostics.diagnose import Diagnostics, diagnose
from avse_ppl.evaluation.diagnostics.predictive import PredictiveCheck, predictive_check
from avse_ppl.inference.core.convergence import (
    ESS_PER_CHAIN,
    R_HAT,
    ElboRise,
    chain_figures,
    chain_warnings,
    ess,
    measure_rise,
    r_hat,
)
from avse_ppl.inference.core.powers import log_powers

__all__ = [
    "ESS_PER_CHAIN",
    "R_HAT",
    "Diagnostics",
    "ElboRise",
    "PredictiveCheck",
    "chain_figures",
    "chain_warnings",
    "diagnose",
    "ess",
    "log_powers",
    "measure_rise",
    "predictive_check",
    "r_hat",
]
