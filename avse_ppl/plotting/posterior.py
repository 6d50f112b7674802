"""Posterior of the speech: spectrograms, standard deviation, credible band, visual gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.plotting.figure import (
    RANGE_DB,
    check_figure_path,
    make_figure,
    save_figure,
    set_headline,
)
from avse_ppl.posterior.posterior import Posterior


def plot_posterior(
    posterior: Posterior, path: str | Path, *, recording: int = 0, probability: float = 0.9
) -> Path:
    """Plot the noisy and the enhanced spectrogram, the uncertainty, and the credible band.

    Top: magnitude of the mixture and of the posterior mean, dB. Below: posterior standard deviation
    relative to the loudest bin, dB; and the enhanced waveform's level with its credible band, from
    the waveform draws. With video, at the bottom: the visual gate, how far the lips count.

    Parameters
    ----------
    posterior
        What to plot.
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
        If the posterior holds fewer than two waveform draws, or the ending is another.
    """
    from librosa.display import specshow

    path = check_figure_path(path)
    one = posterior.select(recording)
    stft = one.stft
    mixture, mean = np.abs(one.mixture[0]), np.abs(one.mean[0])
    low, high = (bound[0] for bound in one.interval(probability, of="magnitude"))
    time_s = np.arange(low.shape[-1]) * stft.hop / stft.sample_rate_hz
    figure = make_figure(11, 7)
    with_gate = one.reliability is not None
    rows: Any = [["a", "b"], ["c", "d"], *([["e", "e"]] if with_gate else [])]
    axes = list(figure.subplot_mosaic(rows, height_ratios=[1.0, 1.0, 0.35][: len(rows)]).values())

    # Spectrograms.
    panels = (
        ("noisy", mixture),
        ("enhanced (posterior mean)", mean),
        ("posterior standard deviation", one.sd[0]),
    )
    images = []
    for axis, (title, magnitude) in zip(axes, panels, strict=False):
        level_db = 20 * np.log10(np.maximum(magnitude / mixture.max(), 1e-8))
        images.append(
            specshow(
                level_db,
                sr=stft.sample_rate_hz,
                hop_length=stft.hop,
                n_fft=stft.n_fft,
                x_axis="time",
                y_axis="linear",
                ax=axis,
                vmin=-RANGE_DB,
                vmax=0.0,
                cmap="magma",
            )
        )
        axis.set_title(title)
    # On the right of the upper row: constrained layout cuts off the label of one on the left.
    figure.colorbar(images[1], ax=axes[1], label="dB")

    # Level of the speech in each frame: mean and band over draws, with the noisy level behind.
    low_db, high_db, noisy_db, mean_db = (
        10 * np.log10(np.sum(magnitude**2, axis=0) + 1e-8)
        for magnitude in (low, high, mixture, mean)
    )
    axis = axes[3]
    axis.plot(time_s, noisy_db, color="0.6", lw=1, label="noisy")
    axis.fill_between(
        time_s, low_db, high_db, color="C0", alpha=0.35, lw=0,
        label=f"{probability:.0%} credible band, bin by bin",
    )  # fmt: skip
    axis.plot(time_s, mean_db, color="C0", lw=1.2, label="enhanced")
    axis.set(xlabel="Time", ylabel="level, dB", title="speech level per frame")
    axis.legend(loc="lower right", fontsize=8)

    # Visual gate.
    if one.reliability is not None:
        (gate,) = one.reliability
        axis, time_s = axes[4], np.arange(len(gate)) * stft.hop / stft.sample_rate_hz
        axis.fill_between(time_s, gate, color="C2", alpha=0.4, lw=0)
        axis.plot(time_s, gate, color="C2", lw=1)
        axis.set(xlabel="Time", ylabel="reliability", ylim=(0, 1), xlim=(0, time_s[-1]))
        axis.set_title("visual gate: how far the lips count")
    title = f"{one.kind}   ({one.attrs.get('routine', '')})"
    set_headline(figure, title, one.warnings, fontsize=9 if one.warnings else 10)
    return save_figure(figure, path)
