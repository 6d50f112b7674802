"""Recordings: read, check, resample, write.

The first step on the path of the data. Everything that enters becomes an `Audio`: float samples
with their sampling rate, amplitudes as they were recorded (full scale is 1).
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from avse_ppl.signal.media import Readable, name_source, read_media
from avse_ppl.signal.sound_file import check_subtype, write_media
from avse_ppl.utils.files import check_writable

if TYPE_CHECKING:
    from torch import Tensor

SAVE_SUBTYPES = {".wav": "FLOAT", ".flac": "PCM_24", ".ogg": "VORBIS"}

MIN_SAMPLE_RATE_HZ = 4000
MAX_CHANNELS_LAST = 8  # an array (n, k) with k up to this many columns is (sample, channel)

_INTEGERS = {"int16": (0.0, 2.0**15), "int32": (0.0, 2.0**31), "uint8": (128.0, 128.0)}
_CLIPPED_RUNS = 5
_LARGEST = 2.0**31  # of integers that were stored as floats
_LARGEST_GAIN = 1000.0


@dataclass(frozen=True, eq=False)
class Audio:
    """A recording.

    Parameters
    ----------
    samples
        ``(sample,)`` or ``(channel, sample)``; kept as float32, one channel as ``(sample,)``.
        Floats stay as they are; int16, int32 and uint8 are scaled so that full scale is 1.
    sample_rate_hz
        Whole number of samples a second, 4000 or more.

    Raises
    ------
    TypeError
        If the samples are not real numbers of one of these types, or the rate is not whole.
    ValueError
        If the samples have no or more than two dimensions, or the rate is under 4000 Hz.

    Examples
    --------
    >>> stereo = Audio(np.zeros((2, 8000), dtype=np.int16), sample_rate_hz=16000)
    >>> stereo.n_channels, stereo.duration_s, stereo.mono().samples.shape
    (2, 0.5, (8000,))
    """

    samples: np.ndarray
    sample_rate_hz: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", scale_to_float(np.asarray(self.samples)))
        object.__setattr__(self, "sample_rate_hz", check_rate(self.sample_rate_hz))

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return 1 if self.samples.ndim == 1 else len(self.samples)

    @property
    def n_samples(self) -> int:
        """Number of samples of each channel."""
        return self.samples.shape[-1]

    @property
    def duration_s(self) -> float:
        """Length, seconds."""
        return self.n_samples / self.sample_rate_hz

    @property
    def peak(self) -> float:
        """Largest magnitude of any sample, 0 for an empty recording."""
        return measure_peak(self.samples)

    def channels(self) -> list[Audio]:
        """Split into one mono recording a channel."""
        return [Audio(channel, self.sample_rate_hz) for channel in np.atleast_2d(self.samples)]

    def mono(self) -> Audio:
        """Average the channels."""
        return Audio(np.atleast_2d(self.samples).mean(axis=0), self.sample_rate_hz)

    def audible_mono(self) -> Audio:
        r"""Average the channels where that keeps the sound; otherwise take the loudest.

        Channels in opposite phase cancel in an average, as where one microphone is wired the other
        way round, and nothing is left to compare with lips. The average is kept where its energy is
        at least :math:`1 / (4 K)` of that of the loudest of :math:`K` channels: unrelated channels
        of one level keep :math:`1 / K`.

        Examples
        --------
        >>> tone = np.sin(np.arange(16000))
        >>> opposite = Audio(np.stack([0.5 * tone, -0.5 * tone]), sample_rate_hz=16000)
        >>> opposite.mono().peak, round(opposite.audible_mono().peak, 2)
        (0.0, 0.5)
        """
        average = self.mono()
        energy = [float(np.sum(np.square(one.samples, dtype=float))) for one in self.channels()]
        kept = float(np.sum(np.square(average.samples, dtype=float)))
        if kept >= max(energy) / (4 * self.n_channels):
            return average
        return self.channels()[int(np.argmax(energy))]

    def resample(self, rate_hz: int) -> Audio:
        """Return the same sound at another rate, band-limited (soxr, high quality)."""
        import soxr

        if check_rate(rate_hz) == self.sample_rate_hz:
            return self
        return Audio(soxr.resample(self.samples.T, self.sample_rate_hz, rate_hz).T, rate_hz)


AudioLike: TypeAlias = "Audio | Readable | np.ndarray | Tensor"


def as_audio(
    source: AudioLike, sample_rate_hz: int | None = None, *, track: int | None = None
) -> Audio:
    """Convert a path, bytes, array or tensor to `Audio`.

    Parameters
    ----------
    source
        An `Audio`; a path; the bytes of an encoded file; or a NumPy array or tensor,
        ``(sample,)``, ``(channel, sample)`` or, with up to 8 columns, ``(sample, channel)``.
    sample_rate_hz
        Needed for arrays. For the others, which know their rate: what it must be.
    track
        Of a file: number of the audio track, as in `load_audio`.

    Raises
    ------
    ValueError
        If an array comes without a rate, its orientation is ambiguous, or a file has another
        rate than the one stated.
    TypeError
        If the source is none of the above.

    Warns
    -----
    UserWarning
        If the floats of an array look like integers; and what `load_audio` warns of.

    Examples
    --------
    >>> as_audio(np.zeros((16000, 2)), sample_rate_hz=16000).samples.shape
    (2, 16000)
    """
    if isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)):
        source = load_audio(source, track=track)
    if isinstance(source, Audio):
        if sample_rate_hz not in (None, source.sample_rate_hz):
            raise ValueError(
                f"expected a recording at {sample_rate_hz} Hz, found {source.sample_rate_hz} Hz; "
                "resample it with convert_rate(audio, rate_hz), or leave sample_rate_hz out"
            )
        return source
    if hasattr(source, "detach"):
        source = source.detach().cpu().numpy()  # pyright: ignore[reportAttributeAccessIssue]
    if not hasattr(source, "__array__"):
        raise TypeError(
            "expected an Audio, a path, bytes, a NumPy array or a tensor, "
            f"found {type(source).__name__}"
        )
    if sample_rate_hz is None:
        raise ValueError(
            "an array does not say its sampling rate; pass it, for example sample_rate_hz=16000"
        )
    samples = np.asarray(source)
    if samples.dtype.kind == "f":
        remark_integers(samples)
    return Audio(put_channels_first(samples), sample_rate_hz)


def load_audio(source: Readable, *, track: int | None = None) -> Audio:
    """Read a recording, or an audio track of a video.

    WAV, FLAC, OGG, AIFF and Opus are read by libsndfile; everything else (MP3, MKV, MP4, MOV, WebM,
    AVI, M4A, AAC) by FFmpeg. The amplitude and the sampling rate stay as they are in the file.

    Parameters
    ----------
    source
        A path, or the bytes of an encoded file.
    track
        Which audio track of several, from 0. None: the one that is flagged as the default, else
        the first, with a warning that lists them.

    Returns
    -------
    Audio
        Of a video: sample 0 sounds with the first video frame. A track that starts elsewhere is
        padded with zeros or trimmed, with a warning. Where packets were lost, zeros stand for
        them, with a warning: what follows stays in time.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If the path cannot be opened.
    ValueError
        If the file is empty, not audio, damaged or cut short, or a video without sound; if it has
        no such track; if its time stamps leave an implausible silence (more than ten minutes, and
        than ten times the sound); if it has NaN, infinite or absurdly large samples; if recordings
        of different kinds are joined in it.

    Warns
    -----
    UserWarning
        If the header had to be put right, the end is not marked, recordings are joined in it (all
        are read), or float samples look like integers.

    Examples
    --------
    >>> import io, soundfile
    >>> buffer = io.BytesIO()
    >>> soundfile.write(buffer, np.full(8000, 0.5), 16000, format="FLAC")
    >>> audio = load_audio(buffer.getvalue())
    >>> audio.sample_rate_hz, audio.peak
    (16000, 0.5)
    """
    samples, rate_hz = read_media(source, track)
    return check_decoded(samples, rate_hz, name_source(source))


def check_decoded(samples: np.ndarray, rate_hz: int, name: str) -> Audio:
    """Recording of what was decoded from a file; refuses rates and levels that are none of sound.

    Raises
    ------
    ValueError
        If the rate is under 4000 Hz, or a sample is NaN, infinite or absurdly large.

    Warns
    -----
    UserWarning
        If float samples look like integers.
    """
    if rate_hz < MIN_SAMPLE_RATE_HZ:
        raise ValueError(
            f"expected a sampling rate of at least {MIN_SAMPLE_RATE_HZ} Hz in {name}, "
            f"found {rate_hz}; is its header damaged?"
        )
    check_level(samples, name)
    remark_integers(samples, name)
    return Audio(samples, rate_hz)


def convert_rate(audio: Audio, rate_hz: int) -> Audio:
    """Resample a recording to the rate that a model works at, with a warning if it had another.

    Where you resample yourself, use `Audio.resample`, which does not warn.

    Examples
    --------
    >>> audio = Audio(np.zeros(16000), 16000)
    >>> convert_rate(audio, 16000) is audio
    True
    """
    resampled = audio.resample(rate_hz)
    if resampled is not audio:
        message = f"resampled from {audio.sample_rate_hz} Hz to {rate_hz} Hz"
        warnings.warn(message, UserWarning, stacklevel=2)
    return resampled


def check_audio(audio: Audio, *, min_samples: int) -> Audio:
    """Refuse a recording that cannot be enhanced; warn about one that should not be.

    Parameters
    ----------
    audio
        The recording, returned unchanged.
    min_samples
        What the caller needs of each channel, usually one STFT window.

    Raises
    ------
    ValueError
        If it is empty, shorter than `min_samples`, or holds NaN, infinite or absurdly large
        samples.

    Warns
    -----
    UserWarning
        If it is all zero, or clipped: at least six runs of three or more samples at its peak,
        with the peak at full scale.

    Examples
    --------
    >>> tone = Audio(np.sin(np.arange(16000)), sample_rate_hz=16000)
    >>> check_audio(tone, min_samples=1024) is tone
    True
    """
    if audio.n_samples == 0:
        raise ValueError("the recording is empty: it holds 0 samples")
    check_level(audio.samples)
    if audio.n_samples < min_samples:
        raise ValueError(
            f"expected a recording of at least {min_samples} samples "
            f"({min_samples / audio.sample_rate_hz:.3f} s at {audio.sample_rate_hz} Hz), "
            f"found {audio.n_samples}; give a longer one"
        )
    if audio.peak == 0.0:
        warnings.warn("the recording is silent: all samples are zero", UserWarning, stacklevel=2)
    runs = sum(count_clipped_runs(channel.samples) for channel in audio.channels())
    if runs > _CLIPPED_RUNS:
        warnings.warn(
            f"the recording is clipped in {runs} places (its peak {audio.peak:.2f} is held); "
            "record it at a lower level: what was cut off cannot be told from noise",
            UserWarning,
            stacklevel=2,
        )
    return audio


def save_audio(path: str | os.PathLike[str], audio: Audio, *, subtype: str | None = None) -> Path:
    """Write a recording as WAV, FLAC or OGG, by the ending of the name.

    The file is written atomically: there is never half of one.

    Parameters
    ----------
    path
        Ends in ``.wav`` (float32 by default), ``.flac`` (24-bit) or ``.ogg`` (Vorbis).
    audio
        The recording. Float WAV keeps samples beyond full scale; every other format would clip, so
        there it is scaled down to full scale, with a warning.
    subtype
        ``"FLOAT"``, ``"PCM_16"`` or ``"PCM_24"``, where the format has it.

    Raises
    ------
    ValueError
        If the ending or subtype is unknown, or the recording is empty or not finite.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_audio(Path(folder) / "tone.wav", Audio(np.sin(np.arange(16000)), 16000))
    ...     load_audio(path).duration_s
    1.0
    """
    path = check_writable(path, suffixes=SAVE_SUBTYPES)
    file_format = path.suffix.lower().removeprefix(".").upper()
    subtype = subtype or SAVE_SUBTYPES[path.suffix.lower()]
    check_subtype(file_format, subtype)
    if audio.n_samples == 0:
        raise ValueError(f"cannot write '{path}': the recording holds 0 samples")
    check_finite(audio.samples)
    samples = audio.samples
    if subtype != "FLOAT" and audio.peak > 1.0:
        samples = samples / audio.peak
        message = (
            f"'{path}': peak {audio.peak:.3f} is beyond full scale, which {subtype} would clip; "
            f"scaled by {1 / audio.peak:.3f} (save as float WAV to keep the level)"
        )
        warnings.warn(message, UserWarning, stacklevel=2)
    write_media(path, samples, audio.sample_rate_hz, file_format, subtype)
    return path


# --- arrays of samples ----------------------------------------------------------------------------


def check_rate(rate_hz: object) -> int:
    """Return a sampling rate as int; refuse one that is not whole or under 4000 Hz."""
    if not isinstance(rate_hz, Integral) or isinstance(rate_hz, bool):
        raise TypeError(
            f"expected sample_rate_hz to be a whole number of Hz, found {rate_hz!r}; "
            "for example sample_rate_hz=16000"
        )
    if rate_hz < MIN_SAMPLE_RATE_HZ:
        raise ValueError(
            f"expected sample_rate_hz to be at least {MIN_SAMPLE_RATE_HZ}, found {rate_hz}; "
            "is the rate given in kHz, or exchanged with another argument?"
        )
    return int(rate_hz)


def scale_to_float(samples: np.ndarray) -> np.ndarray:
    """Return ``(sample,)`` or ``(channel, sample)`` float32 with full scale at 1."""
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and len(samples) == 0):
        raise ValueError(
            f"expected samples of shape (sample,) or (channel, sample), found {samples.shape}; "
            "pass one recording at a time"
        )
    if samples.dtype.name in _INTEGERS:
        zero, full_scale = _INTEGERS[samples.dtype.name]
        samples = (samples.astype(np.float64) - zero) / full_scale
    if samples.dtype.kind != "f":
        raise TypeError(
            f"expected real samples as float, int16, int32 or uint8, found {samples.dtype.name}; "
            "convert them to float with full scale at 1 (a spectrogram must be inverted first)"
        )
    samples = samples[0] if samples.ndim == 2 and len(samples) == 1 else samples
    with np.errstate(over="ignore"):  # what overflows becomes inf, and `check_audio` says so
        return np.ascontiguousarray(samples, dtype=np.float32)


def put_channels_first(samples: np.ndarray) -> np.ndarray:
    """Transpose ``(sample, channel)`` to ``(channel, sample)``, where it must be the former."""
    if samples.ndim != 2 or samples.shape[0] <= samples.shape[1]:
        return samples
    if samples.shape[1] > MAX_CHANNELS_LAST:
        raise ValueError(
            f"cannot tell channels from samples in an array of shape {samples.shape}; "
            "expected (channel, sample): transpose it"
        )
    return samples.T


def check_finite(samples: np.ndarray, name: str = "the recording") -> None:
    """Refuse NaN and infinite samples."""
    bad = int(np.count_nonzero(~np.isfinite(samples)))
    if bad:
        raise ValueError(
            f"expected finite samples in {name}, found {bad} of {samples.size} NaN or infinite; "
            "look at what wrote the recording"
        )


def measure_peak(samples: np.ndarray) -> float:
    """Return the largest magnitude, without a copy; 0 of no samples, NaN if one is.

    Examples
    --------
    >>> measure_peak(np.array([0.5, -0.75]))
    0.75
    """
    return float(max(np.max(samples, initial=0.0), -np.min(samples, initial=0.0)))


def check_level(samples: np.ndarray, name: str = "the recording") -> None:
    """Refuse samples that are no sound: NaN, infinite, or beyond 2^31 where full scale is 1.

    Floats may go beyond full scale, as far as integers of 32 bits that were stored as floats. More
    is other data, or another sample format or order of bytes than the header says.

    Raises
    ------
    ValueError
        If there are such samples.

    Examples
    --------
    >>> check_level(np.array([0.5, -3.0]))
    >>> check_level(np.array([1e30]))
    Traceback (most recent call last):
    ValueError: expected samples with full scale at 1 in the recording, found 1e+30; ...
    """
    peak = measure_peak(samples)
    if not np.isfinite(peak):
        check_finite(samples, name)
    if peak > _LARGEST:
        raise ValueError(
            f"expected samples with full scale at 1 in {name}, found {peak:.3g}; no sound is that "
            "large: are they another sample format or order of bytes than is said? Convert it again"
        )


def remark_integers(samples: np.ndarray, name: str = "the array") -> None:
    """Warn of float samples that look like integers: beyond 1000, 60 dB over full scale.

    Examples
    --------
    >>> remark_integers(np.array([30.0]))
    """
    peak = measure_peak(samples)
    if _LARGEST_GAIN < peak <= _LARGEST:
        bits = next(bits for bits in (16, 24, 32) if peak <= 2.0 ** (bits - 1))
        warnings.warn(
            f"{name} holds samples of up to {peak:.0f} where full scale is 1, which look like "
            f"{bits}-bit integers stored as floats; divide them by {2 ** (bits - 1)}",
            UserWarning,
            stacklevel=3,
        )


def count_clipped_runs(samples: np.ndarray) -> int:
    """Count the runs of three or more samples at the peak, if that is at full scale."""
    magnitude = np.abs(samples)
    peak = magnitude.max()
    if peak < 0.99:
        return 0
    at_peak = magnitude >= peak - 2.0**-14  # 16-bit full scale is 1 below zero, 1 - 2^-15 above
    three = at_peak[:-2] & at_peak[1:-1] & at_peak[2:]
    return int(np.count_nonzero(np.diff(three.astype(np.int8), prepend=0) == 1))
