"""From draws of the latents to the posterior over speech."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from avse_ppl.distributions.complex_normal import ComplexNormal
from avse_ppl.inference.core.log_density import Values
from avse_ppl.inference.core.setup import RandomStreams
from avse_ppl.inference.core.visual_gate import AXES, gate_posterior
from avse_ppl.models.scene import Scene, recording_plate
from avse_ppl.models.validation import name_of
from avse_ppl.posterior.approximation import Approximation
from avse_ppl.posterior.fit_info import FitInfo, fit_from_attrs
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
    """Posterior over speech from the draws of a method whose defaults are filled in."""
    return build_from_parts(
        problem.scene, problem.spectrogram, draws.values, problem.streams, kind=draws.kind,
        attrs=draws.attrs, fit=draws.fit, waveforms=draws.waveforms or 0,
        trace=draws.trace, moments=draws.moments, counted=draws.moment_draws, chains=draws.chains,
        stats=draws.stats, laws=draws.laws,
    )  # fmt: skip


def build_from_parts(
    scene: Scene,
    mixture: Spectrogram,
    draws: Sequence[Values],
    randoms: RandomStreams,
    *,
    kind: str,
    attrs: dict[str, Any],
    waveforms: int,
    trace: dict[str, np.ndarray] | None = None,
    moments: tuple[Tensor, Tensor] | None = None,
    counted: int | None = None,
    chains: int = 1,
    stats: dict[str, np.ndarray] | None = None,
    laws: Sequence[ComplexNormal] | None = None,
    fit: Sequence[FitInfo] = (),
) -> Posterior:
    """Posterior over speech from draws of the latents.

    Parameters
    ----------
    scene, mixture
        What was inverted.
    draws
        Values of all latents, one dictionary a draw, ``(recording, ...)`` each; the draws of the
        first chain first.
    randoms
        For the speech draws.
    kind, attrs, trace, stats
        Stored in the posterior.
    waveforms
        Number of waveform draws of each chain: 0 for none; more than there are draws of the latents
        if these are point estimates; if fewer, they are spread evenly over the chain.
    moments
        Mean and variance, where they are known better than the draws tell.
    counted
        How many draws of each chain the moments are taken over, by default all of them.
    chains
        How many chains of equal length the draws are from.
    laws
        Posterior law of speech in each draw, where it is not the scene's own.
    """
    running, waves = Moments(), []
    length = len(draws) // chains
    for index, count, drawn in _uses(length, min(counted or length, length), waveforms, chains):
        law = _law(scene, draws[index], mixture) if laws is None else laws[index]
        if count:
            running.add(law)
        waves += [_draw_wave(law, mixture, randoms) for _ in range(drawn)]
    mean, variance = moments or running.result()
    scale = mixture.scale[:, None, None]
    attrs = {**attrs, "speech": name_of(scene.speech), "noise": name_of(scene.noise)}
    attrs, found = fit_from_attrs(attrs, mixture.recordings)
    latents = {name: _stack([d[name] for d in draws], chains) for name in draws[0]}
    seen = gate_posterior(scene, mixture, draws, randoms)
    latents |= {name: _stack(rows, chains) for name, rows in seen.items()}
    axes = trace_axes(scene, mixture, draws[0]) | {name: AXES[name] for name in seen}
    return Posterior(
        mean=_numpy(mean * scale), variance=_numpy(variance * scale.square()),
        mixture=_numpy(mixture.values * scale), latents=latents,
        speech=_stack(waves, chains) if waves else _no_waves(mixture, chains),
        n_samples=mixture.n_samples, stft=mixture.stft, kind=Approximation.parse(kind),
        attrs=attrs, trace=trace or {}, stats=stats or {}, axes=axes, fit=tuple(fit) or found,
    )  # fmt: skip


def _law(scene: Scene, values: Values, mixture: Spectrogram) -> ComplexNormal:
    """Wiener posterior at given latents."""
    laws = scene.laws_given(values, mixture)
    return laws.speech.condition(laws.noise, mixture.values)


def _uses(
    length: int, counted: int, waveforms: int, chains: int
) -> Iterator[tuple[int, bool, int]]:
    """Which draws are needed: their index, whether moments count them, and waveforms of each.

    Waveforms are spread evenly over a chain; where there are more of them than draws, they go round
    the draws, each of which then stands once for each of its waveforms.
    """
    for chain in range(chains):
        first = chain * length
        if waveforms > length:
            yield from ((first + i % length, i < counted, 1) for i in range(waveforms))
            continue
        drawn = {-(-i * length // waveforms) for i in range(waveforms)}
        for i in range(length):
            if i < counted or i in drawn:
                yield first + i, i < counted, int(i in drawn)


def _draw_wave(law: ComplexNormal, mixture: Spectrogram, randoms: RandomStreams) -> Tensor:
    """One waveform, ``(recording, sample)``: each bin by its law, overlapping frames in accord."""
    shape, stft = mixture.values.shape, mixture.stft
    mean, sd = law.mean.expand(shape), law.power.sqrt().expand(shape)
    waves = sd.new_zeros(mixture.recordings, max(mixture.n_samples))
    for r, (n, generator) in enumerate(zip(mixture.n_samples, randoms.generators, strict=True)):
        unit = stft.draw_unit_noise((), n, generator).to(sd.device)
        time = unit.shape[-1]  # without the padding of a batch
        values = mean[r, :, :time] + sd[r, :, :time] * unit
        waves[r, :n] = stft.inverse(values * mixture.scale[r], n)
    return waves


def _no_waves(mixture: Spectrogram, chains: int) -> np.ndarray:
    return np.zeros((chains, 0, mixture.recordings, max(mixture.n_samples)), np.float32)


def _numpy(values: Tensor) -> np.ndarray:
    array = values.detach().cpu().numpy()
    return array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)


def _stack(rows: Sequence[Tensor], chains: int) -> np.ndarray:
    """``(chain, draw, recording, ...)``."""
    return _numpy(torch.stack(list(rows)).unflatten(0, (chains, -1)))


def kind_of(kind: str, tempering: float) -> str:
    """Name of the approximation, saying so if the likelihood was tempered."""
    return kind if tempering == 1.0 else f"{kind}, tempered {tempering:g}"


def trace_axes(scene: Scene, mixture: Spectrogram, values: Mapping[str, Tensor]) -> dict[str, Axes]:
    """Names of the axes of each latent behind the recording: those of the plates it lies in.

    An axis without a plate, of length 1 or of a vector, has an empty name.

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
            if msg["name"] in values:
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
