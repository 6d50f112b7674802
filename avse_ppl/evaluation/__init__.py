"""Evaluation: metrics, model comparison, diagnostics and calibration."""

from avse_ppl.evaluation.calibration import Coverage, coverage, simulation_based_calibration
from avse_ppl.evaluation.comparison import Comparison
from avse_ppl.evaluation.diagnostics import Diagnostics, diagnose, predictive_check
from avse_ppl.evaluation.loo import Loo, loo
from avse_ppl.evaluation.metrics import Scores, evaluate, evaluate_pair, si_sdr

__all__ = [
    "Comparison",
    "Coverage",
    "Diagnostics",
    "Loo",
    "Scores",
    "coverage",
    "diagnose",
    "evaluate",
    "evaluate_pair",
    "loo",
    "predictive_check",
    "si_sdr",
    "simulation_based_calibration",
]
