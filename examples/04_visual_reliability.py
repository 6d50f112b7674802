"""Reliability of the lips when a hand covers the mouth, and the posterior under it.

A bundled GRID sentence with its mouth (CC BY 4.0) in rain. From 1 to 1.8 s a hand covers the mouth,
composited onto the crops as ``avse-ppl corrupt-video --kind hand`` does it in a video. ``av-dkf``
enhances it with the original lips, the covered ones and none, under the switching model of
reliability. ``out/covered.png`` plots, one below the other: the score of the video frames, the
posterior probability of the switch, and the width of the credible band of the power of speech; grey
with the original lips, dotted audio-only. The table has the means, over frames in which there is
speech.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from avse_ppl import NMF, Posterior, Scene, load_speech
from avse_ppl.data import highpass, mix
from avse_ppl.evaluation.diagnostics import log_powers
from avse_ppl.inference.core.video import condition_on_video
from avse_ppl.models.visual.reliability import Switching
from avse_ppl.pipeline.catalog import resolve_inference
from avse_ppl.signal.audio import Audio, load_audio
from avse_ppl.signal.stft import Spectrogram
from avse_ppl.video import Lips, read_lips
from avse_ppl.video.corruptions import corrupt
from avse_ppl.video.quality.score import score_lips

DATA = Path(__file__).parent / "data"
COVERED = (25, 45)  # video frames, at 25 a second
QUIET_DB = 25.0  # below the loudest frame there is no speech
PANELS = ("score of the video frames", "probability of the switch", "90 % band of power, dB")


class Traces(NamedTuple):
    """Score, switch and width of the band on the frames of the recording."""

    time_s: np.ndarray
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]


def main() -> None:
    """Mix, cover, enhance, and print the reliability of the lips."""
    parser = argparse.ArgumentParser(description="Enhance speech whose video is partly covered.")
    parser.add_argument("--snr-db", type=float, default=-5.0)
    parser.add_argument("--kind", default="hand", help="see avse-ppl corrupt-video --help")
    parser.add_argument(
        "--clip", type=Path, default=DATA / "mouth_in_red.mkv", help="mouth and voice"
    )
    parser.add_argument("--noise", type=Path, default=DATA / "rain.flac")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    target = highpass(load_audio(arguments.clip).mono().samples, 16000)
    mixture = mix(target, load_audio(arguments.noise).mono().samples, arguments.snr_db)
    noisy = Audio(mixture.mixture, mixture.sample_rate_hz)
    lips = read_lips(arguments.clip)
    covered = corrupt(lips, arguments.kind, severity=1.0, span=COVERED, seed=3).lips

    traces = {
        "lips": infer_traces(noisy, lips),
        f"{arguments.kind} over them": infer_traces(noisy, covered),
        "audio-only": infer_traces(noisy, None),
    }  # fmt: skip
    talking = find_speech(mixture.speech, traces["lips"].time_s)
    start_s, stop_s = (frame / 25 for frame in COVERED)
    table = Table(title=f"from {start_s:g} to {stop_s:g} s, and the rest of the speech")
    for heading in ("", *PANELS):
        table.add_column(heading, justify="right" if heading else "left")
    for name, one in traces.items():
        within = (one.time_s > start_s) & (one.time_s < stop_s)
        means = [(row[within & talking].mean(), row[~within & talking].mean()) for row in one.rows]
        table.add_row(name, *(f"{inside:.2f}, rest {rest:.2f}" for inside, rest in means))
    plot_traces(list(traces.values()), (start_s, stop_s), arguments.output / "covered.png")
    Console().print(table)
    Console().print(f"{arguments.output / 'covered.png'} plots them over time")


def infer_traces(noisy: Audio, lips: Lips | None) -> Traces:
    """Enhance, and keep the traces to plot."""
    scene = Scene(load_speech("av-dkf"), NMF(2), Switching())
    mixture = scene.stft.analyse(noisy.samples)
    mixture = mixture if lips is None else condition_on_video(scene, mixture, lips)
    posterior = resolve_inference("svi", draws=200, waveforms=False)(scene, mixture, seed=0)
    time_s, switch = mixture.frames.time_s.numpy(), posterior.reliability
    none = np.zeros(len(time_s))
    scored = None if lips is None else score_lips(lips)
    score = none if scored is None else np.interp(time_s, scored.time_s, scored.score)
    band = compute_band(scene, mixture, posterior)
    return Traces(time_s, (score, none if switch is None else switch[0], band))


def compute_band(scene: Scene, mixture: Spectrogram, posterior: Posterior) -> np.ndarray:
    """Width of the 90 % band of the power of speech in each frame, over draws of the latents."""
    latents = {n: v[0] for n, v in posterior.latents.items() if not n.startswith("reliability")}
    draws = [
        {name: torch.from_numpy(values[d]) for name, values in latents.items()}
        for d in range(len(next(iter(latents.values()))))
    ]
    level = log_powers(scene, mixture, draws)["speech.frame"][0, :, 0] * 10 / np.log(10)
    low, high = np.quantile(level, (0.05, 0.95), axis=0)
    return high - low


def find_speech(clean: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    """Whether there is speech in a frame."""
    starts = np.rint(time_s * 16000).astype(int)
    power = np.array([np.mean(clean[max(s - 512, 0) : s + 512] ** 2) for s in starts])
    return power > power.max() * 10 ** (-QUIET_DB / 10)


def plot_traces(traces: list[Traces], span_s: tuple[float, float], path: Path) -> None:
    """One panel below the other, the covered span shaded."""
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(9, 6), layout="constrained")
    for number, (axis, title) in enumerate(zip(axes, PANELS, strict=True)):
        axis.axvspan(*span_s, color="tab:orange", alpha=0.2, lw=0)
        styled = zip(traces, ("0.6", "tab:blue", "black"), ("-", "-", ":"), strict=True)
        for one, colour, line in styled:
            if number == 2 or one.rows[0].any():  # audio-only there is nothing but the band
                axis.plot(one.time_s, one.rows[number], color=colour, linestyle=line, lw=1)
        axis.set_title(title, loc="left", fontsize=10)
    axes[0].set_ylim(-0.03, 1.03)
    axes[1].set_ylim(-0.03, 1.03)
    axes[2].set_ylim(bottom=0.0)
    axes[2].set_xlabel("time (s)")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
