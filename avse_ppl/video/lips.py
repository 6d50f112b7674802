"""Mouth crops over time, with the outputs of the tracker."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from avse_ppl.video import crop_formats as crops
from avse_ppl.video.mouth_alignment import CROP_PX, compute_sharpness

_FROZEN_S = 0.5  # a video frame shown for longer says nothing about the mouth
_STEP_S = 0.04  # of one single frame


@dataclass(frozen=True, eq=False)
class Lips:
    """The mouth of one speaker, video frame by video frame.

    Parameters
    ----------
    roi
        ``(frame, 88, 88)`` uint8, grey crops around the mouth; zeros where no face was found.
    time_s
        ``(frame,)`` when each is shown, seconds since the first video frame of the video (where the
        sound that `load_audio` returns starts, too).
    found
        ``(frame,)`` whether a face was there: detected, tracked, or bridged over a short gap.
    interpolated
        ``(frame,)`` whether it was bridged: the crop is cut where the mouth should have been.
    score
        ``(frame,)`` of the detection, in [0, 1]; 0 where the face was not found, or bridged.
    keypoints
        ``(frame, 5, 2)`` eyes, nose tip and mouth corners, pixels of the video frame as shown
        (upright, square pixels); NaN where not found, and for ready-made crops.
    pose_deg
        ``(frame, 3)`` yaw, pitch and roll of the head, degrees: positive where the nose points to
        the right of the video frame, up, and where the head leans clockwise; NaN like `keypoints`.
    pose_confidence
        ``(frame,)`` in [0, 1], how well a rigid face explains the keypoints; 0 where there are none
        or they are bridged.
    blur
        ``(frame,)`` variance of the Laplacian of the crop, grey levels squared: small where it is
        blurred or far away, 0 where not found.
    name
        Of the file, for messages and figures.

    Raises
    ------
    ValueError
        If a shape is not as above, or the times do not grow.

    Examples
    --------
    >>> lips = Lips.from_crops(np.full((50, 96, 96), 90, dtype=np.uint8), rate_hz=25)
    >>> lips.roi.shape, lips.duration_s, bool(lips.found.all())
    ((50, 88, 88), 2.0, True)
    """

    roi: np.ndarray
    time_s: np.ndarray
    found: np.ndarray
    interpolated: np.ndarray
    score: np.ndarray
    keypoints: np.ndarray
    pose_deg: np.ndarray
    pose_confidence: np.ndarray
    blur: np.ndarray
    name: str = ""

    def __post_init__(self) -> None:
        """Bring every array to its one type, and check that they belong together."""
        n_frames = len(np.atleast_1d(self.time_s))
        for field, (dtype, shape) in _LAYOUT.items():
            array = np.asarray(getattr(self, field), dtype=dtype)
            if array.shape != (n_frames, *shape):
                raise ValueError(
                    f"expected {field} of shape {(n_frames, *shape)}, one row for each of the "
                    f"{n_frames} times, found {array.shape}"
                )
            object.__setattr__(self, field, array)
        if n_frames == 0 or not np.all(np.diff(self.time_s) > 0):
            raise ValueError(
                f"expected one or more times that grow, found {n_frames} that do not; "
                "sort the frames and leave out repeated ones"
            )

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.time_s)

    @property
    def step_s(self) -> float:
        """Typical time from one frame to the next, seconds."""
        return float(np.median(np.diff(self.time_s))) if len(self) > 1 else _STEP_S

    @property
    def duration_s(self) -> float:
        """When the last frame ends, seconds after the first video frame."""
        return float(self.time_s[-1]) + self.step_s

    @staticmethod
    def from_crops(array: np.ndarray, rate_hz: float) -> Lips:
        """Take ready-made mouth crops as they are.

        Parameters
        ----------
        array
            ``(frame, size, size)`` grey or ``(frame, size, size, 3)`` red, green, blue; uint8, or
            floats in [0, 1]. Of 96x96 the central 88x88 is taken, 67x67 is enlarged. Frames that
            are all zero count as not found.
        rate_hz
            Frames a second.

        Raises
        ------
        ValueError
            If the shape, the size or the values are others, or the rate is not in 1 to 240.

        Examples
        --------
        >>> Lips.from_crops(np.full((30, 67, 67, 3), 0.5), rate_hz=30).roi.max().item()
        128
        """
        if not 1.0 <= rate_hz <= 240.0:
            raise ValueError(f"expected 1 to 240 crops a second, found rate_hz={rate_hz}")
        roi = crops.convert_crops(np.asarray(array))
        found = np.asarray(roi.any(axis=(1, 2)))
        return Lips(
            roi=roi,
            time_s=np.arange(len(roi)) / rate_hz,
            found=found,
            interpolated=np.zeros(len(roi), dtype=bool),
            score=np.asarray(found, dtype=np.float32),
            keypoints=np.full((len(roi), 5, 2), np.nan),
            pose_deg=np.full((len(roi), 3), np.nan),
            pose_confidence=np.zeros(len(roi)),
            blur=np.array([compute_sharpness(crop) for crop in roi]),
        )

    def shifted(self, offset_s: float) -> Lips:
        """Return the same frames, each shown `offset_s` later.

        With the offset that `estimate_offset` returns, sound and video frames come together.

        Examples
        --------
        >>> lips = Lips.from_crops(np.full((50, 88, 88), 90, dtype=np.uint8), rate_hz=25)
        >>> lips.shifted(0.2).resample(25).found[:7].tolist()
        [False, False, False, False, False, True, True]
        """
        return replace(self, time_s=self.time_s + offset_s)

    def resample(self, rate_hz: float = 25.0, duration_s: float | None = None) -> Lips:
        """Return the frames at the times ``k / rate_hz``, by their time stamps.

        Crops are the nearest in time; of a video that is clearly slower than `rate_hz`, two are
        blended. Everything else is interpolated linearly.

        Parameters
        ----------
        rate_hz
            Frames a second.
        duration_s
            Length of the result, as a rule that of the sound; None for that of the video.
            Frames beyond the video, or half a second away from any of its own, are not found.

        Raises
        ------
        ValueError
            If the rate is not positive, or not even one frame is left.

        Examples
        --------
        >>> lips = Lips.from_crops(np.full((30, 88, 88), 90, dtype=np.uint8), rate_hz=30)
        >>> longer = lips.resample(25, duration_s=1.2)
        >>> len(longer), int(longer.found.sum())
        (30, 25)
        """
        if not (np.isfinite(rate_hz) and rate_hz > 0):
            raise ValueError(f"expected a positive number of frames a second, found {rate_hz}")
        n_frames = round((self.duration_s if duration_s is None else duration_s) * rate_hz)
        if n_frames < 1:
            raise ValueError(
                f"expected at least one frame at {rate_hz} Hz, found {self.duration_s:.3f} s of "
                f"video for duration_s={duration_s}; give a longer one"
            )
        return self._at(np.arange(n_frames) / rate_hz, 1.0 / rate_hz)

    def _at(self, time_s: np.ndarray, step_s: float) -> Lips:
        before, after, part = self._neighbours(time_s)
        nearest = np.where(part <= 0.5, before, after)
        away_s = np.abs(self.time_s[nearest] - time_s)
        inside = (time_s > self.time_s[0] - self.step_s / 2) & (time_s < self.duration_s - 1e-6)
        found = self.found[nearest] & inside & (away_s <= max(_FROZEN_S, self.step_s))
        part = np.where(self.found[before] & self.found[after], part, nearest == after)

        def blended(values: np.ndarray) -> np.ndarray:
            weight = part.reshape(-1, *[1] * (values.ndim - 1))
            mixed = np.where(weight == 0, values[before], values[after])
            both = (weight > 0) & (weight < 1)
            return np.where(both, (1 - weight) * values[before] + weight * values[after], mixed)

        slow = self.step_s > 1.5 * step_s
        roi = blended(self.roi).round() if slow else self.roi[nearest]
        return replace(
            self,
            roi=np.where(found[:, None, None], roi, 0),
            time_s=time_s,
            found=found,
            interpolated=found & (self.interpolated[nearest] | (away_s > max(step_s, self.step_s))),
            score=np.where(found, blended(self.score), 0.0),
            keypoints=np.where(found[:, None, None], blended(self.keypoints), np.nan),
            pose_deg=np.where(found[:, None], blended(self.pose_deg), np.nan),
            pose_confidence=np.where(found, blended(self.pose_confidence), 0.0),
            blur=np.where(found, blended(self.blur), 0.0),
        )

    def _neighbours(self, time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the frames before and after each time, and how far it is between them."""
        after = np.searchsorted(self.time_s, time_s + 1e-6).clip(0, len(self) - 1)
        before = np.where(self.time_s[after] > time_s + 1e-6, (after - 1).clip(0), after)
        before = np.where((before == after) & (self.time_s[after] > time_s), after, before)
        gap_s = self.time_s[after] - self.time_s[before]
        part = (time_s - self.time_s[before]) / np.where(gap_s > 0, gap_s, 1.0)
        return before, after, np.where(gap_s > 0, part, 0.0).clip(0.0, 1.0)


_LAYOUT = {
    "roi": (np.uint8, (CROP_PX, CROP_PX)),
    "time_s": (np.float64, ()),
    "found": (np.bool_, ()),
    "interpolated": (np.bool_, ()),
    "score": (np.float32, ()),
    "keypoints": (np.float32, (5, 2)),
    "pose_deg": (np.float32, (3,)),
    "pose_confidence": (np.float32, ()),
    "blur": (np.float32, ()),
}
