"""What a batch reads and writes, laid out before any of it is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avse_ppl.signal.audio import SAVE_SUBTYPES
from avse_ppl.utils.files import check_apart, check_folder, check_writable

_SOUND = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
_VIDEO = (".m4a", ".aac", ".mkv", ".mp4", ".m4v", ".mov", ".webm", ".avi", ".mpg", ".mpeg")
RECORDING_SUFFIXES = frozenset((*_SOUND, *_VIDEO))


@dataclass(frozen=True)
class Job:
    """One recording: where it is, and where its enhancement and posterior go."""

    input: Path
    output: Path
    posterior: Path | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Parameters
    ----------
    jobs
        One a recording.
    folder
        Where several recordings go and the ledger is kept; None for one recording to one file.
    """

    jobs: tuple[Job, ...]
    folder: Path | None = None


def plan(
    inputs: Sequence[str | Path], output: str | Path, posterior: str | Path | None = None
) -> Plan:
    """Lay out what goes where, and refuse what cannot work, before anything is done.

    Parameters
    ----------
    inputs
        Recordings, or folders of them (not searched in depth).
    output
        A file for one recording. For several, or a folder of them, a folder: ``a/b.flac`` goes to
        ``output/b.wav``.
    posterior
        A file ending in ``.nc``, or for several recordings a folder; None to keep no posterior.

    Raises
    ------
    ValueError
        If nothing is given, a folder holds no recording, two recordings would go to one file or one
        over its own input, or a name does not fit.
    OSError
        If an input is missing or an output cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     _ = Path(name, "b.flac").touch(), Path(name, "c.wav").touch()
    ...     [job.output.name for job in plan([name], Path(name, "enhanced")).jobs]
    ['b.wav', 'c.wav']
    """
    if not inputs:
        raise ValueError("expected one recording or more, found none")
    several = len(inputs) > 1 or Path(inputs[0]).is_dir()
    slashed = str(output).endswith(("/", os.sep))
    if not several and not slashed and not Path(output).is_dir():
        return _one(Path(inputs[0]), Path(output), posterior)
    return _several([Path(path) for path in inputs], Path(output), posterior)


def _one(source: Path, output: Path, posterior: str | Path | None) -> Plan:
    check_writable(output, suffixes=SAVE_SUBTYPES)
    nc = None if posterior is None else check_writable(posterior, suffixes=[".nc"])
    check_apart([output, nc], [source])
    return Plan((Job(source, output, nc),))


def _several(inputs: list[Path], output: Path, posterior: str | Path | None) -> Plan:
    for folder in (output, None if posterior is None else Path(posterior)):
        if folder is None:
            continue
        if folder.suffix.lower() in (*SAVE_SUBTYPES, ".nc") and not folder.is_dir():
            raise ValueError(f"several recordings go to a folder, but '{folder}' names a file")
        check_folder(folder)
    sources = [path for given in inputs for path in _recordings(given)]
    names: dict[str, Path] = {}
    for source in sources:
        if source.stem in names:
            raise ValueError(
                f"'{names[source.stem]}' and '{source}' would both go to "
                f"'{output / source.stem}.wav'; rename one, or enhance them into two folders"
            )
        names[source.stem] = source
    nc = None if posterior is None else Path(posterior)
    jobs = tuple(
        Job(source, output / f"{stem}.wav", nc / f"{stem}.nc" if nc else None)
        for stem, source in names.items()
    )
    check_apart((job.output for job in jobs), sources)
    return Plan(jobs, output)


def _recordings(given: Path) -> list[Path]:
    """Find the recordings that a name on the command line stands for."""
    if not given.is_dir():
        return [given]
    found = sorted(
        path
        for path in given.iterdir()
        if path.suffix.lower() in RECORDING_SUFFIXES
        and path.is_file()
        and not path.name.startswith(".")
    )
    if not found:
        raise ValueError(
            f"no recording in '{given}': expected files ending in .wav, .flac, .ogg, .mp3, .mp4 or "
            "the like; folders in it are not searched"
        )
    return found
