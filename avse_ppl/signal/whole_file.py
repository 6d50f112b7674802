"""Whole files: headers of media compared with the size of the file and with what is decoded.

Decoders play half a file without a word, and a recording that was cut while it was copied would
then be enhanced as if it were whole: so headers are compared with the size of the file first
(`count_missing_bytes`), and stated with decoded durations after (`check_duration`).
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from avse_ppl.signal.ogg import walk_pages
from avse_ppl.signal.sound_header import find_samples

_SHORTFALL_S = 0.05  # headers of lossy formats are this exact about their length

_UNKNOWN_LENGTH = 0x7FFFF000  # and above: what programs write when they stream to a pipe
_SOUNDS = (b"WAVE", b"AIFF", b"AIFC")  # whose samples were not found
_SEGMENT = b"\x18\x53\x80\x67"
_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"styp", b"sidx")


def check_duration(decoded_s: float, stated_s: float, name: str) -> None:
    """Refuse a file of which less could be decoded than it states."""
    if stated_s - decoded_s > _SHORTFALL_S:
        raise truncated_error(name, f"it promises {stated_s:.2f} s, {decoded_s:.2f} s are there")


def count_missing_bytes(handle: BinaryIO) -> int:
    """Count the bytes that the headers of a file promise and the file lacks.

    Understands WAV, RF64, AIFF, AU, CAF, W64, NIST, AVI, Ogg, Matroska / WebM and MP4 / MOV.
    Formats that do not state their length, and files written to a pipe, are taken as complete.

    Parameters
    ----------
    handle
        A seekable binary file; left at its start.

    Returns
    -------
    int
        0 for a file that is whole (or of a kind that does not state its length). An Ogg file whose
        last page was cut counts as lacking 1 byte at least, since it does not say how many.

    Examples
    --------
    >>> import io
    >>> count_missing_bytes(io.BytesIO(b"RIFF" + bytes([100, 0, 0, 0]) + b"AVI " + bytes(50)))
    46
    """
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    head = handle.read(12)
    end = 0
    if len(head) < 12:
        pass
    elif (samples := find_samples(handle)) is not None:
        end = samples.start + (samples.length or 0)
    elif head[:4] in (b"RIFF", b"FORM") and head[8:] not in _SOUNDS:  # such as AVI
        length = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
        end = 0 if length >= _UNKNOWN_LENGTH else 8 + length
    elif head[:4] == b"OggS":
        end = find_ogg_end(handle, size)
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        end = find_matroska_end(handle, size)
    elif head[4:8] in _BOXES:
        end = find_mp4_end(handle, size)
    handle.seek(0)
    return max(0, end - size)


def find_ogg_end(handle: BinaryIO, size: int) -> int:
    """Find where the pages of an Ogg file end; past the file if the last of them was cut.

    A file whose pages are whole is complete without a mark at its end: calls and voice messages
    have none. What follows the last page is a page that was cut, unless the mark is there.
    """
    stop, is_last = 0, False
    for page in walk_pages(handle):
        stop, is_last = page.stop, page.is_last
    return stop if is_last or stop == size else size + 1


def find_matroska_end(handle: BinaryIO, size: int) -> int:
    """Find where the segment of a Matroska file should end; 0 if it does not state that."""
    handle.seek(4)
    header = read_ebml_integer(handle) or 0
    handle.seek(min(handle.tell() + header, size))
    if handle.read(4) != _SEGMENT:
        return 0
    length = read_ebml_integer(handle)
    return 0 if length is None else handle.tell() + length


def read_ebml_integer(handle: BinaryIO) -> int | None:
    """Read an EBML integer: as many leading zero bits as bytes follow; None for "unknown"."""
    first = (handle.read(1) or b"\0")[0]
    more = 8 - first.bit_length()
    mask = (1 << (7 * (more + 1))) - 1
    value = int.from_bytes(bytes([first]) + handle.read(more), "big") & mask
    return None if value == mask else value


def find_mp4_end(handle: BinaryIO, size: int) -> int:
    """Find where the last top-level box of an MP4 file should end."""
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


def truncated_error(name: str, detail: str) -> ValueError:
    """Error for a file that was cut."""
    return ValueError(f"{name} is cut short: {detail}; copy or record it again")


def damaged_error(name: str, detail: object) -> ValueError:
    """Error for a file that cannot be decoded to its end."""
    return ValueError(f"{name} is damaged or cut short: {detail}; copy or record it again")
