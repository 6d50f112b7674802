"""The posterior over speech from draws of the latents: moments, waveforms, names of axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.core.visual_gate import AXES, gate_posterior
from avse_ppl.models.handlers import is_deterministic
from avse_ppl.models.protocols import name_of
from avse_ppl.models.scene import Scene, recording_plate
from avse_ppl.posterior.posterior import Axes, Posterior
from avse_ppl.signal.stft import Spectrogram

if TYPE_CHECKING:
    from avse_ppl.inference.base import Draws, Problem


class Moments:
    """Running mean and total variance of speech over draws of the latents."""

    def __init__(self) -> None:
        self.weight: Any = 0.0
        self.shift: Tensor | None = None
        self.first: Any = 0.0
        self.second: Any = 0.0
        self.within: Any = 0.0

    def add(self, law: ComplexNormal, weight: Tensor | float = 1.0) -> None:
        """Count one draw's Wiener posterior, ``(recording, freq, time)``."""
        if self.shift is None:
            self.shift = law.mean  # keeps the second moment from cancelling
        gap = law.mean - self.shift
        self.weight = self.weight + weight
        self.first = self.first + weight * gap
        self.second = self.second + weight * (gap.real.square() + gap.imag.square())
        self.within = self.within + weight * law.power

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and variance by the law of total variance."""
        shift = self.first / self.weight
        between = self.second / self.weight - (shift.real.square() + shift.imag.square())
        return self.shift + shift, self.within / self.weight + between.clamp_min(0.0)


def build_posterior(problem: Problem, draws: Draws) -> Posterior:
    """Posterior over speech from the draws of a method, whose defaults are filled in.

    Each draw's Wiener posterior is averaged into mean and variance, and waveforms are drawn from
    it; see `avse_ppl.inference.base.Draws`. Waveforms are spread evenly over a chain; where there
    are more of them than draws of the latents (point estimates), each draw has several.
    """
    scene, mixture, chains = problem.scene, problem.spectrogram, draws.chains
    length, waveforms = len(draws.values) // chains, draws.waveforms or 0
    counted = min(draws.moment_draws or length, length)

    # Which draws are needed: index, whether moments count it, and whether a waveform is drawn.
    if waveforms > length:
        uses = [(i % length, i < counted, True) for i in range(waveforms)]
    else:
        drawn = {-(-i * length // waveforms) for i in range(waveforms)}
        uses = [(i, i < counted, i in drawn) for i in range(length) if i < counted or i in drawn]

    running, waves = Moments(), []
    for chain in range(chains):
        for i, count, draw in uses:
            index = chain * length + i
            if draws.laws is None:
                laws = scene.laws_given(draws.values[index], mixture)
                law = laws.condition(mixture.values)
            else:
                law = draws.laws[index]
            law = limit_to_observed(law, mixture)
            if count:
                running.add(law)
            if draw:
                waves.append(draw_waveform(law, mixture, problem.streams))
    mean, variance = running.result() if draws.moments is None else draws.moments
    if draws.moments is not None:
        known = limit_to_observed(ComplexNormal(mean, variance, validate_args=False), mixture)
        mean, variance = known.mean, known.power
    scale = mixture.scale[:, None, None]
    recorded = mixture.values if mixture.recorded is None else mixture.recorded
    speech = np.zeros((chains, 0, mixture.recordings, max(mixture.n_samples)), np.float32)

    # The gate posterior is drawn last, so that it changes no other draw.
    gates = gate_posterior(scene, mixture, draws.values, problem.streams)
    names = {name: [values[name] for values in draws.values] for name in draws.values[0]}
    axes = trace_axes(scene, mixture, draws.values[0])
    recorded_axes = {name: one for name, one in axes.items() if name not in names}
    if recorded_axes:  # by pyro.deterministic
        rows = [record_deterministic(scene, mixture, values) for values in draws.values]
        names |= {name: [row[name] for row in rows] for name in recorded_axes}
    return Posterior(
        mean=convert_to_numpy(mean * scale),
        variance=convert_to_numpy(variance * scale.square()),
        mixture=convert_to_numpy(recorded * scale),
        speech=stack_draws(waves, chains) if waves else speech,
        latents={name: stack_draws(rows, chains) for name, rows in {**names, **gates}.items()},
        n_samples=mixture.n_samples,
        stft=mixture.stft,
        kind=draws.kind,
        attrs={**draws.attrs, **name_parts(replace(scene, predictor=problem.asked))},
        trace=draws.trace,
        stats=draws.stats,
        axes=axes | {name: AXES[name] for name in gates},
        fit=tuple(draws.fit),
    )


def name_parts(scene: Scene) -> dict[str, str]:
    """Names of speech prior, noise model, and predictor if there is one."""
    parts = {"speech": scene.speech, "noise": scene.noise, "predictor": scene.predictor}
    return {role: name_of(part) for role, part in parts.items() if part is not None}


def limit_to_observed(law: ComplexNormal, mixture: Spectrogram) -> ComplexNormal:
    """Law of speech given the mixture, in unobserved bins that of speech and noise of equal power.

    Parameters
    ----------
    law
        ``(recording, freq, time)``.
    mixture
        What was inferred from; values in units of its scale.
    """
    if mixture.observed is None or mixture.recorded is None:
        return law
    recorded, shape = mixture.recorded, mixture.values.shape
    power = 0.25 * (recorded.real.square() + recorded.imag.square())
    mean = torch.where(mixture.observed, law.mean.expand(shape), 0.5 * recorded)
    least = torch.finfo(power.dtype).tiny
    power = torch.where(mixture.observed, law.power.expand(shape), power.clamp_min(least))
    return ComplexNormal(mean, power, validate_args=False)


def draw_waveform(law: ComplexNormal, mixture: Spectrogram, streams: RandomStreams) -> Tensor:
    """Draw waveforms ``(recording, sample)``: bins by their law, overlapping frames in accord."""
    shape, stft = mixture.values.shape, mixture.stft
    mean, sd = law.mean.expand(shape), law.power.sqrt().expand(shape)
    waves = sd.new_zeros(mixture.recordings, max(mixture.n_samples))
    for r, (n, generator) in enumerate(zip(mixture.n_samples, streams.generators, strict=True)):
        waves[r, :n] = stft.draw_waveform(mean[r], sd[r], n, generator, mixture.scale[r])
    return waves


def convert_to_numpy(values: Tensor) -> np.ndarray:
    """Array in single precision."""
    array = values.detach().cpu().numpy()
    return array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)


def stack_draws(rows: Sequence[Tensor], chains: int) -> np.ndarray:
    """Stack draws ``(recording, ...)`` to ``(chain, draw, recording, ...)``."""
    return convert_to_numpy(torch.stack(list(rows)).unflatten(0, (chains, -1)))


def trace_axes(scene: Scene, mixture: Spectrogram, values: Mapping[str, Tensor]) -> dict[str, Axes]:
    """Names of the axes of each latent behind the recording: those of the plates it lies in.

    Values that ``pyro.deterministic`` records have axes, too. An axis without a plate, of length 1
    or of a vector, has an empty name.

    Examples
    --------
    >>> from avse_ppl.models.simulate import reference_scene, simulate
    >>> scene = reference_scene(noise_known=False)
    >>> simulated = simulate(scene, n_samples=4096)
    >>> trace_axes(scene, simulated.mixture, simulated.latents)
    {'speech.gain': ('', 'time'), 'noise.level': ('', '')}
    """
    found: dict[str, Axes] = {}

    class PlateReader(Messenger):
        def _pyro_post_sample(self, msg: Any) -> None:
            if is_deterministic(msg):
                shape = expand_recorded(msg["value"], mixture.recordings).shape[1:]
                sizes = {(f.dim, f.size): f.name for f in msg["cond_indep_stack"]}
                ends = [sizes.get((k - 2, n), "") for k, n in enumerate(shape[:2])]
                found[msg["name"]] = (*ends, *([""] * (len(shape) - 2)))
            elif msg["name"] in values:
                axes = values[msg["name"]].dim() - 1
                names = {f.dim - msg["fn"].event_dim: f.name for f in msg["cond_indep_stack"]}
                found[msg["name"]] = tuple(names.get(k, "") for k in range(-axes, 0))

    with (
        recording_plate(mixture.recordings),
        PlateReader(),
        poutine.condition(data=dict(values)),
    ):
        scene.laws(mixture.frames)
    return found


def record_deterministic(scene: Scene, mixture: Spectrogram, values: Mapping[str, Tensor]) -> Any:
    """Values that the models record by ``pyro.deterministic`` in one draw, or by a reparameter.

    Shapes ``(recording, ...)``, as those of latents.
    """
    found: dict[str, Tensor] = {}

    class Recorder(Messenger):
        def _pyro_post_sample(self, msg: Any) -> None:
            if is_deterministic(msg):
                found[msg["name"]] = expand_recorded(msg["value"], mixture.recordings)

    with (
        torch.no_grad(),
        recording_plate(mixture.recordings),
        Recorder(),
        poutine.condition(data=dict(values)),
    ):
        scene.laws(mixture.frames)
    return found


def expand_recorded(value: Tensor, recordings: int) -> Tensor:
    """Value of any shape as ``(recording, ., ., ...)``."""
    value = value.reshape((1,) * (3 - value.ndim) + value.shape)
    return value.expand(recordings, *value.shape[1:])
