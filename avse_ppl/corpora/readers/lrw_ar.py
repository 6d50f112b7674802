"""LRW-AR: news readers saying one or a few Arabic words."""

from __future__ import annotations

from pathlib import Path

from avse_ppl.corpora.clips import UNKNOWN_SPEAKER, Clip
from avse_ppl.corpora.readers.folders import media


def read_lrw_ar(folder: str | Path) -> list[Clip]:
    """List the LRW-AR clips, all as training clips of an unknown speaker.

    The corpus does not say who speaks. Until the faces have been clustered into identities
    no split by speaker is possible, so all clips are ``"train"``: hold none of them out and
    call it an unseen speaker.

    Parameters
    ----------
    folder : str or Path
        Holds ``*.mp4`` files directly.

    Returns
    -------
    list of Clip
        Sorted by name.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    ValueError
        If it holds no clips.
    """
    paths = media(Path(folder), "LRW-AR: <folder>/*.mp4")
    return [Clip(path, "lrw_ar", UNKNOWN_SPEAKER, "train", video=path) for path in paths]
