"""Audio-visual enhancement of one of two people who talk at once.

A bundled GRID sentence with its mouth (CC BY 4.0) is mixed with a sentence by another speaker, who
is as loud. The same prior enhances it twice, audio-only and with the lips. The crops of the mouth
are bundled ready-made, so that no face detector is needed; ``avse_ppl.enhance("clip.mkv",
video="clip.mkv")`` takes a video of the whole face.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import avse_ppl
from avse_ppl.data import highpass, mix
from avse_ppl.evaluation.metrics import evaluate
from avse_ppl.plotting import plot_tracking
from avse_ppl.signal.audio import Audio, load_audio, save_audio
from avse_ppl.video import read_lips

DATA = Path(__file__).parent / "data"


def main() -> None:
    """Mix, enhance audio-only and with lips, score."""
    parser = argparse.ArgumentParser(description="Enhance one of two people who talk at once.")
    parser.add_argument("--speech", default="av-dkf", help="av-dkf, av-cvae, or a folder")
    parser.add_argument("--snr-db", type=float, default=-3.0)
    parser.add_argument("-o", "--output", type=Path, default=Path("out"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    target = highpass(load_audio(DATA / "mouth.mkv").mono().samples, 16000)
    other = highpass(load_audio(DATA / "speech.flac").samples, 16000)
    mixture = mix(target, other, arguments.snr_db)
    noisy = Audio(mixture.mixture, mixture.sample_rate_hz)
    lips = read_lips(DATA / "mouth.mkv")
    plot_tracking(lips, arguments.output / "lips.png")

    table = Table(title=f'"set white at u eight now", somebody else at {arguments.snr_db:g} dB')
    for heading in ("", "SI-SDR, dB", "ESTOI"):
        table.add_column(heading, justify="right" if heading else "left")

    def add_scores(name: str, estimate: np.ndarray) -> None:
        scores = evaluate(mixture.speech, estimate, mixture.sample_rate_hz)
        estoi = "n/a" if scores.estoi is None else f"{scores.estoi:.3f}"
        table.add_row(name, f"{scores.si_sdr_db:.2f}", estoi)

    add_scores("input", mixture.mixture)
    for name, video in (("audio-only", None), ("with lips", lips)):
        enhanced = avse_ppl.enhance(noisy, video, speech=arguments.speech)
        add_scores(name, enhanced.speech.samples)
        save_audio(arguments.output / f"{name.replace(' ', '_')}.wav", enhanced.speech)
    Console().print(table)


if __name__ == "__main__":
    main()
