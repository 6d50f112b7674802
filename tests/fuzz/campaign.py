"""Fuzz campaigns: mutants read one after another in a process of limited memory and time.

The library may refuse a mutant by an error of its own, which it raises itself and which names the
file, or read it. Anything else is a failure: a foreign exception or warning, output on stderr, an
insane result, a hang, a process that dies.
"""

from __future__ import annotations

import ast
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tests.fuzz.formats import FORMATS, InsaneError

LIMIT_S = 20.0
LIMIT_BYTES = 2 * 2**30
_ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = str(_ROOT / "avse_ppl")
_OWN_ERRORS = (ValueError, TypeError, OSError)
_START_S = 120.0


@dataclass(frozen=True)
class Finding:
    """One mutant and what came of it.

    Parameters
    ----------
    number
        Of the mutant in the campaign.
    format
        Name of its format.
    kind
        ``"read"`` or ``"refused"``, which are right; or ``"foreign error"``, ``"nameless error"``,
        ``"foreign warning"``, ``"stderr"`` (a traceback beside the result), ``"insane"``,
        ``"hang"``, ``"death"``.
    text
        The error, or what else is to be said.
    place
        File and line of the innermost frame of the library.
    seconds
        How long it took.
    """

    number: int
    format: str
    kind: str
    text: str = ""
    place: str = ""
    seconds: float = 0.0

    @property
    def is_failure(self) -> bool:
        """Whether the library did not behave."""
        return self.kind not in ("read", "refused")


def write_seeds(folder: Path, names: Sequence[str]) -> None:
    """Write the examples of formats, each in a folder of its own, and a list of them."""
    listed: dict[str, list[str]] = {}
    for name in names:
        place = folder / name
        place.mkdir(parents=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            listed[name] = [str(path.relative_to(folder)) for path in FORMATS[name].write(place)]
    (folder / "seeds.json").write_text(json.dumps(listed))


def make_mutant(
    folder: Path, names: Sequence[str], seed: int, number: int
) -> tuple[str, int, bytes]:
    """Make the mutant of a number: its format, which example it is of, and its bytes."""
    random = np.random.default_rng([seed, number])
    weights = np.array([FORMATS[name].weight for name in names], float)
    name = str(random.choice(np.array(names), p=weights / weights.sum()))
    one, examples = FORMATS[name], read_seeds(folder)
    family = [data for other in names if FORMATS[other].family == one.family
              for data in examples[other]]  # fmt: skip
    which = int(random.integers(len(examples[name])))
    return name, which, one.mutate(examples[name][which], random, family)


@lru_cache(maxsize=1)
def read_seeds(folder: Path) -> dict[str, list[bytes]]:
    """Read the examples of all formats."""
    listed = json.loads((folder / "seeds.json").read_text())
    return {
        name: [(folder / path).read_bytes() for path in paths] for name, paths in listed.items()
    }


# --- reading, within the process of limited means ------------------------------------------------


def examine(name: str, path: Path) -> tuple[str, str, str]:
    """Read a file, and judge: kind, text and place of a `Finding`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            FORMATS[name].read(path)
        except InsaneError as error:
            return "insane", str(error), ""
        except BaseException as error:
            return judge(error, path)
    for warning in caught:
        if warning.category is not UserWarning:
            return "foreign warning", f"{warning.category.__name__}: {warning.message}", (
                f"{Path(warning.filename).name}:{warning.lineno}"
            )  # fmt: skip
    return "read", "", ""


def judge(error: BaseException, path: Path) -> tuple[str, str, str]:
    """Tell the library's own errors from others."""
    text = f"{type(error).__name__}: {str(error)[:300]}"
    frames = list(list_frames(error.__traceback__))
    place = next((p for p in reversed(frames) if p[0].startswith(_PACKAGE)), ("", 0))
    where = f"{os.path.relpath(place[0], _ROOT)}:{place[1]}" if place[0] else ""
    file, line = frames[-1]
    raised = file.startswith(_PACKAGE) and line in list_raising_lines(file)
    if not (raised and isinstance(error, _OWN_ERRORS)):
        return "foreign error", text, where
    if path.name not in str(error) and path.parent.name not in str(error):
        return "nameless error", text, where
    return "refused", text, where


def list_frames(trace: TracebackType | None) -> Iterator[tuple[str, int]]:
    """List file and line of each frame, the outermost first."""
    for frame, line in traceback.walk_tb(trace):
        yield frame.f_code.co_filename, line


@lru_cache(maxsize=64)
def list_raising_lines(file: str) -> frozenset[int]:
    """List the lines of a file that belong to a ``raise``."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    return frozenset(
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    )


def serve(folder: Path, names: Sequence[str], seed: int, answers: int) -> None:
    """Read the mutants whose numbers come on stdin; an answer each, as a line of JSON."""
    with os.fdopen(answers, "w", buffering=1) as out:
        warm_up(folder, names)
        limit_memory()
        out.write("ready\n")
        for line in sys.stdin:
            number = int(line)
            name, which, data = make_mutant(folder, names, seed, number)
            path = place_mutant(folder, name, which, data)
            before, begin = os.fstat(2).st_size, time.monotonic()
            kind, text, place = examine(name, path)
            seconds = time.monotonic() - begin
            sys.stderr.flush()
            said = os.pread(2, 2000, before).decode(errors="replace")
            if kind in ("read", "refused") and ("Traceback" in said or "Exception" in said):
                kind, text = "stderr", said  # remarks of decoders, such as mpg123's, are theirs
            found = Finding(number, name, kind, text, place, seconds)
            out.write(json.dumps(asdict(found)) + "\n")


def place_mutant(folder: Path, name: str, which: int, data: bytes) -> Path:
    """Write a mutant in the place of its example, beside the files that belong to that."""
    example = folder / json.loads((folder / "seeds.json").read_text())[name][which]
    place = folder / "scratch" / f"{name}-{which}-{os.getpid()}"
    if not place.exists():
        shutil.copytree(example.parent, place)
    path = place / example.name
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return path


def warm_up(folder: Path, names: Sequence[str]) -> list[str]:
    """Read every example, which imports all that is needed; lists those that are not read."""
    listed = json.loads((folder / "seeds.json").read_text())
    wrong = []
    for name in names:
        for which, path in enumerate(listed[name]):
            place = place_mutant(folder, name, which, (folder / path).read_bytes())
            kind, *words = examine(name, place)
            wrong += [] if kind == "read" else [f"{path}: {kind}, {' '.join(words)}"]
    return wrong


def limit_memory() -> None:
    """Limit the memory of this process to what it has, and 2 GB."""
    status = Path("/proc/self/status").read_text().split()
    data = int(status[status.index("VmData:") + 1]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (data + LIMIT_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# --- the campaign, outside of it -----------------------------------------------------------------


class Reader:
    """A process that reads mutants, started anew after it dies or hangs."""

    def __init__(self, folder: Path, names: Sequence[str], seed: int) -> None:
        self.folder, self.names, self.seed = folder, names, seed
        self.process: subprocess.Popen[str] | None = None
        self.answers: Any = None
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `run`

    def start(self) -> None:
        """Start the process and wait until it has warmed up."""
        ours, theirs = os.pipe()
        arguments = [str(self.folder), ",".join(self.names), str(self.seed), str(theirs)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.campaign", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self.errors, text=True,
            pass_fds=[theirs], cwd=_ROOT, env=environment,
        )  # fmt: skip
        os.close(theirs)
        self.answers = os.fdopen(ours, "r", buffering=1)
        if self._wait(_START_S) != "ready\n":
            raise RuntimeError(f"the reading process did not start: {self._last_words()}")

    def read(self, number: int) -> Finding:
        """Read one mutant."""
        if self.process is None:
            self.start()
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        answer = self._wait(LIMIT_S)
        if answer:
            return Finding(**json.loads(answer))
        hangs = self.process.poll() is None and answer is None
        self.stop()
        name, *_ = make_mutant(self.folder, self.names, self.seed, number)
        if hangs:
            return Finding(number, name, "hang", f"over {LIMIT_S:g} s", seconds=LIMIT_S)
        return Finding(number, name, "death", self._last_words())

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdin is not None:
                with suppress(BrokenPipeError):
                    self.process.stdin.close()
            self.answers.close()
        self.process = None

    def _wait(self, limit_s: float) -> str | None:
        """Wait for a line; empty if the process has died, None if it takes too long."""
        ready, _, _ = select.select([self.answers], [], [], limit_s)
        return self.answers.readline() if ready else None

    def _last_words(self) -> str:
        code = self.process.returncode if self.process else None
        size = self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, size - 3000))
        text = self.errors.read().decode(errors="replace")
        return f"exit {code}: {text[-1500:]}"


def run(folder: Path, names: Sequence[str], seed: int, numbers: Sequence[int]) -> Iterator[Finding]:
    """Read mutants, and yield what came of each.

    Parameters
    ----------
    folder
        An empty folder for examples and mutants.
    names
        Of the formats.
    seed
        Of the mutations.
    numbers
        Which mutants: each is made from the seed and its number alone.
    """
    write_seeds(folder, names)
    reader = Reader(folder, names, seed)
    try:
        for number in numbers:
            yield reader.read(number)
    finally:
        reader.stop()
        reader.errors.close()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]), int(sys.argv[4]))
