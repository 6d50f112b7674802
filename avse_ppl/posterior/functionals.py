"""Functionals of speech: level, energy, signal-to-noise ratio, voice activity, F0.

A functional makes a number or an array of speech. Its posterior is had by evaluating it on draws of
speech, `Posterior.of`; where it is linear in the power of bins, its posterior mean is known
without draws. Amplitudes are relative to full scale, which is 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from avse_ppl.signal.stft import Stft, make_window

if TYPE_CHECKING:
    from avse_ppl.posterior.posterior import Posterior

Pairs = Sequence[tuple[float, float]]
Spans = Pairs | Literal["frames"] | None
Axes = dict[str, dict[str, np.ndarray]]

_LEAST_POWER = 1e-12  # -120 dB: what is quieter counts as this


@dataclass(frozen=True, eq=False)
class SpeechDraws:
    """Waveform draws of one recording, with their STFT.

    Parameters
    ----------
    waves
        ``(draw, sample)``.
    mixture
        STFT of the recording, ``(freq, time)``.
    stft
        The front end.
    """

    waves: np.ndarray
    mixture: np.ndarray
    stft: Stft

    @property
    def rate_hz(self) -> int:
        """Sampling rate, Hz."""
        return self.stft.sample_rate_hz

    @property
    def duration_s(self) -> float:
        """Length of the recording, seconds."""
        return self.waves.shape[-1] / self.rate_hz

    @property
    def freq_hz(self) -> np.ndarray:
        """Centre frequency of each bin, Hz, ``(freq, 1)``."""
        return np.arange(self.stft.freq)[:, None] * (self.rate_hz / self.stft.n_fft)

    @property
    def time_s(self) -> np.ndarray:
        """Centre of each frame, seconds, ``(time,)``."""
        count = self.stft.count_frames(self.waves.shape[-1])
        return np.arange(count) * (self.stft.hop / self.rate_hz)

    @cached_property
    def values(self) -> np.ndarray:
        """STFT of the draws, ``(draw, freq, time)``, complex."""
        import torch

        return self.stft.forward(torch.from_numpy(np.ascontiguousarray(self.waves))).numpy()


class Functional(ABC):
    """Function of speech with a name, a unit and named axes.

    Examples
    --------
    >>> class PeakAmplitude(Functional):
    ...     name, unit = "peak amplitude", ""
    ...
    ...     def evaluate(self, draws):
    ...         return abs(draws.waves).max(-1)
    >>> draws = SpeechDraws(np.array([[0.1, -0.4], [0.2, 0.0]]), np.zeros((513, 2)), Stft())
    >>> PeakAmplitude().evaluate(draws)
    array([0.4, 0.2])
    """

    name: str
    unit: str

    @abstractmethod
    def evaluate(self, draws: SpeechDraws) -> np.ndarray:
        """Evaluate on some draws at once: ``(draw, ...)``; NaN where it is not defined."""

    def list_axes(self, draws: SpeechDraws) -> Axes:
        """Axes behind the draw, in order, each with its coordinates by name."""
        return {}

    def compute_exact_mean(self, posterior: Posterior) -> np.ndarray | None:
        """Posterior mean in closed form, of the first recording; None where there is none."""
        return None


# --- power in bands and spans --------------------------------------------------------------------


@dataclass(frozen=True)
class BandFunctional(Functional):
    """What the power of speech in bands and spans of time gives.

    Parameters
    ----------
    bands_hz
        Lowest and highest frequency of each band; bins count from the lowest to below the highest.
        None: all frequencies, and no axis of bands.
    spans_s
        Begin and end of each span of time, seconds; ``"frames"``: each frame of the STFT; None:
        the whole recording, and no axis of time. A span takes the frames that are centred in it,
        and at least the nearest, so that sound up to half a window (32 ms by default) beyond its
        ends counts in part.
    """

    bands_hz: Pairs | None = None
    spans_s: Spans = None

    def list_axes(self, draws: SpeechDraws) -> Axes:
        """Bands, then time."""
        axes: Axes = {}
        if self.bands_hz is not None:
            low, high = np.array(self.bands_hz, float).reshape(-1, 2).T
            axes["band"] = {"low_hz": low, "high_hz": high}
        return axes | list_time_axis(self.spans_s, draws)

    def average_power(self, power: np.ndarray, draws: SpeechDraws) -> np.ndarray:
        """Mean square of the waveform in each band and span: ``(..., freq, time)`` to the axes."""
        rows = weigh_bands(self.bands_hz, draws.stft) @ power
        means = average_frames(rows, self.spans_s, draws)
        if self.bands_hz is not None:
            return means
        return means[..., 0] if self.spans_s is None else means[..., 0, :]


@dataclass(frozen=True)
class Level(BandFunctional):
    r"""Level in decibels: :math:`10 \log_{10}` of the mean square, re full scale.

    Examples
    --------
    >>> wave = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)[None]
    >>> draws = SpeechDraws(wave, np.zeros((513, 64)), Stft())
    >>> Level(((900.0, 1100.0), (2000.0, 3000.0)), ((0.25, 0.75),)).evaluate(draws).round(0)
    array([[[ -3.],
            [-77.]]])
    """

    name = "level"
    unit = "dB"

    def evaluate(self, draws: SpeechDraws) -> np.ndarray:
        """Level of each draw."""
        return convert_to_db(self.average_power(square(draws.values), draws))


@dataclass(frozen=True)
class Energy(BandFunctional):
    r"""Energy, the mean square times the length: full scale squared times seconds.

    By Parseval's theorem a sum of the powers of bins, so that its posterior mean is known without
    draws: that of a bin is :math:`|m_{ft}|^2 + v_{ft}`.
    """

    name = "energy"
    unit = "s"

    def evaluate(self, draws: SpeechDraws) -> np.ndarray:
        """Energy of each draw."""
        return self.average_power(square(draws.values), draws) * self.measure_spans(draws)

    def compute_exact_mean(self, posterior: Posterior) -> np.ndarray:
        """Sum of the expected powers of the bins."""
        draws = SpeechDraws(posterior.noisy()[None], posterior.mixture[0], posterior.stft)
        power = square(posterior.mean[0]) + posterior.variance[0]
        return self.average_power(power, draws) * self.measure_spans(draws)

    def measure_spans(self, draws: SpeechDraws) -> np.ndarray:
        """Length of each span, seconds."""
        if self.spans_s is None:
            return np.array(draws.duration_s)
        if self.spans_s == "frames":
            return np.array(draws.stft.hop / draws.rate_hz)
        return np.diff(np.array(self.spans_s, float).reshape(-1, 2), axis=1)[:, 0]


@dataclass(frozen=True)
class SNR(BandFunctional):
    """Signal-to-noise ratio in decibels, of the draw of speech and what it leaves of the mixture.

    Given the mixture, noise is the mixture less speech, so that a draw of one is a draw of both.
    """

    name = "snr"
    unit = "dB"

    def evaluate(self, draws: SpeechDraws) -> np.ndarray:
        """Compute the ratio of each draw."""
        speech = self.average_power(square(draws.values), draws)
        noise = self.average_power(square(draws.mixture - draws.values), draws)
        return convert_to_db(speech) - convert_to_db(noise)


@dataclass(frozen=True)
class Exceeds(BandFunctional):
    """Whether the level exceeds a threshold: its posterior mean is the probability that it does.

    Parameters
    ----------
    threshold_db
        Re full scale.
    """

    threshold_db: float = -40.0
    name = "exceeds"
    unit = ""

    def evaluate(self, draws: SpeechDraws) -> np.ndarray:
        """1 where it does, else 0."""
        level = Level(self.bands_hz, self.spans_s).evaluate(draws)
        return (level > self.threshold_db).astype(np.float32)


@dataclass(frozen=True)
class BinPower(Functional):
    """Power of each bin of the STFT; its mean is known without draws."""

    name = "bin power"
    unit = ""

    def evaluate(self, draws: SpeechDraws) -> np.ndarray:
        """``|s|^2`` of each draw, ``(draw, freq, time)``."""
        return square(draws.values)

    def list_axes(self, draws: SpeechDraws) -> Axes:
        """Axes of the grid."""
        return {"freq_hz": {"freq_hz": draws.freq_hz[:, 0]}, "time_s": {"time_s": draws.time_s}}

    def compute_exact_mean(self, posterior: Posterior) -> np.ndarray:
        """``|m|^2 + v``."""
        return square(posterior.mean[0]) + posterior.variance[0]


# --- voice ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VoiceActivity(Functional):
    r"""Voice activity by energy with hang-over; its posterior mean is the probability of voice.

    A frame is active where its level between ``band_hz`` is above a threshold, and for
    ``hangover_s`` after that. The threshold is ``threshold_db`` re full scale or, without it,
    ``margin_db`` below the level that the loudest twentieth of the draw's own frames exceeds: where
    nobody speaks at all, only a ``threshold_db`` makes sense.

    Parameters
    ----------
    spans_s
        As in `Level`; of a span or of the whole, the share of frames that are active.
    margin_db, threshold_db, hangover_s, band_hz
        The definition.
    """

    spans_s: Spans = "frames"
    margin_db: float = 25.0
    threshold_db: float | None = None
    hangover_s: float = 0.1
    band_hz: tuple[float, float] = (100.0, 4000.0)
    name = "voice activity"
    unit = ""

    def evaluate(self, draws: SpeechDraws) -> np.ndarray:
        """1 where a frame is active, else 0; or shares of spans."""
        level = Level((self.band_hz,), "frames").evaluate(draws)[:, 0]
        threshold = self.threshold_db
        if threshold is None:
            threshold = np.quantile(level, 0.95, axis=-1, keepdims=True) - self.margin_db
        active = level > threshold
        held = active.copy()
        for later in range(1, 1 + round(self.hangover_s * draws.rate_hz / draws.stft.hop)):
            held[:, later:] |= active[:, :-later]
        return average_frames(held.astype(np.float32), self.spans_s, draws)

    def list_axes(self, draws: SpeechDraws) -> Axes:
        """Time."""
        return list_time_axis(self.spans_s, draws)


@dataclass(frozen=True)
class F0(Functional):
    """Fundamental frequency in hertz by pYIN, NaN where a draw is unvoiced.

    Means and intervals are then of draws that are voiced, and ``defined`` is the probability of
    voicing. Takes a third of a second for 10 s of each draw.

    Parameters
    ----------
    spans_s
        As in `Level`; of a span or of the whole, the median over its voiced frames.
    lowest_hz, highest_hz
        Range of the search.

    References
    ----------
    Mauch and Dixon, "pYIN: a fundamental frequency estimator using probabilistic threshold
    distributions", ICASSP 2014.
    """

    spans_s: Spans = "frames"
    lowest_hz: float = 65.0
    highest_hz: float = 400.0
    name = "f0"
    unit = "Hz"

    def evaluate(self, draws: SpeechDraws) -> np.ndarray:
        """F0 of each frame, or its median in each span."""
        import librosa

        hop = draws.stft.hop
        waves = np.pad(draws.waves, ((0, 0), (0, -draws.waves.shape[-1] % hop)))
        length = 2 ** math.ceil(math.log2(4 * draws.rate_hz / self.lowest_hz))
        tracks = [
            librosa.pyin(
                wave, fmin=self.lowest_hz, fmax=self.highest_hz, sr=draws.rate_hz,
                frame_length=length, hop_length=hop,
            )[0]
            for wave in waves
        ]  # fmt: skip
        values = np.stack(tracks)
        if self.spans_s == "frames":
            return values
        rows = weigh_spans(self.spans_s, draws) > 0
        medians = [compute_median(values[:, row]) for row in rows]
        return medians[0] if self.spans_s is None else np.stack(medians, axis=-1)

    def list_axes(self, draws: SpeechDraws) -> Axes:
        """Time."""
        return list_time_axis(self.spans_s, draws)


# --- bands and spans -----------------------------------------------------------------------------


def square(values: np.ndarray) -> np.ndarray:
    """``|z|^2``."""
    return np.real(values) ** 2 + np.imag(values) ** 2


def convert_to_db(power: np.ndarray) -> np.ndarray:
    """Powers in decibels, at least -120 dB."""
    return 10 * np.log10(np.maximum(power, _LEAST_POWER))


def compute_median(values: np.ndarray) -> np.ndarray:
    """Median over the last axis of what is no NaN; NaN where nothing is left."""
    known = np.isfinite(values)
    defined: np.ndarray = known.sum(axis=-1) > 0
    medians = np.nanmedian(np.where(defined[..., None], values, 0.0), axis=-1)
    return np.where(defined, medians, np.nan)


def weigh_bands(bands_hz: Pairs | None, stft: Stft) -> np.ndarray:
    """Share of each bin in the mean square of each band, ``(band, freq)``.

    Raises
    ------
    ValueError
        If a band holds no bin.
    """
    freq_hz = np.arange(stft.freq) * (stft.sample_rate_hz / stft.n_fft)
    both: np.ndarray = np.full(stft.freq, 2.0)  # bins and their mirror images
    both[0] = 1.0
    if stft.n_fft % 2 == 0:
        both[-1] = 1.0
    both /= stft.n_fft * float(make_window(stft.n_fft, stft.window).square().sum())
    if bands_hz is None:
        return both[None].astype(np.float32)
    rows = []
    for low, high in bands_hz:
        inside = (freq_hz >= low) & (freq_hz < high)
        if not inside.any():
            raise ValueError(
                f"the band from {low:g} to {high:g} Hz holds no bin; bins are {freq_hz[1]:g} Hz "
                f"apart, up to {freq_hz[-1]:g} Hz: give its lowest and then its highest frequency"
            )
        rows.append(both * inside)
    return np.array(rows, np.float32).reshape(-1, stft.freq)


def weigh_spans(spans_s: Pairs | None, draws: SpeechDraws) -> np.ndarray:
    """Weight of each frame in the mean of each span, ``(span, time)``.

    Raises
    ------
    ValueError
        If a span is empty, or not within the recording.
    """
    time_s = draws.time_s
    if spans_s is None:
        spans_s = ((0.0, draws.duration_s),)
    rows = []
    for start, end in spans_s:
        if not 0 <= start < end <= draws.duration_s + 1e-9:
            raise ValueError(
                f"the span from {start:g} to {end:g} s is not within the recording of "
                f"{draws.duration_s:g} s; expected 0 <= begin < end <= its length"
            )
        inside: np.ndarray = (time_s >= start) & (time_s < end)
        if not inside.any():
            inside = np.arange(len(time_s)) == np.argmin(np.abs(time_s - (start + end) / 2))
        rows.append(inside / inside.sum())
    return np.array(rows, np.float32).reshape(-1, len(time_s))


def average_frames(values: np.ndarray, spans_s: Spans, draws: SpeechDraws) -> np.ndarray:
    """Average ``(..., time)`` over each span: ``(..., span)``, or ``(...)`` over the whole."""
    if spans_s == "frames":
        return values
    means = values @ weigh_spans(spans_s, draws).T
    return means[..., 0] if spans_s is None else means


def list_time_axis(spans_s: Spans, draws: SpeechDraws) -> Axes:
    """Axis of frames or of spans; none for the whole recording."""
    if spans_s is None:
        return {}
    if spans_s == "frames":
        return {"time_s": {"time_s": draws.time_s}}
    start, end = np.array(spans_s, float).reshape(-1, 2).T
    return {"span": {"start_s": start, "end_s": end}}
