"""LRW-AR: news readers saying one or a few Arabic words."""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources
from pathlib import Path

from avse_ppl.data.clips import UNKNOWN_SPEAKER, Clip
from avse_ppl.data.readers.folders import (
    is_media,
    is_video,
    read_transcript,
    require_clips,
    require_folder,
)

IDENTITIES = "lrw_ar_identities.tsv"
_LEFT_OUT = "out"
_LAYOUT = "LRW-AR: <folder>/*.mp4, or *.mp4 in folders below it"


def read_lrw_ar(folder: str | Path) -> list[Clip]:
    """List the LRW-AR clips, split by the face of the speaker.

    The corpus does not say who speaks. For 1961 of its clips a table in the package does, made
    from video frames: faces aligned by their keypoints, described by the directions of their edges,
    coarse grey levels and colours, clustered, the descriptors made to tell the clusters apart
    (linear discriminants), clustered again, and looked at. Five people, who were far from all
    others by each measure, are the development split; clips in which one of them may be hidden
    (by hair before the face, or a look down) are left out. Among the training clips, one name may
    still be given to two people or two names to one.

    Clips that the table does not have, by name and size, are training clips of an unknown
    speaker: check that they do not show a person who is held out.

    Parameters
    ----------
    folder : str or Path
        Holds ``*.mp4`` files at any depth.

    Returns
    -------
    list of Clip
        Sorted by path.

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
    clips = [make_clip(path) for path in paths]
    return [clip for clip in clips if clip is not None]


def make_clip(path: Path) -> Clip | None:
    """Make the clip of a video; None for one that is left out."""
    identity, split = load_identities().get((path.stem, path.stat().st_size), ("", "train"))
    if split == _LEFT_OUT:
        return None
    speaker = f"lrw_ar_{identity}" if identity else UNKNOWN_SPEAKER
    return Clip(
        path,
        "lrw_ar",
        speaker,
        split,
        video=path if is_video(path) else None,
        transcript=read_transcript(path),
    )


@cache
def load_identities() -> dict[tuple[str, int], tuple[str, str]]:
    """Read the table: name and size in bytes of a clip to identity and split.

    Examples
    --------
    >>> sorted({split for _, split in load_identities().values()})
    ['dev', 'out', 'train']
    """
    table = resources.files("avse_ppl.data").joinpath(IDENTITIES)
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines(), delimiter="\t")
    return {(r["clip"], int(r["bytes"])): (r["identity"], r["split"]) for r in rows}
