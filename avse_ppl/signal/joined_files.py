"""Joined files: recordings that lie one after the other in a file, as ``cat`` puts them.

Players play them all; decoders stop after the first, and say nothing. `split_joined` finds where
each begins, so that each is decoded by itself, with its own start and end trimmed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import BinaryIO

from avse_ppl.signal.file_view import FileView
from avse_ppl.signal.mpeg import measure_id3, parse_frame, split_mpeg
from avse_ppl.signal.ogg import split_chain, walk_pages
from avse_ppl.signal.sound_header import SMALL, find_samples

_PIECE = 1 << 20  # bytes searched at once
_FLAC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # the marker, then a STREAMINFO of 34 bytes
_HEADERS = re.compile(  # of WAV, AIFF, AU, CAF, W64, NIST
    rb"(?:RIFF|RIFX|RF64).{4}WAVE|FORM.{4}AIF[FC]|\.snd\x00\x00[\x00-\x0f]"
    rb"|caff\x00\x01\x00\x00desc|riff\x2e\x91\xcf\x11|NIST_1A\n   1",
    re.DOTALL,
)


def split_joined(handle: BinaryIO, name: str = "the file") -> list[BinaryIO]:
    """Split a file into the recordings that were joined in it.

    Understands WAV, RF64, AIFF, AU, CAF, W64, NIST, FLAC, Ogg (all codecs) and MP3.

    Parameters
    ----------
    handle
        A seekable binary file.
    name
        What warnings call it.

    Returns
    -------
    list of BinaryIO
        The file itself where there is one recording, or it is of another kind; otherwise a view
        of each.

    Examples
    --------
    >>> import io, numpy as np, soundfile
    >>> file = io.BytesIO()
    >>> soundfile.write(file, np.zeros(8000), 16000, format="FLAC")
    >>> len(split_joined(io.BytesIO(2 * file.getvalue())))
    2
    """
    size = handle.seek(0, os.SEEK_END)
    handle.seek(0)
    head = handle.read(12)
    tag = measure_id3(head)
    handle.seek(tag)
    marker = handle.read(12)
    if head[:4] == b"OggS":
        starts = [link[0].start for link in split_chain(list(walk_pages(handle)))]
    elif marker[:4] == b"fLaC":
        starts = list(search(handle, _FLAC, tag))
    elif _HEADERS.match(head):
        samples = find_samples(handle)
        after = 12 if samples is None else samples.start
        if samples is not None and samples.length:  # none begins within the samples of another
            after = max(after, samples.start + samples.length - SMALL)
        starts = [0, *search(handle, _HEADERS, after)]
    elif parse_frame(marker) is not None:
        return split_mpeg(handle, name)
    else:
        starts = []
    if len(starts) < 2:
        return [handle]
    return [
        FileView(handle, start, stop)  # type: ignore[misc]
        for start, stop in zip([0, *starts[1:]], [*starts[1:], size], strict=True)
    ]


def search(handle: BinaryIO, pattern: re.Pattern[bytes], at: int = 0) -> Iterator[int]:
    """Search a file for a pattern of up to 12 bytes, from a position on."""
    handle.seek(at)
    data = handle.read(_PIECE)
    while len(data) >= 8:
        found = [match.start() for match in pattern.finditer(data)]
        more = handle.read(_PIECE)
        yield from (at + start for start in found if not more or start < len(data) - 11)
        at += max(0, len(data) - 11)
        data = data[-11:] + more if more else b""
