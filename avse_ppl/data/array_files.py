"""Array files of NumPy: written as the arrays come, read with what is damaged refused."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from textwrap import shorten
from typing import BinaryIO

import numpy as np


def write_array(file: BinaryIO, arrays: Iterable[np.ndarray], dtype: str) -> np.ndarray:
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

    def write_header(shape: tuple[int, ...]) -> int:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return file.tell()

    offsets, begin, tail = [0], 0, None
    for array in arrays:
        if tail is None:
            tail = array.shape[1:]
            begin = write_header((0, *tail))
        if array.shape[1:] != tail:
            raise ValueError(f"an array has the shape {array.shape}; expected (length, *{tail})")
        file.write(array.astype(dtype).tobytes())
        offsets.append(offsets[-1] + len(array))
    if tail is None:
        raise ValueError("no arrays to write; expected at least one")
    # NumPy pads the header so that a longer shape fits: the length is known only now.
    file.seek(0)
    if write_header((offsets[-1], *tail)) != begin:
        raise OSError("the header of the sample file changed its length; nothing was written")
    return np.array(offsets, dtype=np.int64)


def read_npz(path: Path) -> dict[str, np.ndarray] | None:
    """Read an ``.npz``; None for a file that is none, or is damaged.

    Raises
    ------
    OSError
        If it is not there or the disk fails.
    """
    try:
        with path.open("rb") as file, np.load(file) as stored:
            return {name: stored[name] for name in stored.files}
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # EINVAL: a place before the file's beginning
            raise
    except Exception:  # zipfile, zlib and NumPy's parser raise nearly anything on a damaged file
        pass
    return None


def map_array(
    path: Path, dtype: str | None, advice: str = "delete it and make the cache again"
) -> np.ndarray:
    """Map an ``.npy`` from disk, read-only.

    Parameters
    ----------
    path
        The file.
    dtype
        What it has to hold; None for numbers of any type.
    advice
        What to do about a damaged one.

    Raises
    ------
    ValueError
        If it is none, or is damaged.
    OSError
        If it is not there or the disk fails.
    """
    try:
        array = np.load(path, mmap_mode="r")
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays")
        if array.dtype.kind not in "fiub" or dtype not in (None, array.dtype):
            raise ValueError(f"it holds {array.dtype}, expected {dtype or 'numbers'}")
        return array
    except Exception as error:  # NumPy evaluates the header, which raises nearly anything
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = shorten(str(error), 200) or type(error).__name__
        raise ValueError(f"{path} is damaged: {reason}; {advice}") from None
