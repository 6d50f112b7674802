r"""Prior predictive mixtures as sound: what a scene takes recordings to be before it has seen one.

Latents are drawn from their priors, and waveforms from the laws of speech and noise given them:

.. math:: \theta \sim p(\theta), \quad s = \mathrm{STFT}^{-1}\big(m^s + \sqrt{S}\, \xi\big), \quad
    b = \mathrm{STFT}^{-1}\big(m^b + \sqrt{B}\, \xi'\big), \quad x = s + b

with :math:`\xi` the STFT of white noise, so that overlapping frames are in accord and the result is
a waveform. `simulate` draws bins that are independent, as the model has them: for tests of
inference, not for the ear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.handlers import serialise
from avse_ppl.models.protocols import Denoiser, name_of
from avse_ppl.models.scene import Scene
from avse_ppl.models.simulate import simulate
from avse_ppl.models.validation import check_count, check_positive
from avse_ppl.signal.stft import Stft

_PEAK = 0.5  # of the loudest draw: the scale of a scene is relative to the recording's


@dataclass(frozen=True, repr=False)
class PriorPredictive:
    """Waveforms drawn from a scene, ``(draw, sample)`` each, at one scale.

    Parameters
    ----------
    mixture, speech, noise
        The mixture is the sum of the others.
    sample_rate_hz
        Of all of them.
    """

    mixture: np.ndarray
    speech: np.ndarray
    noise: np.ndarray
    sample_rate_hz: int


@serialise
def draw_prior_predictive(
    scene: Scene, duration_s: float = 3.0, draws: int = 4, *, seed: int = 0
) -> PriorPredictive:
    """Draw mixtures from a scene's prior, to be listened to.

    Parameters
    ----------
    scene
        A scene whose speech prior has a law, and which observes nothing itself.
    duration_s
        Length of each draw, seconds.
    draws
        How many.
    seed
        Of everything random.

    Raises
    ------
    ValueError
        If a number is out of range, the speech prior is a denoiser, or the scene observes something
        beside the mixture.

    Examples
    --------
    >>> from avse_ppl import GaussianSpeech, Scene, stationary
    >>> found = draw_prior_predictive(Scene(GaussianSpeech(), stationary), 0.5, draws=2)
    >>> found.mixture.shape, bool(np.allclose(found.mixture, found.speech + found.noise))
    ((2, 8000), True)
    """
    check_positive("duration_s", duration_s)
    check_count("draws", draws)
    if isinstance(scene.speech, Denoiser):
        raise ValueError(
            f"speech prior {name_of(scene.speech)!r} is a denoiser and has no law to draw from; "
            "take one with latents, such as 'tcvae'"
        )
    stft = scene.stft
    n_samples = round(duration_s * stft.sample_rate_hz)
    if n_samples < stft.n_fft:
        least_s = stft.n_fft / stft.sample_rate_hz
        raise ValueError(f"duration_s is {duration_s:g}; expected one STFT window, {least_s:g} s")
    simulated = simulate(scene, n_samples, draws, seed=seed)  # checks the scene, too
    values = simulated.latents
    frames = stft.frames(n_samples)
    with torch.no_grad():
        laws = scene.laws_given(values, simulated.mixture)
        # A stream of its own: that of `seed` has drawn the latents, and would repeat their numbers.
        state = np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(1)
        generator = torch.Generator().manual_seed(int(state[0]))
        shape = (draws, frames.freq, frames.time)
        speech, noise = (
            draw_law_waveforms(law, shape, n_samples, stft, generator)
            for law in (laws.speech, laws.noise)
        )
    gain = _PEAK / max(float(np.abs(speech + noise).max()), 1e-12)
    speech, noise = speech * np.float32(gain), noise * np.float32(gain)
    return PriorPredictive(speech + noise, speech, noise, stft.sample_rate_hz)


def draw_law_waveforms(
    law: ComplexNormal,
    shape: tuple[int, int, int],
    n_samples: int,
    stft: Stft,
    generator: torch.Generator,
) -> np.ndarray:
    """Draw one waveform ``(sample,)`` from each row of a law ``(row, freq, time)``, stacked.

    Examples
    --------
    >>> law = ComplexNormal(torch.zeros(()), torch.ones(()))
    >>> generator = torch.Generator().manual_seed(0)
    >>> draw_law_waveforms(law, (2, 513, 17), 4096, Stft(), generator).shape
    (2, 4096)
    """
    means, sds = law.mean.expand(shape), law.power.sqrt().expand(shape)
    rows = [
        stft.draw_waveform(mean, sd, n_samples, generator).numpy()
        for mean, sd in zip(means, sds, strict=True)
    ]
    return np.stack(rows)
