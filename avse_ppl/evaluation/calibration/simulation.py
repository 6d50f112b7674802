"""Simulation-based calibration (SBC): ranks of simulated truths among posterior draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avse_ppl.evaluation.calibration.ranks import compute_ranks, rank_ecdf, simultaneous_band
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.models.predictors.predictor import condition_on_predictor
from avse_ppl.models.scene import Scene
from avse_ppl.models.simulate import Simulated, simulate
from avse_ppl.models.validation import check_count
from avse_ppl.posterior.posterior import Posterior

_ELEMENTS = 3  # of each latent and of speech that are looked at
_WINDOWS = 5  # length of a simulated recording unless it is stated


@dataclass(frozen=True)
class SimulationBasedCalibration:
    """Ranks of the truth among posterior draws, over mixtures simulated from the scene.

    Parameters
    ----------
    ranks
        For each quantity, ``(simulation,)``, from 0 to ``draws``: elements of each latent
        (``"speech.gain[0,4]"``), power of speech (``"speech power"``), real parts of some of its
        bins (``"speech[3,4]"``), and the log density of latents and mixture (``"log joint"``).
    draws
        Draws behind each rank.
    kind
        Of the posterior, see `Posterior.kind`.
    """

    ranks: dict[str, np.ndarray]
    draws: int
    kind: str

    @property
    def simulations(self) -> int:
        """Number of simulated mixtures."""
        return len(next(iter(self.ranks.values())))

    def compute_distance(self) -> dict[str, float]:
        """Largest distance of each rank ECDF from the diagonal (Kolmogorov and Smirnov)."""
        gaps = {}
        for name, rank in self.ranks.items():
            points, ecdf = rank_ecdf(rank, self.draws)
            gaps[name] = float(np.abs(ecdf - points).max())
        return gaps

    def are_uniform(self, probability: float = 0.95) -> dict[str, bool]:
        """Whether each rank ECDF stays in the simultaneous band of uniform ranks.

        Each alone is uniform in error with probability ``1 - probability``: over many quantities,
        ask for more.
        """
        band = simultaneous_band(self.simulations, self.draws, probability)
        ecdfs = {name: rank_ecdf(rank, self.draws)[1] for name, rank in self.ranks.items()}
        slack = 1e-9
        return {
            name: bool(((ecdf >= band.lower - slack) & (ecdf <= band.upper + slack)).all())
            for name, ecdf in ecdfs.items()
        }

    def coverage(self, probability: float = 0.9) -> dict[str, float]:
        """Share of the truths inside the central credible interval of that mass.

        The interval is made of whole ranks, so that its mass is ``probability`` to about
        ``1 / draws``.
        """
        tail = (1 - probability) / 2 * (self.draws + 1)
        return {
            name: float(((rank >= tail) & (rank <= self.draws - tail)).mean())
            for name, rank in self.ranks.items()
        }


def simulation_based_calibration(
    method: Callable[..., Posterior],
    scene: Scene,
    simulations: int = 100,
    seed: int = 0,
    *,
    n_samples: int | None = None,
    keep: int = 99,
    batch: int | None = None,
) -> SimulationBasedCalibration:
    r"""Draw truths from the scene, infer them from their mixtures, and rank them among the draws.

    .. math:: \theta \sim p(\theta), \quad x \sim p(x | \theta), \quad
        \theta_d \sim q(\theta | x), \quad r = \#\{d : h(\theta_d) < h(\theta)\}

    r is uniform for every function h if q is the posterior. The power of the check lies in h: the
    log density of latents and mixture shows errors of scale and correlation that single latents
    do not. Draws of a chain are related, which makes ranks pile up at both ends: `keep` fewer
    than there are effective draws.

    Parameters
    ----------
    method
        Inference method, called as ``method(scene, mixture, seed=[...])``; waveforms are not
        needed.
    scene
        What truths and mixtures are drawn from, and what is inferred.
    simulations
        Number of mixtures.
    seed
        Of truths, method and speech draws, which are seeded apart.
    n_samples
        Length of a mixture, by default five windows of the STFT.
    keep
        At most so many draws, spread evenly over the chains. A point estimate is repeated so often.
    batch
        Mixtures inferred at once, by default all.

    Returns
    -------
    SimulationBasedCalibration
        Ranks by quantity.

    Raises
    ------
    ValueError
        If a count is not a positive whole number.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari and Gelman, "Validating Bayesian inference algorithms with
    simulation-based calibration", 2018. Modrák et al., "Simulation-based calibration checking for
    Bayesian computation: the choice of test quantities shapes sensitivity", Bayesian Analysis 2023.

    Examples
    --------
    >>> from avse_ppl import Exact, Stft
    >>> from avse_ppl.models.simulate import reference_scene
    >>> scene = reference_scene(noise_known=True, stft=Stft(64, 16))
    >>> result = simulation_based_calibration(Exact(draws=9), scene, 5, keep=9)
    >>> result.simulations, result.draws, result.ranks["speech power"].shape
    (5, 9, (5,))
    """
    check_count("simulations", simulations)
    check_count("keep", keep)
    batch = simulations if batch is None else batch
    check_count("batch", batch)
    n_samples = n_samples or _WINDOWS * scene.stft.n_fft
    # Seeds far apart: equal ones would hand the method the random numbers that made the truth.
    sequence = np.random.SeedSequence(seed)
    of_truth, *rest = sequence.generate_state(2 * simulations + 1).tolist()
    simulated = simulate(scene, n_samples, simulations, seed=of_truth)
    rows, kind = [], ""
    for begin in range(0, simulations, batch):
        span = slice(begin, begin + batch)
        whole = simulated.mixture
        part = Simulated(
            replace(
                whole, values=whole.values[span], n_samples=whole.n_samples[span],
                scale=whole.scale[span],
            ),
            simulated.speech[span], simulated.noise[span],
            {name: value[span] for name, value in simulated.latents.items()},
        )  # fmt: skip
        posterior = method(scene, part.mixture, seed=rest[:simulations][span])
        randoms = RandomStreams(
            rest[simulations:][span], part.mixture.recordings, torch.device("cpu")
        )
        rows.append(rank_truths(scene, part, posterior, keep, randoms))
        kind = posterior.kind
    joined = {name: np.concatenate([row[name] for row, _ in rows]) for name in rows[0][0]}
    return SimulationBasedCalibration(joined, rows[0][1], kind)


def rank_truths(
    scene: Scene, truth: Simulated, posterior: Posterior, keep: int, randoms: RandomStreams
) -> tuple[dict[str, np.ndarray], int]:
    """Rank the true value of each quantity; returns ranks, and the number of draws behind them."""
    mixture = condition_on_predictor(scene, truth.mixture)
    density = LogDensity(scene, mixture)
    true = compute_quantities(density, truth.latents, truth.speech)
    rows, shape = [], mixture.values.shape
    for values in take_draws(posterior, keep):
        # One draw of the speech STFT, each bin from its own distribution.
        laws = scene.laws_given(values, mixture)
        law = laws.condition(mixture.values)
        noise = randoms.normal(shape, mixture.values.dtype)
        speech = law.mean.expand(shape) + law.power.sqrt() * noise
        rows.append(compute_quantities(density, values, speech))
    drawn = {name: np.stack([row[name] for row in rows]) for name in true}
    return {name: compute_ranks(true[name], drawn[name]) for name in true}, len(rows)


def take_draws(posterior: Posterior, keep: int) -> Iterator[dict[str, Tensor]]:
    """Take at most ``keep`` draws of the latents from all chains; a point is repeated."""
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in posterior.latents.items()}
    count = len(next(iter(flat.values()))) if flat else 1
    used = keep if count == 1 else min(keep, count)
    for index in np.arange(used) * count // used:
        yield {name: torch.from_numpy(value[index]) for name, value in flat.items()}


def compute_quantities(
    density: LogDensity, values: dict[str, Tensor], speech: Tensor
) -> dict[str, np.ndarray]:
    """Compute the quantities that are ranked, ``(recording,)`` each."""
    quantities: dict[str, Any] = {}
    for name, value in values.items():
        quantities |= {f"{name}{where}": value[:, i, j] for where, i, j in choose_elements(value)}
    for where, i, j in choose_elements(speech):
        quantities[f"speech{where}"] = speech[:, i, j].real
    quantities["speech power"] = speech.abs().square().sum((1, 2))
    if values:
        with torch.no_grad():
            joint = density.joint(values)
        quantities["log joint"] = joint.prior + joint.likelihood
    return {name: value.numpy() for name, value in quantities.items()}


def choose_elements(value: Tensor) -> Iterator[tuple[str, int, int]]:
    """Choose a few elements of ``(recording, ., .)``, spread over both axes."""
    rows, columns = value.shape[1:]
    count = min(_ELEMENTS, max(rows, columns))
    for k in range(count):
        i, j = (2 * k + 1) * rows // (2 * count), (2 * k + 1) * columns // (2 * count)
        yield f"[{i},{j}]", i, j
