"""What the readers share: which files are media, and what to say of a folder that is not it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

MEDIA_SUFFIXES = frozenset(
    {".mkv", ".mp4", ".mpg", ".avi", ".mov", ".webm", ".opus", ".ogg", ".flac", ".wav"}
)
VIDEO_SUFFIXES = frozenset({".mkv", ".mp4", ".mpg", ".avi", ".mov", ".webm"})


def media(folder: Path, layout: str) -> list[Path]:
    """List the media files that lie in a folder directly, by name.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    ValueError
        If it holds none.
    """
    require_folder(folder, layout)
    return found(filter(is_media, folder.iterdir()), folder, layout)


def found(paths: Iterable[Path], folder: Path, layout: str) -> list[Path]:
    """Sort what was found in a folder; raises ``ValueError`` if it is nothing."""
    listed = sorted(paths)
    if not listed:
        raise nothing(folder, layout)
    return listed


def nothing(folder: Path, layout: str) -> ValueError:
    """Make the error for a folder without clips: what was expected, and what is there."""
    return ValueError(f"no clips in {folder}; expected {layout}; found {contents(folder)}")


def is_media(path: Path) -> bool:
    """Whether a path is a file with the ending of sound or video."""
    return path.suffix.lower() in MEDIA_SUFFIXES and path.is_file()


def video_of(path: Path) -> Path | None:
    """The file itself if its ending is that of a video, or None."""
    return path if path.suffix.lower() in VIDEO_SUFFIXES else None


def require_folder(folder: Path, layout: str) -> None:
    """Raise ``FileNotFoundError`` unless the folder is there."""
    if not folder.is_dir():
        there = "a file" if folder.exists() else "nothing"
        raise FileNotFoundError(f"no folder {folder} (found {there}); expected {layout}")


def contents(folder: Path) -> str:
    """Say what a folder holds, by its first names."""
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} entries: {shown}" if names else "an empty folder"
