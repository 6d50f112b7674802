"""File views: a span of a file with corrected bytes, and a file that C code may call safely.

`FileView` gives a decoder one of several recordings in a file, or a file whose header was mended,
without a copy. `GuardedFile` stands between a C library and Python: what goes wrong in a call from
C cannot be raised there, so it is kept, and raised when the library has returned.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import BinaryIO

_MORE_CALLS = 100_000  # than bytes: a header that points at itself would be read for ever


class FileView(io.RawIOBase):
    """A span of a file, with some bytes replaced.

    Parameters
    ----------
    handle
        A seekable binary file; not closed with the view.
    start, stop
        The span, bytes; to the end of the file by default.
    patches
        What to read in place of the bytes at a position of the view.

    Examples
    --------
    >>> view = FileView(io.BytesIO(b"RIFF....WAVE"), 4, patches={0: b"size"})
    >>> view.read()
    b'sizeWAVE'
    """

    def __init__(
        self,
        handle: BinaryIO,
        start: int = 0,
        stop: int | None = None,
        patches: Mapping[int, bytes] | None = None,
    ) -> None:
        super().__init__()
        self._handle, self._start, self._at = handle, start, 0
        self._size = (handle.seek(0, os.SEEK_END) if stop is None else stop) - start
        self._patches = dict(patches or {})

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether it can be sought in: yes."""
        return True

    def tell(self) -> int:
        """Return the position in the span."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position in the span.

        Raises
        ------
        ValueError
            If that lies before its start.
        """
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError(f"expected a position of 0 or more, found {at}")
        self._at = at
        return at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read into a buffer; returns how many bytes there were."""
        target = memoryview(buffer).cast("B")
        target = target[: max(0, min(len(target), self._size - self._at))]
        self._handle.seek(self._start + self._at)
        n_read: int = self._handle.readinto(target) if len(target) else 0  # type: ignore[attr-defined]
        end = self._at + n_read
        for place, data in self._patches.items():
            first, last = max(place, self._at), min(place + len(data), end)
            if first < last:
                target[first - self._at : last - self._at] = data[first - place : last - place]
        self._at = end
        return n_read


class GuardedFile:
    """A file that a C library reads by callbacks, which cannot raise.

    The first exception is kept in `error`; from then on the file seems to end, so that the library
    soon returns. Positions before the start are refused as the system does: nothing moves.

    Parameters
    ----------
    handle
        A seekable binary file.

    Examples
    --------
    >>> guarded = GuardedFile(io.BytesIO(b"abc"))
    >>> guarded.seek(-1), guarded.tell(), guarded.error
    (0, 0, None)
    """

    def __init__(self, handle: BinaryIO) -> None:
        self.error: BaseException | None = None
        self._handle = handle
        self.size = handle.seek(0, os.SEEK_END)
        self._calls_left = self.size + _MORE_CALLS
        handle.seek(0)

    def stop(self, error: BaseException) -> None:
        """Let the file end here, because of an error elsewhere."""
        self.error = self.error or error

    def readinto(self, buffer: memoryview) -> int:
        """Read into a buffer; 0 after an error."""
        self._calls_left -= 1
        if self._calls_left < 0:
            self.stop(ValueError("its header leads back to itself"))
        if self.error is not None:
            return 0
        try:
            return self._handle.readinto(buffer)  # type: ignore[attr-defined]
        except BaseException as error:
            self.stop(error)
            return 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, if that is a position in a file."""
        self._calls_left -= 1
        try:
            start = {os.SEEK_SET: 0, os.SEEK_CUR: self._handle.tell(), os.SEEK_END: self.size}
            if 0 <= start[whence] + offset < 2**63:
                self._handle.seek(start[whence] + offset)
            return self._handle.tell()
        except BaseException as error:
            self.stop(error)
            return 0

    def tell(self) -> int:
        """Return the position."""
        try:
            return self._handle.tell()
        except BaseException as error:
            self.stop(error)
            return 0
