"""Make the recordings that the suitability model is fitted and judged on, from folders of audio.

Ordinary ones are one talker in noise, or alone. The others are what the models do not describe: two
talkers at once, speech played backwards, music, no speech, clipping. There is no corpus of music
among the data: chords and melodies are synthesised, so that real music is further from them than
the other classes are from what they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from avse_ppl.signal.audio import load_audio

RATE_HZ, SECONDS = 16_000, 3.0
N_SAMPLES = int(RATE_HZ * SECONDS)
CLASSES = ("ordinary", "two talkers", "reversed speech", "music", "no speech", "clipped")
CLEAN = "no noise"  # detail of an ordinary recording
AUDIO = (".opus", ".ogg", ".flac", ".wav", ".mkv")
DEV_NOISES = ("rain", "clock_tick", "stove-fan", "cutlery", "water-flowing", "running_tap")
# Noises of `noisex` that are dev there, and those that are speech themselves.
NOT_NOISE = ("factory2", "m109", "ISTS", "icra5")


@dataclass(frozen=True)
class Example:
    """One recording: its class, a finer label, its sound, and the speech to find (or None)."""

    label: str
    detail: str
    mixture: np.ndarray
    clean: np.ndarray | None


@dataclass(frozen=True)
class Sources:
    """Files of speech, grouped by talker, and of noise, grouped by class."""

    talkers: dict[str, list[Path]]
    noises: dict[str, list[Path]]


def list_sources(data: Path, part: str) -> Sources:
    """Files of one part: "train", "dev", or "nemo" (other speakers, same noises as dev)."""
    talkers: dict[str, list[Path]] = {}
    if part == "train":
        talkers["grid_s1"] = list_audio(data / "grid_s1")[:-100]
        talkers["picovoice"] = list_audio(data / "picovoice" / "commands")  # over 50, unlabelled
    elif part == "dev":
        for path in list_audio(data / "grid_unseen"):
            talkers[path.stem] = [path]
    else:
        for path in list_audio(data / "nemo_dev"):
            talkers.setdefault(path.stem[:3], []).append(path)
    if part in ("train", "dev"):
        for folder in sorted((data / "speechocean762").iterdir()):
            if folder.is_dir() and folder.name.endswith("7") == (part == "dev"):
                talkers[folder.name] = list_audio(folder)
    noises: dict[str, list[Path]] = {}
    for path in list_audio(data / "noise"):
        inner = path.relative_to(data / "noise").parts
        name = path.stem if inner[0] in ("noisex", "speech_commands") else inner[-2]
        if (name in DEV_NOISES) == (part != "train") and not name.startswith(NOT_NOISE):
            noises.setdefault(name, []).append(path)
    return Sources(talkers, noises)


def list_audio(folder: Path) -> list[Path]:
    """All audio files below a folder, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix in AUDIO and p.is_file())


@lru_cache(maxsize=256)
def read_wave(path: Path) -> np.ndarray:
    """First channel of a file, ``(sample,)``, at 16 kHz."""
    audio = load_audio(path)
    if audio.sample_rate_hz != RATE_HZ:
        audio = audio.resample(RATE_HZ)
    return np.atleast_2d(audio.samples)[0].astype(np.float64)


def pick(rng: np.random.Generator, items: Sequence[Any]) -> Any:
    """One of the items, at random."""
    return items[int(rng.integers(len(items)))]


def draw_speech(rng: np.random.Generator, files: Sequence[Path]) -> np.ndarray:
    """Three seconds of speech of unit power while active; short clips stay as long as they are."""
    for _ in range(20):
        wave = read_wave(pick(rng, files))
        begin = int(rng.integers(max(1, len(wave) - N_SAMPLES)))
        part = wave[begin : begin + N_SAMPLES]
        frames = part[: len(part) // 400 * 400].reshape(-1, 400)
        power = np.square(frames).mean(1)
        active = power > 1e-3 * power.max()
        if len(part) > 0.4 * N_SAMPLES and active.mean() > 0.4 and power.max() > 1e-8:
            return part / np.sqrt(power[active].mean())
    raise ValueError(f"found no speech in {files[0].parent}")


def draw_noise(rng: np.random.Generator, sources: Sources, n: int) -> tuple[np.ndarray, str]:
    """Noise of unit power ``(n,)`` and its class; every class is as likely."""
    for _ in range(20):
        name = pick(rng, sorted(sources.noises))
        wave = read_wave(pick(rng, sources.noises[name]))
        wave = np.tile(wave, -(-n // len(wave)))
        begin = int(rng.integers(len(wave) - n + 1))
        part = wave[begin : begin + n]
        if np.square(part).mean() > 1e-9:
            return part / np.sqrt(np.square(part).mean()), name
    raise ValueError("found no noise that is not silent")


def draw_white(rng: np.random.Generator, n: int) -> np.ndarray:
    """White noise of unit power, in half of the cases with a tilt of up to 9 dB an octave."""
    spectrum = np.fft.rfft(rng.normal(size=n))
    if rng.random() < 0.5:
        freq = np.maximum(np.fft.rfftfreq(n, 1 / RATE_HZ), 50.0)
        spectrum *= freq ** -rng.uniform(0.0, 1.5)
    wave = np.fft.irfft(spectrum, n)
    return wave / wave.std()


def synthesise_music(rng: np.random.Generator, n: int = N_SAMPLES) -> np.ndarray:
    """Music of up to three voices: chords, bass and melody with harmonics and envelopes."""
    time = np.arange(n) / RATE_HZ
    beat = 60 / rng.uniform(70, 170)
    root = rng.uniform(40, 55)
    scale = np.array(pick(rng, [(0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9)]))
    wave = np.zeros(n)
    voices = [v for v in ("chords", "bass", "melody") if rng.random() < 0.7] or ["chords"]
    for voice in voices:
        length = beat * {"chords": pick(rng, (2, 4)), "bass": 1}.get(voice, pick(rng, (0.5, 1)))
        decay, rise = rng.uniform(0.5, 6.0), 10 ** rng.uniform(-2.5, -0.8)
        tilt, count = rng.uniform(0.7, 2.2), int(rng.integers(3, 16))
        odd, vibrato = rng.random() < 0.3, rng.uniform(0, 0.006) * (voice == "melody")
        sustained = rng.random() < 0.4
        degree, level = int(rng.integers(len(scale))), rng.uniform(0.4, 1.0)
        for begin in np.arange(0, time[-1], length):
            if voice == "melody":
                degree += int(rng.integers(-2, 3))
                if rng.random() < 0.1:
                    continue
            else:
                degree = int(rng.integers(len(scale)))
            steps = (0, 2, 4) if voice == "chords" else (0,)
            at = time - begin
            fade = np.clip((length * 1.2 - at) / 0.05, 0, 1)
            envelope = np.where(at >= 0, 1 - np.exp(-np.maximum(at, 0) / rise), 0) * fade
            if not sustained:
                envelope = envelope * np.exp(-decay * np.maximum(at, 0))
            for step in steps:
                octave, index = divmod(degree + step, len(scale))
                shift = {"bass": 0, "chords": 12, "melody": 24}[voice]
                pitch = 440 * 2 ** ((root + shift + 12 * octave + scale[index] - 69) / 12)
                phase = 2 * np.pi * pitch * at
                phase = phase + vibrato * pitch / 5.5 * np.sin(2 * np.pi * 5.5 * at)
                for k in range(1, count + 1, 2 if odd else 1):
                    if k * pitch < 7500:
                        offset = rng.uniform(0, 2 * np.pi)
                        wave += level * envelope * k**-tilt * np.sin(k * phase + offset)
    if rng.random() < 0.5:  # drums: bursts of noise on the beat
        for begin in np.arange(0, time[-1], beat):
            at = np.maximum(time - begin, 0)
            burst = (time >= begin) * np.exp(-at / rng.uniform(0.02, 0.08))
            wave += rng.uniform(0.1, 0.6) * wave.std() * burst * rng.normal(size=n)
    return wave / wave.std()


def make_example(rng: np.random.Generator, sources: Sources, label: str, index: int) -> Example:
    """One recording of a class; see the module's docstring."""
    names = sorted(sources.talkers)
    # A third of the training speech is one GRID talker's, and a third from each other corpus.
    talker = names[index % len(names)]
    if "picovoice" in names:
        corpora = [["grid_s1"], ["picovoice"], [name for name in names if name.isdigit()]]
        talker = pick(rng, corpora[index % 3])
    clean = draw_speech(rng, sources.talkers[talker])
    n, detail = len(clean), ""
    if label == "ordinary":
        mixture, detail = clean, CLEAN
        if index // 3 % 3:  # of each corpus a third has no noise
            noise, _ = draw_noise(rng, sources, n)
            snr_db = rng.uniform(-8, 20)
            mixture, detail = clean + 10 ** (-snr_db / 20) * noise, f"{snr_db:.0f} dB"
        if rng.random() < 0.1:  # a few clipped samples are ordinary
            limit = np.quantile(np.abs(mixture), 1 - 10 ** rng.uniform(-4, -2.3))
            mixture = np.clip(mixture, -limit, limit)
    elif label == "two talkers":
        others = [name for name in names if name != talker or name == "picovoice"]
        other = draw_speech(rng, sources.talkers[pick(rng, others)])
        n = min(n, len(other))
        clean, level_db = clean[:n], rng.uniform(-3, 3)
        mixture, detail = clean + 10 ** (level_db / 20) * other[:n], f"{level_db:.0f} dB"
    elif label == "reversed speech":
        clean = mixture = clean[::-1].copy()
    elif label == "music":
        mixture, clean = synthesise_music(rng), None
    elif label == "no speech":
        clean = None
        white = index % 3 == 0
        detail = "white noise" if white else "recorded noise"
        mixture = draw_white(rng, N_SAMPLES) if white else draw_noise(rng, sources, N_SAMPLES)[0]
    else:
        noise, _ = draw_noise(rng, sources, n)
        mixture = clean + 10 ** (-rng.uniform(0, 30) / 20) * noise
        share = rng.uniform(0.06, 0.4)
        limit = np.quantile(np.abs(mixture), 1 - share)
        mixture, detail = np.clip(mixture, -limit, limit), f"{share:.0%}"
    if label in ("two talkers", "reversed speech", "music") and index % 2:
        noise, _ = draw_noise(rng, sources, len(mixture))
        mixture = mixture + 10 ** (-rng.uniform(10, 30) / 20) * noise
    level = 10 ** rng.uniform(-1.3, -0.05) / np.abs(mixture).max()
    mixture = (level * mixture).astype(np.float32)
    return Example(label, detail, mixture, None if clean is None else level * clean)


def make_examples(data: Path, part: str, count: int, seed: int) -> Iterator[Example]:
    """``count`` recordings of each class, ordinary ones twice as many; each has its own seed."""
    sources = list_sources(data, part)
    for number, label in enumerate(CLASSES):
        for index in range(count if number else 2 * count):
            key = (seed, ("train", "dev", "nemo").index(part), number, index)
            yield make_example(np.random.default_rng(key), sources, label, index)
