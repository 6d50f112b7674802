"""Any folder of speech recordings, one speaker a folder or a file."""

from __future__ import annotations

from pathlib import Path

from avse_ppl.data.clips import UNKNOWN_SPEAKER, Clip
from avse_ppl.data.readers.folders import (
    is_held_out,
    is_media,
    is_video,
    require_clips,
    require_folder,
)

_ONE_IN = 20
_LAYOUT = "recordings: <folder>/<clip> or <folder>/<speaker>/<clip>"


def read_recordings(folder: str | Path) -> list[Clip]:
    """List the recordings of any folder.

    Where the clips lie in folders, each folder is a speaker, and one speaker in twenty is held out;
    where they do not, nothing says who speaks, and one clip in twenty is. Which ones is told by a
    hash of their names, so that it is the same on every machine.

    Parameters
    ----------
    folder : str or Path
        Holds sound or video files of one speaker each, of clean speech.

    Returns
    -------
    list of Clip
        Sorted by path; the corpus is called as the folder is.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    ValueError
        If it holds no clips.
    """
    folder = Path(folder)
    require_folder(folder, _LAYOUT)
    paths = require_clips(filter(is_media, folder.rglob("*")), folder, _LAYOUT)
    corpus, clips = folder.resolve().name, []
    for path in paths:
        inner = path.parent.relative_to(folder).as_posix()
        speaker = UNKNOWN_SPEAKER if inner == "." else f"{corpus}_{inner}"
        held_out = is_held_out(path.stem if inner == "." else inner, _ONE_IN)
        video = path if is_video(path) else None
        clips.append(Clip(path, corpus, speaker, "dev" if held_out else "train", video=video))
    return clips
