"""Decode a corpus once into one flat file, so that training reads it as an array."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avse_ppl.data.clips import Clip
from avse_ppl.data.decoding import decode
from avse_ppl.data.flat import clip_columns, clips_of, extras, read_index, write_pair

_FORMAT = 1
_COLUMNS = ("sample_rate_hz",)


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
    check_settings(clips, sample_rate_hz, highpass_hz)
    checksum = cache_checksum(clips, sample_rate_hz, highpass_hz)
    if stored_checksum(out_path) == checksum:
        return load_cache(out_path)
    decoded = (decode(clip, sample_rate_hz, highpass_hz) for clip in clips)
    tracked = _with_progress(decoded, len(clips), out_path.name)
    return write_cache(clips, tracked, out_path, sample_rate_hz, checksum)


def write_cache(
    clips: Sequence[Clip],
    decoded: Iterable[np.ndarray],
    out_path: str | Path,
    sample_rate_hz: int,
    checksum: str,
) -> SpeechCache:
    """Store decoded clips; `build_cache` and `prepare` decode them.

    Parameters
    ----------
    clips : sequence of Clip
        What was decoded.
    decoded : iterable of numpy.ndarray
        Shape ``(samples,)`` each, in the order of `clips`.
    out_path, sample_rate_hz
        As `build_cache` takes them.
    checksum : str
        `cache_checksum` of the clips and settings.

    Returns
    -------
    SpeechCache
        Mapped from disk.
    """

    def index(offsets: np.ndarray) -> dict[str, np.ndarray]:
        settings = {"format": _FORMAT, "checksum": checksum, "sample_rate_hz": sample_rate_hz}
        columns = {name: np.array(value) for name, value in settings.items()}
        return {**columns, "offsets": offsets, **clip_columns(clips)}

    write_pair(_files(Path(out_path)), decoded, "<f2", index)
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
    index = read_index(index_path, _FORMAT, _COLUMNS)
    if index is None:
        raise ValueError(
            f"{index_path} is not a cache index of format {_FORMAT}; delete it and build again"
        )
    offsets = index["offsets"]
    sample_rate_hz = int(index["sample_rate_hz"])
    samples = np.load(samples_path, mmap_mode="r")
    if samples.shape != (offsets[-1],):
        raise ValueError(
            f"{samples_path} holds {samples.shape} samples but {index_path} describes "
            f"{offsets[-1]}; delete both and build the cache again"
        )
    return SpeechCache(samples, offsets, clips_of(index), sample_rate_hz)


def _with_progress(decoded: Iterator[np.ndarray], total: int, name: str) -> Iterator[np.ndarray]:
    from rich.progress import track

    yield from track(decoded, description=f"decoding {name}", total=total)


def cache_checksum(clips: Sequence[Clip], sample_rate_hz: int, highpass_hz: float | None) -> str:
    """Tell apart what a cache can be made from: files by path and size, columns, settings.

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
        row += [clip.label, *([extra] if (extra := extras(clip)) else [])]
        row += [_size(path) for path in (clip.video, clip.roi, clip.noisy) if path]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def stored_checksum(out_path: Path) -> str | None:
    """Get the checksum of the cache that is there; None for none."""
    samples_path, index_path = _files(out_path)
    if not (samples_path.is_file() and index_path.is_file()):
        return None
    index = read_index(index_path, _FORMAT, _COLUMNS)
    return None if index is None else str(index["checksum"])


def _files(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + ".npy"), path.with_name(path.name + ".npz")


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
