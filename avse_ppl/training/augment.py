"""Data augmentation: waveforms, mouth crops of a batch, and tracked lips."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.signal import resample
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

from avse_ppl.video.lips import Lips
from avse_ppl.video.mouth_alignment import CROP_PX, compute_sharpness

# --- Waveforms ------------------------------------------------------------------------------------

_EDGE = 64  # samples cut off after resampling: it joins the two ends of a crop


def change_speed(wave: np.ndarray, samples: int) -> np.ndarray:
    """Speed perturbation: resample to ``samples``, so that tempo, pitch and formants move together.

    ``wave`` holds as many samples as `compute_source_length` says, of which the edges are lost.

    Examples
    --------
    >>> change_speed(np.ones(compute_source_length(1000, 1.1)), 1000).shape
    (1000,)
    """
    if len(wave) == samples:
        return wave
    faster = resample(wave, round_to_fast_length(samples + 2 * _EDGE))
    return faster[_EDGE : _EDGE + samples].astype(wave.dtype)


def compute_source_length(samples: int, speed: float) -> int:
    """Length that `change_speed` takes for so many samples at a speed, or at one very near to it.

    Examples
    --------
    >>> compute_source_length(1000, 1.0)
    1000
    """
    if speed == 1.0:
        return samples
    return round_to_fast_length(round(speed * round_to_fast_length(samples + 2 * _EDGE)))


def round_to_fast_length(samples: int) -> int:
    """Next length whose Fourier transform is fast."""
    return int(next_fast_len(samples, real=True))  # type: ignore[arg-type]  # scipy's has no types


def randomise_phases(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stationary Gaussian-like noise with the spectrum of a recording (a phase surrogate).

    Examples
    --------
    >>> wave = np.random.default_rng(0).normal(size=512)
    >>> other = randomise_phases(wave, np.random.default_rng(1))
    >>> bool(np.allclose(np.abs(np.fft.rfft(other)), np.abs(np.fft.rfft(wave))))
    True
    """
    spectrum = np.fft.rfft(wave)
    phases = rng.uniform(0.0, 2 * np.pi, len(spectrum))
    phases[[0, -1]] = 0.0  # these two bins are real
    return np.fft.irfft(spectrum * np.exp(1j * phases), len(wave)).astype(wave.dtype)


def equalise(wave: np.ndarray, rng: np.random.Generator, sd_db: float = 5.0) -> np.ndarray:
    """Random equaliser: a gain that is smooth over log frequency, as of another microphone or room.

    Examples
    --------
    >>> equalise(np.ones(512), np.random.default_rng(0)).shape
    (512,)
    """
    spectrum = np.fft.rfft(wave)
    octave = np.log2(np.arange(1, len(spectrum) + 1))
    knots = np.linspace(0.0, octave[-1], 7)
    gain_db = np.interp(octave, knots, sd_db * rng.standard_normal(len(knots)))
    return np.fft.irfft(spectrum * 10 ** (gain_db / 20), len(wave)).astype(wave.dtype)


def scale_to_unit_power(wave: np.ndarray) -> np.ndarray:
    """Scale a waveform to a mean square of 1; silence stays silence.

    Examples
    --------
    >>> scale_to_unit_power(np.array([2.0, -2.0])).tolist()
    [1.0, -1.0]
    """
    return wave / np.float32(np.sqrt(max(float(np.mean(wave**2)), 1e-12)))


def join_bands(
    low: np.ndarray, high: np.ndarray, rate_hz: int, rng: np.random.Generator
) -> np.ndarray:
    """Low frequencies of one waveform and the high ones of another, with a crossover at random.

    Examples
    --------
    >>> low = join_bands(np.ones(512), np.zeros(512), 16000, np.random.default_rng(0))
    >>> bool(np.allclose(low, 1.0, atol=0.01))
    True
    """
    freq_hz = np.maximum(np.fft.rfftfreq(len(low), 1.0 / rate_hz), 1.0)
    octaves = np.log2(freq_hz / 2 ** rng.uniform(8.0, 12.0))  # 256 to 4096 Hz
    share = 1.0 / (1.0 + np.exp(-np.clip(8.0 * octaves, -50.0, 50.0)))
    spectrum = np.fft.rfft(low) * (1.0 - share) + np.fft.rfft(high) * share
    return np.fft.irfft(spectrum, len(low)).astype(low.dtype)


def shuffle_grains(wave: np.ndarray, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a waveform into overlapping grains of 40 to 400 ms, and join them in another order.

    Examples
    --------
    >>> bool(np.allclose(shuffle_grains(np.ones(16000), 16000, np.random.default_rng(0)), 1.0))
    True
    """
    hop = int(0.02 * 10 ** rng.uniform(0.0, 1.0) * rate_hz)
    grains = -(-len(wave) // hop)
    around = np.resize(wave, (grains + 1) * hop)
    rising = np.sin(0.5 * np.pi * (np.arange(hop) + 0.5) / hop) ** 2
    begins = rng.permutation(grains) * hop
    joined = [
        rising * around[a : a + hop] + (1.0 - rising) * around[b + hop : b + 2 * hop]
        for a, b in zip(begins, np.roll(begins, 1), strict=True)
    ]
    return np.concatenate(joined)[: len(wave)].astype(wave.dtype)


# --- Mouth crops of a batch -----------------------------------------------------------------------


def augment_crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random affine map, blur, light, texture and occlusion of mouth crops, one draw a clip.

    Parameters
    ----------
    images
        ``(clip, video_frame, height, width)``, normalised.
    generator
        Of the draws, on the CPU.

    Examples
    --------
    >>> augment_crops(torch.zeros(2, 5, 44, 44), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 5, 44, 44])
    """
    clips, (height, width) = len(images), images.shape[-2:]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(clips, *shape, generator=generator)
        return (low + (high - low) * drawn).to(images.device)

    # Affine map: rotation, mirror, shift, shear, and a scale each in width and height.
    angle = uniform(-1.0, 1.0) * math.radians(10)
    across, down = uniform(0.75, 1.3), uniform(0.75, 1.3)
    mirror = torch.where(uniform(0.0, 1.0) < 0.5, -1.0, 1.0)
    shear = uniform(-0.15, 0.15)
    rows = (
        torch.stack(
            (mirror * across * angle.cos(), shear - down * angle.sin(), uniform(-0.15, 0.15)), -1
        ),
        torch.stack((mirror * across * angle.sin(), down * angle.cos(), uniform(-0.15, 0.15)), -1),
    )
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    mapped = grid_sample(images, grid, padding_mode="border", align_corners=False)

    # Blur, of three clips in ten.
    mapped = torch.where(uniform(0.0, 1.0, 1, 1, 1) < 0.3, avg_pool2d(mapped, 3, 1, 1), mapped)

    # Light: gamma, gain, offset and grain.
    curved = mapped.sign() * mapped.abs().clamp(min=1e-4) ** uniform(0.7, 1.4, 1, 1, 1)
    gain, offset = uniform(0.6, 1.5, 1, 1, 1), uniform(-0.8, 0.8, 1, 1, 1)
    grain = torch.randn(images.shape, generator=generator).to(images.device)
    lit = curved * gain + offset + uniform(0.0, 0.15, 1, 1, 1) * grain

    # Texture: a smooth pattern that stays for the clip, as of other skin or another beard.
    coarse = torch.randn(clips, 1, 6, 6, generator=generator).to(images.device)
    smooth = interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    lit = lit + uniform(0.0, 0.8, 1, 1, 1) * smooth

    # Occlusion: in a quarter of the clips, a flat patch over a part of all frames.
    y = torch.arange(height, device=images.device)[:, None] / height
    x = torch.arange(width, device=images.device) / width
    top, left = uniform(-0.2, 0.9, 1, 1), uniform(-0.2, 0.9, 1, 1)
    tall, wide = uniform(0.1, 0.4, 1, 1), uniform(0.1, 0.4, 1, 1)
    patch = (y > top) & (y < top + tall) & (x > left) & (x < left + wide)
    chosen = uniform(0.0, 1.0, 1, 1) < 0.25
    return torch.where((patch & chosen)[:, None], uniform(-2.0, 2.0, 1, 1, 1), lit)


# --- Tracked lips ---------------------------------------------------------------------------------

_TURN_DEG, _SCALE, _SHIFT_PX = 7.0, 0.1, 5.0
_CONTRAST, _LEVEL, _GRAIN = (0.55, 1.4), (-30.0, 30.0), 4.0
_GRAIN_FRAMES = 40
_WITHOUT_TRACKER = 0.3  # share of the clips without a tracker's output
_RETIMED = 0.15  # share of the clips that were brought from another rate
_TRACKED = ("roi", "found", "interpolated", "score", "pose_deg", "pose_confidence", "blur")


def augment_lips(lips: Lips, rng: np.random.Generator) -> Lips:
    """Mirror, turn, scale, shift and relight a clip; its reliability stays as it is.

    All frames of a clip are augmented alike. A third of the clips lose the output of the tracker,
    as ready-made crops do; some repeat or leave out a frame now and then, as videos of another rate
    do.

    Examples
    --------
    >>> lips = Lips.from_crops(np.full((30, 88, 88), 90, dtype=np.uint8), rate_hz=25)
    >>> augment_lips(lips, np.random.default_rng(0)).roi.shape
    (30, 88, 88)
    """
    if rng.random() < _RETIMED:
        # Repeat (or skip) a frame in twenty or so; the clip keeps its length and its time.
        pace = 1.0 + rng.uniform(-0.06, 0.06)
        steps = np.arange(len(lips))
        index = np.rint(np.floor(steps * pace + rng.random()) / pace).astype(int)
        index = index.clip(0, len(lips) - 1)
        lips = replace(lips, **{name: getattr(lips, name)[index] for name in _TRACKED})
    mirrored = bool(rng.random() < 0.5)
    roi = relight_crops(transform_crops(lips.roi, mirrored, rng), rng)
    roi[~lips.found] = 0
    pose = lips.pose_deg * (np.array([-1.0, 1.0, -1.0]) if mirrored else 1.0)
    blur = np.where(lips.found, [compute_sharpness(crop) for crop in roi], 0.0)
    augmented = replace(lips, roi=roi, pose_deg=pose, blur=blur)
    if rng.random() >= _WITHOUT_TRACKER:
        return augmented
    # As `Lips.from_crops` would describe the crops; the truth of the pose stays in the crops.
    return replace(
        augmented,
        score=augmented.found.astype(np.float32),
        interpolated=np.zeros(len(augmented), bool),
        pose_deg=np.full((len(augmented), 3), np.nan),
        pose_confidence=np.zeros(len(augmented)),
    )


def transform_crops(roi: np.ndarray, mirrored: bool, rng: np.random.Generator) -> np.ndarray:
    """Random rotation, scale and shift of crops ``(frame, 88, 88)``, mirrored if asked for."""
    import cv2

    centre = (CROP_PX / 2 - 0.5,) * 2
    matrix = cv2.getRotationMatrix2D(
        centre, rng.uniform(-_TURN_DEG, _TURN_DEG), 1.0 + rng.uniform(-_SCALE, _SCALE)
    )
    matrix[:, 2] += rng.uniform(-_SHIFT_PX, _SHIFT_PX, 2)
    if mirrored:
        matrix = matrix @ np.array([[-1, 0, CROP_PX - 1], [0, 1, 0], [0, 0, 1.0]])
    size, border = (CROP_PX, CROP_PX), cv2.BORDER_REPLICATE
    return np.stack([cv2.warpAffine(crop, matrix, size, borderMode=border) for crop in roi])


def relight_crops(roi: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random blur, contrast, brightness and grain of crops ``(frame, 88, 88)``."""
    import cv2

    if rng.random() < 0.3:
        sigma = rng.uniform(0.3, 1.3)
        roi = np.stack([cv2.GaussianBlur(crop, (0, 0), sigma) for crop in roi])
    mean = float(roi[:: max(len(roi) // 8, 1)].mean())
    table = (np.arange(256) - mean) * rng.uniform(*_CONTRAST) + mean * rng.uniform(0.6, 1.3)
    table = np.clip(np.rint(table + rng.uniform(*_LEVEL)), 1, 255).astype(np.uint8)
    lit = cv2.LUT(roi, table)
    if rng.random() >= 0.4:
        return lit
    # The same few frames of noise, from an offset and with a standard deviation drawn anew.
    frames = draw_grain()
    begin = int(rng.integers(len(frames)))
    grain = np.float32(rng.uniform(0, _GRAIN)) * np.roll(frames, -begin, axis=0)
    return np.clip(lit + np.resize(grain, lit.shape), 1, 255).astype(np.uint8)


@functools.cache
def draw_grain() -> np.ndarray:
    """White noise of the size of a crop, some frames of it, drawn once."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((_GRAIN_FRAMES, CROP_PX, CROP_PX), dtype=np.float32)
