"""What is asked of a scene before inference, and the texts that say what is wrong with it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, cast

import torch
from pyro import poutine
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.handlers import recording_plate
from avse_ppl.models.scene import Scene
from avse_ppl.models.site_validation import Watch, check_density, check_sites, check_unchanging
from avse_ppl.signal.stft import Frames, Spectrogram


def check_scene(scene: Scene, mixture: Spectrogram) -> poutine.Trace:
    """Trace a scene once and explain what is wrong with it.

    Parameters
    ----------
    scene, mixture
        What is about to be inverted, and on what.

    Returns
    -------
    poutine.Trace
        The trace, whose sample sites the routines read.

    Raises
    ------
    TypeError
        If speech or noise is not callable, or does not return a ``ComplexNormal``.
    ValueError
        If a law has the wrong shape, a power is not positive, a power or mean is NaN or infinite,
        the front ends differ, a latent lies on the wrong plate, is discrete or complex, has a
        reserved name, no proper prior, or a support or shape that depends on other latents, or an
        error arises inside a model.

    Examples
    --------
    >>> import numpy as np
    >>> from avse_ppl import GaussianSpeech, Stft
    >>> mixture = Stft().analyse(np.ones(2000, "float32"))
    >>> check_scene(Scene(GaussianSpeech(), lambda frames: 1.0), mixture)
    Traceback (most recent call last):
    TypeError: noise model '<lambda>' returned float; expected ComplexNormal(mean, power)
    """
    for role, model in (("speech prior", scene.speech), ("noise model", scene.noise)):
        if not callable(model):
            raise TypeError(
                f"{role} must be a function of frames, found {type(model).__name__}: {model!r}"
            )
    check_front_end(scene, mixture)
    with (
        poutine.block(),
        # A power that is not positive is explained below, in our words.
        recording_plate(mixture.recordings, validated=False),
    ):
        _check_law(scene.speech, (mixture.frames, mixture.frames.visual), "speech prior", mixture)
        _check_law(scene.noise, (mixture.frames,), "noise model", mixture)
    try:
        trace = poutine.trace(scene).get_trace(mixture)
    except Exception as error:
        raise ValueError(f"the scene cannot be run: {_reason(error)}") from error
    for name, site in cast(Mapping[str, Any], trace.nodes).items():
        if site["type"] == "sample" and not site["is_observed"]:
            _check_site(name, site, mixture)
            check_density(name, site)
    check_unchanging(scene, mixture.frames)
    return trace


def check_front_end(scene: Scene, mixture: Spectrogram) -> None:
    """Raise ValueError unless the mixture was analysed as the speech prior wants it."""
    if scene.stft != mixture.stft:
        raise ValueError(
            f"the mixture was analysed with {mixture.stft}, but the speech prior was made for "
            f"{scene.stft}; use scene.stft.analyse(samples), or pass the samples themselves"
        )


def _check_law(model: object, arguments: tuple, role: str, mixture: Spectrogram) -> None:
    title = f"{role} {name_of(model)!r}"
    frames: Frames = mixture.frames
    watch = Watch()
    try:
        with watch:
            law = model(*arguments)  # type: ignore[operator]
    except Exception as error:
        check_sites(title, watch)  # a bad site may be why
        raise ValueError(f"{title} failed: {_reason(error)}") from error
    check_sites(title, watch)
    if not isinstance(law, ComplexNormal):
        raise TypeError(f"{title} returned {_kind(law)}; expected ComplexNormal(mean, power)")
    expected = (mixture.recordings, frames.freq, frames.time)
    _check_shape(title, tuple(law.batch_shape), expected)
    power = law.power.detach()
    for what, values in (("power", power), ("mean", law.mean.detach())):
        if not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"{title} returned a {what} with NaN or infinity; expected finite numbers"
            )
    if bool((power <= 0).any()):
        raise ValueError(
            f"{title} returned a power with minimum {float(power.min()):.3g}; expected positive "
            "numbers. Sample scales from LogNormal, Gamma or Exponential, or add a small floor."
        )


_SHAPE_HINT = (
    ". Did you forget plate('freq', frames.freq, dim=-2) or plate('time', frames.time, dim=-1)?"
)
# What an error of Pyro or torch says, and what to do about it; the first that fits.
_HINTS = MappingProxyType(
    {
        "collide": ". Use dims -2 and -1 only: dim=-3 is that of the plate over recordings.",
        "Multiple sample sites": ". Give the sites of speech and noise different names.",
        "Expected parameter": "",  # it names a shape, but is about values
        "shape": _SHAPE_HINT,
        "broadcast": _SHAPE_HINT,
        "size": _SHAPE_HINT,
    }
)


def _reason(error: Exception) -> str:
    """Text of an error in one line, without Pyro's tables and advice, and with ours."""
    text = str(error) or type(error).__name__
    brief = text.split("Trace Shapes:")[0].split("Try moving the dim")[0]
    hint = next((hint for sign, hint in _HINTS.items() if sign in text), "")
    return " ".join(brief.split()) + hint


def _check_shape(title: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    try:
        fits = torch.broadcast_shapes(found, expected) == torch.Size(expected)
    except RuntimeError:
        fits = False
    if not fits:
        recordings, freq, time = expected
        raise ValueError(
            f"{title} returned shape {found}; expected something broadcastable to "
            f"(recording={recordings}, freq={freq}, time={time}){_SHAPE_HINT}"
        )


def _check_site(name: str, site: dict, mixture: Spectrogram) -> None:
    shape = tuple(site["fn"].batch_shape)
    if len(shape) != 3 or shape[0] != mixture.recordings:
        raise ValueError(
            f"site {name!r} has batch shape {shape}; expected (recording="
            f"{mixture.recordings}, ., .). Use dims -2 and -1 only for your own plates."
        )


def name_of(model: object) -> str:
    """Return what a model is called in messages and reports."""
    return str(
        getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__
    )


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return type(value).__name__


def unknown_name(what: str, name: str, known: Iterable[str]) -> ValueError:
    """Error for a name that is not known, with the close matches."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    return ValueError(f"unknown {what} {name!r}; known are {', '.join(names)}{hint}")


def check_count(what: str, value: object, minimum: int = 1) -> None:
    """Raise unless ``value`` is a whole number of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{what} must be a whole number of at least {minimum}, not {value!r}")


def check_positive(what: str, value: float) -> None:
    """Raise unless ``value`` is a finite number above 0."""
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{what} must be a finite number above 0, not {value!r}")
