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
from avse_ppl.models.networks.attention_fusion import AttentionFusionNetwork
from avse_ppl.models.networks.lip_encoder import LipEncoder
from avse_ppl.models.networks.tcn import TcnNetwork
from avse_ppl.models.weights.io import load_lip_encoder, load_network, locate_weights
from avse_ppl.signal.speed import change_speed, fit_length, undo_speed
from avse_ppl.signal.stft import Spectrogram, Stft

DEFAULT_PREDICTOR = "predictor"  # the names of the shipped weights
AV_PREDICTOR = "av-predictor"
# At which it hears a mixture, chosen on mixtures of docs/results/bridge.md.
_SPEEDS = (1.0, 0.94, 1.12, 0.89, 1.19)


@dataclass(frozen=True)
class NetworkPredictor:
    r"""Network that predicts speech in a mixture, and the power of its error.

    .. math:: s_{ft} \mid x \sim N_c(m_{ft}(x)\, x_{ft},\; e_{ft}(x))

    Parameters
    ----------
    network
        See `TcnNetwork`; or one that sees the lips, `AttentionFusionNetwork`.
    stft
        Front end that it was trained with.
    causal
        Whether it does without the future, as in a stream.
    name
        For messages and reports.
    visual_encoder
        Whose features of the lips the network takes; None if it only hears.

    Examples
    --------
    >>> network = TcnNetwork(freq=257, widths=(4, 8), inner=12, repeats=1, dilations=2)
    >>> predictor = NetworkPredictor(network, Stft(512, 256))
    >>> predictor(np.ones(4000, dtype="float32"), 16000).shape
    (4000,)
    """

    network: TcnNetwork | AttentionFusionNetwork
    stft: Stft
    causal: bool = False
    name: str = "predictor"
    visual_encoder: LipEncoder | None = None

    @property
    def uses_lips(self) -> bool:
        """Whether visual features change its answer; without the future they do not."""
        return isinstance(self.network, AttentionFusionNetwork) and not self.causal

    def predict_law(self, wave: Tensor, visual: Tensor | None = None) -> ComplexNormal:
        """Law of speech on the network's own grid, of one mixture ``(sample,)`` at its rate.

        ``visual``, ``(1 + feature, time)`` on that grid, are reliability and features of the lips.
        """
        values = self.stft.forward(wave)[None]
        power = values.real.square() + values.imag.square()
        level = power.mean().clamp_min(1e-20).sqrt()
        with torch.no_grad():
            given = {} if visual is None else {"visual": visual[None].to(values.real)}
            found = self.network(values / level, self.causal, **given)
        return ComplexNormal(found.speech * level, found.log_error.exp() * level.square())

    def __call__(
        self, wave: np.ndarray, sample_rate_hz: int, visual: Tensor | None = None
    ) -> np.ndarray:
        """Speech ``(sample,)`` in a mixture ``(sample,)``.

        The mean of the answers to the mixture as it is and played slower and faster, whose errors
        differ (test-time augmentation); where it does without the future, the answer to the mixture
        as it is, as in a stream.

        ``visual``, ``(1 + feature, time)``, are visual features as in `Frames`, on frames evenly
        spaced over the mixture, the first at its beginning.
        """
        import soxr

        rate_hz = self.stft.sample_rate_hz
        own = soxr.resample(np.asarray(wave, np.float32), sample_rate_hz, rate_hz)
        answers = []
        for speed in _SPEEDS[:1] if self.causal else _SPEEDS:
            answer = self.predict_once(change_speed(own, speed), visual)
            answers.append(undo_speed(answer, speed, len(own)))
        found = soxr.resample(np.mean(answers, axis=0), rate_hz, sample_rate_hz)
        return fit_length(found, len(wave))

    def predict_once(self, wave: np.ndarray, visual: Tensor | None = None) -> np.ndarray:
        """Speech ``(sample,)`` in a mixture ``(sample,)`` at its rate, heard as it is."""
        law = self.predict_law(torch.from_numpy(wave), self.take_visual(visual, len(wave)))
        return self.stft.inverse(law.mean[0], len(wave)).numpy()

    def take_visual(self, visual: Tensor | None, n_samples: int) -> Tensor | None:
        """Visual features on the network's own grid, if it uses any."""
        if visual is None or not self.uses_lips:
            return None
        time = self.stft.count_frames(n_samples)
        if visual.shape[-1] == time:
            return visual
        place = torch.linspace(0.0, visual.shape[-1] - 1.0, time)
        return visual[:, place.round().long().to(visual.device)]

    def predict_on(self, mixture: Spectrogram) -> tuple[Tensor, Tensor]:
        """Mean and log power of the error, ``(1, freq, time)``, on the grid of one recording.

        What the network hears alone: visual features are not used here.

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
    folder = locate_weights(name)
    network, config = load_network(folder)
    if not isinstance(network, TcnNetwork | AttentionFusionNetwork):
        raise ValueError(
            f"{name} holds a {config['network']!r} network; expected 'tcn' or 'attention-fusion'"
        )
    encoder = None
    if isinstance(network, AttentionFusionNetwork):
        if "lips" not in config:
            raise ValueError(f"{name} names no visual encoder: its config.json has no 'lips'")
        own = folder / str(config["lips"])
        encoder = load_lip_encoder(own if own.is_dir() else config["lips"])[0]
        if encoder.features != network.visual:
            raise ValueError(
                f"{name} takes {network.visual} visual features, its visual encoder has "
                f"{encoder.features}"
            )
    front_end: Any = config["stft"]
    called = config.get("name", str(name))
    return NetworkPredictor(network, Stft(**front_end), causal, called, encoder)
