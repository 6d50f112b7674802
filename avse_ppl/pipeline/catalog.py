"""Names of models and inference methods, and the objects and defaults they stand for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from avse_ppl.inference import UDiffSE, presets
from avse_ppl.inference.base import InferenceMethod, Progress
from avse_ppl.inference.mcmc.hmc import HamiltonianMonteCarlo
from avse_ppl.models import load_speech, parse_noise, pretrained_names
from avse_ppl.models.noise.parse import MODELS
from avse_ppl.models.predictors.adapters import COMBINED, NO_PREDICTOR, PREDICTORS
from avse_ppl.models.predictors.adapters import resolve_predictor as load_predictor
from avse_ppl.models.predictors.network import DEFAULT_PREDICTOR
from avse_ppl.models.predictors.predictor import Predictor
from avse_ppl.models.scene import NoiseModel, SpeechPrior
from avse_ppl.models.speech.diffusion import denoises
from avse_ppl.models.validation import unknown_name
from avse_ppl.models.visual.reliability import RELIABILITIES
from avse_ppl.utils.imports import import_function

DEFAULT_SPEECH, DEFAULT_AV_SPEECH = "tcvae", "av-dkf"  # without and with video
DEFAULT_PREDICTORS = (COMBINED, DEFAULT_PREDICTOR)  # the first that is installed
NOISE_MODELS: Mapping[str, str] = MappingProxyType(
    {name: entry.description for name, entry in MODELS.items()}
)
RELIABILITY_MODELS: Mapping[str, str] = MappingProxyType(
    {
        name: (inspect.getdoc(model) or "").partition("\n")[0]
        for name, model in RELIABILITIES.items()
    }
)
INFERENCE_METHODS: Mapping[str, str] = MappingProxyType(
    {name: preset.description for name, preset in presets.items()}
)


def speech_names() -> dict[str, str]:
    """Names of the speech priors, with a line on each."""
    lines = {"gaussian": "long-term speech spectrum with a gain per frame; no learned weights"}
    for name in pretrained_names():
        lines[name] = f"learned prior shipped with the library; see 'avse-ppl models {name}'"
    return lines


def resolve_speech(speech: str | Path | SpeechPrior | None, with_video: bool = False) -> Any:
    """Speech prior from a name, a folder of weights, or itself; None: the default.

    The default is audio-visual ``with_video``.
    """
    if speech is None:
        speech = DEFAULT_AV_SPEECH if with_video else DEFAULT_SPEECH
    return load_speech(speech) if isinstance(speech, (str, Path)) else speech


def resolve_noise(noise: str | NoiseModel) -> NoiseModel:
    """Noise model from a name, ``module:function``, a sum of them, or itself.

    Raises
    ------
    ValueError
        If the name, module or function is unknown, or what stands in brackets is not what the
        model takes.

    Examples
    --------
    >>> resolve_noise("nmf").rank
    4
    >>> len(resolve_noise("nmf(8)+hum(50)").parts)
    2
    """
    if not isinstance(noise, str):
        return noise
    return parse_noise(noise, import_noise)


def resolve_reliability(reliability: Any) -> Any:
    """Model of visual reliability from a name, or itself; None: the default, ``"soft"``.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> resolve_reliability("switching").persistence
    0.97
    """
    reliability = "soft" if reliability is None else reliability
    if not isinstance(reliability, str):
        return reliability
    if reliability not in RELIABILITIES:
        raise unknown_name("model of reliability", reliability, RELIABILITIES)
    return RELIABILITIES[reliability]


def resolve_predictor(predictor: Any, inference: Any) -> Predictor | None:
    """Predictor from whatever stands for one, see `adapters`; None: the default for a method.

    Raises
    ------
    PredictorError
        If a file, a package or a module is missing or cannot be used.
    ValueError
        If a name is unknown.

    Examples
    --------
    >>> resolve_predictor("none", "svi") is None
    True
    """
    return load_predictor(default_predictor(inference) if predictor is None else predictor)


def default_predictor(inference: Any) -> str:
    """Name of the predictor that is taken unless another is asked for, or ``"none"``.

    The first of `DEFAULT_PREDICTORS` that is installed, if the inference method takes one.

    Examples
    --------
    >>> default_predictor("exact")
    'none'
    """
    if getattr(resolve_inference(inference), "takes_predictor", False):
        for name in DEFAULT_PREDICTORS:
            if PREDICTORS[name].is_installed():
                return name
    return NO_PREDICTOR


def default_inference(speech: Any) -> str:
    """Name of the inference method for a speech prior unless another is asked for.

    Examples
    --------
    >>> default_inference(load_speech("gaussian"))
    'svi'
    """
    return "guided" if denoises(speech) else "svi"


def resolve_inference(inference: str | Callable[..., Any], **settings: Any) -> Any:
    """Inference method from a name, with settings, or itself.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> resolve_inference("svi", draws=10).draws
    10
    """
    if not isinstance(inference, str):
        return inference
    if inference not in INFERENCE_METHODS:
        raise unknown_name("inference method", inference, INFERENCE_METHODS)
    preset = presets[inference]
    if issubclass(preset.method, UDiffSE):
        settings.pop("draws", None)  # each chain leaves one
    if issubclass(preset.method, HamiltonianMonteCarlo):
        # Chains have a length of their own: ``draws`` is how many waveforms to keep.
        waveforms = settings.pop("draws", True)
        settings["waveforms"] = waveforms if settings.get("waveforms", True) else False
    return preset(**settings)


def set_time(
    method: Callable[..., Any], time_limit_s: float | None, progress: Progress | None
) -> Callable[..., Any]:
    """Inference method with a time limit and a progress hook, where they are given.

    A function in place of a method has neither, and stays as it is.

    Examples
    --------
    >>> set_time(resolve_inference("svi"), 10.0, None).time_limit_s
    10.0
    """
    given = {"time_limit_s": time_limit_s, "progress": progress}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(method, **changes) if isinstance(method, InferenceMethod) else method


def import_noise(path: str) -> NoiseModel:
    """Noise model ``module:function``; modules of the current folder come first.

    Raises
    ------
    ValueError
        If the module or the function is missing, or the module fails on import.
    """
    example = "for a function hiss in my_noise.py, write my_noise:hiss"
    return cast(NoiseModel, import_function(path, "noise", example))
