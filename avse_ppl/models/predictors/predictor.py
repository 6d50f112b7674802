"""A predictor as a part of the scene: its answer is evidence about speech, with an error law."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from pyroapi import distributions as dist
from pyroapi import handlers, ops, pyro
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.handlers import PREDICTED
from avse_ppl.models.predictors.checks import check_prediction
from avse_ppl.models.predictors.error_law import ErrorLaw
from avse_ppl.signal.stft import Frames, Spectrogram

BANDS = 6  # of the error that the posterior learns on the recording
_DB = 0.1 * np.log(10.0)

Enhancer = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Predictor:
    r"""What an enhancer makes of the mixture, as a noisy observation of speech.

    .. math:: \hat s_{ft} \mid s \sim N_c(s_{ft}, E_{ft}\, 10^{\sigma (W a)_f / 10}), \quad
        a_k \sim N(0, 1)

    with E the power of the error that `law` expects of the mixture and the prediction, and
    :math:`\sigma a_k` what is off in that in band k of this recording, decibels, which the
    posterior learns: a predictor that fails contradicts the mixture and the priors, and its errors
    are found to be large.

    What it approximates: a prediction is a function of the mixture, and its error is not
    independent of the noise given speech. The law is fitted to the errors that are left given both,
    so that the prediction counts as a summary of the mixture with a likelihood of its own, beside
    the mixture's: ``posterior.kind`` says "with a predictor".

    Sites: ``predictor.error``, ``(band, 1)``; observed, ``speech.predicted``.

    Parameters
    ----------
    enhance
        ``(wave, sample_rate_hz) -> wave``.
    law
        Power of the error.
    error_sd_db
        :math:`\sigma`, prior standard deviation of what the law is off in a band, dB.
    name
        For messages and reports.

    References
    ----------
    Fearnhead and Prangle, "Constructing summary statistics for approximate Bayesian computation",
    JRSS B 2012. Kennedy and O'Hagan, "Bayesian calibration of computer models", JRSS B 2001.
    """

    enhance: Enhancer
    law: ErrorLaw = field(default_factory=ErrorLaw)
    error_sd_db: float = 5.0
    name: str = "predictor"

    def __call__(self, frames: Frames, speech: ComplexNormal) -> ComplexNormal:
        """Observe the prediction; law of speech, ``(freq, time)``, given it and its own prior."""
        with pyro.plate("error_band", BANDS, dim=-2):
            off = pyro.sample("predictor.error", dist.Exponential(frames.number(1.0)))
        if frames.predicted is None:
            return speech
        scale_db = self.error_sd_db * (band_weights(frames) @ off)
        error = ops.exp(frames.predicted[:, 2] + _DB * scale_db)
        predicted = frames.predicted[:, 0] + 1j * frames.predicted[:, 1]
        with (
            pyro.plate("freq", frames.freq, dim=-2),
            pyro.plate("time", frames.time, dim=-1),
            handlers.mask(mask=frames.predicted[:, 3] > 0.5),
        ):
            law = ComplexNormal(speech.mean, speech.power + error)
            pyro.sample(PREDICTED, law, obs=predicted)
        return speech.condition(ComplexNormal(0.0, error), predicted)

    def predict(self, mixture: Spectrogram) -> Tensor:
        """Prediction of each recording, ``(recording, 4, freq, time)``, see `Frames`."""
        waves = mixture.stft.synthesise(mixture)
        rows = []
        for r, wave in enumerate(waves):
            rate_hz = mixture.stft.sample_rate_hz
            found = check_prediction(self.enhance(wave, rate_hz), wave, self.name)
            one = mixture.select(r)
            values = mixture.stft.forward(torch.from_numpy(found)).to(one.values) / one.scale
            row = torch.stack((
                values.real, values.imag, self.law(one, values[None])[0].to(values.real),
                torch.ones_like(values.real),
            ))  # fmt: skip
            missing = mixture.frames.time - row.shape[-1]
            rows.append(torch.nn.functional.pad(row, (0, missing)))
        return torch.stack(rows)

    def to(self, device: torch.device, dtype: torch.dtype) -> Predictor:
        """Return the same predictor with its law on a device and in a dtype."""
        return replace(self, law=copy.deepcopy(self.law).to(device, dtype))


def band_weights(frames: Frames) -> Any:
    """Weights of bands at each frequency, ``(freq, band)``: triangles on the mel scale."""
    mel = ops.log(1.0 + frames.freq_hz / 700.0)
    top = float(np.log(1.0 + 0.5 * frames.sample_rate_hz / 700.0))
    place = mel * ((BANDS - 1) / top)
    centre = ops.arange(BANDS, device=frames.device, dtype=frames.dtype)
    return ops.clamp(1.0 - ops.abs(place - centre), min=0.0)


def condition_on_predictor(scene: Any, mixture: Spectrogram) -> Spectrogram:
    """Mixture with what the predictor of a scene makes of it, if it has one."""
    if scene.predictor is None or mixture.frames.predicted is not None:
        return mixture
    return mixture.with_predicted(scene.predictor.predict(mixture))
