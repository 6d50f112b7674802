"""The recursion of the gated transition with a gradient written out: a third of autograd's time."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGVAR = (-8.0, 3.0)


class Transition(NamedTuple):
    """Weights of a gated transition, and its drive: all but the latents.

    ``past`` is ``(hidden, latent)``, ``out`` ``(3 latent, hidden)``, ``decay`` ``(latent,)``;
    ``drive`` ``(time, batch, hidden)`` and ``skip`` ``(time, batch, 3 latent)``, biases included.
    """

    past: Tensor
    out: Tensor
    decay: Tensor
    drive: Tensor
    skip: Tensor


class GatedScan(torch.autograd.Function):
    r"""Innovations ``(time, batch, latent)`` to latents, differentiable in the innovations only.

    .. math:: z_t = (1 - g_t) \odot F z_{t-1} + g_t \odot p_t + \sigma_t \odot e_t

    Backwards, with :math:`\bar z_t` the gradient that reaches :math:`z_t`, from above and from
    :math:`z_{t+1}`:

    .. math:: \bar z_{t-1} \mathrel{+}= D_t \odot \bar z_t
        + A^\top (H_t \odot M^\top (C_t \odot [\bar z_t, \bar z_t, \bar z_t]))

    D, H and C are known for all frames before the loop begins.
    """

    @staticmethod
    def forward(ctx: Any, innovations: Tensor, *parts: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run the recursion."""
        of = Transition(*parts)
        past, out = of.past.T, of.out.T
        z = torch.zeros_like(innovations[0])
        states, hiddens, outs = [z], [], []
        for fresh, drive, skip in zip(innovations, of.drive, of.skip, strict=True):
            hidden = torch.tanh(torch.addmm(drive, z, past))
            raw = torch.addmm(skip, hidden, out)
            proposed, logvar, gate = raw.chunk(3, -1)
            mean = torch.lerp(of.decay * z, proposed, gate.sigmoid())
            z = torch.addcmul(mean, logvar.clamp(*LOGVAR).mul(0.5).exp(), fresh)
            states.append(z)
            hiddens.append(hidden)
            outs.append(raw)
        latents = torch.stack(states)
        ctx.save_for_backward(innovations, latents, torch.stack(hiddens), torch.stack(outs), *parts)
        return latents[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run it back."""
        innovations, latents, hiddens, outs, *parts = ctx.saved_tensors
        of = Transition(*parts)
        proposed, logvar, gate = outs.chunk(3, -1)
        g, before = gate.sigmoid(), latents[:-1]
        sd = logvar.clamp(*LOGVAR).mul(0.5).exp()
        free = (logvar > LOGVAR[0]) & (logvar < LOGVAR[1])
        coefficients = torch.cat(
            (g, 0.5 * sd * innovations * free, (proposed - of.decay * before) * g * (1 - g)), -1
        )
        straight, slope = (1 - g) * of.decay, 1 - hiddens.square()
        carry, reached = torch.zeros_like(latents[0]), []
        for t in range(len(innovations) - 1, -1, -1):
            here = grads[0][t] + carry
            reached.append(here)
            back = ((here.repeat(1, 3) * coefficients[t]) @ of.out) * slope[t]
            carry = torch.addcmul(back @ of.past, here, straight[t])
        return (torch.stack(reached[::-1]) * sd, *(None for _ in parts))
