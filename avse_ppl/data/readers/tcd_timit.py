"""TCD-TIMIT: read sentences, filmed from the front and from 30 degrees."""

from __future__ import annotations

from pathlib import Path

from avse_ppl.data.clips import Clip
from avse_ppl.data.readers.folders import (
    group_by_stem,
    is_media,
    is_video,
    read_transcript,
    require_clips,
    require_folder,
)

# The 17 volunteers that the authors recommend for testing, parted as NTCD-TIMIT parts them.
DEV_SPEAKERS = frozenset(["08F", "09F", "15F", "18M", "25M", "28M", "33F", "36F"])
TEST_SPEAKERS = frozenset(["34M", "41M", "44F", "45F", "49F", "54M", "55F", "56M", "58F"])
SETS = ("volunteers", "lipspeakers")
_LAYOUT = "TCD-TIMIT: <folder>/volunteers/01M/Clips/straightcam/sa1.mp4, .../lipspeakers/Lipspkr1/"


def read_tcd_timit(folder: str | Path, view: str = "straightcam") -> list[Clip]:
    """List the TCD-TIMIT clips of one camera.

    Split by speaker: of the 17 volunteers whom the authors recommend for testing, 8 are the
    development and 9 the test split, as in NTCD-TIMIT; all others, and the lipspeakers, train.

    Parameters
    ----------
    folder : str or Path
        Holds ``volunteers/`` and ``lipspeakers/``, or is one of them. ``<clip>.wav`` beside
        ``<clip>.mp4`` is the better sound; ``<clip>.txt`` beside them is the transcript.
    view : str
        The camera: ``"straightcam"`` or ``"30degcam"``.

    Returns
    -------
    list of Clip
        Sorted by speaker and clip; with video where there is one.

    Raises
    ------
    FileNotFoundError
        If the folder is missing.
    ValueError
        If it holds no clips of that camera.

    References
    ----------
    Harte and Gillen, "TCD-TIMIT: an audio-visual corpus of continuous speech", IEEE Transactions
    on Multimedia 17(5), 2015.
    """
    folder = Path(folder)
    require_folder(folder, _LAYOUT)
    # Below the camera first, then anywhere: in some copies the folder Clips/ is left out.
    paths = [path for path in folder.rglob("*") if path.parent.name == view and is_media(path)]
    groups = group_by_stem(require_clips(paths, folder, f"{_LAYOUT}, with the camera {view}"))
    return [make_clip(same, find_speaker(same[0])) for same in groups]


def find_speaker(path: Path) -> str:
    """Find who speaks: the folder below ``volunteers`` or ``lipspeakers``, else above the camera.

    Examples
    --------
    >>> find_speaker(Path("volunteers/01M/Clips/straightcam/sa1.mp4"))
    '01M'
    """
    parts = path.parts
    for name in SETS:
        if name in parts[:-2]:
            return parts[parts.index(name) + 1]
    above = path.parents[1]
    return above.parent.name if above.name == "Clips" else above.name


def find_split(speaker: str) -> str:
    """Find the split of a speaker."""
    if speaker in DEV_SPEAKERS:
        return "dev"
    return "test" if speaker in TEST_SPEAKERS else "train"


def make_clip(paths: list[Path], speaker: str) -> Clip:
    """Make the clip of all files of one name: audio, video and transcript."""
    videos = [path for path in paths if is_video(path)]
    sounds = [path for path in paths if not is_video(path)] or videos
    return Clip(
        sounds[0],
        "tcd_timit",
        f"tcd_timit_{speaker}",
        find_split(speaker),
        video=videos[0] if videos else None,
        transcript=read_transcript(sounds[0]),
    )
