r"""Bins that hold sound: the occupied band of a recording, and its frames above silence.

What was resampled up from a telephone, or coded at a low rate, holds nothing above an edge. Taken
for observations, such bins say that speech has no high frequencies either, and a prior of full-band
speech then fits nothing at all. The same holds for stretches that are far quieter than the rest,
digital silence among them: they say nothing of the noise where there is sound. Both are left out of
the likelihood like the padding of a batch.

What an encoder reads in their place is imputed: nothing in silent frames, which is what it knows
from padding, and in the empty band white noise that follows the loudness of the band next to it.

.. math:: \tilde x_{ft} = \Big(\tfrac{g}{|N|} \sum_{k \in N} |x_{kt}|^2\Big)^{1/2} \xi_{ft},
    \quad N: \text{1 kHz next to the edge}, \; g = -10 \text{ dB}

Speech in these bins is not inferred. Its law there is the one that speech and noise of equal power
would have, :math:`N_c(x / 2, |x|^2 / 4)`: nothing is added to what was recorded.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from avse_ppl.signal.stft import Spectrogram

_EMPTY_DB = (-25.0, -35.0)  # mean power of empty bins below and above, to that of the recording
_CLIFF_DB = 20.0  # and to the band inside the edge: speech falls off more gently by itself
_EDGE_DB = 6.0  # a bin so far below the band inside lies on the slope of the filter
_INSIDE_HZ = (300.0, 1000.0)  # distance of the band that an edge is compared with
_SLOPE_HZ = 500.0  # how wide the slope of a filter may be
_LEAST_HZ = 150.0  # a narrower gap does no harm
_NOTICEABLE_HZ = 500.0  # every resampling from 44.1 kHz leaves a gap of 300 Hz
_NEIGHBOURS_HZ = 1000.0
_FILL_DB = (-3.0, -10.0)  # below and above the band
_SILENT_DB = -40.0  # power of a silent frame, relative to the loud ones
_LOUD = 0.95  # quantile of the frames' powers
_SILENT_S = 1.0  # shorter pauses are a part of speech, and show the noise


def mark_observed(spectrogram: Spectrogram) -> Spectrogram:
    """Spectrogram whose empty band and silent stretches are marked as unobserved, and imputed.

    Parameters
    ----------
    spectrogram
        Of recordings; what was recorded stays in ``recorded``.

    Returns
    -------
    Spectrogram
        The same one where everything is observed.

    Examples
    --------
    A telephone's band, 4 kHz, at 16 kHz:

    >>> import numpy as np, soxr
    >>> from avse_ppl import Stft
    >>> wave = np.random.default_rng(0).normal(size=8000)
    >>> marked = mark_observed(Stft().analyse(soxr.resample(wave, 8000, 16000)))
    >>> round(marked.occupied_hz(0)[1], -2)
    3800.0
    """
    observed = torch.ones(spectrogram.values.shape, dtype=torch.bool)
    values = spectrogram.values.clone()
    for r, n in enumerate(spectrogram.n_samples):
        time = spectrogram.stft.count_frames(n)
        row = spectrogram.select(r)
        power = row.power[0]
        sounding = ~find_silent_frames(power, row.frames.hop / row.frames.sample_rate_hz)
        if not bool(sounding.any()):
            continue
        bin_hz = row.frames.sample_rate_hz / row.frames.n_fft
        low, high = find_occupied_band(power[:, sounding], bin_hz)
        inside = torch.arange(row.frames.freq)
        observed[r, :, :time] = ((inside >= low) & (inside < high))[:, None] & sounding
        if low > 0 or high < row.frames.freq:
            values[r, :, :time] = impute_band(row, low, high)
        values[r, :, :time] *= sounding
    if bool(observed.all()):
        return spectrogram
    return replace(spectrogram, values=values, observed=observed, recorded=spectrogram.values)


def describe_band(spectrogram: Spectrogram, recording: int) -> tuple[str, ...]:
    """Remark on a recording that is band-limited; none on others.

    Examples
    --------
    >>> from avse_ppl import Stft
    >>> describe_band(Stft().analyse(np.ones(2000, "float32")), 0)
    ()
    """
    freq_hz = spectrogram.frames.freq_hz[:, 0]
    low_hz, high_hz = spectrogram.occupied_hz(recording)
    empty = []
    if low_hz > float(freq_hz[0]):
        empty.append(f"below {low_hz / 1e3:.1f} kHz")
    if high_hz < float(freq_hz[-1]) - _NOTICEABLE_HZ:
        empty.append(f"above {high_hz / 1e3:.1f} kHz")
    if not empty:
        return ()
    return (
        f"the recording holds nothing {' or '.join(empty)}, as after a telephone or a low bit "
        "rate: it is enhanced in the band that is there, and nothing is added outside of it",
    )


def find_occupied_band(power: Tensor, bin_hz: float) -> tuple[int, int]:
    """First bin of the band that holds sound, and the first one above it.

    A bin above is empty if its mean power is 35 dB below that of the recording, and 20 dB below the
    band further inside; one below, where noise is loudest, at 25 dB. The slope of the filter at an
    edge counts as empty, too.

    Parameters
    ----------
    power
        Of the frames that hold sound, ``(freq, time)``.
    bin_hz
        Distance of two bins, Hz.

    Examples
    --------
    >>> power = torch.ones(513, 100)
    >>> power[256:] = 1e-9
    >>> find_occupied_band(power, 15.625), find_occupied_band(torch.ones(513, 100), 15.625)
    ((0, 256), (0, 513))
    """
    mean = power.double().mean(-1).cpu().numpy()
    level_db = 10 * np.log10(np.maximum(mean / mean.mean(), 1e-20))
    high = find_edge(level_db, bin_hz, _EMPTY_DB[1])
    low = len(level_db) - find_edge(level_db[::-1], bin_hz, _EMPTY_DB[0])
    return (low, high) if low < high else (0, len(level_db))


def find_edge(level_db: np.ndarray, bin_hz: float, empty_db: float) -> int:
    """Number of bins, from the first on, that lie below the empty ones; all if none is empty."""
    bins = len(level_db)
    near, far = (round(hz / bin_hz) for hz in _INSIDE_HZ)
    loudest_above = np.maximum.accumulate(level_db[::-1])[::-1]
    candidates = np.flatnonzero(loudest_above <= empty_db)
    for edge in candidates[(candidates > near) & (candidates < bins - _LEAST_HZ / bin_hz)]:
        inside = np.median(level_db[max(0, edge - far) : edge - near])
        if loudest_above[edge] <= inside - _CLIFF_DB:
            first = max(0, edge - round(_SLOPE_HZ / bin_hz))
            passed = np.flatnonzero(level_db[first:edge] > inside - _EDGE_DB)
            return int(first + passed[-1] + 1) if len(passed) else int(first)
    return bins


def impute_band(row: Spectrogram, low: int, high: int) -> Tensor:
    """STFT ``(freq, time)`` of one recording whose band outside ``[low, high)`` is imputed."""
    bin_hz = row.frames.sample_rate_hz / row.frames.n_fft
    neighbours = min(round(_NEIGHBOURS_HZ / bin_hz), high - low)
    power, values = row.power[0], row.values[0].clone()
    generator = torch.Generator().manual_seed(0)
    unit = row.stft.draw_unit_noise((), row.n_samples[0], generator).to(values)
    for fill_db, empty, beside in (
        (_FILL_DB[0], slice(0, low), slice(low, low + neighbours)),
        (_FILL_DB[1], slice(high, None), slice(high - neighbours, high)),
    ):
        values[empty] = unit[empty] * (10 ** (fill_db / 10) * power[beside].mean(0)).sqrt()
    return values


def find_silent_frames(power: Tensor, hop_s: float) -> Tensor:
    """Frames in stretches of a second or more that are 40 dB below the loud ones, ``(time,)``.

    Parameters
    ----------
    power
        ``(freq, time)``.
    hop_s
        Seconds from one frame to the next.

    Examples
    --------
    >>> power = torch.ones(5, 300)
    >>> power[:, :100] = 1e-6
    >>> int(find_silent_frames(power, hop_s=0.016).sum())
    100
    """
    frame = power.double().mean(0)
    silent = frame <= 10 ** (_SILENT_DB / 10) * frame.quantile(_LOUD)
    lengths, at = torch.unique_consecutive(silent, return_counts=True)
    long = lengths & (at * hop_s >= _SILENT_S)
    return long.repeat_interleave(at)
