"""Sensitivity of results to priors and likelihood by power-scaling, from the draws alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyro
import torch
from torch import Tensor

from avse_ppl.evaluation.diagnostics.posterior_inputs import latent_draws, restore_inputs
from avse_ppl.evaluation.loo import FEWEST_DRAWS
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.psis import psis
from avse_ppl.models.handlers import SubstituteLogProb, serialise
from avse_ppl.models.protocols import Denoiser, name_of
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.functional_posterior import FunctionalPosterior
from avse_ppl.posterior.functionals import Functional, Level
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram
from avse_ppl.utils.plurals import name_count
from avse_ppl.utils.tables import format_facts

SENSITIVE = 0.05  # of the CJS distance for each doubling: what Kallioinen et al. take for notable
_DELTA = 0.01
LIKELIHOOD = "likelihood"


@dataclass(frozen=True)
class Sensitivity:
    """Sensitivity of one functional to one component.

    Parameters
    ----------
    component
        A latent, whose prior is scaled, or ``"likelihood"``.
    functional
        What is looked at.
    shift
        Change of its posterior mean for each doubling of the power of the component, in posterior
        standard deviations.
    mcse
        Monte Carlo standard error of the shift.
    distance
        Cumulative Jensen-Shannon distance of its posterior for each doubling of the power.
    k_hat
        Pareto shape of the importance weights, the larger of both directions.
    """

    component: str
    functional: str
    shift: float
    mcse: float
    distance: float
    k_hat: float

    @property
    def resolved(self) -> bool:
        """Whether the shift is more than two of its Monte Carlo standard errors."""
        return abs(self.shift) > 2 * self.mcse

    @property
    def sensitive(self) -> bool:
        """Whether the distance is above 0.05, and no accident of the draws."""
        return self.resolved and self.distance > SENSITIVE


@dataclass(frozen=True, repr=False)
class SensitivityTable:
    """Sensitivities of functionals to the prior of each latent and to the likelihood.

    Parameters
    ----------
    rows
        One for each component and functional.
    kind
        Of the posterior: sensitivities are those of this approximation.
    """

    rows: tuple[Sensitivity, ...]
    kind: str

    def __repr__(self) -> str:
        facts: dict[str, object] = {"kind": self.kind}
        for row in self.rows:
            verdict = ", sensitive" if row.sensitive else "" if row.resolved else ", not resolved"
            facts[f"{row.functional}, {row.component}"] = (
                f"{row.shift:+.2f} +- {row.mcse:.2f} sd for each doubling, "
                f"distance {row.distance:.3f}, k-hat {row.k_hat:.2f}{verdict}"
            )
        return format_facts("Sensitivity by power-scaling", facts)


class LogProbBySite(SubstituteLogProb):
    """Log prior of each latent and log likelihood, summed over one recording."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__(values)
        self.found: dict[str, float] = {}
        self.last = ""

    def _pyro_post_sample(self, msg: dict) -> None:
        self.last = msg["name"]
        super()._pyro_post_sample(msg)

    def add(self, terms: Tensor, *, likelihood: bool) -> None:
        """Sum over everything."""
        name = LIKELIHOOD if likelihood else self.last
        self.found[name] = self.found.get(name, 0.0) + float(terms.double().sum())


@serialise
def measure_sensitivity(
    posterior: Posterior,
    scene: Scene,
    functionals: Mapping[str, Functional] | None = None,
    mixture: Spectrogram | None = None,
) -> SensitivityTable:
    r"""Sensitivity to priors and likelihood by power-scaling and importance weights.

    What the posterior would be with the prior of one latent, or the likelihood, to the power of
    :math:`\alpha`: draws get the weights

    .. math:: w_d \propto p(\theta_d)^{\alpha - 1} \quad\text{or}\quad
        p(x | \theta_d)^{\tau (\alpha - 1)}

    smoothed by PSIS, with the tempering :math:`\tau` of the posterior. Here :math:`\alpha` is 1.01
    and its inverse, and results are differences for each doubling: what a latent with as many
    values as a recording has frames times dimensions does to the weights at a doubling itself,
    no number of draws makes up for.

    Draws are taken for draws of the posterior that is scaled. Where they are of an approximation,
    the sensitivity is that of the approximation: the mean-field normal of `SVI` knows nothing of
    correlations between latents, through which a prior acts on other latents, and reports too
    little. ``kind`` says what it was; of a point estimate nothing can be said, and it is refused.

    Parameters
    ----------
    posterior, scene
        Of one recording, and what it was inferred from; at least 100 draws of the latents, each
        with its waveform.
    functionals
        By name, of one number each; by default the level.
    mixture
        What was inferred; needed with video, or if it was not normalised to unit mean power.

    Raises
    ------
    ValueError
        If the posterior is of a kind or size that allows no such weights, or of another scene.

    References
    ----------
    Kallioinen, Paananen, Bürkner and Vehtari, "Detecting and diagnosing prior and likelihood
    sensitivity with power-scaling", Statistics and Computing 2024. Nguyen and Vreeken,
    "Non-parametric Jensen-Shannon divergence", ECML PKDD 2015.

    Examples
    --------
    >>> from avse_ppl import Exact
    >>> from avse_ppl.models.simulate import reference_scene, simulate
    >>> scene = reference_scene(noise_known=True)
    >>> mixture = simulate(scene, n_samples=4096).mixture
    >>> posterior = Exact(draws=200)(scene, mixture, seed=0)
    >>> table = measure_sensitivity(posterior, scene, mixture=mixture)
    >>> [row.component for row in table.rows]
    ['speech.gain', 'likelihood']
    """
    check_scalable(posterior, scene)
    scene, mixture = restore_inputs(posterior, scene, mixture)
    chosen = functionals or {"level": Level()}
    found = {name: posterior.of(functional) for name, functional in chosen.items()}
    for name, one in found.items():
        check_scalar(name, one)

    # Log densities of each draw, and those of the latents that each waveform was drawn with.
    density = LogDensity(scene, mixture)
    rows = [compute_log_densities(density, draw) for draw in latent_draws(posterior)]
    chains, waves = posterior.speech.shape[:2]
    held = len(rows) // chains
    if waves <= held:
        index = [-(-i * held // waves) for i in range(waves)]
    else:
        index = [i % held for i in range(waves)]
    paired = [rows[chain * held + i] for chain in range(chains) for i in index]

    table = []
    tempering = posterior.kind.tempering
    for component in paired[0]:
        logs = np.array([row[component] for row in paired])
        logs = logs * (tempering if component == LIKELIHOOD else 1.0)
        for name, one in found.items():
            table.append(scale_power(component, name, one.draws[:, :, 0].reshape(-1), logs))
    return SensitivityTable(tuple(table), str(posterior.kind))


def scale_power(component: str, name: str, values: np.ndarray, logs: np.ndarray) -> Sensitivity:
    """Sensitivity of draws ``(draw,)`` to a component, of which ``logs`` are the log densities."""
    both = 1 / (1 + _DELTA), 1 + _DELTA
    log_weights, k_hat = psis(np.stack([(alpha - 1) * logs for alpha in both]))
    lower, upper = np.exp(log_weights)
    doublings = 2 * math.log2(1 + _DELTA)
    sd = max(float(values.std(ddof=1)), 1e-12)
    scores = (values - values.mean()) / sd
    shift = float((upper - lower) @ scores) / doublings
    # Each draw's share of the shift, whose scatter is its Monte Carlo error.
    shares = len(values) * (upper - lower) / doublings * scores
    mcse = float(shares.std(ddof=1)) / math.sqrt(len(values))
    distance = sum(compute_cjs(values, weights) for weights in (lower, upper)) / doublings
    return Sensitivity(component, name, shift, mcse, distance, float(k_hat.max()))


def compute_cjs(values: np.ndarray, weights: np.ndarray) -> float:
    """Cumulative Jensen-Shannon distance of draws and the same draws weighted, in [0, 1].

    Examples
    --------
    >>> values = np.random.default_rng(0).normal(size=1000)
    >>> compute_cjs(values, np.full(1000, 1e-3)) < 1e-6
    True
    """
    return max(_cjs_below(values, weights), _cjs_below(-values, weights))


def _cjs_below(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    widths = np.diff(values[order])
    p = np.arange(1, len(values)) / len(values)
    q = np.clip(np.cumsum(weights[order] / weights.sum())[:-1], 1e-300, None)
    middle = np.log2((p + q) / 2)
    pq = np.sum(widths * p * (np.log2(p) - middle)) + np.sum(widths * (q - p)) / math.log(4)
    qp = np.sum(widths * q * (np.log2(q) - middle)) + np.sum(widths * (p - q)) / math.log(4)
    bound = np.sum(widths * (p + q))
    return math.sqrt((max(0.0, pq) + max(0.0, qp)) / bound) if bound > 0 else 0.0


def compute_log_densities(density: LogDensity, draw: Mapping[str, Tensor]) -> dict[str, float]:
    """Log prior of each latent, and the log likelihood, of one draw."""
    mixture = density.mixture
    values = {site.name: draw[site.name].to(mixture.scale) for site in density.sites}
    with (
        torch.no_grad(),
        LogProbBySite(values) as log_prob,
        pyro.validation_enabled(False),
    ):
        density.scene(mixture)
    kept = {site.name for site in density.sites} | {LIKELIHOOD}
    return {name: value for name, value in log_prob.found.items() if name in kept}


def check_scalable(posterior: Posterior, scene: Scene) -> None:
    """Raise ``ValueError`` for posteriors whose draws cannot be weighted."""
    kind = posterior.kind
    if posterior.recordings != 1:
        raise ValueError(
            f"expected a posterior of one recording, found {posterior.recordings}; select(i) one"
        )
    if kind.has_point_estimate:
        raise ValueError(
            f"the posterior is of kind {kind!r}: a point estimate has no draws to be weighted; "
            "use the method 'svi', 'exact' or a sampler"
        )
    if kind.recalibrated:
        raise ValueError(
            "the posterior is recalibrated: its waveforms are no longer those that go with its "
            "latents; take the one before"
        )
    if isinstance(scene.speech, Denoiser):
        raise ValueError(
            f"speech prior {name_of(scene.speech)!r} is a denoiser and has no density to be "
            "scaled; take one with latents, such as 'tcvae'"
        )
    if not posterior.latents:
        raise ValueError(
            "the posterior holds no latents: there is no prior to scale. Of recordings over 15 s, "
            "enhanced in chunks, none are kept: take a shorter part"
        )
    waves = posterior.speech.shape[0] * posterior.speech.shape[1]
    held = min(value.shape[0] * value.shape[1] for value in posterior.latents.values())
    if min(waves, held) < FEWEST_DRAWS:
        raise ValueError(
            f"the posterior holds {name_count(held, 'draw')} of its latents and "
            f"{name_count(waves, 'waveform draw')}; sensitivities need at least {FEWEST_DRAWS} of "
            "both: run the inference with 200 draws or more"
        )


def check_scalar(name: str, found: FunctionalPosterior) -> None:
    """Raise ``ValueError`` unless a functional is one number, and defined in all draws."""
    if found.draws.ndim != 3 or not np.isfinite(found.draws).all():
        raise ValueError(
            f"functional {name!r} is an array, or not defined in all draws; expected one number, "
            "such as Level() or Energy(), or a function that returns one"
        )
