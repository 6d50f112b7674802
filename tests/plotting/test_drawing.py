"""What is drawn on axes: numbers on it, axes of the caller, and what cannot be drawn."""

from __future__ import annotations

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from avse_ppl import NMF, SVI, Exact, GaussianSpeech, Scene, compare, stationary
from avse_ppl.evaluation.calibration import Coverage, sparsification
from avse_ppl.models.predictors.predictor import Predictor
from avse_ppl.plotting import (
    draw_calibration,
    draw_comparison,
    draw_coverage,
    draw_error_excess,
    draw_error_law,
    draw_gate,
    draw_level,
    draw_noise_factors,
    draw_reliability,
    draw_sparsification,
    draw_spectrograms,
    draw_waveform,
    save_figure,
)
from avse_ppl.plotting.figure import DIFFERENCE_MAP, LEVEL_MAP, LINES, make_figure, take_axes
from avse_ppl.plotting.noise import compute_noise_factors, find_noise_factors
from avse_ppl.plotting.posterior import compute_envelope
from avse_ppl.video.lips import Lips
from avse_ppl.video.quality.score import score_lips
from tests.helpers import STFT, waves

WAVE = waves(1, 3200)
PREDICTOR = Predictor(lambda wave, rate_hz: 0.7 * wave, name="seven tenths")


@pytest.fixture(scope="module")
def posterior():
    scene = Scene(GaussianSpeech(stft=STFT), NMF(2))
    return SVI(steps=3, draws=6)(scene, waves(2, 3200), seed=0)


@pytest.fixture(scope="module")
def pooled():
    spared = replace(PREDICTOR, name="deepfilternet")  # what it leaves in is not measured
    scene = Scene(GaussianSpeech(stft=STFT), stationary, predictor=spared)
    return SVI(steps=3, draws=6)(scene, WAVE, seed=0)


def lightness(colour):
    """Relative luminance: what is left of a colour in grey."""
    return float(np.dot((0.2126, 0.7152, 0.0722), to_rgb(colour)))


# --- house style ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [LEVEL_MAP, DIFFERENCE_MAP])
def test_maps_grow_lighter_all_the_way(name):
    steps = [
        lightness(colour) for colour in matplotlib.colormaps[name](np.linspace(0, 1, 32))[:, :3]
    ]
    assert (np.diff(steps) > 0).all()


def test_lines_differ_in_style_and_not_only_in_colour():
    assert len({str(style) for _, style in LINES}) == len({colour for colour, _ in LINES}) == 8


def test_the_style_does_not_stay_behind(posterior):
    before = dict(matplotlib.rcParams)
    draw_level(posterior)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("draw", "count"),
    [(draw_spectrograms, 3), (draw_waveform, 1), (draw_level, 1), (draw_noise_factors, 2)],
)
def test_axes_of_the_caller_are_drawn_on(posterior, draw, count):
    axes = take_axes(None, (1, count), (6.0, 2.0))
    found = np.ravel(np.array(draw(posterior, axes, recording=1), dtype=object)).tolist()
    assert found == axes
    assert all(axis.has_data() and axis.get_xlabel() for axis in axes)
    with pytest.raises(ValueError, match=rf"expected {count} axes, found {count + 1}"):
        draw(posterior, take_axes(None, (1, count + 1), (6.0, 2.0)))


def test_what_was_drawn_can_be_kept(posterior, tmp_path):
    path = save_figure(draw_spectrograms(posterior)[0].figure, tmp_path / "three.svg")
    assert path.read_text().startswith("<?xml")
    with pytest.raises(ValueError, match=r"ending in \.png, \.pdf, \.svg"):
        save_figure(draw_level(posterior).figure, str(tmp_path / "level.gif"))


# --- posterior -----------------------------------------------------------------------------------


def test_the_third_spectrogram_is_the_width_of_the_band(posterior):
    axes = draw_spectrograms(posterior, recording=1, probability=0.5)
    one = posterior.select(1)
    low, high = one.interval(0.5, of="magnitude")
    expected = 20 * np.log10((high - low)[0] / np.abs(one.mixture).max())
    shown = axes[2].collections[0].get_array().reshape(expected.shape)
    np.testing.assert_allclose(shown, np.maximum(expected, -160), rtol=1e-6)
    assert axes[2].get_title(loc="left") == "width of the 50% band"
    assert [axis.get_ylabel() for axis in axes] == ["frequency, Hz", "", ""]


def test_the_band_holds_the_median_of_the_level(posterior):
    axis = draw_level(posterior, probability=0.5)
    noisy, middle = (line.get_ydata() for line in axis.lines)
    [band] = axis.collections
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    assert low <= middle.min() and middle.max() <= high
    assert noisy.shape == (posterior.mean.shape[2],)


def test_a_short_span_shows_the_samples_themselves(posterior):
    axis = draw_waveform(posterior, span_s=(0.05, 0.06))
    noisy, mean = axis.lines
    np.testing.assert_allclose(mean.get_ydata(), posterior.enhance()[800:960])
    np.testing.assert_allclose(noisy.get_ydata(), posterior.noisy()[800:960])
    assert axis.get_xlim() == pytest.approx((0.05, 0.06))
    with pytest.raises(ValueError, match=r"within the 0\.20 s of the recording, found 1 to 2 s"):
        draw_waveform(posterior, span_s=(1.0, 2.0))


def test_envelopes_keep_every_peak():
    wave = np.zeros(10_000)
    wave[[7, 9_999]] = 1.0, -2.0
    low, high = compute_envelope(wave, 100)
    assert (low.shape, high[0], low[-1]) == ((100,), 1.0, -2.0)


def test_draws_and_a_gate_are_needed(posterior):
    alone = replace(posterior, speech=posterior.speech[:, :1])
    for draw in (draw_spectrograms, draw_waveform, draw_level):
        with pytest.raises(ValueError, match=r"at least 2 .*draws"):
            draw(alone)
    with pytest.raises(ValueError, match="without a visual gate"):
        draw_gate(posterior)
    latents = {**posterior.latents, "reliability": np.full((1, 6, 2, 1, 201), 0.25)}
    assert draw_gate(replace(posterior, latents=latents)).lines[0].get_ydata()[0] == 0.25


# --- noise and predictors ------------------------------------------------------------------------


def test_noise_factors_multiply_to_the_power_of_the_noise(posterior):
    assert find_noise_factors(posterior) == ["noise"]
    sites = posterior.latents["noise.spectra"] * 10.0, posterior.latents["noise.activations"]
    louder = replace(
        posterior, latents={"noise.spectra": sites[0], "noise.activations": sites[1]}
    )  # fmt: skip
    spectra, activations = compute_noise_factors(louder, recording=1)
    assert spectra.mean(axis=1) == pytest.approx(1.0)
    level = activations.mean(axis=1)
    assert level[0] >= level[1]
    power = (sites[0][0, :, 1] @ sites[1][0, :, 1]).mean()
    assert (spectra.T @ activations).mean() == pytest.approx(power, rel=0.05)


def test_noise_without_factors_is_refused(pooled):
    with pytest.raises(ValueError, match="expected NMF noise at the site 'noise', found none"):
        draw_noise_factors(pooled)


def test_the_error_law_is_that_of_the_predictor(pooled):
    mixture = pooled.observed_spectrogram()
    left, right = draw_error_law(PREDICTOR, pooled)
    expected = PREDICTOR.predict(mixture)[0, 2].numpy() * 10 / np.log(10)
    shown = left.collections[0].get_array().reshape(expected.shape)
    np.testing.assert_allclose(shown, expected, atol=1e-4)
    assert left.get_title(loc="left") == "seven tenths: expected error"
    assert right.collections[0].get_array().size > 3


def test_the_excess_of_the_error_is_in_decibels(pooled):
    axis = draw_error_excess(pooled, excess_db=4.0)
    found = np.median(pooled.latents["predictor.error"][0, :, 0, 0, 0])
    assert axis.lines[0].get_ydata()[0] == pytest.approx(4.0 * found, rel=1e-5)  # the first band
    assert axis.lines[1].get_ydata()[0] == 4.0
    alone = Exact(draws=4)(Scene(GaussianSpeech(gain_sd_db=0.0, stft=STFT), stationary_known), WAVE)
    with pytest.raises(ValueError, match=r"no site 'predictor\.error'"):
        draw_error_excess(alone)


def stationary_known(frames):
    from tests.helpers import known_noise

    return known_noise(frames)


# --- calibration, comparison, reliability --------------------------------------------------------


def test_calibration_curves(posterior):
    shares = np.array([0.3, 0.8])
    nothing = np.full(2, np.nan)
    one = Coverage((0.5, 0.9), shares, shares + 0.1, nothing, nothing, 0.1, 0.5, 0.2, np.nan)
    axis = draw_coverage([one, one])
    assert [line.get_label() for line in axis.lines[1:]] == ["bins", "bins, by energy"]  # no draws
    np.testing.assert_allclose(axis.lines[1].get_ydata(), shares)
    left, right = draw_calibration(posterior, 0.5 * posterior.noisy())
    assert len(left.lines) == 5 and right.get_title(loc="left").startswith("sparsification: AUSE")
    error = np.random.default_rng(0).exponential(size=500)
    curve = sparsification(error, 1.0 / error)
    lines = draw_sparsification(curve).lines
    assert lines[0].get_ydata()[50] > 1 > lines[1].get_ydata()[50]  # worse than of no use


def test_models_stand_below_the_best(tmp_path):
    speech = GaussianSpeech(stft=STFT)
    names = ["nmf", "stationary"]
    comparison = compare(WAVE[0], names, speech=speech, sample_rate_hz=16000, draws=100)
    axis = draw_comparison(comparison)
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert [name.split("\n")[0] for name in names] == list(comparison.models)
    assert axis.lines[0].get_xdata()[0] == 0.0


def test_causes_are_named_and_hatched():
    lips = Lips.from_crops(np.zeros((50, 88, 88), dtype=np.uint8), rate_hz=25)
    reliability = score_lips(lips)
    _, curves, causes = draw_reliability(reliability, lips)
    assert "missing" in [text.get_text() for text in curves.texts]
    assert len({layer.get_hatch() for layer in causes.collections}) == 8
    short = Lips.from_crops(np.zeros((10, 88, 88), dtype=np.uint8), rate_hz=25)
    with pytest.raises(ValueError, match="of these lips, 10 frames, found 50"):
        draw_reliability(reliability, short)


def test_figures_need_no_display():
    assert type(make_figure(2.0, 2.0).canvas).__name__ == "FigureCanvasAgg"
