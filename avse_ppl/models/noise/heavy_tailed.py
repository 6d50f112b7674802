"""Noise with heavy tails: every bin has a texture of its own, and a few are loud."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from pyroapi import distributions as dist
from pyroapi import ops, pyro
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.noise.basic import stationary
from avse_ppl.models.noise.sum import (
    NoiseModelBase,
    initial_values,
    scaled,
    with_site,
)
from avse_ppl.models.protocols import NoiseModel, move_model
from avse_ppl.models.validation import check_positive
from avse_ppl.signal.stft import Frames

_WIDEST = 50.0  # nats: a texture beyond would not be a number in single precision


@dataclass(frozen=True)
class StudentT(NoiseModelBase):
    r"""Student's t noise: bins that are now and then far louder than their neighbours.

    .. math:: b_{ft} \sim N_c(0, v_{ft} \tau_{ft}), \quad
        \tau_{ft} \sim \mathrm{IG}(\nu / 2, \nu / 2)

    with v the power of another noise model. The texture :math:`\tau` integrated out, the
    coefficient is complex Student's t: :math:`p(b) \propto (1 + 2 |b|^2 / (\nu v))^{-1 - \nu/2}`,
    with :math:`P(|b|^2 > q v) = (1 + 2 q / \nu)^{-\nu / 2}` and, for :math:`\nu > 2`,
    :math:`E|b|^2 = v \nu / (\nu - 2)`. Sites ``noise.texture``, ``(freq, time)``; if
    :math:`\nu` is not given, ``noise.tail``, one a recording, with
    :math:`\nu = 1 + 4 e^\mathrm{tail}`, tail standard normal; and those of the other model.

    Parameters
    ----------
    df
        Degrees of freedom :math:`\nu`; the tails are the heavier the smaller it is. None if they
        are to be learned.
    noise
        Model of v; by default one unknown spectrum.
    site
        What the names of the latents begin with.

    Raises
    ------
    ValueError
        If ``df`` is not positive.

    References
    ----------
    Yoshii, Itoyama and Goto, "Student's t nonnegative matrix factorization and positive
    semidefinite tensor factorization for single-channel audio source separation", ICASSP 2016.

    Examples
    --------
    >>> StudentT(df=4.0)(Frames(freq=5, time=7)).power.shape
    torch.Size([5, 7])
    """

    df: float | None = None
    noise: NoiseModel = stationary
    site: str = "noise"

    def __post_init__(self) -> None:
        """Check the degrees of freedom; names of the inner latents begin as the texture's do."""
        if self.df is not None:
            check_positive("df", self.df)
        object.__setattr__(self, "noise", with_site(self.noise, self.site))

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample the textures, return the law of the noise, ``(freq, time)``."""
        law, half = self.noise(frames), 0.5 * self._df(frames)
        with pyro.plate("freq", frames.freq, dim=-2), pyro.plate("time", frames.time, dim=-1):
            texture = pyro.sample(f"{self.site}.texture", dist.InverseGamma(half, half))
        return scaled(law, texture)

    def _df(self, frames: Frames) -> Any:
        if self.df is not None:
            return frames.number(self.df)
        tail = pyro.sample(f"{self.site}.tail", dist.Normal(frames.number(0.0), 1.0))
        return 1.0 + 4.0 * ops.exp(tail)

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Start of the inner model."""
        return initial_values(self.noise, power, speech_power, generator)

    def to(self, device: torch.device, dtype: torch.dtype) -> StudentT:
        """Return the same model with what it holds on another device or dtype."""
        return StudentT(self.df, move_model(self.noise, device, dtype), self.site)


@dataclass(frozen=True)
class AlphaStable(NoiseModelBase):
    r"""Symmetric alpha-stable noise: impulses so strong that the power has no mean.

    .. math:: b_{ft} \sim N_c(0, v_{ft} \tau_{ft}), \quad
        E\, e^{-s \tau_{ft}} = e^{-s^{\alpha / 2}}

    with v the power of another noise model and :math:`\tau` positive :math:`\alpha/2`-stable, so
    that b is isotropic with
    :math:`E\, e^{i \Re(\bar\omega b)} = \exp(-(\sqrt{v} |\omega| / 2)^\alpha)`: Gaussian as
    :math:`\alpha \to 2`, and :math:`P(|b| > q) \sim q^{-\alpha}` below. Textures come from an angle
    and an energy, which all routines can differentiate (Kanter's representation; a is
    :math:`\alpha / 2`):

    .. math:: \tau = \frac{\sin a U}{(\sin U)^{1/a}}
        \left(\frac{\sin (1-a) U}{E}\right)^{(1-a)/a}, \quad
        U = \pi (1 - \mathrm{angle})

    Sites ``noise.angle``, uniform on (0, 1), and ``noise.energy``, exponential with mean 1,
    ``(freq, time)`` both; if :math:`\alpha` is not given, ``noise.tail``, one a recording, with
    :math:`\alpha = 1 + 0.99 / (1 + e^{-1.7\,\mathrm{tail}})`, tail standard normal, which is nearly
    uniform between 1 and 1.99; and those of the other model.

    Parameters
    ----------
    alpha
        Characteristic exponent, below 2. None if it is to be learned.
    noise
        Model of v; by default one unknown spectrum.
    site
        What the names of the latents begin with.

    Raises
    ------
    ValueError
        If ``alpha`` is not above 0 and below 2.

    References
    ----------
    Kanter, "Stable densities under change of scale and total variation inequalities", Annals of
    Probability 1975. Chambers, Mallows and Stuck, "A method for simulating stable random
    variables", JASA 1976. Leglaive, Şimşekli, Liutkus, Badeau and Richard, "Alpha-stable
    multichannel audio source separation", ICASSP 2017.

    Examples
    --------
    >>> AlphaStable(alpha=1.8)(Frames(freq=5, time=7)).power.shape
    torch.Size([5, 7])
    """

    alpha: float | None = None
    noise: NoiseModel = stationary
    site: str = "noise"

    def __post_init__(self) -> None:
        """Check the exponent; names of the inner latents begin as the texture's do."""
        if self.alpha is not None and not 0.0 < self.alpha < 2.0:
            raise ValueError(
                f"alpha must be above 0 and below 2, not {self.alpha!r}; 2 is Gaussian noise, for "
                "which the inner model does alone"
            )
        object.__setattr__(self, "noise", with_site(self.noise, self.site))

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample the textures, return the law of the noise, ``(freq, time)``."""
        law, half = self.noise(frames), 0.5 * self._alpha(frames)
        zero, one = frames.number(0.0), frames.number(1.0)
        with pyro.plate("freq", frames.freq, dim=-2), pyro.plate("time", frames.time, dim=-1):
            angle = pyro.sample(f"{self.site}.angle", dist.Uniform(zero, one))
            energy = pyro.sample(f"{self.site}.energy", dist.Exponential(one))
        return scaled(law, positive_stable(half, angle, energy))

    def _alpha(self, frames: Frames) -> Any:
        if self.alpha is not None:
            return frames.number(self.alpha)
        tail = pyro.sample(f"{self.site}.tail", dist.Normal(frames.number(0.0), 1.0))
        return 1.0 + 0.99 / (1.0 + ops.exp(-1.7 * tail))

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Start of the inner model."""
        return initial_values(self.noise, power, speech_power, generator)

    def to(self, device: torch.device, dtype: torch.dtype) -> AlphaStable:
        """Return the same model with what it holds on another device or dtype."""
        return AlphaStable(self.alpha, move_model(self.noise, device, dtype), self.site)


def positive_stable(index: Any, angle: Any, energy: Any) -> Any:
    r"""Positive stable number with Laplace transform :math:`e^{-s^a}`, from two simple ones.

    Parameters
    ----------
    index
        a, between 0 and 1.
    angle, energy
        Uniform on (0, 1), and exponential with mean 1. Small angles make large numbers, since
        floating point is finest there.

    Examples
    --------
    >>> a, u, e = (torch.tensor(x) for x in (0.5, 0.5, 1.0))
    >>> round(float(positive_stable(a, u, e)), 6)  # a = 1/2: 1 / (4 e sin(u pi / 2)^2)
    0.5
    """
    bend = math.pi * (1.0 - angle)
    rest = ops.log(ops.sin((1.0 - index) * bend)) - ops.log(energy)
    spike = ops.log(ops.sin(math.pi * angle)) / index
    nats = ops.log(ops.sin(index * bend)) - spike + rest * (1.0 - index) / index
    return ops.exp(ops.clip(nats, -_WIDEST, _WIDEST))
