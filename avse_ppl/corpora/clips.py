"""Readers of the corpora: which clips there are, who speaks, and on which side of the split."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

MEDIA_SUFFIXES = frozenset({".mkv", ".mp4", ".mpg", ".opus", ".ogg", ".flac", ".wav"})
DEV_NOISES = ("rain", "clock_tick", "stove-fan", "cutlery", "water-flowing", "running_tap")
UNKNOWN_SPEAKER = "unknown"
_GRID_DEV_CLIPS = 100


@dataclass(frozen=True)
class Clip:
    """One recording of a corpus.

    Parameters
    ----------
    path : Path
        The file, audio or video with an audio track.
    corpus : str
        The corpus it belongs to, for instance ``"grid"``.
    speaker : str
        Who speaks; ``"unknown"`` where the corpus does not say, ``""`` for noise.
    split : str
        ``"train"`` or ``"dev"``.
    label : str
        The class of a noise clip, ``""`` for speech.

    Raises
    ------
    ValueError
        If `split` is neither ``"train"`` nor ``"dev"``.

    Examples
    --------
    >>> Clip(Path("rain/1.ogg"), "esc10", "", "dev", label="rain").is_noise
    True
    """

    path: Path
    corpus: str
    speaker: str
    split: str
    label: str = ""

    def __post_init__(self) -> None:
        """Check the split."""
        if self.split not in ("train", "dev"):
            raise ValueError(
                f"the split of {self.path} is {self.split!r}; expected 'train' or 'dev'"
            )

    @property
    def is_noise(self) -> bool:
        """Whether nobody speaks in this clip."""
        return self.speaker == ""


def read_grid(folder: str | Path) -> list[Clip]:
    """List the GRID clips that lie in one folder.

    A folder ``grid_s1`` (or ``s1``) holds one speaker, whose last 100 clips by name are the
    development split. A folder whose name ends in ``_unseen`` holds one clip from each of
    several speakers, all of them development; the corpus numbers are not kept there, so each
    speaker is named after the clip.

    Parameters
    ----------
    folder : str or Path
        Holds ``*.mkv`` (or ``*.mpg``, ``*.mp4``, ``*.wav``, ``*.flac``) files directly.

    Returns
    -------
    list of Clip
        Sorted by name.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    ValueError
        If it holds no clips, or, for one speaker, too few to leave any for training.

    References
    ----------
    Cooke, Barker, Cunningham and Shao, "An audio-visual corpus for speech perception and
    automatic speech recognition", JASA 120(5), 2006.
    """
    folder = Path(folder)
    paths = _media(folder, "GRID: <folder>/*.mkv, one folder a speaker")
    if folder.resolve().name.endswith("_unseen"):
        return [Clip(path, "grid", f"grid_{path.stem}", "dev") for path in paths]
    if len(paths) <= _GRID_DEV_CLIPS:
        raise ValueError(
            f"{folder} holds {len(paths)} clips; expected more than {_GRID_DEV_CLIPS} from one "
            f"GRID speaker, as the last {_GRID_DEV_CLIPS} by name are the development split. "
            "A folder with one clip from each of several speakers has a name ending in '_unseen'."
        )
    speaker = "grid_" + folder.resolve().name.removeprefix("grid_")
    first_dev = len(paths) - _GRID_DEV_CLIPS
    return [
        Clip(path, "grid", speaker, "train" if i < first_dev else "dev")
        for i, path in enumerate(paths)
    ]


def read_speechocean762(folder: str | Path) -> list[Clip]:
    """List the speechocean762 clips named in ``list.tsv``.

    Speakers whose number ends in 7 are the development split.

    Parameters
    ----------
    folder : str or Path
        Holds ``list.tsv`` (columns ``file`` and ``speaker``) and ``<speaker>/<clip>.opus``.

    Returns
    -------
    list of Clip
        Sorted by file name.

    Raises
    ------
    FileNotFoundError
        If the folder, the list or a listed clip is missing.
    ValueError
        If the list has no ``file`` and ``speaker`` columns, no rows, or one that lacks either.

    References
    ----------
    Zhang et al., "speechocean762: an open-source non-native English speech corpus for
    pronunciation assessment", Interspeech 2021.
    """
    folder = Path(folder)
    layout = "speechocean762: <folder>/list.tsv and <folder>/<speaker>/<clip>.opus"
    _require_folder(folder, layout)
    table = folder / "list.tsv"
    if not table.is_file():
        raise FileNotFoundError(f"no {table}; expected {layout}; found {_contents(folder)}")
    with table.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t", restval="")
        columns = reader.fieldnames or []
        if not {"file", "speaker"} <= set(columns):
            raise ValueError(
                f"{table} has the columns {list(columns)}; expected 'file' and 'speaker' among "
                "them, separated by tabs"
            )
        rows = sorted((row["file"], row["speaker"]) for row in reader)
    if not rows:
        raise ValueError(f"{table} lists no clips; expected {layout}")
    if not all(name and speaker for name, speaker in rows):
        raise ValueError(f"{table} has a row without a file or a speaker; expected both in each")
    missing = [name for name, _ in rows if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(rows)} clips that {table} lists are missing, the first "
            f"is {missing[0]}; copy the corpus again or take them off the list"
        )
    return [
        Clip(
            folder / name,
            "speechocean762",
            f"speechocean762_{speaker}",
            "dev" if speaker.endswith("7") else "train",
        )
        for name, speaker in rows
    ]


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
    paths = _media(Path(folder), "LRW-AR: <folder>/*.mp4")
    return [Clip(path, "lrw_ar", UNKNOWN_SPEAKER, "train") for path in paths]


def read_noise(folder: str | Path) -> list[Clip]:
    """List noise clips with their class.

    The classes in `DEV_NOISES` are the development split, whole classes at a time.

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
    _require_folder(folder, layout)
    paths = [*folder.glob("*/*"), *folder.glob("*/*/*")]
    clips = [_noise_clip(folder, path) for path in sorted(filter(_is_media, paths))]
    if not clips:
        raise ValueError(f"no clips in {folder}; expected {layout}; found {_contents(folder)}")
    return clips


def _noise_clip(folder: Path, path: Path) -> Clip:
    corpus, *classes, _ = path.relative_to(folder).parts
    label = classes[0] if classes else path.stem
    return Clip(path, corpus, "", "dev" if label in DEV_NOISES else "train", label)


def _media(folder: Path, layout: str) -> list[Path]:
    _require_folder(folder, layout)
    paths = sorted(filter(_is_media, folder.iterdir()))
    if not paths:
        raise ValueError(f"no clips in {folder}; expected {layout}; found {_contents(folder)}")
    return paths


def _is_media(path: Path) -> bool:
    return path.suffix.lower() in MEDIA_SUFFIXES and path.is_file()


def _require_folder(folder: Path, layout: str) -> None:
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise FileNotFoundError(f"no folder {folder} (found {found}); expected {layout}")


def _contents(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} entries: {shown}" if names else "an empty folder"
