"""Leave-one-out cross-validation of time-frequency bins by PSIS (PSIS-LOO)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avse_ppl.evaluation.diagnostics.posterior_inputs import latent_draws
from avse_ppl.evaluation.pointwise_log_likelihood import make_pointwise_log_likelihood
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.psis import psis
from avse_ppl.inference.core.visual_gate import check_gate_latents
from avse_ppl.models.handlers import serialise
from avse_ppl.models.predictors.predictor import condition_on_predictor, drop_unused_predictor
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import COUPLED_BINS, Spectrogram, Stft
from avse_ppl.utils.plurals import name_count

FEWEST_DRAWS = 100
_ELEMENTS = 4_000_000  # log densities smoothed at once: bounds the memory


@dataclass(frozen=True)
class Loo:
    """Leave-one-out predictive densities of each bin, given all that share no samples with it.

    Parameters
    ----------
    elpd
        Log predictive density, ``(freq, time)``, nats; of the recording at unit mean power.
    k_hat
        Pareto shape of the importance ratios of each bin, ``(freq, time)``.
    in_sample
        Log predictive density of each bin, that bin included in the data, ``(freq, time)``.
    good_k
        What ``k_hat`` should stay below, with so many draws.
    integrated
        Latents of one bin each, which were integrated out.
    """

    elpd: np.ndarray
    k_hat: np.ndarray
    in_sample: np.ndarray
    good_k: float
    integrated: tuple[str, ...] = ()

    @property
    def p_loo(self) -> float:
        """Effective number of parameters: in-sample less leave-one-out log density, summed."""
        return float((self.in_sample - self.elpd).sum())

    @property
    def bad_share(self) -> float:
        """Share of the bins whose ``k_hat`` is not good."""
        return float((self.k_hat > self.good_k).mean())


@serialise
def loo(scene: Scene, mixture: Spectrogram, posterior: Posterior, *, seed: int = 0) -> Loo:
    r"""Leave-one-out density of each bin by Pareto-smoothed importance sampling (PSIS-LOO).

    .. math:: \log p(x_i | x_{-i}) \approx \log \sum_d w^d_i\, p(x_i | \theta^d), \quad
        w^d_i \propto 1 / p(x_i | \theta^d)

    over draws :math:`\theta^d` of the posterior, the weights smoothed. The bins next to i, in
    frames that overlap with its own or coupled to it by the window, hold copies of what was left
    out: a model would be credited for having been fitted to them, and the more so the more latents
    it has. They are left out as well, to first order,

    .. math:: \log p(x_i | x_{-N(i)}) \approx \log p(x_i | x_{-i}) - \sum_{j \in N(i), j \ne i}
        \mathrm{Cov}_\theta[\log p(x_i | \theta), \log p(x_j | \theta)]

    which is what the importance weights of all N(i) bins give where they are nearly even.

    Latents with a value for each bin are integrated out first,
    :math:`p(x_{ft} | \theta) = \int p(x_{ft} | \theta, u)\, p(u | \theta)\, du`: given its own
    latent a bin says nothing about the others, and leaving it out would leave that latent to the
    prior, which no reweighting of posterior draws brings about.

    With a predictor, densities are those of the mixture given what was predicted of it, not of the
    prediction. The draws are taken as draws of the posterior. Where they are not (variational,
    tempered), the result is that approximation's.

    Parameters
    ----------
    scene, mixture
        What was inferred: one recording, on the scene's device.
    posterior
        Of that recording.
    seed
        Of the integration over latents of single bins.

    Raises
    ------
    ValueError
        If the posterior is a point estimate, holds other latents than the scene's or under 100
        draws of them, or there are several recordings.

    References
    ----------
    Vehtari, Gelman and Gabry, "Practical Bayesian model evaluation using leave-one-out
    cross-validation and WAIC", Statistics and Computing 2017. Vehtari, Mononen, Tolvanen, Sivula
    and Winther, "Bayesian leave-one-out cross-validation approximations for Gaussian latent
    variable models", JMLR 2016, and Merkle, Furr and Rabe-Hesketh, "Bayesian comparison of latent
    variable models", Psychometrika 2019 (integrating out the latents of an observation). Burman,
    Chow and Nolan, "A cross-validatory method for dependent data", Biometrika 1994 (leaving out
    neighbours).

    Examples
    --------
    >>> from avse_ppl import SVI
    >>> from avse_ppl.models.simulate import reference_scene, simulate
    >>> scene = reference_scene(noise_known=False)
    >>> mixture = simulate(scene, n_samples=4096).mixture
    >>> posterior = SVI(steps=60, draws=200)(scene, mixture, seed=0)
    >>> result = loo(scene, mixture, posterior)
    >>> result.elpd.shape, result.bad_share < 0.05
    ((513, 17), True)
    """
    check_kind(posterior)
    if mixture.recordings != 1 or posterior.recordings != 1:
        raise ValueError(
            f"expected one recording, found {mixture.recordings} in the mixture and "
            f"{posterior.recordings} in the posterior; use select(i) of both"
        )
    counts = [value.shape[0] * value.shape[1] for value in posterior.latents.values()]
    if counts and min(counts) < FEWEST_DRAWS:
        raise ValueError(
            f"the posterior holds {name_count(min(counts), 'draw')} of its latents; leave-one-out "
            f"weights need at least {FEWEST_DRAWS}: run the inference with 200 draws or more"
        )
    scene = drop_unused_predictor(scene, posterior.kind.pooled)
    mixture = condition_on_predictor(scene, mixture)
    density = LogDensity(scene, mixture)
    check_gate_latents(
        density,
        posterior,
        "the scene that was inferred, and a recording that was not cut into chunks",
    )
    bins = make_pointwise_log_likelihood(density, posterior, seed)
    tempering = posterior.kind.tempering

    # Log densities of each bin, and of its neighbourhood, (draw, freq, time).
    rows, near_rows = [], []
    for draw in latent_draws(posterior):
        values = {site.name: draw[site.name].to(density.mixture.scale) for site in density.sites}
        log_p = bins(values).float()
        if mixture.mask is not None:
            log_p = log_p.masked_fill(~mixture.mask, 0.0)
        rows.append(log_p[0].cpu().numpy())
        near_rows.append(sum_neighbourhoods(log_p, mixture.stft)[0].cpu().numpy())
    logs, near = np.stack(rows), np.stack(near_rows)

    elpd, k_hat, in_sample = smooth_importance_weights(logs, tempering)
    elpd = elpd - tempering * compute_covariance(logs, near - logs)
    draws = len(logs)
    good_k = min(0.7, 1.0 - 1.0 / math.log10(draws)) if draws > 1 else 0.0
    return Loo(elpd, k_hat, in_sample, good_k, bins.local)


def sum_neighbourhoods(log_p: Tensor, stft: Stft) -> Tensor:
    """Sum ``(1, freq, time)`` over the bins that share samples or window leakage with each bin."""
    radius = COUPLED_BINS[stft.window] - 1, math.ceil(stft.n_fft / stft.hop) - 1
    size = [2 * r + 1 for r in radius]
    return torch.nn.functional.avg_pool2d(log_p, size, 1, radius, divisor_override=1)


def compute_covariance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the covariance over draws, ``(draw, freq, time)`` given."""
    total = np.zeros(first.shape[1:])
    middle = first.mean(axis=0), second.mean(axis=0)
    for a, b in zip(first, second, strict=True):
        total += (a - middle[0]) * (b - middle[1])
    return total / max(1, len(first) - 1)


def smooth_importance_weights(
    logs: np.ndarray, tempering: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PSIS-LOO of ``(draw, freq, time)``, some bins at a time: elpd, k-hat, in-sample density."""
    draws, shape = len(logs), logs.shape[1:]
    rows = logs.reshape(draws, -1)
    elpd, k_hat, in_sample = (np.zeros(rows.shape[1]) for _ in range(3))
    step = max(1, _ELEMENTS // draws)
    for begin in range(0, rows.shape[1], step):
        some = slice(begin, begin + step)
        log_p = rows[:, some].T.astype(float)
        log_weights, k_hat[some] = psis(-tempering * log_p)
        elpd[some] = np.logaddexp.reduce(log_weights + log_p, axis=1)
        in_sample[some] = np.logaddexp.reduce(log_p, axis=1) - math.log(draws)
    return elpd.reshape(shape), k_hat.reshape(shape), in_sample.reshape(shape)


def check_kind(posterior: Posterior) -> None:
    """Refuse the draws of a point estimate."""
    if posterior.kind.has_point_estimate:
        raise ValueError(
            f"the posterior is of kind {posterior.kind!r}: leaving a bin out needs draws of all "
            "latents, not a point estimate; use the method 'svi', 'exact' or a sampler"
        )
