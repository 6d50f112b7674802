"""arviz reads what a posterior hands out."""

from __future__ import annotations

import arviz
import numpy as np
import pytest
from matplotlib.figure import Figure

from avse_ppl import NUTS, GaussianSpeech, Scene, stationary
from tests.helpers import STFT, waves


@pytest.fixture(scope="module")
def posterior():
    method = NUTS(warmup=5, draws=20, chains=2, max_tree_depth=2, waveforms=4)
    return method(Scene(GaussianSpeech(stft=STFT), stationary), waves(2, 320), seed=0)


def test_energy_and_summaries(posterior):
    data = posterior.select(1).to_arviz()
    assert set(data["sample_stats"].sizes) == {"chain", "draw"}
    fractions = np.asarray(arviz.bfmi(data))
    assert fractions.shape == (2,) and np.isfinite(fractions).all()
    table = arviz.summary(data, var_names=["noise.power"], filter_vars=None)
    assert len(table) == STFT.freq


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of arviz, about matplotlib
def test_energy_is_drawn(posterior):
    from matplotlib.pyplot import close

    axes = arviz.plot_energy(posterior.select(0).to_arviz())
    assert isinstance(axes.figure, Figure)
    close(axes.figure)


def test_several_recordings_keep_their_dimension(posterior):
    data = posterior.to_arviz()
    assert data["sample_stats"].sizes["recording"] == 2


def test_files_are_as_they_were(posterior, tmp_path):
    one = posterior.select(0)
    loaded = type(one).load(one.save(tmp_path / "posterior.nc"))
    np.testing.assert_array_equal(loaded.stats["energy"], one.stats["energy"])
