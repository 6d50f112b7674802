"""A latent diffusion prior whose flow has been distilled to a few calls of its denoiser."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from avse_ppl.models.networks.latent_diffusion import LatentDiffusionNetwork

_ASIDE = 0.2  # of a step: levels of the way up lie beside those of the way down


class FewCallsNetwork(LatentDiffusionNetwork):
    r"""`LatentDiffusionNetwork` whose flow takes one call of the denoiser a step.

    .. math:: x_{k+1} = x_k - (\theta_{k+1} - \theta_k) F(x_k, \theta_k, v)

    in the angles :math:`\theta = \arctan(\sigma / \sigma_d)` of that class. F is no longer the
    slope of the flow but the mean slope over the whole step, as learned from the end points of a
    teacher; so four steps do where the teacher takes six of Heun's rule, twelve calls. The way up,
    from latents to white noise, is learned as well: it has levels of its own, so that the network
    knows which way it is going.

    What is left of the denoiser says neither mean nor variance of clean latents: SVI, EM and NUTS
    run, guided diffusion raises.

    Parameters
    ----------
    freq, latent, visual, spread, sigma_min, sigma_max
        As for `LatentDiffusionNetwork`.
    calls
        Of the denoiser, from white noise to latents.
    **sizes
        The others of `LatentDiffusionNetwork`, but ``steps``.

    References
    ----------
    Salimans and Ho, "Progressive distillation for fast sampling of diffusion models", ICLR 2022.
    Song, Dhariwal, Chen and Sutskever, "Consistency models", ICML 2023.

    Examples
    --------
    >>> network = FewCallsNetwork(33, 4, 0, hidden=8, encoder_hidden=8, denoiser_hidden=8, calls=2)
    >>> white = torch.randn(2, 4, 10)
    >>> network.decode(white).shape
    torch.Size([2, 33, 10])
    >>> network.denoise(white, torch.ones(2))
    Traceback (most recent call last):
    ValueError: a prior distilled to few calls has a flow and no denoiser any more...
    """

    def __init__(
        self, freq: int, latent: int = 16, visual: int = 64, calls: int = 4, spread: float = 1.0,
        sigma_min: float = 0.02, sigma_max: float = 20.0, **sizes: Any,
    ) -> None:  # fmt: skip
        """Build the layers; see the class."""
        super().__init__(
            freq, latent, visual, steps=calls, spread=spread, sigma_min=sigma_min,
            sigma_max=sigma_max, **sizes,
        )  # fmt: skip
        self.calls = calls

    def denoise(
        self, noisy: Tensor, sigma: Tensor, visual: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Raise ValueError: what the denoiser of the teacher knew has been given up for speed."""
        raise ValueError(
            "a prior distilled to few calls has a flow and no denoiser any more, which guided "
            "diffusion needs; take the prior that it was distilled from, such as "
            "'latent-diffusion', or --inference svi, em or nuts"
        )

    def innovations(self, z: Tensor, visual: Tensor | None = None, once: bool = True) -> Tensor:
        """White noise whose `latents` are about z: the way up, as learned; see the model card."""
        return self._upwards(z, visual)

    def _upwards(self, z: Tensor, visual: Tensor | None) -> Tensor:
        start, end = self._radii()
        return self._flow(z / end, self._angles_upwards(), visual) * (start / self.sigma_max)

    def _flow(self, x: Tensor, angles: Tensor, visual: Tensor | None) -> Tensor:
        """Carry x, ``(..., latent, time)``, from the first angle to the last."""
        rows = x.reshape(-1, *x.shape[-2:])
        seen = self.denoiser.see(visual, len(rows))
        for here, there in pairwise(angles):
            sigma = (self.spread * torch.tan(here)).to(rows).expand(len(rows))
            rows = rows - (there - here).to(rows) * self.denoiser(rows, sigma, seen)[0]
        return rows.reshape(x.shape)

    def _angles_upwards(self) -> Tensor:
        """Of the way up, from the lowest to the highest, ``(calls + 1,)``."""
        place = torch.linspace(0.0, 1.0, self.steps + 1, dtype=torch.float64)
        place[1:-1] += _ASIDE / self.steps
        return self._angles_at(place).flip(0)
