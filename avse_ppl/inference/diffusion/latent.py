"""Reverse diffusion of the latents of a Gaussian prior, the likelihood as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Normal

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.initialization import warm_start
from avse_ppl.inference.core.log_density import LogDensity, Values, site_distribution
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.diffusion.noise import NoiseFit
from avse_ppl.inference.diffusion.spectrogram import GibbsSweep
from avse_ppl.models.scene import Scene
from avse_ppl.models.speech.diffusion import renoising_coefficients
from avse_ppl.models.speech.latent_sequence import SequencePrior
from avse_ppl.signal.stft import Spectrogram

_DECAY = 0.75  # of the running mean of the curvature, from level to level
_PROBES = 8  # of its first estimate
_FARTHEST = 2.0  # deviations that the gradient may carry a latent in one step


class Latents:
    """What is known of the speech latents of a scene under noise, in closed form or by a network.

    Parameters
    ----------
    speech
        The prior.
    density
        Of the scene whose speech latents are diffused.

    Raises
    ------
    ValueError
        If a latent has neither a normal prior that is independent of the others nor a denoiser.
    """

    def __init__(self, speech: Any, density: LogDensity) -> None:
        """Find the prior of each latent."""
        network = getattr(speech, "network", None)
        self.network: Any = network if hasattr(network, "denoise") else None
        self.visual: Any = density.mixture.frames.visual
        self.sites = [site for site in density.sites if not site.of_noise]
        self.closed = {
            site.name: _closed(speech, site_distribution(density, site.name, {}), site.name)
            for site in self.sites
            if not (self.network is not None and site.name == "speech.z")
        }

    def denoised(self, noisy: Values, sigma: float) -> dict[str, Normal]:
        r"""Laws :math:`N(E[z | y], Var[z | y])` of the clean latents, ``y = z + sigma eps``."""
        laws = {}
        for site in self.sites:
            y = noisy[site.name]
            if site.name in self.closed:
                mean, sd = self.closed[site.name]
                total = sd.square() + sigma**2
                found = (mean * sigma**2 + y * sd.square()) / total, (sd * sigma).square() / total
            else:
                with torch.no_grad():
                    found = self.network.denoise(y, y.new_full((len(y),), sigma), self.visual)
            laws[site.name] = Normal(found[0], found[1].expand(y.shape).sqrt(), validate_args=False)
        return laws


class LatentState(NamedTuple):
    """Speech latents that gradients are taken at, and the power of speech there, ``(row, ...)``."""

    points: Values
    power: Tensor


class LatentRun:
    r"""Go down the noise levels of the latents, from :math:`y = z + \sigma_0 \epsilon`.

    At each level, :math:`z | y \approx N(m, w)` by the prior's denoiser, and z is drawn from

    .. math:: p(z | y, x, b) \propto N(z; m, w) \prod_{ft} N_c\left(x_{ft};\; 0,
        S_{ft}(z) + B_{ft}(b)\right)

    by a few Langevin steps, preconditioned by :math:`(1 / w + I)^{-1}` with I the Fisher
    information of the likelihood, estimated on the way by random signs. Then the noise is fitted,
    and z is carried to the next level as bins are, see `avse_ppl.inference.diffusion.spectrogram`.

    Parameters
    ----------
    scene
        With a speech prior whose latents have closed-form scores, or a latent diffusion; without a
        model of reliability.
    mixture
        Of all chains, one row each, with what is seen.
    randoms
        One generator a row.
    tempering
        Power of the likelihood.
    step
        Size of the Langevin steps: 0.5 widens a normal law by 7 per cent.
    start
        For a latent diffusion: a prior of the same latents whose encoder looks.
    """

    def __init__(
        self,
        scene: Scene,
        mixture: Spectrogram,
        randoms: RandomStreams,
        tempering: float,
        step: float,
        start: Any = None,
    ) -> None:
        """Check the scene and start where its encoder, or another's, says."""
        on_latents = Scene(_on_latents(scene.speech, start), scene.noise)
        self.density, self.randoms, self.step = LogDensity(on_latents, mixture), randoms, step
        self.latents = Latents(scene.speech, self.density)
        if not self.latents.sites:
            raise ValueError("the speech prior has no latents; take Exact() ('exact')")
        self.tempering = tempering
        state, _ = warm_start(self.density, randoms)
        self.clean = {site.name: state[site.name] for site in self.latents.sites}
        self.fisher: Values = {}
        names = self.density.names(of_noise=True)
        start = self.density.constrain({name: state[name] for name in names})[0]
        law = self._speech({**start, **self._constrained()})
        self.noise = NoiseFit(scene.noise, mixture, randoms, law, tempering, start)

    def run(
        self, levels: list[float], moves: int, updates: int, memory: float
    ) -> Iterator[GibbsSweep]:
        """Yield, for each level, all latents and the posterior law of speech given them."""
        noisy = {n: u + levels[0] * self._normal(u) for n, u in self.clean.items()}
        here = self._here()
        for step, sigma in enumerate(levels):
            priors = self.latents.denoised(noisy, sigma)
            values, law = self.noise.draw()
            self._look_at_curvature(here, law)
            for _ in range(moves):
                self._move(here, law, priors)
                here = self._here()
            speech = ComplexNormal(0.0, here.power.detach(), validate_args=False)
            self.noise.fit(speech, updates)
            noise_values, law = self.noise.draw()
            posterior = speech.condition(law, self.density.mixture.values)
            yield GibbsSweep(posterior, {**values, **self._constrained(), **noise_values})
            if step + 1 == len(levels):
                return
            noisy = self._next(noisy, sigma, levels[step + 1], memory)

    def _next(self, noisy: Values, sigma: float, lower: float, memory: float) -> Values:
        kept, fresh = renoising_coefficients(sigma, lower, memory)
        return {
            name: clean + kept * (noisy[name] - clean) + fresh * self._normal(clean)
            for name, clean in self.clean.items()
        }

    def _here(self) -> LatentState:
        """The speech latents where they are now, and the power that they stand for."""
        points = {name: u.detach().requires_grad_() for name, u in self.clean.items()}
        values = {site.name: site.transform(points[site.name]) for site in self.latents.sites}
        return LatentState(points, self._law(values).power)

    def _move(self, here: LatentState, law: ComplexNormal, priors: Mapping[str, Normal]) -> None:
        """One Langevin step of all speech latents."""
        mixture = self.density.mixture
        mixed = ComplexNormal(law.mean, here.power + law.power, validate_args=False)
        total = self.tempering * self._heard(mixed.log_prob(mixture.values)).sum()
        found = torch.autograd.grad(total, list(here.points.values()))
        for (name, u), slope in zip(self.clean.items(), found, strict=True):
            prior = priors[name]
            gradient = slope + (prior.mean - u) / prior.variance
            if not bool(torch.isfinite(gradient).all()):
                raise ValueError(
                    f"the gradient of {name} is not finite at a noise level of guided diffusion; "
                    "expected numbers. Take a smaller step, or look for a law that overflows"
                )
            narrow = 1.0 / (prior.variance.reciprocal() + self.fisher[name])
            farthest = _FARTHEST * prior.stddev
            drift = 0.5 * self.step * narrow * gradient
            drift = torch.minimum(torch.maximum(drift, -farthest), farthest)
            self.clean[name] = u + drift + (self.step * narrow).sqrt() * self._normal(u)

    def _look_at_curvature(self, here: LatentState, law: ComplexNormal) -> None:
        r"""Running mean of :math:`(J^T \epsilon)^2`, with signs :math:`\epsilon`: the diagonal.

        J is the derivative of the log power of the mixture, whose Fisher information is 1 a bin.
        """
        log_power = (here.power + law.power).log()
        first = not self.fisher
        for probe in range(_PROBES if first else 1):
            signs = self._normal(log_power).sign() * self.tempering**0.5
            total = (self._heard(signs) * log_power).sum()
            # The graph is walked once more, by the step that starts here.
            found = torch.autograd.grad(total, list(here.points.values()), retain_graph=True)
            for name, slope in zip(here.points, found, strict=True):
                weight = 1.0 / (probe + 1) if first else 1.0 - _DECAY
                past = self.fisher.get(name, slope.square())
                self.fisher[name] = past.lerp(slope.square(), weight)

    def _heard(self, bins: Tensor) -> Tensor:
        """Values of bins, 0 in the padding."""
        mask = self.density.mixture.mask
        return bins if mask is None else torch.where(mask, bins, bins.new_zeros(()))

    def _speech(self, values: Values) -> ComplexNormal:
        with torch.no_grad():
            return self._law(values)

    def _law(self, values: Values) -> ComplexNormal:
        mixture = self.density.mixture
        with (
            poutine.block(),
            poutine.condition(data=values),
            pyro.plate("recording", mixture.recordings, dim=-3),
        ):
            law = self.density.scene.speech(mixture.frames, mixture.frames.visual)
        return law.expand(mixture.values.shape)

    def _constrained(self) -> Values:
        return self.density.constrain(self.clean)[0]

    def _normal(self, like: Tensor) -> Tensor:
        return self.randoms.normal(like.shape, like.dtype)


class _OnLatents:
    """Network of a latent diffusion, as one between latents and power without a prior.

    ``looking`` is a network of the same latents whose encoder looks, used where there are lips.
    """

    def __init__(self, network: Any, looking: Any) -> None:
        self.network, self.looking, self.latent = network, looking, network.latent

    def encode(self, power: Tensor, **seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, log-variance and, again, mean of z."""
        if seen and self.looking is not None:
            return self.looking.encode(power, **seen)
        mean, logvar = self.network.infer(power)
        return mean, logvar, mean

    def decode(self, z: Tensor, *_seen: Tensor) -> Tensor:
        """Log power."""
        return self.network.decode_latents(z)


def _on_latents(speech: Any, start: Any) -> Any:
    """The prior whose site is the latent itself: of a latent diffusion, not its innovation."""
    if not hasattr(getattr(speech, "network", None), "decode_latents"):
        return speech
    looking = None if start is None else start.network
    if looking is not None and looking.latent != speech.network.latent:
        raise ValueError(
            f"the start has {looking.latent} latents, the speech prior {speech.network.latent}; "
            "take one trained on the same latents"
        )
    return replace(speech, network=_OnLatents(speech.network, looking))


def _closed(speech: Any, law: Any, name: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of an independent normal prior."""
    base = getattr(law, "base_dist", law)
    if isinstance(law, SequencePrior) and not getattr(speech.network, "autoregressive", True):
        like = next(speech.network.parameters()).new_zeros(law.batch_shape)
        with torch.no_grad():
            mean, logvar = speech.network.law(like, law.visual)
        return mean, torch.exp(0.5 * logvar)
    if hasattr(base, "loc") and hasattr(base, "scale") and "Normal" in type(base).__name__:
        return base.loc, base.scale
    raise ValueError(
        f"the prior of {name} has no score in closed form (its values follow each other, or are "
        "not normal), which guided diffusion needs; take --inference svi, or the speech prior "
        "score, latent-diffusion, tcvae or av-cvae"
    )
