"""The library's own predictor: a network whose answer is a complex Gaussian law of speech."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.networks.tcn import TcnNetwork
from avse_ppl.models.weights.io import load_network, locate_weights
from avse_ppl.signal.stft import Spectrogram, Stft

DEFAULT_PREDICTOR = "predictor"  # the name of the shipped weights


@dataclass(frozen=True)
class NetworkPredictor:
    r"""Network that predicts speech in a mixture, and the power of its error.

    .. math:: s_{ft} \mid x \sim N_c(m_{ft}(x)\, x_{ft},\; e_{ft}(x))

    Parameters
    ----------
    network
        See `TcnNetwork`.
    stft
        Front end that it was trained with.
    causal
        Whether it does without the future, as in a stream.
    name
        For messages and reports.

    Examples
    --------
    >>> network = TcnNetwork(freq=257, widths=(4, 8), inner=12, repeats=1, dilations=2)
    >>> predictor = NetworkPredictor(network, Stft(512, 256))
    >>> predictor(np.ones(4000, dtype="float32"), 16000).shape
    (4000,)
    """

    network: TcnNetwork
    stft: Stft
    causal: bool = False
    name: str = "predictor"

    def predict_law(self, wave: Tensor) -> ComplexNormal:
        """Law of speech on the network's own grid, of one mixture ``(sample,)`` at its rate."""
        values = self.stft.forward(wave)[None]
        power = values.real.square() + values.imag.square()
        level = power.mean().clamp_min(1e-20).sqrt()
        with torch.no_grad():
            found = self.network(values / level, self.causal)
        return ComplexNormal(found.speech * level, found.log_error.exp() * level.square())

    def __call__(self, wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
        """Speech ``(sample,)`` in a mixture ``(sample,)``."""
        import soxr

        rate_hz = self.stft.sample_rate_hz
        own = soxr.resample(np.asarray(wave, np.float32), sample_rate_hz, rate_hz)
        law = self.predict_law(torch.from_numpy(own))
        found = self.stft.inverse(law.mean[0], len(own)).numpy()
        found = soxr.resample(found, rate_hz, sample_rate_hz)
        return np.pad(found, (0, max(0, len(wave) - len(found))))[: len(wave)]

    def predict_on(self, mixture: Spectrogram) -> tuple[Tensor, Tensor]:
        """Mean and log power of the error, ``(1, freq, time)``, on the grid of one recording.

        The power is interpolated over frequency and smoothed over time, by what a longer window
        sees of it, and the mean comes by way of the waveform.

        Raises
        ------
        ValueError
            If the hops or the sampling rates differ.
        """
        theirs, mine = mixture.stft, self.stft
        if (theirs.hop, theirs.sample_rate_hz) != (mine.hop, mine.sample_rate_hz):
            raise ValueError(
                f"predictor {self.name!r} was trained with hop {mine.hop} at "
                f"{mine.sample_rate_hz} Hz; the scene has hop {theirs.hop} at "
                f"{theirs.sample_rate_hz} Hz"
            )
        wave = torch.from_numpy(theirs.synthesise(mixture)[0])
        law = self.predict_law(wave)
        mean = theirs.forward(mine.inverse(law.mean[0], len(wave)))[None]
        power = torch.nn.functional.interpolate(
            law.power.transpose(1, 2), size=theirs.freq, mode="linear", align_corners=True
        ).transpose(1, 2)
        around = torch.nn.functional.pad(power, (1, 1), mode="replicate").unfold(2, 3, 1)
        weights = power.new_tensor([0.25, 0.5, 0.25]) * (theirs.n_fft / mine.n_fft)
        scale = mixture.scale.to(power)[:, None, None]
        error = (around @ weights) / scale.square()
        return mean / scale, error.log()

    def to(self, device: torch.device, dtype: torch.dtype) -> NetworkPredictor:
        """Return the same predictor with its network on a device."""
        return replace(self, network=copy.deepcopy(self.network).to(device, dtype))


def load_predictor(
    name: str | Path = DEFAULT_PREDICTOR, *, causal: bool = False
) -> NetworkPredictor:
    """Load a predictor by the name of shipped weights or from a folder of weights.

    Raises
    ------
    FileNotFoundError
        If there are none.
    ValueError
        If they are of another kind, corrupt, or do not belong together.
    """
    network, config = load_network(locate_weights(name))
    if not isinstance(network, TcnNetwork):
        raise ValueError(f"{name} holds a {config['network']!r} network; expected 'tcn'")
    front_end: Any = config["stft"]
    return NetworkPredictor(network, Stft(**front_end), causal, config.get("name", str(name)))
