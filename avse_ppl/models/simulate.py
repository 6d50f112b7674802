"""Simulation from a scene, and the reference scene whose exact posterior is known.

To test an inference method: draw latents, speech and noise from the scene itself, infer them from
the mixture, and compare with `Exact`, or with the truth that was drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyroapi import distributions as dist
from pyroapi import pyro
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.models.handlers import is_deterministic, recording_plate, serialise
from avse_ppl.models.scene import Scene
from avse_ppl.models.speech.gaussian import GaussianSpeech
from avse_ppl.models.validation import check_count, check_positive
from avse_ppl.signal.stft import Frames, Spectrogram, Stft


@dataclass(frozen=True)
class Simulated:
    """A mixture, and the truth behind it.

    Parameters
    ----------
    mixture
        ``speech + noise``.
    speech, noise
        STFT of each, ``(recording, freq, time)``, complex.
    latents
        Value of each latent, ``(recording, ...)``.
    """

    mixture: Spectrogram
    speech: Tensor
    noise: Tensor
    latents: dict[str, Tensor]


def reference_scene(
    noise_known: bool,
    *,
    noise_power: float = 0.3,
    noise_sd_db: float = 6.0,
    gain_sd_db: float = 6.0,
    stft: Stft | None = None,
) -> Scene:
    r"""Gaussian speech in white noise: the scene that `Exact` solves.

    .. math:: s_{ft} \sim N_c(0, S_f\, 10^{\sigma z_t / 10}), \quad b_{ft} \sim N_c(0, v),
        \quad z_t \sim N(0, 1)

    with v known, or :math:`10 \log_{10} v \sim N(10 \log_{10} v_0, \sigma_b^2)` for each
    recording (site ``noise.level``).

    Parameters
    ----------
    noise_known
        Whether v is known to be ``noise_power``.
    noise_power
        v or :math:`v_0`; speech has unit power at the median of its gain.
    noise_sd_db
        :math:`\sigma_b`, dB.
    gain_sd_db
        :math:`\sigma`, dB; 0 leaves speech without a latent.
    stft
        Front end; by default the library's.

    Raises
    ------
    ValueError
        If a power or the deviation of the noise is not positive.

    Examples
    --------
    >>> scene = reference_scene(noise_known=False)
    >>> sorted(simulate(scene, n_samples=8000).latents)
    ['noise.level', 'speech.gain']
    """
    check_positive("noise_power", noise_power)
    check_positive("noise_sd_db", noise_sd_db)
    speech = GaussianSpeech(gain_sd_db=gain_sd_db, stft=stft or Stft())
    nepers = math.log(10) / 10 * noise_sd_db

    def known_noise(frames: Frames) -> ComplexNormal:
        return ComplexNormal(0.0, frames.number(noise_power))

    def noise_of_unknown_gain(frames: Frames) -> ComplexNormal:
        median = frames.number(math.log(noise_power))
        return ComplexNormal(0.0, pyro.sample("noise.level", dist.LogNormal(median, nepers)))

    return Scene(speech, known_noise if noise_known else noise_of_unknown_gain)


@serialise
def simulate(
    scene: Scene, n_samples: int = 16000, recordings: int = 1, *, seed: int = 0
) -> Simulated:
    """Draw latents, speech and noise from the laws of a scene.

    The mixture is one of the model's own world: bins are independent given the latents, also
    where frames overlap, and it is not normalised. No waveform has such an STFT, so the draws
    serve to test inference and not to listen to.

    Parameters
    ----------
    scene
        Any scene.
    n_samples
        Length of the recording that the frames would come from, at least one STFT window.
    recordings
        Number of independent draws.
    seed
        Of all draws; the global generators are left as they were.

    Raises
    ------
    ValueError
        If a count is not a positive whole number, or the scene observes something itself.

    Examples
    --------
    >>> simulated = simulate(reference_scene(noise_known=True), n_samples=8000, recordings=2)
    >>> simulated.mixture.values.shape, simulated.latents["speech.gain"].shape
    (torch.Size([2, 513, 33]), torch.Size([2, 1, 33]))
    """
    stft = scene.stft
    check_count("n_samples", n_samples, minimum=stft.n_fft)
    check_count("recordings", recordings)
    frames = stft.frames(n_samples)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        with (
            poutine.trace() as tracer,
            recording_plate(recordings),
        ):
            laws = scene.laws(frames)
        shape = (recordings, frames.freq, frames.time)
        speech, noise = (law.expand(shape).sample() for law in (laws.speech, laws.noise))
    nodes: dict[str, Any] = dict(tracer.trace.nodes)
    evidence = [
        n for n, node in nodes.items() if node["is_observed"] and not is_deterministic(node)
    ]
    if evidence:
        raise ValueError(
            f"the scene observes {', '.join(map(repr, evidence))} beside the mixture (an observed "
            "site or a factor), so that draws of its latents from the prior are not draws of the "
            "model; simulate it without these, or infer them first"
        )
    latents = {name: node["value"] for name, node in nodes.items() if not node["is_observed"]}
    scale = torch.ones(recordings)
    mixture = Spectrogram(speech + noise, frames, (n_samples,) * recordings, scale, stft)
    return Simulated(mixture, speech, noise, latents)
