"""Chains of a guided diffusion: rows of one batch, and the posterior that they leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.build_posterior import build_from_parts
from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.diffusion.noise import FixedSpeech
from avse_ppl.inference.diffusion.spectrogram import GibbsSweep
from avse_ppl.models.scene import Scene
from avse_ppl.models.speech.diffusion import denoises
from avse_ppl.models.validation import name_of
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram


def repeat_for_chains(mixture: Spectrogram, chains: int) -> Spectrogram:
    """The same recordings once for each chain, one chain after another."""
    visual = mixture.frames.visual
    seen = None if visual is None else visual.repeat(chains, 1, 1)
    return replace(
        mixture.with_visual(seen), values=mixture.values.repeat(chains, 1, 1),
        n_samples=mixture.n_samples * chains, scale=mixture.scale.repeat(chains),
    )  # fmt: skip


def streams_of_chains(randoms: RandomStreams, chains: int) -> RandomStreams:
    """Generators of all rows: of each recording one for each chain, from its seed alone."""
    seeds = [
        int(np.random.SeedSequence((g.initial_seed(), chain)).generate_state(1)[0])
        for chain in range(chains)
        for g in randoms.generators
    ]
    return RandomStreams(seeds, len(seeds), randoms.device)


def build_from_sweeps(
    scene: Scene,
    mixture: Spectrogram,
    kept: Sequence[GibbsSweep],
    randoms: RandomStreams,
    chains: int,
    *,
    kind: str,
    attrs: Mapping[str, Any],
    waveforms: int,
) -> Posterior:
    """Posterior from the rounds of all chains."""
    recordings = mixture.recordings
    draws: list[Values] = []
    laws: list[ComplexNormal] = []
    for chain in range(chains):
        rows = slice(chain * recordings, (chain + 1) * recordings)
        for law, values in kept:
            draws.append({name: v[rows] for name, v in values.items()})
            laws.append(ComplexNormal(law.mean[rows], law.power[rows], validate_args=False))
    said = scene
    if denoises(scene.speech):
        said = replace(scene, speech=FixedSpeech(laws[0], mixture.stft, name_of(scene.speech)))
    return build_from_parts(
        said, mixture, draws, randoms, kind=kind, attrs=dict(attrs), waveforms=waveforms,
        chains=chains, laws=laws,
    )  # fmt: skip
