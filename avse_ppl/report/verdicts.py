"""Verdicts of a report: what the diagnostics found, and what the posterior is, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from avse_ppl.evaluation.diagnostics import ESS_PER_CHAIN, R_HAT, Diagnostics
from avse_ppl.evaluation.diagnostics.diagnose import check_k_hat, check_trace
from avse_ppl.evaluation.diagnostics.discrepancy import DiscrepancyCheck
from avse_ppl.evaluation.suitability import doubt_recording
from avse_ppl.evaluation.suitability.judge import ORDINARY, SI_SDR
from avse_ppl.inference.core.convergence import BFMI
from avse_ppl.inference.vi.khat import K_HAT_LIMIT
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.utils.plurals import name_count

Status = Literal["passed", "failed", "open"]
_FEW_DRAWS = 20
_FAR_SD = 3.0  # standard deviations of a statistic, from which on it is not described
_CHECKS: Mapping[str, str] = {
    "law": "how loud its bins are",
    "time": "how it changes over time",
    "frequency": "how it is spread over frequency",
}


@dataclass(frozen=True)
class Verdict:
    """Outcome of one check.

    Parameters
    ----------
    name
        What was checked.
    status
        ``"passed"``, ``"failed"``, or ``"open"`` where it could not be checked.
    text
        What was found and what it means, in plain words.
    """

    name: str
    status: Status
    text: str


def judge_recording(
    posterior: Posterior,
    diagnostics: Diagnostics,
    row: int,
    discrepancies: DiscrepancyCheck | None = None,
) -> list[Verdict]:
    """Judge one recording: each check with its outcome, what failed first.

    Parameters
    ----------
    posterior
        Of the whole batch.
    diagnostics
        From `diagnose`, of the same posterior.
    row
        Which recording.
    discrepancies
        From `check_discrepancies`, of this recording.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import SVI, GaussianSpeech, Scene, diagnose, stationary
    >>> wave = np.random.default_rng(0).normal(size=9000).astype("float32")
    >>> posterior = SVI(steps=200, draws=4)(Scene(GaussianSpeech(), stationary), wave, seed=0)
    >>> verdicts = judge_recording(posterior, diagnose(posterior), 0)
    >>> [(verdict.name, verdict.status) for verdict in verdicts][:2]
    [('draws', 'failed'), ('convergence', 'passed')]
    """
    figures = diagnostics.figures[row]
    verdicts = [Verdict("warning", "failed", text) for text in diagnostics.warnings[row]]
    verdicts += [
        *judge_optimisation(posterior, figures, row),
        *judge_chains(figures),
        *judge_predictive_checks(posterior, diagnostics, row),
        *judge_discrepancies(discrepancies),
        *judge_suitability(posterior, figures),
        judge_draws(posterior, row),
    ]
    order = {"failed": 0, "passed": 1, "open": 2}
    return sorted(verdicts, key=lambda verdict: order[verdict.status])


def judge_optimisation(posterior: Posterior, figures: Mapping[str, Any], row: int) -> list[Verdict]:
    """Judge the end of the trace and k-hat; what fails is among the warnings already."""
    verdicts = []
    steps = name_count(figures.get("steps", 0), "step")
    if "steps" in figures and np.isnan(figures["rise"]):
        text = f"{steps} of optimisation: too few to see whether it had settled."
        verdicts.append(Verdict("convergence", "open", text))
    elif "steps" in figures and not check_trace(posterior, row, {}):
        text = f"The optimisation had settled after {steps}: more would change little."
        verdicts.append(Verdict("convergence", "passed", text))
    k_hat = figures.get("k_hat")
    if k_hat is not None and not check_k_hat(posterior, row, {}):
        verdicts.append(
            Verdict(
                "k-hat",
                "passed",
                f"The approximation is close to the exact posterior: Pareto k-hat {k_hat:.2f}, "
                f"below {K_HAT_LIMIT}.",
            )
        )
    if k_hat is None and posterior.kind.method.startswith("variational"):
        verdicts.append(
            Verdict(
                "k-hat",
                "open",
                "How close the approximation is to the exact posterior was not measured: with so "
                "many unknowns Pareto k-hat tells nothing.",
            )
        )
    return verdicts


def judge_chains(figures: Mapping[str, Any]) -> list[Verdict]:
    """Judge what of the chains is in order; what fails is among the warnings already."""
    verdicts = []
    if figures.get("r_hat") is not None and figures["r_hat"] <= R_HAT:
        text = f"The chains agree: R-hat {figures['r_hat']:.3f} at worst, below {R_HAT}."
        verdicts.append(Verdict("R-hat", "passed", text))
    bulk, tail = figures.get("ess_bulk"), figures.get("ess_tail")
    if bulk is not None and tail is not None:
        least, needed = min(bulk, tail), ESS_PER_CHAIN * figures["chains"]
        if least >= needed:
            text = f"The draws say enough: they count as {least:.0f} independent ones at least."
            verdicts.append(Verdict("effective draws", "passed", text))
    if figures.get("divergences") == 0:
        text = "No draw diverged: the sampler reached all of the posterior."
        verdicts.append(Verdict("divergences", "passed", text))
    if figures.get("bfmi") is not None and figures["bfmi"] >= BFMI:
        text = f"Energy is explored well: BFMI {figures['bfmi']:.2f}, at least {BFMI} needed."
        verdicts.append(Verdict("energy", "passed", text))
    return verdicts


def judge_predictive_checks(
    posterior: Posterior, diagnostics: Diagnostics, row: int
) -> list[Verdict]:
    """Judge the posterior predictive checks that pass; open without the scene."""
    check = diagnostics.predictive
    if check is None:
        return [
            Verdict(
                "predictive checks",
                "open",
                "Whether the recording looks like what the models would produce was not checked. "
                "The file has draws of the latents, but of the models their names only: give them "
                "again, avse-ppl report with --noise, and --speech if it was given."
                if posterior.latents
                else "Whether the recording looks like what the models would produce was not "
                "checked, and cannot be: the file has no latents. Those of a recording over 15 s "
                "are not kept, as it is inferred in chunks; enhance a stretch of it by itself.",
            )
        ]
    return [
        Verdict(
            f"predictive check, {name}",
            "passed",
            f"The recording looks like what the models would produce in {_CHECKS.get(name, name)}: "
            f"p = {float(p[row]):.3g}.",
        )
        for name, p in check.p_values.items()
        if not check.failed[name][row]
    ]


def judge_discrepancies(check: DiscrepancyCheck | None) -> list[Verdict]:
    """Judge statistics of the recording beside those of mixtures that the models would produce.

    One fails where it is outside of all of them, and farther than three standard deviations.
    """
    if check is None:
        return []
    verdicts = []
    for name, value in check.observed.items():
        rows = check.replicated[name]
        mean, sd = float(np.mean(rows)), float(np.std(rows))
        outside = not rows.min() <= value <= rows.max()
        found = f"{value:.3g} in the recording, {mean:.3g} ± {sd:.2g} in mixtures drawn from them"
        if outside and abs(value - mean) > _FAR_SD * sd:
            what = "The models do not describe the recording in its"
            verdicts.append(
                Verdict(f"predictive check, {name}", "failed", f"{what} {name}: {found}.")
            )
        else:
            what = "The recording is like what the models would produce in its"
            verdicts.append(
                Verdict(f"predictive check, {name}", "passed", f"{what} {name}: {found}.")
            )
    return verdicts


def judge_suitability(posterior: Posterior, figures: Mapping[str, Any]) -> list[Verdict]:
    """Judge whether it is one talker in noise, from what enhancement or diagnosis scored."""
    scores = posterior.attrs.get("suitability") or figures
    if not isinstance(scores, Mapping) or not {ORDINARY, SI_SDR} <= scores.keys():
        return []
    if ORDINARY in figures:  # diagnosis has put its doubts among the warnings
        doubts = []
    else:
        doubts = doubt_recording(scores, with_video=posterior.reliability is not None)
    if doubts:
        return [Verdict("suitability", "failed", text) for text in doubts]
    text = (
        f"This sounds like one talker in noise ({scores[ORDINARY]:.0%}); about "
        f"{scores[SI_SDR]:.0f} dB SI-SDR are to be expected."
    )
    return [Verdict("suitability", "passed", text)] if scores[ORDINARY] >= 0.5 else []


def judge_draws(posterior: Posterior, row: int) -> Verdict:
    """Judge whether there are enough waveform draws for the bands."""
    count = len(posterior.draws(row))
    if count == 0:
        text = (
            "The posterior holds no waveform draws: there are no credible bands and no draws to "
            "listen to."
        )
        return Verdict("draws", "open", text)
    if count < _FEW_DRAWS:
        drawn = name_count(count, "waveform draw")
        text = f"With {drawn} the bands are rough; take {_FEW_DRAWS} or more."
        return Verdict("draws", "failed", text)
    return Verdict("draws", "passed", f"There are {count} waveform draws, enough for 90 % bands.")


def explain_kind(kind: Approximation) -> list[str]:
    """Explain what the numbers of a posterior approximate, a sentence for each reservation.

    Examples
    --------
    >>> for text in explain_kind(Approximation("variational", tempering=0.25, pooled=True)):
    ...     print(text[:60])
    Variational: the posterior is approximated by the closest of
    Pooled with a predictor: what another enhancer makes of the
    Tempered 0.25: the likelihood counts to the power of 0.25. F
    """
    method = kind.method
    known = {
        "exact": "Exact: computed to numerical precision, given the models.",
        "point estimate": "Point estimate: one best value of the unknowns; nothing says how well "
        "they are known, so that bands are too narrow.",
    }
    if method in known:
        texts = [known[method]]
    elif method.startswith("variational"):
        texts = [
            f"{method.capitalize()}: the posterior is approximated by the closest of a family of "
            "normal distributions, which tends to be too sure."
        ]
    elif "NUTS" in method or "HMC" in method:
        texts = [f"{method}: draws of Markov chains, as good as these have converged."]
    else:
        texts = [f"{method[:1].upper()}{method[1:]}: see the documentation of the method."]
    if kind.noise in ("sampled", "variational"):
        texts.append(f"The noise was inferred in a way of its own: {kind.noise}.")
    if kind.noise == "point estimate":
        texts.append("The noise is a point estimate: what is not known about it is left out.")
    if kind.amortised:
        texts.append(
            "Amortised prior: an encoder that has learned from mixtures tells what speech is "
            "likely, so that the recording counts twice."
        )
    if kind.pooled:
        texts.append(
            "Pooled with a predictor: what another enhancer makes of the recording counts as "
            "evidence about the speech, as far as it is found to be right."
        )
    if kind.tempering != 1.0:
        texts.append(
            f"Tempered {kind.tempering:g}: the likelihood counts to the power of "
            f"{kind.tempering:g}. Frames of the STFT overlap, and samples would count several "
            "times."
        )
    if kind.ended_early:
        texts.append("Ended early: at a time limit or an interruption, before it was done.")
    if kind.recalibrated:
        texts.append(
            "Recalibrated: the uncertainty was scaled so that bands hold as often as they state "
            "on recordings of known speech."
        )
    return texts
