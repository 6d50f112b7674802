"""Posterior of a functional: its draws, intervals, Monte Carlo error, and what it is handed to."""

from __future__ import annotations

from dataclasses import replace

import arviz
import numpy as np
import pytest

from avse_ppl import NUTS, Audio, GaussianSpeech, Posterior, Scene, load_audio, stationary
from avse_ppl.posterior.fit_info import FitInfo
from avse_ppl.posterior.functional_posterior import FunctionalPosterior, evaluate_functionals
from avse_ppl.posterior.functionals import BinPower, Level
from tests.helpers import STFT, waves


def make_posterior(draws=60, chains=2, n_samples=(320, 240)):
    """Two recordings, draws of white noise about zero."""
    count, longest = len(n_samples), max(n_samples)
    speech = np.random.default_rng(0).normal(size=(chains, draws, count, longest))
    for r, n in enumerate(n_samples):
        speech[:, :, r, n:] = 0.0
    grid = (count, STFT.freq, STFT.count_frames(longest))
    mean = np.zeros(grid, np.complex64)
    return Posterior(
        mean, np.ones(grid, np.float32), mean, speech.astype("float32"), {}, n_samples, STFT,
        "exact", fit=tuple(FitInfo(seed=r) for r in range(count)),
    )  # type: ignore[arg-type]  # fmt: skip


def wrap(draws, **changes):
    draws = np.asarray(draws, float)
    found = FunctionalPosterior(draws, "x", "dB", {}, make_posterior(1).kind)
    return replace(found, **changes)


def test_a_function_gets_each_draw_without_padding():
    posterior = make_posterior()
    found = posterior.of(lambda wave, rate_hz: (len(wave), rate_hz, wave[0]), name="ends")
    assert found.draws.shape == (2, 60, 2, 3)
    np.testing.assert_array_equal(found.draws[:, :, 0, 0], 320)
    np.testing.assert_array_equal(found.draws[:, :, 1, 0], 240)
    np.testing.assert_array_equal(found.draws[..., 1], 16000)
    np.testing.assert_array_equal(found.draws[..., 2], posterior.speech[..., 0])


def test_draws_are_evaluated_in_blocks_and_thinned(monkeypatch):
    posterior = make_posterior()
    sizes = []

    def peak(waves, rate_hz):
        sizes.append(len(waves))
        return np.abs(waves).max(-1)

    whole = posterior.of(peak, vectorised=True)
    assert sizes == [120, 120]
    module = "avse_ppl.posterior.functional_posterior._ELEMENTS"
    monkeypatch.setattr(module, 50 * 33 * 21)
    np.testing.assert_array_equal(posterior.of(peak, vectorised=True).draws, whole.draws)
    assert sizes[2:5] == [50, 50, 20]
    few = posterior.of(peak, vectorised=True, draws=3)
    np.testing.assert_array_equal(few.draws, whole.draws[:, [0, 20, 40]])


def test_a_function_of_the_stft():
    posterior = make_posterior(draws=3)

    def centroid(values, freq_hz, time_s):
        assert values.shape == (33, len(time_s)) and freq_hz.shape == (33, 1)
        power = np.abs(values) ** 2
        return (freq_hz * power).sum(0) / power.sum(0)

    found = posterior.of(centroid, over="stft", unit="Hz")
    assert found.draws.shape == (2, 3, 2, 21) and found.name == "centroid"
    assert np.isnan(found.draws[:, :, 1, 16:]).all()  # the shorter recording
    assert np.isfinite(found.draws[:, :, 1, :16]).all()
    assert found.to_xarray()["centroid"].dims == ("chain", "draw", "recording", "axis_0")


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (lambda w, r: np.fft.rfft(w), {}, "type complex.*expected real numbers"),
        (lambda w, r: "loud", {}, "type <U4"),
        (lambda w, r: w[: int(abs(w[0]) * 100)], {}, "expected one shape for all draws"),
        (lambda w, r: w.mean(), {"vectorised": True}, r"shape \(\) for 4 draws"),
        (lambda w, r: w.T, {"vectorised": True}, r"shape \(320, 4\) for 4 draws"),
        (lambda w, r: 1.0, {"over": "bins"}, "over must be 'waveform' or 'stft', not 'bins'"),
        (lambda w, r: 1.0, {"draws": 0}, "draws must be at least 1"),
        (lambda w, r: 0.0 if len(w) > 300 else w[:2], {}, "different number of axes"),
    ],
)
def test_what_a_function_returns_is_checked(function, options, said):
    with pytest.raises(ValueError, match=said):
        make_posterior(draws=2).of(function, **options)


def test_intervals_are_calibrated_on_the_draws():
    values = np.arange(1, 100.0)[None, :, None]
    found = wrap(values)
    np.testing.assert_allclose(found.interval(0.9), [[5.0], [95.0]])
    np.testing.assert_allclose(found.mean, [50.0])
    np.testing.assert_allclose(found.mcse, np.std(values, ddof=1) / np.sqrt(99))
    np.testing.assert_allclose(found.probability_above(90.0), [9 / 99])
    exponential = wrap(np.random.default_rng(0).exponential(size=(2, 5000, 1)))
    low, high = exponential.interval(0.9, "hdi")
    np.testing.assert_allclose([low[0], high[0]], [0.0, 2.303], atol=0.1)
    assert high[0] - low[0] < np.subtract(*exponential.interval(0.9)[::-1])[0]
    with pytest.raises(ValueError, match="between 0 and 1, not 90"):
        found.interval(90)
    with pytest.raises(ValueError, match="kind must be 'equal-tailed' or 'hdi', not 'eti'"):
        found.interval(0.9, "eti")  # type: ignore[arg-type]


def test_draws_in_which_it_is_not_defined_are_left_out():
    values = np.arange(1, 100.0)[None, :, None, None] * np.ones(3)
    values[:, 50:, :, 1] = np.nan
    values[:, :, :, 2] = np.nan
    found = wrap(values, axes={"span": {}})
    np.testing.assert_allclose(found.defined, [[1.0, 50 / 99, 0.0]])
    np.testing.assert_allclose(found.mean, [[50.0, 25.5, np.nan]])
    low, high = found.interval(0.9)
    np.testing.assert_allclose(low, [[5.0, 2.55, np.nan]])
    np.testing.assert_allclose(high, [[95.0, 48.45, np.nan]])
    np.testing.assert_allclose(found.probability_above(49.0), [[50 / 99, 0.02, np.nan]])
    assert np.isfinite(found.interval(0.9, "hdi")[1][0, :2]).all()


def test_the_error_of_chains_counts_their_correlation():
    steps = np.random.default_rng(0).normal(size=(4, 500, 1))
    chain = np.zeros_like(steps)
    for i in range(1, 500):
        chain[:, i] = 0.9 * chain[:, i - 1] + steps[:, i]
    alone, dependent = wrap(chain).mcse[0], wrap(chain, dependent=True).mcse[0]
    assert 2.5 < dependent / alone < 7  # the root of (1 + 0.9) / (1 - 0.9) is 4.4
    # A posterior of chains says so.
    method = NUTS(warmup=5, draws=8, chains=2, max_tree_depth=2)
    posterior = method(Scene(GaussianSpeech(stft=STFT), stationary), waves(1, 320), seed=0)
    assert posterior.of(Level()).dependent and not make_posterior().of(Level()).dependent


def test_datasets_have_names_units_and_coordinates():
    posterior = make_posterior()
    data = posterior.of(BinPower()).to_xarray()
    assert data["bin_power"].dims == ("chain", "draw", "recording", "freq_hz", "time_s")
    assert data["time_s"].attrs["units"] == "s" and data["freq_hz"].attrs["units"] == "Hz"
    assert data["time_s"].size == 21  # of the longest recording
    level = posterior.of(Level(((500.0, 4000.0),), ((0.0, 0.01),)))
    data = level.to_xarray()
    assert data["level"].attrs["units"] == "dB"
    assert (float(data["low_hz"][0]), float(data["end_s"][0])) == (500.0, 0.01)
    table = arviz.summary(level.to_arviz())
    np.testing.assert_allclose(np.sort(table["mean"]), np.sort(level.mean.ravel()), atol=0.01)
    assert "chains of 60" in repr(level) and "<table>" in level._repr_html_()


def test_several_functionals_are_as_one_by_one():
    posterior = make_posterior(draws=4)
    both = evaluate_functionals(posterior, [BinPower(), Level()])
    for functional, found in zip((BinPower(), Level()), both, strict=True):
        np.testing.assert_array_equal(found.draws, posterior.of(functional).draws)


def test_draws_are_written_as_sound(tmp_path):
    posterior = make_posterior(draws=2)
    paths = posterior.save_draws(tmp_path / "draws")
    assert [str(p.relative_to(tmp_path / "draws")) for p in paths[3:5]] == [
        "recording_0/draw_003.wav",
        "recording_1/draw_000.wav",
    ]
    audio = load_audio(paths[4])
    assert isinstance(audio, Audio)
    np.testing.assert_allclose(audio.samples, posterior.draws(1)[0], atol=1e-6)
    one = posterior.select(0).save_draws(tmp_path / "one")
    assert [p.name for p in one] == [f"draw_{i:03d}.wav" for i in range(4)]
    with pytest.raises(FileExistsError, match=r"a new or an empty folder at .*draws"):
        posterior.save_draws(tmp_path / "draws")
    empty = replace(posterior, speech=posterior.speech[:, :0])
    with pytest.raises(ValueError, match="holds no waveform draws to write; make it again"):
        empty.save_draws(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_tree_has_the_groups_of_the_file_and_units(tmp_path):
    import xarray

    posterior = make_posterior(draws=2)
    tree = posterior.to_xarray()
    posterior.save(tmp_path / "p.nc")
    with xarray.open_datatree(tmp_path / "p.nc", engine="h5netcdf") as file:
        assert set(tree.children) == set(file.children)
        for name, group in file.children.items():
            for variable in group.data_vars:
                xarray.testing.assert_equal(tree[name][variable], group[variable])
    assert tree["posterior"]["sample_s"].attrs["units"] == "s"
    assert tree["constant_data"]["speech_variance"].attrs["units"] == "full scale^2"
    assert tree.attrs["kind"] == "exact"
