"""Toy corpora to train on: something like speech, and white noise, decoded into caches."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from avse_ppl.data import Clip, build_cache

RATE_HZ = 8000


def synthesise_voice(rng, seconds: float, level: float = 0.1) -> np.ndarray:
    """Harmonics under a slow envelope: something like speech, and never silent for long."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    pitch_hz = rng.uniform(100, 200)
    tone = sum(np.sin(2 * np.pi * k * pitch_hz * t + rng.uniform(0, 6)) / k for k in range(1, 12))
    envelope = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * t + rng.uniform(0, 6))
    return (level * tone * envelope + 1e-3 * rng.normal(size=t.size)).astype(np.float32)


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("caches"), np.random.default_rng(0)

    def clip(kind, i, samples):
        split = "dev" if i % 4 == 3 else "train"
        path = folder / f"{kind}{i}.wav"
        soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")
        label = "" if kind == "speech" else "hiss"
        return Clip(path, "made_up", f"{kind}{i}" if kind == "speech" else "", split, label)

    speech = [
        clip("speech", i, synthesise_voice(rng, 0.3 + 0.1 * (i % 3), 10.0 ** -(i % 3)))
        for i in range(16)
    ]
    noise = [clip("noise", i, 0.05 * rng.normal(size=RATE_HZ)) for i in range(8)]
    return (
        build_cache(speech, folder / "speech", RATE_HZ),
        build_cache(noise, folder / "noise", RATE_HZ),
    )


@pytest.fixture(scope="session")
def speech(caches):
    return caches[0]


@pytest.fixture(scope="session")
def noise(caches):
    return caches[1]
