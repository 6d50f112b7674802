"""HDF5 files of unknown origin: their claims compared with their size before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
