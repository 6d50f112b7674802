"""Contracts of the models: what a noise model, a speech prior and a denoiser must and may offer.

A noise model is any function of `Frames` that returns a `ComplexNormal`; a speech prior is the
same with a second argument for visual features. Everything else is optional: an inference method
asks by ``isinstance(model, HasMStep)`` and does without where the answer is no.

Examples
--------
A complete noise model, stationary white noise of unknown power, with both optional abilities:

>>> from dataclasses import dataclass
>>> import numpy as np
>>> from pyroapi import distributions as dist
>>> from pyroapi import ops, pyro
>>> from avse_ppl import SVI, ComplexNormal, Scene, Stft
>>> @dataclass(frozen=True)
... class WhiteNoise:
...     def __call__(self, frames):
...         power = pyro.sample("noise.power", dist.LogNormal(frames.number(-2.0), 2.0))
...         return ComplexNormal(0.0, power)
...
...     def initial(self, power, speech_power, generator):  # where inference starts
...         left = (power - speech_power).clamp_min(1e-6)
...         return {"noise.power": left.mean((-2, -1), keepdim=True)}
...
...     def maximise(self, values, power, speech_power, tempering=1.0):  # a step that never lowers
...         noise = values["noise.power"]
...         inverse = 1.0 / (speech_power + noise)  # (draw, recording, freq, time)
...         up = (power * inverse.square()).mean(0).sum((-2, -1), keepdim=True)
...         down = inverse.mean(0).sum((-2, -1), keepdim=True)
...         return {"noise.power": noise * (up / down).sqrt()}
>>> isinstance(WhiteNoise(), HasInitialValues), isinstance(WhiteNoise(), HasMStep)
(True, True)

A complete speech prior, speech of known spectrum whose gain is unknown in each frame, with an
encoder for the warm start:

>>> @dataclass(frozen=True)
... class GainSpeech:
...     stft: Stft = Stft()
...     name: str = "gain"
...
...     def __call__(self, frames, visual=None):
...         with pyro.plate("time", frames.time, dim=-1):
...             gain = pyro.sample("speech.gain", dist.Normal(frames.number(0.0), 1.0))
...         return ComplexNormal(0.0, ops.exp(2.0 * gain) / (1.0 + frames.freq_hz / 500.0))
...
...     def encode(self, power, visual=None):  # mean and standard deviation of each latent
...         level = power.mean(-2, keepdim=True).clamp_min(1e-6)
...         return {"speech.gain": (0.5 * level.log(), 0.5 * torch.ones_like(level))}
>>> scene = Scene(GainSpeech(), WhiteNoise())
>>> isinstance(scene.speech, HasEncoder), isinstance(scene.speech, AudioVisual)
(True, False)
>>> wave = np.random.default_rng(0).normal(size=4000).astype("float32")
>>> SVI(steps=20, draws=5)(scene, wave, seed=0).speech.shape
(1, 5, 1, 4000)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.signal.stft import Frames, Stft

if TYPE_CHECKING:
    import numpy as np

    from avse_ppl.models.networks.lip_encoder import LipEncoder
    from avse_ppl.models.speech.compression import Compression

# Noise models


@runtime_checkable
class NoiseModel(Protocol):
    """A function of the frames that samples its latents and returns the distribution of noise."""

    def __call__(self, frames: Frames, /) -> ComplexNormal:
        """Distribution of the noise STFT given its latents, broadcastable to ``(freq, time)``."""
        ...


@runtime_checkable
class HasInitialValues(Protocol):
    """A noise model that starts at the data instead of the median of its prior."""

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Values of its latents from the power of the mixture and a guess of that of speech.

        Both are ``(recording, freq, time)``; the first is 0 in frames that are masked.
        """
        ...


@runtime_checkable
class HasInitialBelow(Protocol):
    """A noise model that starts at the noise floor where it is a part of a sum."""

    def initial_below(self, power: Tensor) -> dict[str, Tensor]:
        """Values of its latents, what rises above the floor being left to the other parts."""
        ...


@runtime_checkable
class HasMStep(Protocol):
    """A noise model with a closed-form update of its latents."""

    def maximise(
        self,
        values: Mapping[str, Tensor],
        power: Tensor,
        speech_power: Tensor,
        tempering: float = 1.0,
    ) -> dict[str, Tensor]:
        """Step that never lowers the log posterior of the latents, draws of speech power given.

        Shapes: ``power`` ``(recording, freq, time)``, ``speech_power`` ``(draw, ...)`` of the same;
        of speech with a mean, as given a prediction, ``power`` may have draws as well.
        """
        ...


@runtime_checkable
class HasSite(Protocol):
    """A noise model whose latents can be renamed: a dataclass with a field ``site``."""

    site: str


@runtime_checkable
class HasInnerNoise(Protocol):
    """A noise model that modulates another one."""

    noise: Any


@runtime_checkable
class Movable(Protocol):
    """A model that holds tensors or networks, and can be put on another device."""

    def to(self, device: torch.device, dtype: torch.dtype, /) -> Any:
        """Return the same model on a device and in a dtype."""
        ...


# Speech priors


class SpeechPrior(Protocol):
    """A function that samples its latents and returns the distribution of the speech STFT."""

    def __call__(self, frames: Frames, visual: Any = None, /) -> ComplexNormal:
        """Distribution of speech, ``(freq, time)``; ``visual`` are gated visual features."""
        ...


@runtime_checkable
class HasStft(Protocol):
    """A speech prior that was made for one front end."""

    stft: Stft


@runtime_checkable
class HasEncoder(Protocol):
    """A speech prior with an amortised guess of its latents, for warm starts."""

    def encode(
        self, power: Tensor, visual: Tensor | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean and standard deviation of each latent, given a power ``(recording, freq, time)``."""
        ...


@runtime_checkable
class HasMeasuringEncoder(HasEncoder, Protocol):
    """A speech prior whose encoder measures the latents, where ``amortised`` is true.

    Its program observes what was measured, which it finds in ``frames.encoded``.
    """

    amortised: bool

    def measure(self, power: Tensor, visual: Tensor | None = None) -> Tensor:
        """Measured values and standard deviations of latents, ``(recording, 2 latent, time)``."""
        ...


class LipCrops(Protocol):
    """Video of a speaker's mouth, as a visual encoder needs it; `avse_ppl.video.Lips` is one."""

    @property
    def roi(self) -> np.ndarray:
        """Grey crops around the mouth, ``(frame, 88, 88)``, 0 to 255; zeros where no face is."""
        ...

    @property
    def found(self) -> np.ndarray:
        """Whether there is a face, ``(frame,)``."""
        ...

    def resample(self, rate_hz: float, /) -> LipCrops:
        """Return the frames at the times ``k / rate_hz``."""
        ...


@runtime_checkable
class AudioVisual(Protocol):
    """A speech prior that can take video."""

    def visual_features(self, lips: LipCrops, frames: Frames) -> Tensor:
        """Features of the lips on the frames of a recording, ``(1 + feature, time)``."""
        ...


@runtime_checkable
class HasVisualEncoder(Protocol):
    """An audio-visual prior with its visual encoder; audio-only where that is None."""

    visual_encoder: LipEncoder | None


@runtime_checkable
class HasVisualWeight(Protocol):
    """A prior with a factor on the gates of all lips, in (0, 1]; see `LatentSpeech`."""

    visual_weight: float


@runtime_checkable
class SupportsSwitch(Protocol):
    """A speech prior whose switch of the lips can be summed out, where the property is true."""

    @property
    def supports_switch(self) -> bool:
        """Whether it can."""
        ...


@runtime_checkable
class HasReceptiveField(Protocol):
    """A prior that declares which frames the latents of one frame change."""

    @property
    def receptive_field(self) -> int | None:
        """Frames to either side; None: any."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """What a score prior offers instead of a density."""

    stft: Stft
    compression: Compression
    sigma_min: float
    sigma_max: float

    def denoise(
        self, noisy: Tensor, sigma: Tensor, visual: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of compressed clean speech given it under noise.

        ``noisy`` is ``(recording, freq, time)``, complex, ``sigma`` ``(recording,)``, ``visual``
        ``(recording, 1 + feature, time)``.
        """
        ...


# Networks of latent priors


@runtime_checkable
class HasNetwork(Protocol):
    """A prior that is parametrised by a network."""

    network: Any


@runtime_checkable
class HasLatentDecoder(Protocol):
    """A network whose latent site are innovations, and that can decode the latents themselves."""

    def decode_latents(self, z: Tensor) -> Tensor:
        """Log power of latents, ``(..., freq, time)``."""
        ...


@runtime_checkable
class HasSequencePrior(Protocol):
    """A network with a prior of its latent sequence, instead of a white one."""

    latent: int

    def law(self, z: Tensor, visual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of each latent given those before it."""
        ...

    def sample_from_innovations(self, innovations: Tensor, visual: Tensor | None = None) -> Tensor:
        """Latents from standard-normal innovations."""
        ...


@runtime_checkable
class LatentDenoisingNetwork(Protocol):
    """A network that denoises latents: a diffusion prior of them."""

    def denoise(self, noisy: Tensor, sigma: Any, visual: Tensor | None = None) -> Any:
        """Mean and variance of clean latents."""
        ...


def is_audio_visual(speech: Any) -> bool:
    """Whether a speech prior takes video.

    Examples
    --------
    >>> from avse_ppl import GaussianSpeech
    >>> is_audio_visual(GaussianSpeech())
    False
    """
    if isinstance(speech, HasVisualEncoder):
        return speech.visual_encoder is not None
    return isinstance(speech, AudioVisual)


def visual_weight_of(speech: Any) -> float:
    """Factor on the gates of all lips that a speech prior asks for; 1 where it does not."""
    return speech.visual_weight if isinstance(speech, HasVisualWeight) else 1.0


def supports_switch(speech: Any) -> bool:
    """Whether the switch of the lips can be summed out under a speech prior."""
    return isinstance(speech, SupportsSwitch) and speech.supports_switch


def network_of(prior: Any) -> Any:
    """Network of a prior; None where it has none."""
    return prior.network if isinstance(prior, HasNetwork) else None


def receptive_field_of(prior: Any) -> int | None:
    """Receptive field that a prior or a network declares; None where it declares none."""
    return prior.receptive_field if isinstance(prior, HasReceptiveField) else None


def move_model(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Put a model on another device or dtype, if it holds anything there."""
    return model.to(device, dtype) if isinstance(model, Movable) else model


def name_of(model: object) -> str:
    """Return what a model is called in messages and reports."""
    return str(
        getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__
    )
