"""Evaluation: metrics, model comparison, diagnostics and calibration."""

from avse_ppl.evaluation.calibration import Coverage, coverage, simulation_based_calibration
from avse_ppl.evaluation.comparison import Comparison
from avse_ppl.evaluation.diagnostics import (
    Diagnostics,
    check_discrepancies,
    diagnose,
    predictive_check,
)
from avse_ppl.evaluation.loo import Loo, loo
from avse_ppl.evaluation.metrics import Scores, evaluate, evaluate_pair, si_sdr
from avse_ppl.evaluation.sensitivity import SensitivityTable, measure_sensitivity

__all__ = [
    "Comparison",
    "Coverage",
    "Diagnostics",
    "Loo",
    "Scores",
    "SensitivityTable",
    "check_discrepancies",
    "coverage",
    "diagnose",
    "evaluate",
    "evaluate_pair",
    "loo",
    "measure_sensitivity",
    "predictive_check",
    "si_sdr",
    "simulation_based_calibration",
]
