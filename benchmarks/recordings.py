"""Recordings that lack something: a cut band, long quiet stretches, an offset.

Ten development mixtures at -5 dB, default settings. Each is changed, enhanced, and compared with
the enhancement of the unchanged one, which is changed in the same way afterwards where a band was
cut: what is missing should cost nothing.
"""

from __future__ import annotations

import warnings

import numpy as np
import soxr
from common import SHARED, row
from scipy.signal import butter, fftconvolve, firwin, sosfiltfilt

import avse_ppl
from avse_ppl.data import make_dev_manifest, realise
from avse_ppl.evaluation.metrics import si_sdr
from avse_ppl.signal.audio import Audio
from avse_ppl.signal.speed import fit_length

RATE_HZ, COUNT, SNR_DB = 16000, 10, -5


def enhance(waves: list[np.ndarray]) -> list[np.ndarray]:
    """Enhanced by default, without a predictor."""
    batch = [Audio(wave, RATE_HZ) for wave in waves]
    results = avse_ppl.enhance_batch(batch, device="cpu", keep_posterior=False, predictor="none")
    return [result.speech.samples for result in results]


def cut(wave: np.ndarray, top_hz: float) -> np.ndarray:
    """Nothing above an edge: 90 dB down, over 300 Hz."""
    taps = firwin(801, top_hz - 150, fs=RATE_HZ, window=("kaiser", 9.0))  # pyright: ignore
    return fftconvolve(np.pad(wave, 400), taps, mode="valid").astype("float32")


def telephone(wave: np.ndarray) -> np.ndarray:
    """300 to 3400 Hz, 8 kHz, mu-law."""
    band = butter(6, [300, 3400], "bandpass", fs=RATE_HZ, output="sos")
    slow = soxr.resample(sosfiltfilt(band, wave), RATE_HZ, 8000)
    peak = np.abs(slow).max() / 0.9
    code = np.sign(slow) * np.log1p(255 * np.abs(slow / peak)) / np.log(256)
    code = np.round((code + 1) * 127.5) / 127.5 - 1
    slow = peak * np.sign(code) * np.expm1(np.abs(code) * np.log(256)) / 255
    fast = soxr.resample(slow, 8000, RATE_HZ)
    return fit_length(fast, len(wave)).astype("float32")


def narrow(wave: np.ndarray) -> np.ndarray:
    """What a telephone leaves, without its quantisation."""
    band = butter(8, [300, 3400], "bandpass", fs=RATE_HZ, output="sos")
    return sosfiltfilt(band, wave).astype("float32")


def main() -> list[str]:
    """Lines of the table."""
    warnings.simplefilter("ignore", UserWarning)
    entries = [e for e in make_dev_manifest(SHARED / "data") if e.snr_db == SNR_DB]
    entries = entries[:: len(entries) // COUNT][:COUNT]
    mixtures = [realise(entry, SHARED / "data") for entry in entries]
    clean, noisy = [m.speech for m in mixtures], [m.mixture for m in mixtures]
    full, random = enhance(noisy), np.random.default_rng(0)
    lines = [row("recording", "input", "unchanged", "changed"), row(*["---"] * 4)]

    def report(name: str, speech: list, given: list, unchanged: list, changed: list) -> None:
        means = [
            float(np.mean([si_sdr(s, e) for s, e in zip(speech, found, strict=True)]))
            for found in (given, unchanged, changed)
        ]
        lines.append(row(name, *(f"{mean:.2f}" for mean in means)))
        print(lines[-1], flush=True)

    report("as it is", clean, noisy, full, full)
    for top_hz in (4000, 5500, 6000, 7000, 7500):
        speech, mixture, unchanged = ([cut(w, top_hz) for w in x] for x in (clean, noisy, full))
        changed = [cut(wave, top_hz) for wave in enhance(mixture)]
        report(f"cut at {top_hz / 1e3:g} kHz", speech, mixture, unchanged, changed)
    given = [telephone(wave) for wave in noisy]
    speech, unchanged = ([narrow(w) for w in x] for x in (clean, full))
    changed = [narrow(wave) for wave in enhance(given)]
    report("telephone, mu-law", speech, [narrow(w) for w in given], unchanged, changed)
    for seconds, level_db in ((2, -40), (2, -60), (8, -60), (8, -200)):
        for where in ("before", "after"):
            gain = 10 ** (level_db / 20)
            hiss = [
                (gain * w.std() * random.normal(size=seconds * RATE_HZ)).astype("float32")
                for w in noisy
            ]
            pairs = zip(hiss, noisy, strict=True)
            longer = [np.concatenate((h, w) if where == "before" else (w, h)) for h, w in pairs]
            begin = len(hiss[0]) if where == "before" else 0
            found = [e[begin : begin + len(w)] for e, w in zip(enhance(longer), noisy, strict=True)]
            report(f"{seconds} s at {level_db} dB {where}", clean, noisy, full, found)
    for size in (1, 3):
        moved = [(w + size * w.std()).astype("float32") for w in noisy]
        report(f"offset of {size} RMS", clean, moved, full, enhance(moved))
    return lines


if __name__ == "__main__":
    print("\n".join(main()))
