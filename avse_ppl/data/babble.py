"""Babble: several speakers at once, as noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from avse_ppl.data.clips import UNKNOWN_SPEAKER, Clip
from avse_ppl.data.decoding import decode
from avse_ppl.data.mixing import active_power

BABBLE_RMS = 0.1


def make_babble(
    clips: Sequence[Clip],
    n_speakers: int,
    seed: int,
    duration_s: float = 5.0,
    sample_rate_hz: int = 16000,
    exclude_speaker: str = "",
) -> np.ndarray:
    """Make babble noise of several speakers.

    Each speaker's clips follow one another in random order until the time is filled, beginning
    at a random place; all speakers are equally loud over the parts where they speak.

    Parameters
    ----------
    clips : sequence of Clip
        Speech with known speakers; clips of one split make babble of that split.
    n_speakers : int
        How many talk at once.
    seed : int
        Of the choice of speakers and clips.
    duration_s : float
        Length of the result.
    sample_rate_hz : int
        Rate of the result.
    exclude_speaker : str
        Who stays out of it: the target, for a mixture.

    Returns
    -------
    numpy.ndarray
        Shape ``(samples,)``, float32, with a root mean square of 0.1.

    Raises
    ------
    ValueError
        If there are fewer speakers than wanted, or a number is not positive.
    """
    speakers = sorted({clip.speaker for clip in clips} - {"", UNKNOWN_SPEAKER, exclude_speaker})
    if n_speakers < 1 or len(speakers) < n_speakers:
        raise ValueError(
            f"n_speakers is {n_speakers}; expected between 1 and {len(speakers)}, the number of "
            "known speakers among the clips that are not excluded"
        )
    length = round(duration_s * sample_rate_hz) if math.isfinite(duration_s) else 0
    if length < 1:
        raise ValueError(f"duration_s is {duration_s}; expected at least one sample")
    random = np.random.default_rng(seed)
    total = np.zeros(length)
    for speaker in random.choice(speakers, n_speakers, replace=False):
        own = [clip for clip in clips if clip.speaker == speaker]
        total += join_clips(own, length, sample_rate_hz, random)
    return (total * BABBLE_RMS / np.sqrt(np.mean(total**2))).astype(np.float32)


def join_clips(
    clips: Sequence[Clip], length: int, sample_rate_hz: int, random: np.random.Generator
) -> np.ndarray:
    """Join clips of one speaker, in random order and of equal power, from a random sample on."""
    talk = np.zeros(0)
    order: list[int] = []
    # The first clip may be entered anywhere, hence the length is filled after it.
    first = 0
    while talk.size < first + length:
        order = order or random.permutation(len(clips)).tolist()
        samples = decode(clips[order.pop()], sample_rate_hz)
        first = first if talk.size else samples.size
        talk = np.concatenate([talk, samples / math.sqrt(active_power(samples, sample_rate_hz))])
    begin = int(random.integers(first))
    return talk[begin : begin + length]
