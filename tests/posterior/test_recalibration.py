"""Recalibration: what it fits on errors of a known law, and what it does to a posterior."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

from avse_ppl import Audio, Posterior, enhance_batch
from avse_ppl.cli.main import app
from avse_ppl.evaluation.calibration import average_coverage, coverage
from avse_ppl.evaluation.calibration.fit_recalibration import (
    WaveformDeviations,
    find_scales,
    fit_recalibration,
)
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.recalibration import (
    Recalibration,
    draw_scales,
    find_shipped,
    group_of,
    recalibration_for,
    shipped_recalibrations,
)
from tests.helpers import STFT

RECALIBRATED = "variational, amortised prior, tempered 0.25, recalibrated"

N = 480
NAMES = {"routine": "svi", "speech": "white", "noise": "NMF"}


def posteriors(count, narrow, seed=0, heavy=False, level=1.0, n=N):
    """Posteriors whose spread is ``narrow`` times that of their errors, with the truths.

    Where ``heavy``, errors of some recordings are larger than of others: log-normal quantiles.
    """
    random = np.random.default_rng(seed)
    pairs = []
    for i in range(count):
        mean = level * random.normal(size=n).astype(np.float32)
        spread = np.exp(0.8 * stats.norm.ppf((i + 0.5) / count)) if heavy else 1.0
        truth = mean + 0.5 * spread * random.normal(size=n)
        drawn = mean + narrow * 0.5 * random.normal(size=(1, 60, 1, n))
        spectrogram = STFT.analyse(mean)
        values = (spectrogram.values * spectrogram.scale[:, None, None]).numpy()
        power = np.full(values.shape, (narrow * 0.5) ** 2 * 32.0, np.float32)
        pairs.append((
            Posterior(mean=values, variance=power, mixture=values, latents={}, n_samples=(n,),
                      speech=drawn.astype(np.float32), stft=STFT, kind="variational",
                      attrs=dict(NAMES)),
            truth.astype(np.float32),
        ))  # fmt: skip
    return pairs


def fitted(pairs):
    return fit_recalibration(pairs, fitted_on="white noise")


def coverages(pairs, table=None):
    if table is not None:
        pairs = [(posterior.recalibrated(table), truth) for posterior, truth in pairs]
    return average_coverage([coverage(posterior, truth) for posterior, truth in pairs])


@pytest.mark.parametrize("narrow", [0.4, 2.0])
def test_a_wrong_spread_is_made_good_on_other_recordings(narrow):
    table = fitted(posteriors(8, narrow, seed=1))
    test = posteriors(6, narrow, seed=2)
    raw, better = coverages(test), coverages(test, table)
    for before, after in (
        (raw.bins, better.bins), (raw.bins_by_energy, better.bins_by_energy),
        (raw.waveform, better.waveform), (raw.waveform_by_energy, better.waveform_by_energy),
    ):  # fmt: skip
        assert abs(before[2] - 0.9) > 0.05
        np.testing.assert_allclose(after, better.probabilities, atol=0.03)
    assert np.exp(table.log_scale) == pytest.approx(1.0, abs=0.05)
    assert table.log_spread <= 0.3
    factor = table.factor(*((p := test[0][0]).mean, p.variance))
    assert np.median(factor) == pytest.approx(narrow**-2, rel=0.08)


def test_a_spread_that_differs_between_recordings_makes_draws_of_several_scales():
    table = fitted(posteriors(20, 1.0, seed=1, heavy=True))
    test = posteriors(20, 1.0, seed=2, heavy=True)
    assert table.log_spread >= 0.5
    raw, better = coverages(test), coverages(test, table)
    assert np.abs(raw.waveform - raw.probabilities).max() > 0.06
    np.testing.assert_allclose(better.waveform[1:], better.probabilities[1:], atol=0.07)
    # Discs of another law than the Gaussian's are right at all masses, its own at 90 % only.
    levels = better.probabilities
    found = [
        coverage(p, t, radii=[table.radius(p, level)[0] for level in levels]).bins for p, t in test
    ]
    np.testing.assert_allclose(np.mean(found, axis=0), levels, atol=0.07)


def test_what_changes_and_what_does_not():
    [(posterior, _)] = posteriors(1, 0.5)
    table = replace(fitted(posteriors(4, 0.5, seed=1)), log_spread=0.0)
    better = posterior.recalibrated(table)
    np.testing.assert_array_equal(better.mean, posterior.mean)
    np.testing.assert_array_equal(better.enhance(), posterior.enhance())
    assert better.kind == "variational, recalibrated"
    assert better.attrs == {**NAMES, "recalibration": "fitted on white noise"}
    factor = table.factor(posterior.mean, posterior.variance)
    np.testing.assert_allclose(better.variance, factor * posterior.variance)
    assert better.variance.dtype == better.speech.dtype == np.float32
    one = np.full_like(factor[0], np.sqrt(factor[0, 0, 0]))
    # Where all bins have one factor the draws are scaled by it, sample by sample.
    plain = replace(table, quantiles=(table.quantiles[4],) * 9)
    alike = posterior.recalibrated(plain)
    ratio = np.sqrt(plain.factor(posterior.mean, posterior.variance)[0, 0, 0])
    gaps = posterior.speech - posterior.enhance()
    expected = posterior.enhance() + np.exp(plain.log_scale) * ratio * gaps
    np.testing.assert_allclose(alike.speech, expected, atol=2e-4)
    assert one.shape == factor[0].shape


def test_a_batch_is_the_loop_and_padding_stays_empty():
    [(first, _), (second, _)] = posteriors(2, 0.5)
    table = fitted(posteriors(4, 0.5, seed=1))
    both = replace(
        first, n_samples=(N, N // 2),
        **{name: np.concatenate([getattr(p, name) for p in (first, second)])
           for name in ("mean", "variance", "mixture")},
        speech=np.concatenate([first.speech, second.speech], axis=2), fit=first.fit + second.fit,
    )  # fmt: skip
    both.speech[:, :, 1, N // 2 :] = 0.0
    better = both.recalibrated(table)
    for r in range(2):
        alone = both.select(r).recalibrated(table)
        np.testing.assert_allclose(better.select(r).speech, alone.speech, atol=1e-5)
        np.testing.assert_allclose(better.select(r).variance, alone.variance)
    assert (better.speech[:, :, 1, N // 2 :] == 0).all()


def test_groups_are_of_the_posterior_signal_to_noise_ratio():
    mean = np.sqrt(np.array([0.0, 0.5, 2.0, 20.0])) * (0.6 + 0.8j)
    assert group_of(mean, np.ones(4), (0.0, 10.0)).tolist() == [0, 0, 1, 2]


def test_scales_of_draws_are_spread_evenly_and_seeded():
    scales = draw_scales((2, 50), 0.5, 0)
    assert scales.shape == (2, 50)
    assert np.log(scales).mean() == pytest.approx(0.0, abs=1e-5)
    assert np.log(scales).std() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(scales, draw_scales((2, 50), 0.5, 0))
    assert (scales != draw_scales((2, 50), 0.5, 1)).any()
    assert (draw_scales((3,), 0.0, 0) == 1).all()


def test_draws_that_are_right_need_no_scale():
    # Each of D + 1 exchangeable values in turn is the truth, the others are the draws: inside as
    # they are, at scale 1, is exactly the stated share. In pairs of opposite sign, so that 0 is
    # inside, too.
    half = np.random.default_rng(0).exponential(size=(20, 50))
    values = np.concatenate((half, -half))
    masses = np.zeros(4)
    for r, truth in enumerate(values):
        draws = np.delete(values, r, axis=0)
        masses += (find_scales(WaveformDeviations(truth, draws, np.ones(50)), 0.0) <= 1).mean(1)
    np.testing.assert_allclose(masses / len(values), (0.9, 0.5, 0.8, 0.95), rtol=1e-9)


def test_half_of_the_weight_goes_by_energy():
    # A loud half with errors of three times the stated size, and a quiet half as stated: three
    # quarters of the weight are loud, so that 0.9 = 3/4 inside + 1/4.
    n = 4800  # few of the frames hold both halves
    [(posterior, truth)] = posteriors(1, 1.0, n=n)
    half = np.arange(posterior.mean.shape[-1]) < posterior.mean.shape[-1] // 2
    loud = np.where(half, 100.0, 1.0).astype(np.float32)
    both = replace(posterior, mean=posterior.mean * loud, variance=posterior.variance * loud**2)
    early, mean = np.arange(n) < n // 2, posterior.enhance()
    wave = np.where(early, 100.0, 1.0) * (mean + np.where(early, 3.0, 1.0) * (truth - mean))
    table = fit_recalibration([(both, wave)], fitted_on="white noise", edges_db=())
    error = np.abs(STFT.forward(torch.from_numpy(wave.astype(np.float32))).numpy() - both.mean[0])
    share = (error <= table.radius(both, 0.9)[0])[:, half].mean()
    assert share == pytest.approx((0.9 - 0.25) / 0.75, abs=0.025)


def test_a_group_without_bins_takes_the_next():
    table = fitted(posteriors(3, 1.0, level=0.01))
    assert table.quantiles[-1] == table.quantiles[-2]
    assert np.isfinite(table.quantiles).all()


# --- files ---------------------------------------------------------------------------------------


def test_a_file_holds_it_all(tmp_path):
    table = fitted(posteriors(3, 0.5))
    assert Recalibration.load(table.save(tmp_path / "table.json")) == table
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"routine": "svi"}'])
def test_a_file_of_something_else(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(ValueError, match="is not a recalibration"):
        Recalibration.load(tmp_path / "table.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"routine": 3}, "routine is 3, expected a text"),
        ({"recordings": 1.5}, "recordings is 1.5, expected a whole number"),
        ({"log_scale": "wide"}, "could not convert string"),
        ({"log_spread": float("inf")}, "no plausible number"),
        ({"log_scale": 400.0}, "no plausible number"),
        ({"edges_db": []}, r"\d+ groups for 0 edges"),
        ({"edges_db": 3.0}, "not iterable"),
        ({"probabilities": [0.9, 0.5]}, "quantiles for 2 probabilities|expected between 0 and 1"),
        ({"quantiles": [[float("nan")]]}, "groups for"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, change, said):
    path = fitted(posteriors(3, 0.5)).save(tmp_path / "table.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=rf"table\.json is not a recalibration \(.*({said})"):
        Recalibration.load(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recalibration at"):
        Recalibration.load(tmp_path / "table.json")


def test_shipped_tables_are_of_the_default_models():
    tables = shipped_recalibrations()
    assert {"svi"} <= {table.routine for table in tables}
    for table in tables:
        speech = {"tcvae"} if table.routine != "guided" else {"latent-diffusion", "score"}
        assert table.speech in speech
        assert table.noise == "NMF" and table.recordings >= 60
        quantiles = np.array(table.quantiles)
        assert quantiles.shape == (len(table.edges_db) + 1, len(table.probabilities))
        assert (np.diff(quantiles, axis=1) >= 0).all()


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["routine", "speech", "noise"])
def test_another_origin_is_refused(name):
    [(posterior, _)] = posteriors(1, 1.0)
    table = fitted(posteriors(3, 1.0))
    other = replace(posterior, attrs={**posterior.attrs, name: "other"})
    for refused in (table.apply, lambda p: table.radius(p, 0.9)):
        with pytest.raises(ValueError, match=f"was fitted for {name} .* found 'other'"):
            refused(other)
    with pytest.raises(ValueError, match="fitted for kind 'variational', found 'exact'"):
        table.apply(replace(posterior, kind="exact"))


def test_twice_is_refused():
    [(posterior, truth)] = posteriors(1, 1.0)
    table = fitted([(posterior, truth)])
    better = posterior.recalibrated(table)
    with pytest.raises(ValueError, match="recalibrated already"):
        better.recalibrated(table)
    with pytest.raises(ValueError, match="recalibrated already"):
        fitted([(better, truth)])


@pytest.mark.parametrize("probability", [0.0, 0.995, 1.0])
def test_a_mass_that_was_not_fitted(probability):
    [(posterior, truth)] = posteriors(1, 1.0)
    with pytest.raises(ValueError, match="the largest that was fitted"):
        fitted([(posterior, truth)]).radius(posterior, probability)


def test_what_cannot_be_fitted():
    pairs = posteriors(2, 1.0)
    (posterior, truth), (other, _) = pairs
    few = replace(posterior, speech=posterior.speech[:, :9])
    two = replace(posterior, mean=np.concatenate([posterior.mean] * 2), n_samples=(N, N), fit=())
    unlike = replace(other, kind="exact")
    broken = replace(posterior, variance=np.full_like(posterior.variance, np.nan))
    for bad, text in [
        (iter(pairs), "gone through twice"), ([], "posteriors of one kind, found none"),
        ([(few, truth)], "at least 10 waveform draws, found 9"),
        ([(two, truth)], "posteriors of one recording, found 2"),
        ([(posterior, truth), (unlike, truth)], "posteriors of one kind"),
        ([(posterior, truth), (broken, truth)], "the posterior of pair 1 .* not finite"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=text):
            fitted(bad)
    with pytest.raises(ValueError, match=r"probabilities must hold 0.9"):
        fit_recalibration(pairs, fitted_on="", probabilities=(0.5,))


def test_nothing_is_shipped_for_other_models():
    [(posterior, _)] = posteriors(1, 1.0)
    with pytest.raises(ValueError, match=r"no recalibration is shipped for .*speech 'white'"):
        posterior.recalibrated()
    shipped = find_shipped(routine="svi", predictor="none")
    kind = Approximation.parse(shipped.kind)
    as_shipped = replace(posterior, kind=kind, attrs={**NAMES, "speech": "tcvae"})
    assert recalibration_for(as_shipped) == shipped


# --- in one call and on the command line ---------------------------------------------------------


def noise():
    return Audio(np.random.default_rng(0).normal(size=4000).astype("float32") * 0.1, 16000)


def test_enhance_recalibrates():
    plain, better = (
        enhance_batch([noise()], draws=12, recalibrate=recalibrate)[0]
        for recalibrate in (False, True)
    )
    np.testing.assert_array_equal(plain.speech.samples, better.speech.samples)
    assert plain.posterior is not None
    assert better.posterior is not None
    assert better.kind == better.posterior.kind == RECALIBRATED
    assert better.posterior.attrs["recalibration"].startswith("fitted on 120 mixtures")
    expected = plain.posterior.recalibrated()
    np.testing.assert_allclose(better.posterior.speech, expected.speech, atol=1e-5)


@pytest.mark.parametrize(("settings", "text"), [
    ({"speech": "gaussian"}, "no recalibration is shipped for"),
    ({"noise": "stationary"}, "no recalibration is shipped for"),
    ({"keep_posterior": False}, "keep the posterior, too"),
])  # fmt: skip
def test_enhance_refuses_before_it_starts(settings, text, monkeypatch):
    monkeypatch.setattr(sys.modules["avse_ppl.pipeline.enhance"], "observe_all", None)
    with pytest.raises(ValueError, match=text):
        enhance_batch([noise()], recalibrate=True, **settings)


def test_the_command_recalibrates(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "n.wav", noise().samples, 16000)
    words = ["enhance", str(tmp_path / "n.wav"), "-o", str(tmp_path / "e.wav"), "--recalibrate"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "add --posterior" in refused.stderr
    nc = tmp_path / "p.nc"
    done = CliRunner().invoke(app, [*words, "--posterior", str(nc), "--draws", "12", "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["files"][0]["kind"] == RECALIBRATED
    assert Posterior.load(nc).kind == RECALIBRATED
