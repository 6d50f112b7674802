"""Sounds of a report: noisy, enhanced, draws and noise, as data URIs that browsers play."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avse_ppl.plotting.player import compute_playback_gain_db, encode_sound
from avse_ppl.posterior.posterior import Posterior


@dataclass(frozen=True)
class Sound:
    """One sound of a report.

    Parameters
    ----------
    name
        Its heading.
    text
        What it is, in a sentence.
    uri
        The encoded sound, ``data:audio/...;base64,...``.
    """

    name: str
    text: str
    uri: str


def make_sounds(posterior: Posterior, draws: int) -> tuple[list[Sound], float]:
    """Encode the sounds of a single recording, all amplified alike.

    Parameters
    ----------
    posterior
        Of one recording.
    draws
        How many of its waveform draws, evenly chosen; fewer where it holds fewer.

    Returns
    -------
    tuple of list and float
        The sounds, and by how much they are amplified, dB.

    Examples
    --------
    >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
    >>> wave = 0.1 * np.random.default_rng(0).normal(size=9000).astype("float32")
    >>> posterior = SVI(steps=3, draws=4)(Scene(GaussianSpeech(), stationary), wave, seed=0)
    >>> [sound.name for sound in make_sounds(posterior, 2)[0]]
    ['noisy', 'enhanced', 'noise', 'draw 1', 'draw 4']
    """
    noisy, enhanced = posterior.noisy(), posterior.enhance()
    waves = posterior.draws()
    count = min(draws, len(waves))
    chosen = np.unique(np.linspace(0, len(waves) - 1, count).round().astype(int)) if count else []
    rows = [
        ("noisy", "the recording as it is", noisy),
        ("enhanced", "posterior mean of the speech", enhanced),
        ("noise", "noisy minus enhanced", noisy - enhanced),
        *(
            (
                f"draw {index + 1}",
                f"as the speech may have been, one of {len(waves)} draws",
                waves[index],
            )
            for index in chosen
        ),
    ]
    gain_db = compute_playback_gain_db(wave for _, _, wave in rows)
    gain, rate_hz = 10 ** (gain_db / 20), posterior.stft.sample_rate_hz
    sounds = [Sound(name, text, encode_sound(gain * wave, rate_hz)) for name, text, wave in rows]
    return sounds, gain_db
