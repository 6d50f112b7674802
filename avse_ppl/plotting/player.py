"""Audio players in a notebook, and sounds as data URIs that browsers play."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

LOSSLESS_S = 20.0  # sounds that last longer are embedded as MP3
_MP3_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_PEAK, _MOST_DB = 0.9, 30.0  # what sounds are amplified to, and by at most how much


@dataclass(frozen=True)
class AudioPlayers:
    """Audio players side by side, which Jupyter, VS Code and Colab show as the value of a cell.

    Parameters
    ----------
    uris
        Data URI of each sound by its title.
    """

    uris: Mapping[str, str]

    def _repr_html_(self) -> str:
        return "".join(
            '<div style="display: inline-block; margin: 0 1em 0.5em 0">'
            f"<div>{html.escape(title)}</div>"
            f'<audio controls preload="auto" src="{uri}" style="width: 17em"></audio></div>'
            for title, uri in self.uris.items()
        )

    def __repr__(self) -> str:
        return f"AudioPlayers({', '.join(self.uris)})"


def play_audio(sounds: Mapping[str, Any], sample_rate_hz: int) -> AudioPlayers:
    """Make audio players for a notebook, one for each sound.

    All sounds are amplified alike, so that they compare in loudness, and compressed (MP3), so that
    a notebook which is saved with them stays small. Have it as the last line of a cell, or give it
    to ``display``.

    Parameters
    ----------
    sounds
        Waveform ``(sample,)`` of each sound by its title; arrays, tensors or lists.
    sample_rate_hz
        Of all of them.

    Returns
    -------
    AudioPlayers
        What a notebook shows as players.

    Raises
    ------
    ValueError
        If there are no sounds, or one of them has several channels or values that are not finite.

    Examples
    --------
    >>> play_audio({"noisy": np.zeros(1600), "enhanced": np.zeros(1600)}, 16000)
    AudioPlayers(noisy, enhanced)
    """
    waves = {title: np.asarray(wave, dtype=np.float32) for title, wave in sounds.items()}
    if not waves:
        raise ValueError("expected at least one sound, found none")
    for title, wave in waves.items():
        if wave.ndim != 1 or wave.size == 0:
            raise ValueError(
                f"expected a waveform (sample,), found shape {wave.shape} of {title!r}; choose one "
                "channel, or the mean of all"
            )
        if not np.isfinite(wave).all():
            raise ValueError(f"expected finite samples, found NaN or infinity in {title!r}")
    gain = 10 ** (compute_playback_gain_db(waves.values()) / 20)
    return AudioPlayers(
        {
            title: encode_sound(gain * wave, sample_rate_hz, lossless_s=0.0)
            for title, wave in waves.items()
        }
    )


def compute_playback_gain_db(waves: Iterable[np.ndarray]) -> float:
    """Compute by how much sounds are to be amplified, all alike, dB.

    The loudest then peaks at 0.9; by at most 30 dB, and not at all where all are silent.

    Examples
    --------
    >>> round(compute_playback_gain_db([np.array([0.09, -0.01])]), 6)
    20.0
    """
    peak = max(float(np.abs(wave).max(initial=0.0)) for wave in waves)
    return float(min(20 * np.log10(_PEAK / peak), _MOST_DB)) if peak > 0 else 0.0


def encode_sound(wave: np.ndarray, sample_rate_hz: int, *, lossless_s: float = LOSSLESS_S) -> str:
    """Encode a waveform ``(sample,)`` as a data URI: FLAC, 16 bits, or MP3 where it is long.

    Parameters
    ----------
    wave
        Samples; those beyond -1 and 1 are clipped.
    sample_rate_hz
        Their rate; at rates that MP3 does not have, it is always FLAC.
    lossless_s
        Longest sound that is not compressed to MP3, seconds.

    Examples
    --------
    >>> encode_sound(np.zeros(1600), 16000)[:23]
    'data:audio/flac;base64,'
    """
    import soundfile

    buffer = io.BytesIO()
    wave = np.clip(wave, -1.0, 1.0)
    if len(wave) > lossless_s * sample_rate_hz and sample_rate_hz in _MP3_HZ:
        kind, quality = "mpeg", {"format": "MP3", "compression_level": 0.25}
    else:
        kind, quality = "flac", {"format": "FLAC", "subtype": "PCM_16", "compression_level": 1.0}
    with soundfile.SoundFile(buffer, "w", sample_rate_hz, 1, **quality) as file:
        for begin in range(0, len(wave), 65536):
            file.write(wave[begin : begin + 65536])
    return f"data:audio/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
