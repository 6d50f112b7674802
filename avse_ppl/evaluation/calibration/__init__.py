"""Whether a posterior means what it says: on simulated scenes and on recordings of known speech."""

from avse_ppl.calibration.coverage import (
    PROBABILITIES,
    Reliability,
    average,
    disc_radius,
    reliability,
)
from avse_ppl.calibration.plot import plot_ranks
from avse_ppl.calibration.ranks import Band, rank_ecdf, ranks, simultaneous_band
from avse_ppl.calibration.scores import (
    Sparsification,
    crps_draws,
    crps_gaussian,
    sparsification,
    spearman,
)
from avse_ppl.calibration.simulation import (
    SimulationBasedCalibration,
    simulation_based_calibration,
)

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
