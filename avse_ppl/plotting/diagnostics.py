"""A picture of how far a posterior is to be trusted."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.evaluation.diagnostics.diagnose import TRACES, Diagnostics
from avse_ppl.evaluation.diagnostics.observed import latent_draws, observed_spectrogram
from avse_ppl.inference.core.convergence import ESS_PER_CHAIN, R_HAT, ess, r_hat
from avse_ppl.inference.core.powers import log_powers
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram
from avse_ppl.utils.files import write_figure

_MOST = 4  # recordings that are drawn
_GOOD, _BAD = "C0", "tab:red"
_LEAST_P = 1e-4
_LARGEST_R_HAT = 10.0  # where chains stand still it is infinite


def plot_diagnostics(
    found: Diagnostics,
    posterior: Posterior,
    path: str | Path,
    *,
    scene: Scene | None = None,
    mixture: Spectrogram | None = None,
) -> Path:
    """Draw what was found: the trace, R-hat and effective sample sizes, predictive checks.

    A row for each recording, four at most. Left: the bound or objective at each step, or the log
    density at each draw of each chain, with the draws that diverged. Middle: R-hat against the
    effective sample size of each power of speech and of noise (with the scene; without it, the
    worst ones, where the posterior keeps them), and how far they may go. Right: p-values of the
    predictive checks, with the scene. What fails is red, and named above its row.

    Parameters
    ----------
    found
        From `diagnose`.
    posterior
        What it is about.
    path
        PNG, PDF or SVG file.
    scene, mixture
        As for `diagnose`.

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
    >>> plot_diagnostics(diagnose(posterior), posterior, f"{folder}/trust.png").name
    'trust.png'
    """
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    path = Path(path)
    rows = min(posterior.recordings, _MOST)
    figure = Figure(figsize=(12, 1.0 + 3.4 * rows), layout="constrained")
    figure.suptitle(f"{found.kind}   ({posterior.attrs.get('routine', '')})", fontsize=10)
    powers = _powers(posterior, scene, mixture)
    strips: Any = np.atleast_1d(figure.subfigures(rows, 1))  # type: ignore[arg-type]
    for row, strip in enumerate(strips):
        left, middle, right = strip.subplots(1, 3)
        _headline(strip, found, row)
        _trace(left, posterior, row)
        _chains(middle, found, row, powers)
        _predictive(right, found, row)
    return write_figure(figure, path)


def _headline(strip: Any, found: Diagnostics, row: int) -> None:
    """What was found against a recording, or that nothing was."""
    texts = found.warnings[row]
    lines = [line for text in texts for line in textwrap.wrap(text, 150)]
    before = f"recording {row}: " if len(found.warnings) > 1 else ""
    said = "\n".join(lines) or "nothing was found against it"
    strip.suptitle(before + said, fontsize=8, color=_BAD if texts else "black")


def _trace(axis: Any, posterior: Posterior, row: int) -> None:
    name = next((name for name in TRACES if name in posterior.trace), None)
    if name is not None:
        values = posterior.trace[name][:, row]
        axis.plot(np.arange(1, len(values) + 1), values, color=_GOOD, lw=1)
        # What came before the climb was nearly over would hide how it ended.
        finite = values[np.isfinite(values)]
        tail = finite[len(finite) // 4 :]
        if len(tail) > 1 and np.ptp(tail) > 0:
            axis.set_ylim(tail.min() - np.ptp(tail), tail.max() + 0.2 * np.ptp(tail))
        axis.set(xlabel="step", ylabel="nats", title=name)
    elif "lp" in posterior.stats:
        _chain_trace(axis, posterior, row)
    else:
        _nothing(axis, "trace", "the routine keeps no trace")


def _chain_trace(axis: Any, posterior: Posterior, row: int) -> None:
    values = posterior.stats["lp"][:, :, row]
    axis.plot(values.T, lw=0.8, alpha=0.8)
    diverged = posterior.stats.get("diverging")
    if diverged is not None and diverged[:, :, row].any():
        chain, draw = np.nonzero(diverged[:, :, row])
        axis.plot(draw, values[chain, draw], "x", color=_BAD, label="diverged")
        axis.legend(fontsize=8)
    axis.set(xlabel="draw", ylabel="nats", title="log density of each chain")


def _powers(
    posterior: Posterior, scene: Scene | None, mixture: Spectrogram | None
) -> dict[str, np.ndarray]:
    """Log powers of all draws, as `diagnose` judges them."""
    if scene is None or not posterior.stats or not posterior.latents:
        return {}
    count = next(iter(posterior.latents.values())).shape[0]
    draws = list(latent_draws(posterior))
    return log_powers(scene, mixture or observed_spectrogram(posterior), draws, chains=count)


def _chains(axis: Any, found: Diagnostics, row: int, powers: dict[str, np.ndarray]) -> None:
    figures, title = found.figures[row], "R-hat and effective sample size"
    if figures.get("r_hat") is None:
        why = "the draws are not from chains" if "divergences" not in figures else "give the scene"
        _nothing(axis, title, why)
        return
    least = ESS_PER_CHAIN * figures["chains"]
    for name, array in powers.items():
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
        color=_BAD if failed else "black", label=f"worst{f': {worst}' if worst else ''}",
    )  # fmt: skip
    axis.axhline(R_HAT, color=_BAD, lw=0.8, ls="--")
    axis.axvline(least, color=_BAD, lw=0.8, ls="--")
    axis.set(xlabel="effective sample size", ylabel="R-hat", title=title)
    axis.legend(fontsize=7)


def _predictive(axis: Any, found: Diagnostics, row: int) -> None:
    title = "posterior predictive checks"
    if found.predictive is None:
        _nothing(axis, title, "give the scene")
        return
    level = found.predictive.level / len(found.predictive.p_values) / 2  # see its `passed`
    names = list(found.predictive.p_values)
    values = [float(found.predictive.p_values[name][row]) for name in names]
    colors = [_GOOD if value > level else _BAD for value in values]
    axis.bar(names, np.maximum(values, _LEAST_P), color=colors)
    axis.axhline(level, color=_BAD, lw=0.8, ls="--")
    axis.set(yscale="log", ylim=(_LEAST_P / 2, 1.5), ylabel="p-value", title=title)


def _nothing(axis: Any, title: str, why: str) -> None:
    axis.set_axis_off()
    axis.set_title(title, color="0.5")
    axis.text(0.5, 0.5, why, ha="center", va="center", color="0.5", transform=axis.transAxes)
