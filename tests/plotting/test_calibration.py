"""Figure of the ranks of simulation-based calibration."""

import numpy as np

from avse_ppl.evaluation.calibration import SimulationBasedCalibration
from avse_ppl.plotting import plot_ranks


def test_plot_ranks(tmp_path):
    random = np.random.default_rng(0)
    fields = {f"q{i}": random.integers(0, 10, 30) for i in range(5)}
    path = plot_ranks(SimulationBasedCalibration(fields, 9, "exact"), tmp_path / "ranks.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert list(tmp_path.iterdir()) == [path]
