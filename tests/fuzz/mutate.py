"""Mutations of files: of their bytes, of JSON, of safetensors headers, of HDF5 and NPZ members."""

from __future__ import annotations

import copy
import io
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Random = np.random.Generator

_HEADER = 160  # bytes at the start that are hit as often as all others together
_BOUNDARY = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000)
_HUGE = (0xFFFFFFFF, 1 << 33, 1 << 35, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_TEXTS = ("", "\0", "nan", "../..", "é" * 3, "x" * 2000, "-1", "0:0:x", "🙂")
_NUMBERS = (0, -1, 1, 2, 1e308, -1e308, 2**31, 2**63, 2**64, 10**30, 1e-320, 0.5)
_CONSTANTS = (None, True, False, float("nan"), float("inf"), -float("inf"), [], {}, [[]], [None])


def mutate_bytes(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """Change bytes blindly: one to three faults, most often one, half of them near the start."""
    changed = bytearray(data)
    for _ in range(1 + int(random.integers(3)) * int(random.integers(2))):
        fault = _BYTE_FAULTS[int(random.integers(len(_BYTE_FAULTS)))]
        changed = fault(changed, random, others) if changed else bytearray(b"\0")
    return bytes(changed)


def pick_place(data: bytearray, random: Random) -> int:
    """Pick a position, as likely in the header as in all the rest."""
    end = min(_HEADER, len(data)) if random.random() < 0.5 else len(data)
    return int(random.integers(end))


def flip_bit(data: bytearray, random: Random, others: Sequence[bytes]) -> bytearray:
    """Flip one bit."""
    data[pick_place(data, random)] ^= 1 << int(random.integers(8))
    return data


def set_bytes(data: bytearray, random: Random, others: Sequence[bytes]) -> bytearray:
    """Set a run of up to eight bytes to 0, 255 or noise."""
    at, count = pick_place(data, random), 1 + int(random.integers(8))
    value = (b"\0", b"\xff", random.bytes(1))[int(random.integers(3))]
    data[at : at + count] = value * len(data[at : at + count])
    return data


def set_integer(data: bytearray, random: Random, others: Sequence[bytes]) -> bytearray:
    """Overwrite an integer of 16, 32 or 64 bits by one at a boundary, in either order."""
    size = (2, 4, 8)[int(random.integers(3))]
    values = (*_BOUNDARY, *_HUGE, len(data), len(data) + 1, len(data) * 2)
    value = values[int(random.integers(len(values)))] & ((1 << 8 * size) - 1)
    at = pick_place(data, random)
    packed = value.to_bytes(size, "little" if random.random() < 0.5 else "big")
    data[at : at + size] = packed[: len(data) - at]
    return data


def truncate(data: bytearray, random: Random, others: Sequence[bytes]) -> bytearray:
    """Cut the end off."""
    return data[: pick_place(data, random)]


def insert(data: bytearray, random: Random, others: Sequence[bytes]) -> bytearray:
    """Insert noise or zeros."""
    at, count = pick_place(data, random), 1 + int(random.integers(64))
    data[at:at] = random.bytes(count) if random.random() < 0.5 else bytes(count)
    return data


def remove(data: bytearray, random: Random, others: Sequence[bytes]) -> bytearray:
    """Take a stretch out."""
    at = pick_place(data, random)
    del data[at : at + 1 + int(random.integers(64))]
    return data


def move_block(data: bytearray, random: Random, others: Sequence[bytes]) -> bytearray:
    """Write a block of the file over, or into, another place of it."""
    begin, at = pick_place(data, random), pick_place(data, random)
    block = data[begin : begin + 4 + int(random.integers(512))]
    data[at : at + (len(block) if random.random() < 0.5 else 0)] = block
    return data


def splice(data: bytearray, random: Random, others: Sequence[bytes]) -> bytearray:
    """Go on as another file, or as itself from elsewhere."""
    other = bytearray(others[int(random.integers(len(others)))]) if others else data
    return data[: pick_place(data, random)] + other[pick_place(other, random) :]


_BYTE_FAULTS: tuple[Callable[[bytearray, Random, Sequence[bytes]], bytearray], ...] = (
    flip_bit, flip_bit, set_bytes, set_bytes, set_integer, set_integer, set_integer,
    truncate, insert, remove, move_block, splice,
)  # fmt: skip


# --- text ----------------------------------------------------------------------------------------


def mutate_value(value: Any, random: Random) -> Any:
    """Change one value somewhere in a JSON value; its type, its size, its keys."""
    if isinstance(value, (dict, list)) and value and random.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[int(random.integers(len(keys)))]
        if random.random() < 0.15:
            del value[key]
        else:
            value[key] = mutate_value(value[key], random)
        return value
    if isinstance(value, dict) and random.random() < 0.3:
        return {**value, _TEXTS[int(random.integers(len(_TEXTS)))]: 1}
    kind = int(random.integers(5))
    if kind == 0:
        return _TEXTS[int(random.integers(len(_TEXTS)))]
    if kind == 1:
        return _NUMBERS[int(random.integers(len(_NUMBERS)))]
    if kind == 2:
        return copy.deepcopy(_CONSTANTS[int(random.integers(len(_CONSTANTS)))])  # changed next
    if kind == 3 and isinstance(value, (int, float)) and not isinstance(value, bool):
        return value * (-1, 2, 1000, 1e6, 0.5)[int(random.integers(5))]
    return {"a": value} if random.random() < 0.5 else [value]


def mutate_json(text: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """Change a JSON text: mostly a value of it, else its bytes, rarely its depth."""
    fate = random.random()
    if fate < 0.3:
        return mutate_bytes(text, random, others)
    if fate < 0.33:
        depth = 10 ** int(random.integers(2, 6))
        return b"[" * depth + b"1" + b"]" * depth * int(random.integers(2))
    value = json.loads(text)
    for _ in range(1 + int(random.integers(2))):
        value = mutate_value(value, random)
    return json.dumps(value).encode()


def mutate_lines(text: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """Change JSON lines: one of them, their order or their ends."""
    lines = text.splitlines()
    which = int(random.integers(len(lines)))
    fate = random.random()
    if fate < 0.6:
        lines[which] = mutate_json(lines[which], random, others)
    elif fate < 0.7:
        lines[which] = lines[which][: int(random.integers(len(lines[which])))]
    elif fate < 0.8:
        lines.insert(which, lines[int(random.integers(len(lines)))])
    else:
        return mutate_bytes(text, random, others)
    return b"\n".join(lines) + b"\n" * int(random.integers(2))


# --- files with an inner structure ---------------------------------------------------------------


def mutate_safetensors(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """Change the JSON header of safetensors, the length before it, or any bytes."""
    fate = random.random()
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    if fate < 0.4:
        return mutate_bytes(data, random, others)
    if fate < 0.5:
        values = (*_BOUNDARY, *_HUGE, length - 1, length + 1, len(data))
        return struct.pack("<Q", values[int(random.integers(len(values)))]) + header + rest
    if fate < 0.6:  # NaN and the like, in the right place
        at = int(random.integers(len(rest) // 4)) * 4
        value = (np.nan, np.inf, 3e38, 1e-40)[int(random.integers(4))]
        rest = rest[:at] + np.float32(value).tobytes() + rest[at + 4 :]
        return data[: 8 + length] + rest
    header = mutate_json(header, random, others)
    return struct.pack("<Q", len(header)) + header + rest


def mutate_hdf5(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """Remove, rename or replace a group, an array or an attribute of HDF5; or change any bytes."""
    if random.random() < 0.6:
        return mutate_bytes(data, random, others)
    import h5py

    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        place = file[names[int(random.integers(len(names)))]] if random.random() < 0.7 else file
        fate = random.random()
        if fate < 0.5 and len(place.attrs):
            key = list(place.attrs)[int(random.integers(len(place.attrs)))]
            value = place.attrs[key]
            try:
                change_attribute(place, key, value, random)
            except (TypeError, ValueError, OSError, RuntimeError, KeyError, OverflowError):
                place.attrs[key] = "changed"
        elif place.name != "/" and fate < 0.65:
            del file[place.name]
        elif isinstance(place, h5py.Dataset):
            change_dataset(file, place, random)
        elif place.name != "/":
            file.move(place.name, f"{place.name}x")
        else:
            del file[list(file)[int(random.integers(len(file)))]]
    return buffer.getvalue()


def change_attribute(place: Any, key: str, value: Any, random: Random) -> None:
    """Change an attribute of HDF5: a JSON text inside, another type, or take it away."""
    fate = random.random()
    if fate < 0.2 or not isinstance(value, str):
        del place.attrs[key]
        if fate > 0.1:
            place.attrs[key] = _NUMBERS[int(random.integers(3))]
    elif value.startswith("{"):
        place.attrs[key] = mutate_json(value.encode(), random).decode(errors="replace")
    else:
        place.attrs[key] = _TEXTS[int(random.integers(len(_TEXTS)))]


def change_dataset(file: Any, place: Any, random: Random) -> None:
    """Replace an array of HDF5 by one of another type, shape or content; links stay behind."""
    values, name = np.asarray(place[()]), place.name
    attributes = {
        key: value
        for key, value in place.attrs.items()
        if key not in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME")
    }
    if random.random() < 0.3 and values.dtype.kind in "fi":  # in place
        place[...] = np.full_like(values, (0, -1, np.nan, np.inf, 1e30)[int(random.integers(2))])
        return
    del file[name]
    new = file.create_dataset(name, data=change_array(values, random))
    new.attrs.update(attributes)


def change_array(values: np.ndarray, random: Random) -> np.ndarray:
    """Another type, shape or content."""
    fate = int(random.integers(7))
    if fate == 0:
        return values[..., :-1] if values.ndim and values.shape[-1] else values[None]
    if fate == 1:
        return values[:0] if values.ndim else values
    if fate == 2:
        return values.reshape(-1)
    if fate == 3:
        return np.full(values.shape, np.nan)
    if fate == 4:
        return np.full(values.shape, -7, np.int64)
    if fate == 5:
        return np.full(values.shape, b"text", "S4")
    return values.astype(np.float64) * 1e200 if values.dtype.kind in "fiu" else values[None]


def mutate_npz(data: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """Change, add or leave out an array of an ``.npz``; or change any bytes."""
    if random.random() < 0.5:
        return mutate_bytes(data, random, others)
    with np.load(io.BytesIO(data)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    name = list(arrays)[int(random.integers(len(arrays)))]
    if random.random() < 0.2:
        del arrays[name]
    elif name == "extras":
        text = mutate_json(arrays[name].tobytes(), random)
        arrays[name] = np.frombuffer(text, np.uint8)
    elif name == "offsets" and random.random() < 0.6:
        offsets = arrays[name].copy()
        values = (-1, 0, 10**9, int(offsets[-1]) + 1)
        offsets[int(random.integers(len(offsets)))] = values[int(random.integers(4))]
        arrays[name] = offsets
    else:
        arrays[name] = change_array(arrays[name], random)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
