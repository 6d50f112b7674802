"""Posteriors of several recordings as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from avse_ppl.posterior.chunks import stack_channels
from avse_ppl.posterior.posterior import Posterior


def stack_recordings(parts: Sequence[Posterior]) -> Posterior:
    """Posteriors of one recording each as that of the batch.

    Shorter recordings are padded: with zeros, and their latents with NaN, since nothing was drawn
    there. ``Posterior.select`` takes the padding off.
    """
    if len(parts) == 1:
        return parts[0]
    samples = max(part.speech.shape[-1] for part in parts)
    time = max(part.mean.shape[-1] for part in parts)
    shapes = {
        name: np.max([part.latents[name].shape for part in parts], axis=0)
        for name in parts[0].latents
    }
    joined = stack_channels([_padded(part, samples, time, shapes) for part in parts])
    attrs = {**parts[0].attrs, **_joined_rows([part.attrs for part in parts])}
    return replace(joined, attrs=attrs)


def _joined_rows(attrs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """What is kept of each recording: its warnings, and its figures if all have some."""
    rows = {"warnings": [row for one in attrs for row in one.get("warnings", [[]])]}
    if all("diagnostics" in one for one in attrs):
        rows["diagnostics"] = [row for one in attrs for row in one["diagnostics"]]
    return rows


def _padded(part: Posterior, samples: int, time: int, shapes: dict[str, np.ndarray]) -> Posterior:
    """Pad the arrays of a shorter recording to those of the longest."""
    return replace(
        part,
        speech=_grown(part.speech, (*part.speech.shape[:-1], samples), 0.0),
        latents={name: _grown(part.latents[name], shapes[name], np.nan) for name in shapes},
        **{
            name: _grown(array, (*array.shape[:-1], time), 0.0)
            for name, array in (
                ("mean", part.mean), ("variance", part.variance), ("mixture", part.mixture),
            )
        },
    )  # fmt: skip


def _grown(array: np.ndarray, shape: Sequence[int] | np.ndarray, value: float) -> np.ndarray:
    missing = [(0, int(size) - found) for size, found in zip(shape, array.shape, strict=True)]
    if not any(after for _, after in missing):
        return array
    return np.pad(array, missing, constant_values=value)
