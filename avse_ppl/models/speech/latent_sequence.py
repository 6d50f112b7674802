"""Priors of latent sequences as distributions."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyroapi import distributions as dist
from torch import Tensor
from torch.distributions import constraints

from avse_ppl.distributions.backend import on_jax
from avse_ppl.models.protocols import HasSequencePrior
from avse_ppl.models.visual.gate import Switched
from avse_ppl.models.visual.switch import draw_prior, evidence
from avse_ppl.signal.stft import Frames

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def sequence_prior(network: Any, frames: Frames, visual: Any = None) -> Any:
    """Prior of the latents of a network on a grid: white, or that of the network.

    Parameters
    ----------
    network
        One with a method ``law`` has a prior of its own.
    frames
        The grid.
    visual
        Visual features, ``(recording, 1 + feature, time)``, or None; or `Switched`.
    """
    if not isinstance(network, HasSequencePrior):
        return dist.Normal(frames.number(0.0), 1.0)
    if on_jax():
        from avse_ppl.models.speech.latent_sequence_jax import SequencePriorJax

        return SequencePriorJax(network, frames, visual)
    law = SwitchedSequencePrior if isinstance(visual, Switched) else SequencePrior
    return law(network, visual, torch.Size((1, network.latent, frames.time)))


class SequencePrior(TorchDistribution):
    r"""Autoregressive prior of a latent sequence, ``(recording, latent, time)``.

    .. math:: p(z_{1:T} | v) = \prod_{lt} N(z_{lt}; \mu_{lt}(z_{1:t-1}, v), \sigma^2_{lt})

    The log density is given factor by factor, one for each entry, so that the site lies in plates
    of latents and time as white ones do. The factors belong together: they are the law of an entry
    only with its past.

    This is the centred form: what is sampled are the latents themselves and not their innovations.
    Speech tells more of a latent than its past does, and in its innovations a latent would depend
    on those of all frames before, which no mean-field guide knows; after as many steps of
    SVI, the same prior is worth 7 dB less then.

    Parameters
    ----------
    network
        With ``law`` and ``sample_from_innovations``.
    visual
        Visual features, or None.
    shape
        Of the sequence.
    """

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore
    support = constraints.real  # pyright: ignore

    def __init__(self, network: Any, visual: Any, shape: torch.Size) -> None:
        self.network, self.visual = network, visual
        super().__init__(shape, torch.Size(), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> SequencePrior:
        """Return the same law with a larger batch shape."""
        return type(self)(self.network, self.visual, torch.Size(batch_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draw, frame by frame."""
        parameter = next(self.network.parameters())
        shape = torch.Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            fresh = torch.randn(shape, dtype=parameter.dtype, device=parameter.device)
            return self._unrolled(fresh.flatten(0, -3)).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each entry given its past, with the batch shape."""
        return self._terms(value.reshape(-1, *value.shape[-2:])).reshape(value.shape)

    def _unrolled(self, fresh: Tensor) -> Tensor:
        return self.network.sample_from_innovations(fresh, self.visual)

    def _terms(self, z: Tensor) -> Tensor:
        return normal_log_prob(z, *self.network.law(z, self.visual))


class SwitchedSequencePrior(SequencePrior):
    r"""Prior under a Markov switch of the lips: a mixture over all paths of the switch.

    .. math:: p(z_{1:T} | v) = \sum_{a_{1:T}} p(a_{1:T}) \prod_t p(z_t | z_{1:t-1}, a_t v_t)

    The log density of a frame given those before it is divided evenly among the frame's latents.
    """

    def _unrolled(self, fresh: Tensor) -> Tensor:
        count = draw_prior(self.visual.switch)
        count = count.repeat(len(fresh) // len(count), 1)
        return self.network.sample_from_innovations(fresh, self.visual.visual, count[:, None])

    def _terms(self, z: Tensor) -> Tensor:
        frames = evidence(
            branch_log_densities(self.network, z, self.visual.visual), self.visual.switch
        )
        return (frames[:, None] / z.shape[1]).expand(z.shape)


def branch_log_densities(network: Any, z: Tensor, visual: Tensor) -> Tensor:
    """Log density of each frame given its past, without and with lips: ``(row, time, 2)``."""
    both = (network.law(z, given) for given in (None, visual))
    return torch.stack([normal_log_prob(z, *law).sum(1) for law in both], -1)


def normal_log_prob(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Log density of each entry of z."""
    return -0.5 * (logvar + (z - mean).square() * torch.exp(-logvar)) - _HALF_LOG_2PI
