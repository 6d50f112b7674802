"""Where golden values are kept, and how others are held against them.

``arrays.npz`` holds, of each case, 64 values of each of its arrays; ``digests.json`` the shape,
type, root mean square and sha256 of the whole arrays, and the texts. The values hold on any
machine, to a tolerance; the digests on one machine, with one set of libraries, to the bit.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ARRAYS, DIGESTS = HERE / "arrays.npz", HERE / "digests.json"
KEPT = 64  # values of each array
_GOLDEN = (np.sqrt(5) - 1) / 2


@dataclass
class Golden:
    """Stored values of all cases: a vector each, and what is said of the arrays it is from."""

    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Golden:
        """Read both files, or start empty where there are none."""
        if not (ARRAYS.is_file() and DIGESTS.is_file()):
            return cls()
        with np.load(ARRAYS) as stored:
            vectors = {name: stored[name] for name in stored.files}
        return cls(vectors, json.loads(DIGESTS.read_text()))

    def put(self, name: str, values: dict[str, Any]) -> None:
        """Replace the values of a case."""
        arrays, texts = parted(values)
        for key, array in arrays.items():
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: {key} holds values that are not finite")
        kept = [sample(array) for array in arrays.values()]
        self.vectors[name] = np.concatenate([np.zeros(0), *kept]).astype("float32")
        self.told[name] = {"arrays": {k: about(a) for k, a in arrays.items()}, "texts": texts}

    def save(self) -> None:
        """Write both files, each beside its place and then renamed."""
        names = sorted(self.told)
        beside = ARRAYS.with_name(f".{os.getpid()}.npz")
        np.savez_compressed(beside, **{name: self.vectors[name] for name in names})  # type: ignore[arg-type]
        os.replace(beside, ARRAYS)
        lines = [f"{json.dumps(name)}: {_json(self.told[name])}" for name in names]
        beside = DIGESTS.with_name(f".{os.getpid()}.json")
        beside.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        os.replace(beside, DIGESTS)

    def difference(self, name: str, values: dict[str, Any]) -> Difference:
        """Hold new values of a case against the stored ones."""
        if name not in self.told:
            return Difference(other=["has no stored values: python tests/golden/write.py " + name])
        arrays, texts = parted(values)
        told, found = self.told[name], Difference()
        for key in sorted(told["texts"]):  # what is new has no earlier value
            old, new = told["texts"].get(key), texts.get(key)
            if old != new:
                found.other.append(f"{key}: was {old!r}, is {new!r}")
        if list(told["arrays"]) != list(arrays):
            found.other.append(f"arrays were {list(told['arrays'])}, are {list(arrays)}")
            return found
        place = 0
        for key, array in arrays.items():
            old, new = told["arrays"][key], about(array)
            if (old["shape"], old["dtype"]) != (new["shape"], new["dtype"]):
                found.other.append(
                    f"{key}: was {old['dtype']} {old['shape']}, is {new['dtype']} {new['shape']}"
                )
                return found
            now = sample(array)
            then = self.vectors[name][place : place + len(now)]
            place += len(now)
            # Shares and counts that a sampler reports may all be 0.
            scale = max(old["rms"], 1.0) if key.startswith("stats.") else old["rms"]
            found.relative[key] = np.append(
                relative(now, then, scale), relative(new["rms"], old["rms"], scale)
            )
            if old["sha256"] != new["sha256"]:
                found.bits.append(key)
        return found


@dataclass
class Difference:
    """How values of a case differ from the stored ones.

    Parameters
    ----------
    relative
        Of each array, the difference of each kept value, over the root mean square of the array
        plus the value's own size; and last that of the root mean square.
    bits
        Arrays whose bytes differ.
    other
        Texts, names, shapes and types that differ, in words.
    """

    relative: dict[str, np.ndarray] = field(default_factory=dict)
    bits: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether everything is the same to the bit."""
        return not (self.bits or self.other)

    @property
    def largest(self) -> float:
        """Largest relative difference."""
        return max((float(d.max()) for d in self.relative.values()), default=0.0)

    def beyond(
        self, tolerance: float, spared: float = 0.0, held: Sequence[str] | None = None
    ) -> list[str]:
        """What differs by more than a tolerance, in words; see `tests.golden.cases.Case`."""
        far = [
            f"{key}: {(1 - inside).sum()} of {len(inside)} values, at most {apart.max():.2g}"
            for key, apart in self.relative.items()
            if held is None or key in held
            if (1 - (inside := apart <= tolerance)).mean() > spared  # NaN is not inside
        ]
        return self.other + far


def parted(values: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays, and texts."""
    texts = {k: v for k, v in values.items() if isinstance(v, str)}
    return {k: np.asarray(v) for k, v in values.items() if k not in texts}, texts


def about(array: np.ndarray) -> dict[str, Any]:
    """Shape, type, root mean square and digest of an array."""
    square = np.abs(array.astype("complex128")) ** 2
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "rms": float(f"{np.sqrt(square.mean()) if array.size else 0.0:.9g}"),
        "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
    }


def sample(array: np.ndarray) -> np.ndarray:
    """Up to 64 values, spread over the array without a period; complex ones as pairs."""
    flat = array.reshape(-1)
    if flat.size > KEPT:
        flat = flat[(np.arange(1, KEPT + 1) * _GOLDEN % 1.0 * flat.size).astype(int)]
    if np.iscomplexobj(flat):
        flat = np.stack([flat.real, flat.imag], axis=-1).reshape(-1)
    return flat.astype("float64")


def relative(new: Any, old: Any, scale: float) -> np.ndarray:
    """Differences over scale plus size."""
    new, old = np.atleast_1d(new), np.atleast_1d(old)
    return np.abs(new - old) / np.maximum(scale + np.abs(old), 1e-30)


def _json(told: dict[str, Any]) -> str:
    return json.dumps(told, sort_keys=False)
