"""All there is to say about how far a posterior is to be trusted, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from avse_ppl.evaluation.diagnostics.observed import (
    check_scene_of,
    latent_draws,
    observed_spectrogram,
)
from avse_ppl.evaluation.diagnostics.predictive import PredictiveCheck, predictive_check
from avse_ppl.inference.core.convergence import (
    Figures,
    chain_figures,
    compute_bfmi,
    convergence_warnings,
    count_divergences,
    measure_rise,
)
from avse_ppl.inference.core.powers import log_powers
from avse_ppl.inference.core.video import condition_on_video
from avse_ppl.inference.vi.khat import K_HAT_LIMIT, describe_k_hat
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram

TRACES = {"elbo": "the ELBO", "log_joint": "the log joint density"}


@dataclass(frozen=True)
class Diagnostics:
    """Figures and findings about each recording of a posterior.

    Parameters
    ----------
    kind
        What the draws are, see `Posterior.kind`.
    figures
        For each recording: ``steps``, ``rise`` and ``rise_se`` of an iterative routine's trace over
        its last steps, nats; ``k_hat`` of its draws; those of `chain_figures`, if the draws are
        from chains and the scene was given or the routine kept them; ``divergences`` and ``bfmi``;
        ``p_law``, ``p_time``, ``p_frequency`` of `predictive_check`. Those that do not apply are
        missing.
    warnings
        For each recording, what is wrong, in words.
    predictive
        The posterior predictive checks, if the scene was given.
    """

    kind: str
    figures: tuple[Figures, ...]
    warnings: tuple[tuple[str, ...], ...]
    predictive: PredictiveCheck | None = None

    @property
    def passed(self) -> np.ndarray:
        """Whether nothing was found against each recording, ``(recording,)``."""
        return np.array([not texts for texts in self.warnings])


def diagnose(
    posterior: Posterior,
    scene: Scene | None = None,
    mixture: Spectrogram | None = None,
    *,
    video: Any = None,
) -> Diagnostics:
    """Say how far a posterior is to be trusted.

    Judged are the end of the trace of an iterative routine, Pareto k-hat where the routine has
    left one, and for draws from chains R-hat, effective sample sizes, divergences and energy
    (of log powers of speech and noise, which are identified, and not of the latents behind them;
    without the scene, as far as the routine has kept them). With the scene, the posterior
    predictive checks of the mixture as well. What the routine itself
    warned of is repeated.

    Parameters
    ----------
    posterior
        From any routine, or loaded.
    scene
        What was inverted: needed for all that is computed from the latents.
    mixture
        As for `predictive_check`.
    video
        What the routine was shown, if it was shown a video: goes with the scene.

    Raises
    ------
    ValueError
        If the posterior holds other latents than the scene's, or is about another video or none; if
        there is video without the scene.

    Examples
    --------
    >>> from avse_ppl import SVI, GaussianSpeech, stationary
    >>> wave = np.random.default_rng(0).normal(size=9000).astype("float32")
    >>> scene = Scene(GaussianSpeech(), stationary)
    >>> posterior = SVI(steps=20, draws=8)(scene, wave, seed=0)
    >>> found = diagnose(posterior)
    >>> found.figures[0]["steps"], found.passed  # stopped too early
    (20, array([False]))
    """
    if video is not None:
        mixture = _looked(posterior, scene, mixture, video)
    rows = range(posterior.recordings)
    figures: list[Figures] = [{} for _ in rows]
    texts = [list(posterior.fit[row].warnings) for row in rows]
    for row in rows:
        texts[row] += _bound(posterior, row, figures[row]) + _k_hat(posterior, row, figures[row])
    check = None
    if scene is not None:
        mixture = mixture or observed_spectrogram(posterior)
        check_scene_of(posterior, scene, mixture)
        check = predictive_check(posterior, scene, mixture)
        for row, said in enumerate(check.texts()):
            figures[row] |= {f"p_{name}": float(p[row]) for name, p in check.p_values.items()}
            texts[row] += said
    for row, found in enumerate(_chains(posterior, scene, mixture)):
        figures[row] |= found
        texts[row] += convergence_warnings(found) if scene is not None and "r_hat" in found else []
    unique = tuple(tuple(dict.fromkeys(row)) for row in texts)
    return Diagnostics(posterior.kind, tuple(figures), unique, check)


def _looked(
    posterior: Posterior, scene: Scene | None, mixture: Spectrogram | None, video: Any
) -> Spectrogram:
    if scene is None:
        raise ValueError("the video is only looked at with the scene that was inverted; pass both")
    return condition_on_video(scene, mixture or observed_spectrogram(posterior), video)


def _bound(posterior: Posterior, row: int, figures: Figures) -> list[str]:
    name = next((name for name in TRACES if name in posterior.trace), None)
    if name is None:
        return []
    bins = posterior.mean.shape[1] * posterior.stft.count_frames(posterior.n_samples[row])
    end = measure_rise(posterior.trace[name][:, row], bins, posterior.kind.tempering)
    figures |= {"steps": end.steps, "rise": end.rise, "rise_se": end.error}
    return [end.describe(TRACES[name])] if end.rising else []


def _k_hat(posterior: Posterior, row: int, figures: Figures) -> list[str]:
    k_hat = posterior.fit[row].k_hat
    if k_hat is None:
        return []
    figures["k_hat"] = k_hat
    return [describe_k_hat(k_hat)] if k_hat > K_HAT_LIMIT else []


def _chains(
    posterior: Posterior, scene: Scene | None, mixture: Spectrogram | None
) -> list[Figures]:
    """Figures of a sampler's draws; of their powers too, where the scene is known."""
    stats = posterior.stats
    if not stats:
        return []
    if scene is None or mixture is None or not posterior.latents:
        kept = posterior.diagnostics  # of the powers, as the routine found them
        return list(kept) or [_of_stats(stats, row) for row in range(posterior.recordings)]
    draws = list(latent_draws(posterior))
    return chain_figures(log_powers(scene, mixture, draws, chains=_count(posterior)), stats)


def _of_stats(stats: Mapping[str, np.ndarray], row: int) -> Figures:
    return {"divergences": count_divergences(stats, row), "bfmi": compute_bfmi(stats, row)}


def _count(posterior: Posterior) -> int:
    return next(iter(posterior.latents.values())).shape[0]
