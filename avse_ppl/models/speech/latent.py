"""What all learned speech priors with one Gaussian latent sequence share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from pyroapi import distributions as dist
from pyroapi import ops, pyro
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.networks.lip_encoder import RATE_HZ, LipEncoder, on_frames
from avse_ppl.models.protocols import SupportsSwitch, receptive_field_of
from avse_ppl.models.speech.decoding import decode
from avse_ppl.models.speech.latent_sequence import sequence_prior
from avse_ppl.models.visual.gate import Switched
from avse_ppl.signal.stft import Frames, Stft

if TYPE_CHECKING:
    from avse_ppl.video import Lips

DB = math.log(10) / 10


class PowerDecoder(Protocol):
    """A network between speech power and a latent sequence."""

    latent: int

    def encode(
        self, power: Tensor, sample: bool = False, **seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map ``(recording, freq, time)`` to mean, log-variance and draw of the latents."""
        ...

    def decode(self, z: Tensor, *seen: Tensor) -> Tensor:
        """Map ``(recording, latent, time)`` to log power ``(recording, freq, time)``."""
        ...


@dataclass(frozen=True)
class LatentSpeech:
    r"""Speech prior decoded from a latent sequence.

    .. math:: z_{1:T} \sim p(z | v), \quad \ell \sim N(0, 1), \quad
        s_{ft} \sim N_c\left(0, 10^{(\sigma \ell - L) / 10} \exp d_f(z_{1:T})\right)

    with :math:`z_{lt} \sim N(0, 1)` unless the network has a law of its latents, dynamical or
    driven by the lips, see `avse_ppl.models.speech.latent_sequence`. The level is one gain for the
    recording.

    Sites: ``speech.z``, ``(latent, time)``; ``speech.level``, one per recording.

    Parameters
    ----------
    network
        Encoder and decoder.
    level_db
        L, level of the recording at which the decoder's own scale is right, dB.
    level_sd_db
        :math:`\sigma`, how uncertain the level is, dB.
    start_gain_db
        Gain on the encoder's guess where inference starts, dB. An encoder that has only seen clean
        speech takes a whole mixture for speech: from a quieter start, a noise model explains its
        share first. 0 for encoders that were trained on mixtures.
    lips
        Visual encoder through which the prior sees the speaker; None for an audio-only prior. The
        network then takes features as a second argument.
    trust
        Factor of the score of all lips, in (0, 1]: how far what the visual encoder learned of its
        own speakers holds for others.
    stft
        Front end that the network was trained with.
    name
        For messages and reports.
    """

    network: PowerDecoder
    level_db: float = 0.0
    level_sd_db: float = 6.0
    start_gain_db: float = 0.0
    lips: LipEncoder | None = None
    visual_weight: float = 1.0
    stft: Stft = field(default_factory=Stft)
    name: str = "latent speech"

    def __call__(self, frames: Frames, visual: Any = None) -> ComplexNormal:
        """Sample the latents, return the law of speech, ``(freq, time)``.

        ``visual`` is ``(recording, 1 + feature, time)``, or `Switched` if the prior `switches`.
        """
        seen = visual if self.lips is not None else None
        zero = frames.number(0.0)
        level = pyro.sample("speech.level", dist.Normal(zero, 1.0))
        with (
            pyro.plate("latent", self.network.latent, dim=-2),
            pyro.plate("time", frames.time, dim=-1),
        ):
            z = pyro.sample("speech.z", sequence_prior(self.network, frames, seen))
        gain_db = self.level_sd_db * level - self.level_db
        decoded = decode(self.network, z, None if isinstance(seen, Switched) else seen)
        return ComplexNormal(0.0, ops.exp(decoded + DB * gain_db))

    @property
    def supports_switch(self) -> bool:
        """Whether a switch of the lips can be summed out; see `avse_ppl.models.visual.switch`."""
        return self.lips is not None and (
            isinstance(self.network, SupportsSwitch) and self.network.supports_switch
        )

    @property
    def receptive_field(self) -> int | None:
        """Frames to either side whose law the latents of a frame change; None: any."""
        return receptive_field_of(self.network)

    def visual_features(self, lips: Lips, frames: Frames) -> Tensor:
        """Features of a mouth on the frames of a recording, ``(1 + feature, time)``.

        The first row is 1 where a face was found and 0 elsewhere.

        Raises
        ------
        ValueError
            If the prior is audio-only.
        """
        return encode_lips(self.lips, lips, frames, self.name)

    def encode(
        self, power: Tensor, visual: Tensor | None = None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Amortised guess of the latents: mean and standard deviation of each site.

        Parameters
        ----------
        power
            ``(recording, freq, time)``: of speech, or of a mixture for a warm start.
        visual
            ``(recording, 1 + feature, time)``, see `see`.
        """
        seen: Any = {} if visual is None or self.lips is None else {"visual": visual}
        with torch.no_grad():
            mean, logvar, _ = self.network.encode(power * math.exp(DB * self.level_db), **seen)
        start = self.start_gain_db / self.level_sd_db
        level = torch.full_like(power[:, :1, :1], start)
        return {
            "speech.z": (mean, torch.exp(0.5 * logvar)),
            "speech.level": (level, torch.full_like(level, 0.3)),
        }

    def to(self, device: torch.device, dtype: torch.dtype) -> LatentSpeech:
        """Return the same prior with its network on another device or dtype."""
        from dataclasses import replace

        first = next(self.network.parameters())  # type: ignore[attr-defined]
        if first.device == device and first.dtype == dtype:
            return self
        import copy

        network = copy.deepcopy(self.network).to(device, dtype)  # type: ignore[attr-defined]
        return replace(self, network=network)


def encode_lips(network: LipEncoder | None, lips: Lips, frames: Frames, name: str) -> Tensor:
    """Features of a mouth on the frames of a recording, ``(1 + feature, time)``.

    Raises
    ------
    ValueError
        If the prior of that name has no visual encoder.
    """
    if network is None:
        raise ValueError(f"speech prior {name!r} is audio-only and sees nothing")
    steady = lips.resample(RATE_HZ)
    found = torch.from_numpy(steady.found.astype("float32"))
    with torch.no_grad():
        features = network(torch.from_numpy(steady.roi[None]))
        return on_frames(features, found[None], frames.time_s.cpu())[0]
