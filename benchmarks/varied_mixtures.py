"""Mixtures of varied corpora, none of which any audio-only prior was trained on.

Speech of six GRID speakers and eleven more, second-language speakers of speechocean762 that were
held out, and commands spoken into people's own microphones; noise of the held-out
classes and of corpora that the priors have not heard. And those of nEMO, Polish and acted, which
nothing is ever fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avse_ppl.data import mix
from avse_ppl.data.clips import HELD_OUT_NOISES, Clip
from avse_ppl.data.decoding import decode
from avse_ppl.data.readers import (
    read_grid,
    read_noise,
    read_recordings,
    read_speechocean762,
)

RATE_HZ = 16000
SNRS_DB = (-5.0, 0.0, 5.0, 10.0, 15.0)
LONGEST_S, SHORTEST_S = 4.0, 1.2
UNHEARD_NOISES = ("noisex", "nonspeech100")  # corpora


class VariedMixture(NamedTuple):
    """A mixture, its speech, and what they are of."""

    mixture: np.ndarray
    speech: np.ndarray
    corpus: str
    speaker: str
    noise: str
    snr_db: float


def list_speech(data: Path) -> dict[str, list[Clip]]:
    """List the clips of each corpus that may be fitted to."""
    return {
        "grid": read_grid(data / "grid_unseen") + read_recordings(data / "grid_audio"),
        "speechocean762": [c for c in read_speechocean762(data / "speechocean762")
                           if c.split == "dev"],
        "commands": read_recordings(data / "picovoice" / "commands"),
    }  # fmt: skip


def list_noise(data: Path) -> list[Clip]:
    """List the clips of noise that no prior has heard."""
    clips = read_noise(data / "noise")
    return [c for c in clips if c.label in HELD_OUT_NOISES or c.corpus in UNHEARD_NOISES]


def make_held_out_mixtures(data: Path, per_corpus: int = 40, seed: int = 0) -> list[VariedMixture]:
    """Make mixtures of clips and noises that the shipped predictor has not been trained on either.

    It has heard more than the priors have: most speakers of these corpora, and all noises but the
    classes that are held out.
    """
    speech = {
        "grid": read_grid(data / "grid_unseen") + read_grid(data / "grid_audio"),
        "speechocean762": read_speechocean762(data / "speechocean762"),
        "commands": read_recordings(data / "picovoice" / "commands"),
    }
    noise = [c for c in read_noise(data / "noise") if c.label in HELD_OUT_NOISES]
    rng, found = np.random.default_rng(seed), []
    for corpus, clips in speech.items():
        held_out = [clip for clip in clips if clip.split == "dev"]
        found += mix_clips(held_out, noise, corpus, per_corpus, rng)
    return found


def make_varied_mixtures(data: Path, per_corpus: int = 40, seed: int = 0) -> list[VariedMixture]:
    """Make mixtures of each corpus of speech, at ratios from -5 to 15 dB."""
    rng = np.random.default_rng(seed)
    return [
        one
        for corpus, clips in list_speech(data).items()
        for one in mix_clips(clips, list_noise(data), corpus, per_corpus, rng)
    ]


def make_foreign_mixtures(data: Path, count: int = 72, seed: int = 1) -> list[VariedMixture]:
    """Make mixtures of nEMO, which nothing is fitted to."""
    clips = read_recordings(data / "nemo_dev")
    return mix_clips(clips, list_noise(data), "nemo", count, np.random.default_rng(seed))


def mix_clips(
    speech: Sequence[Clip], noise: Sequence[Clip], corpus: str, count: int,
    rng: np.random.Generator,
) -> list[VariedMixture]:  # fmt: skip
    """Mix clips of speech in random order with noise of a class drawn at random."""
    labels = sorted({clip.label if clip.corpus not in UNHEARD_NOISES else clip.corpus
                     for clip in noise})  # fmt: skip
    found: list[VariedMixture] = []
    for index in rng.permutation(len(speech)):
        if len(found) == count:
            break
        wave = decode(speech[index], RATE_HZ)[: round(LONGEST_S * RATE_HZ)]
        if len(wave) < SHORTEST_S * RATE_HZ:
            continue
        label = labels[len(found) % len(labels)]
        of_label = [clip for clip in noise if label in (clip.label, clip.corpus)]
        clip = of_label[int(rng.integers(len(of_label)))]
        snr_db = SNRS_DB[int(rng.integers(len(SNRS_DB)))]
        made = mix(wave, decode(clip, RATE_HZ), snr_db, RATE_HZ, int(rng.integers(2**31)))
        name = f"{corpus}_{speech[index].path.stem[:3]}" if corpus == "grid" else corpus
        speaker = speech[index].speaker if corpus == "speechocean762" else name
        found.append(VariedMixture(made.mixture.astype("float32"), made.speech.astype("float32"),
                                   corpus, speaker, label, snr_db))  # fmt: skip
    return found
