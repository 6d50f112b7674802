"""From a video to mouth crops: track the faces, choose one, align, cut out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from avse_ppl.signal.media import Readable
from avse_ppl.video.crop_formats import SIZES_PX
from avse_ppl.video.face_choice import FaceChoice, check_face_choice, choose_face, find_candidates
from avse_ppl.video.face_detector import FaceDetector, find_face_model, load_detector
from avse_ppl.video.face_tracker import Tracker
from avse_ppl.video.frames import count_video_frames, read_video_frames
from avse_ppl.video.frontalisation import cut_frontal_crop
from avse_ppl.video.head_pose import estimate_poses
from avse_ppl.video.lips import Lips
from avse_ppl.video.mouth_alignment import (
    CROP_PX,
    compute_sharpness,
    cut_crop,
    estimate_crop_transform,
    smooth_trajectories,
)
from avse_ppl.video.tracks import FaceTrack, build_face_tracks

_STILL = 0.35  # grey levels from one crop to the next


def read_lips(
    source: Readable,
    *,
    face_model: str | os.PathLike[str] | FaceDetector | None = None,
    face: FaceChoice = "auto",
    frontalise: bool = False,
    track: int | None = None,
    audio_track: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Lips:
    """Read the mouth of the speaker out of a video.

    Parameters
    ----------
    source
        A path, or the bytes of an encoded file; any container that FFmpeg reads. Pictures of
        67x67, 88x88 or 96x96 are taken for ready-made mouth crops.
    face_model
        SCRFD weights (an ONNX file, or a folder with one), or a detector that `load_detector`
        returned. None looks at the environment variable ``AVSE_PPL_FACE_MODEL``, then into
        insightface's own folder.
    face
        Which one of several: its number from the left (from 0), ``"largest"``, or ``"auto"``, the
        one whose mouth moves with the sound.
    frontalise
        Whether to show turned faces from the front, as far as five keypoints tell.
    track
        Which video track of several, from 0; None: the one that is flagged as the default, else
        the first, with a warning that lists them.
    audio_track
        Which audio track the mouths are compared with, likewise.
    progress
        Called with the number of video frames tracked so far, and of all as far as the file says.

    Returns
    -------
    Lips
        At the rate of the video; `Lips.resample` brings it to 25 frames a second.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If the path cannot be opened, or the weights of the detector are missing.
    ModuleNotFoundError
        If insightface is not installed.
    TypeError, ValueError
        If the file is empty, damaged or holds no video frames, no face is found in it, or `face` is
        none of these.

    Warns
    -----
    UserWarning
        If the face is lost for a while, one of several faces is chosen automatically, video frames
        are damaged, or nothing moves.

    Examples
    --------
    >>> lips = read_lips("speech.mkv", face_model="det_500m.onnx")  # doctest: +SKIP
    >>> lips.resample(25.0).roi.shape  # doctest: +SKIP
    (75, 88, 88)
    """
    check_face_choice(face)
    name = "" if isinstance(source, (bytes, bytearray, memoryview)) else Path(source).name
    first = next(read_video_frames(source, track=track, quiet=True))
    if first.size_px in [(size, size) for size in SIZES_PX]:
        return warn_of_gaps(_ready_made(source, track, name))
    detector = face_model if callable(face_model) else load_detector(find_face_model(face_model))
    tracks, time_s = track_faces(source, detector, progress, name, track=track)
    numbers = find_candidates(tracks, face, name)
    cut = _cut(source, [tracks[number] for number in numbers], time_s, frontalise, name, track)
    if len(cut) == 1:
        return warn_of_gaps(cut[0])
    return warn_of_gaps(choose_face(dict(zip(numbers, cut, strict=True)), source, audio_track))


def _ready_made(source: Readable, track: int | None, name: str) -> Lips:
    read = [(picture.grey(), picture.time_s) for picture in read_video_frames(source, track=track)]
    lips = Lips.from_crops(np.stack([grey for grey, _ in read]), rate_hz=25.0)
    return replace(lips, time_s=[time_s for _, time_s in read], name=name)


def track_faces(
    source: Readable,
    detector: FaceDetector,
    progress: Callable[[int, int], None] | None,
    name: str,
    *,
    track: int | None = None,
) -> tuple[list[FaceTrack], np.ndarray]:
    """Track all faces of a video; returns their tracks and the times of the video frames."""
    tracker, times, total = Tracker(detector), [], count_video_frames(source, track=track)
    for picture in read_video_frames(source, track=track):
        tracker.step(picture)
        times.append(picture.time_s)
        if progress is not None:
            progress(len(times), max(total, len(times)))
    time_s = np.array(times)
    tracks = build_face_tracks(tracker.tracks, time_s)
    if not tracks:
        raise ValueError(
            f"expected the face of the speaker in {name or 'the video'}, found no face in any of "
            f"its {len(times)} pictures; is it large (eyes 10 pixels apart or more), lit, and "
            "seen from the front? Without one, enhance the sound alone"
        )
    return tracks, time_s


def _cut(
    source: Readable,
    tracks: Sequence[FaceTrack],
    time_s: np.ndarray,
    frontalise: bool,
    name: str,
    video_track: int | None,
) -> list[Lips]:
    """Cut the mouths of some faces out of a video, which is read a second time."""
    poses = [estimate_poses(track.keypoints, time_s) for track in tracks]
    steady = [smooth_trajectories(track.keypoints, time_s) for track in tracks]
    rois = [np.zeros((len(time_s), CROP_PX, CROP_PX), np.uint8) for _ in tracks]
    for picture in read_video_frames(source, track=video_track, quiet=True):
        grey, row = picture.grey(), picture.index
        for roi, points, pose, track in zip(rois, steady, poses, tracks, strict=True):
            if not track.found[row]:
                continue
            if frontalise:
                roi[row] = cut_frontal_crop(grey, points[row], pose.parameters[row])
            else:
                roi[row] = cut_crop(grey, estimate_crop_transform(points[row]))
    return [
        Lips(
            roi=roi,
            time_s=time_s,
            found=track.found,
            interpolated=track.bridged,
            score=track.score,
            keypoints=track.keypoints,
            pose_deg=pose.degrees,
            pose_confidence=np.where(track.bridged, 0.0, pose.confidence),
            blur=np.array([compute_sharpness(crop) for crop in roi]),
            name=name,
        )
        for roi, pose, track in zip(rois, poses, tracks, strict=True)
    ]


def warn_of_gaps(lips: Lips) -> Lips:
    """Say what the user should know about a video, and return it."""
    name, lost = lips.name or "the video", int((~lips.found).sum())
    if lost:
        first_s = lips.time_s[np.argmin(lips.found)]
        warnings.warn(
            f"the face was lost in {lost} of the {len(lips)} pictures of {name}, first at "
            f"{first_s:.2f} s; there the video tells nothing",
            UserWarning,
            stacklevel=3,
        )
    moves = np.abs(np.diff(lips.roi.astype(np.int16), axis=0)).mean() if len(lips) > 1 else 0.0
    if moves < _STILL:
        warnings.warn(
            f"nothing moves in {name}: it is a still image, which tells nothing about the speech",
            UserWarning,
            stacklevel=3,
        )
    return lips
