"""Sound headers: where the samples lie in a file, and lengths that were written wrongly.

A recorder fills in the length when it stops; one that was killed, or that writes to a pipe, leaves
0 or the largest number. Some programs count the header itself. All samples are there then, and the
length is what `mend_header` puts right. A length that is wrong by more is a file that was cut.
"""

from __future__ import annotations

import os
import re
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from avse_ppl.signal.file_view import FileView

_UNKNOWN_LENGTH = 0x7FFFF000  # and above: what programs write when they stream to a pipe
SMALL = 64  # bytes: a header that counts itself, some padding
_WAV = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"BW64": "<"}


@dataclass(frozen=True)
class SampleSpan:
    """Where a header says that the samples are.

    Parameters
    ----------
    start
        Position of the first byte of them.
    length
        How many bytes; 0 if none is stated, None for "unknown, up to the end".
    block
        Bytes of one sample of all channels, or of one block of a codec.
    place, layout
        Where the length is written, and how (of `struct`).
    extra
        What the length counts more than the samples, bytes.
    """

    start: int
    length: int | None
    block: int = 1
    place: int | None = None
    layout: str = "<I"
    extra: int = 0


def find_samples(handle: BinaryIO) -> SampleSpan | None:
    """Find the samples of a WAV, RF64, AIFF, AU, CAF, W64 or NIST file; None of other files.

    Examples
    --------
    >>> import io
    >>> header = b"RIFF" + bytes(4) + b"WAVE" + b"data" + struct.pack("<I", 100)
    >>> span = find_samples(io.BytesIO(header + bytes(30)))
    >>> span.start, span.length
    (20, 100)
    """
    handle.seek(0)
    head = handle.read(64)
    if head[:4] in _WAV and head[8:12] == b"WAVE":
        return find_wav_samples(handle, _WAV[head[:4]])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return find_aiff_samples(handle)
    if head[:4] in (b".snd", b"dns.") and len(head) >= 24:
        order = ">" if head[:4] == b".snd" else "<"
        start, length = struct.unpack(f"{order}II", head[4:12])
        return SampleSpan(start, name_unknown(length), 1, 8, f"{order}I")
    if head[:4] == b"caff":
        return find_caf_samples(handle)
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return find_w64_samples(handle)
    if head[:8] == b"NIST_1A\n":
        return find_nist_samples(handle)
    return None


def mend_header(handle: BinaryIO, name: str) -> BinaryIO:
    """Put right a length that was never filled in, or that is a few bytes too long.

    Returns
    -------
    BinaryIO
        The file as it was, or a view of it with the length of what is there.

    Warns
    -----
    UserWarning
        If the length was corrected, or bytes follow the samples that belong to nothing.
    """
    span = find_samples(handle)
    if span is None:
        return handle
    there = handle.seek(0, os.SEEK_END) - span.start
    length = there if span.length is None else span.length
    if there <= 0 or span.place is None:
        return handle
    left = count_bytes_after(handle, span.start + length)
    remark = ""
    if length == 0 and left != 0:
        remark = "its length was never filled in, as by a recorder that was stopped"
    elif 0 < length - there <= max(SMALL, span.block):
        remark = f"its header promises {length - there} bytes more than there are"
    elif span.length is not None:
        if left and left > max(SMALL, span.block):
            remark = f"{left} bytes after the samples belong to nothing and are not read"
            warnings.warn(f"{name}: {remark}", UserWarning, stacklevel=2)
        return handle
    if remark:
        message = f"{name}: {remark}; read to its end, compare its length with what you expect"
        warnings.warn(message, UserWarning, stacklevel=2)
    most = 2 ** (8 * struct.calcsize(span.layout)) - 1
    stated = struct.pack(span.layout, min(there + span.extra, most))
    return FileView(handle, patches={span.place: stated})  # type: ignore[return-value]


def walk_chunks(
    handle: BinaryIO, order: str, at: int = 12, stop: int | None = None
) -> Iterator[tuple[bytes, int, int]]:
    """Walk through the chunks of a RIFF or IFF file: name, where the content is, its length."""
    size = handle.seek(0, os.SEEK_END) if stop is None else stop
    while at + 8 <= size:
        handle.seek(at)
        name, length = struct.unpack(f"{order}4sI", handle.read(8))
        yield name, at + 8, length
        at += 8 + length + length % 2


def find_wav_samples(handle: BinaryIO, order: str) -> SampleSpan | None:
    """Find the samples of a WAV or RF64 file."""
    long, block = None, 1
    for name, at, length in walk_chunks(handle, order):
        handle.seek(at)
        if name == b"fmt ":
            block = max(
                1, int.from_bytes(handle.read(14)[12:], "little" if order == "<" else "big")
            )
        if name == b"ds64":  # lengths over 4 GB are written here
            stated = handle.read(16)[8:].ljust(8, b"\0")
            long = SampleSpan(0, struct.unpack(f"{order}Q", stated)[0], 1, at + 8, f"{order}Q")
        if name == b"data" and length >= _UNKNOWN_LENGTH and long is not None:
            return SampleSpan(at, long.length, block, long.place, long.layout)
        if name == b"data":
            return SampleSpan(at, name_unknown(length), block, at - 4, f"{order}I")
    return None


def find_aiff_samples(handle: BinaryIO) -> SampleSpan | None:
    """Find the samples of an AIFF or AIFF-C file."""
    block = 1
    for name, at, length in walk_chunks(handle, ">"):
        handle.seek(at)
        if name == b"COMM":
            channels, _, bits = struct.unpack(">HIH", handle.read(8).ljust(8, b"\0"))
            block = max(1, channels * (bits // 8))
        if name == b"SSND":
            offset = int.from_bytes(handle.read(4), "big")
            stated = length - 8 - offset if name_unknown(length) else None
            stated = stated and max(0, stated)
            return SampleSpan(at + 8 + offset, stated, block, at - 4, ">I", 8 + offset)
    return None


def find_caf_samples(handle: BinaryIO) -> SampleSpan | None:
    """Find the samples of a Core Audio file."""
    size = handle.seek(0, os.SEEK_END)
    at = 8
    while at + 12 <= size:
        handle.seek(at)
        name, length = struct.unpack(">4sq", handle.read(12))
        if name == b"data":  # a count of edits, then the samples
            stated = None if length == -1 else max(0, length - 4)
            return SampleSpan(at + 16, stated, 1, at + 4, ">q", 4)
        if length < 0:
            return None
        at += 12 + length
    return None


def find_w64_samples(handle: BinaryIO) -> SampleSpan | None:
    """Find the samples of a Sony Wave64 file."""
    size = handle.seek(0, os.SEEK_END)
    at = 40
    while at + 24 <= size:
        handle.seek(at)
        name, length = struct.unpack("<16sQ", handle.read(24))
        if name[:4] == b"data":
            stated = max(0, length - 24) if length < 2**62 else None
            return SampleSpan(at + 24, stated, 1, at + 16, "<Q", 24)
        if length < 24:
            return None
        at += length + -length % 8
    return None


def find_nist_samples(handle: BinaryIO) -> SampleSpan | None:
    """Find the samples of a NIST SPHERE file."""
    handle.seek(0)
    head = handle.read(1024).decode("ascii", "replace")
    fields = dict(re.findall(r"^(\w+) -\w+ (\S+)", head, re.MULTILINE))
    try:
        start = int(head.split("\n")[1])
        names = ("sample_count", "sample_n_bytes", "channel_count")
        count, width, channels = (int(fields[name]) for name in names)
    except (KeyError, IndexError, ValueError):
        return None
    if "shorten" in fields.get("sample_coding", ""):
        return None
    return SampleSpan(start, count * width * channels)


def name_unknown(length: int) -> int | None:
    """Return a 32-bit length, or None for what stands for "unknown"."""
    return None if length >= _UNKNOWN_LENGTH else length


def count_bytes_after(handle: BinaryIO, at: int) -> int | None:
    """Count the bytes after a position that are in no chunk of a WAV or AIFF file.

    None for other kinds of file.
    """
    handle.seek(0)
    form = handle.read(4)
    if form not in (*_WAV, b"FORM"):
        return None
    size = handle.seek(0, os.SEEK_END)
    at += at % 2
    for name, start, length in walk_chunks(handle, _WAV.get(form, ">"), at):
        if start + length > size or not re.fullmatch(rb"[ -~]{4}", name):
            break
        at = start + length + length % 2
    return max(0, size - at)
