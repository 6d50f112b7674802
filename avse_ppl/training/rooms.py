"""Room impulse responses by the image method, for speech that was recorded at a distance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve

from avse_ppl.utils.files import atomic_path

ROOMS = 400
_LENGTH_S = 0.5
_DECAY_S = (0.12, 0.6)  # reverberation time
_SIDES_M = ((3.0, 9.0), (2.5, 7.0), (2.3, 3.5))
_DISTANCE_M = (0.3, 2.5)
_MAX_ORDER = 20  # of reflections; later ones are weak at these decays


def draw_room_responses(count: int, sample_rate_hz: int, seed: int) -> np.ndarray:
    """Draw impulse responses of shoebox rooms, ``(room, sample)`` float32, peak first.

    Sides, reverberation time, place of the microphone and its distance to the talker are drawn
    uniformly; the delay of the direct sound is taken off, and its energy scaled to 1.

    Raises
    ------
    ImportError
        If pyroomacoustics is not installed.

    References
    ----------
    Allen and Berkley, "Image method for efficiently simulating small-room acoustics", JASA 1979.
    Scheibler, Bezzam and Dokmanic, "Pyroomacoustics", ICASSP 2018.
    """
    try:
        import pyroomacoustics
    except ImportError:
        raise ImportError(
            "room responses need an optional part: pip install 'avse-ppl[train]'"
        ) from None
    rng = np.random.default_rng(seed)
    length = round(_LENGTH_S * sample_rate_hz)
    found = np.zeros((count, length), np.float32)
    for row in found:
        sides = np.array([rng.uniform(*side) for side in _SIDES_M])
        decay_s = rng.uniform(*_DECAY_S)
        # Eyring's and Sabine's formulas have no answer for a short decay in a large room.
        shortest_s = 0.161 * sides.prod() / compute_surface(sides) / 0.9
        absorption, _ = pyroomacoustics.inverse_sabine(max(decay_s, shortest_s), sides)
        room = pyroomacoustics.ShoeBox(
            sides, fs=sample_rate_hz, max_order=_MAX_ORDER,
            materials=pyroomacoustics.Material(min(absorption, 0.95)),
        )  # fmt: skip
        microphone = np.array([rng.uniform(0.5, side - 0.5) for side in sides])
        direction = rng.standard_normal(3) * (1.0, 1.0, 0.3)
        direction /= np.linalg.norm(direction)
        talker = microphone + rng.uniform(*_DISTANCE_M) * direction
        talker = np.clip(talker, 0.3, sides - 0.3)
        room.add_source(talker)
        room.add_microphone(microphone)
        room.compute_rir()
        response = np.asarray(room.rir[0][0], np.float32)  # pyright: ignore  # set by now
        peak = int(np.abs(response).argmax())
        cut = response[peak : peak + length] / np.abs(response[peak])
        row[: len(cut)] = cut
    return found


def compute_surface(sides: np.ndarray) -> float:
    """Surface of a shoebox, square metres."""
    a, b, c = sides
    return float(2 * (a * b + b * c + a * c))


def load_room_responses(
    output: Path, sample_rate_hz: int, seed: int, count: int = ROOMS
) -> np.ndarray:
    """Load the responses that a training left among its checkpoints, or draw them and leave them.

    ``output`` is the folder of the training, the rest as for `draw_room_responses`.
    """
    path = output / "checkpoints" / "rooms.npy"
    if path.is_file():
        found = np.load(path, allow_pickle=False)
        if found.shape == (count, round(_LENGTH_S * sample_rate_hz)):
            return found
    found = draw_room_responses(count, sample_rate_hz, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, found)
    return found


def add_room(wave: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Filter a waveform ``(sample,)`` by an impulse response, of the same length and power.

    Examples
    --------
    >>> add_room(np.ones(8), np.array([1.0])).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    heard = fftconvolve(wave, response)[: len(wave)]
    power, before = float(np.mean(heard**2)), float(np.mean(wave**2))
    return (heard * np.sqrt(before / max(power, 1e-20))).astype(wave.dtype)
