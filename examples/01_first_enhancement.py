"""Enhancement of a real recording in real noise, with its posterior.

Run it with ``make demo``. It mixes a bundled GRID sentence (CC BY 4.0) with a bundled recording of
rain (CC BY 3.0) at 0 dB, enhances it with the shipped recurrent prior, scores input and output
against the clean sentence, and writes ``out/enhanced.wav``, ``out/posterior.nc``,
``out/enhancement.png`` and ``out/report.html``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

import avse_ppl
from avse_ppl.data import highpass, mix
from avse_ppl.evaluation.metrics import evaluate_pair
from avse_ppl.plotting import plot_posterior
from avse_ppl.report import write_report
from avse_ppl.signal.audio import Audio, load_audio, save_audio

DATA = Path(__file__).parent / "data"


def main() -> None:
    """Mix, enhance, score, save."""
    parser = argparse.ArgumentParser(description="Enhance a bundled recording.")
    parser.add_argument("--noise", default="rain", help="rain, clock_tick or running_tap")
    parser.add_argument("--snr-db", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path("out"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    console = Console()

    sentence = load_audio(DATA / "speech.flac")
    noise = load_audio(DATA / f"{arguments.noise}.flac")
    speech = highpass(sentence.samples, sentence.sample_rate_hz)  # GRID rumbles below 70 Hz
    mixture = mix(speech, noise.samples, arguments.snr_db, seed=arguments.seed)
    noisy = Audio(mixture.mixture, mixture.sample_rate_hz)

    enhanced = avse_ppl.enhance(noisy, seed=arguments.seed)
    posterior = enhanced.posterior
    if posterior is None:
        raise SystemExit("the recording is silent: nothing to enhance")
    scores = evaluate_pair(
        Audio(mixture.speech, mixture.sample_rate_hz), noisy, enhanced.speech
    )  # fmt: skip

    save_audio(arguments.output / "noisy.wav", noisy)
    save_audio(arguments.output / "enhanced.wav", enhanced.speech)
    posterior.save(arguments.output / "posterior.nc")
    plot_posterior(posterior, arguments.output / "enhancement.png")
    write_report(posterior, arguments.output / "report.html", title=f"speech in {arguments.noise}")

    table = Table(title=f'"bin red by K seven now", {arguments.noise} at {arguments.snr_db:g} dB')
    for heading in ("", "SI-SDR, dB", "PESQ wide-band", "ESTOI"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, score in scores.items():
        pesq = "n/a" if score.pesq_wb is None else f"{score.pesq_wb:.2f}"
        estoi = "n/a" if score.estoi is None else f"{score.estoi:.3f}"
        table.add_row(name, f"{score.si_sdr_db:.2f}", pesq, estoi)
    console.print(table)
    cost = enhanced.cost
    console.print(
        f"cost: {cost['wall_s']:.2f} s for {noisy.duration_s:.2f} s of audio "
        f"(real-time factor {cost['real_time_factor']:.2f}), {cost['cpu_s']:.2f} CPU-seconds"
    )
    console.print(f"posterior: {posterior.kind}, {posterior.draws().shape[0]} draws")
    for name in ("enhanced.wav", "noisy.wav", "posterior.nc", "enhancement.png", "report.html"):
        console.print(f"wrote {arguments.output / name}")


if __name__ == "__main__":
    main()
