"""Coverage of credible regions, and scores of the posterior's uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from avse_ppl.evaluation.calibration.scores import (
    crps_draws,
    crps_gaussian,
    sparsification,
    spearman,
)
from avse_ppl.posterior.posterior import Posterior

PROBABILITIES = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Coverage:
    r"""Coverage and scores of one posterior against the clean recording.

    Shares weighted by energy count each bin or sample with the *expected* energy of speech,
    :math:`|m|^2 + v`, which is known without the truth: a perfect posterior covers as stated under
    any such weight. Under the weight :math:`|s|^2` of the truth it would not, since where the truth
    came out large it is more often outside.

    Parameters
    ----------
    probabilities
        Stated masses.
    bins, bins_by_energy
        Share of STFT bins inside the disc of that mass, ``(probability,)``; plain, and weighted.
    waveform, waveform_by_energy
        The same for samples inside the central interval of the waveform draws; NaN without draws.
    ause
        Area under the sparsification error of the bins, relative to their mean squared error.
    spearman
        Rank correlation of the squared error and the variance of bins.
    crps_bins
        CRPS of real and imaginary parts under the circular Gaussian, closed form, relative to the
        root mean square of the clean STFT.
    crps_waveform
        CRPS of samples from the waveform draws, relative to that of the clean waveform.
    """

    probabilities: tuple[float, ...]
    bins: np.ndarray
    bins_by_energy: np.ndarray
    waveform: np.ndarray
    waveform_by_energy: np.ndarray
    ause: float
    spearman: float
    crps_bins: float
    crps_waveform: float


def disc_radius(variance: np.ndarray, probability: float) -> np.ndarray:
    r"""Radius of the disc about the mean that holds the stated mass of :math:`N_c(m, v)`.

    .. math:: |s - m| \le \sqrt{-v \log(1 - p)}

    since :math:`|s - m|^2 / v` is exponential with mean 1.

    Raises
    ------
    ValueError
        If the probability is outside (0, 1).

    Examples
    --------
    >>> round(float(disc_radius(np.array(1.0), 0.9)), 3)
    1.517
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability must be between 0 and 1, not {probability}")
    return np.sqrt(-math.log1p(-probability) * np.asarray(variance))


def coverage(
    posterior: Posterior,
    clean: np.ndarray,
    probabilities: Sequence[float] = PROBABILITIES,
    *,
    recording: int = 0,
    radii: Sequence[np.ndarray] | None = None,
) -> Coverage:
    """Measure coverage and scores of a posterior against the clean recording.

    Parameters
    ----------
    posterior
        Of one or several recordings.
    clean
        Clean waveform of one of them, ``(sample,)``, aligned, on the scale of the mixture.
    probabilities
        Masses of the regions.
    recording
        Which one.
    radii
        Radius of the disc in each bin, ``(freq, time)`` for each probability; by default those of
        the circular Gaussian, `disc_radius`.

    Raises
    ------
    ValueError
        If the clean waveform has another length than the recording.

    Examples
    --------
    >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> posterior = SVI(steps=10)(Scene(GaussianSpeech(), stationary), wave, seed=0)
    >>> coverage(posterior, 0.5 * wave).bins.shape
    (4,)
    """
    one = posterior.select(recording)
    truth = compute_clean_stft(one, clean)
    mean, variance = one.mean[0], one.variance[0]
    error = np.abs(truth - mean)
    if radii is None:
        radii = [disc_radius(variance, p) for p in probabilities]
    hits = np.stack([error <= radius for radius in radii])
    wave_hits, wave_energy, crps_wave = score_waveform(one, np.asarray(clean), probabilities)
    root = np.sqrt(variance / 2)
    crps = [crps_gaussian(part(truth), part(mean), root).mean() for part in (np.real, np.imag)]
    return Coverage(
        probabilities=tuple(probabilities), bins=average_hits(hits),
        bins_by_energy=average_hits(hits, np.abs(mean) ** 2 + variance),
        waveform=average_hits(wave_hits), waveform_by_energy=average_hits(wave_hits, wave_energy),
        ause=sparsification(error**2, variance).ause, spearman=spearman(error, variance),
        crps_bins=float(np.mean(crps) / np.sqrt(np.mean(np.abs(truth) ** 2))),
        crps_waveform=crps_wave,
    )  # fmt: skip


def average_coverage(rows: Sequence[Coverage]) -> Coverage:
    """Average coverage over recordings, each of which counts the same.

    Raises
    ------
    ValueError
        If there are none, or their probabilities differ.
    """
    if len({row.probabilities for row in rows}) != 1:
        raise ValueError("expected one or more recordings with the same probabilities")
    names = [field.name for field in fields(Coverage)]
    means = {name: np.mean([getattr(row, name) for row in rows], axis=0) for name in names[1:]}
    return Coverage(rows[0].probabilities, **means)


def compute_clean_stft(posterior: Posterior, clean: np.ndarray) -> np.ndarray:
    """Compute the STFT of the clean waveform of a single recording, ``(freq, time)``.

    Raises
    ------
    ValueError
        If it has another length than the recording.
    """
    import torch

    [n] = posterior.n_samples
    wave = np.asarray(clean, dtype=np.float32)
    if wave.shape != (n,):
        raise ValueError(
            f"the clean waveform has shape {wave.shape}, the recording {n} samples; expected both "
            "aligned and of one length"
        )
    return posterior.stft.forward(torch.from_numpy(np.ascontiguousarray(wave))).numpy()


def score_waveform(
    posterior: Posterior, clean: np.ndarray, probabilities: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Hits of the interval of each mass, expected energy of each sample, and the CRPS."""
    draws = posterior.draws()
    if len(draws) < 2:
        return np.full((len(probabilities), 1), np.nan), np.ones(1), math.nan
    tails = [(1 - p) / 2 for p in probabilities]
    orders = [order for tail in tails for order in (tail, 1 - tail)]
    # As in Posterior.interval.
    bounds = np.quantile(draws, orders, axis=0, method="weibull").reshape(len(tails), 2, -1)
    hits = (bounds[:, 0] <= clean) & (clean <= bounds[:, 1])
    energy = draws.mean(axis=0) ** 2 + draws.var(axis=0)
    crps = crps_draws(clean, draws).mean() / np.sqrt(np.mean(np.square(clean)))
    return hits, energy, float(crps)


def average_hits(hits: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Average the hits of each probability, ``(probability, ...)``, with weights."""
    flat = hits.reshape(len(hits), -1)
    weights = None if weight is None else weight.ravel()
    return np.average(flat, axis=1, weights=weights)
