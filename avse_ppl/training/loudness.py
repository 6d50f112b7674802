"""Perceptual disturbance of predicted speech: what it is off by in loudness, above masking."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from avse_ppl.signal.stft import Stft

_BAND_BARK = 0.5  # width of a critical band's half
_SPEECH_DB_SPL = 75.0  # at which speech is listened to: its mean over the recording
_LOUDNESS, _SONE = 0.23, 0.187  # exponent of loudness in power (Zwicker), and its unit
_DEAD_ZONE = 0.25  # of the lesser loudness: a difference below it is not heard
_ADDED, _ADDED_LEAST, _ADDED_MOST = 1.2, 3.0, 12.0  # what has been added disturbs more
_SYMMETRIC, _ASYMMETRIC = 0.1, 0.0309  # of the two disturbances, in units of opinion scores
_FLOOR_POWER = 50.0  # of either power, in multiples of 0 dB SPL
_FRAME_EXPONENT, _FRAME_POWER = 0.04, 1e5
_MOST = 45.0  # of either disturbance in a frame


class LoudnessDisturbance(nn.Module):
    r"""Disturbance of predicted speech as PESQ measures it, so that it can be a loss.

    .. math:: d = .1 \sqrt{\overline{D_t^2}} + .0309 \sqrt{\overline{A_t^2}}, \quad
        D_t = \Big(\sum_b w_b \delta_{bt}^2\Big)^{1/2}, \quad
        A_t = \sum_b w_b |\delta_{bt}| \, \alpha_{bt}

    with :math:`\delta` the difference of the loudness in half-Bark bands less a quarter of the
    lesser one (masking), and :math:`\alpha` the power ratio to the power 1.2 where the prediction
    holds more, from 3 to 12. Loudness is Zwicker's, above the threshold in quiet.

    An approximation: there is no alignment in time, level or equaliser, bands and threshold are
    formulas in place of the standard's tables, and stretches of 20 frames are not weighed by their
    worst.

    Parameters
    ----------
    stft
        Front end of the values.

    References
    ----------
    ITU-T P.862, "Perceptual evaluation of speech quality (PESQ)", 2001. Martin-Donas, Gomez,
    Gonzalez and Peinado, "A deep learning loss function based on the perceptual evaluation of the
    speech quality", IEEE SPL 2018. Terhardt, "Calculating virtual pitch", Hearing Research 1979.
    Traunmueller, "Analytical expressions for the tonotopic sensory scale", JASA 1990.

    Examples
    --------
    >>> disturbance = LoudnessDisturbance(Stft(512, 256))
    >>> speech = torch.randn(2, 257, 30, dtype=torch.complex64)
    >>> disturbance(speech, speech)
    tensor([0., 0.])
    """

    def __init__(self, stft: Stft) -> None:
        super().__init__()
        freq_hz = np.arange(1, stft.freq) * stft.sample_rate_hz / stft.n_fft
        bark = compute_bark(freq_hz)
        edges = np.arange(compute_bark(np.array([40.0]))[0], bark[-1] + _BAND_BARK, _BAND_BARK)
        centres = 0.5 * (edges[1:] + edges[:-1])
        # Triangles one band apart, so that no band falls between two bins.
        width = np.maximum(_BAND_BARK, np.interp(centres, bark, np.gradient(bark)))
        shapes = np.clip(1.0 - np.abs(bark[:, None] - centres) / width, 0.0, None)
        bands = np.zeros((stft.freq, len(centres)), np.float32)
        bands[1:] = shapes / shapes.sum(1, keepdims=True).clip(1e-9)
        kept = bands.sum(0) > 0
        centre_hz = np.interp(centres[kept], bark, freq_hz)
        self.bands: Tensor
        self.threshold: Tensor
        self.register_buffer("bands", torch.from_numpy(bands[:, kept]), persistent=False)
        threshold = 10 ** (compute_threshold_db(centre_hz) / 10)
        self.register_buffer("threshold", torch.from_numpy(threshold).float(), persistent=False)

    def forward(self, predicted: Tensor, speech: Tensor) -> Tensor:
        """Disturbance of each recording, ``(recording,)``, opinion scores.

        Parameters
        ----------
        predicted, speech
            ``(recording, freq, time)``, complex.
        """
        power = speech.real.square() + speech.imag.square()
        level = power.sum(1, keepdim=True).mean(2, keepdim=True).clamp_min(1e-12)
        scale = 10 ** (_SPEECH_DB_SPL / 10) / level
        true = self.sum_bands(power * scale)
        found = self.sum_bands((predicted.real.square() + predicted.imag.square()) * scale)
        loud, loud_found = self.compute_loudness(true), self.compute_loudness(found)
        off = (loud_found - loud).abs() - _DEAD_ZONE * torch.minimum(loud, loud_found)
        off = off.clamp_min(0.0)
        ratio = ((found + _FLOOR_POWER) / (true + _FLOOR_POWER)) ** _ADDED
        added = torch.where(ratio < _ADDED_LEAST, 0.0, ratio.clamp(max=_ADDED_MOST))
        weight = ((true.sum(1) + _FRAME_POWER) / 10 ** (_SPEECH_DB_SPL / 10)) ** -_FRAME_EXPONENT
        bands = _BAND_BARK
        symmetric = ((bands * off.square()).sum(1) * weight.square()).clamp(max=_MOST**2)
        asymmetric = ((bands * off * added).sum(1) * weight).clamp(max=_MOST)
        asymmetric = _ASYMMETRIC * take_root(asymmetric.square().mean(1))
        return _SYMMETRIC * take_root(symmetric.mean(1)) + asymmetric

    def sum_bands(self, power: Tensor) -> Tensor:
        """Power of each band, ``(recording, band, time)``."""
        return (power.transpose(1, 2) @ self.bands).transpose(1, 2)

    def compute_loudness(self, power: Tensor) -> Tensor:
        """Loudness of powers in multiples of 0 dB SPL, ``(recording, band, time)``, sone."""
        threshold = self.threshold[:, None]
        above = (0.5 + 0.5 * power / threshold) ** _LOUDNESS - 1.0
        return _SONE * (threshold / 0.5) ** _LOUDNESS * above.clamp_min(0.0)


def take_root(values: Tensor) -> Tensor:
    """Root of squares, with a gradient at zero."""
    return (values + 1e-12).sqrt() - 1e-6


def compute_bark(freq_hz: np.ndarray) -> np.ndarray:
    """Critical-band rate (Traunmueller).

    Examples
    --------
    >>> compute_bark(np.array([1000.0])).round(1).tolist()
    [8.5]
    """
    return 26.81 * freq_hz / (1960.0 + freq_hz) - 0.53


def compute_threshold_db(freq_hz: np.ndarray) -> np.ndarray:
    """Threshold of hearing in quiet (Terhardt), dB SPL.

    Examples
    --------
    >>> compute_threshold_db(np.array([1000.0])).round(1).tolist()
    [3.4]
    """
    khz = freq_hz / 1000.0
    return 3.64 * khz**-0.8 - 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4
