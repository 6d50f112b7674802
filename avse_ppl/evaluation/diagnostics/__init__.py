"""How far a posterior is to be trusted: convergence, and checks against the data."""

from avse_ppl.diagnostics.bound import Rise, rise_of
from avse_ppl.diagnostics.chains import chain_attrs, chain_figures, chain_warnings
from avse_ppl.diagnostics.diagnose import Diagnostics, diagnose
from avse_ppl.diagnostics.powers import log_powers
from avse_ppl.diagnostics.predictive import PredictiveCheck, predictive_check

__all__ = [
    "Diagnostics",
    "PredictiveCheck",
    "Rise",
    "chain_attrs",
    "chain_figures",
    "chain_warnings",
    "diagnose",
    "log_powers",
    "predictive_check",
    "rise_of",
]
