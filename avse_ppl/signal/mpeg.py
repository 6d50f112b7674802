"""MPEG audio (MP3): frames, tags between them, and where one recording ends and the next begins.

References
----------
ISO/IEC 11172-3, "Coding of moving pictures and associated audio", 1993; ISO/IEC 13818-3, 1998.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import BinaryIO

# Bit rates in kbit/s by (version 1, layer); rates in Hz of version 1.
_KBITS = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44100, 48000, 32000)


@dataclass(frozen=True)
class MpegFrame:
    """The header of a frame of MPEG audio: what must not change, length, place of a Xing tag."""

    kind: tuple[int, int, int, bool]
    length: int
    tag_at: int


def parse_frame(header: bytes) -> MpegFrame | None:
    """Parse the 4 bytes of a frame's header; None if it is none (or of no stated bit rate)."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    kbits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or kbits in (0, 15) or rate == 3:
        return None
    first, mono = version == 3, header[3] >> 6 == 3
    rate_hz = _RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
    unit = {1: 48, 2: 144, 3: 144 if first else 72}[layer]
    length = unit * _KBITS[first, layer][kbits - 1] * 1000 // rate_hz
    if layer == 1:
        length -= length % 4
    length += (header[2] >> 1 & 1) * (4 if layer == 1 else 1)
    tag_at = 4 + ((17 if mono else 32) if first else (9 if mono else 17))
    return MpegFrame((version, layer, rate_hz, mono), length, tag_at)


def measure_id3(data: bytes) -> int:
    """Measure an ID3v2 tag by its first 10 bytes; 0 if there is none."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    length = 0
    for byte in data[6:10]:  # 7 bits each
        length = length << 7 | byte & 127
    return 10 + length + (10 if data[5] & 16 else 0)


def is_mpeg(handle: BinaryIO) -> bool:
    """Whether a file begins with a frame of MPEG audio, perhaps after a tag."""
    handle.seek(0)
    handle.seek(measure_id3(handle.read(10)))
    return parse_frame(handle.read(4)) is not None


def split_mpeg(handle: BinaryIO, name: str = "the file") -> list[BinaryIO]:
    """Split a file of MPEG audio where a frame says that a recording begins, or is of another kind.

    Tags between the frames are left out, since decoders take them for damage.

    Warns
    -----
    UserWarning
        If the file ends within a frame, and has no count of them that tells how much is missing.
    """
    handle.seek(0)
    data = handle.read()
    parts: list[list[tuple[int, int]]] = []
    kind, at, tags_between, is_counted = None, 0, False, False
    while at + 4 <= len(data):
        tag = measure_id3(data[at : at + 10])
        frame = parse_frame(data[at : at + 4])
        after = at + frame.length if frame else 0
        follows = parse_frame(data[after : after + 4]) if frame else None
        is_sure = frame and (frame.kind == kind or (follows and follows.kind == frame.kind))
        if tag:
            tags_between = tags_between or kind is not None
            at += tag
        elif frame is None or not is_sure:
            at = data.find(b"\xff", at + 1)
            at = len(data) if at < 0 else at
        else:
            opening = data[at + frame.tag_at : at + frame.tag_at + 4] in (b"Xing", b"Info")
            opening = opening or data[at + 36 : at + 40] == b"VBRI"
            if opening or frame.kind != kind:
                parts.append([])
                is_counted = opening
            parts[-1].append((at, after))
            kind, at = frame.kind, after
    if parts and parts[-1][-1][1] > len(data) and not is_counted:
        message = f"{name}: its last frame is cut; compare its length with what you expect"
        warnings.warn(message, UserWarning, stacklevel=2)
    if len(parts) < 2 and not tags_between:
        return [handle]
    return [io.BytesIO(b"".join(data[start:stop] for start, stop in part)) for part in parts]
