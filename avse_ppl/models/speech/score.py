"""Score-based speech priors: denoisers in place of densities."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from avse_ppl.models.networks.lip_encoder import LipEncoder
from avse_ppl.models.networks.score_cnn import SpectralDenoiser
from avse_ppl.models.protocols import LipCrops
from avse_ppl.models.speech.compression import Compression
from avse_ppl.models.speech.gaussian import GaussianSpeech
from avse_ppl.models.speech.latent import encode_lips
from avse_ppl.signal.stft import Frames, Stft


@dataclass(frozen=True)
class ScoreSpeech:
    r"""Score-based speech prior: a denoiser of compressed complex spectrograms.

    .. math:: c_{ft} = |s_{ft}|^{1/2} e^{i \angle s_{ft}}, \quad y = c + \sigma \epsilon, \quad
        \nabla \log p_\sigma(y | v) = (E[c | y, v] - y) / \sigma^2

    The network answers with mean and variance of each :math:`c_{ft}`. It has no density for
    gradient-based methods: inference is by `GuidedDiffusion` or `UDiffSE`.

    Parameters
    ----------
    network
        The denoiser.
    visual_encoder
        Visual encoder; None for an audio-only prior.
    visual_weight
        See `LatentSpeech`.
    sigma_min, sigma_max
        Noise levels that it was trained between.
    stft
        Front end that the network was trained with.
    name
        For messages and reports.
    """

    network: SpectralDenoiser
    visual_encoder: LipEncoder | None = None
    visual_weight: float = 1.0
    sigma_min: float = 0.02
    sigma_max: float = 5.0
    stft: Stft = field(default_factory=Stft)
    name: str = "score"

    @property
    def compression(self) -> Compression:
        """Of the amplitudes of what it denoises."""
        return Compression(self.network.exponent)

    def denoise(
        self, noisy: Tensor, sigma: Tensor, visual: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of compressed clean speech; see `Denoiser`."""
        with torch.no_grad():
            return self.network(noisy, sigma, visual if self.visual_encoder is not None else None)

    def __call__(self, frames: Frames, visual: Any = None) -> NoReturn:
        """Raise ValueError: there is no law of speech to return."""
        raise ValueError(
            f"speech prior {self.name!r} is a score prior: it knows how to take noise away and has "
            "no density for this routine; take --inference guided, or GuidedDiffusion()"
        )

    def visual_features(self, lips: LipCrops, frames: Frames) -> Tensor:
        """Features of a mouth on the frames of a recording; see `LatentSpeech.visual_features`."""
        return encode_lips(self.visual_encoder, lips, frames, self.name)

    def to(self, device: torch.device, dtype: torch.dtype) -> ScoreSpeech:
        """Return the same prior with its network on another device or dtype."""
        first = next(self.network.parameters())
        if first.device == device and first.dtype == dtype:
            return self
        return replace(self, network=copy.deepcopy(self.network).to(device, dtype))


@dataclass(frozen=True)
class GaussianScore:
    r"""Score of Gaussian speech of known power, in closed form: the reference of guided diffusion.

    .. math:: E[s_{ft} | y] = \frac{S_{ft}}{S_{ft} + \sigma^2} y_{ft}, \quad
        Var[s_{ft} | y] = \frac{S_{ft} \sigma^2}{S_{ft} + \sigma^2}

    Parameters
    ----------
    power
        S, broadcastable with ``(freq, time)``.
    sigma_min, sigma_max
        Noise levels between which a reverse run makes sense.
    stft
        Front end.

    Examples
    --------
    >>> prior = GaussianScore(torch.ones(513, 1))
    >>> mean, variance = prior.denoise(torch.ones(1, 513, 2) + 0j, torch.ones(1))
    >>> complex(mean[0, 0, 0]), float(variance[0, 0, 0])
    ((0.5+0j), 0.5)
    """

    power: Tensor
    sigma_min: float = 0.01
    sigma_max: float = 20.0
    stft: Stft = field(default_factory=Stft)
    compression: Compression = field(default_factory=lambda: Compression(1.0))
    name: str = "gaussian score"

    @classmethod
    def of(cls, speech: GaussianSpeech, frames: Frames) -> GaussianScore:
        """Score of a `GaussianSpeech` whose gain is known."""
        return cls(speech(frames).power, stft=speech.stft)

    def denoise(
        self, noisy: Tensor, sigma: Tensor, visual: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance, ``(recording, freq, time)``."""
        power = self.power.to(sigma)
        noise = sigma.square()[:, None, None]
        gain = power / (power + noise)
        return gain * noisy, (gain * noise).expand(noisy.shape)

    def __call__(self, frames: Frames, visual: Any = None) -> NoReturn:
        """Raise ValueError: take `GaussianSpeech` where a law is wanted."""
        raise ValueError(
            "GaussianScore is a score prior; take GaussianSpeech for routines that want a law"
        )
