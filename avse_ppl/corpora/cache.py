"""Decode a corpus once into one flat file, so that training reads it as an array."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from avse_ppl.corpora.clips import Clip
from avse_ppl.corpora.decoding import decode

_FORMAT = 1
_COLUMNS = (
    *("format", "checksum", "sample_rate_hz", "offsets"),
    *("paths", "corpora", "speakers", "splits", "labels"),
)


@dataclass(frozen=True)
class SpeechCache:
    """Decoded clips, one after another.

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
    _check_settings(clips, sample_rate_hz, highpass_hz)
    checksum = _checksum(clips, sample_rate_hz, highpass_hz)
    if _stored_checksum(out_path) == checksum:
        return load_cache(out_path)
    out_path.parent.mkdir(parents=True, exist_ok=True)
    samples_path, index_path = _files(out_path)
    decoded = (decode(clip, sample_rate_hz, highpass_hz) for clip in clips)
    beside = samples_path.with_name(f".{samples_path.name}.{os.getpid()}")
    index_beside = index_path.with_name(f".{index_path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            offsets = _write_samples(file, _with_progress(decoded, len(clips), out_path.name))
        with index_beside.open("wb") as file:
            np.savez(file, **_index(clips, offsets, sample_rate_hz, checksum))  # pyright: ignore[reportArgumentType]
        # The index goes last and the old one first: an index always describes its samples.
        index_path.unlink(missing_ok=True)
        os.replace(beside, samples_path)
        os.replace(index_beside, index_path)
    finally:
        beside.unlink(missing_ok=True)
        index_beside.unlink(missing_ok=True)
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
    samples_path, index_path = _files(Path(path))
    for file in (samples_path, index_path):
        if not file.is_file():
            raise FileNotFoundError(f"no {file}; build the cache with build_cache(clips, {path!r})")
    index = _read_index(index_path)
    if index is None:
        raise ValueError(
            f"{index_path} is not a cache index of format {_FORMAT}; delete it and build again"
        )
    offsets = index["offsets"]
    columns = [index[name].tolist() for name in ("corpora", "speakers", "splits", "labels")]
    paths = index["paths"].tolist()
    sample_rate_hz = int(index["sample_rate_hz"])
    samples = np.load(samples_path, mmap_mode="r")
    if samples.shape != (offsets[-1],):
        raise ValueError(
            f"{samples_path} holds {samples.shape} samples but {index_path} describes "
            f"{offsets[-1]}; delete both and build the cache again"
        )
    clips = tuple(Clip(Path(p), *rest) for p, *rest in zip(paths, *columns, strict=True))
    return SpeechCache(samples, offsets, clips, sample_rate_hz)


def _write_samples(file: BinaryIO, decoded: Iterator[np.ndarray]) -> np.ndarray:
    header = {"descr": "<f2", "fortran_order": False, "shape": (0,)}
    np.lib.format.write_array_header_1_0(file, header)
    begin = file.tell()
    offsets = [0]
    for samples in decoded:
        file.write(samples.astype("<f2").tobytes())
        offsets.append(offsets[-1] + samples.size)
    # NumPy pads the header so that a longer shape fits: the length is known only now.
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {**header, "shape": (offsets[-1],)})
    if file.tell() != begin:
        raise OSError("the header of the sample file changed its length; nothing was written")
    return np.array(offsets, dtype=np.int64)


def _with_progress(decoded: Iterator[np.ndarray], total: int, name: str) -> Iterator[np.ndarray]:
    from rich.progress import track

    yield from track(decoded, description=f"decoding {name}", total=total)


def _index(
    clips: Sequence[Clip], offsets: np.ndarray, sample_rate_hz: int, checksum: str
) -> dict[str, np.ndarray]:
    columns = {
        "format": _FORMAT,
        "checksum": checksum,
        "sample_rate_hz": sample_rate_hz,
        "offsets": offsets,
        "paths": [str(clip.path) for clip in clips],
        "corpora": [clip.corpus for clip in clips],
        "speakers": [clip.speaker for clip in clips],
        "splits": [clip.split for clip in clips],
        "labels": [clip.label for clip in clips],
    }
    return {name: np.array(column) for name, column in columns.items()}


def _checksum(clips: Sequence[Clip], sample_rate_hz: int, highpass_hz: float | None) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT, sample_rate_hz, highpass_hz]).encode())
    for clip in clips:
        if not clip.path.is_file():
            raise FileNotFoundError(f"no {clip.path}; list the corpus again, or copy it again")
        size = clip.path.stat().st_size
        row = [str(clip.path), size, clip.corpus, clip.speaker, clip.split, clip.label]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _stored_checksum(out_path: Path) -> str | None:
    samples_path, index_path = _files(out_path)
    if not (samples_path.is_file() and index_path.is_file()):
        return None
    index = _read_index(index_path)
    return None if index is None else str(index["checksum"])


def _read_index(path: Path) -> dict[str, np.ndarray] | None:
    """Read an index; None for a file that is none, or of another format."""
    try:
        with path.open("rb") as file, np.load(file) as index:
            columns = {name: index[name] for name in _COLUMNS}
    except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return None
    return columns if columns["format"] == _FORMAT else None


def _files(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".npy"), path.with_name(path.name + ".npz")


def _check_settings(clips: Sequence[Clip], sample_rate_hz: int, highpass_hz: float | None) -> None:
    if not clips:
        raise ValueError("no clips to cache; expected the list that one of the readers returns")
    if sample_rate_hz <= 0:
        raise ValueError(f"sample_rate_hz is {sample_rate_hz}; expected a positive number")
    if highpass_hz is not None and not 0 < highpass_hz < sample_rate_hz / 2:
        raise ValueError(
            f"highpass_hz is {highpass_hz}; expected between 0 and {sample_rate_hz / 2}, or None"
        )
