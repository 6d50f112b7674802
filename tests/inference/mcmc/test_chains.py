"""Chains of draws as a posterior: initial states, lengths, warnings, merged runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from avse_ppl import NMF, ComplexNormal, GaussianSpeech, Scene, merge, stationary
from avse_ppl.inference.base import InferenceMethod, Problem
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.mcmc.chains import (
    STATS,
    ChainRun,
    approximate_prior,
    check_initial_state,
    collect_chains,
    count_complete_draws,
    count_waveforms,
    draw_initial_states,
)
from avse_ppl.models.simulate import reference_scene
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.combine import stack_recordings
from avse_ppl.posterior.fit_info import FitInfo
from tests.helpers import CPU, STFT

SPEECH = GaussianSpeech(stft=STFT)
SCENE = reference_scene(False, stft=STFT)


def make_mixture(recordings=1, n_samples=200, seed=0):
    rng = np.random.default_rng(seed)
    return STFT.analyse(rng.normal(size=(recordings, n_samples)).astype("float32"))


def draw_chains(density, chains=2, draws=6, apart=0.0, seed=0):
    """Independent draws on the real line, ``(chain, draw, recording, ...)``, the chains apart."""
    generator = torch.Generator().manual_seed(seed)
    shift = apart * torch.arange(chains, dtype=torch.float32)
    return {
        site.name: torch.randn(chains, draws, *site.shape, generator=generator)
        + shift.reshape(-1, *[1] * (len(site.shape) + 1))
        for site in density.sites
    }


@dataclass(frozen=True)
class GivenChains(InferenceMethod):
    """Method whose chains are given."""

    values: Any
    stats: Any
    warnings: Any = ()
    kind: str = "test"

    name: ClassVar[str] = "given"

    def _run(self, problem):
        chains, length = next(iter({**self.values, **self.stats}.values())).shape[:2]
        results = []
        for r in range(problem.recordings):
            one = problem.select(r)
            density = LogDensity(one.scene, one.spectrogram)
            runs = [
                ChainRun(
                    [
                        {n: v[c, d, r : r + 1] for n, v in self.values.items()}
                        for d in range(length)
                    ],
                    {name: list(self.stats.get(name, NO_STATS)[c, :length, r]) for name in STATS},
                )
                for c in range(chains)
            ]
            fit = FitInfo(warnings=tuple(self.warnings[r : r + 1]))
            kind = Approximation(self.kind)
            results.append(
                collect_chains(one, density, runs, kind=kind, waveforms=self.waveforms, fit=fit)
            )
        return results


NO_STATS = np.zeros((4, 300, 2))


def sample(chains=2, draws=6, recordings=1, apart=0.0, scene=SCENE, seed=0, stats=(), **settings):
    """Posterior of chains that are given, or of independent draws."""
    spectrogram = settings.pop("mixture", make_mixture(recordings))
    values = settings.pop("values", None)
    if values is None:
        values = draw_chains(LogDensity(scene, spectrogram), chains, draws, apart, seed)
    return GivenChains(values, dict(stats), **settings)(scene, spectrogram, seed=seed)


# --- initial states ------------------------------------------------------------------------------


def test_initial_states_are_draws_of_the_prior_on_the_real_line():
    density = LogDensity(SCENE, make_mixture(2))
    location, log_sd = approximate_prior(density)
    states = draw_initial_states(location, log_sd, RandomStreams(0, 2, CPU), chains=400)
    for name, middle in location.items():
        values = torch.stack([state[name] for state in states])
        sd = log_sd[name].exp()
        assert ((values.mean(0) - middle).abs() / sd).max() < 5 / 20
        assert ((values.std(0) / sd) - 1).abs().max() < 5 / np.sqrt(2 * 400)


def test_a_recording_has_the_same_initial_states_alone_as_in_the_batch():
    problem = Problem.of(SCENE, make_mixture(2), seed=5)
    batch = draw_initial_states(
        *approximate_prior(LogDensity(SCENE, problem.spectrogram)), problem.streams, 2
    )
    second = Problem.of(SCENE, make_mixture(2), seed=5).select(1)
    single = draw_initial_states(
        *approximate_prior(LogDensity(SCENE, second.spectrogram)), second.streams, 2
    )
    for one, other in zip(batch, single, strict=True):
        for name in one:
            torch.testing.assert_close(one[name][1:], other[name])


def test_an_initial_state_without_a_finite_density():
    density = LogDensity(SCENE, make_mixture())
    state, _ = approximate_prior(density)
    check_initial_state(density, state)
    with pytest.raises(ValueError, match=r"chain cannot start: the log density is (nan|-inf)"):
        check_initial_state(density, state | {"noise.level": torch.full((1, 1, 1), -400.0)})


def test_an_initial_state_without_a_finite_gradient():
    def kinked(frames):
        level = pyro.sample("level", dist.LogNormal(0.0, 1.0))
        return ComplexNormal(0.0, 1.0 + (level - level.detach()).sqrt())

    density = LogDensity(Scene(SPEECH, kinked), make_mixture())
    with pytest.raises(ValueError, match="its gradient in 'level' is not finite"):
        check_initial_state(density, approximate_prior(density)[0])


# --- lengths -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "kept"),
    [
        ([[9, 9, 9, 9]], (4, 9)),
        ([[9, 9, 4]], (2, 9)),  # 18 rather than 12
        ([[9, 9, 8]], (3, 8)),
        ([[3]], (1, 3)),
        ([[9, 2], [9]], (1, 9)),
        ([[9, 7], [9, 5]], (2, 5)),
        ([[0]], (0, 0)),
        ([[4], [0]], (0, 0)),
        ([[4], []], (0, 0)),
    ],
)
def test_what_is_kept_of_an_interrupted_run(lengths, kept):
    assert count_complete_draws(lengths) == kept


def collect(lengths):
    problem = Problem.of(SCENE, make_mixture())
    density = LogDensity(SCENE, problem.spectrogram)
    state = approximate_prior(density)[0]
    runs = [ChainRun([state] * n, {name: [0.0] * n for name in STATS}) for n in lengths]
    return collect_chains(problem, density, runs, kind=Approximation("test"))


def test_chains_of_different_length():
    with pytest.raises(ValueError, match=r"equally long, found \[3, 2\] draws; cut them to .* 2"):
        collect([3, 2])


@pytest.mark.parametrize("lengths", [[], [0], [1, 0]])
def test_chains_without_draws(lengths):
    with pytest.raises(ValueError, match="expected at least one draw of each chain"):
        collect(lengths)


# --- the posterior -------------------------------------------------------------------------------


def test_draws_come_out_on_their_supports_in_their_order():
    density = LogDensity(SCENE, make_mixture())
    values = draw_chains(density)
    stats = {"lp": np.arange(12.0).reshape(2, 6, 1)}
    posterior = sample(values=values, stats=stats, kind="my kind", seed=4)
    np.testing.assert_allclose(posterior.latents["speech.gain"], values["speech.gain"], rtol=1e-6)
    expected = density.sites[-1].transform(values["noise.level"]).numpy()
    np.testing.assert_allclose(posterior.latents["noise.level"], expected, rtol=1e-5)
    assert posterior.kind == "my kind"
    assert posterior.attrs["seed"] == 4
    np.testing.assert_array_equal(posterior.stats["lp"], stats["lp"])


@pytest.mark.parametrize(("asked", "each"), [(True, 6), (False, 0), (4, 2), (5, 3), (24, 12)])
def test_waveforms(asked, each):
    assert count_waveforms(asked, 2, 6) == each
    assert sample(waveforms=asked).speech.shape[:2] == (2, each)


def test_a_scene_without_latents():
    scene = reference_scene(True, gain_sd_db=0.0, stft=STFT)
    posterior = sample(scene=scene, values={}, stats={"lp": np.zeros((2, 3, 1))})
    assert posterior.latents == {}
    assert posterior.speech.shape[:2] == (2, 3)
    assert posterior.warnings == () and posterior.diagnostics == ()


@pytest.mark.parametrize("bad", [np.nan, 200.0])
def test_a_draw_that_is_not_finite(bad):
    values = draw_chains(LogDensity(SCENE, make_mixture()))
    values["noise.level"][1, 3] = bad
    with pytest.raises(ValueError, match=r"drew NaN or infinity for 'noise.level': its posterior"):
        sample(values=values)


# --- warnings ------------------------------------------------------------------------------------


def test_chains_that_agree_are_not_warned_of():
    assert sample(draws=250, waveforms=False).warnings == ()


def test_chains_that_disagree_are():
    posterior = sample(draws=250, apart=1.0, waveforms=False)
    assert any("R-hat" in text for text in posterior.warnings)
    [figures] = posterior.diagnostics
    assert figures["r_hat"] > 1.05 and (figures["chains"], figures["draws"]) == (2, 250)
    assert f"{figures['r_hat']:.2f} for {figures['r_hat_of']}" in posterior.warnings[0]


def test_warnings_come_after_those_of_the_method():
    fit = sample(recordings=2, apart=5.0, warnings=("first", "second")).fit
    rows = [info.warnings for info in fit]
    assert [row[0] for row in rows] == ["first", "second"]
    assert min(len(row) for row in rows) > 1


def test_a_run_in_which_everything_diverged():
    diverging = np.zeros((2, 6, 2), bool)
    diverging[:, :, 1] = True
    rows = [info.warnings for info in sample(recordings=2, stats={"diverging": diverging}).fit]
    assert not any("every draw diverged" in text for text in rows[0])
    assert len(rows[1]) == 1
    assert rows[1][0].startswith("every draw diverged")
    assert "non-centred" in rows[1][0]


# --- recordings side by side ---------------------------------------------------------------------


def test_recordings_of_different_length_are_padded():
    parts = [
        sample(
            scene=Scene(SPEECH, NMF(2)),
            mixture=make_mixture(1, n_samples),
            warnings=(f"{n_samples} samples",),
        )
        for n_samples in (200, 120)
    ]
    both = stack_recordings(parts)
    assert both.n_samples == (200, 120)
    assert both.mean.shape == (2, 33, 14)
    assert both.latents["speech.gain"].shape == (2, 6, 2, 1, 14)
    assert np.isnan(both.latents["noise.activations"][:, :, 1, :, 9:]).all()
    assert [info.warnings[0] for info in both.fit] == ["200 samples", "120 samples"]
    assert both.diagnostics == parts[0].diagnostics + parts[1].diagnostics
    for r, part in enumerate(parts):
        one = both.select(r)
        np.testing.assert_array_equal(one.mean, part.mean)
        np.testing.assert_array_equal(one.speech, part.speech)
        assert one.warnings == part.warnings
        assert one.diagnostics == part.diagnostics and one.axes == part.axes
        for name, values in part.latents.items():
            np.testing.assert_array_equal(one.latents[name], values, err_msg=name)


# --- runs joined ---------------------------------------------------------------------------------


def test_merged_runs_are_one_run():
    values = draw_chains(LogDensity(SCENE, make_mixture()), chains=3)
    stats = {"lp": np.arange(18.0).reshape(3, 6, 1)}
    whole = sample(values=values, stats=stats, waveforms=False)
    parts = [
        sample(
            values={k: v[s] for k, v in values.items()},
            waveforms=False,
            stats={"lp": stats["lp"][s]},
            seed=i,
        )
        for i, s in enumerate((slice(0, 1), slice(1, 3)))
    ]
    merged = merge(parts, SCENE)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(merged.variance, whole.variance, rtol=1e-4)
    for name in values:
        np.testing.assert_array_equal(merged.latents[name], whole.latents[name])
    np.testing.assert_array_equal(merged.stats["lp"], whole.stats["lp"])
    assert merged.attrs["chains"] == 3
    assert merged.attrs["merged_seeds"] == [0, 1]
    assert merged.warnings == whole.warnings
    assert merged.diagnostics[0]["r_hat"] == pytest.approx(whole.diagnostics[0]["r_hat"], rel=1e-3)
    assert merge(parts).diagnostics == ()  # nobody has compared the runs


def test_merging_compares_the_runs():
    apart = [
        sample(chains=1, draws=100, recordings=2, apart=0.0, seed=s, waveforms=False)
        for s in (0, 1)
    ]
    shifted = {
        k: v + 2.0 for k, v in draw_chains(LogDensity(SCENE, make_mixture(2)), 1, 100).items()
    }
    apart[1] = sample(values=shifted, recordings=2, waveforms=False)
    assert not any("chains disagree" in text for p in apart for text in p.warnings)
    rows = [info.warnings for info in merge(apart, SCENE).fit]
    assert all(any("chains disagree" in text for text in row) for row in rows)
    assert len(rows) == 2


def test_without_the_scene_merged_warnings_are_those_of_the_runs():
    parts = [sample(warnings=(text,)) for text in ("one", "other")]
    assert {"one", "other"} <= set(merge(parts).warnings)


def refused(text, **changes):
    one = sample()
    with pytest.raises(ValueError, match=text):
        merge([one, replace(one, **changes)])


def test_runs_that_do_not_belong_together():
    one = sample()
    with pytest.raises(ValueError, match="at least one posterior"):
        merge([])
    with pytest.raises(ValueError, match="must be equally long to be merged, found 6 and 5 draws"):
        merge([one, sample(draws=5)])
    refused("of the same mixture", mixture=2 * one.mixture)
    refused("of one kind, found 'test' and 'test, tempered 0.5'", kind="test, tempered 0.5")
    refused("the same latents", latents={})
    refused("the same stats", stats={})
    other = sample(scene=Scene(GaussianSpeech(gain_sd_db=6.0, stft=STFT), stationary))
    with pytest.raises(ValueError, match="the same latents"):
        merge([one, other])
    cut = {name: value[..., :1] for name, value in one.latents.items()}
    refused("of one shape", latents=cut)
