"""Sounds of a report: noisy, enhanced, draws and noise, as data URIs that browsers play."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

from avse_ppl.posterior.posterior import Posterior

LOSSLESS_S = 20.0  # of a recording: longer ones are embedded as MP3
_MP3_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_PEAK, _MOST_DB = 0.9, 30.0  # what all sounds are amplified to, and by at most how much


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
    peak = max(float(np.abs(wave).max(initial=0.0)) for _, _, wave in rows)
    gain_db = min(20 * np.log10(_PEAK / peak), _MOST_DB) if peak > 0 else 0.0
    gain, rate_hz = 10 ** (gain_db / 20), posterior.stft.sample_rate_hz
    sounds = [Sound(name, text, encode_sound(gain * wave, rate_hz)) for name, text, wave in rows]
    return sounds, float(gain_db)


def encode_sound(wave: np.ndarray, sample_rate_hz: int) -> str:
    """Encode a waveform ``(sample,)`` as a data URI: FLAC, 16 bits, or MP3 where it is long.

    Examples
    --------
    >>> encode_sound(np.zeros(1600), 16000)[:23]
    'data:audio/flac;base64,'
    """
    import soundfile

    buffer = io.BytesIO()
    wave = np.clip(wave, -1.0, 1.0)
    if len(wave) > LOSSLESS_S * sample_rate_hz and sample_rate_hz in _MP3_HZ:
        kind, quality = "mpeg", {"format": "MP3", "compression_level": 0.25}
    else:
        kind, quality = "flac", {"format": "FLAC", "subtype": "PCM_16", "compression_level": 1.0}
    with soundfile.SoundFile(buffer, "w", sample_rate_hz, 1, **quality) as file:
        for begin in range(0, len(wave), 65536):
            file.write(wave[begin : begin + 65536])
    return f"data:audio/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
