"""WAV files and raw samples in pipes: read as they come, written without going back."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from avse_ppl.signal.sound_header import name_unknown

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_CODES = MappingProxyType(
    {
        (_PCM, 8): "u8",
        (_PCM, 16): "s16",
        (_PCM, 24): "s24",
        (_PCM, 32): "s32",
        (_FLOAT, 32): "f32",
        (_FLOAT, 64): "f64",
    }
)
_BYTES = MappingProxyType({code: bits // 8 for (_, bits), code in _CODES.items()})
_UNKNOWN = 0xFFFFFFFF
_AT_ONCE = 1 << 16  # bytes
_LONGEST = 1 << 20  # of a chunk before the samples, bytes
_MOST_CHANNELS = 64


@dataclass(frozen=True)
class SampleStream:
    """What a header says about the samples after it.

    Parameters
    ----------
    sample_rate_hz, channels
        Rate and number of channels.
    code
        ``"u8"``, ``"s16"``, ``"s24"``, ``"s32"``, ``"f32"`` or ``"f64"``, little-endian.
    count
        Number of samples of each channel; None: unknown, as in a pipe.
    """

    sample_rate_hz: int
    channels: int = 1
    code: str = "s16"
    count: int | None = None

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * _BYTES[self.code]


def read_wav_header(source: BinaryIO) -> SampleStream:
    """Read the header of a WAV file from a pipe, up to its first sample.

    A length of 0, or of what programs write into a pipe, is an unknown one.

    Raises
    ------
    ValueError
        If it is no WAV file, ends early, or has samples of another kind.

    Examples
    --------
    >>> import io
    >>> header = make_wav_header(SampleStream(48000, channels=2, code="f32"))
    >>> read_wav_header(io.BytesIO(header))
    SampleStream(sample_rate_hz=48000, channels=2, code='f32', count=None)
    """
    head = source.read(12)
    if not head:
        raise ValueError(
            "stdin is empty; expected a WAV file, or name the format of raw samples "
            "(--stream-format)"
        )
    if head[:4] != b"RIFF" or not b"WAVE".startswith(head[8:12]):
        raise ValueError(
            f"stdin begins with {head[:12]!r}; expected a WAV file (RIFF ... WAVE), or name the "
            "format of raw samples (--stream-format)"
        )
    form = b""
    while True:
        name, length = struct.unpack("<4sI", read_exactly(source, 8))
        if name == b"data":
            break
        if length > _LONGEST:
            raise ValueError(
                f"the WAV header on stdin has {length} bytes of {name!r} before the samples; "
                "is it damaged?"
            )
        content = read_exactly(source, length + length % 2)
        form = content if name == b"fmt " else form
    if len(form) < 16:
        raise ValueError("the WAV header on stdin does not say what its samples are ('fmt ')")
    kind, channels, rate_hz, _, _, bits = struct.unpack("<HHIIHH", form[:16])
    if kind == _EXTENSIBLE and len(form) >= 26:
        kind = int.from_bytes(form[24:26], "little")
    code = _CODES.get((kind, bits))
    if code is None or not 1 <= channels <= _MOST_CHANNELS:
        raise ValueError(
            f"the WAV file on stdin has {channels} channels of {bits} bits of format {kind}; "
            f"expected PCM of 8, 16, 24 or 32 bits, or float of 32 or 64; 1 to "
            f"{_MOST_CHANNELS} channels"
        )
    known = name_unknown(length) or None
    stream = SampleStream(rate_hz, channels, code)
    return SampleStream(rate_hz, channels, code, known and known // stream.frame_bytes)


def make_wav_header(stream: SampleStream) -> bytes:
    """Header of a WAV file of PCM or float samples, up to the first one.

    An unknown length, or one above 4 GB, is written as FFFFFFFF, as other programs do in pipes.
    """
    width = _BYTES[stream.code]
    kind = _FLOAT if stream.code.startswith("f") else _PCM
    form = struct.pack(
        "<HHIIHH", kind, stream.channels, stream.sample_rate_hz,
        stream.sample_rate_hz * stream.frame_bytes, stream.frame_bytes, 8 * width,
    )  # fmt: skip
    form += b"" if kind == _PCM else bytes(2)  # other kinds have a field for an extension
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data"
    length = _UNKNOWN if stream.count is None else stream.count * stream.frame_bytes
    whole = len(chunks) + 4 + length
    if whole >= _UNKNOWN:
        length = whole = _UNKNOWN
    return b"RIFF" + struct.pack("<I", whole) + chunks + struct.pack("<I", length)


def read_sample_blocks(source: Any, stream: SampleStream) -> Iterator[np.ndarray]:
    """Yield samples ``(channel, sample)``, float32, as they come, at most 64 KiB at once.

    What follows the stated number of samples is read and left out.

    Warns
    -----
    UserWarning
        If there are fewer samples than stated, or the last one is not whole.
    """
    width, rest = stream.frame_bytes, b""
    missing = None if stream.count is None else stream.count * width
    while missing is None or missing > 0:
        data = source.read1(_AT_ONCE if missing is None else min(_AT_ONCE, missing))
        if not data:
            break
        missing = None if missing is None else missing - len(data)
        data = rest + data
        whole = len(data) // width * width
        rest = data[whole:]
        if whole:
            yield decode_samples(data[:whole], stream.code).reshape(-1, stream.channels).T
    if missing:
        message = f"stdin ended {missing} bytes before the end that its header states"
        warnings.warn(message, UserWarning, stacklevel=2)
    elif rest:
        message = f"the last {len(rest)} bytes of stdin are no whole sample and are left out"
        warnings.warn(message, UserWarning, stacklevel=2)
    while missing == 0 and source.read1(_AT_ONCE):  # so that who writes them is not cut off
        pass


def decode_samples(data: bytes, code: str) -> np.ndarray:
    """Samples as float32 of full scale 1.

    Examples
    --------
    >>> decode_samples(bytes([0, 0, 64, 0, 0, 128]), "s24")
    array([ 0.5, -1. ], dtype=float32)
    """
    if code.startswith("f"):
        return np.frombuffer(data, f"<f{_BYTES[code]}").astype(np.float32)
    if code == "u8":
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128.0) / 128.0
    if code == "s24":  # the three upper bytes of four
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    width = _BYTES[code]
    return (np.frombuffer(data, f"<i{width}") / 2.0 ** (8 * width - 1)).astype(np.float32)


def encode_samples(samples: np.ndarray, code: str) -> bytes:
    """Samples as ``"s16"``, clipped at full scale, or ``"f32"``.

    Examples
    --------
    >>> encode_samples(np.array([0.5, -2.0]), "s16").hex()
    '00400080'
    """
    if code == "f32":
        return np.ascontiguousarray(samples, "<f4").tobytes()
    scaled = np.rint(np.asarray(samples, np.float64) * 32768.0)
    return np.clip(scaled, -32768, 32767).astype("<i2").tobytes()


def read_exactly(source: BinaryIO, count: int) -> bytes:
    """Read so many bytes of a header.

    Raises
    ------
    ValueError
        If there are fewer.
    """
    data = source.read(count)
    if len(data) < count:
        raise ValueError("the WAV header on stdin ends before the samples begin")
    return data
