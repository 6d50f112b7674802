"""Files: outputs checked before the work that makes them and written atomically; JSON read."""

from __future__ import annotations

import itertools
import json
import os
import platform
import tempfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HOST = f"{zlib.crc32(platform.node().encode()):08x}"  # tells machines that share a folder apart
_NUMBERS = itertools.count()
_PART = ".part"
_LOCKS: set[int] = set()  # open folders


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file atomically: under a temporary name beside its place, then renamed.

    Readers see the old file or the complete new one, never half of it, also after a power cut.
    Where the block fails, what was written is removed, and a file that stood there before is left
    as it was; what killed processes left in the folder is removed by the next one. Several
    files are written together by nested blocks; the innermost is renamed first.

    Parameters
    ----------
    path
        Where the file will be; its folder exists.

    Yields
    ------
    Path
        Where to write meanwhile. It has another ending than `path`: name the format to a writer
        that takes it from the ending.

    Raises
    ------
    OSError
        If it cannot be renamed.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = Path(folder) / "settings.json"
    ...     with atomic_path(place) as temporary:
    ...         _ = temporary.write_text("{}")
    ...         before = place.exists()
    ...     before, [path.name for path in Path(folder).iterdir()]
    (False, ['settings.json'])
    """
    path = Path(path)
    remove_abandoned(path.parent)
    number = next(_NUMBERS)
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{number}{_PART}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # or a power cut may leave the new name on an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_abandoned(folder: str | os.PathLike[str]) -> None:
    """Remove what `is_abandoned` in a folder."""
    for name in os.listdir(folder):
        if name.endswith(_PART) and is_abandoned(name):
            Path(folder, name).unlink(missing_ok=True)


def is_abandoned(name: str) -> bool:
    """Whether a temporary file of `atomic_path` was left by a process of this machine that died.

    Those of other machines, which may share the folder, are left alone.

    Examples
    --------
    >>> is_abandoned(f".a.wav.{_HOST}-{os.getpid()}-0.part")
    False
    """
    host, _, rest = name.removesuffix(_PART).rpartition(".")[2].partition("-")
    process = rest.partition("-")[0]
    if host != _HOST or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def close_locks() -> None:
    """Close the locks that a forked child has from its parent, so that they end with the parent."""
    while _LOCKS:
        os.close(_LOCKS.pop())


os.register_at_fork(after_in_child=close_locks)


@contextmanager
def lock_folder(folder: str | os.PathLike[str], *, wait: bool = False) -> Iterator[Path]:
    """Keep other processes out of a folder that results are written into.

    The folder is made if it is missing, and removed again if nothing came of it. The lock is on the
    folder itself (``flock``) and ends with the process, however that ends: there are no lock files
    to be left behind. Where the file system has no such locks, nothing is locked.

    Parameters
    ----------
    folder
        Where results go.
    wait
        Whether to wait until the other process is done, instead of raising.

    Yields
    ------
    Path
        The folder.

    Raises
    ------
    BlockingIOError
        If another process, or another call in this one, holds the lock.
    OSError
        If the folder cannot be made.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder, lock_folder(folder):
    ...     with lock_folder(folder):
    ...         pass  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    BlockingIOError: another run is writing into '...'; wait until it has ended, or ...
    """
    import fcntl

    folder = Path(folder)
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    _LOCKS.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise BlockingIOError(
                f"another run is writing into '{folder}'; wait until it has ended, or choose "
                "another folder"
            ) from None
        except OSError:  # some network file systems have no locks
            pass
        yield folder
    finally:
        if handle in _LOCKS:  # not in a forked child
            _LOCKS.remove(handle)
            os.close(handle)
        with suppress(OSError):  # it holds something
            for place in made:
                place.rmdir()


def read_json(path: str | os.PathLike[str], kind: str = "JSON file") -> Any:
    """Read a JSON file of any content.

    Parameters
    ----------
    path
        The file.
    kind
        What it is to be, for messages.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is no JSON, not in UTF-8, or nested too deep to be any settings.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = Path(folder) / "settings.json"
    ...     _ = place.write_text('{"seed": 3}')
    ...     read_json(place)
    {'seed': 3}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no {kind} at {path}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise ValueError(
            f"{path} is not a {kind}, as it is not JSON: {reason}; it may be another kind of file, "
            "or cut short"
        ) from None


def write_figure(figure: Figure, path: Path, dpi: int = 120) -> Path:
    """Save a matplotlib figure atomically, in the format of its ending."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format=path.suffix.lower().removeprefix(".") or None)
    return path


def check_writable(path: str | os.PathLike[str], *, suffixes: Collection[str] = ()) -> Path:
    """Make sure that a file can be written, before long work whose result it would hold.

    Parameters
    ----------
    path
        Where the file will be. It is not created, and one already there is left alone.
    suffixes
        Accepted endings, such as ``SAVE_SUBTYPES`` for audio; none given accepts all.

    Raises
    ------
    ValueError
        If the ending is not accepted.
    OSError
        If the folder does not exist or cannot be written to, or the path is a folder.

    Examples
    --------
    >>> check_writable("enhanced.wav", suffixes=[".wav", ".flac"]).suffix
    '.wav'
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"expected a name ending in {', '.join(suffixes)}, found '{path}'")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write '{path}': it is a folder; add a file name")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write '{path}': make the folder '{path.parent}' first")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        reason = error.strerror or error
        raise PermissionError(
            f"cannot write '{path}': folder '{path.parent}' refuses new files ({reason}); "
            "choose another place"
        ) from error
    return path


def check_folder(path: str | Path) -> Path:
    """Make sure that files can be written into a folder, which need not exist yet.

    Parameters
    ----------
    path
        The folder; nothing is created.

    Raises
    ------
    OSError
        If it is a file, or it or the folder that it would be made in refuses new files.

    Examples
    --------
    >>> check_folder("results/enhanced").name
    'enhanced'
    """
    path = Path(path)
    standing = path
    while not standing.exists() and standing != standing.parent:
        standing = standing.parent
    if not standing.is_dir():
        raise NotADirectoryError(
            f"expected '{path}' to be a folder, but '{standing}' is a file; choose another place"
        )
    try:
        tempfile.TemporaryFile(dir=standing).close()
    except OSError as error:
        raise PermissionError(
            f"cannot write into '{path}': '{standing}' refuses new files "
            f"({error.strerror or error}); choose another place"
        ) from error
    return path


def check_apart(outputs: Iterable[str | Path | None], inputs: Iterable[str | Path] = ()) -> None:
    """Refuse outputs that would overwrite each other or an input.

    Parameters
    ----------
    outputs
        Where results go; None for those not asked for.
    inputs
        What is read.

    Raises
    ------
    ValueError
        If two of them are the same file.

    Examples
    --------
    >>> check_apart(["a.wav", None], ["b.wav"])
    >>> check_apart(["a.wav"], ["./a.wav"])
    Traceback (most recent call last):
    ValueError: the output 'a.wav' would overwrite an input; choose another name
    """
    read = {Path(path).resolve() for path in inputs}
    written: set[Path] = set()
    for path in outputs:
        if path is None:
            continue
        resolved = Path(path).resolve()
        if resolved in read:
            raise ValueError(f"the output '{path}' would overwrite an input; choose another name")
        if resolved in written:
            raise ValueError(f"two outputs have the name '{path}'; give each its own")
        written.add(resolved)
