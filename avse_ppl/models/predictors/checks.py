"""Calls of an enhancer: what it returns is checked, once, and each failure told in one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from avse_ppl.signal.audio import Audio
from avse_ppl.signal.delay import cross_correlate

_TOLERANCE = 2  # samples: filters of little phase shift stay
_SHARPER = 1.2  # how far a lag is to stand out from no lag: beside tones, right answers reach 1.07
_CHANCE = 0.1  # correlations below are those of unrelated sounds
_LONGEST_S = 1.0
_LOUDEST_DB, _FAINTEST_DB = 30.0, -60.0
_RATES = {2: "twice", 3: "3 times", 6: "6 times", 0.5: "half", 1 / 3: "a third", 1 / 6: "a sixth"}


class PredictorError(ValueError):
    """A predictor is missing, fails, or returns what cannot be a prediction of speech."""


@dataclass(frozen=True)
class GuardedEnhancer:
    """Enhancer whose failures are told as one `PredictorError`.

    Parameters
    ----------
    enhance
        ``(wave, sample_rate_hz) -> wave``; gets a copy, which it may change.
    name
        For messages.

    Examples
    --------
    >>> import numpy as np
    >>> halve = GuardedEnhancer(lambda wave, rate_hz: 0.5 * wave, "halve")
    >>> halve(np.ones(4, "float32"), 16000).tolist()
    [0.5, 0.5, 0.5, 0.5]
    """

    enhance: Callable[..., Any]
    name: str

    @property
    def uses_lips(self) -> bool:
        """Whether the enhancer takes visual features."""
        return bool(getattr(self.enhance, "uses_lips", False))

    @property
    def visual_encoder(self) -> Any:
        """Visual encoder of an enhancer that uses lips."""
        return getattr(self.enhance, "visual_encoder", None)

    def __call__(self, wave: np.ndarray, sample_rate_hz: int, **given: Any) -> np.ndarray:
        """Prediction ``(sample,)``, checked; ``given`` is handed on, as visual features are.

        Raises
        ------
        PredictorError
            If the enhancer raises whatever it may, but for lack of memory, or `check_prediction`
            does.
        """
        try:
            found = self.enhance(np.array(wave), sample_rate_hz, **given)
        except (PredictorError, MemoryError):
            raise
        except Exception as error:  # whatever another's program raises
            text = " ".join(str(error).split()) or "no reason given"
            raise PredictorError(
                f"predictor {self.name!r} failed on {len(wave)} samples at {sample_rate_hz} Hz: "
                f"{type(error).__name__}: {text}"
            ) from error
        return check_prediction(found, wave, self.name, sample_rate_hz)


def guard_enhancer(enhance: Callable[..., Any], name: str) -> GuardedEnhancer:
    """The same enhancer with its failures told as `PredictorError`; one that is stays as it is.

    Examples
    --------
    >>> halve = guard_enhancer(lambda wave, rate_hz: 0.5 * wave, "halve")
    >>> guard_enhancer(halve, "another") is halve
    True
    """
    return enhance if isinstance(enhance, GuardedEnhancer) else GuardedEnhancer(enhance, name)


def check_prediction(
    found: Any, mixture: np.ndarray, name: str, sample_rate_hz: int | None = None
) -> np.ndarray:
    """Prediction as an array as long as the mixture, and in time with it.

    Parameters
    ----------
    found
        What an enhancer returned.
    mixture
        What it was given, ``(sample,)``.
    name
        Of the predictor, for messages.
    sample_rate_hz
        For messages.

    Returns
    -------
    numpy.ndarray
        ``(sample,)``, float32.

    Raises
    ------
    PredictorError
        If it is no array of real numbers, has another shape, is not finite, is on another scale or
        of opposite sign, or is late or early. Silence passes: there may be no speech.

    Examples
    --------
    >>> import numpy as np
    >>> mixture = np.random.default_rng(0).normal(size=1000)
    >>> check_prediction(np.pad(mixture, (40, 0))[:1000], mixture, "mine")
    Traceback (most recent call last):
    avse_ppl.models.predictors.checks.PredictorError: predictor 'mine' comes 40 samples late...
    """
    title = f"predictor {name!r}"
    array = convert_prediction(found, title)
    if array.shape != mixture.shape:
        raise PredictorError(describe_shape(array.shape, len(mixture), title))
    broken = int((~np.isfinite(array)).sum())
    if broken:
        raise PredictorError(
            f"{title} returned {broken} of {array.size} samples that are NaN or infinite; expected "
            "finite numbers"
        )
    if not mixture.any() or not array.any():
        return array
    check_scale(array, mixture, title)
    if measure_gain_db(array, mixture) >= _FAINTEST_DB:  # what is left of silence has no delay
        check_alignment(array, mixture, title, sample_rate_hz)
    return array


def convert_prediction(found: Any, title: str) -> np.ndarray:
    """Array of float32 from what an enhancer returned.

    Raises
    ------
    PredictorError
        If it is no array of real numbers.
    """
    if hasattr(found, "detach"):  # a tensor of torch
        found = found.detach().cpu()
    try:
        array = np.asarray(found)
    except Exception:  # ragged lists, tensors of other devices
        array = np.asarray(None)
    if array.dtype.kind not in "fiu":
        what = type(found).__name__ if array.dtype.kind == "O" else f"numbers of {array.dtype}"
        raise PredictorError(f"{title} returned {what}; expected an array of real samples")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def describe_shape(shape: tuple[int, ...], samples: int, title: str) -> str:
    """Message on a prediction of another shape, with what is likely behind it."""
    text = f"{title} returned shape {shape} for {samples} samples; expected ({samples},)"
    if len(shape) != 1:
        return f"{text}: one channel, without further axes"
    ratio = shape[0] / samples
    for factor, words in _RATES.items():
        if abs(ratio / factor - 1) < 0.01:
            return (
                f"{text}. That is {words} as many: it seems to answer at another sampling rate. "
                "Resample its answer to the rate that it was called with, or wrap it in "
                "avse_ppl.models.predictors.adapters.adapt_enhancer(..., sample_rate_hz=...)"
            )
    side = "padded" if shape[0] > samples else "cut to whole frames"
    return f"{text}. It seems to be {side}: return as many samples as it was given"


def measure_gain_db(prediction: np.ndarray, mixture: np.ndarray) -> float:
    """Power of a prediction beside that of the mixture, dB; neither is silent."""
    ours, theirs = (np.linalg.norm(wave.astype(np.float64)) for wave in (mixture, prediction))
    return 20 * float(np.log10(theirs / ours))


def check_scale(prediction: np.ndarray, mixture: np.ndarray, title: str) -> None:
    """Raise `PredictorError` if a prediction is on another scale, or of opposite sign."""
    ours, theirs = (wave.astype(np.float64) for wave in (mixture, prediction))
    power, own = float(ours @ ours), float(theirs @ theirs)
    gain_db = measure_gain_db(prediction, mixture)
    likeness = float(ours @ theirs) / np.sqrt(power * own)
    if gain_db > _LOUDEST_DB or (gain_db < _FAINTEST_DB and likeness > 0.9):
        raise PredictorError(
            f"{title} returned a waveform {abs(gain_db):.0f} dB "
            f"{'louder' if gain_db > 0 else 'fainter'} than the mixture; expected speech on the "
            "scale of the mixture. Samples of 16 bits are divided by 32768"
        )
    if likeness < -0.5:
        raise PredictorError(
            f"{title} returned speech of opposite sign (correlation {likeness:.2f} with the "
            "mixture); return its negative"
        )


def check_alignment(
    prediction: np.ndarray, mixture: np.ndarray, title: str, sample_rate_hz: int | None = None
) -> None:
    """Raise `PredictorError` if a prediction is late or early.

    By the lag at which mixture and prediction correlate most, if it stands out from no lag and
    from chance.
    """
    rate_hz = sample_rate_hz or 16000
    lags, correlation = cross_correlate(
        Audio(np.asarray(mixture, np.float32), rate_hz), Audio(prediction, rate_hz), _LONGEST_S
    )
    best = int(correlation.argmax())
    lag, peak = int(lags[best]), float(correlation[best])
    aligned = float(correlation[np.abs(lags) <= _TOLERANCE].max())
    chance = _CHANCE * float(np.linalg.norm(mixture) * np.linalg.norm(prediction))
    if peak <= chance or peak <= _SHARPER * aligned:
        return
    duration = f" ({abs(lag) / sample_rate_hz * 1e3:.1f} ms)" if sample_rate_hz else ""
    remedy = (
        "wrap it in avse_ppl.models.predictors.adapters.adapt_enhancer(..., "
        f"delay_samples={lag}), or state delay_samples in its description"
        if lag > 0
        else "drop what it puts before the first sample"
    )
    raise PredictorError(
        f"{title} comes {abs(lag)} samples{duration} {'late' if lag > 0 else 'early'}; expected "
        f"speech in time with the mixture: {remedy}"
    )
