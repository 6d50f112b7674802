"""Latent diffusion prior: a denoiser of the latents of a `TcvaeNetwork`."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from avse_ppl.models.networks.latent_denoiser import LatentDenoiser
from avse_ppl.models.networks.tcvae import TcvaeNetwork
from avse_ppl.models.networks.vae import draw

_CURVE = 7.0  # of the noise levels: fine where the noise is low


class LatentDiffusionNetwork(TcvaeNetwork):
    r"""Latent diffusion model: encoder, diffusion prior of the latents, and decoder.

    .. math:: y = z + \sigma \epsilon, \qquad
        E[z | y, v] = \frac{\sigma_d^2}{r^2} y + \frac{\sigma \sigma_d}{r} F(y, \sigma, v),
        \quad r^2 = \sigma_d^2 + \sigma^2

    The prior is also a map: the probability flow :math:`dy/d\sigma = (y - E[z|y, v]) / \sigma`
    carries white noise, :math:`y = \sigma_{max} u`, to latents. With
    :math:`\sigma = \sigma_d \tan \theta` and :math:`x = y / r` it is

    .. math:: dx / d\theta = -F, \qquad z = \Phi(u, v)

    whose right side is bounded and 0 for Gaussian latents; so few steps of Heun's rule do. What
    `encode` and `decode` call latents is u, white under the prior: whatever runs with a VAE runs
    with this network.

    Lips enter without biases: where their gate is 0, the network is the audio-only one, exactly.

    Parameters
    ----------
    freq, latent, hidden, blocks, encoder_hidden, encoder_blocks
        As for `TcvaeNetwork`, whose weights this network builds on.
    visual
        Number of visual features; 0 for an audio-only prior.
    denoiser_hidden, denoiser_blocks
        Channels and blocks of the denoiser, see `LatentDenoiser`.
    steps
        Of the flow, each with two calls of the denoiser.
    sigma_data
        :math:`\sigma_d`, root mean square of the latents.
    sigma_min, sigma_max
        Levels between which the flow runs.

    References
    ----------
    Karras, Aittala, Aila and Laine, "Elucidating the design space of diffusion-based generative
    models", NeurIPS 2022. Song et al., "Score-based generative modeling through stochastic
    differential equations", ICLR 2021 (the flow). Lu and Song, "Simplifying, stabilizing and
    scaling continuous-time consistency models", ICLR 2025 (the angle). Rombach et al.,
    "High-resolution image synthesis with latent diffusion models", CVPR 2022.

    Examples
    --------
    >>> network = LatentDiffusionNetwork(33, 4, 0, hidden=8, encoder_hidden=8, denoiser_hidden=8)
    >>> white = torch.randn(2, 4, 10)
    >>> network.decode(white).shape
    torch.Size([2, 33, 10])
    >>> back = network.innovations(network.latents(white))
    >>> bool((back - white).abs().max() < 0.01)
    True
    """

    def __init__(
        self, freq: int, latent: int = 16, visual: int = 64, hidden: int = 192, blocks: int = 3,
        encoder_hidden: int = 160, encoder_blocks: int = 5, denoiser_hidden: int = 128,
        denoiser_blocks: int = 8, steps: int = 6, sigma_data: float = 1.0, sigma_min: float = 0.02,
        sigma_max: float = 20.0,
    ) -> None:  # fmt: skip
        super().__init__(freq, latent, hidden, blocks, encoder_hidden, encoder_blocks)
        self.receptive_field = None  # type: ignore[assignment]
        self.visual, self.steps, self.sigma_data = visual, steps, sigma_data
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.denoiser = LatentDenoiser(latent, visual, denoiser_hidden, denoiser_blocks)

    def denoise(
        self, noisy: Tensor, sigma: Tensor, visual: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of the latents given noisy ones.

        Parameters
        ----------
        noisy
            y, ``(recording, latent, time)``.
        sigma
            Standard deviation of the noise, ``(recording,)``.
        visual
            ``(recording, 1 + visual, time)``: gate, and features times it.

        Returns
        -------
        tuple
            Two tensors ``(recording, latent, time)``.
        """
        context = self.denoiser.encode_visual(visual, len(noisy))
        level = sigma[:, None, None]
        total = (self.sigma_data**2 + level.square()).sqrt()
        drift, logvar = self.denoiser(noisy / total, sigma, context)
        narrow = level * self.sigma_data / total
        mean = (self.sigma_data / total).square() * noisy + narrow * drift
        return mean, torch.exp(logvar) * narrow.square()

    def latents(self, u: Tensor, visual: Tensor | None = None) -> Tensor:
        r"""z, :math:`\Phi(u, v)`, of white noise ``(..., latent, time)``; differentiable."""
        start, end = self.radii
        return self.integrate_flow(u * (self.sigma_max / start), self.angles, visual) * end

    def innovations(self, z: Tensor, visual: Tensor | None = None, once: bool = False) -> Tensor:
        """White noise whose `latents` are about z: the same flow, from low noise to high.

        Once, and once more for what the first answer lacks, unless ``once`` is enough. With the
        shipped weights, u comes back from its `latents` to within 2 per cent of a standard
        deviation for half of all draws of 2.5 s, and to within 35 for all of 16, where paths part;
        latents of speech within 1.
        """
        first = self.invert_flow(z, visual)
        return first if once else self.invert_flow(2.0 * z - self.latents(first, visual), visual)

    def invert_flow(self, z: Tensor, visual: Tensor | None) -> Tensor:
        """One pass of the flow from latents z to white noise."""
        start, end = self.radii
        return self.integrate_flow(z / end, self.angles.flip(0), visual) * (start / self.sigma_max)

    def encode(
        self, power: Tensor, sample: bool = False, visual: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Map ``(..., freq, time)`` to mean, log-variance and draw of u, ``(..., latent, time)``.

        The mean is the `innovations` of the encoder's. The variance is that of the encoder's
        latents in units of their standard deviation, as if the flow only scaled them, and at most
        the prior's, 1: a start for inference, not a claim. The draw is the mean unless ``sample``.
        """
        z, logvar, _ = super().encode(power)
        mean = self.innovations(z, visual)
        logvar = (logvar - 2.0 * math.log(self.sigma_data)).clamp(max=0.0)
        return mean, logvar, draw(mean, logvar, sample)

    def decode(self, z: Tensor, visual: Tensor | None = None) -> Tensor:
        """u, here called z, ``(..., latent, time)``, to log power ``(..., freq, time)``.

        By the flow, then the decoder.
        """
        return self.decode_latents(self.latents(z, visual))

    def decode_latents(self, z: Tensor) -> Tensor:
        """Latents z ``(..., latent, time)`` to log power ``(..., freq, time)``."""
        return super().decode(z)

    def infer(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, ``(..., latent, time)``."""
        return super().encode(power)[:2]

    def integrate_flow(self, x: Tensor, angles: Tensor, visual: Tensor | None) -> Tensor:
        """Carry x, ``(..., latent, time)``, from the first angle to the last, by Heun's rule."""
        rows = x.reshape(-1, *x.shape[-2:])
        context = self.denoiser.encode_visual(visual, len(rows))

        def slope(place: Tensor, angle: Tensor) -> Tensor:
            sigma = (self.sigma_data * torch.tan(angle)).to(rows).expand(len(rows))
            return -self.denoiser(place, sigma, context)[0]

        for here, there in pairwise(angles):
            step = (there - here).to(rows)
            first = slope(rows, here)
            second = slope(rows + step * first, there)
            rows = rows + 0.5 * step * (first + second)
        return rows.reshape(x.shape)

    @property
    def angles(self) -> Tensor:
        """Angles of the noise levels, from the highest to the lowest, ``(steps + 1,)``."""
        place = torch.linspace(0.0, 1.0, self.steps + 1, dtype=torch.float64)
        high, low = (bound ** (1 / _CURVE) for bound in (self.sigma_max, self.sigma_min))
        return torch.atan((high + place * (low - high)) ** _CURVE / self.sigma_data)

    @property
    def radii(self) -> tuple[float, float]:
        """Root mean squares of noisy latents where the flow starts and where it ends."""
        return math.hypot(self.sigma_data, self.sigma_max), math.hypot(
            self.sigma_data, self.sigma_min
        )
