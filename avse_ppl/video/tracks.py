"""Face tracks: one row for each video frame, short gaps interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avse_ppl.video.face_tracker import Track
from avse_ppl.video.mouth_alignment import find_runs, smooth_trajectories
from avse_ppl.video.optical_flow import measure_eye_distance

_BRIDGE_S = 0.6  # from one frame with the face to the next
_NOISE_S = 0.04  # the detector's keypoints are averaged over about three frames
_BRIEF = 0.2  # of the video frames of the longest track: less is a false detection


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """Track of a face over the whole video.

    Parameters
    ----------
    keypoints
        ``(frame, 5, 2)`` pixels, NaN where it was not found.
    score
        ``(frame,)`` of the detection, 0 where it was not found or bridged.
    bridged
        ``(frame,)`` whether the keypoints are interpolated over a gap.
    """

    keypoints: np.ndarray
    score: np.ndarray
    bridged: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """``(frame,)`` whether it was there."""
        return np.asarray(np.isfinite(self.keypoints).all(axis=(1, 2)))

    @property
    def size_px(self) -> float:
        """Typical eye distance."""
        return float(
            np.median([measure_eye_distance(points) for points in self.keypoints[self.found]])
        )


def build_face_tracks(tracks: Sequence[Track], time_s: np.ndarray) -> list[FaceTrack]:
    """Face tracks of a video from left to right, without those that are very short.

    Parameters
    ----------
    tracks
        Of the tracker.
    time_s
        ``(frame,)`` of each video frame, seconds.

    Examples
    --------
    >>> track = Track(keypoints={0: np.eye(5, 2), 2: np.eye(5, 2)}, score={0: 0.8, 2: 0.7})
    >>> build_face_tracks([track], np.array([0.0, 0.04, 0.08]))[0].bridged.tolist()
    [False, True, False]
    """
    longest = max((len(track.keypoints) for track in tracks), default=0)
    lasting = [track for track in tracks if len(track.keypoints) >= max(_BRIEF * longest, 1)]
    faces = []
    for track in lasting:
        keypoints = np.full((len(time_s), 5, 2), np.nan)
        score = np.zeros(len(time_s), np.float32)
        rows = sorted(track.keypoints)
        keypoints[rows] = [track.keypoints[row] for row in rows]
        score[rows] = [track.score[row] for row in rows]
        bridged = bridge_gaps(keypoints, time_s)
        smooth = smooth_trajectories(keypoints, time_s, _NOISE_S)
        faces.append(FaceTrack(smooth, score, bridged))
    return sorted(faces, key=lambda face: float(np.nanmean(face.keypoints[..., 0])))


def bridge_gaps(keypoints: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    """Interpolate over short gaps, in place; returns ``(frame,)`` where."""
    bridged = np.zeros(len(time_s), dtype=bool)
    for start, stop in find_runs(np.isnan(keypoints[:, 0, 0])):
        if start == 0 or stop == len(time_s) or time_s[stop] - time_s[start - 1] > _BRIDGE_S:
            continue
        part = (time_s[start:stop] - time_s[start - 1]) / (time_s[stop] - time_s[start - 1])
        step = keypoints[stop] - keypoints[start - 1]
        keypoints[start:stop] = keypoints[start - 1] + part[:, None, None] * step
        bridged[start:stop] = True
    return bridged
