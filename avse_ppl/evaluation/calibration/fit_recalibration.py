"""Fit a `Recalibration` to posteriors of recordings whose clean speech is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from avse_ppl.evaluation.calibration.coverage import compute_clean_stft
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.posterior.recalibration import (
    MAIN,
    Recalibration,
    draw_scales,
    group_of,
    origin,
    scaled,
)

EDGES_DB = (-20.0, -10.0, -3.0, 3.0, 8.0, 12.0, 16.0, 20.0)
PROBABILITIES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
_CHECKED = (0.5, 0.8, 0.95)  # beside the main one, what the shape of the draws is fitted to
_LOG_SDS = np.arange(0.0, 1.05, 0.1)
_FEWEST = 200  # bins of a group; with fewer it takes the values of the next
_SAMPLES = 1000  # of a recording


class BinErrors(NamedTuple):
    """Normalised squared errors, their groups and weights, one number a bin."""

    group: np.ndarray
    ratio: np.ndarray
    weight: np.ndarray


class WaveformDeviations(NamedTuple):
    """Deviations from the posterior mean of some samples: truth ``(sample,)``, draws; weights."""

    truth: np.ndarray
    draws: np.ndarray
    weight: np.ndarray


def fit_recalibration(
    pairs: Iterable[tuple[Posterior, np.ndarray]],
    *,
    fitted_on: str,
    edges_db: tuple[float, ...] = EDGES_DB,
    probabilities: tuple[float, ...] = PROBABILITIES,
) -> Recalibration:
    r"""Fit the quantiles and the scales of a `Recalibration`.

    A bin of a recording of n bins counts as
    :math:`\tfrac{1}{2} (1 / n + e_{ft} / \sum e), \; e = |m|^2 + v`: half of the weight is spread
    evenly, half by the expected energy of speech, so that both coverages come out right. Each
    recording counts the same.

    Parameters
    ----------
    pairs
        Posteriors of one recording each, with waveform draws, from one inference method, prior and
        noise model; and the clean waveform of each, ``(sample,)``. Gone through twice: a list, or
        anything else that can be iterated again.
    fitted_on
        Which recordings these are, in words.
    edges_db
        Between groups of bins, posterior signal-to-noise ratio, dB.
    probabilities
        Masses of the quantiles; 0.9 among them.

    Returns
    -------
    Recalibration
        For posteriors of the same kind.

    Raises
    ------
    ValueError
        If there are no pairs, they can be iterated only once, the posteriors are of several kinds,
        have fewer than 10 draws, are not finite, or are recalibrated already.

    Examples
    --------
    >>> from avse_ppl import Exact, Stft
    >>> from avse_ppl.models.simulate import reference_scene
    >>> stft = Stft(64, 16)
    >>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
    >>> posterior = Exact(draws=20)(reference_scene(True, stft=stft), wave, seed=0)
    >>> fitted = fit_recalibration([(posterior, 0.5 * wave)], fitted_on="white noise")
    >>> posterior.recalibrated(fitted).kind
    'exact, recalibrated'
    """
    if iter(pairs) is pairs:
        raise ValueError("pairs are gone through twice; give a list, not a generator")
    if MAIN not in probabilities:
        raise ValueError(f"probabilities must hold {MAIN}, found {probabilities}")
    origins, errors = [], []
    for posterior, clean in pairs:
        if posterior.recordings != 1:
            raise ValueError(
                f"expected posteriors of one recording, found {posterior.recordings}; use "
                "posterior.select(index)"
            )
        count = posterior.speech.shape[0] * posterior.speech.shape[1]
        if count < 10:
            raise ValueError(f"expected at least 10 waveform draws, found {count}")
        if posterior.kind.recalibrated:
            raise ValueError("a posterior of pairs is recalibrated already; take the one before")
        parts = (posterior.mean, posterior.variance, posterior.speech)
        if not all(np.isfinite(part).all() for part in parts):
            raise ValueError(
                f"the posterior of pair {len(origins)} (from 0) holds values that are not finite; "
                "expected finite means, variances and draws"
            )
        origins.append(origin(posterior))
        errors.append(normalise_errors(posterior, clean, edges_db))
    if not errors or any(one != origins[0] for one in origins):
        found = sorted({str(one) for one in origins})
        raise ValueError(f"expected posteriors of one kind, found {found or 'none'}")
    table = Recalibration(
        **origins[0], fitted_on=fitted_on, recordings=len(errors), edges_db=tuple(edges_db),
        probabilities=tuple(probabilities),
        quantiles=fit_quantiles(errors, len(edges_db) + 1, probabilities),
    )  # fmt: skip
    log_scale, log_sd = fit_draws([measure_deviations(table, *pair) for pair in pairs])
    return replace(table, log_scale=log_scale, log_spread=log_sd)


def fit_draws(deviations: list[WaveformDeviations]) -> tuple[float, float]:
    """Fit log scale and sd of log scales of the draws, so that intervals cover as stated.

    For each standard deviation, the scale that makes the 90 % interval right is a quantile itself:
    that of the scale at which each sample would just be inside. Of those pairs, the one that is
    nearest at the other masses.
    """
    best = (np.inf, 0.0, 0.0)
    weight = np.concatenate([one.weight for one in deviations])
    for log_sd in _LOG_SDS:
        needed = np.concatenate([find_scales(one, float(log_sd)) for one in deviations], axis=1)
        scale = weighted_quantiles(needed[0], weight, (MAIN,))[0]
        inside = ((needed[1:] <= scale) * weight).sum(axis=1) / weight.sum()
        miss = float(np.square(inside - _CHECKED).sum())
        best = min(best, (miss, float(np.log(scale)), float(log_sd)))
    return best[1], best[2]


def weighted_quantiles(
    values: np.ndarray, weight: np.ndarray, probabilities: tuple[float, ...]
) -> np.ndarray:
    """Weighted quantiles: the smallest values with those shares of the weight at or below them.

    Examples
    --------
    >>> weighted_quantiles(np.array([3.0, 1.0, 2.0]), np.ones(3), (0.5, 0.9)).tolist()
    [2.0, 3.0]
    """
    order = np.argsort(values)
    share = weight[order].cumsum(dtype=np.float64)
    index = np.searchsorted(share, np.array(probabilities) * share[-1])
    return values[order][np.minimum(index, len(values) - 1)]


def normalise_errors(
    posterior: Posterior, clean: np.ndarray, edges_db: tuple[float, ...]
) -> BinErrors:
    """Squared error of each bin over its posterior variance."""
    mean, variance = posterior.mean[0], posterior.variance[0]
    ratio = np.abs(compute_clean_stft(posterior, clean) - mean) ** 2 / variance
    energy = np.abs(mean) ** 2 + variance
    return BinErrors(
        group_of(mean, variance, edges_db).ravel(), ratio.ravel(), mix_weights(energy).ravel()
    )


def mix_weights(energy: np.ndarray) -> np.ndarray:
    """Weight bins or samples half evenly, half by energy."""
    return 0.5 / energy.size + 0.5 * energy / energy.sum(dtype=np.float64)


def fit_quantiles(
    errors: list[BinErrors], groups: int, probabilities: tuple[float, ...]
) -> tuple[tuple[float, ...], ...]:
    """Fit the quantiles of the normalised errors of each group of bins."""
    group, ratio, weight = (np.concatenate(parts) for parts in zip(*errors, strict=True))
    counts = np.bincount(group, minlength=groups)
    full = np.flatnonzero(counts >= min(_FEWEST, counts.max()))
    rows = {
        int(g): weighted_quantiles(ratio[group == g], weight[group == g], probabilities)
        for g in full
    }
    nearest = [int(full[np.abs(full - g).argmin()]) for g in range(groups)]
    return tuple(tuple(round(float(q), 6) for q in rows[g]) for g in nearest)


def measure_deviations(
    table: Recalibration, posterior: Posterior, clean: np.ndarray
) -> WaveformDeviations:
    """Measure how truth and rescaled draws deviate from the posterior mean, at some samples."""
    factor = table.factor(posterior.mean[0], posterior.variance[0])
    draws = scaled(posterior, np.sqrt(factor), 0)
    draws = draws.reshape(-1, draws.shape[-1])
    kept = posterior.draws()
    energy = kept.mean(axis=0) ** 2 + kept.var(axis=0)
    some = slice(None, None, max(1, draws.shape[1] // _SAMPLES))
    truth = clean - posterior.enhance()
    return WaveformDeviations(truth[some], draws[:, some], mix_weights(energy[some]))


def find_scales(deviations: WaveformDeviations, log_sd: float) -> np.ndarray:
    """Find the scale at which each sample is just inside each interval, ``(mass, sample)``."""
    draws = draw_scales((len(deviations.draws),), log_sd, 0)[:, None] * deviations.draws
    tails = [(1 - p) / 2 for p in (MAIN, *_CHECKED)]
    levels = [*tails, *(1 - t for t in tails)]
    bounds = np.quantile(draws, levels, axis=0, method="weibull")
    low, high = bounds.reshape(2, len(tails), -1)
    bound = np.where(deviations.truth < 0, np.minimum(low, 0.0), np.maximum(high, 0.0))
    with np.errstate(divide="ignore"):
        return np.where(deviations.truth == 0, 0.0, np.abs(deviations.truth) / np.abs(bound))
