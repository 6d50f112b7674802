"""Where results go: asked before the work that makes them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path


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
