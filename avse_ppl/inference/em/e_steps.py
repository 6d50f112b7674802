"""E-steps of EM that follow the gradient: to the mode, by Langevin steps, or with a guide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.em.frame_density import FrameLogDensity

_DECAY = 0.99  # of the running mean of squared gradients


class EStepResult(NamedTuple):
    """What one move of the speech latents says.

    ``objective``, ``(recording,)``: the log joint or its bound, nats. ``power``: of speech, which
    the M-step is to see, ``(recording, freq, time)``. ``acceptance``, ``(recording,)``: mean
    probability with which a proposal was accepted, None where nothing was proposed.
    """

    objective: Tensor
    power: Tensor
    acceptance: Tensor | None = None


class EStep(Protocol):
    """Moves the speech latents, the noise given."""

    def moves(self, state: Values, count: int, burn_in: bool) -> list[EStepResult]:
        """Take ``count`` moves of the speech latents in ``state``, which is changed.

        What the step learns about its own settings it learns while ``burn_in``.
        """
        ...


class GradientStep:
    """Adam steps to the mode of the speech latents, or preconditioned Langevin steps; see `EM`.

    Parameters
    ----------
    score
        Log joint of the speech latents.
    randoms
        One generator a recording.
    size
        Adam's rate, or the Langevin step.
    noisy
        Whether the steps are Langevin's.
    """

    def __init__(
        self, score: FrameLogDensity, randoms: RandomStreams, size: float, noisy: bool
    ) -> None:
        """Start without a past."""
        self.score, self.randoms, self.size, self.noisy = score, randoms, size, noisy
        self.step = 0
        self.first = {site.name: torch.zeros_like(site.start) for site in score.sites}
        self.second = {site.name: torch.zeros_like(site.start) for site in score.sites}

    def moves(self, state: Values, count: int, burn_in: bool) -> list[EStepResult]:
        """See `EStep`; the moves tell of the state before each."""
        speech, noise = self.score.speech_of(state), self.score.noise_of(state)
        moves = []
        for _ in range(count):
            self.step += 1
            score = self.score(speech, noise, gradients=True)
            speech = {
                name: u + self._step(name, score.gradients[name]) for name, u in speech.items()
            }
            moves.append(EStepResult(score.total, score.power))
        state.update(speech)
        return moves

    def scale(self) -> Values:
        """Inverse root of the mean squared gradient: at the posterior, a guess of the deviation."""
        return {name: 1.0 / self._root(name) for name in self.second}

    def _step(self, name: str, gradient: Tensor) -> Tensor:
        self.second[name].mul_(_DECAY).addcmul_(gradient, gradient, value=1 - _DECAY)
        root = self._root(name)
        if not self.noisy:
            self.first[name].mul_(0.9).add_(gradient, alpha=0.1)
            return self.size * self.first[name] / (1 - 0.9**self.step) / root
        drift = 0.5 * self.size * gradient / root
        unit = self.randoms.normal(gradient.shape, gradient.dtype)
        return drift + (self.size / root).sqrt() * unit

    def _root(self, name: str) -> Tensor:
        return (self.second[name] / (1 - _DECAY**self.step)).sqrt() + 1e-8


class VariationalStep:
    r"""Adam steps of a mean-field normal guide over the speech latents, one draw each (VEM).

    .. math:: \nabla_m = g, \quad \nabla_{\log \sigma} = g \sigma \xi + 1, \quad
        g = \nabla \log p(x, u | b), \quad u = m + \sigma \xi

    Parameters
    ----------
    score
        Log joint of the speech latents.
    randoms
        One generator a recording.
    location, log_sd
        Where the guide starts: the encoder's guess.
    rate
        Adam's; it falls to a tenth over the last third of the steps.
    steps
        How many there are to be.
    """

    def __init__(
        self, score: FrameLogDensity, randoms: RandomStreams, location: Mapping[str, Tensor],
        log_sd: Mapping[str, Tensor], rate: float, steps: int,
    ) -> None:  # fmt: skip
        """Copy the start."""
        self.score, self.randoms = score, randoms
        names = [site.name for site in score.sites]
        self.location = {name: location[name].detach().clone() for name in names}
        self.log_sd = {name: log_sd[name].detach().clone() for name in names}
        parameters = [*self.location.values(), *self.log_sd.values()]
        self.adam = torch.optim.Adam(parameters, rate, betas=(0.9, 0.99)) if names else None
        self.rate, self.step, self.steps = rate, 0, steps

    def moves(self, state: Values, count: int, burn_in: bool) -> list[EStepResult]:
        """See `EStep`; the objective is the evidence lower bound, the noise given."""
        noise = self.score.noise_of(state)
        moves = []
        for _ in range(count):
            unit = {n: self.randoms.normal(m.shape, m.dtype) for n, m in self.location.items()}
            speech = self._at(unit)
            score = self.score(speech, noise, gradients=True)
            moves.append(EStepResult(score.total + self._entropy(score.rest), score.power))
            self._climb(unit, score.gradients)
            state.update(speech)
        return moves

    def draw(self) -> Values:
        """Draw the speech latents from the guide."""
        return self._at(
            {n: self.randoms.normal(m.shape, m.dtype) for n, m in self.location.items()}
        )

    def _at(self, unit: Values) -> Values:
        return {n: m + self.log_sd[n].exp() * unit[n] for n, m in self.location.items()}

    def _entropy(self, like: Tensor) -> Tensor:
        constant = 0.5 * math.log(2 * math.pi * math.e)
        terms = [(log_sd + constant).flatten(1).sum(1) for log_sd in self.log_sd.values()]
        return sum(terms, torch.zeros_like(like))

    def _climb(self, unit: Values, gradients: Values) -> None:
        if self.adam is None:
            return
        left = 1.0 - self.step / self.steps
        self.adam.param_groups[0]["lr"] = self.rate * min(1.0, 0.1 + 0.9 * 3.0 * left)
        self.step += 1
        for name, gradient in gradients.items():
            log_sd = self.log_sd[name]
            self.location[name].grad = -gradient
            log_sd.grad = -(gradient * log_sd.exp() * unit[name] + 1.0)
        self.adam.step()
