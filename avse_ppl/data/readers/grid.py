"""GRID: sentences of six words, one folder a speaker."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from avse_ppl.data.clips import Clip
from avse_ppl.data.readers.folders import (
    is_media,
    is_video,
    make_empty_error,
    require_clips,
    require_folder,
)

DEV_SPEAKERS = ("s33", "s34")
TEST_SPEAKERS = ("s1", "s2", "s20", "s22")  # whom LipNet (Assael et al., 2016) holds out
_DEV_CLIPS = 100
_DEV_SPEAKERS = 3  # of a folder whose names begin with the speaker
_LAYOUT = "GRID: <folder>/*.mkv of one speaker, or <folder>/s1/*.mpg, <folder>/s2/*.mpg, ..."
_WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},  # GRID leaves out w
    {"z": "zero", "1": "one", "2": "two", "3": "three", "4": "four"}
    | {"5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine"},
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)


def read_grid(folder: str | Path) -> list[Clip]:
    """List the GRID clips of one speaker, of several, or of the whole corpus.

    A folder ``grid_s1`` (or ``s1``) holds one speaker, whose last 100 clips by name are the
    development split. A folder whose name ends in ``_unseen`` holds one clip from each of
    several speakers, all of them development; the corpus numbers are not kept there, so each
    speaker is named after the clip. Where all names begin with a speaker (``s30_bbaf2n``), the last
    three of them are the development split. A folder with the folders ``s1``, ``s2``, ... is split
    by speaker: s1, s2, s20 and s22 are the test split, s33 and s34 the development split.

    The transcript is read off the name of a clip, which spells it (``bbaf2n``: bin blue at f two
    now).

    Parameters
    ----------
    folder : str or Path
        Holds ``*.mkv`` (or ``*.mpg``, ``*.mp4``, ``*.wav``, ``*.flac``) files, or a folder for
        each speaker with such files at any depth (``s1/video/mpg_6000/*.mpg``). Where the same
        clip is there several times, the last of them by path counts; where it is there as sound
        and as video, the audio is read from the one and the video from the other.

    Returns
    -------
    list of Clip
        Sorted by speaker and name.

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
    require_folder(folder, _LAYOUT)
    speakers = [f for f in folder.iterdir() if f.is_dir() and re.fullmatch(r"s\d+", f.name)]
    if speakers:
        return list_speakers(folder, sorted(speakers, key=lambda f: int(f.name[1:])))
    paths = require_clips(filter(is_media, folder.iterdir()), folder, _LAYOUT)
    prefixed = [re.match(r"(s\d+)_", path.name) for path in paths]
    if all(prefixed):
        return list_prefixed(paths, [match[1] for match in prefixed if match])
    if folder.resolve().name.endswith("_unseen"):
        return [make_clip([path], f"grid_{path.stem}", "dev") for path in paths]
    return list_one_speaker(folder, group_by_name(paths))


def spell_transcript(stem: str) -> str:
    """Spell out the sentence that the name of a GRID clip stands for; ``""`` for other names.

    Examples
    --------
    >>> spell_transcript("bbaf2n")
    'bin blue at f two now'
    """
    stem = stem.lower()
    if len(stem) != len(_WORDS):
        return ""
    words = [words.get(letter, "") for words, letter in zip(_WORDS, stem, strict=True)]
    return " ".join(words) if all(words) else ""


def list_one_speaker(folder: Path, clips: list[list[Path]]) -> list[Clip]:
    """List the clips of a folder with one speaker; the last hundred are held out."""
    if len(clips) <= _DEV_CLIPS:
        raise ValueError(
            f"{folder} holds {len(clips)} clips; expected more than {_DEV_CLIPS} from one "
            f"GRID speaker, as the last {_DEV_CLIPS} by name are the development split. "
            "A folder with one clip from each of several speakers has a name ending in '_unseen'."
        )
    speaker = "grid_" + folder.resolve().name.removeprefix("grid_")
    first_dev = len(clips) - _DEV_CLIPS
    return [
        make_clip(paths, speaker, "train" if i < first_dev else "dev")
        for i, paths in enumerate(clips)
    ]


def list_prefixed(paths: list[Path], speakers: list[str]) -> list[Clip]:
    """List the clips of a folder whose names begin with their speakers."""
    held_out = sorted(set(speakers), key=lambda name: int(name[1:]))[-_DEV_SPEAKERS:]
    clips = []
    for path, speaker in zip(paths, speakers, strict=True):
        split = "dev" if speaker in held_out else "train"
        clip = make_clip([path], f"grid_{speaker}", split)
        clips.append(replace(clip, transcript=spell_transcript(path.stem.partition("_")[2])))
    return clips


def list_speakers(folder: Path, speakers: list[Path]) -> list[Clip]:
    """List the clips of a folder with a folder for each speaker, split by speaker."""
    clips = []
    for speaker in speakers:
        split = "train"
        split = "dev" if speaker.name in DEV_SPEAKERS else split
        split = "test" if speaker.name in TEST_SPEAKERS else split
        paths = sorted(filter(is_media, speaker.rglob("*")))
        clips += [make_clip(same, f"grid_{speaker.name}", split) for same in group_by_name(paths)]
    if not clips:
        raise make_empty_error(folder, _LAYOUT)
    return clips


def group_by_name(paths: list[Path]) -> list[list[Path]]:
    """Group files by their name without ending, wherever they lie."""
    stems: dict[str, list[Path]] = {}
    for path in paths:
        stems.setdefault(path.stem, []).append(path)
    return [stems[stem] for stem in sorted(stems)]


def make_clip(paths: list[Path], speaker: str, split: str) -> Clip:
    """Make one clip of all files of the same name."""
    videos = [path for path in paths if is_video(path)]
    sounds = [path for path in paths if not is_video(path)] or videos
    video = videos[-1] if videos else None
    stem = sounds[-1].stem
    return Clip(sounds[-1], "grid", speaker, split, video=video, transcript=spell_transcript(stem))
