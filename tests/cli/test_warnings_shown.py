"""A routine that doubts its own result is heard: in the result, on the command line, in a plot."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import avse_ppl.pipeline.catalog
from avse_ppl import SVI, Audio, enhance, enhance_batch
from avse_ppl.cli.main import app
from avse_ppl.plotting import plot_posterior
from avse_ppl.posterior import FitInfo
from tests.helpers import RATE_HZ

TEXT = "chains disagree: R-hat 1.90"


@dataclass(frozen=True)
class Doubtful:
    """Warns of the recordings that are not the first of their batch, or of all."""

    of_all: bool = True
    draws: int = 4

    def __call__(self, scene, mixture, video=None, *, seed=0):
        posterior = SVI(steps=2, draws=self.draws)(scene, mixture, seed=seed)
        rows = [[TEXT] if self.of_all or i else [] for i in range(posterior.recordings)]
        return replace(posterior, fit=tuple(FitInfo(warnings=tuple(row)) for row in rows))


def noise(seconds=1.0, seed=0):
    return np.random.default_rng(seed).normal(size=int(seconds * RATE_HZ)).astype("float32") * 0.1


@pytest.mark.parametrize("keep", [True, False])
def test_enhance_hands_warnings_on(keep):
    options = {"speech": "gaussian", "noise": "stationary", "keep_posterior": keep}
    audios = [Audio(noise(seed=i), RATE_HZ) for i in range(2)]
    first, second = enhance_batch(audios, inference=Doubtful(of_all=False), **options)
    assert (first.warnings, second.warnings) == ((), (TEXT,))
    long = enhance(noise(16.0), sample_rate_hz=RATE_HZ, inference=Doubtful(), **options)
    assert long.warnings == (TEXT,)  # once, though said of two chunks


def test_the_command_line_prints_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        avse_ppl.enhance.__globals__, "resolve_inference", lambda *a, **k: Doubtful()
    )
    soundfile.write("n.wav", noise(), RATE_HZ, subtype="FLOAT")
    arguments = ["enhance", "n.wav", "-o", "e.wav", "--speech", "gaussian"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert f"warning: {TEXT}" in result.stderr.splitlines()
    result = CliRunner().invoke(app, [*arguments, "--posterior", "p.nc", "--json"])
    assert TEXT in json.loads(result.stdout)["files"][0]["warnings"]
    shown = CliRunner().invoke(app, ["diagnose", "p.nc"])
    assert shown.exit_code == 1 and f"warning: {TEXT}" in shown.stderr


def test_the_plot_prints_them(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    titles = []
    monkeypatch.setattr(Figure, "suptitle", lambda self, text, **options: titles.append(text))
    scene_options = {"speech": "gaussian", "noise": "stationary", "sample_rate_hz": RATE_HZ}
    for routine in (Doubtful(), SVI(steps=2, draws=4)):
        result = enhance(noise(), inference=routine, **scene_options)
        plot_posterior(result.posterior, tmp_path / "p.png")
    assert TEXT in titles[0] and TEXT not in titles[1]
