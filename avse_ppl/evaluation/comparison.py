"""Model comparison by elpd: pointwise values, standard errors, stacking weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from avse_ppl.signal.stft import Stft


@dataclass(frozen=True)
class Comparison:
    r"""Noise models side by side, by leave-one-out density of each time-frequency bin.

    Parameters
    ----------
    models
        Names, the best first.
    elpd
        Expected log predictive density of each bin given all others that share no samples with
        it, ``(model, freq, time)``, nats, of the recording at unit mean power.
    k_hat
        Pareto shape of each bin's importance weights, ``(model, freq, time)``.
    p_loo
        Effective number of parameters of each model.
    good_k
        What ``k_hat`` should stay below.
    weights
        Stacking weights of the models' predictive densities; they add up to 1.
    elbo
        Evidence lower bound of each model where the routine has one, nats; else None.
    power
        ``|x|^2`` of the recording, ``(freq, time)``, at unit mean.
    stft
        The front end.
    kind
        Of the posteriors, see `Posterior.kind`: the figures inherit its approximation.
    warnings
        What is not to be relied on, in words.

    Notes
    -----
    Frames overlap, so that bins are not independent. With each bin its neighbours are left out, see
    `avse_ppl.evaluation.loo`, and standard errors are those of sums over blocks of ``n_fft / hop``
    frames and all frequencies, which share little with each other. The sums themselves are over
    all bins: a recording has ``n_fft / hop`` times as many as it has samples, and differences of
    elpd are larger by about as much than they would be between densities of the waveform.
    """

    models: tuple[str, ...]
    elpd: np.ndarray
    k_hat: np.ndarray
    p_loo: tuple[float, ...]
    good_k: float
    weights: tuple[float, ...]
    elbo: tuple[float | None, ...]
    power: np.ndarray
    stft: Stft
    kind: str
    warnings: tuple[str, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """Model with the highest elpd."""
        return self.models[0]

    @property
    def undecided(self) -> tuple[str, ...]:
        """Models that are within one standard error of the best: between these, no verdict."""
        return tuple(
            row["model"]
            for row in self.table()[1:]
            if not -row["difference"] > row["difference_se"]
        )

    def difference(self, model: str, other: str) -> np.ndarray:
        """Elpd difference of two models in each bin, ``(freq, time)``, nats.

        Raises
        ------
        ValueError
            If a model was not compared.
        """
        for name in (model, other):
            if name not in self.models:
                raise ValueError(f"no model {name!r} here; compared were {', '.join(self.models)}")
        return self.elpd[self.models.index(model)] - self.elpd[self.models.index(other)]

    def standard_error(self, values: np.ndarray) -> float:
        """Standard error of a sum over bins, ``(freq, time)`` given, from blocks of frames."""
        length = math.ceil(self.stft.n_fft / self.stft.hop)
        frames = values.sum(axis=0)
        count = len(frames) // length  # a last shorter block is left out
        blocks = frames[: count * length].reshape(count, length).sum(axis=1)
        return float(np.sqrt(len(blocks) * blocks.var(ddof=1))) if len(blocks) > 1 else math.nan

    def table(self) -> list[dict[str, Any]]:
        """Rows, the best model first: ``model``, ``elpd`` and so on, as in ``arviz.compare``.

        ``difference`` is elpd less that of the best model, and ``difference_se`` its standard
        error; ``bad_k`` the share of bins with a Pareto k-hat above ``good_k``.
        """
        return [
            {
                "model": name,
                "elpd": float(self.elpd[i].sum()),
                "se": self.standard_error(self.elpd[i]),
                "difference": float((self.elpd[i] - self.elpd[0]).sum()),
                "difference_se": self.standard_error(self.elpd[i] - self.elpd[0]) if i else 0.0,
                "weight": self.weights[i],
                "p_loo": self.p_loo[i],
                "bad_k": float((self.k_hat[i] > self.good_k).mean()),
                "elbo": self.elbo[i],
            }
            for i, name in enumerate(self.models)
        ]


def compute_stacking_weights(elpd: np.ndarray) -> np.ndarray:
    r"""Stacking weights: those of the mixture of models that predicts best.

    .. math:: \max_w \sum_i \log \sum_k w_k \exp(\mathrm{elpd}_{ki}), \quad w_k \ge 0,
        \quad \sum_k w_k = 1

    Parameters
    ----------
    elpd
        Log predictive densities, ``(model, observation)``.

    Returns
    -------
    ndarray
        ``(model,)``.

    Examples
    --------
    >>> compute_stacking_weights(np.log([[0.9, 0.9, 0.1], [0.1, 0.1, 0.9]])).round(2)
    array([0.71, 0.29])
    """
    from scipy.optimize import LinearConstraint, minimize

    density = np.exp(elpd - elpd.max(axis=0)).T
    models = density.shape[1]

    def score(weights: np.ndarray) -> float:
        return -float(np.log(density @ weights).mean())

    def slope(weights: np.ndarray) -> np.ndarray:
        return -(density / (density @ weights)[:, None]).mean(axis=0)

    start = np.full(models, 1.0 / models)
    result = minimize(
        score, start, jac=slope, method="SLSQP", bounds=[(1e-12, 1.0)] * models,
        constraints=LinearConstraint(np.ones((1, models)), 1.0, 1.0),
        options={"ftol": 1e-12, "maxiter": 300},
    )  # fmt: skip
    weights = np.clip(result.x, 0.0, None)
    return weights / weights.sum()
