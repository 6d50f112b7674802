"""Deep latent-variable noise prior: power decoded from a latent sequence."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pyroapi import distributions as dist
from pyroapi import ops, pyro
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.noise.sum import NoiseModelBase
from avse_ppl.models.speech.latent import DB, PowerDecoder, decode_latents
from avse_ppl.models.validation import unknown_name
from avse_ppl.models.weights.io import PRETRAINED, load_network
from avse_ppl.signal.stft import Frames, Stft

_KNOTS = 9


@dataclass(frozen=True)
class NoiseVae(NoiseModelBase):
    r"""Deep latent-variable noise prior with an equaliser for the recording.

    .. math:: z_{lt}, \ell, e_k \sim N(0, 1), \quad b_{ft} \sim N_c\left(0,
        10^{(\sigma \ell + \kappa \sum_k B_{fk} e_k) / 10} \exp d_f(z_{1:T})\right)

    The decoder d has learned the spectra of noises and how they move. B holds triangles, evenly
    spaced over octaves, that sum to 1: another room or microphone than those it has learned from.
    Sites ``noise.z``, ``(latent, time)``; ``noise.level``, one a recording; ``noise.equaliser``
    (e), ``(knot, 1)``.

    Parameters
    ----------
    network
        Encoder and decoder.
    gain_sd_db
        :math:`\sigma`, prior standard deviation of the gain, dB.
    equaliser_sd_db
        :math:`\kappa`, prior standard deviation of the equaliser, dB; 0 for no equaliser.
    stft
        Front end that the network was trained with.
    name
        For messages and reports.
    site
        What the names of the latents begin with.

    Raises
    ------
    ValueError
        If the frames are of another front end than the network's.

    References
    ----------
    Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014. Leglaive, Girin and Horaud, "A
    variance modeling framework based on variational autoencoders for speech enhancement", MLSP 2018
    (there for speech).

    Examples
    --------
    >>> from avse_ppl.models.networks import VaeNetwork
    >>> noise = NoiseVae(VaeNetwork(freq=33, latent=4, hidden=(8,)), stft=Stft(n_fft=64, hop=16))
    >>> noise(Frames(freq=33, time=7, n_fft=64, hop=16)).power.shape
    torch.Size([33, 7])
    """

    network: PowerDecoder
    gain_sd_db: float = 6.0
    equaliser_sd_db: float = 5.0
    stft: Stft = field(default_factory=Stft)
    name: str = "learned noise"
    site: str = "noise"

    def __call__(self, frames: Frames) -> ComplexNormal:
        """Sample the innovations; the distribution of the noise, ``(freq, time)``."""
        found = (frames.sample_rate_hz, frames.n_fft, frames.hop)
        expected = (self.stft.sample_rate_hz, self.stft.n_fft, self.stft.hop)
        if found != expected:
            raise ValueError(
                f"{self.name} was trained on frames of (sample rate, n_fft, hop) = {expected}, "
                f"found {found}; use a speech prior of that front end, or train another noise prior"
            )
        zero = frames.number(0.0)
        gain_db: Any = self.gain_sd_db * pyro.sample(f"{self.site}.level", dist.Normal(zero, 1.0))
        if self.equaliser_sd_db > 0:
            with pyro.plate("knot", _KNOTS, dim=-2):
                knots = pyro.sample(f"{self.site}.equaliser", dist.Normal(zero, 1.0))
            bands = ops.asarray(octave_bands(frames.freq), device=frames.device, dtype=frames.dtype)
            gain_db = gain_db + self.equaliser_sd_db * (bands @ knots)
        with (
            pyro.plate("latent", self.network.latent, dim=-2),
            pyro.plate("time", frames.time, dim=-1),
        ):
            z = pyro.sample(f"{self.site}.z", dist.Normal(zero, 1.0))
        return ComplexNormal(0.0, ops.exp(decode_latents(self.network, z) + DB * gain_db))

    def initial(
        self, power: Tensor, speech_power: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Initial latents by the encoder, which was trained on noise under speech."""
        with torch.no_grad():
            z = self.network.encode(power)[0]
        return {f"{self.site}.z": z}

    def to(self, device: torch.device, dtype: torch.dtype) -> NoiseVae:
        """Return the same prior with its network on another device or dtype."""
        network: Any = self.network
        first = next(network.parameters())
        if first.device == device and first.dtype == dtype:
            return self
        return replace(self, network=copy.deepcopy(network).to(device, dtype))


def load_noise(name: str | Path = "noise_vae") -> NoiseVae:
    """Load a learned noise prior: the one shipped, or one from a folder of weights.

    Parameters
    ----------
    name
        ``"noise_vae"``, or a folder written by ``avse-ppl train noise-vae``.

    Raises
    ------
    ValueError
        If the name is unknown, the weights are those of a speech prior, or the folder's files are
        corrupt or do not belong together.
    FileNotFoundError
        If a file of the folder is missing.

    Examples
    --------
    >>> load_noise().network.latent
    8
    """
    folder = PRETRAINED / str(name)
    if not (folder / "config.json").is_file():
        folder = Path(name)
        if not folder.is_dir():
            raise unknown_name("noise prior", str(name), ["noise_vae"])
    network, config = load_network(folder)
    if config.get("use", "speech") != "noise":
        raise ValueError(
            f"{folder} holds a speech prior; expected a noise prior. Pass it as the speech of a "
            "scene, or train one with 'avse-ppl train noise-vae'"
        )
    return NoiseVae(
        cast(PowerDecoder, network), stft=Stft(**config["stft"]),
        name=config.get("name", folder.name),
    )  # fmt: skip


def octave_bands(freq: int) -> np.ndarray:
    """Triangles evenly spaced over octaves, ``(freq, knot)``; each row sums to 1."""
    octave = np.log2(np.arange(1, freq + 1))
    place = octave / octave[-1] * (_KNOTS - 1)
    return np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(_KNOTS)))
