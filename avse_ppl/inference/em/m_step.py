"""M-step of EM: maximise the log posterior of the noise, given draws of the speech power."""

from __future__ import annotations

import pyro
import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.fit_noise import fit_noise
from avse_ppl.inference.core.log_density import LogDensity, Values, noise_log_prior
from avse_ppl.models.protocols import HasMStep

_HALVINGS = 12


def maximise_noise(
    density: LogDensity, state: Values, speech_power: Tensor, tempering: float = 1.0,
    residual: Tensor | None = None,
) -> Values:  # fmt: skip
    r"""One step up :math:`E_s[w \log p(x | s, b)] + \log p(b)` in the noise latents b.

    By the noise model's own ``maximise`` if it has one, else along the gradient, the step halved
    for each recording until the objective does not fall.

    Parameters
    ----------
    density, state
        The scene, and its unconstrained latents.
    speech_power
        ``(draw, recording, freq, time)``.
    tempering
        Power of the likelihood.
    residual
        Mixture minus the mean of speech, ``(draw, recording, freq, time)``; by default the mixture.

    Returns
    -------
    dict
        New unconstrained values of the noise latents.
    """
    names = density.names(of_noise=True)
    if not names:
        return {}
    here = {name: state[name].detach() for name in names}
    if isinstance(density.scene.noise, HasMStep):
        values, _ = density.constrain(here)
        power = None if residual is None else residual.real.square() + residual.imag.square()
        found = fit_noise(density, values, speech_power, power=power, tempering=tempering)
        return density.unconstrain(found)
    return take_gradient_step(density, here, speech_power, tempering, residual)


def take_gradient_step(
    density: LogDensity, here: Values, speech_power: Tensor, tempering: float,
    residual: Tensor | None = None,
) -> Values:  # fmt: skip
    """Gradient step with backtracking, separately for each recording."""
    point = {name: value.clone().requires_grad_() for name, value in here.items()}
    given = {} if residual is None else {"residual": residual}
    before = noise_objective(density, point, speech_power, tempering, **given)
    gradients = dict(
        zip(point, torch.autograd.grad(before.sum(), list(point.values())), strict=True)
    )
    norm = sum(g.flatten(1).square().sum(1) for g in gradients.values())
    size = 1.0 / torch.as_tensor(norm).sqrt().clamp_min(1e-12)
    there, worse = here, torch.zeros_like(size, dtype=torch.bool)
    for _ in range(_HALVINGS):
        there = {
            name: here[name] + expand_recordings(size, gradient) * gradient
            for name, gradient in gradients.items()
        }
        with torch.no_grad():
            after = noise_objective(density, there, speech_power, tempering, **given)
        worse = ~(after >= before.detach())
        if not bool(worse.any()):
            return there
        size = torch.where(worse, 0.5 * size, size)
    return {
        name: torch.where(expand_recordings(worse, here[name]), here[name], there[name])
        for name in here
    }


def noise_objective(
    density: LogDensity, unconstrained: Values, speech_power: Tensor, tempering: float = 1.0,
    residual: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Objective of the M-step, ``(recording,)``; the prior's density is of the values."""
    values, _ = density.constrain(unconstrained)
    prior, noise = noise_log_prior(density, values)
    law = ComplexNormal(noise.mean, speech_power + noise.power)
    with pyro.validation_enabled(False):
        terms = law.log_prob(density.mixture.values if residual is None else residual)
    mask = density.mixture.mask
    if mask is not None:
        terms = torch.where(mask, terms, terms.new_zeros(()))
    return tempering * terms.mean(0).flatten(1).sum(1) + prior


def expand_recordings(per_recording: Tensor, like: Tensor) -> Tensor:
    """Expand ``(recording,)`` to the dimensions of another tensor."""
    return per_recording.reshape(-1, *([1] * (like.ndim - 1)))
