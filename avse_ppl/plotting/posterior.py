"""Posterior of the speech: spectrograms with their credible band, waveform, level, visual gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.plotting.figure import (
    DARK,
    LEVEL_MAP,
    NOISY,
    RANGE_DB,
    check_figure_path,
    make_figure,
    save_figure,
    set_headline,
    take_axes,
    use_style,
)
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Stft

_COLUMNS = 1600  # of a waveform: about the dots of a figure
_BAND_ALPHA = 0.35


@use_style()
def plot_posterior(
    posterior: Posterior, path: str | Path, *, recording: int = 0, probability: float = 0.9
) -> Path:
    """Plot noisy and enhanced speech with credible bands: spectrograms, waveform, level.

    Top: `draw_spectrograms`. Below: `draw_waveform` and `draw_level`. With video, at the bottom:
    `draw_gate`.

    Parameters
    ----------
    posterior
        What to plot.
    path
        PNG, PDF or SVG file.
    recording
        Which recording of the batch.
    probability
        Mass of the bands.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the posterior holds fewer than two waveform draws, or the ending is another.
    """
    path = check_figure_path(path)
    one = posterior.select(recording)
    figure = make_figure(11, 7)
    rows: Any = ["abc", "ddd", "eee", *(["ggg"] if one.reliability is not None else [])]
    heights = [1.5, 0.8, 0.9, 0.45][: len(rows)]
    axes = figure.subplot_mosaic("\n".join(rows), height_ratios=heights)
    draw_spectrograms(one, [axes["a"], axes["b"], axes["c"]], probability=probability)
    draw_waveform(one, axes["d"], probability=probability)
    draw_level(one, axes["e"], probability=probability)
    axes["d"].set_xlabel("")
    if "g" in axes:
        axes["e"].set_xlabel("")
        draw_gate(one, axes["g"])
    title = f"{one.kind}   ({one.attrs.get('routine', '')})"
    set_headline(figure, title, one.warnings, fontsize=9 if one.warnings else 10)
    return save_figure(figure, path)


@use_style()
def draw_spectrograms(
    posterior: Posterior, axes: Any = None, *, recording: int = 0, probability: float = 0.9
) -> np.ndarray:
    """Draw the spectrogram triptych: noisy, posterior mean, width of the credible band.

    All are magnitudes, dB relative to the loudest bin of the recording, on one scale: where the
    third is as bright as the second, the posterior says little but the order of magnitude.

    Parameters
    ----------
    posterior
        What to draw.
    axes
        Three axes, or None for a figure of its own.
    recording
        Which recording of the batch.
    probability
        Mass of the band.

    Returns
    -------
    ndarray
        The three axes.

    Raises
    ------
    ValueError
        If there are other than three axes, or fewer than two waveform draws.

    Examples
    --------
    >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=9000).astype("float32")
    >>> posterior = SVI(steps=5, draws=4)(Scene(GaussianSpeech(), stationary), wave, seed=0)
    >>> [axis.get_title(loc="left") for axis in draw_spectrograms(posterior)]
    ['noisy', 'enhanced (posterior mean)', 'width of the 90% band']
    """
    one = posterior.select(recording)
    low, high = one.interval(probability, of="magnitude")
    found = take_axes(axes, (1, 3), (11.0, 3.0), sharey=True)
    mixture = np.abs(one.mixture[0])
    reference = float(mixture.max()) or 1.0
    panels = (
        ("noisy", mixture),
        ("enhanced (posterior mean)", np.abs(one.mean[0])),
        (f"width of the {probability:.0%} band", (high - low)[0]),
    )
    image = None
    for axis, (title, magnitude) in zip(found, panels, strict=True):
        level_db = 20 * np.log10(np.maximum(magnitude / reference, 1e-8))
        image = draw_spectrogram(axis, level_db, one.stft)
        axis.set_title(title)
    for axis in found[1:]:
        axis.set_ylabel("")
        axis.tick_params(labelleft=False)
    # On the right: constrained layout cuts off the label of a colour bar on the left.
    found[0].figure.colorbar(image, ax=found, label="dB", pad=0.01, aspect=15)
    return np.array(found, dtype=object)


def draw_spectrogram(axis: Any, level_db: np.ndarray, stft: Stft, **options: Any) -> Any:
    """Draw levels ``(freq, time)`` in dB over time and frequency; returns the image.

    ``options`` go to ``librosa.display.specshow``; by default from -60 dB to 0 dB.
    """
    from librosa.display import specshow
    from matplotlib.ticker import MaxNLocator

    options = {"vmin": -RANGE_DB, "vmax": 0.0, "cmap": LEVEL_MAP, **options}
    image = specshow(
        level_db, sr=stft.sample_rate_hz, hop_length=stft.hop, n_fft=stft.n_fft, x_axis="s",
        y_axis="linear", ax=axis, rasterized=True, **options,
    )  # fmt: skip
    axis.set(xlabel="time, s", ylabel="frequency, Hz")
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    return image


@use_style()
def draw_waveform(
    posterior: Posterior,
    axis: Any = None,
    *,
    recording: int = 0,
    probability: float = 0.9,
    span_s: tuple[float, float] | None = None,
) -> Any:
    """Draw the enhanced waveform with its credible band, the noisy one behind.

    Where a column of dots holds many samples, it shows the range of each; the band there reaches
    from the lowest lower bound to the highest upper one.

    Parameters
    ----------
    posterior
        What to draw.
    axis
        Axes, or None for a figure of its own.
    recording, probability
        As in `draw_spectrograms`.
    span_s
        From when to when, seconds; by default all. A tenth of a second shows the wave itself.

    Returns
    -------
    Axes
        The axes.

    Raises
    ------
    ValueError
        If nothing of the recording lies in the span, or there are fewer than two waveform draws.
    """
    one = posterior.select(recording)
    rate_hz, n_samples = one.stft.sample_rate_hz, one.n_samples[0]
    begin_s, end_s = span_s or (0.0, n_samples / rate_hz)
    begin, end = max(0, round(begin_s * rate_hz)), min(n_samples, round(end_s * rate_hz))
    if end - begin < 2:
        raise ValueError(
            f"expected a span within the {n_samples / rate_hz:.2f} s of the recording, found "
            f"{begin_s:g} to {end_s:g} s"
        )
    low, high = (bound[0, begin:end] for bound in one.interval(probability))
    [axis] = take_axes(axis, (1, 1), (11.0, 2.4))
    noisy = compute_envelope(one.noisy()[begin:end], _COLUMNS)
    mean = compute_envelope(one.enhance()[begin:end], _COLUMNS)
    band = np.stack([compute_envelope(low, _COLUMNS)[0], compute_envelope(high, _COLUMNS)[1]])
    time_s = (begin + (np.arange(mean.shape[1]) + 0.5) * (end - begin) / mean.shape[1]) / rate_hz
    label = f"{probability:.0%} credible band, sample by sample"
    if mean.shape[1] < end - begin:  # ranges of columns
        axis.fill_between(time_s, *noisy, color="0.85", lw=0, label="noisy")
        axis.fill_between(time_s, *band, color="C0", alpha=_BAND_ALPHA, lw=0, label=label)
        axis.fill_between(time_s, *mean, color=DARK, lw=0, label="enhanced")
    else:
        axis.plot(time_s, noisy[0], color=NOISY, lw=0.9, ls="-", label="noisy")
        axis.fill_between(time_s, *band, color="C0", alpha=_BAND_ALPHA, lw=0, label=label)
        axis.plot(time_s, mean[0], color=DARK, ls="-", label="enhanced")
    axis.set(xlabel="time, s", ylabel="amplitude", xlim=(begin / rate_hz, end / rate_hz))
    axis.set_title("waveform")
    add_legend_above(axis)
    return axis


@use_style()
def draw_level(
    posterior: Posterior, axis: Any = None, *, recording: int = 0, probability: float = 0.9
) -> Any:
    """Draw the level of the speech in each frame with its credible band, the noisy one behind.

    The line is the median over the waveform draws. The level of the posterior mean itself is lower
    where little is known: what differs between the draws averages out in it.

    Parameters
    ----------
    posterior, axis, recording, probability
        As in `draw_waveform`.

    Returns
    -------
    Axes
        The axes.

    Raises
    ------
    ValueError
        If there are fewer than two waveform draws.
    """
    one = posterior.select(recording)
    low_db, middle_db, high_db, noisy_db = compute_levels(one, probability)
    time_s = np.arange(len(noisy_db)) * one.stft.hop / one.stft.sample_rate_hz
    [axis] = take_axes(axis, (1, 1), (11.0, 2.4))
    axis.plot(time_s, noisy_db, color=NOISY, lw=1, ls="--", label="noisy")
    axis.fill_between(
        time_s, low_db, high_db, color="C0", alpha=_BAND_ALPHA, lw=0,
        label=f"{probability:.0%} credible band",
    )  # fmt: skip
    axis.plot(time_s, middle_db, color=DARK, ls="-", label="posterior median")
    top = float(noisy_db.max())
    axis.set(
        xlabel="time, s", ylabel="level, dB", ylim=(max(top - 75.0, float(low_db.min())), top + 3),
        xlim=(0.0, one.n_samples[0] / one.stft.sample_rate_hz),
    )  # fmt: skip
    axis.set_title("level of each frame")
    add_legend_above(axis)
    return axis


@use_style()
def draw_gate(posterior: Posterior, axis: Any = None, *, recording: int = 0) -> Any:
    """Draw the visual gate: how far the lips count in each frame.

    Parameters
    ----------
    posterior, axis, recording
        As in `draw_waveform`.

    Returns
    -------
    Axes
        The axes.

    Raises
    ------
    ValueError
        If the posterior is of a recording without video.
    """
    one = posterior.select(recording)
    if one.reliability is None:
        raise ValueError(
            "expected a posterior of a recording with video, found one without a visual gate"
        )
    (gate,) = one.reliability
    [axis] = take_axes(axis, (1, 1), (11.0, 1.6))
    time_s = np.arange(len(gate)) * one.stft.hop / one.stft.sample_rate_hz
    axis.fill_between(time_s, gate, color="C2", alpha=_BAND_ALPHA, lw=0)
    axis.plot(time_s, gate, color="C2", ls="-")
    axis.set(xlabel="time, s", ylabel="gate", ylim=(0, 1), xlim=(0, max(time_s[-1], 1e-3)))
    axis.set_title("visual gate: how far the lips count")
    return axis


def compute_levels(posterior: Posterior, probability: float) -> tuple[np.ndarray, ...]:
    """Level of each frame of a single recording, ``(time,)`` each, dB.

    Returns
    -------
    tuple of numpy.ndarray
        Lower bound, median and upper bound of the speech over its waveform draws; the mixture.

    Raises
    ------
    ValueError
        If there are fewer than two waveform draws.
    """
    if len(posterior.draws()) < 2:
        raise ValueError(
            f"a credible band needs at least 2 waveform draws, found {len(posterior.draws())}; run "
            "the method with 50 draws or more"
        )
    tail = (1 - probability) / 2

    def measure_level_db(magnitude: np.ndarray) -> np.ndarray:
        return 10 * np.log10(np.sum(magnitude**2, axis=-2) + 1e-8)

    draws_db = measure_level_db(posterior.magnitudes())
    orders = (tail, 0.5, 1 - tail)
    low_db, middle_db, high_db = np.quantile(draws_db, orders, axis=0, method="weibull")
    return low_db, middle_db, high_db, measure_level_db(np.abs(posterior.mixture[0]))


def compute_envelope(wave: np.ndarray, columns: int) -> np.ndarray:
    """Least and largest sample in each of so many columns, ``(2, column)``.

    A wave with fewer samples than columns has a column for each.

    Examples
    --------
    >>> compute_envelope(np.array([0.0, 2.0, -1.0, 1.0]), 2)
    array([[ 0., -1.],
           [ 2.,  1.]])
    """
    edges = np.linspace(0, len(wave), min(columns, len(wave)), endpoint=False).astype(int)
    return np.stack([np.minimum.reduceat(wave, edges), np.maximum.reduceat(wave, edges)])


def add_legend_above(axis: Any, columns: int = 3) -> None:
    """Put the legend above the axes, beside its title, where it covers nothing."""
    axis.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=columns, borderaxespad=0.1,
        handlelength=2.5,
    )  # fmt: skip
