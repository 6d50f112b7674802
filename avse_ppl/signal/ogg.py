"""Ogg pages: walked, checked, corrected.

An Ogg file is a sequence of pages, each with the number of its stream. A stream begins with a page
that says so, and should end with one. Files joined end to end ("chained") are legal; calls and
voice messages often lack the last mark.

References
----------
RFC 3533, "The Ogg Encapsulation Format Version 0", 2003.
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from avse_ppl.signal.file_view import FileView

_HEADER = 27  # bytes, before the table of segments
_LARGEST_PAGE = _HEADER + 255 + 255 * 255
_FIRST, _LAST = 2, 4  # flags
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


@dataclass(frozen=True)
class OggPage:
    """Where a page lies, ``start`` to ``stop`` in bytes, its flags and the number of its stream."""

    start: int
    stop: int
    flags: int
    serial: bytes

    @property
    def is_first(self) -> bool:
        """Whether a stream begins here."""
        return bool(self.flags & _FIRST)

    @property
    def is_last(self) -> bool:
        """Whether its stream is said to end here."""
        return bool(self.flags & _LAST)


def walk_pages(handle: BinaryIO) -> Iterator[OggPage]:
    """Walk through the whole pages of a file; what is no page is skipped."""
    size = handle.seek(0, os.SEEK_END)
    at = 0
    while at + _HEADER <= size:
        handle.seek(at)
        head = handle.read(_HEADER + 255)
        if head[:4] != b"OggS":  # damage: the next page
            handle.seek(at + 1)
            found = handle.read(_LARGEST_PAGE).find(b"OggS")
            at += _LARGEST_PAGE - 2 if found < 0 else 1 + found
            continue
        table = head[_HEADER : _HEADER + head[26]]
        stop = at + _HEADER + head[26] + sum(table)
        if len(table) == head[26] and stop <= size:
            yield OggPage(at, stop, head[5], head[14:18])
            at = stop
        else:  # cut, unless it only looked like a page
            at += 4


def split_chain(pages: Sequence[OggPage]) -> list[list[OggPage]]:
    """Split the pages of a file into those of recordings that were joined.

    One begins where a stream does, unless the page before also begins one: those are streams that
    run side by side, such as sound and pictures.
    """
    links: list[list[OggPage]] = []
    before = None
    for page in pages:
        if before is None or (page.is_first and not before.is_first):
            links.append([])
        links[-1].append(page)
        before = page
    return links


def is_closed(pages: Sequence[OggPage]) -> bool:
    """Whether the streams of one recording are said to have ended."""
    return {page.serial for page in pages} == {page.serial for page in pages if page.is_last}


def mend_ogg(handle: BinaryIO, name: str) -> BinaryIO:
    """Mark the end of a stream whose last page is whole and lacks the mark.

    Returns
    -------
    BinaryIO
        The file as it was, or a view of it with the mark.

    Warns
    -----
    UserWarning
        If the mark was missing: so it is where a call was recorded, or a file cut between pages.
    """
    handle.seek(0)
    pages = list(walk_pages(handle)) if handle.read(4) == b"OggS" else []
    if is_closed(pages) or pages[-1].stop < handle.seek(0, os.SEEK_END):
        return handle
    corrections = {}
    for page in {page.serial: page for page in pages}.values():  # the last of each stream
        if not page.is_last:
            data = read_page(handle, page)
            data[5] |= _LAST
            corrections[page.start] = seal_page(data)[:_HEADER]
    message = (
        f"{name}: its end is not marked, as of a call or a recorder that was stopped; "
        "read to its last page, compare its length with what you expect"
    )
    warnings.warn(message, UserWarning, stacklevel=2)
    return FileView(handle, patches=corrections)  # type: ignore[return-value]


def replace_serial(handle: BinaryIO, serial: int) -> Iterator[tuple[int, bytes]]:
    """Give each page another number of its stream; yields where each lies, and its bytes."""
    for page in list(walk_pages(handle)):
        data = read_page(handle, page)
        data[14:18] = serial.to_bytes(4, "little")
        yield page.start, seal_page(data)


def read_page(handle: BinaryIO, page: OggPage) -> bytearray:
    """Read the bytes of a page."""
    handle.seek(page.start)
    return bytearray(handle.read(page.stop - page.start))


def seal_page(page: bytearray) -> bytes:
    """Put in the checksum of a page: CRC-32 with most significant bits first, nothing inverted.

    Examples
    --------
    >>> seal_page(bytearray(b"OggS" + bytes(23)))[22:26].hex()
    '11a5a19e'
    """
    page[22:26] = bytes(4)
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    page[22:26] = mirrored.to_bytes(4, "little").translate(_REVERSED)[::-1]
    return bytes(page)
