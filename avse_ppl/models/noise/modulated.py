"""Gaussian scale mixtures of another noise model: AR(1) gain, Student's t, alpha-stable."""

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
from avse_ppl.models.noise.sum import NoiseModelBase, initial_values, rename_sites, scale_power
from avse_ppl.models.protocols import NoiseModel, move_model
from avse_ppl.models.validation import check_positive
from avse_ppl.signal.stft import Frames

_DB = math.log(10) / 10
_WIDEST = 50.0  # nats: a texture beyond would not be a number in single precision


@dataclass(frozen=True)
class AR1Gain(NoiseModelBase):
    r"""AR(1) gain on another noise: appliances, traffic, a swaying microphone.

    .. math:: v_{ft} = u_{ft}\, 10^{\sigma g_t / 10}, \quad
        g_t = \rho g_{t-1} + \sqrt{1 - \rho^2}\, \epsilon_t, \quad g_1 = \epsilon_1, \quad
        \epsilon_t \sim N(0, 1), \quad \rho = e^{-H / \tau}

    with :math:`u` the power of another noise model and H the hop, seconds: ``g`` is stationary
    with variance 1 and autocorrelation :math:`e^{-|t - t'| H / \tau}`. Sites
    ``noise.innovations``, :math:`\epsilon`, ``(1, time)``; ``noise.gain_sd_db``,
    :math:`\log \sigma \sim N(\log 6, 0.7^2)`, and ``noise.correlation_s``,
    :math:`\log \tau \sim N(\log 0.2, 1)`, one a recording, where they are not given; and those of
    the other model.

    Parameters
    ----------
    gain_sd_db
        :math:`\sigma`, dB; None if it is to be learned.
    correlation_s
        :math:`\tau`, seconds; None if it is to be learned, which takes a matrix of frames by frames
        for each recording at each step.
    noise
        Model of u; by default one unknown spectrum.
    site
        What the names of the latents begin with.

    Raises
    ------
    ValueError
        If a number is not positive.

    References
    ----------
    Godsill and Rayner, "Digital audio restoration", Springer 1998 (chapter 4: autoregressions).
    Papaspiliopoulos, Roberts and Sköld, "A general framework for the parametrization of
    hierarchical models", Statistical Science 2007.

    Examples
    --------
    >>> AR1Gain()(Frames(freq=5, time=7)).power.shape
    torch.Size([5, 7])
    """

    gain_sd_db: float | None = None
    correlation_s: float | None = 0.2
    noise: NoiseModel = stationary
    site: str = "noise"

    def __post_init__(self) -> None:
        """Check the numbers; names of the inner latents begin as those of the gain do."""
        check_known("gain_sd_db", self.gain_sd_db)
        check_known("correlation_s", self.correlation_s)
        object.__setattr__(self, "noise", rename_sites(self.noise, self.site))

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample the gain; the distribution of the noise, ``(freq, time)``."""
        law = self.noise(frames)
        gain = sample_log_gain(frames, self.site, self.gain_sd_db, 6.0, self.correlation_s)
        return scale_power(law, ops.exp(gain))

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Initial values of the inner model."""
        return initial_values(self.noise, power, speech_power, generator)

    def to(self, device: torch.device, dtype: torch.dtype) -> AR1Gain:
        """Return the same model with what it holds on another device or dtype."""
        noise = move_model(self.noise, device, dtype)
        return AR1Gain(self.gain_sd_db, self.correlation_s, noise, self.site)


@dataclass(frozen=True)
class StudentT(NoiseModelBase):
    r"""Student's t noise, a scale mixture of Gaussians: a few bins far louder than the others.

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
        object.__setattr__(self, "noise", rename_sites(self.noise, self.site))

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample the textures; the distribution of the noise, ``(freq, time)``."""
        law = self.noise(frames)
        if self.df is None:
            tail = pyro.sample(f"{self.site}.tail", dist.Normal(frames.number(0.0), 1.0))
            half: Any = 0.5 * (1.0 + 4.0 * ops.exp(tail))
        else:
            half = 0.5 * frames.number(self.df)
        with pyro.plate("freq", frames.freq, dim=-2), pyro.plate("time", frames.time, dim=-1):
            texture = pyro.sample(f"{self.site}.texture", dist.InverseGamma(half, half))
        return scale_power(law, texture)

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Initial values of the inner model."""
        return initial_values(self.noise, power, speech_power, generator)

    def to(self, device: torch.device, dtype: torch.dtype) -> StudentT:
        """Return the same model with what it holds on another device or dtype."""
        return StudentT(self.df, move_model(self.noise, device, dtype), self.site)


@dataclass(frozen=True)
class AlphaStable(NoiseModelBase):
    r"""Symmetric alpha-stable noise, a scale mixture of Gaussians: power without a mean.

    .. math:: b_{ft} \sim N_c(0, v_{ft} \tau_{ft}), \quad
        E\, e^{-s \tau_{ft}} = e^{-s^{\alpha / 2}}

    with v the power of another noise model and :math:`\tau` positive :math:`\alpha/2`-stable, so
    that b is isotropic with
    :math:`E\, e^{i \Re(\bar\omega b)} = \exp(-(\sqrt{v} |\omega| / 2)^\alpha)`: Gaussian as
    :math:`\alpha \to 2`, and :math:`P(|b| > q) \sim q^{-\alpha}` below. Textures come from an angle
    and an energy, which every inference method can differentiate (Kanter's representation; a is
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
        object.__setattr__(self, "noise", rename_sites(self.noise, self.site))

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample the textures; the distribution of the noise, ``(freq, time)``."""
        law = self.noise(frames)
        half = 0.5 * self.sample_alpha(frames)
        zero, one = frames.number(0.0), frames.number(1.0)
        with pyro.plate("freq", frames.freq, dim=-2), pyro.plate("time", frames.time, dim=-1):
            angle = pyro.sample(f"{self.site}.angle", dist.Uniform(zero, one))
            energy = pyro.sample(f"{self.site}.energy", dist.Exponential(one))
        return scale_power(law, positive_stable(half, angle, energy))

    def sample_alpha(self, frames: Frames) -> Any:
        """Sample the characteristic exponent, or return the given one."""
        if self.alpha is not None:
            return frames.number(self.alpha)
        tail = pyro.sample(f"{self.site}.tail", dist.Normal(frames.number(0.0), 1.0))
        return 1.0 + 0.99 / (1.0 + ops.exp(-1.7 * tail))

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Initial values of the inner model."""
        return initial_values(self.noise, power, speech_power, generator)

    def to(self, device: torch.device, dtype: torch.dtype) -> AlphaStable:
        """Return the same model with what it holds on another device or dtype."""
        return AlphaStable(self.alpha, move_model(self.noise, device, dtype), self.site)


def sample_log_gain(
    frames: Frames, site: str, sd_db: float | None, median_db: float, correlation_s: float | None
) -> Any:
    r"""Sample the log of a gain that is an AR(1) sequence, nepers of power, ``(1, time)``.

    Parameters
    ----------
    frames
        The grid.
    site
        What the names of the sites begin with: ``innovations``, ``gain_sd_db``, ``correlation_s``.
    sd_db
        Standard deviation of the gain, dB; None: log-normal.
    median_db
        Median of that prior, dB.
    correlation_s
        Correlation time, seconds; None: log-normal around 0.2 s.
    """
    sd: Any = sd_db
    if sd is None:
        sd = sample_log_normal(frames, f"{site}.gain_sd_db", median_db, 0.7)
    time_constant_s: Any = correlation_s
    if time_constant_s is None:
        time_constant_s = sample_log_normal(frames, f"{site}.correlation_s", 0.2, 1.0)
    with pyro.plate("time", frames.time, dim=-1):
        innovations = pyro.sample(f"{site}.innovations", dist.Normal(frames.number(0.0), 1.0))
    return _DB * sd * (innovations @ ar1_matrix(frames, time_constant_s))


def ar1_matrix(frames: Frames, correlation_s: Any) -> Any:
    r"""Matrix that maps innovations to an AR(1) sequence, ``(from, to)``.

    :math:`\rho^{t - s}` for :math:`s \le t`, times :math:`\sqrt{1 - \rho^2}` except where s is
    the first frame: all at once, where a loop over frames would be slow.
    """
    time_s = frames.time_s
    lag_s = time_s[None, :] - time_s[:, None]
    past = ops.exp(-ops.abs(lag_s) / correlation_s) * (lag_s >= 0)
    hop_s = frames.hop / frames.sample_rate_hz
    fresh = ops.sqrt(1.0 - ops.exp(frames.number(-2.0 * hop_s) / correlation_s))
    return past * ops.where(time_s[:, None] > 0, fresh, frames.number(1.0))


def sample_log_normal(frames: Frames, site: str, median: float, sd: float) -> Any:
    """Sample one positive number a recording, log-normal with a median."""
    return pyro.sample(site, dist.LogNormal(frames.number(math.log(median)), sd))


def check_known(what: str, value: float | None) -> None:
    """Raise ValueError unless a number is positive, or None as it is to be learned."""
    if value is not None:
        check_positive(what, value)


def positive_stable(index: Any, angle: Any, energy: Any) -> Any:
    r"""Kanter's map of an angle and an energy to a positive stable number.

    Its Laplace transform is :math:`e^{-s^a}`.

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
    u = math.pi * (1.0 - angle)
    rest = ops.log(ops.sin((1.0 - index) * u)) - ops.log(energy)
    spike = ops.log(ops.sin(math.pi * angle)) / index
    nats = ops.log(ops.sin(index * u)) - spike + rest * (1.0 - index) / index
    return ops.exp(ops.clip(nats, -_WIDEST, _WIDEST))
