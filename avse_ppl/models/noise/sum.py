"""Sums of noise models; noise floor, residual spectrum and initial values of the parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from itertools import count
from typing import Any

import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal, is_complex_normal
from avse_ppl.models.protocols import (
    HasInitialBelow,
    HasInitialValues,
    HasInnerNoise,
    HasMStep,
    HasSite,
    NoiseModel,
    move_model,
    name_of,
)
from avse_ppl.signal.stft import Frames

_FITS = 20  # of a part that has updates of its own
_QUIET = 1e-6  # -60 dB below the recording


class NoiseModelBase:
    """Base of the library's noise models: ``+`` makes a `Sum` of them.

    Each has a field ``site``, what the names of its latents begin with.
    """

    def __add__(self, other: NoiseModel) -> Sum:
        """Add another model, of the library or a function of yours."""
        return Sum((self, other))  # type: ignore[arg-type]  # every one of ours is callable

    def __radd__(self, other: NoiseModel) -> Sum:
        """Add to a function of yours."""
        return Sum((other, self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sum(NoiseModelBase):
    r"""Sum of independent noise models.

    .. math:: b_{ft} = \sum_i b^{(i)}_{ft} \sim N_c\left(\sum_i m^{(i)}_{ft},
        \sum_i v^{(i)}_{ft}\right)

    Usually written with ``+``. Latents of the first part keep their names; a later part of the
    library whose names begin the same is renamed, from ``noise.power`` to ``noise.1.power``, with
    its place in the sum as the number.

    Parameters
    ----------
    parts
        Noise models. A `Sum` among them counts as its parts.

    Raises
    ------
    TypeError
        If a part is not callable, or does not return a ``ComplexNormal``.
    ValueError
        If there is no part, or one function of yours is there twice: the names of its latents
        are its own, and would be the same.

    Examples
    --------
    >>> from avse_ppl.models import NMF, hum
    >>> noise = NMF(rank=2) + hum(50)
    >>> [part.site for part in noise.parts]
    ['noise', 'noise.1']
    >>> noise(Frames(freq=513, time=7)).power.shape
    torch.Size([513, 7])
    """

    parts: tuple[NoiseModel, ...]

    def __post_init__(self) -> None:
        """Check the parts, and give their latents names of their own."""
        parts: list[Any] = []
        for part in self.parts:
            parts += part.parts if isinstance(part, Sum) else [part]
        if not parts:
            raise ValueError("a sum of noise models needs at least one part, found none")
        for part in parts:
            if not callable(part):
                raise TypeError(
                    f"a part of a sum of noise models must be a function of frames, found "
                    f"{type(part).__name__}: {part!r}"
                )
        functions = [part for part in parts if not isinstance(part, HasSite)]
        twice = [part for i, part in enumerate(functions) if part in functions[:i]]
        if twice:
            raise ValueError(
                f"{name_of(twice[0])!r} is in the sum twice, and its latents would have the same "
                "names; write a second function with names of its own"
            )
        object.__setattr__(self, "parts", tuple(make_sites_unique(parts)))

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample the latents of all parts; the distribution of their sum."""
        laws = [part(frames) for part in self.parts]
        for part, law in zip(self.parts, laws, strict=True):
            if not is_complex_normal(law):
                raise TypeError(
                    f"{name_of(part)!r}, a part of a sum of noise models, returned "
                    f"{type(law).__name__}; expected ComplexNormal(mean, power)"
                )
        return reduce(ComplexNormal.convolve, laws)

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Initial values of the parts that have any.

        Stationary noise starts at the noise floor, if there are other parts that start at the
        data and so hold what rises above it; all others start as if they were alone.
        """
        values: dict[str, Tensor] = {}
        above = any(
            isinstance(part, HasInitialValues) and not isinstance(part, HasInitialBelow)
            for part in self.parts
        )
        for part in self.parts:
            if above and isinstance(part, HasInitialBelow):
                values |= part.initial_below(power)
            else:
                values |= initial_values(part, power, speech_power, generator)
        return values

    def to(self, device: torch.device, dtype: torch.dtype) -> Sum:
        """Return the same sum with its learned parts on another device or dtype."""
        return Sum(tuple(move_model(part, device, dtype) for part in self.parts))


def rename_sites(model: Any, site: str) -> Any:
    """Rename the latents of a model of the library; a function stays as it is.

    Examples
    --------
    >>> from avse_ppl.models import NMF
    >>> rename_sites(NMF(rank=2), "hiss").site
    'hiss'
    """
    if isinstance(model, Sum):
        names = [f"{site}.{i}" if i else site for i in range(len(model.parts))]
        return Sum(tuple(map(rename_sites, model.parts, names)))
    return replace(model, site=site) if isinstance(model, HasSite) else model  # type: ignore[type-var]


def scale_power(law: ComplexNormal, gain: Any) -> ComplexNormal:
    """Multiply the power of a distribution around its mean by a gain."""
    return ComplexNormal(0.0 if law.zero_mean else law.mean, law.power * gain)


def noise_floor(power: Tensor) -> Tensor:
    """Noise floor of each bin, robust to bursts: ``(recording, freq, time)`` to ``(..., 1)``.

    The geometric mean over the frames that hold sound.
    """
    audible = (power > 0).any(-2, keepdim=True)
    logs = torch.where(audible, power.clamp_min(_QUIET).log(), 0.0)
    return (logs.sum(-1, keepdim=True) / audible.sum(-1, keepdim=True).clamp_min(1)).exp()


def residual_spectrum(power: Tensor, speech_power: Tensor) -> Tensor:
    r"""Spectrum that is left over beside speech, ``(recording, freq, 1)``.

    From the noise floor by multiplicative updates, those of `NMF` with one constant activation:
    :math:`v \leftarrow v \, (\sum_t |x|^2 / \hat V^2 / \sum_t 1 / \hat V)^{1/2}`,
    :math:`\hat V = S + v`.
    """
    audible = (power > 0).any(-2, keepdim=True).to(power.dtype)
    spectrum = noise_floor(power)
    for _ in range(_FITS):
        inverse = audible / (speech_power + spectrum)
        ratio = (power * inverse.square()).sum(-1, keepdim=True) / inverse.sum(-1, keepdim=True)
        spectrum = (spectrum * ratio.sqrt()).clamp_min(_QUIET)
    return spectrum


def initial_values(
    model: Any, power: Tensor, speech_power: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Initial values of a model's latents, after a few of its M-steps if it has them (NMF)."""
    values: dict[str, Tensor] = {}
    if isinstance(model, HasInitialValues):
        values = model.initial(power, speech_power, generator)
    if isinstance(model, HasMStep):
        for _ in range(_FITS):
            values = model.maximise(values, power, speech_power[None])
    return values


def make_sites_unique(parts: list[Any]) -> list[Any]:
    """Rename latents of parts until no two parts share a prefix of their names."""
    used: set[str] = set()
    for i, part in enumerate(parts):
        names = (f"noise.{k}" for k in count(i))
        while list_site_prefixes(parts[i]) & used:
            parts[i] = rename_sites(part, next(names))
        used |= list_site_prefixes(parts[i])
    return parts


def list_site_prefixes(model: Any) -> set[str]:
    """Prefixes of the names of a model's latents, and of those inside it."""
    if isinstance(model, Sum):
        return set().union(*map(list_site_prefixes, model.parts))
    own = {model.site} if isinstance(model, HasSite) else set()
    return own | (list_site_prefixes(model.noise) if isinstance(model, HasInnerNoise) else set())
