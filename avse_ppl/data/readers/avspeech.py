"""AVSpeech: segments of YouTube videos in which one person speaks."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from avse_ppl.data.clips import Clip
from avse_ppl.data.readers.folders import (
    describe_contents,
    is_held_out,
    is_media,
    is_video,
    make_empty_error,
    require_folder,
)

_ID_LENGTH = 11
_TOLERANCE_S = 0.51  # some scripts round the start to a whole second
_LAYOUT = (
    "AVSpeech: <folder>/avspeech_train.csv or avspeech_test.csv (video, start, end, x, y) and, at "
    "any depth, <video>_<start>-<end>.mp4"
)


def read_avspeech(folder: str | Path) -> list[Clip]:
    """List the AVSpeech clips that were downloaded.

    The table with ``test`` in its name is the test split; of the other one, one video in fifty is
    the development split. A speaker is named after the video: the table does not tell whether one
    person is in two of them.

    Parameters
    ----------
    folder : str or Path
        Holds the tables as published, without header, and the clips named after their row, as
        ``<video>_<start>-<end>``, ``<video>_<start>_<end>``, ``<video>_<start>``, or, if the
        table has only one row of that video, ``<video>``.

    Returns
    -------
    list of Clip
        Sorted by path. Rows without a file are left out, as only part of the videos still exists.

    Raises
    ------
    FileNotFoundError
        If the folder is missing, or has no table.
    ValueError
        If a row has another form, or no row has a file.

    References
    ----------
    Ephrat et al., "Looking to listen at the cocktail party", ACM Transactions on Graphics 37(4),
    2018.
    """
    folder = Path(folder)
    require_folder(folder, _LAYOUT)
    tables = sorted(folder.rglob("*.csv"))
    if not tables:
        raise FileNotFoundError(
            f"no table in {folder}; expected {_LAYOUT}; found {describe_contents(folder)}"
        )
    rows: dict[str, list[tuple[float, bool]]] = {}
    for table in tables:
        for video, start_s in read_rows(table):
            rows.setdefault(video, []).append((start_s, "test" in table.stem.lower()))
    paths = sorted(path for path in folder.rglob("*") if is_video(path) and is_media(path))
    clips = [clip for path in paths if (clip := make_clip(path, rows))]
    if not clips:
        raise make_empty_error(folder, _LAYOUT)
    return clips


def read_rows(table: Path) -> list[tuple[str, float]]:
    """Read the video and start of each row of a table."""
    rows = []
    with table.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.reader(lines), 1):
            try:
                video, start_s, *_ = row
                rows.append((video, float(start_s)))
            except ValueError as error:
                if number > 1:  # the first may be a header
                    raise ValueError(
                        f"row {number} of {table} is {row}; expected video, start, end, x, y"
                    ) from error
    return rows


def make_clip(path: Path, rows: dict[str, list[tuple[float, bool]]]) -> Clip | None:
    """Make the clip of a file; None if the tables have no such row."""
    video, rest = path.stem[:_ID_LENGTH], path.stem[_ID_LENGTH:]
    of_video = rows.get(video, [])
    start = re.search(r"\d+(\.\d+)?", rest)
    if start is None:
        of_video = of_video if len(of_video) == 1 else []
    else:
        of_video = [row for row in of_video if abs(row[0] - float(start[0])) < _TOLERANCE_S]
    if not of_video:
        return None
    split = "test" if of_video[0][1] else "dev" if is_held_out(video, 50) else "train"
    return Clip(path, "avspeech", f"avspeech_{video}", split, video=path)
