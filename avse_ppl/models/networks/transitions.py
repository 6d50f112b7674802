r"""Transition models: priors of a latent sequence, as a density and as a sampler.

A prior is a conditional normal distribution for each frame,
:math:`z_t | z_{1:t-1}, h_t \sim N(\mu_t, \sigma^2_t)`, with h the visual context (0 without video).

- ``law(z, h)`` gives :math:`\mu_t, \log \sigma^2_t` of all frames at once, the past being given:
  the density, which is all that training and inference need, without a loop over time.
- ``sample_from_innovations(e, h)`` turns standard-normal innovations into latents,
  :math:`z_t = \mu_t(z_{1:t-1}, h_t) + \sigma_t e_t`: a draw of the prior.

Arrays are ``(batch, latent, time)`` and ``(batch, visual, time)``. A new prior is one more class of
this kind, its counterpart in ``networks/jax/sequential.py``, and a line in ``PRIORS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn

LOGVAR = (-8.0, 3.0)
FURTHEST = 8.0  # of a latent, as a recurrent law sees it; those of speech stay within 7


class Standard(nn.Module):
    r"""White: :math:`z_t \sim N(0, I)`."""

    def __init__(self, latent: int, visual: int) -> None:
        super().__init__()

    def law(self, z: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances of all frames."""
        return torch.zeros_like(z), torch.zeros_like(z)

    def sample_from_innovations(self, innovations: Tensor, visual: Tensor) -> Tensor:
        """Innovations to latents."""
        return innovations


class Visual(nn.Module):
    r"""Visual prior, independent from frame to frame: :math:`z_t \sim N(\mu(h_t), \sigma^2(h_t))`.

    :math:`N(0, I)` without video: the layers have no bias.

    References
    ----------
    Sadeghi, Leglaive, Alameda-Pineda, Girin and Horaud, "Audio-visual speech enhancement using
    conditional variational auto-encoders", TASLP 2020.
    """

    def __init__(self, latent: int, visual: int) -> None:
        """Build the layers, which start at N(0, I)."""
        super().__init__()
        self.mean = nn.Conv1d(visual, latent, 1, bias=False)
        self.logvar = nn.Conv1d(visual, latent, 1, bias=False)
        for layer in (self.mean, self.logvar):
            nn.init.zeros_(layer.weight)

    def law(self, z: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances of all frames."""
        return self.mean(visual), self.logvar(visual).clamp(*LOGVAR)

    def sample_from_innovations(self, innovations: Tensor, visual: Tensor) -> Tensor:
        """Innovations to latents."""
        mean, logvar = self.law(innovations, visual)
        return mean + torch.exp(0.5 * logvar) * innovations


class Gated(nn.Module):
    r"""Deep Kalman filter: a gated transition from the frame before, driven by the visual context.

    .. math:: (p, r, \kappa) = M \tanh(A z_{t-1} + B h_t + b) + N h_t + c, \quad
        \mu_t = (1 - g) \odot F z_{t-1} + g \odot p, \quad g = \mathrm{sigmoid}(\kappa), \quad
        \log \sigma^2_t = r

    with F diagonal, and :math:`z_0 = 0`.

    References
    ----------
    Krishnan, Shalit and Sontag, "Deep Kalman filters", 2015. Golmakani, Sadeghi and Serizel,
    "Audio-visual speech enhancement with a deep Kalman filter generative model", ICASSP 2023.
    """

    def __init__(self, latent: int, visual: int, hidden: int = 128) -> None:
        super().__init__()
        self.past = nn.Linear(latent, hidden)
        self.drive = nn.Conv1d(visual, hidden, 1, bias=False)
        self.out = nn.Linear(hidden, 3 * latent)
        self.skip = nn.Conv1d(visual, 3 * latent, 1, bias=False)
        self.decay = nn.Parameter(torch.full((latent,), 0.9))
        nn.init.zeros_(self.skip.weight)
        with torch.no_grad():
            self.out.bias[latent:] = -1.0  # starts with a small variance, near to the linear path

    def law(self, z: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances of all frames."""
        before = nn.functional.pad(z, (1, 0))[..., :-1].transpose(1, 2)
        drive, skip = self.drive(visual).transpose(1, 2), self.skip(visual).transpose(1, 2)
        mean, logvar = self._step(before, drive, skip)
        return mean.transpose(1, 2), logvar.transpose(1, 2)

    def sample_from_innovations(self, innovations: Tensor, visual: Tensor) -> Tensor:
        """Innovations to latents, frame by frame."""
        drives, skips = self.drive(visual).unbind(-1), self.skip(visual).unbind(-1)
        z, states = torch.zeros_like(innovations[..., 0]), []
        for fresh, drive, skip in zip(innovations.unbind(-1), drives, skips, strict=True):
            mean, logvar = self._step(z, drive, skip)
            z = torch.addcmul(mean, torch.exp(0.5 * logvar), fresh)
            states.append(z)
        return torch.stack(states, -1)

    def _step(self, before: Tensor, drive: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """Distribution of the next frame, channels last."""
        out = self.out(torch.tanh(self.past(before) + drive)) + skip
        proposed, logvar, gate = out.chunk(3, -1)
        mean = torch.lerp(self.decay * before, proposed, torch.sigmoid(gate))
        return mean, logvar.clamp(*LOGVAR)


class Recurrent(nn.Module):
    r"""Stochastic recurrent prior: a deterministic state carries all of the past.

    .. math:: d_t = \mathrm{GRU}(d_{t-1}, [z_{t-1}, h_t]), \qquad
        z_t | z_{1:t-1}, h_{1:t} \sim N(\mu(d_t, z_{t-1}), \sigma^2(d_t, z_{t-1}))

    The SRNN of the literature feeds the past speech to d. Speech is integrated out here, so that
    its latents take that place: the law of speech given all latents stays Gaussian. Past latents
    count as if they were 8 at most: a chain that is left to itself would grow without bound.

    References
    ----------
    Fraccaro, Soenderby, Paquet and Winther, "Sequential neural models with stochastic layers",
    NeurIPS 2016. Girin et al., "Dynamical variational autoencoders: a comprehensive review", 2021.
    """

    def __init__(self, latent: int, visual: int, hidden: int = 96) -> None:
        super().__init__()
        self.memory = nn.GRU(latent + visual, hidden, batch_first=True)
        self.out = nn.Linear(hidden + latent, 2 * latent)

    def law(self, z: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances of all frames."""
        before = nn.functional.pad(z, (1, 0))[..., :-1].clamp(-FURTHEST, FURTHEST)
        state, _ = self.memory(torch.cat((before, visual), 1).transpose(1, 2))
        mean, logvar = self._read(state, before.transpose(1, 2))
        return mean.transpose(1, 2), logvar.transpose(1, 2)

    def sample_from_innovations(self, innovations: Tensor, visual: Tensor) -> Tensor:
        """Innovations to latents, frame by frame."""
        weights, bias, kept_weights, kept_bias = (
            cast(Tensor, getattr(self.memory, f"{kind}_{side}_l0"))
            for side in ("ih", "hh")
            for kind in ("weight", "bias")
        )
        latent = innovations.shape[1]
        drives = (weights[:, latent:] @ visual + bias[:, None]).unbind(-1)
        inward, recurrent = weights[:, :latent].T, kept_weights.T
        z = torch.zeros_like(innovations[..., 0])
        state = z.new_zeros(len(z), self.memory.hidden_size)
        states = []
        for fresh, drive in zip(innovations.unbind(-1), drives, strict=True):
            before = z.clamp(-FURTHEST, FURTHEST)
            state = gru_step(
                torch.addmm(drive, before, inward),
                torch.addmm(kept_bias, state, recurrent),
                state,
            )
            mean, logvar = self._read(state, before)
            z = torch.addcmul(mean, torch.exp(0.5 * logvar), fresh)
            states.append(z)
        return torch.stack(states, -1)

    def _read(self, state: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Distribution of the next frame, channels last."""
        mean, logvar = self.out(torch.cat((state, before), -1)).chunk(2, -1)
        return before + mean, logvar.clamp(*LOGVAR)


def gru_step(driven: Tensor, kept: Tensor, state: Tensor) -> Tensor:
    """GRU cell from its two affine maps, with torch's order of the gates."""
    reset, update, new = driven.chunk(3, -1)
    reset_kept, update_kept, new_kept = kept.chunk(3, -1)
    proposed = torch.tanh(torch.addcmul(new, torch.sigmoid(reset + reset_kept), new_kept))
    return torch.lerp(proposed, state, torch.sigmoid(update + update_kept))


PRIORS: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {"standard": Standard, "visual": Visual, "gated": Gated, "recurrent": Recurrent}
)
