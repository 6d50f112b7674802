"""Simulation-based calibration: whether a routine inverts the scene that made its mixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avse_ppl.evaluation.calibration.ranks import rank_ecdf, ranks, simultaneous_band
from avse_ppl.inference.core.log_density import LogDensity
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.models.scene import Scene
from avse_ppl.models.simulate import Simulated, simulate
from avse_ppl.models.validation import check_count
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram

_ELEMENTS = 3  # of each latent and of speech that are looked at
_WINDOWS = 5  # length of a simulated recording unless it is stated


@dataclass(frozen=True)
class SimulationBasedCalibration:
    """Ranks of the truth among the draws of a routine, over mixtures simulated from the scene.

    Parameters
    ----------
    ranks
        For each quantity, ``(simulation,)``, from 0 to ``draws``: elements of each latent
        (``"speech.gain[0,4]"``), power of speech (``"speech power"``), real parts of some of its
        bins (``"speech[3,4]"``), and the log density of latents and mixture (``"log joint"``).
    draws
        Draws behind each rank.
    kind
        What the posterior says it is.
    """

    ranks: dict[str, np.ndarray]
    draws: int
    kind: str

    @property
    def simulations(self) -> int:
        """Number of simulated mixtures."""
        return len(next(iter(self.ranks.values())))

    def distance(self) -> dict[str, float]:
        """Largest distance of each rank ECDF from the diagonal (Kolmogorov and Smirnov)."""
        gaps = {}
        for name, rank in self.ranks.items():
            points, ecdf = rank_ecdf(rank, self.draws)
            gaps[name] = float(np.abs(ecdf - points).max())
        return gaps

    def uniform(self, probability: float = 0.95) -> dict[str, bool]:
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
    routine: Callable[..., Posterior],
    scene: Scene,
    simulations: int = 100,
    seed: int = 0,
    *,
    n_samples: int | None = None,
    keep: int = 99,
    batch: int | None = None,
) -> SimulationBasedCalibration:
    r"""Draw truths from the scene, invert their mixtures, and rank the truths among the draws.

    .. math:: \theta \sim p(\theta), \quad x \sim p(x | \theta), \quad
        \theta_d \sim q(\theta | x), \quad r = \#\{d : h(\theta_d) < h(\theta)\}

    r is uniform for every function h if q is the posterior. The power of the check lies in h: the
    log density of latents and mixture sees errors of spread and correlation that single latents do
    not show. Draws of a chain are related, which makes ranks pile up at both ends: `keep` fewer
    than there are effective draws.

    Parameters
    ----------
    routine
        Called as ``routine(scene, mixture, seed=[...])``; waveforms are not needed.
    scene
        What truths and mixtures are drawn from, and what the routine inverts.
    simulations
        Number of mixtures.
    seed
        Of truths, routine and speech draws, which are seeded apart.
    n_samples
        Length of a mixture, by default five windows of the STFT.
    keep
        At most so many draws, spread evenly over the chains. A point estimate is repeated so often.
    batch
        Mixtures inverted at once, by default all.

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
    # Seeds far apart: equal ones would hand the routine the random numbers that made the truth.
    of_truth, *rest = _seeds(seed, 2 * simulations + 1)
    simulated = simulate(scene, n_samples, simulations, seed=of_truth)
    rows, kind = [], ""
    for begin in range(0, simulations, batch):
        span = slice(begin, begin + batch)
        part = _part(simulated, span)
        posterior = routine(scene, part.mixture, seed=rest[:simulations][span])
        randoms = RandomStreams(
            rest[simulations:][span], part.mixture.recordings, torch.device("cpu")
        )
        rows.append(_ranked(scene, part, posterior, keep, randoms))
        kind = posterior.kind
    joined = {name: np.concatenate([row[name] for row, _ in rows]) for name in rows[0][0]}
    return SimulationBasedCalibration(joined, rows[0][1], kind)


def _seeds(seed: int, count: int) -> list[int]:
    return np.random.SeedSequence(seed).generate_state(count).tolist()


def _part(simulated: Simulated, rows: slice) -> Simulated:
    """Some of the recordings."""
    whole = simulated.mixture
    mixture = replace(
        whole, values=whole.values[rows], n_samples=whole.n_samples[rows], scale=whole.scale[rows]
    )
    latents = {name: value[rows] for name, value in simulated.latents.items()}
    return Simulated(mixture, simulated.speech[rows], simulated.noise[rows], latents)


def _ranked(
    scene: Scene, truth: Simulated, posterior: Posterior, keep: int, randoms: RandomStreams
) -> tuple[dict[str, np.ndarray], int]:
    """Ranks of each quantity, and the number of draws behind them."""
    density = LogDensity(scene, truth.mixture)
    true = _quantities(density, truth.latents, truth.speech)
    rows = [
        _quantities(density, values, _speech(scene, truth.mixture, values, randoms))
        for values in _draws(posterior, keep)
    ]
    drawn = {name: np.stack([row[name] for row in rows]) for name in true}
    return {name: ranks(true[name], drawn[name]) for name in true}, len(rows)


def _draws(posterior: Posterior, keep: int) -> Iterator[dict[str, Tensor]]:
    """Draws of the latents, chains joined, at most ``keep``; a point is repeated."""
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in posterior.latents.items()}
    count = len(next(iter(flat.values()))) if flat else 1
    used = keep if count == 1 else min(keep, count)
    for index in np.arange(used) * count // used:
        yield {name: torch.from_numpy(value[index]) for name, value in flat.items()}


def _speech(
    scene: Scene, mixture: Spectrogram, values: dict[str, Tensor], randoms: RandomStreams
) -> Tensor:
    """One draw of the speech STFT, each bin from its own law."""
    laws = scene.laws_given(values, mixture)
    law = laws.speech.condition(laws.noise, mixture.values)
    shape = mixture.values.shape
    return law.mean.expand(shape) + law.power.sqrt() * randoms.normal(shape, mixture.values.dtype)


def _quantities(
    density: LogDensity, values: dict[str, Tensor], speech: Tensor
) -> dict[str, np.ndarray]:
    """What is ranked, ``(recording,)`` each."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= {f"{name}{where}": value[:, i, j] for where, i, j in _places(value)}
    found |= {f"speech{where}": speech[:, i, j].real for where, i, j in _places(speech)}
    found["speech power"] = speech.abs().square().sum((1, 2))
    if values:
        with torch.no_grad():
            joint = density.joint(values)
        found["log joint"] = joint.prior + joint.likelihood
    return {name: value.numpy() for name, value in found.items()}


def _places(value: Tensor) -> Iterator[tuple[str, int, int]]:
    """A few elements of ``(recording, ., .)``, spread over both axes."""
    rows, columns = value.shape[1:]
    count = min(_ELEMENTS, max(rows, columns))
    for k in range(count):
        i, j = (2 * k + 1) * rows // (2 * count), (2 * k + 1) * columns // (2 * count)
        yield f"[{i},{j}]", i, j
