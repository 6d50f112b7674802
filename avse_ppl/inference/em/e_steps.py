"""E-steps of EM along the gradient: to the mode, by Langevin steps, or of a guide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from avse_ppl.inference.core.adam import Adam
from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.em.frame_density import FrameLogDensity

_DECAY = 0.99  # of the running mean of squared gradients


class EStepResult(NamedTuple):
    """Result of one step of the speech latents.

    ``objective``, ``(recording,)``: the log joint or its bound, nats. ``power``: of speech, for the
    M-step, ``(recording, freq, time)``. ``acceptance``, ``(recording,)``: mean probability with
    which a proposal was accepted, None where nothing was proposed. ``residual``: mixture minus the
    mean of speech, None where that is 0.
    """

    objective: Tensor
    power: Tensor
    acceptance: Tensor | None = None
    residual: Tensor | None = None


class EStep(Protocol):
    """Updates the speech latents, the noise given."""

    def run_steps(self, state: Values, count: int, burn_in: bool) -> list[EStepResult]:
        """Take ``count`` steps of the speech latents in ``state``, which is changed.

        Settings of the step itself are adapted only while ``burn_in``.
        """
        ...


class GradientStep:
    """Adam steps to the mode of the speech latents, or preconditioned Langevin steps; see `EM`.

    Parameters
    ----------
    log_density
        Log joint of the speech latents.
    streams
        A stream of random numbers for each recording.
    size
        Adam's rate, or the Langevin step.
    noisy
        Whether the steps are Langevin's.
    """

    def __init__(
        self, log_density: FrameLogDensity, streams: RandomStreams, size: float, noisy: bool
    ) -> None:
        """Start from zero running means."""
        self.log_density, self.streams, self.size, self.noisy = log_density, streams, size, noisy
        self.step = 0
        self.first = {site.name: torch.zeros_like(site.start) for site in log_density.sites}
        self.second = {site.name: torch.zeros_like(site.start) for site in log_density.sites}

    def run_steps(self, state: Values, count: int, burn_in: bool) -> list[EStepResult]:
        """See `EStep`; each result is of the state before the step."""
        speech, noise = self.log_density.speech_of(state), self.log_density.noise_of(state)
        results = []
        for _ in range(count):
            self.step += 1
            found = self.log_density(speech, noise, gradients=True)
            speech = {
                name: u + self.compute_step(name, found.gradients[name])
                for name, u in speech.items()
            }
            results.append(EStepResult(found.total, found.power, residual=found.residual))
        state.update(speech)
        return results

    def compute_step(self, name: str, gradient: Tensor) -> Tensor:
        """Step of one latent along its gradient; the running means are updated."""
        self.second[name].mul_(_DECAY).addcmul_(gradient, gradient, value=1 - _DECAY)
        root = self.root_mean_square(name)
        if not self.noisy:
            self.first[name].mul_(0.9).add_(gradient, alpha=0.1)
            return self.size * self.first[name] / (1 - 0.9**self.step) / root
        drift = 0.5 * self.size * gradient / root
        unit = self.streams.normal(gradient.shape, gradient.dtype)
        return drift + (self.size / root).sqrt() * unit

    def root_mean_square(self, name: str) -> Tensor:
        """Root of the running mean of squared gradients of one latent."""
        return (self.second[name] / (1 - _DECAY**self.step)).sqrt() + 1e-8

    def scale(self) -> Values:
        """Inverse root mean square gradient: at the posterior, about the standard deviation."""
        return {name: 1.0 / self.root_mean_square(name) for name in self.second}


class VariationalStep:
    r"""Adam steps of a mean-field normal guide over the speech latents, one draw each (VEM).

    .. math:: \nabla_m = g, \quad \nabla_{\log \sigma} = g \sigma \xi + 1, \quad
        g = \nabla \log p(x, u | b), \quad u = m + \sigma \xi

    Parameters
    ----------
    log_density
        Log joint of the speech latents.
    streams
        A stream of random numbers for each recording.
    location, log_sd
        Initial values of the guide.
    rate
        Adam's; it falls to a tenth over the last third of the steps.
    steps
        Number of steps planned.
    """

    def __init__(
        self, log_density: FrameLogDensity, streams: RandomStreams, location: Mapping[str, Tensor],
        log_sd: Mapping[str, Tensor], rate: float, steps: int,
    ) -> None:  # fmt: skip
        self.log_density, self.streams = log_density, streams
        names = [site.name for site in log_density.sites]
        self.location = {name: location[name].detach().clone() for name in names}
        self.log_sd = {name: log_sd[name].detach().clone() for name in names}
        parameters = [*self.location.values(), *self.log_sd.values()]
        self.adam = Adam(parameters, betas=(0.9, 0.99)) if names else None
        self.rate, self.step, self.steps = rate, 0, steps

    def run_steps(self, state: Values, count: int, burn_in: bool) -> list[EStepResult]:
        """See `EStep`; the objective is the evidence lower bound, the noise given."""
        noise = self.log_density.noise_of(state)
        results = []
        for _ in range(count):
            unit, speech = self.draw_with_noise()
            found = self.log_density(speech, noise, gradients=True)
            bound = found.total + self.entropy(found.rest)
            results.append(EStepResult(bound, found.power, residual=found.residual))
            if self.adam is not None:
                left = 1.0 - self.step / self.steps
                rate = self.rate * min(1.0, 0.1 + 0.9 * 3.0 * left)
                self.step += 1
                for name, gradient in found.gradients.items():
                    log_sd = self.log_sd[name]
                    self.location[name].grad = -gradient
                    log_sd.grad = -(gradient * log_sd.exp() * unit[name] + 1.0)
                self.adam.step(rate)
            state.update(speech)
        return results

    def draw_with_noise(self) -> tuple[Values, Values]:
        """Standard-normal numbers, and the draw of the speech latents that they make."""
        unit = {n: self.streams.normal(m.shape, m.dtype) for n, m in self.location.items()}
        return unit, {n: m + self.log_sd[n].exp() * unit[n] for n, m in self.location.items()}

    def draw(self) -> Values:
        """Draw the speech latents from the guide."""
        return self.draw_with_noise()[1]

    def entropy(self, like: Tensor) -> Tensor:
        """Entropy of the guide, nats, ``(recording,)``."""
        constant = 0.5 * math.log(2 * math.pi * math.e)
        terms = [(log_sd + constant).flatten(1).sum(1) for log_sd in self.log_sd.values()]
        return sum(terms, torch.zeros_like(like))
