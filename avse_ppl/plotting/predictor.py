"""Predictor: the error its law expects, and by how much more the posterior finds it to be off."""

from __future__ import annotations

from typing import Any

import numpy as np

from avse_ppl.models.predictors.predictor import ERROR, Predictor, band_weights
from avse_ppl.plotting.figure import DARK, LEVEL_MAP, convert_to_db, take_axes, use_style
from avse_ppl.plotting.posterior import draw_spectrogram
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram

_FLOOR_DB = -50.0


@use_style()
def draw_error_law(
    predictor: Predictor,
    mixture: Spectrogram | Posterior,
    axes: Any = None,
    *,
    recording: int = 0,
) -> np.ndarray:
    """Draw the error that a predictor's law expects: bin by bin, and against what tells it.

    Left: expected power of the error over time and frequency. Right: its mean over all bins in
    which the prediction kept and removed so much, powers averaged over 3 by 3 bins; neither takes
    the truth to know. All in dB relative to the mean power of the mixture.

    Parameters
    ----------
    predictor
        Of the scene.
    mixture
        The recording, or its posterior. What the predictor said of it is taken from
        ``frames.predicted``, or else asked for again.
    axes
        Two axes, or None for a figure of its own.
    recording
        Which recording of the batch.

    Returns
    -------
    ndarray
        The two axes.

    Raises
    ------
    ValueError
        If there are other than two axes, or the predictor fails.

    Examples
    --------
    >>> wave = np.random.default_rng(0).normal(size=9000).astype("float32")
    >>> halve = Predictor(lambda wave, rate_hz: 0.5 * wave, name="half")
    >>> from avse_ppl import Stft
    >>> draw_error_law(halve, Stft().analyse(wave))[1].get_xlabel()
    'power kept around a bin, dB'
    """
    from scipy.ndimage import uniform_filter

    if isinstance(mixture, Posterior):
        mixture = mixture.observed_spectrogram()
    one = mixture.select(recording)
    given = one.frames.predicted
    said = (predictor.predict(one) if given is None else given)[0].detach().cpu().numpy()
    predicted, expected_db = said[0] + 1j * said[1], said[2] * (10 / np.log(10))
    removed = one.values[0].cpu().numpy() - predicted
    kept_db, removed_db = (
        np.maximum(convert_to_db(uniform_filter(np.abs(v) ** 2, 3, mode="nearest")), _FLOOR_DB)
        for v in (predicted, removed)
    )
    left, right = take_axes(axes, (1, 2), (11.0, 4.0), width_ratios=[1.5, 1])
    low, high = _FLOOR_DB, float(np.quantile(expected_db, 0.999))
    scale: dict[str, Any] = {"vmin": low, "vmax": max(high, low + 10.0)}
    draw_spectrogram(left, expected_db, one.stft, **scale)
    left.set_title(f"{predictor.name}: expected error")
    hexes = right.hexbin(
        kept_db.ravel(), removed_db.ravel(), C=expected_db.ravel(), reduce_C_function=np.mean,
        gridsize=36, cmap=LEVEL_MAP, mincnt=3, linewidths=0.1, **scale,
    )  # fmt: skip
    right.set(
        xlabel="power kept around a bin, dB", ylabel="power removed around it, dB",
        title="against what tells it",
    )  # fmt: skip
    right.figure.colorbar(hexes, ax=right, label="expected error, dB", pad=0.02)
    return np.array([left, right], dtype=object)


def compute_error_excess(
    posterior: Posterior, excess_db: float = Predictor.excess_db, recording: int = 0
) -> np.ndarray:
    """Draws of the excess of a predictor's error over its law, ``(draw, freq)``, dB.

    Raises
    ------
    ValueError
        If no predictor took part.
    """
    one = posterior.select(recording)
    draws = one.latents.get(ERROR)
    if draws is None:
        raise ValueError(
            f"expected a posterior in which a predictor informed the latents, found no site "
            f"{ERROR!r}; enhance with a predictor whose latent_share is not None"
        )
    weights = np.asarray(band_weights(one.stft.frames(one.n_samples[0])))
    return excess_db * draws.reshape(-1, weights.shape[1]) @ weights.T


@use_style()
def draw_error_excess(
    posterior: Posterior,
    axis: Any = None,
    *,
    recording: int = 0,
    excess_db: float = Predictor.excess_db,
    probability: float = 0.9,
) -> Any:
    """Draw by how much the error of a predictor exceeds its law on the recording, by frequency.

    It is the site ``predictor.error`` in dB. Where the band lies well above the prior's, the
    posterior has found that the prediction is not to be believed.

    Parameters
    ----------
    posterior
        In which a predictor took part.
    axis
        Axes, or None for a figure of its own.
    recording
        Which recording of the batch.
    excess_db
        That of the `Predictor`.
    probability
        Mass of the band.

    Returns
    -------
    Axes
        The axes.

    Raises
    ------
    ValueError
        If no predictor took part.
    """
    draws = compute_error_excess(posterior, excess_db, recording)
    tail = (1 - probability) / 2
    low, middle, high = np.quantile(draws, (tail, 0.5, 1 - tail), axis=0, method="weibull")
    [axis] = take_axes(axis, (1, 1), (6.0, 3.2))
    stft = posterior.stft
    freq_hz = np.arange(draws.shape[1]) * stft.sample_rate_hz / stft.n_fft
    axis.fill_between(
        freq_hz, low, high, color="C0", alpha=0.35, lw=0, label=f"{probability:.0%} credible band"
    )
    axis.plot(freq_hz, middle, color=DARK, ls="-", label="posterior median")
    axis.axhline(excess_db, color="0.4", lw=0.9, ls="--", label="prior mean")
    axis.set(xlabel="frequency, Hz", ylabel="beyond its law, dB", xlim=(0, freq_hz[-1]))
    others = [a for a in axis.get_shared_y_axes().get_siblings(axis) if a is not axis]
    tops = [a.get_ylim()[1] for a in others if a.has_data()]  # which share the range of this one
    axis.set_ylim(0, max(1.1 * float(high.max()), 1.5 * excess_db, *tops))
    axis.set_title(f"error of the predictor{describe_predictor(posterior)}")
    axis.legend(loc="upper right")
    return axis


def describe_predictor(posterior: Posterior) -> str:
    """Name of the predictor that took part, with a space before it; nothing if it is not known."""
    name = posterior.attrs.get("predictor")
    return f" {name}" if name else ""
