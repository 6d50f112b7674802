"""Chains of a guided diffusion: rows of one batch, and the draws that they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.base import Draws, Problem
from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.diffusion.noise import FixedSpeech
from avse_ppl.models.protocols import Denoiser, name_of
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.signal.stft import Spectrogram


class GibbsSweep(NamedTuple):
    """Result at one noise level: conditional posterior of speech, and the latents given."""

    speech: ComplexNormal
    values: Values


def repeat_for_chains(mixture: Spectrogram, chains: int) -> Spectrogram:
    """The same recordings once for each chain, one chain after another."""
    visual = mixture.frames.visual
    visual, values, observed, recorded = (
        None if array is None else array.repeat(chains, 1, 1)
        for array in (visual, mixture.values, mixture.observed, mixture.recorded)
    )
    return replace(
        mixture.with_visual(visual), values=values, observed=observed, recorded=recorded,
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
    scene = problem.scene
    if isinstance(scene.speech, Denoiser):  # which has no law of its own
        speech = FixedSpeech(laws[0], problem.spectrogram.stft, name_of(scene.speech))
        problem = replace(problem, scene=replace(scene, speech=speech))
    return Draws(values, kind, chains=chains, laws=laws, problem=problem, **settings)
