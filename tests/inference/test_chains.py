"""From chains of draws to a posterior: starts, lengths, warnings, joins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from avse_ppl import NMF, ComplexNormal, GaussianSpeech, Scene, merge, stationary
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.mcmc.chains import (
    build_chain_posterior,
    check_start,
    complete_chains,
    dispersed_starts,
    prior_guide,
    stack_chains,
    stream_of,
    waveforms_of,
)
from avse_ppl.models.simulate import reference_scene
from avse_ppl.posterior.combine import stack_recordings
from tests.helpers import CPU, STFT

SPEECH = GaussianSpeech(stft=STFT)
SCENE = reference_scene(False, stft=STFT)


def mixture(recordings=1, n_samples=200, seed=0):
    rng = np.random.default_rng(seed)
    return STFT.analyse(rng.normal(size=(recordings, n_samples)).astype("float32"))


def drawn(density, chains=2, draws=6, apart=0.0, seed=0):
    """Independent draws on the real line, the chains ``apart``."""
    generator = torch.Generator().manual_seed(seed)
    shift = apart * torch.arange(chains, dtype=torch.float32)
    return {
        site.name: torch.randn(chains, draws, *site.shape, generator=generator)
        + shift.reshape(-1, *[1] * (len(site.shape) + 1))
        for site in density.sites
    }


def gathered(chains=2, draws=6, recordings=1, apart=0.0, scene=SCENE, seed=0, **settings):
    spectrogram = mixture(recordings)
    density = LogDensity(scene, spectrogram)
    settings = {"kind": "test", "attrs": {"seed": seed}, **settings}
    values = settings.pop("values", drawn(density, chains, draws, apart, seed))
    randoms = RandomStreams(seed, recordings, CPU)
    return build_chain_posterior(scene, spectrogram, density, values, randoms, **settings)


# --- starts --------------------------------------------------------------------------------------


def test_starts_are_draws_of_the_prior_on_the_real_line():
    density = LogDensity(SCENE, mixture(2))
    starts = dispersed_starts(density, RandomStreams(0, 2, CPU), chains=400)
    location, log_sd = prior_guide(density)
    for name, middle in location.items():
        values = torch.stack([start[name] for start in starts])
        sd = log_sd[name].exp()
        assert ((values.mean(0) - middle).abs() / sd).max() < 5 / 20
        assert ((values.std(0) / sd) - 1).abs().max() < 5 / np.sqrt(2 * 400)


def test_starts_follow_a_fit():
    density = LogDensity(SCENE, mixture(2))
    location, log_sd = prior_guide(density)
    shifted = {name: value + 3.0 for name, value in location.items()}
    narrow = {name: torch.full_like(value, -7.0) for name, value in log_sd.items()}
    for start in dispersed_starts(density, RandomStreams(0, 2, CPU), 3, (shifted, narrow)):
        for name, value in start.items():
            torch.testing.assert_close(value, shifted[name], atol=0.01, rtol=0)
            assert not torch.equal(value, shifted[name])


def test_a_recording_starts_alone_as_in_the_batch():
    both, randoms = mixture(2), RandomStreams(5, 2, CPU)
    batch = dispersed_starts(LogDensity(SCENE, both), randoms, 2)
    second = stream_of(RandomStreams(5, 2, CPU), 1)
    single = dispersed_starts(LogDensity(SCENE, both.select(1)), second, 2)
    for one, other in zip(batch, single, strict=True):
        for name in one:
            torch.testing.assert_close(one[name][1:], other[name])


def test_a_recording_alone_moves_the_generator_of_the_batch():
    randoms = RandomStreams(5, 2, CPU)
    stream_of(randoms, 0).normal((1, 3), torch.float32)
    untouched = RandomStreams(5, 2, CPU)
    after, before = (r.normal((2, 3), torch.float32) for r in (randoms, untouched))
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])


def test_a_start_without_a_finite_density():
    density = LogDensity(SCENE, mixture())
    start = dispersed_starts(density, RandomStreams(0, 1, CPU), 1)[0]
    check_start(density, start)
    with pytest.raises(ValueError, match=r"chain cannot start: the log density is (nan|-inf)"):
        check_start(density, start | {"noise.level": torch.full((1, 1, 1), -400.0)})


def test_a_start_without_a_finite_gradient():
    def kinked(frames):
        level = pyro.sample("level", dist.LogNormal(0.0, 1.0))
        return ComplexNormal(0.0, 1.0 + (level - level.detach()).sqrt())

    density = LogDensity(Scene(SPEECH, kinked), mixture())
    with pytest.raises(ValueError, match="its gradient in 'level' is not finite"):
        check_start(density, dispersed_starts(density, RandomStreams(0, 1, CPU), 1)[0])


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
    assert complete_chains(lengths) == kept


def test_chains_are_stacked():
    chains = [[{"a": torch.full((2, 3), 10.0 * c + d)} for d in range(4)] for c in range(2)]
    stacked = stack_chains(chains)["a"]
    assert stacked.shape == (2, 4, 2, 3)
    assert stacked[1, 3, 0, 0] == 13.0


def test_chains_of_different_length():
    one = {"a": torch.zeros(1, 1)}
    with pytest.raises(ValueError, match=r"equally long, found \[3, 2\] draws; cut them to .* 2"):
        stack_chains([[one] * 3, [one] * 2])


@pytest.mark.parametrize("chains", [[], [[]], [[{}], []]])
def test_chains_without_draws(chains):
    with pytest.raises(ValueError, match="expected at least one draw of each chain"):
        stack_chains(chains)


def test_arrays_of_different_length():
    density = LogDensity(SCENE, mixture())
    values = drawn(density)
    values["noise.level"] = values["noise.level"][:, :4]
    with pytest.raises(ValueError, match=r"speech.gain \(2, 6\), noise.level \(2, 4\); cut"):
        gathered(values=values)
    with pytest.raises(ValueError, match=r"lp \(2, 5\)"):
        gathered(stats={"lp": np.zeros((2, 5, 1))})


# --- the posterior -------------------------------------------------------------------------------


def test_draws_come_out_on_their_supports_in_their_order():
    density = LogDensity(SCENE, mixture())
    values = drawn(density)
    stats = {"lp": np.arange(12.0).reshape(2, 6, 1)}
    posterior = gathered(values=values, stats=stats, kind="my kind", attrs={"seed": 4})
    np.testing.assert_allclose(posterior.latents["speech.gain"], values["speech.gain"], rtol=1e-6)
    expected = density.sites[-1].transform(values["noise.level"]).numpy()
    np.testing.assert_allclose(posterior.latents["noise.level"], expected, rtol=1e-5)
    assert posterior.kind == "my kind"
    assert posterior.attrs["seed"] == 4
    np.testing.assert_array_equal(posterior.stats["lp"], stats["lp"])
    assert posterior.speech.shape == (2, 6, 1, 200)


@pytest.mark.parametrize(("asked", "each"), [(True, 6), (False, 0), (4, 2), (5, 3), (24, 12)])
def test_waveforms(asked, each):
    assert waveforms_of(asked, 2, 6) == each
    assert gathered(waveforms=asked).speech.shape[:2] == (2, each)


def test_a_scene_without_latents():
    scene = reference_scene(True, gain_sd_db=0.0, stft=STFT)
    posterior = gathered(scene=scene, values={}, stats={"lp": np.zeros((2, 3, 1))})
    assert posterior.latents == {}
    assert posterior.speech.shape[:2] == (2, 3)
    assert posterior.warnings == () and posterior.diagnostics == ()


@pytest.mark.parametrize("bad", [np.nan, 200.0])
def test_a_draw_that_is_not_finite(bad):
    values = drawn(LogDensity(SCENE, mixture()))
    values["noise.level"][1, 3] = bad
    with pytest.raises(ValueError, match=r"drew NaN or infinity for 'noise.level': its posterior"):
        gathered(values=values)


# --- warnings ------------------------------------------------------------------------------------


def test_chains_that_agree_are_not_warned_of():
    assert gathered(draws=250, waveforms=False).warnings == ()


def test_chains_that_disagree_are():
    posterior = gathered(draws=250, apart=1.0, waveforms=False)
    assert any("R-hat" in text for text in posterior.warnings)
    [figures] = posterior.diagnostics
    assert figures["r_hat"] > 1.05 and (figures["chains"], figures["draws"]) == (2, 250)
    assert f"{figures['r_hat']:.2f} for {figures['r_hat_of']}" in posterior.warnings[0]


def test_warnings_come_after_those_of_the_routine():
    attrs = {"warnings": [["first"], ["second"]]}
    rows = gathered(recordings=2, apart=5.0, attrs=attrs).attrs["warnings"]
    assert [row[0] for row in rows] == ["first", "second"]
    assert min(len(row) for row in rows) > 1
    assert attrs["warnings"] == [["first"], ["second"]]


def test_a_run_in_which_everything_diverged():
    diverging = np.zeros((2, 6, 2), bool)
    diverging[:, :, 1] = True
    rows = gathered(recordings=2, stats={"diverging": diverging}).attrs["warnings"]
    assert not any("every draw diverged" in text for text in rows[0])
    assert len(rows[1]) == 1
    assert rows[1][0].startswith("every draw diverged")
    assert "non-centred" in rows[1][0]


# --- recordings side by side ---------------------------------------------------------------------


def test_recordings_of_different_length_are_padded():
    parts = []
    for n_samples in (200, 120):
        spectrogram = mixture(1, n_samples)
        density = LogDensity(Scene(SPEECH, NMF(2)), spectrogram)
        attrs = {"warnings": [[f"{n_samples} samples"]]}
        parts.append(
            build_chain_posterior(Scene(SPEECH, NMF(2)), spectrogram, density, drawn(density),
                   RandomStreams(0, 1, CPU), kind="test", attrs=attrs)
        )  # fmt: skip
    both = stack_recordings(parts)
    assert both.n_samples == (200, 120)
    assert both.mean.shape == (2, 33, 14)
    assert both.latents["speech.gain"].shape == (2, 6, 2, 1, 14)
    assert np.isnan(both.latents["noise.activations"][:, :, 1, :, 9:]).all()
    assert [row[0] for row in both.attrs["warnings"]] == ["200 samples", "120 samples"]
    assert both.diagnostics == parts[0].diagnostics + parts[1].diagnostics
    for r, part in enumerate(parts):
        one = both.select(r)
        np.testing.assert_array_equal(one.mean, part.mean)
        np.testing.assert_array_equal(one.speech, part.speech)
        assert one.attrs["warnings"] == part.attrs["warnings"]
        assert one.diagnostics == part.diagnostics and one.axes == part.axes
        for name, values in part.latents.items():
            np.testing.assert_array_equal(one.latents[name], values, err_msg=name)


# --- runs joined ---------------------------------------------------------------------------------


def test_merged_runs_are_one_run():
    values = drawn(LogDensity(SCENE, mixture()), chains=3)
    stats = {"lp": np.arange(18.0).reshape(3, 6, 1)}
    whole = gathered(values=values, stats=stats, waveforms=False)
    parts = [
        gathered(values={k: v[s] for k, v in values.items()}, waveforms=False,
                 stats={"lp": stats["lp"][s]}, attrs={"seed": i})
        for i, s in enumerate((slice(0, 1), slice(1, 3)))
    ]  # fmt: skip
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
        gathered(chains=1, draws=100, recordings=2, apart=0.0, seed=s, waveforms=False)
        for s in (0, 1)
    ]
    shifted = {k: v + 2.0 for k, v in drawn(LogDensity(SCENE, mixture(2)), 1, 100).items()}
    apart[1] = gathered(values=shifted, recordings=2, waveforms=False)
    assert not any("chains disagree" in text for p in apart for text in p.warnings)
    rows = merge(apart, SCENE).attrs["warnings"]
    assert all(any("chains disagree" in text for text in row) for row in rows)
    assert len(rows) == 2


def test_without_the_scene_merged_warnings_are_those_of_the_runs():
    parts = [gathered(attrs={"warnings": [[text]]}) for text in ("one", "other")]
    assert {"one", "other"} <= set(merge(parts).warnings)


def refused(text, **changes):
    one = gathered()
    with pytest.raises(ValueError, match=text):
        merge([one, replace(one, **changes)])


def test_runs_that_do_not_belong_together():
    one = gathered()
    with pytest.raises(ValueError, match="at least one posterior"):
        merge([])
    with pytest.raises(ValueError, match="must be equally long to be merged, found 6 and 5 draws"):
        merge([one, gathered(draws=5)])
    refused("of the same mixture", mixture=2 * one.mixture)
    refused("of one kind, found 'test' and 'test, tempered 0.5'", kind="test, tempered 0.5")
    refused("the same latents", latents={})
    refused("the same stats", stats={"lp": np.zeros((2, 6, 1))})
    other = gathered(scene=Scene(GaussianSpeech(gain_sd_db=6.0, stft=STFT), stationary))
    with pytest.raises(ValueError, match="the same latents"):
        merge([one, other])
    cut = {name: value[..., :1] for name, value in one.latents.items()}
    refused("of one shape", latents=cut)
