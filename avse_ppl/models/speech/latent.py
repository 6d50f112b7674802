"""Deep latent-variable speech priors: complex Gaussians of decoded power."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from pyroapi import distributions as dist
from pyroapi import ops, pyro
from torch import Tensor

from avse_ppl.distributions.backend import on_jax
from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.networks.lip_encoder import RATE_HZ, LipEncoder, resample_features
from avse_ppl.models.protocols import LipCrops, SupportsSwitch, receptive_field_of
from avse_ppl.models.speech.latent_sequence import sequence_prior
from avse_ppl.models.visual.gate import Switched
from avse_ppl.signal.stft import Frames, Stft

DB = math.log(10) / 10
_LEVEL_SD_DB = 0.2  # of the gain beside an encoder whose latents hold the level of speech


class PowerDecoder(Protocol):
    """A network between speech power and a latent sequence."""

    latent: int

    def encode(
        self, power: Tensor, sample: bool = False, **visual: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map ``(recording, freq, time)`` to mean, log-variance and draw of the latents."""
        ...

    def decode(self, z: Tensor, *visual: Tensor) -> Tensor:
        """Map ``(recording, latent, time)`` to log power ``(recording, freq, time)``."""
        ...


@dataclass(frozen=True)
class LatentSpeech:
    r"""Deep latent-variable speech prior: power decoded from a latent sequence.

    .. math:: z_{1:T} \sim p(z | v), \quad \ell \sim N(0, 1), \quad
        s_{ft} \sim N_c\left(0, 10^{(\sigma \ell - L) / 10} \exp d_f(z_{1:T})\right)

    with :math:`z_{lt} \sim N(0, 1)` unless the network has a prior of its latents, dynamical or
    conditioned on the lips, see `avse_ppl.models.speech.latent_sequence`; :math:`\ell` is one gain
    for the recording.

    Sites: ``speech.z``, ``(latent, time)``; ``speech.level``, one per recording.

    If it is `amortised`, the encoder is an instrument that measures the latents of a mixture x with
    an error that it has learned on mixtures of real speech and real noise:

    .. math:: \mu_{lt}(x) \sim N(z_{lt}, c^2 s_{lt}^2(x)), \qquad 0 \sim N(\sigma \ell, 0.2^2)

    with :math:`N(\mu, s^2)` its posterior of a latent; the level of speech is in the latents. The
    prior alone is open to all that the decoder can say, and a posterior that has converged takes
    noise for speech then. What it approximates: the mixture is used twice, by the encoder and by
    the likelihood, which makes this a log-linear pool of two posteriors; ``posterior.kind`` says
    "amortised prior". Observed sites: ``speech.encoded``, ``speech.encoded_level``.

    Parameters
    ----------
    network
        Encoder and decoder.
    gain_db
        L, mean power of active speech at which the decoder's own scale is right, dB.
    gain_sd_db
        :math:`\sigma`, prior standard deviation of the gain, dB.
    start_gain_db
        Initial gain on the encoder's guess, dB. An encoder that was trained on clean speech takes a
        whole mixture for speech: from a lower gain, a noise model explains its share first. 0 for
        encoders that were trained on mixtures.
    amortised
        Whether the encoder measures the latents; only for encoders that were trained on mixtures.
    encoder_width
        c, factor on the standard deviations of the encoder: 1 with a white prior; less with a
        dynamical one, against which the measurements of frames are to hold together.
    visual_encoder
        Visual encoder; None for an audio-only prior. The network of an audio-visual one takes
        features as a second argument.
    visual_weight
        Reliability discount: a factor on the score of all lips, in (0, 1], for how far what was
        learned of the training speakers holds for others.
    stft
        Front end that the network was trained with.
    name
        For messages and reports.

    References
    ----------
    Papamakarios and Murray, "Fast epsilon-free inference of simulation models with Bayesian
    conditional density estimation", NeurIPS 2016. Genest and Zidek, "Combining probability
    distributions: a critique and an annotated bibliography", Statistical Science 1986.
    """

    network: PowerDecoder
    gain_db: float = 0.0
    gain_sd_db: float = 6.0
    start_gain_db: float = 0.0
    amortised: bool = False
    encoder_width: float = 1.0
    visual_encoder: LipEncoder | None = None
    visual_weight: float = 1.0
    stft: Stft = field(default_factory=Stft)
    name: str = "latent speech"

    def __call__(self, frames: Frames, visual: Any = None) -> ComplexNormal:
        """Sample the latents; the distribution of speech, ``(freq, time)``.

        ``visual`` is ``(recording, 1 + feature, time)``, or `Switched` if `supports_switch`.
        """
        visual = visual if self.visual_encoder is not None else None
        zero = frames.number(0.0)
        gain = pyro.sample("speech.level", dist.Normal(zero, 1.0))
        with (
            pyro.plate("latent", self.network.latent, dim=-2),
            pyro.plate("time", frames.time, dim=-1),
        ):
            z = pyro.sample("speech.z", sequence_prior(self.network, frames, visual))
            if self.amortised and frames.encoded is not None:
                latent = self.network.latent
                measured, sd = frames.encoded[:, :latent], frames.encoded[:, latent:]
                pyro.sample("speech.encoded", dist.Normal(z, sd), obs=measured)
        if self.amortised and frames.encoded is not None:
            sd = frames.number(_LEVEL_SD_DB / self.gain_sd_db)
            pyro.sample("speech.encoded_level", dist.Normal(gain, sd), obs=zero)
        total_db = self.gain_sd_db * gain - self.gain_db
        decoded = decode_latents(self.network, z, None if isinstance(visual, Switched) else visual)
        return ComplexNormal(0.0, ops.exp(decoded + DB * total_db))

    @property
    def supports_switch(self) -> bool:
        """Whether a switch of the lips can be summed out; see `avse_ppl.models.visual.switch`."""
        return self.visual_encoder is not None and (
            isinstance(self.network, SupportsSwitch) and self.network.supports_switch
        )

    @property
    def receptive_field(self) -> int | None:
        """Receptive field: frames to either side that a frame's latents change; None: any."""
        return receptive_field_of(self.network)

    def visual_features(self, lips: LipCrops, frames: Frames) -> Tensor:
        """Features of a mouth on the frames of a recording, ``(1 + feature, time)``.

        The first row is 1 where a face was found and 0 elsewhere.

        Raises
        ------
        ValueError
            If the prior is audio-only.
        """
        return encode_lips(self.visual_encoder, lips, frames, self.name)

    def encode(
        self, power: Tensor, visual: Tensor | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Amortised inference: mean and standard deviation of each site.

        Parameters
        ----------
        power
            ``(recording, freq, time)``: of speech, or of a mixture for a warm start.
        visual
            ``(recording, 1 + feature, time)``, see `visual_features`.
        """
        conditions: Any = (
            {} if visual is None or self.visual_encoder is None else {"visual": visual}
        )
        with torch.no_grad():
            mean, logvar, _ = self.network.encode(power * math.exp(DB * self.gain_db), **conditions)
        gain = torch.full_like(power[:, :1, :1], self.start_gain_db / self.gain_sd_db)
        return {
            "speech.z": (mean, torch.exp(0.5 * logvar)),
            "speech.level": (gain, torch.full_like(gain, 0.3)),
        }

    def measure(self, power: Tensor, visual: Tensor | None = None) -> Tensor:
        """Measured values and standard deviations of the latents, ``(recording, 2 latent, time)``.

        Arguments as those of `encode`.
        """
        mean, sd = self.encode(power, visual)["speech.z"]
        return torch.cat((mean, self.encoder_width * sd), 1)

    def to(self, device: torch.device, dtype: torch.dtype) -> LatentSpeech:
        """Return the same prior with its network on another device or dtype."""
        first = next(self.network.parameters())  # type: ignore[attr-defined]
        if first.device == device and first.dtype == dtype:
            return self
        network = copy.deepcopy(self.network).to(device, dtype)  # type: ignore[attr-defined]
        return replace(self, network=network)


def encode_lips(network: LipEncoder | None, lips: LipCrops, frames: Frames, name: str) -> Tensor:
    """Features of a mouth on the frames of a recording, ``(1 + feature, time)``.

    Raises
    ------
    ValueError
        If the prior of that name has no visual encoder.
    """
    if network is None:
        raise ValueError(f"speech prior {name!r} is audio-only: it has no visual encoder")
    steady = lips.resample(RATE_HZ)
    found = torch.from_numpy(steady.found.astype("float32"))
    with torch.no_grad():
        features = network(torch.from_numpy(steady.roi[None]))
        return resample_features(features, found[None], frames.time_s.cpu())[0]


def decode_latents(network: Any, z: Any, visual: Any = None) -> Any:
    """Decode ``(..., latent, time)`` to log power ``(..., freq, time)`` by torch or by JAX.

    ``visual`` are gated visual features, ``(..., 1 + feature, time)``, for audio-visual networks.

    Raises
    ------
    NotImplementedError
        If the network has no decoder on JAX.
    """
    if not on_jax():
        return network.decode(z) if visual is None else network.decode(z, visual)
    from avse_ppl.models.networks.jax.decoders import jax_decoder

    return jax_decoder(network)(z) if visual is None else jax_decoder(network)(z, visual)
