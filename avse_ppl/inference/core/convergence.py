"""Convergence diagnostics: of Markov chains, and of a bound or objective that is maximised.

For chains: rank-normalised R-hat, effective sample sizes, divergences and energy. For a trace of
the evidence lower bound (ELBO) or the log joint density: whether it was still rising.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.core.powers import log_powers
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.fit_info import FitInfo
from avse_ppl.signal.stft import Spectrogram
from avse_ppl.utils.plurals import choose_form, name_count

R_HAT = 1.05
ESS_PER_CHAIN = 100
BFMI = 0.3
# Nats a bin: what it costs on average that a power is wrong by 1 dB, from the second order of the
# divergence log r + 1 / r - 1 between exponential laws whose means have the ratio r.
NOTICEABLE = (math.log(10) / 10) ** 2 / 2
_RISE_WINDOW = 25  # steps
_FASTEST = 0.5  # share of its rate that a rise keeps over a window, at least: the slow comes last
_ROUNDING = 1e-5  # nats: the rows of a batch are summed in another order each
_MIN_DRAWS = 4  # of a chain; below that arviz computes nothing
_ALL_DIVERGED = (
    "every draw diverged, so that these are no draws of the posterior: sample standard-normal "
    "latents and scale them in the model (non-centred), give powers a floor, or init='svi'"
)

Figures = dict[str, Any]


def assess_chains(
    scene: Scene,
    mixture: Spectrogram,
    draws: Sequence[Values],
    stats: Mapping[str, np.ndarray],
    chains: int,
) -> list[FitInfo]:
    """Convergence diagnostics of the chains of each recording: figures, and warnings.

    They are those of the powers of speech and noise, and not of the latents, which may be exchanged
    for each other; of a scene without latents there are none.

    Parameters
    ----------
    scene, mixture
        What was inferred.
    draws
        Values of all latents, one mapping a draw; the draws of the first chain first.
    stats
        The sampler's, ``(chain, draw, recording)`` each.
    chains
        How many chains of equal length the draws are from.
    """
    if not draws[0]:
        return [FitInfo() for _ in range(mixture.recordings)]
    rows = chain_figures(log_powers(scene, mixture, draws, chains=chains), stats)
    lost = np.all(stats.get("diverging", np.zeros((1, 1, len(rows)), bool)), axis=(0, 1))
    return [
        FitInfo(
            warnings=(_ALL_DIVERGED,) if all_lost else tuple(convergence_warnings(figures)),
            chain_figures=figures,
        )
        for figures, all_lost in zip(rows, lost, strict=True)
    ]


def chain_figures(
    powers: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray]
) -> list[Figures]:
    """Worst R-hat and effective sample sizes, divergences and energy of each recording.

    Parameters
    ----------
    powers
        Identified quantities, ``(chain, draw, recording, ...)`` each, from `log_powers`. What is
        NaN throughout (padding) or constant throughout (known to the model) is left out.
    stats
        The sampler's, ``(chain, draw, recording)`` each; ``diverging`` and ``energy`` are read.

    Returns
    -------
    list of dict
        For each recording: ``chains``, ``draws``, ``quantities`` (how many there are),
        ``r_hat``, ``ess_bulk`` and ``ess_tail`` with the quantity that is worst (``r_hat_of`` and
        so on), ``divergences``, ``bfmi`` (the lowest of the chains). None where there is nothing
        to compute it from.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter and Bürkner, "Rank-normalization, folding, and
    localization: an improved R-hat", Bayesian Analysis 2021. Betancourt, "Diagnosing suboptimal
    cotangent disintegrations in Hamiltonian Monte Carlo", 2016 (E-BFMI).

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(4, 500, 1, 3))
    >>> [figures] = chain_figures({"speech.band": draws}, {})
    >>> figures["quantities"], figures["r_hat"] < 1.05, figures["ess_bulk"] > 400
    (3, True, True)
    """
    recordings = next(iter(powers.values())).shape[2]
    rows = []
    for row in range(recordings):
        # Quantities that vary, (chain, draw, quantity), and their names.
        blocks, names = [], []
        for name, array in powers.items():
            values = array[:, :, row].reshape(*array.shape[:2], -1)
            varying = np.nonzero(np.ptp(values, axis=(0, 1)) > _ROUNDING)[0]  # not of NaN either
            blocks.append(values[..., varying])
            names += [f"{name}[{index}]" for index in varying]
        values = np.concatenate(blocks, axis=-1)

        figures: Figures = {
            "chains": values.shape[0], "draws": values.shape[1], "quantities": len(names),
        }  # fmt: skip
        for name, column, worst in (
            ("r_hat", r_hat(values), np.nanargmax),
            ("ess_bulk", ess(values, "bulk"), np.nanargmin),
            ("ess_tail", ess(values, "tail"), np.nanargmin),
        ):
            known = np.isfinite(column) | (column == np.inf)
            index = int(worst(column)) if known.any() else None
            figures[name] = None if index is None else float(column[index])
            figures[f"{name}_of"] = None if index is None else names[index]
        figures["divergences"] = count_divergences(stats, row)
        figures["bfmi"] = compute_bfmi(stats, row)
        rows.append(figures)
    return rows


def chain_warnings(
    powers: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray]
) -> list[list[str]]:
    """Warnings about the chains of each recording; see `chain_figures`.

    A recording is warned of if R-hat exceeds 1.05, an effective sample size is below 100 a chain,
    a draw diverged, or the energy's fraction of missing information (BFMI) is below 0.3.

    Examples
    --------
    >>> gap = np.arange(4.0)[:, None, None, None]
    >>> apart = np.random.default_rng(0).normal(size=(4, 500, 1, 3)) + gap
    >>> [[text, *_]] = chain_warnings({"speech.band": apart}, {})
    >>> text
    'chains disagree: R-hat ... for speech.band[...], expected below 1.05; run longer chains'
    """
    return [convergence_warnings(figures) for figures in chain_figures(powers, stats)]


def convergence_warnings(figures: Figures) -> list[str]:
    """Warnings about one recording's figures; empty if they pass.

    Examples
    --------
    >>> convergence_warnings({"quantities": 3, "r_hat": None, "draws": 3})
    ['3 draws a chain are too few to judge; run with draws=500 or more']
    """
    if figures["quantities"] == 0:
        return ["the chains did not move: every draw is the same; use another step size or init"]
    if figures["r_hat"] is None:
        return [
            f"{name_count(figures['draws'], 'draw')} a chain "
            f"{choose_form(figures['draws'], 'is', 'are')} too few to judge; run with draws=500 or "
            "more"
        ]
    chains, total = figures["chains"], figures["chains"] * figures["draws"]
    texts = []
    if not figures["r_hat"] <= R_HAT:
        who = "chains disagree" if chains > 1 else "the halves of the chain disagree"
        texts.append(
            f"{who}: R-hat {figures['r_hat']:.2f} for {figures['r_hat_of']}, expected below "
            f"{R_HAT}; run longer chains"
        )
    texts += [
        f"few effective draws: {kind} ESS {figures[f'ess_{kind}']:.0f} of {total} for "
        f"{figures[f'ess_{kind}_of']}, expected at least {ESS_PER_CHAIN * chains}; run longer "
        "chains"
        for kind in ("bulk", "tail")
        if not figures[f"ess_{kind}"] >= ESS_PER_CHAIN * chains
    ]
    if figures["divergences"]:
        texts.append(
            f"{figures['divergences']} of {total} draws diverged: parts of the posterior were not "
            "reached; use smaller steps (a higher target acceptance) or another parametrisation"
        )
    if figures["bfmi"] is not None and figures["bfmi"] < BFMI:
        texts.append(
            f"energy: BFMI {figures['bfmi']:.2f}, expected at least {BFMI}: heavy tails were "
            "explored slowly; run longer chains or use another parametrisation"
        )
    return texts


def count_divergences(stats: Mapping[str, np.ndarray], row: int) -> int | None:
    """Number of divergent draws of a recording; None if the sampler does not record them."""
    diverging = stats.get("diverging")
    return None if diverging is None else int(diverging[:, :, row].sum())


def compute_bfmi(stats: Mapping[str, np.ndarray], row: int) -> float | None:
    """Energy's fraction of missing information of a recording, that of its worst chain.

    ``E[(E_n - E_{n-1})^2] / Var[E]``; None if the sampler has no energy, or it does not vary.
    """
    energy = stats.get("energy")
    if energy is None or energy.shape[1] < 2:
        return None
    energy = energy[:, :, row]
    variance = energy.var(axis=1, ddof=1)
    if not (variance > 0).all():
        return None
    return float((np.square(np.diff(energy, axis=1)).mean(axis=1) / variance).min())


def r_hat(values: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat of each column of ``(chain, draw, quantity)``.

    Of one chain, its two halves are compared as if they were two. NaN where there are under 4
    draws; infinite where each chain stands still, and not all in one place.

    Examples
    --------
    >>> r_hat(np.zeros((2, 9, 1)) + np.arange(2)[:, None, None])
    array([inf])
    """
    if values.shape[0] == 1:
        half = values.shape[1] // 2
        values = np.concatenate([values[:, :half], values[:, half : 2 * half]])
    if values.shape[1] < _MIN_DRAWS:
        return np.full(values.shape[2], np.nan)
    apart = (np.ptp(values, axis=1) == 0).all(axis=0) & (np.ptp(values, axis=(0, 1)) > 0)
    return np.where(apart, np.inf, call_arviz("rhat", values, "rank"))


def ess(values: np.ndarray, method: str) -> np.ndarray:
    """Effective sample size of each column of ``(chain, draw, quantity)``, all chains together.

    ``method`` is ``"bulk"`` or ``"tail"``. NaN where there are under 4 draws.

    Examples
    --------
    >>> ess(np.zeros((2, 3, 1)), "bulk")
    array([nan])
    """
    return call_arviz("ess", values, method)


def call_arviz(function: str, values: np.ndarray, method: str) -> np.ndarray:
    """Call a diagnostic of arviz 0.2x or 1.x on each column of ``(chain, draw, quantity)``."""
    if values.shape[1] < _MIN_DRAWS:
        return np.full(values.shape[2], np.nan)
    import arviz
    import xarray

    data = xarray.Dataset({"x": (("chain", "draw", "quantity"), values.astype(np.float64))})
    with np.errstate(divide="ignore", invalid="ignore"):  # chains that stand still
        result: Any = getattr(arviz, function)(data, method=method)
    return np.asarray(result["x"].values, dtype=np.float64)


@dataclass(frozen=True)
class ElboRise:
    """Rise of a trace at its end.

    Parameters
    ----------
    steps
        Length of the trace.
    rise, error
        Rise from the window before the last to the last one, and its standard error, nats; NaN
        where the trace is shorter than two windows of 5 steps.
    window
        Length of a window, steps.
    rising
        Whether it rose by more than three standard errors and by more than is noticeable, and is
        to be expected to rise by more than is noticeable if the run goes on.
    left
        By how much it is to be expected to rise, nats; infinite where it does not slow down.
    """

    steps: int
    rise: float
    error: float
    window: int
    rising: bool
    left: float = np.nan

    @property
    def settled(self) -> bool:
        """Whether it was seen not to rise; a trace that is too short says nothing."""
        return not self.rising and not math.isnan(self.rise)

    def describe(self, name: str) -> str:
        """Warning that the optimisation was stopped too early."""
        return (
            f"{name} was still rising, by {self.rise:.0f} nats over the last {self.window} of "
            f"{self.steps} steps: the result is not yet as close to the posterior as it gets; "
            "allow more steps"
        )


def measure_rise(
    trace: np.ndarray, bins: int, tempering: float = 1.0, settling: int = 0
) -> ElboRise:
    r"""Test whether an evidence lower bound or log joint density was still rising.

    What is left is extrapolated: a bound that rises by d from one window of W steps to the next,
    and by d / q from the one before, comes to its limit geometrically, and is to rise by

    .. math:: d\, \frac{q}{1 - q}\, q^{(W + n) / (2 W)}

    after its last step, if in n of them, which follow the windows, a learning rate falls to
    nothing. As parts of the bound that rise slowly are the last to come out, q is 1/2 or more.

    Parameters
    ----------
    trace
        Nats, ``(step,)``; NaN after the end of a run that stopped early.
    bins
        Number of time-frequency bins: a rise of under 0.0265 nats a bin, which is what powers cost
        that are wrong by 1 dB, is not noticeable.
    tempering
        Power of the likelihood, by which the noticeable rise is scaled.
    settling
        Steps at the end that are left out: where a learning rate falls, a bound rises because it is
        less noisy. They count half, as their rates do on average.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=100)
    >>> measure_rise(noise, 500).rising, measure_rise(noise + np.arange(100), 500).rising
    (False, True)
    >>> slowing = -500 * np.exp(-np.arange(100) / 20)
    >>> measure_rise(slowing + noise, 500).rise > 0.0265 * 500, measure_rise(slowing, 500).rising
    (True, False)
    """
    values = np.asarray(trace, float)
    values = values[np.isfinite(values)]
    steps = len(values)
    values = values[: steps - settling]
    window = min(_RISE_WINDOW, len(values) // 2)
    if window < 5:
        return ElboRise(steps, np.nan, np.nan, window, False)
    now, before = values[-window:], values[-2 * window : -window]
    rise = float(now.mean() - before.mean())
    # Variance about a trend, from successive differences.
    scatter = [float(np.square(np.diff(part)).mean() / 2) for part in (now, before)]
    error = float(np.sqrt(scatter[0] / window + scatter[1] / window))
    noticeable = NOTICEABLE * bins * tempering
    rising = rise > 3.0 * error and rise > noticeable
    # What is left, by how the rise slowed down over the last three windows, or thirds.
    third = min(window, len(values) // 3)
    levels = values[len(values) - 3 * third :].reshape(3, third).mean(1)
    (first, second), kept = np.diff(levels), 1.0
    if first > second > 0.0:
        kept = max(_FASTEST, float(second / first) ** (window / third))
    left = max(0.0, rise)
    if left > 0.0:
        over = 1.0 + (window + settling) / (2.0 * window)
        left = math.inf if kept == 1.0 else rise * kept**over / (1.0 - kept)
    return ElboRise(steps, rise, error, window, bool(rising and left > noticeable), left)
