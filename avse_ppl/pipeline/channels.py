"""Channels of one recording that hold the same sound, up to a factor.

Mono saved as stereo, and a source panned by level alone, are inferred once: the channels then get
one posterior, scaled, and the image stays where it was. Other channels have latents of their own.
"""

from __future__ import annotations

import numpy as np

from avse_ppl.signal.audio import Audio

_RESIDUAL = 1e-6  # of the energy: -60 dB, above the rounding of 16-bit files


def find_scaled_copies(audio: Audio) -> list[tuple[int, float]]:
    r"""First channel that each channel is a multiple of, and the factor.

    Channel c is a multiple of r if

    .. math:: \lVert x_c - a x_r \rVert^2 \le 10^{-6} \lVert x_c \rVert^2, \quad
        a = \langle x_c, x_r \rangle / \lVert x_r \rVert^2

    Parameters
    ----------
    audio
        A recording. A channel that is its own source has the factor 1, and so has a silent one.

    Examples
    --------
    >>> left, right = np.random.default_rng(0).normal(size=(2, 1000))
    >>> find_scaled_copies(Audio(np.stack([left, -0.5 * left, right]), 16000))
    [(0, 1.0), (0, -0.5), (2, 1.0)]
    """
    if audio.n_channels == 1:
        return [(0, 1.0)]
    rows = [channel.samples.astype(np.float64) for channel in audio.channels()]
    sources: list[tuple[int, float]] = []
    for c, row in enumerate(rows):
        energy = row @ row
        found = (c, 1.0)
        for r in dict.fromkeys(source for source, _ in sources):
            other = rows[r] @ rows[r]
            if energy == 0 or other == 0:
                continue
            factor = float(row @ rows[r] / other)
            rest = row - factor * rows[r]
            if rest @ rest <= _RESIDUAL * energy:
                # A factor that is exact up to the rounding of samples is exact.
                found = (r, float(np.float32(factor)))
                break
        sources.append(found)
    return sources
