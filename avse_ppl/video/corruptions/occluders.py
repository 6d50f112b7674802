"""Occluders: shapes and surfaces of what covers a mouth, drawn or cut out of crops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from avse_ppl.video.mouth_alignment import CROP_PX

CANVAS_PX = 2 * CROP_PX  # shapes are drawn once on this, crop in the middle, and then moved
_MARGIN = (CANVAS_PX - CROP_PX) // 2


def _grid(size_px: int, margin_px: int) -> np.ndarray:
    steps = np.arange(size_px, dtype=np.float32) + np.float32(0.5 - margin_px)
    return np.stack(np.meshgrid(steps, steps), axis=-1)


_WIDE, _GRID = _grid(CANVAS_PX, _MARGIN), _grid(CROP_PX, 0)
_EDGE_PX = 1.2  # over which an edge fades
_CENTRE = CROP_PX / 2

Shape = Callable[[np.ndarray, float], np.ndarray]
"""From the place ``(2,)`` (across, down, pixels) and the size in pixels to cover, (176, 176)."""


def soft(inside_px: np.ndarray) -> np.ndarray:
    """Cover in [0, 1] from the distance inside an edge, pixels."""
    return np.clip(inside_px / _EDGE_PX + 0.5, 0.0, 1.0).astype(np.float32)


def rotate_points(place: np.ndarray, angle: float) -> np.ndarray:
    """Rotate points about the middle of the canvas."""
    away = _WIDE - np.float32(place)
    cos, sin = np.cos(angle), np.sin(angle)
    return away @ np.array([[cos, -sin], [sin, cos]], np.float32)


def move_cover(cover: np.ndarray, step_px: np.ndarray) -> np.ndarray:
    """Crop ``(88, 88)`` of a cover ``(176, 176)`` that has moved by ``(2,)`` across and down."""
    import cv2

    matrix = np.array([[1, 0, step_px[0] - _MARGIN], [0, 1, step_px[1] - _MARGIN]], np.float64)
    return cv2.warpAffine(cover, matrix, (CROP_PX, CROP_PX))


def hand(rng: np.random.Generator) -> Shape:
    """A palm with three to five fingers."""
    angle, count = rng.uniform(0, 2 * np.pi), int(rng.integers(3, 6))
    lengths, spread = rng.uniform(0.9, 1.5, count), rng.uniform(0.3, 0.9)
    squeeze = rng.uniform(0.7, 1.0)

    def cover(place: np.ndarray, size: float) -> np.ndarray:
        across = rotate_points(place, angle)
        inside = size * (1 - np.hypot(across[..., 0] / size, across[..., 1] / (squeeze * size)))
        for turn, length in zip(np.linspace(-spread, spread, count), lengths, strict=True):
            tip = np.float32(length * size * 1.3) * np.array(
                [np.cos(turn), np.sin(turn)], np.float32
            )
            along = np.clip(across @ tip / (tip @ tip), 0, 1)
            left, right = (across[..., k] - along * tip[k] for k in (0, 1))
            finger = 0.22 * size - np.hypot(left, right)
            inside = np.maximum(inside, finger)
        return soft(inside)

    return cover


def box(rng: np.random.Generator) -> Shape:
    """A rectangle at any angle."""
    angle, ratio = rng.uniform(0, np.pi), rng.uniform(0.6, 1.6)

    def cover(place: np.ndarray, size: float) -> np.ndarray:
        away = np.abs(rotate_points(place, angle))
        sides = np.array([size * np.sqrt(ratio), size / np.sqrt(ratio)]) * 0.9
        return soft((sides - away).min(axis=-1))

    return cover


def blob(rng: np.random.Generator) -> Shape:
    """A round thing with a wavy outline."""
    phases, heights = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0, 0.15, 4)

    def cover(place: np.ndarray, size: float) -> np.ndarray:
        away = _WIDE - np.float32(place)
        angle = np.arctan2(away[..., 1], away[..., 0])
        waves = sum(
            h * np.cos(k * angle + p)
            for k, (h, p) in enumerate(zip(heights, phases, strict=True), 1)
        )
        return soft(size * (1 + waves) - np.hypot(away[..., 0], away[..., 1]))

    return cover


def bar(rng: np.random.Generator) -> Shape:
    """A band from one side of the crop to the other."""
    angle = rng.uniform(0, np.pi)

    def cover(place: np.ndarray, size: float) -> np.ndarray:
        return soft(0.8 * size - np.abs(rotate_points(place, angle)[..., 1]))

    return cover


def microphone(rng: np.random.Generator) -> Shape:
    """A ball on a stick that comes from below."""
    lean = rng.uniform(-0.5, 0.5)

    def cover(place: np.ndarray, size: float) -> np.ndarray:
        away = rotate_points(place, lean)
        ball = size - np.hypot(away[..., 0], away[..., 1])
        stick = np.minimum(0.35 * size - np.abs(away[..., 0]), away[..., 1])
        return soft(np.maximum(ball, stick))

    return cover


def polygon(rng: np.random.Generator) -> Shape:
    """Three to six straight edges."""
    count = int(rng.integers(3, 7))
    angles = np.sort(rng.uniform(0, 2 * np.pi / count, count) * 0.6) + np.arange(count) * (
        2 * np.pi / count
    )
    reach = rng.uniform(0.7, 1.1, count)

    def cover(place: np.ndarray, size: float) -> np.ndarray:
        away = _WIDE - np.float32(place)
        edges = np.stack([np.cos(angles), np.sin(angles)])
        return soft((size * reach - away @ edges).min(axis=-1))

    return cover


def scarf(rng: np.random.Generator) -> Shape:
    """Everything below a wavy line."""
    phase, slope, height = rng.uniform(0, 2 * np.pi), rng.uniform(-0.2, 0.2), rng.uniform(1, 5)

    def cover(place: np.ndarray, size: float) -> np.ndarray:
        across = _WIDE[..., 0] - _CENTRE
        top = CROP_PX - 1.3 * size + (place[1] - _CENTRE) * 0.5
        line = top + slope * across + height * np.sin(across / 9 + phase)
        return soft(_WIDE[..., 1] - line)

    return cover


def skin(rng: np.random.Generator, crop: np.ndarray) -> np.ndarray:
    """A surface as light as this face, shaded and rough, ``(88, 88)``."""
    cheeks = np.median(np.concatenate([crop[8:30, :14], crop[8:30, -14:]], axis=1))
    tone = float(cheeks) * rng.uniform(0.75, 1.2)
    return tone * (1 + rng.uniform(0.05, 0.25) * _shade(rng)) + _grain(rng, 2.5, 6.0)


def flat(rng: np.random.Generator, crop: np.ndarray) -> np.ndarray:
    """One grey level."""
    return np.full((CROP_PX, CROP_PX), rng.uniform(0, 255))


def cut(rng: np.random.Generator, crop: np.ndarray) -> np.ndarray:
    """A piece of another crop, enlarged, turned over and lit otherwise."""
    import cv2

    side = int(rng.integers(30, 70))
    top, left = rng.integers(0, CROP_PX - side, 2)
    piece = np.rot90(crop[top : top + side, left : left + side], int(rng.integers(1, 4)))
    piece = np.ascontiguousarray(piece[:, :: int(rng.choice([-1, 1]))])
    large = cv2.resize(piece, (CROP_PX, CROP_PX), interpolation=cv2.INTER_LINEAR)
    return large * rng.uniform(0.6, 1.4) + rng.uniform(-20, 20)


def rough(rng: np.random.Generator, crop: np.ndarray) -> np.ndarray:
    """Drawn texture: rough at two scales, shaded."""
    tone = rng.uniform(20, 230)
    return tone + 15 * _shade(rng) + _grain(rng, 1.0, 10.0) + _grain(rng, 5.0, 20.0)


def foam(rng: np.random.Generator, crop: np.ndarray) -> np.ndarray:
    """Dark and speckled, as the foam of a microphone."""
    return rng.uniform(15, 70) + 8 * _shade(rng) + _grain(rng, 0.6, 9.0)


def stripes(rng: np.random.Generator, crop: np.ndarray) -> np.ndarray:
    """Printed stripes, as on a cup or a book."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 20)
    wave = np.sin(2 * np.pi * (_GRID @ [np.cos(angle), np.sin(angle)]) / period)
    return rng.uniform(60, 190) + rng.uniform(20, 60) * np.sign(wave) + 10 * _shade(rng)


def woven(rng: np.random.Generator, crop: np.ndarray) -> np.ndarray:
    """Cloth: fine threads both ways, in large folds."""
    period = rng.uniform(3, 6)
    threads = np.sin(2 * np.pi * _GRID / period).sum(axis=-1)
    return rng.uniform(30, 220) + 8 * threads + _grain(rng, 8.0, 25.0)


def _shade(rng: np.random.Generator) -> np.ndarray:
    """Light from one side, -1 to 1."""
    angle = rng.uniform(0, 2 * np.pi)
    return (_GRID - _CENTRE) @ [np.cos(angle), np.sin(angle)] / (_CENTRE * np.sqrt(2))


def _grain(rng: np.random.Generator, scale_px: float, level: float) -> np.ndarray:
    """Smooth noise with so many grey levels of standard deviation."""
    import cv2

    noise = cv2.GaussianBlur(rng.standard_normal((CROP_PX, CROP_PX)), (0, 0), scale_px)
    return noise * (level / max(float(noise.std()), 1e-6))
