"""Whether a posterior means what it says: on simulated scenes and on recordings of known speech."""

from avse_ppl.evaluation.calibration.coverage import (
    PROBABILITIES,
    Reliability,
    average,
    disc_radius,
    reliability,
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
    "Reliability",
    "SimulationBasedCalibration",
    "Sparsification",
    "average",
    "crps_draws",
    "crps_gaussian",
    "disc_radius",
    "plot_ranks",
    "rank_ecdf",
    "ranks",
    "reliability",
    "simulation_based_calibration",
    "simultaneous_band",
    "sparsification",
    "spearman",
]
