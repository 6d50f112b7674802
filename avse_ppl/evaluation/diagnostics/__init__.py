"""How far a posterior is to be trusted: convergence, and checks against the data."""

from avse_ppl.evaluation.diagnostics.diagnose import Diagnostics, diagnose
from avse_ppl.evaluation.diagnostics.discrepancy import (
    DiscrepancyCheck,
    check_discrepancies,
    draw_posterior_predictive,
)
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
    "DiscrepancyCheck",
    "ElboRise",
    "PredictiveCheck",
    "chain_figures",
    "chain_warnings",
    "check_discrepancies",
    "diagnose",
    "draw_posterior_predictive",
    "ess",
    "log_powers",
    "measure_rise",
    "predictive_check",
    "r_hat",
]
