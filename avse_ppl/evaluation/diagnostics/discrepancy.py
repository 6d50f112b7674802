"""Posterior predictive checks with discrepancy statistics of the mixture's waveform.

Latents are drawn from the posterior, and new speech and noise from their laws given them: mixtures
that the fitted model would have recorded instead. A statistic of the recording that lies far
outside of those of such mixtures is something that the model does not describe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from avse_ppl.evaluation.diagnostics.posterior_inputs import latent_draws, restore_inputs
from avse_ppl.models.handlers import serialise
from avse_ppl.models.prior_predictive import PriorPredictive, draw_law_waveforms
from avse_ppl.models.scene import Scene
from avse_ppl.posterior.posterior import Posterior
from avse_ppl.signal.stft import Spectrogram
from avse_ppl.utils.tables import format_facts

Statistic = Callable[[np.ndarray, int], float]
_LEAST = 1e-12
_FRAME_S = 0.032


def measure_crest(wave: np.ndarray, rate_hz: int) -> float:
    """Crest factor: peak over root mean square, dB; large where there are clicks."""
    return float(20 * np.log10((np.abs(wave).max() + _LEAST) / np.sqrt(np.mean(wave**2) + _LEAST)))


def measure_kurtosis(wave: np.ndarray, rate_hz: int) -> float:
    """Excess kurtosis of the samples: 0 of stationary Gaussian noise, large where levels change."""
    centred = wave - wave.mean()
    return float(np.mean(centred**4) / (np.mean(centred**2) ** 2 + _LEAST) - 3.0)


def measure_floor(wave: np.ndarray, rate_hz: int) -> float:
    """Level that the quietest tenth of 32 ms frames is below, relative to the whole, dB."""
    return float(np.quantile(measure_frame_levels(wave, rate_hz), 0.1))


def measure_flux(wave: np.ndarray, rate_hz: int) -> float:
    """Mean change of level from one 32 ms frame to the next, dB: how fast the sound fluctuates."""
    return float(np.abs(np.diff(measure_frame_levels(wave, rate_hz))).mean())


def measure_frame_levels(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Level of each 32 ms frame relative to the whole, dB."""
    length = max(1, min(len(wave) // 2, round(_FRAME_S * rate_hz)))
    rows = wave[: len(wave) // length * length].reshape(-1, length)
    power = np.mean(rows.astype(float) ** 2, axis=1) / (np.mean(wave.astype(float) ** 2) + _LEAST)
    return 10 * np.log10(power + _LEAST)


STATISTICS: Mapping[str, Statistic] = MappingProxyType(
    {
        "crest factor": measure_crest,
        "kurtosis": measure_kurtosis,
        "noise floor": measure_floor,
        "level flux": measure_flux,
    }
)


@dataclass(frozen=True, repr=False)
class DiscrepancyCheck:
    """Statistics of a recording beside those of its posterior predictive mixtures.

    Parameters
    ----------
    observed
        Statistic of the recording, by name.
    replicated
        Those of the replicated mixtures, ``(draw,)`` each.
    """

    observed: Mapping[str, float]
    replicated: Mapping[str, np.ndarray]

    @property
    def p_values(self) -> dict[str, float]:
        """Two-sided posterior predictive p-value of each statistic.

        Conservative, as the recording has been used to fit the latents: a small one counts, one
        near 1 does not mean that the model is right. At least ``2 / (draws + 1)``.
        """
        found = {}
        for name, value in self.observed.items():
            rows = self.replicated[name]
            tails = [1 + np.sum(rows >= value), 1 + np.sum(rows <= value)]
            found[name] = float(min(1.0, 2 * min(tails) / (len(rows) + 1)))
        return found

    def __repr__(self) -> str:
        facts = {
            name: f"{value:.3g} in the recording, {np.mean(self.replicated[name]):.3g} +- "
            f"{np.std(self.replicated[name]):.2g} in replicated ones, p = {self.p_values[name]:.2g}"
            for name, value in self.observed.items()
        }
        return format_facts("DiscrepancyCheck", facts)


@serialise
def draw_posterior_predictive(
    posterior: Posterior,
    scene: Scene,
    mixture: Spectrogram | None = None,
    *,
    draws: int = 50,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> PriorPredictive:
    """Draw mixtures from the posterior predictive distribution, at the level of the recording.

    Speech is drawn anew from its law given the latents, and not from its posterior given the
    mixture: to have the latter, take ``posterior.draws()``.

    Parameters
    ----------
    posterior, scene
        Of one recording, and what it was inferred from; a point estimate gives mixtures that differ
        by the last draw only.
    mixture
        What was inferred; needed with video, or if it was not normalised to unit mean power.
    draws
        At most so many, one for each draw of the latents, evenly spaced.
    seed
        Of speech and noise.
    progress
        Called with (step, steps) after each draw.

    Raises
    ------
    ValueError
        If it is of several recordings, or holds other latents than the scene's.

    Examples
    --------
    >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=8000).astype("float32")
    >>> scene = Scene(GaussianSpeech(), stationary)
    >>> posterior = SVI(steps=20, draws=10)(scene, wave, seed=0)
    >>> found = draw_posterior_predictive(posterior, scene)
    >>> found.mixture.shape, bool(found.mixture.std() < 2 * wave.std())
    ((10, 8000), True)
    """
    if posterior.recordings != 1:
        raise ValueError(
            f"expected a posterior of one recording, found {posterior.recordings}; select(i) one"
        )
    scene, mixture = restore_inputs(posterior, scene, mixture)
    stft, [n_samples] = mixture.stft, mixture.n_samples
    generator = torch.Generator().manual_seed(seed)
    scale = float(mixture.scale[0])
    shape = (1, mixture.frames.freq, mixture.frames.time)
    rows = []
    with torch.no_grad():
        kept = list(latent_draws(posterior, draws, mixture.scale.device))
        for number, values in enumerate(kept, 1):
            laws = scene.laws_given(values, mixture)
            pair = [
                draw_law_waveforms(law, shape, n_samples, stft, generator)[0]
                for law in (laws.speech, laws.noise)
            ]
            rows.append(scale * np.stack(pair))
            if progress is not None:
                progress(number, len(kept))
    speech, noise = np.stack(rows, axis=1).astype(np.float32)
    return PriorPredictive(speech + noise, speech, noise, stft.sample_rate_hz)


def check_discrepancies(
    posterior: Posterior,
    scene: Scene,
    mixture: Spectrogram | None = None,
    *,
    statistics: Mapping[str, Statistic] = STATISTICS,
    draws: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> DiscrepancyCheck:
    """Compare statistics of a recording with those of its posterior predictive mixtures.

    What `predictive_check` tests is known in law and needs no replicated mixtures; here any
    function of the waveform may be asked about.

    Parameters
    ----------
    posterior, scene, mixture, draws, seed, progress
        As in `draw_posterior_predictive`.
    statistics
        By name, functions ``statistic(wave, rate_hz)`` that return a number: by default crest
        factor, kurtosis, noise floor, and level flux.

    Raises
    ------
    ValueError
        As `draw_posterior_predictive`, and if a statistic is not finite.

    References
    ----------
    Gelman, Meng and Stern, "Posterior predictive assessment of model fitness via realized
    discrepancies", Statistica Sinica 1996.

    Examples
    --------
    >>> from avse_ppl import SVI, GaussianSpeech, Scene, stationary
    >>> wave = np.random.default_rng(0).normal(size=8000).astype("float32")
    >>> wave[4000] = 60.0  # a click, of which stationary noise knows nothing
    >>> scene = Scene(GaussianSpeech(), stationary)
    >>> posterior = SVI(steps=20, draws=50)(scene, wave, seed=0)
    >>> check_discrepancies(posterior, scene).p_values["crest factor"] < 0.05
    True
    """
    drawn = draw_posterior_predictive(
        posterior, scene, mixture, draws=draws, seed=seed, progress=progress
    )
    wave, rate_hz = posterior.noisy(), drawn.sample_rate_hz
    observed = {name: float(function(wave, rate_hz)) for name, function in statistics.items()}
    replicated = {
        name: np.array([function(one, rate_hz) for one in drawn.mixture], float)
        for name, function in statistics.items()
    }
    for name, value in observed.items():
        if not (np.isfinite(value) and np.isfinite(replicated[name]).all()):
            raise ValueError(
                f"the statistic {name!r} is not finite for some mixture; make it return a number "
                "for any waveform"
            )
    return DiscrepancyCheck(observed, replicated)
