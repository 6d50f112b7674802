"""Files that a run of enhancement reads and writes, planned and checked before it starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avse_ppl.signal.audio import SAVE_SUBTYPES
from avse_ppl.signal.demuxer import open_container
from avse_ppl.signal.media import open_media
from avse_ppl.utils.files import check_apart, check_folder, check_writable

_AUDIO = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
_VIDEO = (".m4a", ".aac", ".mkv", ".mp4", ".m4v", ".mov", ".webm", ".avi", ".mpg", ".mpeg")
RECORDING_SUFFIXES = frozenset((*_AUDIO, *_VIDEO))


@dataclass(frozen=True)
class Job:
    """One recording: where it is, and where its enhancement and posterior go."""

    input: Path
    output: Path
    posterior: Path | None = None


@dataclass(frozen=True)
class JobPlan:
    """Recordings to enhance.

    Parameters
    ----------
    jobs
        One a recording.
    folder
        Where several recordings go and the resume log is kept; None for one recording to one file.
    """

    jobs: tuple[Job, ...]
    folder: Path | None = None


def plan_jobs(
    inputs: Sequence[str | Path], output: str | Path, posterior: str | Path | None = None
) -> JobPlan:
    """Assign output files to recordings, and refuse what cannot work before anything is done.

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
    ...     [job.output.name for job in plan_jobs([name], Path(name, "enhanced")).jobs]
    ['b.wav', 'c.wav']
    """
    if not inputs:
        raise ValueError("expected one recording or more, found none")
    nc = None if posterior is None else Path(posterior)
    several = len(inputs) > 1 or Path(inputs[0]).is_dir()
    slashed = str(output).endswith(("/", os.sep))
    output = Path(output)

    # One recording to one file.
    if not several and not slashed and not output.is_dir():
        source = Path(inputs[0])
        check_writable(output, suffixes=SAVE_SUBTYPES)
        if nc is not None:
            check_writable(nc, suffixes=[".nc"])
        check_apart([output, nc], [source])
        return JobPlan((Job(source, output, nc),))

    # Several to a folder.
    for folder in (output, nc):
        if folder is None:
            continue
        if folder.suffix.lower() in (*SAVE_SUBTYPES, ".nc") and not folder.is_dir():
            raise ValueError(f"several recordings go to a folder, but '{folder}' names a file")
        check_folder(folder)
    sources = [path for given in inputs for path in list_recordings(Path(given))]
    names: dict[str, Path] = {}
    for source in sources:
        if source.stem in names:
            raise ValueError(
                f"'{names[source.stem]}' and '{source}' would both go to "
                f"'{output / source.stem}.wav'; rename one, or enhance them into two folders"
            )
        names[source.stem] = source
    jobs = tuple(
        Job(source, output / f"{stem}.wav", nc / f"{stem}.nc" if nc else None)
        for stem, source in names.items()
    )
    check_apart((job.output for job in jobs), sources)
    return JobPlan(jobs, output)


def list_recordings(path: Path) -> list[Path]:
    """Recordings in a folder, by name; a file stands for itself.

    Raises
    ------
    ValueError
        If the folder holds none.
    """
    if not path.is_dir():
        return [path]
    recordings = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in RECORDING_SUFFIXES
        and file.is_file()
        and not file.name.startswith(".")
    )
    if not recordings:
        raise ValueError(
            f"no recording in '{path}': expected files ending in .wav, .flac, .ogg, .mp3, .mp4 or "
            "the like; folders in it are not searched"
        )
    return recordings


def measure_duration(path: Path) -> float:
    """Seconds of audio by the header, channels added up; 0 where it cannot be read."""
    import soundfile

    try:
        info = soundfile.info(str(path))
        if info.frames < 2**62:  # more: a FLAC file that was written to a pipe
            return info.duration * info.channels
    except (soundfile.LibsndfileError, OSError):
        pass
    try:
        with open_media(path) as (handle, name), open_container(handle, name, "audio") as media:
            return (media.container.duration or 0) / 1e6
    except (ValueError, OSError):
        return 0.0
