"""All diagnostics of a posterior in one call: convergence, k-hat, predictive checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from avse_ppl.evaluation.diagnostics.posterior_inputs import (
    check_scene_of,
    latent_draws,
)
from avse_ppl.evaluation.diagnostics.predictive import PredictiveCheck, predictive_check
from avse_ppl.evaluation.suitability import doubt_recording, score_suitability
from avse_ppl.evaluation.suitability.judge import ORDINARY, SI_SDR
from avse_ppl.inference.core.convergence import (
    Figures,
    chain_figures,
    compute_bfmi,
    convergence_warnings,
    count_divergences,
    measure_rise,
)
from avse_ppl.inference.core.powers import log_powers
from avse_ppl.inference.core.setup import resolve_device
from avse_ppl.inference.core.video import condition_on_video
from avse_ppl.inference.vi.khat import K_HAT_LIMIT, describe_k_hat
from avse_ppl.models.handlers import serialise
from avse_ppl.models.predictors.predictor import condition_on_predictor, drop_unused_predictor
from avse_ppl.models.scene import Scene
from avse_ppl.models.speech.load import pretrained_names
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram
from avse_ppl.utils.tables import format_facts, format_facts_html

TRACES = {"elbo": "the ELBO", "log_joint": "the log joint density"}


@dataclass(frozen=True)
class Diagnostics:
    """Figures and warnings of each recording of a posterior.

    Parameters
    ----------
    kind
        What the draws are, see `Posterior.kind`.
    figures
        For each recording: ``steps``, ``rise`` and ``rise_se`` of an iterative method's trace over
        its last steps, nats; ``k_hat`` of its draws; those of `chain_figures`, if the draws are
        from chains and the scene was given or the method kept them; ``divergences`` and ``bfmi``;
        ``p_law``, ``p_time``, ``p_frequency`` of `predictive_check` and the sizes ``misfit_law``,
        ``misfit_time``, ``misfit_frequency``; ``ordinary`` and ``expected_si_sdr_db`` of
        `avse_ppl.evaluation.suitability.score_suitability`. Those that do not apply are missing.
    warnings
        For each recording, what is wrong, in words.
    predictive
        The posterior predictive checks, if the scene was given.
    powers
        Identified quantities of all draws, see `log_powers`: what the convergence figures are of;
        empty if the draws are not from chains, or the scene was not given.
    """

    kind: str
    figures: tuple[Figures, ...]
    warnings: tuple[tuple[str, ...], ...]
    predictive: PredictiveCheck | None = None
    powers: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    def facts(self) -> dict[str, object]:
        """Verdict and figures of each recording, for its ``repr`` in notebooks."""
        facts: dict[str, object] = {"kind": self.kind}
        for i, (figures, texts) in enumerate(zip(self.figures, self.warnings, strict=True)):
            facts[f"recording {i}"] = "passed" if not texts else "; ".join(texts)
            facts[f"figures {i}"] = ", ".join(f"{name} {value}" for name, value in figures.items())
        return facts

    def __repr__(self) -> str:
        return format_facts("Diagnostics", self.facts())

    def _repr_html_(self) -> str:
        return format_facts_html("Diagnostics", self.facts())

    @property
    def passed(self) -> np.ndarray:
        """Whether each recording has no warnings, ``(recording,)``."""
        return np.array([not texts for texts in self.warnings])


@serialise
def diagnose(
    posterior: Posterior,
    scene: Scene | None = None,
    mixture: Spectrogram | None = None,
    *,
    video: Any = None,
    device: str = "auto",
) -> Diagnostics:
    """Diagnose a posterior: convergence, k-hat, and posterior predictive checks.

    Checked are the end of the trace of an iterative method, Pareto k-hat where the method computed
    it, and for draws from chains R-hat, effective sample sizes, divergences and energy (of log
    powers of speech and noise, which are identified, and not of the latents behind them; without
    the scene, as far as the method has kept them); and for learned speech priors whether it is one
    talker in noise. With the scene, the posterior predictive checks of the mixture as well. What
    the method itself warned of is repeated: it knows of its own run only, and a posterior that has
    converged is far too sure where the noise model does not describe the noise.

    Parameters
    ----------
    posterior
        From any inference method, or loaded.
    scene
        What was inferred: needed for all that is computed from the latents.
    mixture
        As for `predictive_check`.
    video
        The video that it was inferred with, if any: goes with the scene.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``: where the scene is run.

    Raises
    ------
    ValueError
        If the posterior holds other latents than the scene's, or is of another video or none; if
        there is video without the scene, or the device is absent.

    Examples
    --------
    >>> from avse_ppl import SVI, GaussianSpeech, stationary
    >>> wave = np.random.default_rng(0).normal(size=9000).astype("float32")
    >>> scene = Scene(GaussianSpeech(), stationary)
    >>> posterior = SVI(steps=20, draws=8)(scene, wave, seed=0)
    >>> diagnostics = diagnose(posterior)
    >>> diagnostics.figures[0]["steps"], diagnostics.passed  # stopped too early
    (20, array([False]))
    """
    target = resolve_device(device)
    if video is not None and scene is None:
        raise ValueError("video goes with the scene that was inferred; pass both")
    if scene is not None:
        scene = drop_unused_predictor(scene, posterior.kind.pooled)
        mixture = mixture or posterior.observed_spectrogram()
        if video is not None:
            mixture = condition_on_video(scene, mixture, video)
        mixture = mixture.to(target, mixture.scale.dtype)
        scene = scene.to(target, mixture.scale.dtype)
        mixture = condition_on_predictor(scene, mixture)
    rows = range(posterior.recordings)
    figures: list[Figures] = [{} for _ in rows]
    texts = [list(posterior.fit[row].warnings) for row in rows]

    # Optimisation: the end of the trace, and k-hat of the guide.
    for row in rows:
        texts[row] += check_trace(posterior, row, figures[row])
        texts[row] += check_k_hat(posterior, row, figures[row])

    # Posterior predictive checks.
    check = None
    if scene is not None and mixture is not None:
        check_scene_of(posterior, scene, mixture)
        check = predictive_check(posterior, scene, mixture)
        for row, failures in enumerate(check.describe_failures()):
            figures[row] |= {f"p_{name}": float(p[row]) for name, p in check.p_values.items()}
            figures[row] |= {
                f"misfit_{name}": float(size[row]) for name, size in check.sizes.items()
            }
            texts[row] += failures

    # Is it a recording of one talker in noise? No predictive check sees that: noise alone is
    # described by the noise model, two talkers by a speech prior that bends to both.
    if scene is not None or posterior.attrs.get("speech") in pretrained_names():
        seen = video is not None or posterior.reliability is not None
        for row in rows:
            scores = score_suitability(posterior, row, None if scene is None else scene.speech)
            texts[row] += doubt_recording(scores, with_video=seen)
            if scores is not None:
                figures[row] |= {ORDINARY: scores[ORDINARY], SI_SDR: scores[SI_SDR]}

    # Markov chains: of their identified quantities, where the scene is known; else what the method
    # kept of them.
    powers, chains, stats = {}, [], posterior.stats
    if stats and scene is not None and mixture is not None and posterior.latents:
        count = next(iter(posterior.latents.values())).shape[0]
        powers = log_powers(
            scene, mixture, list(latent_draws(posterior, device=target)), chains=count
        )
        chains = chain_figures(powers, stats)
    elif posterior.diagnostics:  # stats, or chains of a guided diffusion, which have none
        chains = list(posterior.diagnostics)
    elif stats:
        chains = [
            {"divergences": count_divergences(stats, row), "bfmi": compute_bfmi(stats, row)}
            for row in rows
        ]
    for row, of_chains in enumerate(chains):
        figures[row] |= of_chains
        if stats and scene is not None and "r_hat" in of_chains:
            texts[row] += convergence_warnings(of_chains)
    unique = tuple(tuple(dict.fromkeys(row)) for row in texts)
    return Diagnostics(posterior.kind, tuple(figures), unique, check, powers)


def check_trace(posterior: Posterior, row: int, figures: Figures) -> list[str]:
    """Check whether the ELBO or objective still rose at the end; adds what it measures."""
    name = next((name for name in TRACES if name in posterior.trace), None)
    if name is None:
        return []
    bins = posterior.mean.shape[1] * posterior.stft.count_frames(posterior.n_samples[row])
    settling = int(posterior.attrs.get("settling", 0))
    end = measure_rise(posterior.trace[name][:, row], bins, posterior.kind.tempering, settling)
    figures |= {"steps": end.steps, "rise": end.rise, "rise_se": end.error}
    return [end.describe(TRACES[name])] if end.rising else []


def check_k_hat(posterior: Posterior, row: int, figures: Figures) -> list[str]:
    """Check Pareto k-hat of a variational guide, where the method computed it; adds it."""
    k_hat = posterior.fit[row].k_hat
    if k_hat is None:
        return []
    figures["k_hat"] = k_hat
    return [describe_k_hat(k_hat)] if k_hat > K_HAT_LIMIT else []
