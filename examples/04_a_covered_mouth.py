"""What becomes of the lips when a hand goes over the mouth, and what the posterior says of it.

The sentence of ``03_seeing_the_speaker.py`` in the noise of a running tap. From 1 to 2 s a hand
covers the mouth, drawn onto the crops as ``avse-ppl corrupt-video --kind hand`` draws it onto a
video. The prior is asked by ear, with the lips as they were, and with the covered ones: believed
blindly, and under the switch that the sound has a say in. ``out/covered.png`` shows what is left of
the lips, frame by frame, under the credible band.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import avse_ppl
from avse_ppl.audio import Audio, load_audio, save_audio
from avse_ppl.corpora import highpass, mix
from avse_ppl.corruptions import corrupt
from avse_ppl.metrics import evaluate
from avse_ppl.plots import plot_enhancement
from avse_ppl.reliability import score_lips
from avse_ppl.video import read_lips

DATA = Path(__file__).parent / "data"
COVERED = (25, 50)  # pictures, at 25 a second


def main() -> None:
    """Mix, cover, enhance, and say how far the lips were believed."""
    parser = argparse.ArgumentParser(description="Enhance speech whose video is partly covered.")
    parser.add_argument("--snr-db", type=float, default=-5.0)
    parser.add_argument("--kind", default="hand", help="see avse-ppl corrupt-video --help")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    meant = highpass(load_audio(DATA / "mouth.mkv").mono().samples, 16000)
    tap = load_audio(DATA / "running_tap.flac").samples
    mixture = mix(meant, tap, arguments.snr_db)
    noisy = Audio(mixture.mixture, mixture.sample_rate_hz)
    lips = read_lips(DATA / "mouth.mkv")
    covered = corrupt(lips, arguments.kind, span=COVERED, seed=1).lips

    table = Table(title=f"a {arguments.kind} over the mouth from 1 to 2 s, {arguments.snr_db:g} dB")
    for heading in ("", "SI-SDR, dB", "ESTOI", "score, 1 to 2 s", "lips counted, 1 to 2 s"):
        table.add_column(heading, justify="right" if heading else "left")

    def report(name: str, estimate: np.ndarray, *figures: float) -> None:
        scores = evaluate(mixture.speech, estimate, mixture.sample_rate_hz)
        estoi = "n/a" if scores.estoi is None else f"{scores.estoi:.3f}"
        table.add_row(name, f"{scores.si_sdr_db:.2f}", estoi, *(f"{x:.2f}" for x in figures))

    report("input", mixture.mixture)
    report("by ear", avse_ppl.enhance(noisy, speech="av-dkf").speech.samples)
    for name, video, reliability in (
        ("lips, uncovered", lips, "markov"),
        ("lips, covered, believed blindly", covered, "always"),
        ("lips, covered", covered, "markov"),
    ):
        enhanced = avse_ppl.enhance(noisy, video, reliability=reliability)
        posterior = enhanced.posterior
        if posterior is None or posterior.reliability is None:
            raise RuntimeError("expected a posterior that says how far the lips counted")
        score = score_lips(video).score[slice(*COVERED)].mean()
        frames = posterior.stft.frames(noisy.n_samples).time_s.numpy()
        inside = (frames > 1.0) & (frames < 2.0)
        report(name, enhanced.speech.samples, score, posterior.reliability[0, inside].mean())
    plot_enhancement(posterior, arguments.output / "covered.png")
    save_audio(arguments.output / "covered.wav", enhanced.speech)
    Console().print(table)
    Console().print(f"{arguments.output / 'covered.png'} shows the last of them")


if __name__ == "__main__":
    main()
