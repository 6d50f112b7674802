"""Posterior predictive checks: exponentiality and whiteness of normalised periodograms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from avse_ppl.evaluation.diagnostics.posterior_inputs import latent_draws, restore_inputs
from avse_ppl.models.handlers import serialise
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import COUPLED_BINS, Spectrogram, Stft

LEVEL = 0.05
# The largest misfit that does not matter: what 95 % of 60 ordinary mixtures of the training corpora
# stay below under the default scene and method, rounded up.
LARGEST: Mapping[str, float] = MappingProxyType({"law": 0.12, "time": 0.12, "frequency": 0.28})
_DRAWS = 32
_REFERENCE = 20_000
_SMALLEST = 1e-12
_FEWEST = 100  # bins of a subgrid
_FAILURES = MappingProxyType(
    {
        "law": "the mixture's power, over what the model expects, is not exponential: its "
        "distribution is off by up to {size:.3f}",
        "time": "the mixture's power, over what the model expects, is correlated by {size:+.3f} "
        "from one window to the next",
        "frequency": "the mixture's power, over what the model expects, is correlated by "
        "{size:+.3f} from one frequency to the next",
    }
)


@dataclass(frozen=True)
class PredictiveCheck:
    """Posterior predictive checks of the mixture, for each recording.

    Parameters
    ----------
    p_values
        Bayesian p-values ``(recording,)`` of ``"law"``, ``"time"`` and ``"frequency"``.
    sizes
        How large the misfit is, ``(recording,)`` each: the largest gap between the distribution
        functions; the correlations of neighbours in time and in frequency. Long recordings make
        small misfits significant: this says whether they matter, see ``failed``.
    draws
        Over how many draws of the posterior both are averaged.
    level
        Of the whole check: data from the model fail it at most so often.
    """

    p_values: Mapping[str, np.ndarray]
    sizes: Mapping[str, np.ndarray]
    draws: int
    level: float = LEVEL

    @property
    def passed(self) -> np.ndarray:
        """Whether each recording passes, ``(recording,)``."""
        return ~np.any(list(self.failed.values()), axis=0)

    @property
    def failed(self) -> dict[str, np.ndarray]:
        """Whether each recording fails each check, ``(recording,)``: for sure, and by much.

        For sure: the p-value is at most a sixth of the level (three checks, and twice an average
        of p-values is a p-value). By much: the size is above what it is for 95 % of ordinary
        recordings, one talker in noise, under the default models; no model of real sound is exact,
        and over thousands of bins any misfit is significant.
        """
        return {
            name: (p <= self.level / 6) & (np.abs(self.sizes[name]) > LARGEST[name])
            for name, p in self.p_values.items()
        }

    def describe_failures(self) -> list[list[str]]:
        """Describe the checks that each recording fails."""
        return [
            [
                f"{_FAILURES[name].format(size=self.sizes[name][row])} (p = {p[row]:.2g}; for "
                f"most ordinary recordings up to {LARGEST[name]:.2g}); the model or its fit is "
                "off: run more steps, or try another noise model"
                for name, p in self.p_values.items()
                if self.failed[name][row]
            ]
            for row in range(len(self.passed))
        ]


@serialise
def predictive_check(
    posterior: Posterior, scene: Scene, mixture: Spectrogram | None = None
) -> PredictiveCheck:
    r"""Check the mixture against its posterior predictive distribution.

    Given the latents, :math:`y_{ft} = |x_{ft} - m_{ft}|^2 / (S_{ft} + B_{ft})` are independent
    and exponential with mean 1. That is so for the true latents, and also for a draw of their exact
    posterior: on average over data from the model, draw and truth have the same joint law with the
    data. Checked for up to 32 draws:

    - ``law``: y is exponential; Anderson-Darling statistic, which looks at both tails;
    - ``time``, ``frequency``: neighbours are uncorrelated; correlation of the normal scores of y.

    Each draw is checked on frames that do not overlap and bins that the window does not couple,
    another such grid for each draw, because only these are independent where x is the STFT of a
    waveform. Frames that extend past the recording's ends are left out.

    p-values are averaged over draws, which makes them Bayesian p-values (Gelman, Meng and Stern).
    Twice an average of p-values is a p-value however they depend on each other, and ``passed``
    allows for that: data from the model fail at most in 5 % of the cases, given draws of the
    exact posterior. What fails is also large, see `PredictiveCheck.failed`.

    Parameters
    ----------
    posterior, scene
        What was inferred, and from which scene.
    mixture
        What was inferred; needed only if that was not normalised to unit mean power.

    Raises
    ------
    ValueError
        If the posterior holds other latents than the scene's, or a recording is too short for 100
        such bins.

    References
    ----------
    Johnson, "Bayesian model assessment using pivotal quantities", Bayesian Analysis 2007. Gelman,
    Meng and Stern, "Posterior predictive assessment of model fitness via realized discrepancies",
    Statistica Sinica 1996. Vovk and Wang, "Combining p-values via averaging", Biometrika 2020.
    Anderson and Darling, "Asymptotic theory of certain goodness of fit criteria", 1952.

    Examples
    --------
    >>> from avse_ppl import Exact
    >>> from avse_ppl.models.simulate import reference_scene, simulate
    >>> scene = reference_scene(noise_known=True)
    >>> mixture = simulate(scene, n_samples=8000).mixture
    >>> posterior = Exact(draws=8)(scene, mixture, seed=0)
    >>> predictive_check(posterior, scene, mixture).passed
    array([ True])
    """
    scene, mixture = restore_inputs(posterior, scene, mixture)
    rows = [
        [
            check_periodogram(periodogram, index, mixture.stft)
            for periodogram in normalise_periodograms(scene, mixture, values)
        ]
        for index, values in enumerate(latent_draws(posterior, _DRAWS, mixture.scale.device))
    ]
    table = np.array(rows).mean(axis=0)  # (recording, p-value or size, check)
    names = ("law", "time", "frequency")
    return PredictiveCheck(
        p_values={name: table[:, 0, i] for i, name in enumerate(names)},
        sizes={name: table[:, 1, i] for i, name in enumerate(names)},
        draws=len(rows),
    )


def normalise_periodograms(scene: Scene, mixture: Spectrogram, values: Mapping) -> list[np.ndarray]:
    """Compute ``y`` of each recording, ``(freq, time)``, without its padding and the ends.

    Bands and frames that hold nothing observed are left out.
    """
    law = scene.laws_given(values, mixture).mixture
    ratio = ((mixture.values - law.mean).abs().square() / law.power).cpu().double().numpy()
    stft = mixture.stft
    edge = math.ceil(stft.n_fft / (2 * stft.hop))
    counts = [stft.count_frames(n) for n in mixture.n_samples]
    rows = [row[:, edge : count - edge] for row, count in zip(ratio, counts, strict=True)]
    if mixture.observed is None:
        return rows
    kept = []
    for row, observed in zip(rows, mixture.observed.cpu().numpy(), strict=True):
        inside = observed[:, edge : edge + row.shape[1]]
        kept.append(row[np.ix_(inside.any(1), inside.any(0))])
    return kept


def check_periodogram(ratio: np.ndarray, index: int, stft: Stft) -> tuple[list[float], list[float]]:
    """Compute p-values and sizes of the three checks, on the subgrid of one draw."""
    frames, bins = math.ceil(stft.n_fft / stft.hop), COUPLED_BINS[stft.window]
    # The lowest and highest bins are real, or coupled with their own mirror image.
    y = ratio[bins + index // frames % bins : 1 - bins : bins, index % frames :: frames]
    if y.size < _FEWEST or y.shape[1] < 2:
        raise ValueError(
            f"the recording has {y.size} independent bins, in {y.shape[1]} frames; a check needs "
            f"at least {_FEWEST}, in 2 frames: take a longer recording"
        )
    p_law, gap = check_exponentiality(y)
    scores = compute_normal_scores(y)
    p_time, in_time = check_whiteness(scores[:, :-1], scores[:, 1:])
    p_freq, in_freq = check_whiteness(scores[:-1], scores[1:])
    return [p_law, p_time, p_freq], [gap, in_time, in_freq]


def check_exponentiality(y: np.ndarray) -> tuple[float, float]:
    """Anderson-Darling p-value of Exp(1), and the largest gap of the distribution functions.

    Examples
    --------
    >>> y = np.random.default_rng(0).exponential(size=2000)
    >>> check_exponentiality(y)[0] > 0.01, check_exponentiality(1.2 * y)[0] < 0.01
    (True, True)
    """
    y = np.sort(np.clip(y.ravel(), _SMALLEST, None))
    n, rank = y.size, np.arange(1, y.size + 1)
    log_below = np.log(-np.expm1(-y))
    statistic = -n - float(np.sum((2 * rank - 1) * (log_below - y[::-1]))) / n
    gap = np.max(np.maximum(rank / n + np.expm1(-y), -np.expm1(-y) - (rank - 1) / n))
    reference = simulate_anderson_darling()
    larger = len(reference) - np.searchsorted(reference, statistic)
    return float((1 + larger) / (1 + len(reference))), float(gap)


@lru_cache(maxsize=1)
def simulate_anderson_darling() -> np.ndarray:
    r"""Draw from the limit of the Anderson-Darling statistic, sorted.

    It is :math:`\sum_j Z_j^2 / (j (j + 1))` with standard normal Z.
    """
    j = np.arange(1, 201)
    squares = np.random.default_rng(0).chisquare(1.0, size=(_REFERENCE, j.size))
    return np.sort(squares @ (1.0 / (j * (j + 1))) + 1.0 / (j.size + 1))


def compute_normal_scores(y: np.ndarray) -> np.ndarray:
    """Transform exponential numbers to standard normal ones of the same rank."""
    from scipy.special import ndtri

    return -ndtri(np.exp(-np.clip(y, _SMALLEST, 700.0)))


def check_whiteness(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """p-value of no correlation between neighbours, two-sided, and the correlation.

    Examples
    --------
    >>> scores = np.random.default_rng(0).normal(size=(20, 100))
    >>> check_whiteness(scores[:, 1:], scores[:, :-1])[0] > 0.01
    True
    """
    a, b = first - first.mean(), second - second.mean()
    size = float((a * b).sum() / math.sqrt(max((a * a).sum() * (b * b).sum(), _SMALLEST)))
    return math.erfc(abs(size) * math.sqrt(a.size / 2)), size
