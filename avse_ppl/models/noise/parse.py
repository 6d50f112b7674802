"""Parser of noise models written as text, such as ``nmf(8)+hum(50)``; no code in it is run."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from avse_ppl.models.noise.basic import NMF, Stationary, stationary
from avse_ppl.models.noise.clicks import Clicks
from avse_ppl.models.noise.hum import Hum
from avse_ppl.models.noise.learned import load_noise
from avse_ppl.models.noise.modulated import AlphaStable, AR1Gain, StudentT
from avse_ppl.models.noise.sum import Sum
from avse_ppl.models.noise.wind import Wind
from avse_ppl.models.validation import unknown_name


class NoiseEntry(NamedTuple):
    """A named noise model: what makes it, and one line for users."""

    make: Callable[..., Any]
    description: str


MODELS: Mapping[str, NoiseEntry] = MappingProxyType(
    {
        "nmf": NoiseEntry(
            NMF, "sum of a few spectra, each with its own activation over time (the default)"
        ),
        "stationary": NoiseEntry(Stationary, "one unknown spectrum for the whole recording"),
        "ar1": NoiseEntry(AR1Gain, "one unknown spectrum whose gain wanders"),
        "student-t": NoiseEntry(
            StudentT, "one unknown spectrum with heavy tails, bin by bin; student-t(4) fixes them"
        ),
        "alpha-stable": NoiseEntry(
            AlphaStable,
            "one unknown spectrum with impulses; alpha-stable(1.8) fixes how strong",
        ),
        "hum": NoiseEntry(
            Hum, "lines at the multiples of 50 Hz, or hum(60); to be added to others"
        ),
        "clicks": NoiseEntry(Clicks, "rare broadband bursts; to be added to others"),
        "wind": NoiseEntry(Wind, "gusts of low-frequency rumble; to be added to others"),
        "learned": NoiseEntry(
            load_noise,
            "learned from recorded noises; learned('DIR') takes weights of your own",
        ),
    }
)
_TERM = re.compile(r"\s*([^()\s]*)\s*(?:\((.*)\))?\s*", re.DOTALL)
_NOT_NUMBERS = ("noise", "site")  # what a model takes besides: from Python only


def parse_noise(text: str, imported: Callable[[str], Any]) -> Any:
    """Noise model from a sum of names, each with numbers in brackets if need be.

    Parameters
    ----------
    text
        For instance ``"nmf(8)+hum(50)"``, ``"student-t(df=4)"`` or ``"wind+my_noise:hiss"``.
    imported
        Gets the model of a ``module:function``.

    Raises
    ------
    ValueError
        If a name is unknown, or what stands in brackets is not what its model takes.

    Examples
    --------
    >>> noise = parse_noise("nmf(8) + hum(60)", imported=lambda path: None)
    >>> noise.parts[0].rank, noise.parts[1].freq_hz
    (8, 60)
    """
    parts = [parse_term(term, text, imported) for term in split_terms(text)]
    return parts[0] if len(parts) == 1 else Sum(tuple(parts))


def split_terms(text: str) -> list[str]:
    """Split at the plus signs outside of brackets."""
    terms, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "+" and depth == 0:
            terms.append("")
        else:
            terms[-1] += letter
    return terms


def parse_term(term: str, text: str, imported: Callable[[str], Any]) -> Any:
    """Parse one name with its numbers; raises as `parse_noise` does."""
    found = _TERM.fullmatch(term)
    if found is None:
        raise ValueError(
            f"noise {text!r}: {term.strip()!r} is not of the form name or name(numbers), such as "
            "nmf(8)+hum(50)"
        )
    name, given = found.groups()
    if ":" in name and given is None:
        return imported(name)
    if name not in MODELS:
        raise unknown_name("noise model", name, [*MODELS, "module:function"])
    if name == "stationary" and not given:
        return stationary
    arguments, options = parse_arguments(given or "", term.strip())
    return build_model(name, arguments, options, term.strip())


def parse_arguments(given: str, term: str) -> tuple[list[Any], dict[str, Any]]:
    """Literals between the brackets."""
    try:
        call = ast.parse(f"f({given})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        if any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        arguments = [ast.literal_eval(value) for value in call.args]
        options = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (ValueError, SyntaxError):
        raise ValueError(
            f"noise {term!r}: expected numbers in the brackets, such as nmf(8) or nmf(rank=8), "
            f"found {given!r}"
        ) from None
    return arguments, options


def build_model(name: str, arguments: list[Any], options: dict[str, Any], term: str) -> Any:
    """Build a named model; raises as `parse_noise` does."""
    accepted = [p for p in inspect.signature(MODELS[name].make).parameters if p not in _NOT_NUMBERS]
    unknown = [option for option in options if option not in accepted]
    if unknown or len(arguments) > len(accepted):
        kind = f"has no setting {unknown[0]!r}" if unknown else "has fewer settings"
        raise ValueError(
            f"noise {term!r}: {name} {kind}; it takes {', '.join(accepted) or 'nothing'}"
        )
    try:
        return MODELS[name].make(*arguments, **options)
    except (ValueError, TypeError) as error:
        raise ValueError(f"noise {term!r}: {error}") from error
