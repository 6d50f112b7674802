"""What becomes of the lips when a hand goes over the mouth, and what the posterior says of it.

A bundled GRID sentence with its mouth (CC BY 4.0) in rain. From 1 to 1.8 s a hand covers the mouth,
drawn onto the crops as ``avse-ppl corrupt-video --kind hand`` draws it onto a video. ``av-dkf`` is
asked with the lips as they were and with the covered ones, under the switch that the sound has a
say in. ``out/covered.png`` shows, one below the other: the score of the pictures, the probability
of the switch, and how wide the credible band of the power of speech is, as its latents say; grey
are those of the lips as they were, dotted is the band by ear. The table has the means, over frames
in which there is speech.
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
COVERED = (25, 45)  # pictures, at 25 a second
QUIET_DB = 25.0  # below the loudest frame there is no speech
PANELS = ("score of the pictures", "probability of the switch", "90 % band of power, dB")


class Course(NamedTuple):
    """Score, switch and width of the band on the frames of the recording."""

    time_s: np.ndarray
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]


def main() -> None:
    """Mix, cover, enhance, and say how far the lips were believed."""
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

    meant = highpass(load_audio(arguments.clip).mono().samples, 16000)
    mixture = mix(meant, load_audio(arguments.noise).mono().samples, arguments.snr_db)
    noisy = Audio(mixture.mixture, mixture.sample_rate_hz)
    lips = read_lips(arguments.clip)
    covered = corrupt(lips, arguments.kind, severity=1.0, span=COVERED, seed=3).lips

    courses = {
        "lips": course(noisy, lips), f"{arguments.kind} over them": course(noisy, covered),
        "by ear": course(noisy, None),
    }  # fmt: skip
    talking = speech_frames(mixture.speech, courses["lips"].time_s)
    start_s, stop_s = (picture / 25 for picture in COVERED)
    table = Table(title=f"from {start_s:g} to {stop_s:g} s, and the rest of the speech")
    for heading in ("", *PANELS):
        table.add_column(heading, justify="right" if heading else "left")
    for name, one in courses.items():
        within = (one.time_s > start_s) & (one.time_s < stop_s)
        means = [(row[within & talking].mean(), row[~within & talking].mean()) for row in one.rows]
        table.add_row(name, *(f"{inside:.2f}, rest {rest:.2f}" for inside, rest in means))
    draw(list(courses.values()), (start_s, stop_s), arguments.output / "covered.png")
    Console().print(table)
    Console().print(f"{arguments.output / 'covered.png'} shows their course")


def course(noisy: Audio, lips: Lips | None) -> Course:
    """Enhance, and keep what is to be drawn."""
    scene = Scene(load_speech("av-dkf"), NMF(2), Switching())
    mixture = scene.stft.analyse(noisy.samples)
    mixture = mixture if lips is None else condition_on_video(scene, mixture, lips)
    posterior = resolve_inference("svi", draws=200, waveforms=False)(scene, mixture, seed=0)
    time_s, switch = mixture.frames.time_s.numpy(), posterior.reliability
    none = np.zeros(len(time_s))
    judged = None if lips is None else score_lips(lips)
    score = none if judged is None else np.interp(time_s, judged.time_s, judged.score)
    band = band_db(scene, mixture, posterior)
    return Course(time_s, (score, none if switch is None else switch[0], band))


def band_db(scene: Scene, mixture: Spectrogram, posterior: Posterior) -> np.ndarray:
    """Width of the 90 % band of the power of speech in each frame, over draws of the latents."""
    latents = {n: v[0] for n, v in posterior.latents.items() if not n.startswith("reliability")}
    draws = [
        {name: torch.from_numpy(values[d]) for name, values in latents.items()}
        for d in range(len(next(iter(latents.values()))))
    ]
    level = log_powers(scene, mixture, draws)["speech.frame"][0, :, 0] * 10 / np.log(10)
    low, high = np.quantile(level, (0.05, 0.95), axis=0)
    return high - low


def speech_frames(clean: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    """Whether anything is said in a frame."""
    starts = np.rint(time_s * 16000).astype(int)
    power = np.array([np.mean(clean[max(s - 512, 0) : s + 512] ** 2) for s in starts])
    return power > power.max() * 10 ** (-QUIET_DB / 10)


def draw(courses: list[Course], span_s: tuple[float, float], path: Path) -> None:
    """One panel below the other, the covered span shaded."""
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(9, 6), layout="constrained")
    for number, (axis, title) in enumerate(zip(axes, PANELS, strict=True)):
        axis.axvspan(*span_s, color="tab:orange", alpha=0.2, lw=0)
        shown = zip(courses, ("0.6", "tab:blue", "black"), ("-", "-", ":"), strict=True)
        for one, colour, line in shown:
            if number == 2 or one.rows[0].any():  # by ear there is nothing but the band
                axis.plot(one.time_s, one.rows[number], color=colour, linestyle=line, lw=1)
        axis.set_title(title, loc="left", fontsize=10)
    axes[0].set_ylim(-0.03, 1.03)
    axes[1].set_ylim(-0.03, 1.03)
    axes[2].set_ylim(bottom=0.0)
    axes[2].set_xlabel("time (s)")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
