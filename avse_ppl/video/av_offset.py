r"""Audio-visual offset: how much later the audio is than the lips, and with what confidence.

Two comparisons are added for each offset :math:`d` between them,

.. math:: A(d) = \tfrac12 \big( c(d) + ρ(d) \big).

:math:`c` is the correlation of how far the mouth is open (the vertical optical flow of chin
against nose and of lower against upper lip, summed over time) with the level of the sound, both
without what is slower than a syllable; its sign is known, so that little can be fitted by chance.
:math:`ρ` is the root of the sum of the squared two largest canonical correlations of the principal
components of the crops with the levels in five bands. Nothing is trained.

References
----------
M. E. Sargin, Y. Yemez, E. Erzin and A. M. Tekalp, "Audiovisual synchronization and fusion using
canonical correlation analysis", IEEE Transactions on Multimedia 9(7), 2007.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avse_ppl.signal.audio import Audio
from avse_ppl.video.lips import Lips
from avse_ppl.video.mouth_motion import compute_mouth_components, measure_mouth_opening

_RATE_HZ = 100
_MAX_OFFSET = 70  # hundredths of a second
_STEP = 2
_TOLERANCE = 16  # largest offset of a face to its sound, when faces are compared
_PEAK_DISTANCE = 14  # least distance of two separate peaks
_BANDS_HZ = np.array([150, 500, 1000, 2000, 4000, 7800])
_FLOOR = 1e-4  # of the largest level
_WINDOW_S = 0.04
_SMOOTH, _SYLLABLE = 3, 30  # hundredths of a second
_SHRINK = 0.3
_PENALTY = 0.1  # of a second of offset: most recordings are nearly synchronous
_FULL_MARGIN = 0.15  # of a peak over the next, for confidence 1
_SHORTEST_S = 1.0


def estimate_offset(lips: Lips, audio: Audio) -> tuple[float, float]:
    """Audio-visual offset: by how much the sound lags the lips, within 0.7 s.

    Parameters
    ----------
    lips
        The mouth of the speaker.
    audio
        The sound, which starts with the first video frame.

    Returns
    -------
    tuple of float
        The offset in seconds, for `Lips.shifted`; and its confidence in [0, 1]: the margin
        of its synchrony score over that of every other offset.

    Raises
    ------
    ValueError
        If less than a second is there of both.

    Examples
    --------
    >>> import warnings
    >>> rng = np.random.default_rng(0)
    >>> level = np.repeat(rng.random(25), 4) ** 2
    >>> crops = np.full((100, 88, 88), 160, dtype=np.uint8)
    >>> for crop, open_px in zip(crops, (20 * level).astype(int)):
    ...     crop[44 : 44 + open_px, 24:64] = 40
    >>> sound = np.repeat(level, 640) * rng.normal(size=64000)
    >>> lips = Lips.from_crops(crops, rate_hz=25)
    >>> offset_s, _ = estimate_offset(lips, Audio(np.roll(sound, 3200), 16000))
    >>> round(offset_s, 1)
    0.2
    """
    offsets, scores = score_offsets(lips, audio)
    scores = scores - _PENALTY * np.abs(offsets) / _RATE_HZ
    best = int(np.argmax(scores))
    others = np.abs(offsets - offsets[best]) >= _PEAK_DISTANCE
    margin = scores[best] - scores[others].max()

    # Vertex of the parabola through the best offset and its two neighbours.
    three, vertex = scores[max(best - 1, 0) : best + 2], 0.0
    if len(three) == 3:
        bend = three[0] - 2 * three[1] + three[2]
        vertex = float(0.5 * (three[0] - three[2]) / bend) if bend < 0 else 0.0
    peak = offsets[best] + _STEP * vertex
    return float(peak / _RATE_HZ), float(np.clip(margin / _FULL_MARGIN, 0.0, 1.0))


def measure_synchrony(lips: Lips, audio: Audio) -> float:
    """Audio-visual synchrony of a mouth with a sound, about 0 to 1; 0 if either is too short."""
    try:
        offsets, scores = score_offsets(lips, audio)
    except ValueError:
        return 0.0
    return float(scores[np.abs(offsets) <= _TOLERANCE].max())


def score_offsets(lips: Lips, audio: Audio) -> tuple[np.ndarray, np.ndarray]:
    """Offsets in hundredths of a second, and the synchrony score at each.

    Raises
    ------
    ValueError
        If less than a second is there of both.
    """
    n_steps = int(min(audio.duration_s, lips.duration_s) * _RATE_HZ)
    lips_s = lips.found.sum() * lips.step_s
    if min(n_steps / _RATE_HZ, lips_s) < _SHORTEST_S:
        raise ValueError(
            f"expected {_SHORTEST_S} s or more of lips and sound to compare, found {lips_s:.2f} s "
            f"of lips and {audio.duration_s:.2f} s of sound; give a longer recording"
        )

    # Opening and components of the mouth, at the steps of the sound.
    time_s, roi = lips.time_s[lips.found], lips.roi[lips.found]
    shapes = np.column_stack([measure_mouth_opening(roi), compute_mouth_components(roi)])
    steps_s = np.arange(n_steps) / _RATE_HZ
    shapes = np.column_stack([np.interp(steps_s, time_s, shape) for shape in shapes.T])
    shapes = filter_syllables(shapes)
    both = _Signals(compute_band_levels(audio)[:n_steps], shapes[:, 0], shapes[:, 1:])
    offsets = np.arange(-_MAX_OFFSET, _MAX_OFFSET + 1, _STEP)
    offsets = offsets[np.abs(offsets) <= n_steps // 2]
    return offsets, np.array([both.score(offset) for offset in offsets])


@dataclass(frozen=True, eq=False)
class _Signals:
    """Levels ``(step, band)``, opening ``(step,)`` and components ``(step, component)``."""

    levels: np.ndarray
    opening: np.ndarray
    components: np.ndarray

    def score(self, offset: int) -> float:
        """Synchrony score if the sound is `offset` steps later."""
        n_steps = len(self.levels) - abs(offset)
        sound = self.levels[max(offset, 0) :][:n_steps]
        lips = slice(max(-offset, 0), max(-offset, 0) + n_steps)
        level, opened = sound[:, 1:4].mean(axis=1), self.opening[lips]
        level, opened = level - level.mean(), opened - opened.mean()
        size = np.linalg.norm(level) * np.linalg.norm(opened)
        plain = float(level @ opened / size) if size > 0 else 0.0
        return 0.5 * (plain + correlate_canonically(sound, self.components[lips]))


def correlate_canonically(one: np.ndarray, other: np.ndarray) -> float:
    """Root of the sum of the squared two largest canonical correlations of two series."""
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    white_one, white_other = compute_whitening(one), compute_whitening(other)
    correlation = white_one @ (one.T @ other / len(one)) @ white_other.T
    return float(np.linalg.norm(np.linalg.svd(correlation, compute_uv=False)[:2]))


def compute_whitening(values: np.ndarray) -> np.ndarray:
    """Whitening matrix of the shrunk covariance of ``(step, value)``."""
    covariance = values.T @ values / len(values)
    size = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    return np.linalg.inv(np.linalg.cholesky(covariance + _SHRINK * size * np.eye(len(covariance))))


def compute_band_levels(audio: Audio) -> np.ndarray:
    """Log levels ``(step, band)`` of the sound, without what is slower than a syllable."""
    samples = audio.audible_mono().samples.astype(np.float64)
    rate_hz, hop = audio.sample_rate_hz, audio.sample_rate_hz / _RATE_HZ
    length = int(_WINDOW_S * rate_hz)
    padded = np.pad(samples, (length // 2, length))
    starts = (np.arange(int(len(samples) / hop)) * hop).astype(int)
    window, edges = (
        np.hanning(length),
        np.searchsorted(np.fft.rfftfreq(length, 1 / rate_hz), _BANDS_HZ),
    )
    power = np.zeros((len(starts), len(_BANDS_HZ) - 1))
    for row, start in enumerate(starts):
        spectrum = np.abs(np.fft.rfft(padded[start : start + length] * window)) ** 2
        total = np.concatenate([[0.0], np.cumsum(spectrum)])
        power[row] = np.diff(total[edges])
    return filter_syllables(np.log10(power / max(float(power.max()), 1e-20) + _FLOOR))


def filter_syllables(values: np.ndarray) -> np.ndarray:
    """Band-pass over time: smoothed, without what is slower than a syllable."""
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(values, _SMOOTH, axis=0, mode="nearest")
    return smooth - gaussian_filter1d(smooth, _SYLLABLE, axis=0, mode="nearest")
