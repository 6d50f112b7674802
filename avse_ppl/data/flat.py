"""Arrays of one kind after another in one ``.npy`` file, described by an ``.npz`` beside it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from avse_ppl.data.clips import Clip
from avse_ppl.utils.files import atomic_path

_EXTRA_PATHS = ("video", "roi", "noisy")
_COLUMNS = ("paths", "corpora", "speakers", "splits", "labels")


def write_flat(file: BinaryIO, arrays: Iterable[np.ndarray], dtype: str) -> np.ndarray:
    """Write arrays that differ in their first axis only as one ``.npy``, as they come.

    Parameters
    ----------
    file : binary file
        Open for writing, seekable.
    arrays : iterable of numpy.ndarray
        Shape ``(length_i, ...)``; at least one.
    dtype : str
        What they are stored in, for instance ``"<f2"``.

    Returns
    -------
    numpy.ndarray
        Array ``i`` is ``[offsets[i] : offsets[i + 1]]``; int64.

    Raises
    ------
    OSError
        If the length did not fit into the header, which NumPy leaves room for.
    ValueError
        If the arrays differ in their further axes, or there is none.
    """
    offsets, begin, tail = [0], 0, None
    for array in arrays:
        if tail is None:
            tail = array.shape[1:]
            begin = _write_header(file, dtype, (0, *tail))
        if array.shape[1:] != tail:
            raise ValueError(f"an array has the shape {array.shape}; expected (length, *{tail})")
        file.write(array.astype(dtype).tobytes())
        offsets.append(offsets[-1] + len(array))
    if tail is None:
        raise ValueError("no arrays to write; expected at least one")
    # NumPy pads the header so that a longer shape fits: the length is known only now.
    file.seek(0)
    if _write_header(file, dtype, (offsets[-1], *tail)) != begin:
        raise OSError("the header of the sample file changed its length; nothing was written")
    return np.array(offsets, dtype=np.int64)


def _write_header(file: BinaryIO, dtype: str, shape: tuple[int, ...]) -> int:
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def write_pair(
    files: tuple[Path, Path],
    arrays: Iterable[np.ndarray],
    dtype: str,
    index: Callable[[np.ndarray], dict[str, np.ndarray]],
) -> None:
    """Write a data file and its index beside their places, then put both there.

    Parameters
    ----------
    files : tuple of Path
        The ``.npy`` and the ``.npz``.
    arrays, dtype
        As `write_flat` takes them.
    index : function
        Makes the columns of the index out of the offsets.
    """
    data_path, index_path = files
    data_path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(index_path) as new_index, atomic_path(data_path) as new_data:
        with new_data.open("wb") as file:
            offsets = write_flat(file, arrays, dtype)
        with new_index.open("wb") as file:
            np.savez(file, **index(offsets))  # pyright: ignore[reportArgumentType]
        # The index goes last and the old one first: an index always describes its samples.
        index_path.unlink(missing_ok=True)


def clip_columns(clips: Sequence[Clip]) -> dict[str, np.ndarray]:
    """Make the columns of an index that describe its clips."""
    columns = {
        "paths": [str(clip.path) for clip in clips],
        "corpora": [clip.corpus for clip in clips],
        "speakers": [clip.speaker for clip in clips],
        "splits": [clip.split for clip in clips],
        "labels": [clip.label for clip in clips],
    }
    text = json.dumps([extras(clip) for clip in clips])
    return {
        **{name: np.array(column) for name, column in columns.items()},
        "extras": np.frombuffer(text.encode(), dtype=np.uint8),
    }


def extras(clip: Clip) -> dict[str, str]:
    """What only some clips have: video, mouth crops, noisy twin, transcript."""
    values = asdict(clip)
    return {k: str(values[k]) for k in (*_EXTRA_PATHS, "transcript") if values[k]}


def clips_of(index: dict[str, np.ndarray]) -> tuple[Clip, ...]:
    """Read the clips out of the columns that `clip_columns` made."""
    columns = [index[name].tolist() for name in _COLUMNS]
    text = index["extras"].tobytes().decode() if "extras" in index else ""
    more = json.loads(text) if text else [{}] * len(columns[0])
    return tuple(
        Clip(Path(path), *rest, **_parsed(extra))
        for path, *rest, extra in zip(*columns, more, strict=True)
    )


def _parsed(extra: dict[str, str]) -> dict:
    return {key: Path(text) if key in _EXTRA_PATHS else text for key, text in extra.items()}


def read_index(
    path: Path, file_format: int, columns: Collection[str]
) -> dict[str, np.ndarray] | None:
    """Read an index; None for a file that is none, lacks columns, or is of another format."""
    try:
        with path.open("rb") as file, np.load(file) as stored:
            index = {name: stored[name] for name in stored.files}
        wanted = {*columns, *_COLUMNS, "format", "checksum", "offsets"}
    except (ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile):
        return None
    return index if wanted <= set(index) and index["format"] == file_format else None
