"""What the names on the command line and in `enhance` stand for."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from avse_ppl.inference import EM, HMC, NUTS, SVI, Exact, GuidedDiffusion, NumPyroNUTS, UDiffSE
from avse_ppl.models import load_speech, parse_noise, pretrained_names
from avse_ppl.models.scene import NoiseModel, SpeechPrior
from avse_ppl.models.speech.diffusion import denoises
from avse_ppl.models.validation import unknown_name
from avse_ppl.models.visual.reliability import RELIABILITIES

DEFAULT_SPEECH, DEFAULT_SEEING = "tcvae", "av-dkf"  # without and with video
NOISES: Mapping[str, str] = MappingProxyType(
    {
        "nmf": "sum of a few spectra, each with its own activation over time (the default)",
        "stationary": "one unknown spectrum for the whole recording",
        "ar1": "one unknown spectrum whose level wanders",
        "student-t": "one unknown spectrum with heavy tails, bin by bin; student-t(4) fixes them",
        "alpha-stable": "one unknown spectrum with impulses; alpha-stable(1.8) fixes how strong",
        "hum": "lines at the multiples of 50 Hz, or hum(60); to be added to others",
        "clicks": "rare broadband bursts; to be added to others",
        "wind": "gusts of low-frequency rumble; to be added to others",
        "learned": "learned from recorded noises; learned('DIR') takes weights of your own",
    }
)
INFERENCE_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "svi": "mean-field variational posterior over all latents (the default)",
        "svi-structured": "variational, each latent that changes over time a chain",
        "svi-low-rank": "variational, with a few directions common to all latents",
        "em": "point estimate by expectation-maximisation",
        "em-langevin": "Langevin draws of the speech latents, point estimate of the noise",
        "nuts": "Hamiltonian draws from the posterior itself; a minute for each second of audio",
        "numpyro-nuts": "the same on JAX, compiled: a minute or two for a few seconds of audio",
        "hmc": "Hamiltonian draws by trajectories of a given number of steps",
        "em-mala": "Metropolis-adjusted Langevin draws of speech, point estimate of the noise",
        "em-mh": "random walk Metropolis draws of speech, point estimate of the noise",
        "em-variational": "mean-field posterior of speech, point estimate of the noise",
        "guided": "reverse diffusion; for the speech priors score and latent-diffusion",
        "guided-udiffse": "the published guided diffusion, for comparison; tempered, slow",
        "exact": "closed form or grid; for the Gaussian prior with at most one noise unknown",
    }
)


# What a name stands for, where it is not the routine's own defaults: after the warm start few steps
# do, and for the mean of independent draws few draws.
_SVI = MappingProxyType({"steps": 13, "moment_draws": 20, "k_hat_draws": 50})
_EM: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "em": {},
        "em-langevin": {"rounds": 100, "step_size": 0.4, "tempering": 0.4},
        "em-mala": {
            "rounds": 80, "e_steps": 3, "step_size": 0.2, "warm_up": 40, "tempering": 0.4
        },
        "em-mh": {"rounds": 80, "e_steps": 6, "step_size": 1.0, "warm_up": 40, "tempering": 0.4},
        "em-variational": {"rounds": 60, "step_size": 0.1, "tempering": 0.4},
    }
)  # fmt: skip
_GUIDED = MappingProxyType({"start": "latent-diffusion", "start_seeing": "av-dkf"})
_CHAINS = MappingProxyType({"draws": 50, "warmup": 50, "chains": 2})
_NUMPYRO = MappingProxyType({"draws": 200, "warmup": 225, "chains": 2})
_NUTS = MappingProxyType({**_CHAINS, "max_tree_depth": 6})


def speech_names() -> dict[str, str]:
    """Names of the speech priors, with a line on each."""
    lines = {"gaussian": "long-term speech spectrum with a gain per frame; no learned weights"}
    for name in pretrained_names():
        lines[name] = f"learned prior shipped with the library; see 'avse-ppl models {name}'"
    return lines


def resolve_speech(speech: str | Path | SpeechPrior | None, sees: bool = False) -> Any:
    """Speech prior from a name, a folder of weights, or itself; None: the default.

    ``sees`` says whether there is video, which the default depends on.
    """
    if speech is None:
        speech = DEFAULT_SEEING if sees else DEFAULT_SPEECH
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
    2
    >>> len(resolve_noise("nmf(8)+hum(50)").parts)
    2
    """
    if not isinstance(noise, str):
        return noise
    return parse_noise(noise, _imported)


def resolve_reliability(reliability: Any) -> Any:
    """Model of visual reliability from a name, or itself; None: the default, ``"score"``.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> resolve_reliability("markov").persistence
    0.97
    """
    reliability = "score" if reliability is None else reliability
    if not isinstance(reliability, str):
        return reliability
    if reliability not in RELIABILITIES:
        raise unknown_name("model of reliability", reliability, RELIABILITIES)
    return RELIABILITIES[reliability]


def default_inference(speech: Any) -> str:
    """Name of the routine that a speech prior is inverted with unless another is asked for.

    Examples
    --------
    >>> default_inference(load_speech("gaussian"))
    'svi'
    """
    return "guided" if denoises(speech) else "svi"


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
    if inference not in INFERENCE_METHODS:
        raise unknown_name("inference routine", inference, INFERENCE_METHODS)
    if inference == "exact":
        return Exact(**settings)
    if inference == "svi":
        return SVI(**{**_SVI, **settings})
    if inference == "guided":
        return GuidedDiffusion(**{**_GUIDED, **settings})
    if inference == "guided-udiffse":
        settings.pop("draws", None)  # each chain leaves one
        return UDiffSE(**settings)
    if inference.startswith("svi-"):
        return SVI(**{"guide": inference.removeprefix("svi-"), **settings})
    if inference == "nuts":
        return NUTS(**{**_NUTS, **_of_chains(settings)})
    if inference == "numpyro-nuts":
        return NumPyroNUTS(**{**_NUMPYRO, **_of_chains(settings)})
    if inference == "hmc":
        return HMC(**{**_CHAINS, **_of_chains(settings)})
    e_step = inference.removeprefix("em").lstrip("-") or "point"
    return EM(**{"e_step": e_step, **_EM[inference], **settings})


def _of_chains(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of chains, whose length is their own: ``draws`` is how many waveforms to keep."""
    own = dict(settings)
    draws = own.pop("draws", True)
    return {**own, "waveforms": draws if own.get("waveforms", True) else False}


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
