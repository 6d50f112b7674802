"""speechocean762: read English, no video."""

from __future__ import annotations

import csv
from pathlib import Path

from avse_ppl.data.clips import Clip
from avse_ppl.data.readers.folders import describe_contents, require_folder
from avse_ppl.utils.plurals import choose_form, name_count


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
    require_folder(folder, layout)
    table = folder / "list.tsv"
    if not table.is_file():
        raise FileNotFoundError(f"no {table}; expected {layout}; found {describe_contents(folder)}")
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
        verb = choose_form(len(missing), "is", "are")
        raise FileNotFoundError(
            f"{len(missing)} of the {name_count(len(rows), 'clip')} that {table} lists {verb} "
            f"missing, the first is {missing[0]}; copy the corpus again or take them off the list"
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
