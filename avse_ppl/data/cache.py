"""Caches of a corpus: decoded audio and mouth crops in flat arrays, which training reads mapped.

A cache is two files: ``<path>.npy`` holds the arrays of all clips one after another, ``<path>.npz``
is its index: where each clip begins, what the clips are, and a checksum of what it was made of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avse_ppl.data.array_files import map_array, read_npz, write_array
from avse_ppl.data.clips import Clip
from avse_ppl.data.decoding import decode
from avse_ppl.utils.files import atomic_path, lock_folder

if TYPE_CHECKING:
    from avse_ppl.video import Lips

LIPS_HZ = 25.0
ROI_SIZE = 88
# What there is of each video frame beside its crop: axes after the first, and type.
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
_SPEECH_COLUMNS = ("sample_rate_hz",)
_CLIP_COLUMNS = ("paths", "corpora", "speakers", "splits", "labels")
_OPTIONAL_PATHS = ("video", "roi", "noisy")


# --- Audio ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpeechCache:
    """Decoded audio of clips, one after another.

    Parameters
    ----------
    samples : numpy.ndarray
        All clips, flat, shape ``(samples,)``, float16, mapped from disk and read-only. Float16
        keeps 66 dB or more between a sample and its rounding error, however quiet the clip.
    offsets : numpy.ndarray
        Clip ``i`` is ``samples[offsets[i] : offsets[i + 1]]``; shape ``(clips + 1,)``.
    clips : tuple of Clip
        The clips in that order.
    sample_rate_hz : int
        Of all clips.
    """

    samples: np.ndarray
    offsets: np.ndarray
    clips: tuple[Clip, ...]
    sample_rate_hz: int

    def __len__(self) -> int:
        """Count the clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> np.ndarray:
        """Get the samples of one clip, shape ``(samples,)``, float32."""
        index = range(len(self))[index]
        begin, end = self.offsets[index], self.offsets[index + 1]
        return np.asarray(self.samples[begin:end], dtype=np.float32)

    @property
    def duration_s(self) -> float:
        """Length of all clips together, in seconds."""
        return int(self.offsets[-1]) / self.sample_rate_hz

    def indices(self, split: str) -> np.ndarray:
        """Find the clips of one split, ``"train"`` or ``"dev"``."""
        return np.array([i for i, clip in enumerate(self.clips) if clip.split == split], dtype=int)


def build_cache(
    clips: Sequence[Clip],
    out_path: str | Path,
    sample_rate_hz: int = 16000,
    highpass_hz: float | None = 70.0,
) -> SpeechCache:
    """Decode clips once and store them in ``<out_path>.npy`` and ``<out_path>.npz``.

    Each clip is averaged to mono, resampled, and, if it is speech, high-passed by a
    fourth-order Butterworth filter run forwards and backwards (no delay, no phase), which
    removes the rumble that some corpora carry. Noise is left as it is.

    Parameters
    ----------
    clips : sequence of Clip
        What to decode; kept in this order.
    out_path : str or Path
        Where the pair of files goes, without suffix.
    sample_rate_hz : int
        Rate of the cache.
    highpass_hz : float or None
        Corner of the high-pass; ``None`` for no filter.

    Returns
    -------
    SpeechCache
        The cache, mapped from disk. A second call with the same clips (paths, sizes, speakers,
        splits) and settings decodes nothing and returns what is there.

    Raises
    ------
    ValueError
        If `clips` is empty, a setting is out of range, or a clip has no samples or NaN.
    FileNotFoundError
        If a clip is missing.
    """
    out_path = Path(out_path)
    check_settings(clips, sample_rate_hz, highpass_hz)
    checksum = compute_checksum(clips, sample_rate_hz, highpass_hz)
    if read_checksum(out_path, _SPEECH_COLUMNS) == checksum:
        return load_cache(out_path)
    from rich.progress import track

    # Trainings that share a folder of caches: the second waits, and finds the work done.
    with lock_folder(out_path.parent, wait=True):
        if read_checksum(out_path, _SPEECH_COLUMNS) == checksum:
            return load_cache(out_path)
        clips = list(clips)
        shown = track(clips, description=f"decoding {out_path.name}")
        decoded = (decode(clip, sample_rate_hz, highpass_hz) for clip in shown)
        return write_speech_cache(clips, decoded, out_path, sample_rate_hz, checksum)


def write_speech_cache(
    clips: Sequence[Clip],
    decoded: Iterable[np.ndarray],
    out_path: str | Path,
    sample_rate_hz: int,
    checksum: str,
) -> SpeechCache:
    """Write decoded clips as a cache; `build_cache` and `prepare` decode them.

    Parameters
    ----------
    clips : sequence of Clip
        What was decoded.
    decoded : iterable of numpy.ndarray
        Shape ``(samples,)`` each, in the order of `clips`.
    out_path, sample_rate_hz
        As `build_cache` takes them.
    checksum : str
        `compute_checksum` of the clips and settings.

    Returns
    -------
    SpeechCache
        Mapped from disk.
    """
    settings = {"sample_rate_hz": np.array(sample_rate_hz)}
    write_flat_arrays(Path(out_path), decoded, "<f2", clips, checksum, lambda: settings)
    return load_cache(out_path)


def load_cache(path: str | Path) -> SpeechCache:
    """Map a cache that `build_cache` wrote.

    Parameters
    ----------
    path : str or Path
        The `out_path` it was built with.

    Returns
    -------
    SpeechCache
        With `samples` mapped, not read.

    Raises
    ------
    FileNotFoundError
        If one of the two files is missing.
    ValueError
        If they do not belong together or are of another format.
    """
    samples_path, index_path = name_files(Path(path))
    for file in (samples_path, index_path):
        if not file.is_file():
            raise FileNotFoundError(f"no {file}; build the cache with build_cache(clips, {path!r})")
    index = read_index(index_path, _SPEECH_COLUMNS)
    if index is None:
        raise ValueError(
            f"{index_path} is not a cache index of format {_FORMAT}; delete it and build again"
        )
    offsets = index["offsets"]
    sample_rate_hz = int(index["sample_rate_hz"])
    samples = map_array(samples_path, "<f2")
    if samples.shape != (offsets[-1],):
        raise ValueError(
            f"{samples_path} holds {samples.shape} samples but {index_path} describes "
            f"{offsets[-1]}; delete both and build the cache again"
        )
    return SpeechCache(samples, offsets, read_clips(index), sample_rate_hz)


# --- Mouth crops ----------------------------------------------------------------------------------


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
        Whether a face was detected in a frame, and whether it was interpolated; shape
        ``(frame,)``.
    score : numpy.ndarray
        Of the detector, shape ``(frame,)``.
    keypoints : numpy.ndarray
        Eyes, nose and mouth corners in pixels of the video, shape ``(frame, 5, 2)``.
    pose_deg : numpy.ndarray
        Yaw, pitch and roll, shape ``(frame, 3)``.
    pose_confidence : numpy.ndarray
        Confidence of the pose, shape ``(frame,)``.
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
    """Map the mouth crops that `prepare` stored in ``<path>.lips.npy`` and ``<path>.lips.npz``.

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
    frames_path, index_path = name_files(name_lips(Path(path)))
    for file in (frames_path, index_path):
        if not file.is_file():
            raise FileNotFoundError(
                f"no {file}; make it with: avse-ppl prepare CORPUS DIR -o {path}"
            )
    index = read_index(index_path, PER_FRAME)
    if index is None:
        raise ValueError(
            f"{index_path} is not an index of mouth crops of format {_FORMAT}; delete it and "
            "prepare the corpus again"
        )
    frames = map_array(frames_path, "|u1")
    wanted = (int(index["offsets"][-1]), ROI_SIZE, ROI_SIZE)
    if frames.shape != wanted:
        raise ValueError(
            f"{frames_path} has the shape {frames.shape} but {index_path} describes {wanted}; "
            "delete both and prepare the corpus again"
        )
    columns = {name: index[name] for name in PER_FRAME}
    for name, (axes, kind) in PER_FRAME.items():
        column, shape = columns[name], (len(frames), *axes)
        if column.shape != shape or column.dtype != kind:
            raise ValueError(
                f"{index_path}: {name} has the shape {column.shape} and the type {column.dtype}, "
                f"expected {shape} and {np.dtype(kind)}; delete it and prepare the corpus again"
            )
    return LipsCache(frames, index["offsets"], clips=read_clips(index), **columns)


def write_lips_cache(
    clips: Sequence[Clip],
    arrays: Iterable[Mapping[str, np.ndarray]],
    path: str | Path,
    checksum: str,
) -> LipsCache:
    """Write mouth crops as a cache.

    Parameters
    ----------
    clips : sequence of Clip
        Whose mouths they are.
    arrays : iterable of mapping
        For each clip, what `make_lips_arrays` or `make_empty_lips_arrays` made.
    path : str or Path
        Where they go, without suffix.
    checksum : str
        Of what they were made of.

    Returns
    -------
    LipsCache
        Mapped from disk.
    """
    columns: dict[str, list[np.ndarray]] = {name: [] for name in PER_FRAME}

    def yield_crops() -> Iterable[np.ndarray]:
        for of_clip in arrays:
            for name, column in columns.items():
                column.append(of_clip[name])
            yield of_clip["roi"]

    def join_columns() -> dict[str, np.ndarray]:
        return {name: np.concatenate(column) for name, column in columns.items()}

    write_flat_arrays(name_lips(Path(path)), yield_crops(), "|u1", clips, checksum, join_columns)
    return load_lips(path)


def make_lips_arrays(lips: Lips) -> dict[str, np.ndarray]:
    """Make the arrays that are stored of a clip's `Lips`."""
    columns = {
        name: np.asarray(getattr(lips, name), dtype=kind) for name, (_, kind) in PER_FRAME.items()
    }
    return {"roi": np.asarray(lips.roi, dtype=np.uint8), **columns}


def make_empty_lips_arrays() -> dict[str, np.ndarray]:
    """Make the arrays of a clip without video frames."""
    columns = {name: np.zeros((0, *axes), kind) for name, (axes, kind) in PER_FRAME.items()}
    return {"roi": np.zeros((0, ROI_SIZE, ROI_SIZE), np.uint8), **columns}


# --- Flat arrays and their index ------------------------------------------------------------------


def name_files(path: Path) -> tuple[Path, Path]:
    """Name the two files of a cache: its arrays and its index."""
    return path.with_name(path.name + ".npy"), path.with_name(path.name + ".npz")


def name_lips(path: Path) -> Path:
    """Name the cache of mouth crops beside that of the audio."""
    return path.with_name(path.name + ".lips")


def name_noisy(path: Path) -> Path:
    """Name the cache of paired noisy recordings beside that of the clean ones."""
    return path.with_name(path.name + ".noisy")


def write_flat_arrays(
    path: Path,
    arrays: Iterable[np.ndarray],
    dtype: str,
    clips: Sequence[Clip],
    checksum: str,
    make_columns: Callable[[], dict[str, np.ndarray]],
) -> None:
    """Write the arrays of clips and their index, atomically.

    Parameters
    ----------
    path : Path
        Of the cache, without suffix.
    arrays, dtype
        As `write_array` takes them, one array a clip.
    clips : sequence of Clip
        What they are of.
    checksum : str
        Of what they were made of.
    make_columns : function
        Makes further columns of the index, when all arrays are written.
    """
    data_path, index_path = name_files(path)
    data_path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(index_path) as new_index, atomic_path(data_path) as new_data:
        with new_data.open("wb") as file:
            offsets = write_array(file, arrays, dtype)
        text = json.dumps([list_optional_fields(clip) for clip in clips])
        columns = {
            "format": np.array(_FORMAT),
            "checksum": np.array(checksum),
            "offsets": offsets,
            **make_columns(),
            "paths": np.array([str(clip.path) for clip in clips]),
            "corpora": np.array([clip.corpus for clip in clips]),
            "speakers": np.array([clip.speaker for clip in clips]),
            "splits": np.array([clip.split for clip in clips]),
            "labels": np.array([clip.label for clip in clips]),
            "extras": np.frombuffer(text.encode(), dtype=np.uint8),
        }
        with new_index.open("wb") as file:
            np.savez(file, **columns)  # pyright: ignore[reportArgumentType]
        # The index goes last and the old one first: an index always describes its samples.
        index_path.unlink(missing_ok=True)


def list_optional_fields(clip: Clip) -> dict[str, str]:
    """List what only some clips have: video, mouth crops, paired noisy recording, transcript."""
    values = asdict(clip)
    return {k: str(values[k]) for k in (*_OPTIONAL_PATHS, "transcript") if values[k]}


def read_index(path: Path, columns: Collection[str]) -> dict[str, np.ndarray] | None:
    """Read an index; None for a file that is none, is damaged, or is of another format."""
    index = read_npz(path)
    wanted = {*columns, *_CLIP_COLUMNS, "format", "checksum", "offsets"}
    if index is None or not wanted <= set(index):
        return None
    try:
        clips, offsets = len(read_clips(index)), index["offsets"]
        fits = offsets.dtype == np.int64 and offsets.shape == (clips + 1,) and offsets[0] == 0
        numbers = [index[name] for name in ("format", *_SPEECH_COLUMNS) if name in index]
        whole = all(number.shape == () and number.dtype.kind == "i" for number in numbers)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    if not (fits and whole and (np.diff(offsets) >= 0).all() and index["format"] == _FORMAT):
        return None
    return index if int(index.get("sample_rate_hz", 1)) > 0 else None


def read_clips(index: Mapping[str, np.ndarray]) -> tuple[Clip, ...]:
    """Read the clips out of the columns of an index."""
    columns = [index[name].tolist() for name in _CLIP_COLUMNS]
    text = index["extras"].tobytes().decode() if "extras" in index else ""
    optional = json.loads(text) if text else [{}] * len(columns[0])
    texts = [*columns, *(fields.values() for fields in optional)]
    if not all(isinstance(one, str) for column in texts for one in column):
        raise ValueError("a path, speaker or the like that is no text")
    return tuple(
        Clip(
            Path(path),
            *rest,
            **{k: Path(v) if k in _OPTIONAL_PATHS else v for k, v in fields.items()},
        )
        for path, *rest, fields in zip(*columns, optional, strict=True)
    )


# --- Checksums ------------------------------------------------------------------------------------


def compute_checksum(clips: Sequence[Clip], sample_rate_hz: int, highpass_hz: float | None) -> str:
    """Checksum of what a cache is made from: files by path and size, columns, settings.

    Raises
    ------
    FileNotFoundError
        If a clip is missing.
    """
    settings = [_FORMAT, sample_rate_hz, highpass_hz]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for clip in clips:
        if not clip.path.is_file():
            raise FileNotFoundError(f"no {clip.path}; list the corpus again, or copy it again")
        size = clip.path.stat().st_size
        row: list[object] = [str(clip.path), size, clip.corpus, clip.speaker, clip.split]
        row += [clip.label, *([fields] if (fields := list_optional_fields(clip)) else [])]
        further = (path for path in (clip.video, clip.roi, clip.noisy) if path)
        row += [path.stat().st_size if path.is_file() else -1 for path in further]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def read_checksum(path: Path, columns: Collection[str]) -> str | None:
    """Read the checksum of the cache that is there; None for none."""
    data_path, index_path = name_files(path)
    if not (data_path.is_file() and index_path.is_file()):
        return None
    index = read_index(index_path, columns)
    return None if index is None else str(index["checksum"])


def check_settings(clips: Sequence[Clip], sample_rate_hz: int, highpass_hz: float | None) -> None:
    """Raise ``ValueError`` for no clips or settings out of range."""
    if not clips:
        raise ValueError("no clips to cache; expected the list that one of the readers returns")
    if sample_rate_hz <= 0:
        raise ValueError(f"sample_rate_hz is {sample_rate_hz}; expected a positive number")
    if highpass_hz is not None and not 0 < highpass_hz < sample_rate_hz / 2:
        raise ValueError(
            f"highpass_hz is {highpass_hz}; expected between 0 and {sample_rate_hz / 2}, or None"
        )
