"""Listing of media files, transcripts, held-out speakers, and errors for other folders."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

MEDIA_SUFFIXES = frozenset(
    {".mkv", ".mp4", ".mpg", ".avi", ".mov", ".webm", ".opus", ".ogg", ".flac", ".wav"}
)
VIDEO_SUFFIXES = frozenset({".mkv", ".mp4", ".mpg", ".avi", ".mov", ".webm"})

_Key = TypeVar("_Key", Path, tuple[str, str])


def require_clips(paths: Iterable[_Key], folder: Path, layout: str) -> list[_Key]:
    """Sort the clips of a folder; raises ``ValueError`` if there is none."""
    listed = sorted(paths)
    if not listed:
        raise make_empty_error(folder, layout)
    return listed


def make_empty_error(folder: Path, layout: str) -> ValueError:
    """Make the error for a folder without clips: what was expected, and what is there."""
    return ValueError(f"no clips in {folder}; expected {layout}; found {describe_contents(folder)}")


def is_media(path: Path) -> bool:
    """Whether a path is a file with the ending of sound or video."""
    return path.suffix.lower() in MEDIA_SUFFIXES and path.is_file()


def is_video(path: Path) -> bool:
    """Whether a path has the ending of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def group_by_stem(paths: Iterable[Path]) -> list[list[Path]]:
    """Group the files of each folder that differ only in their ending, by name."""
    stems: dict[Path, list[Path]] = {}
    for path in paths:
        stems.setdefault(path.with_suffix(""), []).append(path)
    return [stems[stem] for stem in sorted(stems)]


def read_transcript(path: Path) -> str:
    """Read the transcript in the ``.txt`` beside a clip; ``""`` where there is none.

    The first line counts, without the ``Text:`` of LRS3 and the two sample numbers of TIMIT.
    """
    text = path.with_suffix(".txt")
    if not text.is_file():
        return ""
    line, *_ = [*text.read_text(encoding="utf-8").splitlines(), ""]
    return re.sub(r"^(Text:|\d+\s+\d+\s)\s*", "", line.strip()).strip()


def is_held_out(name: str, one_in: int) -> bool:
    """Whether a speaker is held out, by a hash of the name: the same on every machine.

    Examples
    --------
    >>> sum(is_held_out(str(number), 20) for number in range(1000))
    42
    """
    return zlib.crc32(name.encode()) % one_in == 0


def require_folder(folder: Path, layout: str) -> None:
    """Raise ``FileNotFoundError`` unless the folder is there."""
    if not folder.is_dir():
        there = "a file" if folder.exists() else "nothing"
        raise FileNotFoundError(f"no folder {folder} (found {there}); expected {layout}")


def describe_contents(folder: Path) -> str:
    """Describe what a folder holds, by its first names."""
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} entries: {shown}" if names else "an empty folder"
