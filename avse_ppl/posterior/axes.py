"""What the axes of a posterior's latents stand for; one recording cut out of a batch by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from avse_ppl.models.scene import Scene
    from avse_ppl.posterior.posterior import Posterior
    from avse_ppl.signal.stft import Spectrogram

Axes = tuple[str, ...]
FREQ, TIME = "freq", "time"
_OF_RECORDINGS = ("k_hat", "elbo_rise", "diagnostics")


def axes_of(scene: Scene, mixture: Spectrogram, values: Mapping[str, Tensor]) -> dict[str, Axes]:
    """Names of the axes of each latent behind the recording: those of the plates it lies in.

    An axis without a plate, of length 1 or of a vector, has an empty name.

    Examples
    --------
    >>> from avse_ppl.models.simulate import reference_scene, simulate
    >>> scene = reference_scene(noise_known=False)
    >>> simulated = simulate(scene, n_samples=4096)
    >>> axes_of(scene, simulated.mixture, simulated.latents)
    {'speech.gain': ('', 'time'), 'noise.level': ('', '')}
    """
    import torch
    from pyro import poutine
    from pyro.poutine.messenger import Messenger

    from avse_ppl.models.handlers import recording_plate

    found: dict[str, Axes] = {}

    class Reader(Messenger):
        def _pyro_post_sample(self, msg: Any) -> None:
            if msg["name"] in values:
                axes = values[msg["name"]].dim() - 1
                names = {f.dim - msg["fn"].event_dim: f.name for f in msg["cond_indep_stack"]}
                found[msg["name"]] = tuple(names.get(k, "") for k in range(-axes, 0))

    with (
        torch.no_grad(),
        poutine.block(),
        Reader(),
        poutine.condition(data=dict(values)),
        recording_plate(mixture.recordings),
    ):
        scene.laws(mixture.frames)
    return found


def on_grid(axes: Axes | None, shape: tuple[int, ...], grid: Mapping[str, int]) -> Axes:
    """Names of axes, those of the grid as long as the grid's.

    An axis of no plate is the grid's if it has its place and its length.

    Examples
    --------
    >>> grid = {"freq": 33, "time": 8}
    >>> on_grid(("freq", "component"), (33, 8), grid), on_grid(None, (33, 8), grid)
    (('freq', 'component'), ('freq', 'time'))
    """
    known = axes or ("",) * len(shape)
    places = (FREQ, TIME, *[""] * len(shape))
    named = [name or place for name, place in zip(known, places, strict=False)]
    return tuple(
        name if name not in grid or grid[name] == size else ""
        for name, size in zip(named, shape, strict=True)
    )


def grid_of(posterior: Posterior) -> dict[str, int]:
    """How long the grid is in frequency and in time."""
    return dict(zip((FREQ, TIME), posterior.mean.shape[1:], strict=True))


def select(posterior: Posterior, recording: int) -> Posterior:
    """One recording of a batch; see ``Posterior.select``."""
    recording = range(posterior.recordings)[recording]
    n = posterior.n_samples[recording]
    time, one = posterior.stft.count_frames(n), slice(recording, recording + 1)
    grid = grid_of(posterior)
    latents = {
        name: _cut(value[:, :, one], on_grid(posterior.axes.get(name), value.shape[3:], grid), time)
        for name, value in posterior.latents.items()
    }
    return replace(
        posterior, attrs=_attrs(posterior.attrs, recording), mean=posterior.mean[one, :, :time],
        variance=posterior.variance[one, :, :time], mixture=posterior.mixture[one, :, :time],
        speech=posterior.speech[:, :, one, :n], latents=latents, n_samples=(n,),
        trace={key: value[:, one] for key, value in posterior.trace.items()},
        stats={key: value[:, :, one] for key, value in posterior.stats.items()},
    )  # fmt: skip


def _cut(value: np.ndarray, axes: Axes, length: int) -> np.ndarray:
    return value[(..., *[slice(length if axis == TIME else None) for axis in axes])]


def _attrs(attrs: Mapping[str, Any], recording: int) -> dict[str, Any]:
    """What is said of one of the recordings."""
    kept = dict(attrs)
    if isinstance(kept.get("seed"), (list, tuple, np.ndarray)):
        kept["seed"] = int(kept["seed"][recording])
    if "warnings" in kept:
        kept["warnings"] = [list(kept["warnings"][recording])]
    for name in _OF_RECORDINGS:
        if name in kept:
            kept[name] = [kept[name][recording]]
    return kept
