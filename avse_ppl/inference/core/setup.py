"""Inputs of an inference method: mixture, seeds, device, and streams of random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avse_ppl.models.scene import Scene
from avse_ppl.signal.infrasound import remove_infrasound
from avse_ppl.signal.observed_bins import mark_observed
from avse_ppl.signal.stft import Spectrogram

Mixture = Any  # Spectrogram, Audio, path, bytes, or waveforms (sample,) as array, tensor or list

Seed = int | Sequence[int]  # of a batch, or of each of its recordings


class RandomStreams:
    """Standard-normal draws with one generator per recording.

    Recording r of a batch draws from the r-th seed, by default ``seed + r``, so that it gets the
    same numbers alone, with that seed, as in the batch.
    """

    def __init__(self, seed: Seed, recordings: int, device: torch.device) -> None:
        """Seed one generator for each recording."""
        self.device = device
        seeds = range(seed, seed + recordings) if isinstance(seed, int) else seed
        self.generators = [torch.Generator(device=device).manual_seed(s) for s in seeds]

    def save_state(self, recording: int) -> Tensor:
        """State of the stream of a recording, for `restore_state`."""
        return self.generators[recording].get_state()

    def restore_state(self, recording: int, state: Tensor) -> None:
        """Let the stream of a recording go on from where its state was saved."""
        self.generators[recording].set_state(state)

    def normal(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Draw ``(recording, ...)``."""
        options = {"device": self.device, "dtype": dtype}
        rows = [torch.randn(*shape[1:], generator=g, **options) for g in self.generators]
        return torch.stack(rows)


def check_seed(seed: Any) -> int | list[int]:
    """Whole number, or a list of them, one for each recording.

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> check_seed(3), check_seed([3, 1])
    (3, [3, 1])
    """
    several = isinstance(seed, Sequence) and not isinstance(seed, str)
    return check_seeds(seed) if several else check_seeds([seed])[0]


def check_seeds(seeds: Sequence[Any]) -> list[int]:
    """Return seeds as Python's whole numbers; raise ValueError unless they are whole numbers."""
    for one in seeds:
        if isinstance(one, bool) or not isinstance(one, (int, np.integer)):
            raise ValueError(f"seed must be a whole number, not {one!r}")
    return [int(one) for one in seeds]


def resolve_device(name: str) -> torch.device:
    """Device from ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    ValueError
        If the name is none of these, or CUDA is asked for and absent.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
    """
    kind = str(name).split(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda', not {name!r}")
    available = torch.cuda.is_available()
    if kind == "cuda" and not available:
        raise ValueError(
            "device 'cuda' was asked for, but torch finds no CUDA device here; use device='cpu' "
            "or 'auto', or check the driver with nvidia-smi"
        )
    if kind == "auto":
        return torch.device("cuda" if available else "cpu")
    return torch.device(name)


def analyse_mixture(scene: Scene, mixture: Mixture) -> Spectrogram:
    """Spectrogram of a mixture on the front end of the scene's speech prior.

    Raises
    ------
    ValueError
        If a recording is silent, not finite or shorter than one window.
    """
    if not isinstance(mixture, Spectrogram):
        from avse_ppl.signal.audio import Audio, as_audio, check_audio, convert_rate

        stft = scene.stft
        if isinstance(mixture, (str, Path, bytes)):
            mixture = as_audio(mixture)
        if isinstance(mixture, Audio):
            audio = check_audio(convert_rate(mixture, stft.sample_rate_hz), min_samples=stft.n_fft)
            waves = [channel.samples for channel in audio.channels()]
        else:
            waves = check_waves(mixture, stft.n_fft)
        waves = [remove_infrasound(wave, stft.sample_rate_hz) for wave in waves]
        mixture = mark_observed(stft.analyse(waves))
    for i, peak in enumerate(mixture.values.abs().amax((1, 2)).tolist()):
        if not np.isfinite(peak):
            raise ValueError(f"recording {i} of the spectrogram holds NaN or infinite values")
        if peak == 0:
            raise ValueError(
                f"recording {i} of the spectrogram is silent (all zeros), so there is nothing to "
                "infer"
            )
    return mixture


def check_waves(waves: Any, min_samples: int) -> list[np.ndarray]:
    """Waveforms as arrays; raise unless each is finite, not silent and a window long or more."""
    rows = waves if isinstance(waves, (list, tuple)) or np.ndim(waves) > 1 else [waves]
    arrays = [np.asarray(row) for row in rows]
    for i, array in enumerate(arrays):
        if array.ndim != 1 or array.size < min_samples:
            raise ValueError(
                f"recording {i} has shape {array.shape}; expected (sample,) with at least "
                f"{min_samples} samples, one STFT window"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"recording {i} holds NaN or infinite samples; remove them first")
        if not array.any():
            raise ValueError(
                f"recording {i} is silent (all zeros), so there is nothing to infer; "
                "avse_ppl.enhance returns such recordings as they are"
            )
    return arrays
