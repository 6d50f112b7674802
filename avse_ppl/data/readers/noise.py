"""Noise recordings with their classes."""

from __future__ import annotations

from pathlib import Path

from avse_ppl.data.clips import HELD_OUT_NOISES, Clip
from avse_ppl.data.readers.folders import is_media, require_clips, require_folder


def read_noise(folder: str | Path) -> list[Clip]:
    """List noise clips with their class.

    The classes in `HELD_OUT_NOISES` are the development split, whole classes at a time.

    Parameters
    ----------
    folder : str or Path
        Holds one folder a corpus; in it, either ``<class>/<clip>`` or ``<class>.flac``.

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

    References
    ----------
    Piczak, "ESC: dataset for environmental sound classification", ACM Multimedia 2015.
    Warden, "Speech Commands: a dataset for limited-vocabulary speech recognition", 2018.
    """
    folder = Path(folder)
    layout = "noise: <folder>/<corpus>/<class>/<clip>.ogg or <folder>/<corpus>/<class>.flac"
    require_folder(folder, layout)
    paths = [*folder.glob("*/*"), *folder.glob("*/*/*")]
    return [
        make_clip(folder, path) for path in require_clips(filter(is_media, paths), folder, layout)
    ]


def make_clip(folder: Path, path: Path) -> Clip:
    """Make the clip of ``<corpus>/<class>/<clip>`` or ``<corpus>/<class>.flac``."""
    corpus, *classes, _ = path.relative_to(folder).parts
    label = classes[0] if classes else path.stem
    return Clip(path, corpus, "", "dev" if label in HELD_OUT_NOISES else "train", label)
