"""Initial values of the latents: speech by its encoder, noise by a few M-steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.nn.functional import pad

from avse_ppl.inference.core.fit_noise import fit_noise, residual_power
from avse_ppl.inference.core.log_density import LogDensity, Values
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.models.handlers import recording_plate
from avse_ppl.models.protocols import HasEncoder, HasInitialValues, HasMeasuringEncoder, HasMStep
from avse_ppl.models.scene import Scene
from avse_ppl.models.visual.gate import Switch, apply_gate, presence_gate
from avse_ppl.signal.stft import Spectrogram

_NOISE_FITS = 20
_WIDEST = 2.0  # standard deviations of the prior
_UNKNOWN_SD = 1e3  # of latents of which nothing was measured


def warm_start(
    density: LogDensity, randoms: RandomStreams, noise: Mapping[str, Tensor] | None = None
) -> tuple[Values, Values]:
    """Unconstrained location and log standard deviation of every latent.

    Latents of a prior with ``encode`` start at the encoder's guess for the mixture; those of a
    noise model with ``initial`` and ``maximise`` at a few of its own updates against that guess;
    those of one with ``initial`` alone there; all others at the median of their prior. Where values
    of the noise latents are given, the noise starts there instead.
    """
    location = {site.name: site.start.clone() for site in density.sites}
    log_sd = {name: torch.full_like(value, -2.3) for name, value in location.items()}
    speech = density.scene.speech
    if isinstance(speech, HasEncoder):
        visual = density.mixture.frames.visual
        if visual is not None and density.scene.reliability is not None:
            visual = apply_gate(visual, compute_gate(density.scene, density.mixture))
        seen = () if visual is None else (visual,)
        for name, (mean, sd) in speech.encode(density.mixture.power, *seen).items():
            location[name], log_sd[name] = mean.clone(), sd.clamp(0.05, 1.0).log()
    if noise is None and isinstance(density.scene.noise, HasInitialValues):
        noise = init_noise(density, location, randoms)
    if noise is not None:
        known = {name: value for name, value in noise.items() if name in location}
        location |= density.unconstrain(known)
    return location, log_sd


def limit_log_sd(density: LogDensity) -> Values:
    """Largest log standard deviation of each latent of a normal guide: that of twice its prior's.

    One draw a step hardly holds wide scales back. Of powers, whose logarithm is inferred, only the
    few draws in which they are huge say that they are too wide; between them the scales wander
    until a power overflows.
    """
    return {site.name: (_WIDEST * site.spread).clamp_min(1e-6).log() for site in density.sites}


def compute_gate(scene: Scene, mixture: Spectrogram) -> Tensor:
    """Initial visual gate of the encoder, ``(recording, time)``.

    Of a switch, and of a reliability model that samples, it is the score.
    """
    visual: Any = mixture.frames.visual
    with recording_plate(len(visual), isolated=True), poutine.trace() as tracer:
        found: Any = scene.reliability(mixture.frames, visual)  # type: ignore[misc]
    if isinstance(found, Switch) or tracer.trace.stochastic_nodes:
        return visual[:, 0]
    return presence_gate(visual) * found


def condition_on_encoder(scene: Scene, mixture: Spectrogram) -> Spectrogram:
    """Mixture with what the encoder of the speech prior measures of its latents, if it does.

    Each recording is seen without the padding to the length of others, in which nothing is
    measured.
    """
    speech = scene.speech
    if not isinstance(speech, HasMeasuringEncoder) or not speech.amortised:
        return mixture
    visual = mixture.frames.visual
    if visual is not None and scene.reliability is not None:
        visual = apply_gate(visual, compute_gate(scene, mixture))
    gated, rows = mixture.with_visual(visual), []
    for r in range(mixture.recordings):
        one = gated.select(r)
        seen = () if one.frames.visual is None else (one.frames.visual,)
        values, sd = speech.measure(one.power, *seen).chunk(2, 1)
        missing = (0, mixture.frames.time - one.frames.time)
        rows.append(torch.cat((pad(values, missing), pad(sd, missing, value=_UNKNOWN_SD)), 1))
    return mixture.with_encoded(torch.cat(rows))


def init_noise(density: LogDensity, location: Values, randoms: RandomStreams) -> Values:
    """Initial values of the noise latents, after a few M-steps if the model has them."""
    noise = density.scene.noise
    values, _ = density.constrain(location)
    speech = density.scene.laws_given(values, density.mixture).informed
    speech_power = speech.power.expand(density.mixture.values.shape)
    power = residual_power(density.mixture, speech)
    parts = [
        noise.initial(power[r : r + 1], speech_power[r : r + 1], generator)  # type: ignore[attr-defined]
        for r, generator in enumerate(randoms.generators)
    ]
    found: Values = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if isinstance(noise, HasMStep):
        found = fit_noise(
            density, found, speech_power[None], power=power, steps=_NOISE_FITS, masked=False
        )
    return found


def requires_grad(values: Values) -> list[Tensor]:
    """Mark all as parameters and list them."""
    return [value.requires_grad_() for value in values.values()]
