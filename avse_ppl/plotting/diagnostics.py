"""Diagnostics: trace, R-hat against effective sample size, posterior predictive checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.evaluation.diagnostics import ESS_PER_CHAIN, R_HAT, Diagnostics, ess, r_hat
from avse_ppl.evaluation.diagnostics.diagnose import TRACES
from avse_ppl.plotting.figure import (
    BAD,
    GOOD,
    check_figure_path,
    draw_message,
    make_figure,
    save_figure,
    set_headline,
    use_style,
)
from avse_ppl.posterior.posterior import Posterior

_MOST = 4  # recordings that are drawn
_LEAST_P = 1e-4
_LARGEST_R_HAT = 10.0  # where chains stand still it is infinite


@use_style()
def plot_diagnostics(diagnostics: Diagnostics, posterior: Posterior, path: str | Path) -> Path:
    """Plot the trace, R-hat and effective sample sizes, and predictive checks of each recording.

    A row for each recording, four at most. Left: the ELBO or objective at each step, or the log
    density at each draw of each chain, with the draws that diverged. Middle: R-hat against the
    effective sample size of each identified quantity (with the scene; without it, the worst ones,
    where the posterior keeps them), and their limits. Right: p-values of the predictive checks,
    with the scene. What fails is red, bars are hatched there, and named above its row.

    Parameters
    ----------
    diagnostics
        From `diagnose`; with the scene, if it was given there.
    posterior
        What was diagnosed.
    path
        PNG, PDF or SVG file.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> import tempfile
    >>> from avse_ppl import SVI, diagnose
    >>> from avse_ppl.models.simulate import reference_scene, simulate
    >>> scene = reference_scene(noise_known=False)
    >>> posterior = SVI(steps=12, draws=4)(scene, simulate(scene, 8000).mixture, seed=0)
    >>> folder = tempfile.mkdtemp()
    >>> plot_diagnostics(diagnose(posterior), posterior, f"{folder}/diagnostics.png").name
    'diagnostics.png'
    """
    path = check_figure_path(path)
    rows = min(posterior.recordings, _MOST)
    figure = make_figure(12, 1.0 + 3.4 * rows)
    figure.suptitle(f"{diagnostics.kind}   ({posterior.attrs.get('routine', '')})", fontsize=10)
    strips: Any = np.atleast_1d(figure.subfigures(rows, 1))  # type: ignore[arg-type]
    for row, strip in enumerate(strips):
        left, middle, right = strip.subplots(1, 3)
        warnings = diagnostics.warnings[row]
        title = f"recording {row}: " if len(diagnostics.warnings) > 1 else ""
        title += "" if warnings else "no warnings"
        set_headline(strip, title, warnings, width=150, fontsize=8)
        draw_trace(left, posterior, row)
        draw_convergence(middle, diagnostics, row)
        draw_predictive_checks(right, diagnostics, row)
    return save_figure(figure, path)


def draw_trace(axis: Any, posterior: Posterior, row: int) -> None:
    """Draw the ELBO or objective at each step, or the log density at each draw of each chain."""
    name = next((name for name in TRACES if name in posterior.trace), None)
    if name is not None:
        values = posterior.trace[name][:, row]
        axis.plot(np.arange(1, len(values) + 1), values, color=GOOD, lw=1)
        # What came before the climb was nearly over would hide how it ended.
        finite = values[np.isfinite(values)]
        tail = finite[len(finite) // 4 :]
        if len(tail) > 1 and np.ptp(tail) > 0:
            axis.set_ylim(tail.min() - np.ptp(tail), tail.max() + 0.2 * np.ptp(tail))
        axis.set(xlabel="step", ylabel="nats", title=name)
    elif "lp" in posterior.stats:
        values = posterior.stats["lp"][:, :, row]
        axis.plot(values.T, lw=0.9, alpha=0.8)
        diverged = posterior.stats.get("diverging")
        if diverged is not None and diverged[:, :, row].any():
            chain, draw = np.nonzero(diverged[:, :, row])
            axis.plot(draw, values[chain, draw], "x", color=BAD, label="diverged")
            axis.legend(fontsize=8)
        axis.set(xlabel="draw", ylabel="nats", title="log density of each chain")
    else:
        draw_message(axis, "trace", "the inference method keeps no trace")


def draw_convergence(axis: Any, diagnostics: Diagnostics, row: int) -> None:
    """Draw R-hat against the effective sample size of each identified quantity."""
    figures, title = diagnostics.figures[row], "R-hat and effective sample size"
    if figures.get("r_hat") is None:
        why = "the draws are not from chains" if "divergences" not in figures else "give the scene"
        draw_message(axis, title, why)
        return
    least = ESS_PER_CHAIN * figures["chains"]
    for name, array in diagnostics.powers.items():
        values = array[:, :, row].reshape(*array.shape[:2], -1)
        values = values[..., np.ptp(values, axis=(0, 1)) > 0]  # False for NaN as well
        if values.shape[-1]:
            sizes = np.minimum(ess(values, "bulk"), ess(values, "tail"))
            axis.plot(sizes, r_hat(values), ".", ms=5, alpha=0.7, label=name)
    size = np.nanmin([figures["ess_bulk"], figures["ess_tail"]])
    worst = figures["r_hat_of"] if figures["r_hat"] > R_HAT else None
    failed = worst is not None or not size >= least
    axis.plot(
        size, min(figures["r_hat"], _LARGEST_R_HAT), "o", mfc="none",
        color=BAD if failed else "black", label=f"worst{f': {worst}' if worst else ''}",
    )  # fmt: skip
    axis.axhline(R_HAT, color=BAD, lw=0.8, ls="--")
    axis.axvline(least, color=BAD, lw=0.8, ls="--")
    axis.set(xlabel="effective sample size", ylabel="R-hat", title=title)
    axis.legend(fontsize=7)


def draw_predictive_checks(axis: Any, diagnostics: Diagnostics, row: int) -> None:
    """Draw the p-value of each posterior predictive check.

    Red and hatched is what fails, for which its size counts as well.
    """
    title, check = "posterior predictive checks", diagnostics.predictive
    if check is None:
        draw_message(axis, title, "give the scene")
        return
    level = check.level / len(check.p_values) / 2  # see its `failed`
    values = [float(p[row]) for p in check.p_values.values()]
    colors = [BAD if failed[row] else GOOD for failed in check.failed.values()]
    bars = axis.bar(list(check.p_values), np.maximum(values, _LEAST_P), color=colors)
    for bar, failed in zip(bars, check.failed.values(), strict=True):
        bar.set_hatch("//" if failed[row] else "")
    axis.axhline(level, color=BAD, lw=0.8, ls="--")
    axis.set(yscale="log", ylim=(_LEAST_P / 2, 1.5), ylabel="p-value", title=title)
