"""Log joint density of the speech latents frame by frame, the noise given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pyro
import torch
from torch import Tensor

from avse_ppl.inference.core.log_density import LogDensity, Site, Values
from avse_ppl.models.handlers import LogProbByFrame


class FrameLogProb(NamedTuple):
    """Log joint density of speech latents on the real line, power of speech and gradients.

    Parameters
    ----------
    frames
        What belongs to one frame, ``(recording, time)``: its likelihood, and the prior of the
        latents on the plate over time.
    rest
        Everything else, ``(recording,)``.
    power
        Power of speech, ``(recording, freq, time)``.
    gradients
        Those of the sum, by name; empty if not asked for.
    residual
        Mixture minus the mean of speech, ``(recording, freq, time)``; None where that is 0. With a
        predictor, mean and power are those under which the mixture informs the latents.
    """

    frames: Tensor
    rest: Tensor
    power: Tensor
    gradients: Values
    residual: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """Log joint, ``(recording,)``."""
        return self.frames.sum(-1) + self.rest


class FrameLogDensity:
    r"""Log joint of the speech latents u on the real line, the noise latents b given.

    .. math:: w \log p(x | u, b) + \log p(\theta(u)) + \log |\partial \theta / \partial u|
        + \log p(b)

    Parameters
    ----------
    density
        The scene and its mixture.
    tempering
        Power w of the likelihood.
    """

    def __init__(self, density: LogDensity, tempering: float = 1.0) -> None:
        self.density, self.tempering = density, tempering
        self.sites = [site for site in density.sites if not site.of_noise]

    def per_frame(self, site: Site) -> bool:
        """Whether a latent lies on the plate over time."""
        return site.shape[-1] == self.density.mixture.frames.time

    def noise_of(self, state: Mapping[str, Tensor]) -> Values:
        """Noise latents of unconstrained ``state``, on their supports."""
        names = self.density.names(of_noise=True)
        return self.density.constrain({name: state[name] for name in names})[0]

    def speech_of(self, state: Mapping[str, Tensor]) -> Values:
        """Speech latents of ``state``, as they are."""
        return {site.name: state[site.name] for site in self.sites}

    def __call__(
        self, speech: Values, noise: Mapping[str, Tensor], gradients: bool
    ) -> FrameLogProb:
        """Log joint of speech latents on the real line, noise latents on their supports."""
        if not gradients or not speech:
            with torch.no_grad():
                return self.evaluate(speech, noise)
        points = {name: u.detach().requires_grad_() for name, u in speech.items()}
        frames, rest, power, _, residual = self.evaluate(points, noise)
        total = frames.sum() + rest.sum()
        found = torch.autograd.grad(total, list(points.values()))
        slopes = dict(zip(points, found, strict=True))
        residual = None if residual is None else residual.detach()
        return FrameLogProb(frames.detach(), rest.detach(), power.detach(), slopes, residual)

    def evaluate(self, speech: Values, noise: Mapping[str, Tensor]) -> FrameLogProb:
        """Log joint and power, differentiable in the speech latents; without gradients."""
        mixture = self.density.mixture
        values = dict(noise)
        terms = LogProbByFrame(values, mixture.values, self.tempering)
        for site in self.sites:
            u = speech[site.name]
            values[site.name] = site.transform(u)
            terms.add(site.transform.log_abs_det_jacobian(u, values[site.name]))
        with terms, pyro.validation_enabled(False):
            laws = self.density.scene(mixture)
        law = laws.informed
        power = law.power.expand(mixture.values.shape)
        residual = None if law.zero_mean else mixture.values - law.mean
        return FrameLogProb(terms.frames, terms.rest, power, {}, residual)
