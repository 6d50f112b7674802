"""The mouths of a corpus, beside its sound: one flat file of crops, read as an array."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avse_ppl.data.clips import Clip
from avse_ppl.data.flat import clip_columns, clips_of, read_index, write_pair

if TYPE_CHECKING:
    from avse_ppl.video import Lips

LIPS_HZ = 25.0
ROI_SIZE = 88
# What there is of each frame beside its crop: axes after the first, and type.
PER_FRAME: Mapping[str, tuple[tuple[int, ...], str]] = {
    "found": ((), "?"),
    "interpolated": ((), "?"),
    "score": ((), "<f4"),
    "keypoints": ((5, 2), "<f4"),
    "pose_deg": ((3,), "<f4"),
    "pose_confidence": ((), "<f4"),
    "blur": ((), "<f4"),
}
_FORMAT = 1


@dataclass(frozen=True)
class LipsCache:
    """Mouth crops of clips at 25 frames a second, one clip after another.

    Frame ``k`` of a clip shows the mouth ``k / 25`` s after sample 0 of its sound. A clip without
    video, or in which no face was found, has no frames.

    Parameters
    ----------
    frames : numpy.ndarray
        Crops of all clips, shape ``(frame, 88, 88)``, uint8, mapped from disk and read-only.
    offsets : numpy.ndarray
        Clip ``i`` is ``frames[offsets[i] : offsets[i + 1]]``; shape ``(clips + 1,)``.
    found, interpolated : numpy.ndarray
        Whether the face was seen in a frame, and whether it was placed between others; shape
        ``(frame,)``.
    score : numpy.ndarray
        Of the detector, shape ``(frame,)``.
    keypoints : numpy.ndarray
        Eyes, nose and mouth corners in pixels of the video, shape ``(frame, 5, 2)``.
    pose_deg : numpy.ndarray
        Yaw, pitch and roll, shape ``(frame, 3)``.
    pose_confidence : numpy.ndarray
        How far to believe the pose, shape ``(frame,)``.
    blur : numpy.ndarray
        Sharpness of the crop, shape ``(frame,)``.
    clips : tuple of Clip
        The clips, in the order of the `SpeechCache` beside it.
    """

    frames: np.ndarray
    offsets: np.ndarray
    found: np.ndarray
    interpolated: np.ndarray
    score: np.ndarray
    keypoints: np.ndarray
    pose_deg: np.ndarray
    pose_confidence: np.ndarray
    blur: np.ndarray
    clips: tuple[Clip, ...]

    def __len__(self) -> int:
        """Count the clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> Lips:
        """Get the mouth of one clip, 25 frames a second from sample 0 of its sound.

        Raises
        ------
        IndexError
            If there is no such clip.
        ValueError
            If the clip has no frames: ask `has_frames` first.
        """
        from avse_ppl.video import Lips

        index = range(len(self))[index]
        if not self.has_frames[index]:
            raise ValueError(
                f"{self.clips[index].path} has no mouth: it has no video, or no face was found; "
                "take only clips where has_frames is True"
            )
        span = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        columns = {name: getattr(self, name)[span] for name in PER_FRAME}
        time_s = np.arange(span.stop - span.start) / LIPS_HZ
        return Lips(roi=np.asarray(self.frames[span]), time_s=time_s, **columns)

    @property
    def has_frames(self) -> np.ndarray:
        """Tell which clips have frames; shape ``(clips,)``, bool."""
        return np.diff(self.offsets) > 0


def load_lips(path: str | Path) -> LipsCache:
    """Map the mouths that `prepare` stored in ``<path>.lips.npy`` and ``<path>.lips.npz``.

    Parameters
    ----------
    path : str or Path
        The path that was prepared, as `load_cache` takes it.

    Returns
    -------
    LipsCache
        With `frames` mapped, not read.

    Raises
    ------
    FileNotFoundError
        If one of the two files is missing.
    ValueError
        If they do not belong together or are of another format.
    """
    frames_path, index_path = lips_files(Path(path))
    for file in (frames_path, index_path):
        if not file.is_file():
            raise FileNotFoundError(
                f"no {file}; make it with: avse-ppl prepare CORPUS DIR -o {path}"
            )
    index = read_index(index_path, _FORMAT, PER_FRAME)
    if index is None:
        raise ValueError(
            f"{index_path} is not an index of mouths of format {_FORMAT}; delete it and prepare "
            "the corpus again"
        )
    frames = np.load(frames_path, mmap_mode="r")
    wanted = (int(index["offsets"][-1]), ROI_SIZE, ROI_SIZE)
    if frames.shape != wanted:
        raise ValueError(
            f"{frames_path} has the shape {frames.shape} but {index_path} describes {wanted}; "
            "delete both and prepare the corpus again"
        )
    columns = {name: index[name] for name in PER_FRAME}
    return LipsCache(frames, index["offsets"], clips=clips_of(index), **columns)


def write_lips(
    clips: Sequence[Clip],
    pieces: Iterable[Mapping[str, np.ndarray]],
    path: str | Path,
    checksum: str,
) -> LipsCache:
    """Store the mouths of clips.

    Parameters
    ----------
    clips : sequence of Clip
        Whose mouths they are.
    pieces : iterable of mapping
        For each clip ``roi`` and the arrays named in `PER_FRAME`; or `no_lips`.
    path : str or Path
        Where they go, without suffix.
    checksum : str
        Tells what they were made of.

    Returns
    -------
    LipsCache
        Mapped from disk.
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in PER_FRAME}

    def rois() -> Iterable[np.ndarray]:
        for piece in pieces:
            for name, column in columns.items():
                column.append(piece[name])
            yield piece["roi"]

    def index(offsets: np.ndarray) -> dict[str, np.ndarray]:
        flat = {name: np.concatenate(column) for name, column in columns.items()}
        head = {"format": np.array(_FORMAT), "checksum": np.array(checksum), "offsets": offsets}
        return {**head, **flat, **clip_columns(clips)}

    write_pair(lips_files(Path(path)), rois(), "|u1", index)
    return load_lips(path)


def stored_lips_checksum(path: str | Path) -> str | None:
    """Get the checksum of the mouths that are there; None for none."""
    frames_path, index_path = lips_files(Path(path))
    if not (frames_path.is_file() and index_path.is_file()):
        return None
    index = read_index(index_path, _FORMAT, PER_FRAME)
    return None if index is None else str(index["checksum"])


def no_lips() -> dict[str, np.ndarray]:
    """Make the piece of a clip without frames."""
    columns = {name: np.zeros((0, *axes), kind) for name, (axes, kind) in PER_FRAME.items()}
    return {"roi": np.zeros((0, ROI_SIZE, ROI_SIZE), np.uint8), **columns}


def lips_piece(lips: Lips) -> dict[str, np.ndarray]:
    """Take a `Lips` apart into the arrays that are stored."""
    columns = {
        name: np.asarray(getattr(lips, name), dtype=kind) for name, (_, kind) in PER_FRAME.items()
    }
    return {"roi": np.asarray(lips.roi, dtype=np.uint8), **columns}


def lips_files(path: Path) -> tuple[Path, Path]:
    """Name the two files: crops, and what describes them."""
    return path.with_name(path.name + ".lips.npy"), path.with_name(path.name + ".lips.npz")
