"""Checks of a scene before inference, and the errors that explain what is wrong with it."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from pyro import poutine
from pyro.distributions import ImproperUniform
from pyro.poutine.messenger import Messenger
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.handlers import MIXTURE, is_deterministic, recording_plate
from avse_ppl.models.protocols import name_of
from avse_ppl.models.scene import Scene
from avse_ppl.signal.stft import Frames, Spectrogram

# Sites of the scene itself, its plates, and variables and dimensions of a posterior's file.
RESERVED = (
    "mixture", "speech", "recording", "freq", "time", "chain", "draw", "freq_hz", "time_s",
    "sample_s",
)  # fmt: skip
_PRIOR_RUNS = 3
_WRAPPERS = ("Independent", "MaskedDistribution", "ExpandedDistribution")
_SHAPE_HINT = (
    ". Did you forget plate('freq', frames.freq, dim=-2) or plate('time', frames.time, dim=-1)?"
)
_AXIS_HINT = (
    ". Frequencies lie one axis too far left: frames.freq_hz is (freq, 1) as it is, and "
    "frames.time_s is (time,), so that both broadcast to (freq, time) without a further axis."
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

Message = dict[str, Any]


class SiteRecorder(Messenger):
    """Record the sample sites of a model, also of one that fails on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[Message] = []
        self.subsampled: list[str] = []
        self.trained: list[str] = []

    def _pyro_sample(self, msg: Message) -> None:
        fn: Any = msg["fn"]
        if type(fn).__name__ != "_Subsample":  # which is a plate's own
            self.sites.append(msg)
        elif fn.subsample_size not in (None, fn.size):
            self.subsampled.append(msg["name"])

    def _pyro_param(self, msg: Message) -> None:
        # A frozen parameter of a module is a constant; whatever else asks to be trained.
        first = msg["args"][1] if len(msg["args"]) > 1 else None
        if not (isinstance(first, torch.nn.Parameter) and not first.requires_grad):
            self.trained.append(msg["name"])


def check_scene(scene: Scene, mixture: Spectrogram) -> poutine.Trace:
    """Trace a scene once and explain what is wrong with it.

    Parameters
    ----------
    scene, mixture
        Scene, and the recording that its posterior is wanted of.

    Returns
    -------
    poutine.Trace
        The trace, whose sample sites inference reads.

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
        check_model(scene.speech, (mixture.frames, mixture.frames.visual), "speech prior", mixture)
        check_model(scene.noise, (mixture.frames,), "noise model", mixture)
    try:
        trace = poutine.trace(scene).get_trace(mixture)
    except Exception as error:
        raise ValueError(f"the scene cannot be run: {explain_error(error)}") from error
    for name, site in cast(Mapping[str, Any], trace.nodes).items():
        if site["type"] == "sample" and not site["is_observed"]:
            shape = tuple(site["fn"].batch_shape)
            if len(shape) != 3 or shape[0] != mixture.recordings:
                raise ValueError(
                    f"site {name!r} has batch shape {shape}; expected (recording="
                    f"{mixture.recordings}, ., .). Use dims -2 and -1 only for your own plates."
                )
            if not bool(torch.isfinite(site["fn"].log_prob(site["value"]).detach()).all()):
                raise improper_prior(name, site["fn"], "has no finite density at its own draw")
        elif site["type"] == "sample" and name != MIXTURE and not is_deterministic(site):
            check_evidence(name, site, mixture.recordings)
    check_unchanging(scene, mixture.frames)
    return trace


def check_front_end(scene: Scene, mixture: Spectrogram) -> None:
    """Raise ValueError unless the mixture was analysed as the speech prior wants it."""
    if scene.stft != mixture.stft:
        raise ValueError(
            f"the mixture was analysed with {mixture.stft}, but the speech prior was made for "
            f"{scene.stft}; use scene.stft.analyse(samples), or pass the samples themselves"
        )


def check_model(model: object, arguments: tuple, role: str, mixture: Spectrogram) -> None:
    """Run a noise model or speech prior; raise as `check_scene` does if it breaks its contract."""
    title = f"{role} {name_of(model)!r}"
    frames: Frames = mixture.frames
    recorder = SiteRecorder()
    try:
        with recorder:
            law = model(*arguments)  # type: ignore[operator]
    except Exception as error:
        check_sites(title, recorder)  # a bad site may be why
        raise ValueError(f"{title} failed: {explain_error(error)}") from error
    check_sites(title, recorder)
    if not isinstance(law, ComplexNormal):
        found = type(law).__name__
        if isinstance(law, Tensor):
            found = f"a tensor of shape {tuple(law.shape)}"
        raise TypeError(f"{title} returned {found}; expected ComplexNormal(mean, power)")
    expected = (mixture.recordings, frames.freq, frames.time)
    try:
        fits = np.broadcast_shapes(law.batch_shape, expected) == expected
    except ValueError:
        fits = False
    if not fits:
        recordings, freq, time = expected
        raise ValueError(
            f"{title} returned shape {tuple(law.batch_shape)}; expected something broadcastable to "
            f"(recording={recordings}, freq={freq}, time={time})"
            f"{_AXIS_HINT if freq in law.batch_shape[:-2] else _SHAPE_HINT}"
        )
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


def check_sites(title: str, recorder: SiteRecorder) -> None:
    """Raise for the first site of a model that cannot be inferred.

    Parameters
    ----------
    title
        What the model is called in messages.
    recorder
        Its sites.

    Raises
    ------
    ValueError
        If a name is reserved or used twice, a plate takes a random part of its rows, a parameter
        asks to be trained, or a latent is discrete, complex, or without a proper prior.
    """
    for name, count in Counter(site["name"] for site in recorder.sites).items():
        if count > 1:
            raise ValueError(
                f"{title} samples {name!r} {count} times; expected one site of a name. In a loop, "
                f'number them, f"{name}_{{i}}", or sample them together on a plate.'
            )
        if name in RESERVED or name.startswith("_"):
            raise ValueError(
                f"site {name!r} of {title} has a reserved name; the scene and the posterior's file "
                f"use {', '.join(RESERVED)}, and names that start with '_'. Call it "
                f"'noise.{name.lstrip('_')}', for instance."
            )
        if "/" in name or not name:
            raise ValueError(
                f"site {name!r} of {title} cannot be stored: expected a name without '/', which "
                f"NetCDF takes for a group. Call it {name.replace('/', '.') or 'noise.level'!r}."
            )
    for name in recorder.subsampled:
        raise ValueError(
            f"plate {name!r} of {title} takes a random part of its rows each time; expected all of "
            "them, so that the density is the same each time. Leave subsample_size out."
        )
    for name in recorder.trained:
        raise ValueError(
            f"{title} has a parameter {name!r} (pyro.param, or one of a module), which no "
            "inference method trains: the posterior is over latents. Sample it from a prior with "
            "pyro.sample, fix it as a number, or freeze the module with requires_grad_(False)."
        )
    for site in recorder.sites:
        if not site["is_observed"]:
            check_prior(site["name"], site)


def check_evidence(name: str, site: Message, recordings: int) -> None:
    """Raise ValueError unless an observation or a factor has one finite density a recording."""
    kind = "factor" if type(site["fn"]).__name__ == "Unit" else "observed site"
    shape = tuple(site["fn"].batch_shape)
    terms = site["fn"].log_prob(site["value"]).detach()
    if terms.ndim != 3 or terms.shape[0] not in (1, recordings):
        raise ValueError(
            f"{kind} {name!r} has batch shape {shape}; expected (recording={recordings}, ., .). "
            "Use dims -2 and -1 only for your own plates."
        )
    mask = site["mask"]
    if isinstance(mask, Tensor):
        terms = torch.where(mask, terms, terms.new_zeros(()))
    if mask is not False and not bool(torch.isfinite(terms).all()):
        raise ValueError(
            f"{kind} {name!r} has a log density that is not finite; expected a number wherever "
            "the latents may lie. Is the observation outside of the support of its distribution?"
        )


def check_prior(name: str, site: Message) -> None:
    """Raise ValueError for a latent that is discrete, complex, or without a proper prior."""
    law, value = site["fn"], site["value"]
    masks = (site["mask"], getattr(law, "_mask", None))
    masked = any(m is False or (isinstance(m, Tensor) and not bool(m.all())) for m in masks)
    if isinstance(unwrap_distribution(law), ImproperUniform) or masked:
        raise improper_prior(name, law, "is flat or masked, and has no integral")
    whole = isinstance(value, Tensor) and value.dtype in (torch.int64, torch.bool)
    if getattr(law.support, "is_discrete", False) or whole:
        raise ValueError(
            f"site {name!r} is discrete ({type(law).__name__}); the gradient-based methods need "
            "continuous latents. Use a relaxed law (Beta, RelaxedBernoulli) or sum it out."
        )
    if value is None:  # the model failed before
        return
    if value.is_complex():
        raise ValueError(
            f"site {name!r} is complex; expected real latents. Return ComplexNormal(mean, power) "
            "instead of sampling it: the scene integrates over it exactly."
        )
    if not bool(torch.isfinite(value.detach()).all()):
        raise improper_prior(name, law, "gave a draw that is not finite")


def improper_prior(name: str, law: Any, what: str) -> ValueError:
    """Error for a prior that has no density or no integral."""
    kind = type(unwrap_distribution(law)).__name__
    return ValueError(
        f"the prior of {name!r} ({kind}) {what}; with it the posterior need not exist. Use a "
        "proper prior whose draws are finite numbers, for instance LogNormal(0.0, 2.0), or Uniform "
        "between finite bounds."
    )


def unwrap_distribution(law: Any) -> Any:
    """Distribution inside of what expands, masks or reinterprets it."""
    while hasattr(law, "base_dist") and type(law).__name__ in _WRAPPERS:
        law = law.base_dist
    return law


def check_unchanging(scene: Scene, frames: Frames) -> None:
    """Raise if which sites there are, or their shapes or supports, depend on what is drawn.

    The scene is run on a few draws of its prior for one recording, seeded apart from everything
    else.

    Raises
    ------
    ValueError
        If the sites of one run are not those of the next.
    """
    one, *others = (draw_sites(scene, frames.take_first(), seed) for seed in range(_PRIOR_RUNS))
    check_repeatable(scene, frames.take_first(), one)
    for other in others:
        changing = sorted(set(one) ^ set(other))
        if changing:
            raise ValueError(
                f"site {changing[0]!r} is there in some runs of the scene and not in others; "
                "expected the same sites whatever the others' values are. Sample it always, and "
                "choose with torch.where or a smooth weight."
            )
        for name, site in one.items():
            shapes = tuple(site["value"].shape), tuple(other[name]["value"].shape)
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"site {name!r} has shape {shapes[0]} in one run of the scene and {shapes[1]} "
                    "in another; expected one shape whatever the other latents are. Sample the "
                    "largest, and mask what is not used."
                )
            if not same_support(site["fn"].support, other[name]["fn"].support):
                kind = type(unwrap_distribution(site["fn"])).__name__
                raise ValueError(
                    f"the support of {name!r} ({kind}) depends on other latents; expected the same "
                    "bounds always. Sample on fixed bounds, for instance Uniform(0.0, 1.0), and "
                    "scale the value in the model."
                )


def check_repeatable(scene: Scene, frames: Frames, sites: Mapping[str, Message]) -> None:
    """Raise ValueError if the laws of the scene differ from run to run, its latents given."""
    values = {name: site["value"] for name, site in sites.items()}
    powers = []
    for seed in range(2):
        with (
            torch.random.fork_rng(devices=[frames.device] if frames.device.type == "cuda" else []),
            torch.no_grad(),
            poutine.block(),
            poutine.condition(data=values),
            recording_plate(1, validated=False),
        ):
            torch.manual_seed(seed)
            laws = scene.laws(frames)
            powers.append([laws.speech.power, laws.noise.power])
    for model, one, other in zip((scene.speech, scene.noise), *powers, strict=True):
        if not torch.equal(one, other):
            raise ValueError(
                f"{name_of(model)!r} returns another power each time, all latents being the same; "
                "expected one that depends on its sites alone. Draw random numbers with "
                "pyro.sample, outside of poutine.block."
            )


def draw_sites(scene: Scene, frames: Frames, seed: int) -> dict[str, Message]:
    """Latents of the scene at one draw of its prior."""
    device = frames.device
    recorder = SiteRecorder()
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.no_grad(),
        poutine.block(),
        recorder,
        recording_plate(1, validated=False),
    ):
        torch.manual_seed(seed)
        scene.laws(frames)
    return {site["name"]: site for site in recorder.sites if not site["is_observed"]}


def same_support(one: Any, other: Any) -> bool:
    """Whether two supports are of one kind with the same bounds."""
    while hasattr(one, "base_constraint") and hasattr(other, "base_constraint"):
        one, other = one.base_constraint, other.base_constraint
    return type(one) is type(other) and all(
        torch.equal(torch.as_tensor(getattr(one, bound)), torch.as_tensor(getattr(other, bound)))
        for bound in ("lower_bound", "upper_bound")
        if hasattr(one, bound)
    )


def explain_error(error: Exception) -> str:
    """One-line text of an error of Pyro or torch, with a hint on how to fix it."""
    text = str(error) or type(error).__name__
    brief = text.split("Trace Shapes:")[0].split("Try moving the dim")[0]
    hint = next((hint for sign, hint in _HINTS.items() if sign in text), "")
    return " ".join(brief.split()) + hint


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


def check_not_negative(what: str, value: object) -> None:
    """Raise unless ``value`` is a finite number, 0 or more."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"{what} must be a finite number, 0 or more, not {value!r}")


def check_share(what: str, value: object) -> None:
    """Raise unless ``value`` is a number in [0, 1)."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise ValueError(f"{what} must be in [0, 1), not {value!r}")


def check_speeds(what: str, values: object) -> None:
    """Raise unless ``values`` are speeds of playing, each a number in [0.5, 2]."""
    if not isinstance(values, list | tuple):
        raise ValueError(f"{what} must be a list of numbers, not {values!r}")
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0.5 <= value <= 2:
            raise ValueError(f"{what} must be numbers in [0.5, 2]; found {value!r}")
