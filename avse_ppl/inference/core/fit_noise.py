"""Closed-form M-steps of a noise model, the power of speech given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.log_density import LogDensity, Values, noise_log_prior
from avse_ppl.signal.stft import Spectrogram


def residual_power(mixture: Spectrogram, speech: ComplexNormal) -> Tensor:
    """Power of a mixture about the mean of speech, ``(recording, freq, time)``."""
    if speech.zero_mean:
        return mixture.power
    residual = mixture.values - speech.mean
    return residual.real.square() + residual.imag.square()


def fit_noise(
    density: LogDensity,
    noise: Mapping[str, Tensor],
    speech_power: Tensor,
    *,
    power: Tensor | None = None,
    steps: int = 1,
    tempering: float = 1.0,
    masked: bool = True,
) -> Values:
    r"""Maximise :math:`E_s[w \log p(x | s, b)] + \log p(b)` in the noise latents b.

    By the noise model's own ``maximise``, which never lowers it; see
    `avse_ppl.models.protocols.HasMStep`. Frames that the mask leaves out get the power that the
    model expects of them, so that they change nothing.

    Parameters
    ----------
    density
        Scene and mixture.
    noise
        Values of the noise latents to start from.
    speech_power
        ``(draw, recording, freq, time)``.
    power
        Of the mixture about the mean of speech, ``(recording, freq, time)``, or of each draw; by
        default about 0.
    steps
        Number of M-steps.
    tempering
        Power w of the likelihood.
    masked
        False to take the padding of shorter recordings for silence, as initial values may.

    Examples
    --------
    >>> from avse_ppl import NMF, GaussianSpeech, Scene
    >>> from avse_ppl.models.simulate import simulate
    >>> simulated = simulate(Scene(GaussianSpeech(), NMF(2)), n_samples=4096)
    >>> density = LogDensity(Scene(GaussianSpeech(), NMF(2)), simulated.mixture)
    >>> noise = {name: simulated.latents[name] for name in density.names(of_noise=True)}
    >>> fitted = fit_noise(density, noise, simulated.mixture.power[None] / 2, steps=3)
    >>> fitted.keys() == noise.keys()
    True
    """
    model: Any = density.scene.noise
    power = density.mixture.power if power is None else power
    mask = density.mixture.mask
    mean_power = speech_power.mean(0)
    fitted: Values = dict(noise)
    for _ in range(steps):
        if mask is not None and masked:
            expected = mean_power + noise_log_prior(density, fitted)[1].power
            power = torch.where(mask, power, expected)
        fitted = model.maximise(fitted, power, speech_power, tempering)
    return fitted
