"""Pictures of a posterior."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.posterior.posterior import Posterior
from avse_ppl.utils.files import write_figure

_RANGE_DB = 60.0


def plot_enhancement(
    posterior: Posterior, path: str | Path, *, recording: int = 0, probability: float = 0.9
) -> Path:
    """Draw the noisy and the enhanced spectrogram, the uncertainty, and the credible band.

    Top: magnitude of the mixture and of the posterior mean, dB. Below: posterior standard deviation
    relative to the loudest bin, dB; and the enhanced waveform's level with its credible band, from
    the waveform draws. With video, at the bottom: how far the lips counted.

    Parameters
    ----------
    posterior
        What to draw.
    path
        PNG, PDF or SVG file.
    recording
        Which recording of the batch.
    probability
        Mass of the band.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the posterior holds fewer than two waveform draws.
    """
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    path = Path(path)
    one = posterior.select(recording)
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = _axes(figure, with_lips=one.reliability is not None)
    top = float(np.abs(one.mixture).max())
    panels = (
        ("noisy", np.abs(one.mixture[0])),
        ("enhanced (posterior mean)", np.abs(one.mean[0])),
        ("posterior standard deviation", one.sd[0]),
    )
    images = []
    for axis, (title, magnitude) in zip(axes, panels, strict=False):
        images.append(_spectrogram(axis, magnitude / top, one))
        axis.set_title(title)
    figure.colorbar(images[0], ax=axes, label="dB", shrink=0.6, location="left")
    _band(axes[3], one, probability)
    for axis in axes[4:]:
        _lips(axis, one)
    _headline(figure, one)
    return write_figure(figure, path)


def _axes(figure: Any, with_lips: bool) -> list[Any]:
    """Four panels, and a flat one of the lips below if there is something to say of them."""
    rows = [["a", "b"], ["c", "d"], *([["e", "e"]] if with_lips else [])]
    heights = [1.0, 1.0, 0.35][: len(rows)]
    return list(figure.subplot_mosaic(rows, height_ratios=heights).values())


def _lips(axis: Any, posterior: Posterior) -> None:
    """How far the lips counted in each frame."""
    (gate,) = posterior.reliability  # type: ignore[misc]
    time_s = np.arange(len(gate)) * posterior.stft.hop / posterior.stft.sample_rate_hz
    axis.fill_between(time_s, gate, color="C2", alpha=0.4, lw=0)
    axis.plot(time_s, gate, color="C2", lw=1)
    axis.set(xlabel="Time", ylabel="reliability", ylim=(0, 1), xlim=(0, time_s[-1]))
    axis.set_title("how far the lips counted")


def _headline(figure: Any, posterior: Posterior) -> None:
    """What the figures are, and in red what is wrong with them."""
    import textwrap

    title = f"{posterior.kind}   ({posterior.attrs.get('routine', '')})"
    lines = [line for text in posterior.warnings for line in textwrap.wrap(text, 140)]
    color = "tab:red" if lines else "black"
    figure.suptitle("\n".join([title, *lines]), fontsize=9 if lines else 10, color=color)


def _spectrogram(axis: Any, magnitude: np.ndarray, posterior: Posterior) -> Any:
    from librosa.display import specshow

    level_db = 20 * np.log10(np.maximum(magnitude, 1e-8))
    stft = posterior.stft
    return specshow(
        level_db, sr=stft.sample_rate_hz, hop_length=stft.hop, n_fft=stft.n_fft, x_axis="time",
        y_axis="linear", ax=axis, vmin=-_RANGE_DB, vmax=0.0, cmap="magma",
    )  # fmt: skip


def _band(axis: Any, posterior: Posterior, probability: float) -> None:
    """Short-time level of the speech: mean and band over draws, with the noisy level behind."""
    low, high = posterior.interval(probability, of="magnitude")
    time_s = np.arange(low.shape[-1]) * posterior.stft.hop / posterior.stft.sample_rate_hz
    levels = {"low": low[0], "high": high[0], "noisy": np.abs(posterior.mixture[0]),
              "mean": np.abs(posterior.mean[0])}  # fmt: skip
    db = {key: 10 * np.log10(np.sum(value**2, axis=0) + 1e-8) for key, value in levels.items()}
    axis.plot(time_s, db["noisy"], color="0.6", lw=1, label="noisy")
    axis.fill_between(
        time_s, db["low"], db["high"], color="C0", alpha=0.35, lw=0,
        label=f"{probability:.0%} credible band, bin by bin",
    )  # fmt: skip
    axis.plot(time_s, db["mean"], color="C0", lw=1.2, label="enhanced")
    axis.set(xlabel="Time", ylabel="level, dB", title="speech level per frame")
    axis.legend(loc="lower right", fontsize=8)
