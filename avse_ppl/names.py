"""What the names on the command line and in `enhance` stand for."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from avse_ppl.checks import unknown_name
from avse_ppl.inference import EM, SVI, Exact
from avse_ppl.models import NMF, load_speech, pretrained_names, stationary
from avse_ppl.scene import NoiseModel, SpeechPrior

NOISES: Mapping[str, str] = MappingProxyType(
    {
        "nmf": "sum of a few spectra, each with its own activation over time (the default)",
        "stationary": "one unknown spectrum for the whole recording",
    }
)
ROUTINES: Mapping[str, str] = MappingProxyType(
    {
        "svi": "mean-field variational posterior over all latents (the default)",
        "em": "point estimate by expectation-maximisation",
        "em-langevin": "Langevin draws of the speech latents, point estimate of the noise",
        "exact": "closed form or grid; for the Gaussian prior with at most one noise unknown",
    }
)


# What a name stands for, where it is not the routine's own defaults: after the warm start few steps
# do, and for the mean of independent draws few draws.
_SVI = MappingProxyType({"steps": 40, "moment_draws": 20})
_LANGEVIN = MappingProxyType({"rounds": 100, "step_size": 0.4, "tempering": 0.4})


def speech_names() -> dict[str, str]:
    """Names of the speech priors, with a line on each."""
    lines = {"gaussian": "long-term speech spectrum with a gain per frame; no learned weights"}
    for name in pretrained_names():
        lines[name] = f"learned prior shipped with the library; see 'avse-ppl models {name}'"
    return lines


def resolve_speech(speech: str | Path | SpeechPrior) -> Any:
    """Speech prior from a name, a folder of weights, or itself."""
    return load_speech(speech) if isinstance(speech, (str, Path)) else speech


def resolve_noise(noise: str | NoiseModel) -> NoiseModel:
    """Noise model from a name, ``module:function``, or itself.

    Raises
    ------
    ValueError
        If the name, module or function is unknown.

    Examples
    --------
    >>> resolve_noise("nmf").rank
    2
    """
    if not isinstance(noise, str):
        return noise
    if ":" in noise:
        return _imported(noise)
    if noise not in NOISES:
        raise unknown_name("noise model", noise, [*NOISES, "module:function"])
    return NMF() if noise == "nmf" else stationary


def resolve_inference(inference: str | Callable[..., Any], **settings: Any) -> Any:
    """Routine from a name, with settings, or itself.

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
    if inference not in ROUTINES:
        raise unknown_name("inference routine", inference, ROUTINES)
    if inference == "exact":
        return Exact(**settings)
    if inference == "svi":
        return SVI(**{**_SVI, **settings})
    if inference == "em-langevin":
        return EM(e_step="langevin", **{**_LANGEVIN, **settings})
    return EM(**settings)


def _imported(path: str) -> NoiseModel:
    """Import ``module:function``, looking in the current folder first."""
    module_name, _, function = path.partition(":")
    if not module_name or not function or module_name.endswith(".py"):
        raise ValueError(
            f"noise {path!r} is not of the form module:function; for a function hiss in "
            "my_noise.py, write my_noise:hiss"
        )
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.split(".")[0] and error.name != module_name:
            raise ValueError(f"{module_name}.py imports {error.name!r}, which is missing") from None
        raise ValueError(
            f"no module {module_name!r} for noise {path!r}; expected {module_name}.py in "
            f"{Path.cwd()} or an installed module"
        ) from None
    except Exception as error:
        raise ValueError(f"module {module_name!r} failed on import: {error!r}") from error
    model = getattr(module, function, None)
    if not callable(model):
        names = [n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_")]
        close = difflib.get_close_matches(function, names, n=3)
        raise ValueError(
            f"module {module_name!r} has no function {function!r}"
            + (f"; did you mean {' or '.join(map(repr, close))}?" if close else "")
        )
    return cast(NoiseModel, model)
