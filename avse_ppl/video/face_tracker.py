"""Face tracking from video frame to video frame, each face with its identity.

Faces are detected on key frames, ten a second, in an upright chip around where they should be;
between them their keypoints follow the optical flow, and the drift that the next detection shows
is taken out evenly. What no detection confirms is not kept: `tracks.py` bridges short gaps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from avse_ppl.video.face_detector import Face, FaceDetector
from avse_ppl.video.frames import VideoFrame
from avse_ppl.video.mouth_alignment import cut_crop, estimate_crop_transform
from avse_ppl.video.optical_flow import measure_eye_distance, track_keypoints

_WORK_PX = 640  # longer side of the video frames that are searched
_KEY_S = 0.099  # between detections of a known face
_SEARCH_S = 0.99  # between searches for new faces
_LOST_S = 0.5  # a face not detected for so long is lost
_SEARCH_PX, _SEARCH_FAR_PX = 320, 640
_CHIP_PX = 160
_CHIP = np.array([[0.66, 0.0, 51.0], [0.0, 0.66, 73.0]])  # from the mouth crop: a whole face
_LOOK_PX = 24
_LOOK = np.array([[0.22, 0.0, 2.3], [0.0, 0.22, 8.0]])  # from the mouth crop: eyes to chin
# Correlation of two looks of one face: from one video frame to the next by the flow, at a detection
# that the flow leads to, at one that it does not, and at another place.
_NEXT, _LED, _BROKEN, _ELSEWHERE = 0.75, 0.5, 0.75, 0.8
_UPRIGHT = 0.7  # a lower score may be a face found the wrong way up
_BETTER = 0.1
_FACE_SIDE = 1.0  # eye distances within which two detections are the same face


@dataclass(eq=False)
class Track:
    """One face over time.

    Parameters
    ----------
    keypoints
        ``(5, 2)`` pixels of the source, by the index of the video frame.
    score
        Of the detection, by the index of the video frame.
    """

    keypoints: dict[int, np.ndarray] = field(default_factory=dict)
    score: dict[int, float] = field(default_factory=dict)
    now: np.ndarray = field(default_factory=lambda: np.zeros((5, 2)))
    look: np.ndarray = field(default_factory=lambda: np.zeros(_LOOK_PX**2))
    seen_s: float = 0.0
    loose: list[int] = field(default_factory=list)  # video frames since the last detection
    missed: bool = False
    broken: bool = False  # the flow lost it since the last detection

    def confirm(self, index: int, time_s: float, face: Face, look: np.ndarray) -> None:
        """Take a detection, and distribute the drift since the last one over the frames between."""
        drift = face.keypoints - self.now
        for step, loose in enumerate(self.loose, start=1):
            self.keypoints[loose] += drift * (step / (len(self.loose) + 1))
        self._keep(index, face.keypoints, face.score)
        self.look, self.seen_s, self.loose = look, time_s, []
        self.missed = self.broken = False

    def drift_on(self, index: int, keypoints: np.ndarray) -> None:
        """Follow the flow until the next detection."""
        self.now = keypoints
        if not self.missed:
            self._keep(index, keypoints, self.score[max(self.score)])
            self.loose.append(index)

    def miss(self) -> None:
        """Forget the video frames since the last detection, which was not confirmed."""
        for index in self.loose:
            del self.keypoints[index], self.score[index]
        self.loose, self.missed = [], True

    def _keep(self, index: int, keypoints: np.ndarray, score: float) -> None:
        self.now = keypoints.copy()
        self.keypoints[index], self.score[index] = keypoints.copy(), score


class Tracker:
    """Follows every face of a video; feed it the video frames in order.

    Parameters
    ----------
    detector
        What finds faces in one video frame.
    """

    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector
        self.tracks: list[Track] = []
        self._live: list[Track] = []
        self._previous: np.ndarray | None = None
        self._key_s = self._search_s = self._far_s = -np.inf

    def step(self, picture: VideoFrame) -> None:
        """Follow the faces into the next video frame, and look for new ones from time to time."""
        scale = min(1.0, _WORK_PX / max(picture.size_px))
        grey = picture.grey(scale)
        flowing = [self._flow(track, picture.index, grey, scale) for track in self._live]
        due = picture.time_s - self._key_s >= _KEY_S
        search_due = picture.time_s - self._search_s >= _SEARCH_S
        if due or search_due or not all(flowing):
            colour = picture.colour(scale)
            lost = [t for t in self._live if not self._redetect(t, picture, colour, scale)]
            self._key_s = picture.time_s
            if search_due or lost or not self._live:
                self._search(picture, colour, scale)
            self._live = [t for t in self._live if picture.time_s - t.seen_s <= _LOST_S]
            self._drop_duplicates()
        self._previous = grey

    def _flow(self, track: Track, index: int, grey: np.ndarray, scale: float) -> bool:
        moved, before = None, self._previous
        if before is not None and before.shape == grey.shape:
            moved = track_keypoints(before, grey, track.now * scale)
        if (
            before is None
            or moved is None
            or describe_face(before, track.now * scale) @ describe_face(grey, moved) < _NEXT
        ):
            track.loose, track.broken = [], True  # there is no telling drift from motion
            return False
        track.drift_on(index, moved / scale)
        return True

    def _redetect(
        self, track: Track, picture: VideoFrame, colour: np.ndarray, scale: float
    ) -> bool:
        """Detect a known face in an upright chip around where it should be."""
        if track.loose and track.loose[-1] == picture.index:
            track.loose.pop()  # the detection replaces it
        face = self._in_chip(colour, track.now * scale)
        if face is not None:
            look = describe_face(colour, face.keypoints)
            if look @ track.look > (_BROKEN if track.broken else _LED):
                track.confirm(picture.index, picture.time_s, face.scaled(1.0 / scale), look)
                return True
        track.keypoints.pop(picture.index, None)
        track.score.pop(picture.index, None)
        track.miss()
        return False

    def _in_chip(self, colour: np.ndarray, keypoints: np.ndarray) -> Face | None:
        """Detect the face that is expected at these keypoints, whatever way up it is."""
        chip_from = compose_transforms(_CHIP, estimate_crop_transform(keypoints))
        faces = self.detector(cut_crop(colour, chip_from, _CHIP_PX), _CHIP_PX)
        faces = [transform_face(face, invert_transform(chip_from)) for face in faces]
        near = [face for face in faces if measure_distance(face.keypoints, keypoints) < _FACE_SIDE]
        return min(near, key=lambda face: measure_distance(face.keypoints, keypoints), default=None)

    def _refine_face(self, colour: np.ndarray, face: Face) -> Face | None:
        """Look closer at a face that was found, and whether it is the other way up."""
        best = self._in_chip(colour, face.keypoints)
        if best is not None and best.score >= _UPRIGHT:
            return best
        for turns in (1, 2, 3):
            turned = self._in_chip(colour, rotate_keypoints(face.keypoints, turns))
            if turned and turned.score > (best.score + _BETTER if best else _UPRIGHT):
                best = turned
        return best

    def _search(self, picture: VideoFrame, colour: np.ndarray, scale: float) -> None:
        """Look for faces that are not followed, in the whole video frame."""
        faces = self.detector(colour, _SEARCH_PX)
        if not faces and not self._live and picture.time_s - self._far_s >= _LOST_S:
            faces = self._search_far(colour)
            self._far_s = picture.time_s
        self._search_s = picture.time_s
        for rough in faces:
            face = self._refine_face(colour, rough)
            if face is None:
                continue
            look, face = describe_face(colour, face.keypoints), face.scaled(1.0 / scale)
            taken = [
                track
                for track in self._live
                if not track.missed and measure_distance(face.keypoints, track.now) < _FACE_SIDE
            ]
            if not taken:
                track = self._match_track(face, look, picture.time_s) or self._start_track(look)
                track.loose = []
                track.confirm(picture.index, picture.time_s, face, look)

    def _search_far(self, colour: np.ndarray) -> list[Face]:
        """Look for small faces, then for lying and upside-down ones."""
        faces = self.detector(colour, _SEARCH_FAR_PX)
        for turns in (2, 1, 3):
            if not faces:
                turned = np.ascontiguousarray(np.rot90(colour, turns))
                back = undo_rotation(turns, colour.shape[1], colour.shape[0])
                faces = [transform_face(face, back) for face in self.detector(turned, _SEARCH_PX)]
        return faces

    def _match_track(self, face: Face, look: np.ndarray, time_s: float) -> Track | None:
        """Find the track that a new face continues: it is alike, and near or very much alike."""
        best, alike = None, _BROKEN
        for track in self.tracks:
            if track in self._live and not track.missed:
                continue
            near = time_s - track.seen_s < 2 * _LOST_S
            near = near and measure_distance(face.keypoints, track.now) < 2 * _FACE_SIDE
            if track.look @ look > (alike if near else max(alike, _ELSEWHERE)):
                best, alike = track, float(track.look @ look)
        if best is not None and best not in self._live:
            self._live.append(best)
        return best

    def _start_track(self, look: np.ndarray) -> Track:
        track = Track(look=look)
        self.tracks.append(track)
        self._live.append(track)
        return track

    def _drop_duplicates(self) -> None:
        """Drop the younger of two tracks that have come to follow one face."""
        kept: list[Track] = []
        for track in sorted(self._live, key=lambda track: (track.missed, self.tracks.index(track))):
            if all(measure_distance(track.now, other.now) > _FACE_SIDE / 2 for other in kept):
                kept.append(track)
        self._live = kept


def measure_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance of the keypoints of two faces, in eye distances."""
    size = max(measure_eye_distance(one), measure_eye_distance(other), 1e-6)
    return float(np.linalg.norm(one - other, axis=1).mean() / size)


def compose_transforms(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Transform by the first, then by the second."""
    turn = second[:, :2]
    return np.column_stack([turn @ first[:, :2], turn @ first[:, 2] + second[:, 2]])


def invert_transform(transform: np.ndarray) -> np.ndarray:
    """Invert a ``(2, 3)`` similarity transform."""
    back = np.linalg.inv(transform[:, :2])
    return np.column_stack([back, -back @ transform[:, 2]])


def undo_rotation(turns: int, width: int, height: int) -> np.ndarray:
    """Return what undoes `np.rot90` for pixels of a video frame of this size."""
    return np.array(
        {
            1: [[0.0, -1.0, width - 1.0], [1.0, 0.0, 0.0]],
            2: [[-1.0, 0.0, width - 1.0], [0.0, -1.0, height - 1.0]],
            3: [[0.0, 1.0, 0.0], [-1.0, 0.0, height - 1.0]],
        }[turns]
    )


def transform_face(face: Face, transform: np.ndarray) -> Face:
    """Transform the keypoints of a face."""
    return Face(face.score, face.keypoints @ transform[:, :2].T + transform[:, 2])


def rotate_keypoints(keypoints: np.ndarray, turns: int) -> np.ndarray:
    """Keypoints of a face at the same place, turned by quarters."""
    middle = keypoints.mean(axis=0)
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    return (keypoints - middle) @ np.linalg.matrix_power(quarter, turns) + middle


def describe_face(picture: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Appearance of a face: a small grey chip, centred and of unit length."""
    chip = cut_crop(
        picture, compose_transforms(_LOOK, estimate_crop_transform(keypoints)), _LOOK_PX
    )
    values = chip.reshape(_LOOK_PX**2, -1).mean(axis=1)
    values = values - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)
