"""Metrics of speech enhancement against the clean recording: SI-SDR, PESQ, STOI and ESTOI.

What would make a score meaningless is refused or warned about: other rates, lengths and channels, a
lag between the two, a silent reference.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import warnings
from dataclasses import asdict, dataclass

import numpy as np

from avse_ppl.signal.audio import Audio, AudioLike, as_audio, check_finite
from avse_ppl.signal.delay import estimate_lag_s, warn_if_misaligned

SCORING_RATE_HZ = 16000

__all__ = ["Scores", "estimate_lag_s", "evaluate", "evaluate_pair", "si_sdr"]

_HOP = 256  # samples: front ends round lengths by up to one hop; more is another recording
_LONGEST_PESQ_S = 20.0  # the reference code keeps 50 utterances and crashes on more
_PESQ_PIECE_S = 15.0


@dataclass(frozen=True)
class Scores:
    """Scores of one estimate; higher is better, None is a score that could not be computed.

    Parameters
    ----------
    si_sdr_db
        Scale-invariant signal-to-distortion ratio, dB.
    pesq_wb
        Wide-band PESQ (P.862.2), 1.04 to 4.64.
    stoi, estoi
        Short-time objective intelligibility and its extended form, at most 1.

    Examples
    --------
    >>> Scores(9.6, 1.56, 0.7, 0.477).as_dict()["estoi"]
    0.477
    """

    si_sdr_db: float | None
    pesq_wb: float | None
    stoi: float | None
    estoi: float | None

    def as_dict(self) -> dict[str, float | None]:
        """Return the scores by name, ready for JSON."""
        return asdict(self)


def evaluate(clean: AudioLike, estimate: AudioLike, sample_rate_hz: int | None = None) -> Scores:
    """Score an estimate of clean speech.

    All four are computed at 16 kHz: recordings at another rate are resampled, with a warning, also
    where clean and estimate differ in it, as a recording of 44.1 kHz and its enhancement do. Each
    channel is scored against the same channel, and the scores are averaged.

    Parameters
    ----------
    clean, estimate
        `Audio`, paths, bytes, or arrays ``(sample,)`` or ``(channel, sample)``. Up to 256 samples
        of difference in length are trimmed, with a warning.
    sample_rate_hz
        Of arrays.

    Returns
    -------
    Scores
        PESQ of more than 20 s is the mean over pieces of at most 15 s.

    Raises
    ------
    ValueError
        If the two differ in channels or length, hold no or NaN samples, or a channel of the
        clean recording is silent.

    Warns
    -----
    UserWarning
        If the two are resampled, trimmed or more than 5 ms out of alignment, or a score cannot be
        computed: PESQ needs the optional package pesq.

    References
    ----------
    Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019 (SI-SDR).
    Rix et al., "Perceptual evaluation of speech quality (PESQ)", ICASSP 2001; ITU-T P.862.2.
    Taal et al., "An algorithm for intelligibility prediction of time-frequency weighted noisy
    speech", IEEE TASLP 2011 (STOI).
    Jensen and Taal, "An algorithm for predicting the intelligibility of speech masked by modulated
    noise maskers", IEEE/ACM TASLP 2016 (ESTOI).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> clean = rng.standard_normal(16000) * np.sin(np.arange(16000) / 2000)
    >>> scores = evaluate(clean, clean + 0.1 * rng.standard_normal(16000), sample_rate_hz=16000)
    >>> bool(15 < scores.si_sdr_db < 19), bool(scores.stoi > 0.9)
    (True, True)
    """
    reference = as_audio(clean, sample_rate_hz)
    return score_recording(reference, as_audio(estimate, sample_rate_hz), "estimate")


def evaluate_pair(
    clean: AudioLike, noisy: AudioLike, enhanced: AudioLike, sample_rate_hz: int | None = None
) -> dict[str, Scores]:
    """Score the noisy recording and its enhancement, to tell what enhancing it gained.

    Parameters
    ----------
    clean, noisy, enhanced, sample_rate_hz
        As in `evaluate`, which also says what is raised and warned about.

    Returns
    -------
    dict
        ``{"input": Scores, "enhanced": Scores}``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> clean, noise = rng.standard_normal((2, 16000))
    >>> pair = evaluate_pair(clean, clean + noise, clean + 0.1 * noise, sample_rate_hz=16000)
    >>> round(pair["enhanced"].si_sdr_db - pair["input"].si_sdr_db)
    20
    """
    reference = as_audio(clean, sample_rate_hz)
    return {
        name: score_recording(reference, as_audio(source, sample_rate_hz), name)
        for name, source in (("input", noisy), ("enhanced", enhanced))
    }


def si_sdr(clean: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio, dB, without removing the means.

    ``10 log10(|a s|^2 / |a s - e|^2)`` with ``a = <e, s> / |s|^2``, for clean ``s`` and estimate
    ``e``. The scale of the estimate does not count; its sign does not either.

    Parameters
    ----------
    clean, estimate
        ``(sample,)``.

    Raises
    ------
    ValueError
        If the shapes differ, or either is silent.

    References
    ----------
    Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019.

    Examples
    --------
    >>> round(si_sdr(np.array([1.0, 0.0]), np.array([2.0, 0.2])), 3)
    20.0
    """
    import torch
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

    clean, estimate = np.asarray(clean, np.float64), np.asarray(estimate, np.float64)
    if clean.ndim != 1 or clean.shape != estimate.shape:
        raise ValueError(
            "expected clean and estimate of one shape (sample,), "
            f"found {clean.shape} and {estimate.shape}"
        )
    for name, samples in (("clean", clean), ("estimate", estimate)):
        if not np.any(samples):
            raise ValueError(f"the {name} recording is silent: SI-SDR is not defined")
    # Neither scale counts, but for a constant that the library adds against division by zero.
    ratio = scale_invariant_signal_distortion_ratio(
        torch.from_numpy(estimate / np.abs(estimate).max()),
        torch.from_numpy(clean / np.abs(clean).max()),
        zero_mean=False,
    )
    return float(ratio)


def score_recording(clean: Audio, estimate: Audio, name: str) -> Scores:
    """Score all channels and average; `name` is what the estimate is called in messages."""
    clean, estimate = match_recordings(clean, estimate, name)
    rows = [
        score_channel(reference, other, name).as_dict()
        for reference, other in zip(clean.channels(), estimate.channels(), strict=True)
    ]
    means: dict[str, float | None] = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        known = [value for value in values if value is not None]
        means[key] = math.fsum(known) / len(known) if len(known) == len(values) else None
    return Scores(**means)


def match_recordings(clean: Audio, estimate: Audio, name: str) -> tuple[Audio, Audio]:
    """Trim and resample two recordings to one length at 16 kHz; refuse what does not match."""
    if clean.sample_rate_hz != estimate.sample_rate_hz:
        for what, audio in (("clean", clean), (name, estimate)):
            if audio.sample_rate_hz != SCORING_RATE_HZ:
                _warn(f"{what} resampled from {audio.sample_rate_hz} Hz to 16000 Hz")
        clean, estimate = clean.resample(SCORING_RATE_HZ), estimate.resample(SCORING_RATE_HZ)
    if clean.n_channels != estimate.n_channels:
        raise ValueError(
            f"expected clean and {name} with as many channels, found {clean.n_channels} and "
            f"{estimate.n_channels}; average them, or take one channel of each (audio.mono(), "
            "audio.channels(); 'ffmpeg -i in.wav -ac 1 out.wav' on a command line)"
        )
    lengths = clean.n_samples, estimate.n_samples
    if min(lengths) == 0 or abs(lengths[0] - lengths[1]) > _HOP:
        raise ValueError(
            f"expected clean and {name} of one length, found {lengths[0]} and {lengths[1]} "
            "samples; cut or align them so that both hold the same words"
        )
    if lengths[0] != lengths[1]:
        _warn(
            f"clean and {name} hold {lengths[0]} and {lengths[1]} samples; trimmed to the shorter"
        )
        kept = min(lengths)
        clean = Audio(clean.samples[..., :kept], clean.sample_rate_hz)
        estimate = Audio(estimate.samples[..., :kept], estimate.sample_rate_hz)
    check_finite(clean.samples)
    check_finite(estimate.samples)
    if any(channel.peak == 0 for channel in clean.channels()):
        raise ValueError("the clean recording is silent: there is nothing to score against")
    if clean.sample_rate_hz != SCORING_RATE_HZ:
        _warn(f"clean and {name} resampled from {clean.sample_rate_hz} Hz to 16000 Hz")
    return clean.resample(SCORING_RATE_HZ), estimate.resample(SCORING_RATE_HZ)


def score_channel(clean: Audio, estimate: Audio, name: str) -> Scores:
    """Score one channel at 16 kHz."""
    if estimate.peak == 0:
        _warn(f"the {name} is silent: SI-SDR, PESQ, STOI and ESTOI are not defined")
        return Scores(None, None, None, None)
    warn_if_misaligned(clean, estimate, name)
    return Scores(
        si_sdr_db=si_sdr(clean.samples, estimate.samples),
        pesq_wb=compute_pesq_wb(clean.samples, estimate.samples, name),
        stoi=compute_stoi(clean.samples, estimate.samples, name, extended=False),
        estoi=compute_stoi(clean.samples, estimate.samples, name, extended=True),
    )


def compute_pesq_wb(clean: np.ndarray, estimate: np.ndarray, name: str) -> float | None:
    """Wide-band PESQ, averaged over pieces of a long recording; None where it is not defined."""
    try:
        package = importlib.import_module("pesq")  # compiled when installed: not every machine can
    except ImportError:
        _warn("PESQ is not computed: pip install 'avse-ppl[pesq]' (needs cc and python3-dev)")
        return None
    seconds = len(clean) / SCORING_RATE_HZ
    n_pieces = math.ceil(seconds / _PESQ_PIECE_S) if seconds > _LONGEST_PESQ_S else 1
    pieces = zip(np.array_split(clean, n_pieces), np.array_split(estimate, n_pieces), strict=True)
    scores = []
    for reference, degraded in pieces:
        if np.any(reference) and np.any(degraded):
            with contextlib.suppress(package.PesqError):
                scores.append(float(package.pesq(SCORING_RATE_HZ, reference, degraded, "wb")))
    scores = [score for score in scores if math.isfinite(score)]
    if not scores:
        _warn(f"PESQ of the {name} cannot be computed: it needs 0.25 s with speech in them")
        return None
    return math.fsum(scores) / len(scores)


def compute_stoi(
    clean: np.ndarray, estimate: np.ndarray, name: str, *, extended: bool
) -> float | None:
    """STOI or its extended form ESTOI; None where the recording is too short."""
    from pystoi import stoi

    state = np.random.get_state()
    np.random.seed(0)  # the extended form draws rounding noise: same input, same score
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # it returns 1e-5 for "too short"
            return float(stoi(clean, estimate, SCORING_RATE_HZ, extended=extended))
    except (RuntimeWarning, ValueError):
        which = "ESTOI" if extended else "STOI"
        _warn(f"{which} of the {name} cannot be computed: it needs 0.4 s of clean speech")
        return None
    finally:
        np.random.set_state(state)


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=2)
