"""Chains of a guided diffusion: rows of one batch, and the draws that they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.base import Draws, Problem
from avse_ppl.inference.core.convergence import R_HAT, Figures, chain_figures
from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.core.powers import average_bands, average_log_powers
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.diffusion.noise import FixedSpeech
from avse_ppl.models.protocols import Denoiser, name_of
from avse_ppl.models.scene import Laws
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.fit_info import FitInfo
from avse_ppl.signal.stft import Spectrogram


class GibbsSweep(NamedTuple):
    """Result at one noise level: conditional posterior of speech, and the latents given.

    ``laws`` are what convergence is judged by: the distribution of speech, as its latents give it
    or, where bins are diffused, as the mixture leaves it, and that of noise.
    """

    speech: ComplexNormal
    values: Values
    laws: Laws | None = None


def repeat_for_chains(mixture: Spectrogram, chains: int) -> Spectrogram:
    """The same recordings once for each chain, one chain after another."""
    visual = mixture.frames.visual
    visual, values, observed, recorded = (
        None if array is None else array.repeat(chains, 1, 1)
        for array in (visual, mixture.values, mixture.observed, mixture.recorded)
    )
    predicted = mixture.frames.predicted
    if predicted is not None:
        predicted = predicted.repeat(chains, 1, 1, 1)
    return replace(
        mixture.with_visual(visual).with_predicted(predicted),
        values=values, observed=observed, recorded=recorded,
        n_samples=mixture.n_samples * chains, scale=mixture.scale.repeat(chains),
    )  # type: ignore[arg-type]  # fmt: skip


def split_streams(streams: RandomStreams, chains: int) -> RandomStreams:
    """Random numbers of all rows: of each recording one stream a chain, from its seed alone."""
    seeds = [
        int(np.random.SeedSequence((g.initial_seed(), chain)).generate_state(1)[0])
        for chain in range(chains)
        for g in streams.generators
    ]
    return RandomStreams(seeds, len(seeds), streams.device)


def collect_sweeps(
    problem: Problem,
    sweeps: Sequence[GibbsSweep],
    chains: int,
    kind: Approximation,
    **settings: Any,
) -> Draws:
    """Draws from the sweeps of all chains; ``settings`` are further fields of `Draws`."""
    recordings = problem.recordings
    values: list[Values] = []
    laws: list[ComplexNormal] = []
    for chain in range(chains):
        rows = slice(chain * recordings, (chain + 1) * recordings)
        for sweep in sweeps:
            mean, power = sweep.speech.mean[rows], sweep.speech.power[rows]
            values.append({name: value[rows] for name, value in sweep.values.items()})
            laws.append(ComplexNormal(mean, power, validate_args=False))
    if all(sweep.laws is not None for sweep in sweeps):
        settings["check"] = partial(assess_sweeps, problem.spectrogram, sweeps, chains)
    scene = problem.scene
    if isinstance(scene.speech, Denoiser):  # which has no law of its own
        speech = FixedSpeech(laws[0], problem.spectrogram.stft, name_of(scene.speech))
        problem = replace(problem, scene=replace(scene, speech=speech))
    return Draws(values, kind, chains=chains, laws=laws, problem=problem, **settings)


def assess_sweeps(mixture: Spectrogram, sweeps: Sequence[GibbsSweep], chains: int) -> list[FitInfo]:
    """R-hat and effective sample sizes of the chains of each recording, and a warning in words.

    They are of the powers of speech and noise in frames and bands, as for other Markov chains; see
    `avse_ppl.inference.core.convergence.chain_figures`. Where nothing varies there are none.

    Parameters
    ----------
    mixture
        The recordings, once each.
    sweeps
        All that are kept, each with the rows of all chains.
    chains
        How many chains the rows are of.
    """
    rows, bands = repeat_for_chains(mixture, chains), average_bands(mixture.frames)
    found = [average_log_powers(sweep.laws, rows, bands) for sweep in sweeps if sweep.laws]
    powers = {}
    for name in found[0]:
        of_rows = np.stack([one[name] for one in found])  # (sweep, chain and recording, ...)
        apart = of_rows.reshape(len(found), chains, mixture.recordings, *of_rows.shape[2:])
        powers[name] = apart.swapaxes(0, 1)
    return [
        FitInfo(warnings=tuple(describe_short_chains(figures)), chain_figures=figures)
        if figures["quantities"]
        else FitInfo()
        for figures in chain_figures(powers, {})
    ]


def describe_short_chains(figures: Figures) -> list[str]:
    """Warning that the chains of a guided diffusion are too short; empty if R-hat passes.

    Examples
    --------
    >>> figures = {"chains": 2, "draws": 10, "r_hat": 1.31, "r_hat_of": "speech.band[3]"}
    >>> describe_short_chains({**figures, "ess_bulk": 7.2})
    ['short chains: R-hat up to 1.31 (speech.band[3]), expected below 1.05, and as few as 7 ...']
    """
    remedy = "take more sweeps, langevin_steps or chains"
    if figures["r_hat"] is None:
        return [
            f"short chains: {figures['draws']} sweeps of {figures['chains']} chains are too few to "
            f"judge whether they agree; {remedy}"
        ]
    if figures["r_hat"] <= R_HAT:
        return []
    total = figures["chains"] * figures["draws"]
    effective = min(figures["ess_bulk"], total)
    return [
        f"short chains: R-hat up to {figures['r_hat']:.2f} ({figures['r_hat_of']}), expected below "
        f"{R_HAT}, and as few as {effective:.0f} effective draws of {total}: means and "
        f"intervals are rough; {remedy}"
    ]
