"""The posterior: moments, intervals, files."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from avse_ppl import (
    EM,
    NMF,
    SVI,
    ComplexNormal,
    Exact,
    GaussianSpeech,
    Posterior,
    Scene,
    Stft,
    stationary,
)
from avse_ppl.inference.core.build_posterior import Moments
from avse_ppl.models import StudentT
from avse_ppl.models.simulate import reference_scene
from tests.helpers import STFT

SPEECH = GaussianSpeech(gain_sd_db=6.0, stft=STFT)
N = 480


def waves(count=1, n_samples=N, seed=0):
    return np.random.default_rng(seed).normal(size=(count, n_samples)).astype("float32")


@pytest.fixture(scope="module")
def ragged():
    """Two recordings of different length, five draws of everything."""
    routine = SVI(steps=4, draws=5)
    return routine(Scene(SPEECH, NMF(2)), [waves()[0], waves(seed=1)[0][:300]], seed=0)


@pytest.fixture(scope="module")
def many():
    """400 draws of one recording."""
    return Exact(draws=400)(reference_scene(True, noise_power=0.3, stft=STFT), waves(), seed=0)


# --- moments -------------------------------------------------------------------------------------


def test_moments_are_those_of_the_mixture_of_laws():
    # Weighted and far from zero, against brute-force draws: of each law as many as its weight.
    generator = torch.Generator().manual_seed(0)
    means = 30.0 + torch.randn(3, 1, 2, 2, dtype=torch.complex64, generator=generator)
    powers = 0.1 + torch.rand(3, 1, 2, 2, generator=generator)
    weights = [1.0, 2.0, 5.0]
    running, draws = Moments(), []
    for mean, power, weight in zip(means, powers, weights, strict=True):
        running.add(ComplexNormal(mean, power), weight)
        draws.append(ComplexNormal(mean, power).sample((int(4000 * weight),)))
    mean, variance = running.result()
    sample = torch.cat(draws)
    sd = variance.sqrt() / len(sample) ** 0.5
    assert bool(((sample.mean(0) - mean).abs() < 4.5 * sd).all())
    measured = (sample - sample.mean(0)).abs().square().mean(0)
    torch.testing.assert_close(measured, variance, rtol=4.5 * 1.5 / len(sample) ** 0.5, atol=0)
    p = torch.tensor(weights).reshape(3, 1, 1, 1) / 8
    expected = (p * means).sum(0)
    spread = (p * (powers + (means - expected).abs().square())).sum(0)
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(variance, spread, rtol=1e-4, atol=1e-5)


def test_variance_is_what_the_filter_leaves_and_what_the_draws_do_not_agree_on():
    scene = Scene(SPEECH, StudentT())  # a latent in each bin leaves much unknown
    mixture = STFT.analyse(waves(2))
    posterior = SVI(steps=60, draws=30, moment_draws=None, waveforms=False)(scene, mixture, seed=0)
    means, left = [], []
    for i in range(30):
        values = {k: torch.from_numpy(v[0, i]) for k, v in posterior.latents.items()}
        laws = scene.laws_given(values, mixture)
        gain = laws.speech.power / (laws.speech.power + laws.noise.power)
        means.append((gain * mixture.values).numpy())
        left.append((gain * laws.noise.power).numpy())
    scale = mixture.scale.numpy()[:, None, None]
    np.testing.assert_allclose(posterior.mean, scale * np.mean(means, 0), rtol=1e-4, atol=1e-5)
    between, within = np.var(means, 0), np.mean(left, 0)
    assert (between > 0.02 * within).mean() > 0.1  # both parts count
    np.testing.assert_allclose(posterior.variance, scale**2 * (within + between), rtol=1e-3)
    np.testing.assert_allclose(posterior.sd**2, posterior.variance, rtol=1e-6)


def test_moments_may_be_taken_over_fewer_draws():
    scene, mixture = Scene(SPEECH, stationary), STFT.analyse(waves(2))
    few = SVI(steps=4, draws=5, waveforms=False)(scene, mixture, seed=0)
    some = SVI(steps=4, draws=30, moment_draws=5, waveforms=False)(scene, mixture, seed=0)
    assert some.latents["speech.gain"].shape[1] == 30
    np.testing.assert_array_equal(some.mean, few.mean)
    np.testing.assert_array_equal(some.variance, few.variance)


# --- waveforms -----------------------------------------------------------------------------------


def test_the_mixture_comes_back(ragged):
    np.testing.assert_allclose(ragged.noisy(0), waves()[0], atol=1e-5)
    np.testing.assert_allclose(ragged.noisy(1), waves(seed=1)[0][:300], atol=1e-5)


def test_enhance_is_the_waveform_of_the_mean(ragged):
    for r, n in enumerate((N, 300)):
        wave = STFT.inverse(torch.from_numpy(ragged.mean[r]), n).numpy()
        assert ragged.enhance(r).dtype == np.float32
        np.testing.assert_allclose(ragged.enhance(r), wave, atol=1e-6)
        assert ragged.draws(r).shape == (5, n)


def test_noise_that_is_gone_leaves_the_recording():
    scene = Scene(GaussianSpeech(gain_sd_db=0.0, stft=STFT), lambda _: ComplexNormal(0.0, 1e-9))
    posterior = Exact(draws=2)(scene, waves(), seed=0)
    np.testing.assert_allclose(posterior.enhance(), waves()[0], atol=1e-4)
    np.testing.assert_allclose(posterior.draws()[1], waves()[0], atol=1e-3)


def test_draws_scatter_around_the_mean_with_the_stated_variance_in_white_speech():
    # A variance that is the same everywhere is kept exactly, but for frames that reach past the
    # ends. 400 draws: the mean is known to 0.05 sd, the power of a bin to 5 %.
    speech = GaussianSpeech(spectrum=torch.ones(33), gain_sd_db=0.0, stft=STFT)
    scene = Scene(speech, lambda _: ComplexNormal(0.0, 0.5))
    posterior = Exact(draws=400)(scene, waves(), seed=0)
    bins = STFT.forward(torch.from_numpy(posterior.draws())).numpy()[..., 3:-3]
    mean, variance = posterior.mean[0, :, 3:-3], posterior.variance[0, :, 3:-3]
    gap = np.abs(bins.mean(0) - mean) / np.sqrt(variance / 400)
    assert np.mean(gap**2) == pytest.approx(1.0, abs=0.15)
    assert gap.max() < 4.5
    ratio = (np.abs(bins - mean) ** 2).mean(0) / variance
    assert ratio.mean() == pytest.approx(1.0, abs=0.01)
    assert np.abs(ratio - 1).max() < 5 * np.sqrt(2 / 400)  # 2: the real bins at both ends


def test_draws_keep_most_of_a_variance_that_varies():
    # A waveform has overlapping frames, so that a variance with sharp edges is smeared over a
    # frame or two. With a gain of its own in each frame (6 dB), nine bins in ten keep theirs
    # within a factor of 1.5, of which 200 draws account for 1.1, and the total within 5 %.
    posterior = Exact(draws=200)(reference_scene(True, noise_power=0.3), waves(1, 8000), seed=0)
    bins = Stft().forward(torch.from_numpy(posterior.draws())).numpy()[..., 4:-4]
    mean, variance = posterior.mean[0, :, 4:-4], posterior.variance[0, :, 4:-4]
    measured = (np.abs(bins - bins.mean(0)) ** 2).mean(0)
    assert measured.mean() == pytest.approx(variance.mean(), rel=0.05)
    ratio = measured / variance
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)
    low, high = np.quantile(ratio, [0.05, 0.95])
    assert 1 / 1.5 < low < high < 1.5
    gap = np.abs(bins.mean(0) - mean) / np.sqrt(variance)
    assert np.sqrt(np.mean(gap**2)) < 0.3  # sd


def test_draws_differ_and_average_to_the_mean(many):
    draws = many.draws()
    assert len(np.unique(draws[:, 100])) == 400
    gap = (draws.mean(0) - many.enhance()) / draws.std(0)
    assert np.sqrt(np.mean(gap**2)) < 3 / np.sqrt(400)


# --- intervals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["waveform", "magnitude"])
@pytest.mark.parametrize("probability", [0.5, 0.9])
def test_an_interval_holds_its_share_of_the_draws(many, of, probability):
    low, high = many.interval(probability, of)
    values = many.draws() if of == "waveform" else many.magnitudes()
    assert low.shape == high.shape == (1, *values.shape[1:])
    inside = ((values >= low) & (values <= high)).mean(0)
    # Of 400 sorted draws, a central share: exact up to the one draw at each bound.
    assert np.abs(inside - probability).max() <= 2 / 400 + 1e-9
    below = (values < low).mean(0)
    assert np.abs(below - (1 - probability) / 2).max() <= 1 / 400 + 1e-9


@pytest.mark.parametrize("of", ["waveform", "magnitude"])
@pytest.mark.parametrize(("draws", "probability"), [(19, 0.9), (19, 0.5), (9, 0.8), (39, 0.95)])
def test_an_interval_covers_one_more_draw_as_often_as_it_says(many, of, draws, probability):
    # Of D + 1 exchangeable waveforms each is as likely to be the truth: the posterior of recording
    # r holds all but waveform r. Over r, every sample is inside as often as stated, exactly.
    random = np.random.default_rng(0)
    waveforms = np.exp(random.normal(size=(draws + 1, N))).astype("float32")
    held = np.stack([np.delete(waveforms, r, axis=0) for r in range(draws + 1)], axis=1)
    rows = {
        name: getattr(many, name).repeat(draws + 1, 0) for name in ("mean", "variance", "mixture")
    }
    posterior = replace(
        many, **rows, speech=held[None], latents={}, fit=(), n_samples=(N,) * (draws + 1)
    )
    low, high = posterior.interval(probability, of)
    truth = waveforms
    if of == "magnitude":
        truth = STFT.forward(torch.from_numpy(waveforms)).abs().numpy()
    inside = ((low <= truth) & (truth <= high)).sum(axis=0)
    np.testing.assert_array_equal(inside, round(probability * (draws + 1)))


def test_magnitudes_are_those_of_the_draws(many):
    expected = np.abs(STFT.forward(torch.from_numpy(many.draws())).numpy())
    np.testing.assert_allclose(many.magnitudes(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("of", ["waveform", "magnitude"])
def test_intervals_of_recordings_of_different_length(ragged, of):
    low, high = ragged.interval(0.8, of)
    size = (N,) if of == "waveform" else ragged.mean.shape[1:]
    assert low.shape == (2, *size)
    alone = ragged.select(1).interval(0.8, of)
    length = alone[0].shape[-1]
    np.testing.assert_array_equal(low[1, ..., :length], alone[0][0])
    np.testing.assert_array_equal(high[1, ..., :length], alone[1][0])
    assert not low[1, ..., length:].any()
    assert not high[1, ..., length:].any()
    assert (low <= high).all()


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.5, 90, float("nan")])
def test_a_probability_outside_its_range(many, bad):
    with pytest.raises(ValueError, match="probability must be between 0 and 1"):
        many.interval(bad)


def test_an_interval_of_something_else(many):
    with pytest.raises(ValueError, match="of must be 'waveform' or 'magnitude', not 'phase'"):
        many.interval(0.9, "phase")


@pytest.mark.parametrize("kept", [0, 1])
def test_an_interval_of_too_few_draws(many, kept):
    few = replace(many, speech=many.speech[:, :kept])
    with pytest.raises(ValueError, match=f"needs at least 2 draws, this posterior holds {kept}"):
        few.interval()


# --- one of several ------------------------------------------------------------------------------


def test_select_takes_one_recording_and_its_padding_off(ragged):
    time = STFT.count_frames(300)
    one = ragged.select(1)
    assert one.n_samples == (300,)
    assert one.recordings == 1
    assert one.mean.shape == one.variance.shape == one.mixture.shape == (1, 33, time)
    assert one.speech.shape == (1, 5, 1, 300)
    assert one.trace["elbo"].shape == (4, 1)
    assert {k: v.shape[2:] for k, v in one.latents.items()} == {
        "speech.gain": (1, 1, time),
        "noise.spectra": (1, 33, 2),
        "noise.activations": (1, 2, time),
    }
    np.testing.assert_array_equal(one.mean[0], ragged.mean[1, :, :time])
    np.testing.assert_array_equal(one.trace["elbo"][:, 0], ragged.trace["elbo"][:, 1])
    np.testing.assert_allclose(one.enhance(), ragged.enhance(1), atol=1e-6)
    np.testing.assert_array_equal(one.draws(), ragged.draws(1))
    np.testing.assert_array_equal(one.latents["speech.gain"][:, :, 0],
                                  ragged.latents["speech.gain"][:, :, 1, :, :time])  # fmt: skip
    assert one.kind == ragged.kind
    assert one.fit == ragged.fit[1:]
    assert one.attrs == {**ragged.attrs, "seed": 1}


def test_select_counts_from_the_end_too(ragged):
    np.testing.assert_array_equal(ragged.select(-1).mean, ragged.select(1).mean)
    with pytest.raises(IndexError):
        ragged.select(2)


def test_axes_are_known_by_their_plates_and_not_by_their_length():
    # As many components as the long recording has frames: only one of the two axes is time.
    long, short = waves()[0][:112], waves(seed=1)[0][:64]
    time = STFT.count_frames(112)
    scene = Scene(SPEECH, NMF(time))
    both = SVI(steps=2, draws=2)(scene, [long, short], seed=0)
    assert both.axes == {
        "speech.gain": ("", "time"), "noise.spectra": ("freq", "component"),
        "noise.activations": ("component", "time"),
    }  # fmt: skip
    one = both.select(1)
    assert one.latents["noise.spectra"].shape[3:] == (33, time)
    assert one.latents["noise.activations"].shape[3:] == (time, STFT.count_frames(64))
    nameless = replace(both, axes={}).select(1)  # then the length is all there is to go by
    assert nameless.latents["noise.spectra"].shape[3:] == (33, STFT.count_frames(64))


def test_a_file_keeps_the_names_of_axes(tmp_path):
    time = STFT.count_frames(112)
    both = SVI(steps=2, draws=2)(Scene(SPEECH, NMF(time)), [waves()[0][:112]] * 2, seed=0)
    data = both.to_arviz().posterior
    assert data["noise.spectra"].dims[3:] == ("freq_hz", "noise.spectra.component")
    assert data["noise.activations"].dims[3:] == ("noise.activations.component", "time_s")
    assert Posterior.load(both.save(tmp_path / "p.nc")).axes == both.axes


# --- files ---------------------------------------------------------------------------------------


@lru_cache
def posteriors():
    """One of every form: more waveforms than latents, as many, none; latents and none."""
    scene, known = Scene(SPEECH, NMF(2)), reference_scene(True, gain_sd_db=0.0, stft=STFT)
    both = [waves()[0], waves(seed=1)[0][:300]]
    return {
        "variational": SVI(steps=3, draws=4)(scene, both, seed=0),
        "point": EM(iterations=3, draws=4)(scene, both, seed=0),
        "langevin": EM(e_step="langevin", iterations=6, draws=4)(scene, both, seed=0),
        "no waveforms": SVI(steps=3, draws=4, waveforms=False)(scene, both, seed=0),
        "no latents": Exact(draws=4)(known, both, seed=0),
        "nothing": Exact(draws=4, waveforms=False)(known, both, seed=0),
    }


@pytest.mark.parametrize("form", ["variational", "point", "langevin", "no waveforms",
                                  "no latents", "nothing"])  # fmt: skip
def test_save_and_load_bring_back_every_bit(tmp_path, form):
    posterior = posteriors()[form]
    path = tmp_path / "posterior.nc"
    assert posterior.save(path) == path
    assert os.listdir(tmp_path) == ["posterior.nc"]
    again = Posterior.load(str(path))
    for field in fields(Posterior):
        ours, its = getattr(posterior, field.name), getattr(again, field.name)
        if isinstance(ours, np.ndarray):
            same_array(ours, its)
        elif field.name in ("latents", "trace"):
            assert list(ours) == list(its)
            for name in ours:
                same_array(ours[name], its[name])
        else:
            assert its == ours, field.name


def same_array(ours, its):
    assert its.dtype == ours.dtype
    assert its.shape == ours.shape
    np.testing.assert_array_equal(its, ours)


def test_settings_that_are_not_json_are_kept_as_text(tmp_path, many):
    path = replace(many, attrs={"stft": STFT, "seed": 3}).save(tmp_path / "p.nc")
    assert Posterior.load(path).attrs == {"stft": str(STFT), "seed": 3}


def test_save_replaces_whole_or_not_at_all(tmp_path, monkeypatch, many, ragged):
    path = many.save(tmp_path / "p.nc")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        ragged.save(path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["p.nc"]
    same_array(many.mean, Posterior.load(path).mean)
    ragged.save(path)
    same_array(ragged.mean, Posterior.load(path).mean)


def test_save_where_nothing_can_be_written(tmp_path, ragged):
    with pytest.raises(OSError):
        ragged.save(tmp_path / "missing" / "p.nc")
    assert os.listdir(tmp_path) == []


def test_load_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no posterior at.*expected.*--posterior"):
        Posterior.load(tmp_path / "p.nc")
    with pytest.raises(FileNotFoundError, match="no posterior at"):
        Posterior.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"\x89HDF\r\n\x1a\n" + 200 * b"x"])
def test_load_what_is_not_netcdf(tmp_path, content):
    path = tmp_path / "p.nc"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"p\.nc is not a posterior saved by this library"):
        Posterior.load(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_load_a_file_that_was_cut_short(tmp_path, ragged, share):
    path = ragged.save(tmp_path / "p.nc")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="is not a posterior saved by this library"):
        Posterior.load(path)


def test_load_another_netcdf(tmp_path):
    import xarray

    path = tmp_path / "p.nc"
    xarray.Dataset({"a": ("x", [1.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match="expected a NetCDF file written by Posterior"):
        Posterior.load(path)


def test_load_a_posterior_of_another_format(tmp_path, monkeypatch, ragged):
    from avse_ppl.posterior import netcdf as posterior_file

    monkeypatch.setattr(posterior_file, "_FORMAT", 99)
    path = ragged.save(tmp_path / "p.nc")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="is not a posterior saved by this library"):
        Posterior.load(path)


def test_load_a_posterior_with_a_part_missing(tmp_path, ragged):
    import xarray

    whole = ragged.save(tmp_path / "whole.nc")
    with xarray.open_datatree(whole, engine="h5netcdf") as tree:
        tree.load()
    del tree["constant_data"]
    tree.to_netcdf(tmp_path / "part.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="constant_data"):
        Posterior.load(tmp_path / "part.nc")


# --- arviz ---------------------------------------------------------------------------------------


def check_groups(data, posterior):
    """Names, dimensions, coordinates and values, as arviz shows them."""
    draws = data["posterior"]
    time = posterior.mean.shape[-1]
    assert set(draws.data_vars) == {"speech", *posterior.latents}
    assert draws["speech"].dims == ("chain", "draw", "recording", "sample_s")
    assert draws["noise.spectra"].dims[:4] == ("chain", "draw", "recording", "freq_hz")
    assert draws["noise.activations"].dims[-1] == "time_s"
    assert draws["speech.gain"].dims[-1] == "time_s"
    np.testing.assert_allclose(draws["freq_hz"], np.arange(33) * 250.0)
    np.testing.assert_allclose(draws["time_s"], np.arange(time) * 0.001)
    np.testing.assert_allclose(draws["sample_s"], np.arange(N) / 16000)
    np.testing.assert_array_equal(draws["speech"], posterior.speech)
    observed, constant = data["observed_data"], data["constant_data"]
    assert set(observed.data_vars) == {"mixture_re", "mixture_im"}
    assert observed["mixture_re"].dims == ("recording", "freq_hz", "time_s")
    np.testing.assert_array_equal(
        observed["mixture_re"].values + 1j * observed["mixture_im"].values, posterior.mixture
    )
    np.testing.assert_array_equal(constant["speech_mean_im"], posterior.mean.imag)
    np.testing.assert_array_equal(constant["speech_variance"], posterior.variance)
    np.testing.assert_array_equal(constant["n_samples"], posterior.n_samples)
    trace = data["routine_trace"]
    np.testing.assert_array_equal(trace["elbo"], posterior.trace["elbo"])
    assert trace["elbo"].dims == ("step", "recording")
    for group in (draws, observed, constant, trace):
        assert group.attrs["kind"] == posterior.kind
    assert Stft(**json.loads(draws.attrs["stft"])) == STFT


def test_arviz_has_names_dimensions_and_coordinates(ragged):
    check_groups(ragged.to_arviz(), ragged)


def test_arviz_from_version_1_on_is_a_tree(monkeypatch, ragged):
    import arviz

    monkeypatch.delitem(vars(arviz), "InferenceData", raising=False)
    check_groups(ragged.to_arviz(), ragged)


def test_arviz_reads_the_file(tmp_path, ragged):
    import arviz

    check_groups(arviz.from_netcdf(str(ragged.save(tmp_path / "p.nc"))), ragged)


def test_arviz_summarises_the_latents(many):
    import arviz

    posterior = replace(many, speech=many.speech[..., :3])
    table = arviz.summary(posterior.to_arviz(), var_names=["speech.gain"], kind="stats")
    draws = many.latents["speech.gain"][0, :, 0, 0]
    np.testing.assert_allclose(table["mean"], draws.mean(0), atol=2e-3)


def test_a_point_stands_beside_each_of_its_waveforms():
    posterior = posteriors()["point"]
    draws = posterior.to_arviz()["posterior"]
    assert draws.sizes["draw"] == 4
    assert draws["noise.spectra"].attrs["draws"] == 1
    for i in range(4):
        np.testing.assert_array_equal(
            draws["noise.spectra"][:, i], posterior.latents["noise.spectra"][:, 0]
        )
