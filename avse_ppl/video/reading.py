"""From a video to mouth crops: track the faces, choose one, align, cut out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from avse_ppl._media import Readable
from avse_ppl.video.alignment import CROP_PX, crop_transform, cut_out, runs, sharpness, smooth
from avse_ppl.video.detector import FaceDetector, find_face_model, load_detector
from avse_ppl.video.lips import Lips
from avse_ppl.video.pictures import picture_count, pictures
from avse_ppl.video.tracking import Track, Tracker

_BRIDGE_S = 0.5


def read_lips(
    source: Readable,
    *,
    face_model: str | os.PathLike[str] | FaceDetector | None = None,
    face: int | Literal["largest", "auto"] = "auto",
    frontalise: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Lips:
    """Read the mouth of the speaker out of a video."""
    detector = face_model if callable(face_model) else load_detector(find_face_model(face_model))
    tracker, time_s, total = Tracker(detector), [], picture_count(source)
    for picture in pictures(source):
        tracker.step(picture)
        time_s.append(picture.time_s)
        if progress is not None:
            progress(len(time_s), max(total, len(time_s)))
    times = np.array(time_s)
    track = max(tracker.tracks, key=lambda track: len(track.keypoints))
    keypoints, score, bridged = _filled(track, times)
    found = np.isfinite(keypoints[:, 0, 0])
    keypoints = smooth(keypoints, times, 0.04)
    crops = _crops(source, smooth(keypoints, times), times)
    return Lips(
        roi=crops,
        time_s=times,
        found=found,
        interpolated=bridged,
        score=score,
        keypoints=keypoints.astype(np.float32),
        pose_deg=np.full((len(times), 3), np.nan, np.float32),
        pose_confidence=np.zeros(len(times), np.float32),
        blur=np.array([sharpness(crop) for crop in crops], np.float32),
        name="" if isinstance(source, (bytes, bytearray, memoryview)) else Path(source).name,
    )


def _filled(track: Track, time_s: np.ndarray):
    keypoints = np.full((len(time_s), 5, 2), np.nan)
    score = np.zeros(len(time_s), np.float32)
    rows = sorted(track.keypoints)
    keypoints[rows] = [track.keypoints[row] for row in rows]
    score[rows] = [track.score[row] for row in rows]
    bridged = np.zeros(len(time_s), bool)
    for start, stop in runs(np.isnan(keypoints[:, 0, 0])):
        if start == 0 or stop == len(time_s):
            continue
        if time_s[stop] - time_s[start - 1] > _BRIDGE_S + 0.1:
            continue
        part = (time_s[start:stop] - time_s[start - 1]) / (time_s[stop] - time_s[start - 1])
        step = keypoints[stop] - keypoints[start - 1]
        keypoints[start:stop] = keypoints[start - 1] + part[:, None, None] * step
        bridged[start:stop] = True
    return keypoints, score, bridged


def _crops(source: Readable, keypoints: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    crops = np.zeros((len(time_s), CROP_PX, CROP_PX), np.uint8)
    for picture in pictures(source, quiet=True):
        points = keypoints[picture.index]
        if np.isfinite(points).all():
            crops[picture.index] = cut_out(picture.grey(), crop_transform(points))
    return crops
