"""Calibration: simulation-based ranks, coverage of credible regions, scores of uncertainty."""

from avse_ppl.evaluation.calibration.coverage import (
    PROBABILITIES,
    Coverage,
    average_coverage,
    coverage,
    disc_radius,
)
from avse_ppl.evaluation.calibration.ranks import Band, compute_ranks, rank_ecdf, simultaneous_band
from avse_ppl.evaluation.calibration.scores import (
    Sparsification,
    crps_draws,
    crps_gaussian,
    sparsification,
    spearman,
)
from avse_ppl.evaluation.calibration.simulation import (
    SimulationBasedCalibration,
    simulation_based_calibration,
)

__all__ = [
    "PROBABILITIES",
    "Band",
    "Coverage",
    "SimulationBasedCalibration",
    "Sparsification",
    "average_coverage",
    "compute_ranks",
    "coverage",
    "crps_draws",
    "crps_gaussian",
    "disc_radius",
    "rank_ecdf",
    "simulation_based_calibration",
    "simultaneous_band",
    "sparsification",
    "spearman",
]
