"""Pictures of a posterior lie within their figure, down to the labels."""

from __future__ import annotations

import pytest
from PIL import Image

from avse_ppl import SVI, GaussianSpeech, Scene, stationary
from avse_ppl.plotting import figure as figures
from avse_ppl.plotting.posterior import plot_posterior
from tests.helpers import STFT, waves


@pytest.fixture(scope="module")
def posterior():
    scene = Scene(GaussianSpeech(stft=STFT), stationary)
    return SVI(steps=3, draws=4)(scene, waves(1, 3200), seed=0)


def test_nothing_is_cut_off(posterior, tmp_path, monkeypatch):
    drawn = []
    write = figures.write_figure

    def record(figure, path, **settings):
        drawn.append(figure)
        return write(figure, path, **settings)

    monkeypatch.setattr(figures, "write_figure", record)
    path = plot_posterior(posterior, tmp_path / "posterior.png")
    with Image.open(path) as image:
        assert image.size == (1320, 840)
    [figure] = drawn
    inside = figure.get_tightbbox(figure.canvas.get_renderer())
    width, height = figure.get_size_inches()
    assert inside.x0 >= 0 and inside.y0 >= 0
    assert inside.x1 <= width and inside.y1 <= height
    assert any(axes.get_ylabel() == "dB" for axes in figure.axes)
