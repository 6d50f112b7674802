"""LRS3: sentences out of TED talks."""

from __future__ import annotations

from pathlib import Path

from avse_ppl.data.clips import Clip
from avse_ppl.data.readers.folders import (
    is_held_out,
    read_transcript,
    require_clips,
    require_folder,
)

_PARTS = ("pretrain", "trainval", "test")
_LAYOUT = "LRS3: <folder>/{pretrain,trainval,test}/<speaker>/00001.mp4 and 00001.txt"


def read_lrs3(folder: str | Path) -> list[Clip]:
    """List the LRS3 clips.

    ``test`` is the test split; of the speakers of ``pretrain`` and ``trainval``, one in twenty is
    the development split, and the same in both.

    Parameters
    ----------
    folder : str or Path
        Holds one or more of the folders ``pretrain``, ``trainval`` and ``test``.

    Returns
    -------
    list of Clip
        Sorted by path, with transcript where there is one.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    ValueError
        If it holds no clips.

    References
    ----------
    Afouras, Chung and Zisserman, "LRS3-TED: a large-scale dataset for visual speech recognition",
    arXiv:1809.00496, 2018.
    """
    folder = Path(folder)
    require_folder(folder, _LAYOUT)
    paths = [path for part in _PARTS for path in folder.glob(f"{part}/*/*.mp4")]
    return [make_clip(path) for path in require_clips(paths, folder, _LAYOUT)]


def make_clip(path: Path) -> Clip:
    """Make the clip of ``<part>/<speaker>/<clip>.mp4``."""
    speaker, part = path.parts[-2], path.parts[-3]
    split = "test" if part == "test" else "dev" if is_held_out(speaker, 20) else "train"
    return Clip(
        path, "lrs3", f"lrs3_{speaker}", split, video=path, transcript=read_transcript(path)
    )
