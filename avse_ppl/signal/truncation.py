"""Tell whether a media file holds as many bytes as its own headers promise.

Decoders play half a file without a word. A recording that was cut while it was copied would then
be enhanced and scored as if it were whole, so `audio.load_audio` asks here first.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

_UNKNOWN_LENGTH = 0x7FFFF000  # and above: what programs write when they stream to a pipe
_LARGEST_OGG_PAGE = 27 + 255 + 255 * 255
_SEGMENT = b"\x18\x53\x80\x67"
_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"styp", b"sidx")


def missing_bytes(handle: BinaryIO) -> int:
    """Count the bytes that the headers of a file promise and the file lacks.

    Understands WAV, AIFF, AVI, Ogg, Matroska / WebM and MP4 / MOV. Formats that do not state their
    length, and files written to a pipe, are taken as complete.

    Parameters
    ----------
    handle
        A seekable binary file; left at its start.

    Returns
    -------
    int
        0 for a file that is whole (or of a kind that does not tell). An Ogg file that lacks its
        last page counts as lacking 1 byte at least, since it does not say how many.

    Examples
    --------
    >>> import io
    >>> missing_bytes(io.BytesIO(b"RIFF" + bytes([100, 0, 0, 0]) + b"AVI " + bytes(50)))
    46
    """
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    head = handle.read(12)
    end = _promised_end(handle, head, size) if len(head) == 12 else 0
    handle.seek(0)
    return max(0, end - size)


def _promised_end(handle: BinaryIO, head: bytes, size: int) -> int:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:] == b"WAVE":
        return _wav_end(handle, ">" if head[:4] == b"RIFX" else "<", size)
    if head[:4] == b"RIFF":
        return _chunk_end(struct.unpack("<I", head[4:8])[0])
    if head[:4] == b"FORM":
        return _chunk_end(struct.unpack(">I", head[4:8])[0])
    if head[:4] == b"OggS":
        return _ogg_end(handle, size)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska_end(handle)
    if head[4:8] in _BOXES:
        return _mp4_end(handle, size)
    return 0


def _chunk_end(length: int) -> int:
    return 0 if length >= _UNKNOWN_LENGTH else 8 + length


def _wav_end(handle: BinaryIO, order: str, size: int) -> int:
    at, long_length = 12, 0
    while at + 8 <= size:
        handle.seek(at)
        name, length = struct.unpack(f"{order}4sI", handle.read(8))
        if name == b"ds64":  # RF64: lengths over 4 GB are written here
            long_length = struct.unpack(f"{order}Q", handle.read(16)[8:].ljust(8, b"\0"))[0]
        if name == b"data" and length >= _UNKNOWN_LENGTH:
            return at + 8 + long_length if long_length else 0
        if name == b"data":
            return at + 8 + length
        at += 8 + length + length % 2
    return 0


def _ogg_end(handle: BinaryIO, size: int) -> int:
    start = handle.seek(max(0, size - _LARGEST_OGG_PAGE))
    tail = handle.read()
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return size + 1
    segments = tail[page + 27 : page + 27 + tail[page + 26]]
    if len(segments) < tail[page + 26]:
        return size + 1
    is_last = tail[page + 5] & 4
    return start + page + 27 + len(segments) + sum(segments) if is_last else size + 1


def _matroska_end(handle: BinaryIO) -> int:
    handle.seek(4)
    header = _variable_integer(handle)
    handle.seek(header or 0, os.SEEK_CUR)
    if handle.read(4) != _SEGMENT:
        return 0
    length = _variable_integer(handle)
    return 0 if length is None else handle.tell() + length


def _variable_integer(handle: BinaryIO) -> int | None:
    """Read an EBML integer: as many leading zero bits as bytes follow; None for "unknown"."""
    first = (handle.read(1) or b"\0")[0]
    more = 8 - first.bit_length()
    mask = (1 << (7 * (more + 1))) - 1
    value = int.from_bytes(bytes([first]) + handle.read(more), "big") & mask
    return None if value == mask else value


def _mp4_end(handle: BinaryIO, size: int) -> int:
    at = end = 0
    while at + 8 <= size:
        handle.seek(at)
        length, name = struct.unpack(">I4s", handle.read(8))
        if length == 1:  # a 64-bit length follows
            length = int.from_bytes(handle.read(8), "big")
        if length < 8:  # 0: up to the end of the file
            break
        at += length
        end = at if name in _BOXES else end
    return end
