"""Whether a posterior means what it says: on simulated scenes and on recordings of known speech."""

from avse_ppl.evaluation.calibration.coverage import (
    PROBABILITIES,
    Coverage,
    average_coverage,
    coverage,
    disc_radius,
)
from avse_ppl.evaluation.calibration.ranks import Band, rank_ecdf, ranks, simultaneous_band
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
from avse_ppl.plotting.calibration import plot_ranks

__all__ = [
    "PROBABILITIES",
    "Band",
    "Coverage",
    "SimulationBasedCalibration",
    "Sparsification",
    "average_coverage",
    "coverage",
    "crps_draws",
    "crps_gaussian",
    "disc_radius",
    "plot_ranks",
    "rank_ecdf",
    "ranks",
    "simulation_based_calibration",
    "simultaneous_band",
    "sparsification",
    "spearman",
]
