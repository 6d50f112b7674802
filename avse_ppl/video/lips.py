"""Mouth crops over time, with everything that the tracker knows about them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

_CROP_SIZES_PX = (67, 88, 96)


@dataclass(frozen=True, eq=False)
class Lips:
    """The mouth of one speaker, picture by picture.

    Parameters
    ----------
    roi
        ``(frame, 88, 88)`` uint8, grey crops around the mouth; zeros where no face was found.
    time_s
        ``(frame,)`` when each is shown, seconds since the first picture of the video (where the
        sound that `load_audio` returns starts, too).
    found
        ``(frame,)`` whether a face was there: detected, tracked, or bridged over a short gap.
    interpolated
        ``(frame,)`` whether it was bridged: the crop is cut where the mouth should have been.
    score
        ``(frame,)`` of the detection, in [0, 1]; 0 where the face was not found or bridged.
    keypoints
        ``(frame, 5, 2)`` eyes, nose tip and corners of the mouth, pixels of the picture as shown
        (upright, square pixels); NaN where not found.
    pose_deg
        ``(frame, 3)`` yaw, pitch and roll of the head, degrees; NaN where not found.
    pose_confidence
        ``(frame,)`` in [0, 1], how well a rigid face explains the keypoints.
    blur
        ``(frame,)`` variance of the Laplacian of the crop, grey levels squared: small where it is
        blurred or far away, 0 where not found.
    name
        Of the file, for messages and pictures.
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

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.time_s)

    def resample(self, rate_hz: float = 25.0, duration_s: float | None = None) -> Lips:
        """Return the frames at times ``k / rate_hz``, each the nearest in time."""
        end_s = self._end_s if duration_s is None else duration_s
        time_s = np.arange(max(round(end_s * rate_hz), 0)) / rate_hz
        nearest, inside = self._nearest(time_s)
        return self._picked(nearest, inside, time_s)

    @property
    def _step_s(self) -> float:
        """Typical time from one frame to the next."""
        return float(np.median(np.diff(self.time_s))) if len(self) > 1 else 0.04

    @property
    def _end_s(self) -> float:
        return float(self.time_s[-1]) + self._step_s if len(self) else 0.0

    def _nearest(self, time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        after = np.searchsorted(self.time_s, time_s).clip(1, max(len(self) - 1, 1))
        earlier = (
            time_s - self.time_s[after - 1] <= self.time_s[after.clip(max=len(self) - 1)] - time_s
        )
        nearest = np.where(earlier, after - 1, after).clip(0, len(self) - 1)
        inside = (time_s >= self.time_s[0] - self._step_s) & (time_s < self._end_s)
        return nearest, inside

    def _picked(self, rows: np.ndarray, inside: np.ndarray, time_s: np.ndarray) -> Lips:
        found = self.found[rows] & inside
        return replace(
            self,
            roi=np.where(found[:, None, None], self.roi[rows], 0).astype(np.uint8),
            time_s=time_s,
            found=found,
            interpolated=self.interpolated[rows] & found,
            score=np.where(found, self.score[rows], 0).astype(np.float32),
            keypoints=np.where(found[:, None, None], self.keypoints[rows], np.nan),
            pose_deg=np.where(found[:, None], self.pose_deg[rows], np.nan),
            pose_confidence=np.where(found, self.pose_confidence[rows], 0).astype(np.float32),
            blur=np.where(found, self.blur[rows], 0).astype(np.float32),
        )
