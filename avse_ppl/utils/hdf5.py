"""HDF5 files of unknown origin: their claims compared with their size before anything is read."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

_HEAP = b"GCOL\x01\0\0\0"  # how a collection of texts begins, at a multiple of eight bytes
_DEFLATE = 1100  # by which zlib packs zeros; arrays that claim more are not in the file


def check_hdf5_sizes(path: Path) -> None:
    """Refuse an HDF5 file whose arrays claim more than it can hold, before they are allocated.

    Parameters
    ----------
    path
        The file, which is there.

    Raises
    ------
    ValueError
        If they do.
    OSError
        If it is not HDF5. On damaged files h5py also raises ``RuntimeError`` and others.

    Examples
    --------
    >>> import tempfile, h5py
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "claims.h5"
    ...     with h5py.File(path, "w") as file:
    ...         _ = file.create_dataset("a", shape=(2**40,), dtype="f4", chunks=(1024,))
    ...     check_hdf5_sizes(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: its arrays claim 4398046511104 bytes, which ... bytes cannot hold
    """
    import h5py

    check_global_heaps(path)
    claimed = 0

    def add(_: str, place: Any) -> None:
        nonlocal claimed
        if isinstance(place, h5py.Dataset):
            claimed += (place.size or 0) * place.dtype.itemsize

    with h5py.File(path, "r") as file:
        file.visititems(add)
    size = path.stat().st_size
    if claimed > size * _DEFLATE:
        raise ValueError(f"its arrays claim {claimed} bytes, which {size} bytes cannot hold")


def check_global_heaps(path: Path) -> None:
    """Refuse collections of texts in which free space of no size keeps HDF5 in a loop for ever.

    Raises
    ------
    ValueError
        If there is one.
    """
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begin = data.find(_HEAP)
        while begin >= 0:
            (length,) = struct.unpack_from("<Q", data[begin + 8 : begin + 16].ljust(8, b"\0"))
            place, end = begin + 16, min(begin + length, len(data))
            while begin % 8 == 0 and place + 16 <= end:
                index, _, _, size = struct.unpack_from("<HHIQ", data, place)
                if index == 0 and size < 16:
                    raise ValueError(f"the texts at byte {begin} are damaged")
                place += size if index == 0 else 16 + size + -size % 8
            begin = data.find(_HEAP, begin + 8)
