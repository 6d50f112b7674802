"""The picture of a diagnosis, and the command that draws it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from avse_ppl import NUTS, SVI, Exact, GaussianSpeech, Scene, diagnose, stationary
from avse_ppl.cli.main import app
from avse_ppl.models.simulate import reference_scene, simulate
from avse_ppl.plotting import plot_diagnostics
from tests.helpers import STFT

SCENE = reference_scene(noise_known=False, gain_sd_db=0.0, stft=STFT)


def mixture(recordings=1):
    return simulate(SCENE, 1600, recordings=recordings, seed=1).mixture


@pytest.fixture(scope="module")
def chains():
    """Chains that are too short."""
    routine = NUTS(draws=30, warmup=20, chains=2, init="prior", max_tree_depth=2, waveforms=False)
    return routine(SCENE, mixture(), seed=0)


@pytest.fixture
def drawn(monkeypatch):
    """The figure that is saved, and not only its file."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1]
    )
    return figures


def panels(figure, row=0):
    return figure.subfigs[row].axes


def test_what_fails_is_named(chains, drawn, tmp_path):
    found = diagnose(chains, SCENE)
    path = plot_diagnostics(found, chains, tmp_path / "trust.png")
    assert path.stat().st_size > 10_000
    headline = drawn[0].subfigs[0]._suptitle
    assert found.warnings[0] and headline.get_color() == "tab:red"
    shown = headline.get_text().replace("\n", " ")
    assert all(text in shown for text in found.warnings[0])
    trace, sizes, checks = panels(drawn[0])
    assert len(trace.lines) >= 2  # chains
    names = [text.get_text() for text in sizes.get_legend().get_texts()]
    assert {"noise.frame", "noise.band"} <= set(names)
    worst = sizes.lines[names.index(next(name for name in names if name.startswith("worst")))]
    assert worst.get_color() == "tab:red"
    assert worst.get_ydata()[0] == pytest.approx(found.figures[0]["r_hat"])
    assert len(checks.patches) == 3


def test_a_check_that_fails_is_red(drawn, tmp_path):
    # A scene in which speech is a thousand times louder than it is.
    quiet = Scene(GaussianSpeech(gain_sd_db=0.0, stft=STFT), stationary)
    posterior = SVI(steps=12, draws=4)(quiet, mixture(), seed=0)
    loud = reference_scene(True, noise_power=1000.0, gain_sd_db=0.0, stft=STFT)
    exact = Exact(draws=4)(loud, mixture(), seed=0)
    plot_diagnostics(diagnose(exact, loud), exact, tmp_path / "a.png")
    law = panels(drawn[0])[2].patches[0]
    assert law.get_facecolor()[:3] == pytest.approx((0.839, 0.153, 0.157), abs=0.01)
    plot_diagnostics(diagnose(posterior), posterior, tmp_path / "b.pdf")
    trace, sizes, checks = panels(drawn[1])
    np.testing.assert_array_equal(trace.lines[0].get_ydata(), posterior.trace["elbo"][:, 0])
    assert [axis.texts[0].get_text() for axis in (sizes, checks)] == [
        "the draws are not from chains", "give the scene",
    ]  # fmt: skip


def test_recordings_have_a_row_each_four_at_most(drawn, tmp_path):
    posterior = Exact(draws=4, waveforms=False)(SCENE, mixture(5), seed=0)
    plot_diagnostics(diagnose(posterior), posterior, tmp_path / "p.svg")
    assert len(drawn[0].subfigs) == 4
    titles = [strip._suptitle.get_text() for strip in drawn[0].subfigs]
    assert titles[2] == "recording 2: no warnings"


def test_the_command(chains, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chains.save(tmp_path / "p.nc")
    result = CliRunner().invoke(app, ["diagnose", "p.nc", "--plot", "trust.png"])
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "trust.png: the same as a plot"
    assert "r_hat" in result.stdout  # kept in the file
    assert (tmp_path / "trust.png").stat().st_size > 10_000
    report = json.loads(
        CliRunner().invoke(app, ["diagnose", "p.nc", "--plot", "t.png", "--json"]).stdout
    )
    assert report["plot"] == "t.png" and report["recordings"][0]["r_hat"] > 0
    refused = CliRunner().invoke(app, ["diagnose", "p.nc", "--plot", "no/t.png"])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "no folder no; make the folder first" in refused.stderr
