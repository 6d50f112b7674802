"""Noise factors of NMF: spectra and activations of each component."""

from __future__ import annotations

from typing import Any

import numpy as np

from avse_ppl.plotting.figure import convert_to_db, take_axes, use_style
from avse_ppl.posterior.posterior import Posterior

SPECTRA, ACTIVATIONS = ".spectra", ".activations"
_DEPTH_DB = 50.0


def find_noise_factors(posterior: Posterior) -> list[str]:
    """List the sites of NMF models in a posterior: ``["noise"]``, or those of a sum's parts.

    Examples
    --------
    >>> from avse_ppl import NMF, SVI, GaussianSpeech, Scene
    >>> wave = np.random.default_rng(0).normal(size=9000).astype("float32")
    >>> find_noise_factors(SVI(steps=3, draws=2)(Scene(GaussianSpeech(), NMF(2)), wave, seed=0))
    ['noise']
    """
    stems = [name.removesuffix(SPECTRA) for name in posterior.latents if name.endswith(SPECTRA)]
    return [stem for stem in stems if f"{stem}{ACTIVATIONS}" in posterior.latents]


def compute_noise_factors(
    posterior: Posterior, site: str = "noise", recording: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior median of spectra and activations, the loudest component first.

    Spectra are scaled to a mean of 1 and activations by what that took, so that these are powers:
    the mean of the mixture is 1. Components may change places between chains: the first counts.

    Returns
    -------
    tuple of numpy.ndarray
        Spectra ``(component, freq)`` and activations ``(component, time)``.

    Raises
    ------
    ValueError
        If the posterior has no NMF noise of that name.
    """
    if site not in find_noise_factors(posterior):
        found = ", ".join(find_noise_factors(posterior)) or "none"
        raise ValueError(f"expected NMF noise at the site {site!r}, found {found}")
    one = posterior.select(recording)
    spectra = one.latents[f"{site}{SPECTRA}"][0, :, 0]  # (draw, freq, component)
    activations = one.latents[f"{site}{ACTIVATIONS}"][0, :, 0]  # (draw, component, time)
    scale = spectra.mean(axis=1)
    spectra = np.median(spectra / np.maximum(scale[:, None], 1e-30), axis=0).T
    activations = np.median(activations * scale[:, :, None], axis=0)
    # Medians of bins do not add up to the same as those of means.
    level = np.maximum(spectra.mean(axis=1, keepdims=True), 1e-30)
    spectra, activations = spectra / level, activations * level
    order = np.argsort(-activations.mean(axis=1))
    return spectra[order], activations[order]


@use_style()
def draw_noise_factors(
    posterior: Posterior, axes: Any = None, *, recording: int = 0, site: str = "noise"
) -> np.ndarray:
    """Draw the spectra of NMF noise over frequency and their activations over time.

    Parameters
    ----------
    posterior
        With NMF noise.
    axes
        Two axes, or None for a figure of its own.
    recording
        Which recording of the batch.
    site
        Which NMF model of a sum, see `find_noise_factors`.

    Returns
    -------
    ndarray
        The two axes.

    Raises
    ------
    ValueError
        If the posterior has no NMF noise of that name, or there are other than two axes.

    References
    ----------
    Févotte, Bertin and Durrieu, "Nonnegative matrix factorization with the Itakura-Saito
    divergence", Neural Computation 2009.
    """
    spectra, activations = compute_noise_factors(posterior, site, recording)
    stft = posterior.stft
    left, right = take_axes(axes, (1, 2), (11.0, 3.2), width_ratios=[1, 1.6])
    freq_hz = np.arange(spectra.shape[1]) * stft.sample_rate_hz / stft.n_fft
    time_s = np.arange(activations.shape[1]) * stft.hop / stft.sample_rate_hz
    panels = ((left, freq_hz, spectra), (right, time_s, activations))
    for axis, places, rows in panels:
        levels_db = convert_to_db(rows)
        for number, row in enumerate(levels_db):
            axis.plot(places, row, lw=1.1, label=f"component {number + 1}")
        top = float(levels_db.max())
        axis.set(ylim=(max(top - _DEPTH_DB, float(levels_db.min())) - 1, top + 2))
        axis.set_xlim(float(places[0]), float(max(places[-1], 1e-3)))
    left.set(xlabel="frequency, Hz", ylabel="power, dB re its mean", title="noise spectra")
    right.set(xlabel="time, s", ylabel="power, dB re the mixture's mean", title="activations")
    right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=3)
    return np.array([left, right], dtype=object)
