"""Named segments of a recording, such as words or turns: CSV, Praat TextGrid, RTTM.

TextGrids are read here and not by a library: Praat defines its text files as the numbers, quoted
texts and flags that stand free in them, and takes no notice of anything else, so that a dozen lines
of tokens read the long and the short format alike.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

_COLUMNS = ("name", "start_s", "end_s")
_ROUNDING_S = 0.02  # how far the last segment may end after the recording, by rounding
_LARGEST_S = 1e6
# What stands free in a text file of Praat: quoted texts, flags, words (numbers among them).
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(![^\n]*)|(<\w+>)|([^\s"]+)')


@dataclass(frozen=True)
class Segment:
    """A named stretch of a recording.

    Parameters
    ----------
    name
        Such as a word; need not be unique.
    start_s, end_s
        Begin and end, seconds.
    tier
        Tier of a TextGrid, or speaker of an RTTM.
    recording
        Which recording of a batch, or which channel; None: each.
    """

    name: str
    start_s: float
    end_s: float
    tier: str = ""
    recording: int | None = None

    def __str__(self) -> str:
        return f"{self.name!r} ({self.start_s:g} to {self.end_s:g} s)"


def read_segments(path: str | Path, tier: str | None = None) -> list[Segment]:
    r"""Read a table of segments: by its ending CSV, Praat TextGrid or RTTM.

    Segments of one tier, or of one speaker, must not overlap; those of different ones may: words
    and phones, or speakers who talk at once.

    Parameters
    ----------
    path
        ``.csv`` (or ``.tsv``) with the columns ``name``, ``start_s``, ``end_s`` and, if wanted,
        ``tier`` and ``recording``, a number from 0; ``.TextGrid`` as text, of which interval tiers
        are read and empty intervals left out; ``.rttm``, of which lines of type SPEAKER are read.
    tier
        Only segments of this tier, or speaker.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is of another format or damaged, holds no segment, or segments that are empty or
        overlap.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "words.csv"
    ...     _ = path.write_text("name,start_s,end_s\nbin,0.2,0.5\nblue,0.5,0.8\n")
    ...     [str(segment) for segment in read_segments(path)]
    ["'bin' (0.2 to 0.5 s)", "'blue' (0.5 to 0.8 s)"]
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"expected segments in a file ending in {', '.join(READERS)}, found '{path}'"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no table of segments at {path}")
    try:
        segments = list(reader(decode_text(path.read_bytes())))
        tiers = list(dict.fromkeys(segment.tier for segment in segments))
        if tier is not None:
            segments = [segment for segment in segments if segment.tier == tier]
            if not segments:
                known = ", ".join(map(repr, filter(None, tiers))) or "none that has a name"
                raise ValueError(f"it holds no segments of the tier {tier!r}; there are {known}")
        if not segments:
            raise ValueError(
                "it holds no segments; add some: a row each in CSV, an interval with a text in a "
                "TextGrid, a SPEAKER line in RTTM"
            )
        check_order(segments)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None
    return segments


def decode_text(data: bytes) -> str:
    """Decode UTF-8, or UTF-16 by its byte order mark, as Praat writes it."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8 or UTF-16; save it as that") from None


def check_order(segments: Sequence[Segment]) -> None:
    """Raise ``ValueError`` for segments that are empty, or overlap within a tier."""
    for segment in segments:
        if not 0 <= segment.start_s < segment.end_s <= _LARGEST_S:
            raise ValueError(
                f"segment {segment} does not end after it begins, or begins before 0; times are in "
                "seconds from the begin of the recording"
            )
    rows: dict[tuple[str, int | None], list[Segment]] = {}
    for segment in segments:
        rows.setdefault((segment.tier, segment.recording), []).append(segment)
    for row in rows.values():
        row.sort(key=lambda segment: segment.start_s)
        for one, following in itertools.pairwise(row):
            if following.start_s < one.end_s - 1e-6:
                raise ValueError(
                    f"segments {one} and {following} overlap; those of one tier or speaker must "
                    "not: correct the times, or give them different tiers"
                )


def place_segments(
    segments: Sequence[Segment], durations_s: Sequence[float]
) -> list[list[Segment]]:
    """Segments of each recording, in order, within its length.

    Those without a recording belong to each. One that ends up to 20 ms after the recording is cut
    to its end, as annotations are often rounded.

    Raises
    ------
    ValueError
        If one lies outside, or belongs to a recording that there is not.

    Examples
    --------
    >>> place_segments([Segment("a", 0.5, 1.01)], [1.0])[0][0].end_s
    1.0
    """
    rows: list[list[Segment]] = [[] for _ in durations_s]
    for segment in segments:
        which = range(len(rows)) if segment.recording is None else [segment.recording]
        for recording in which:
            if not 0 <= recording < len(rows):
                raise ValueError(
                    f"segment {segment} is of recording {recording}, the posterior is of "
                    f"{len(rows)}, counted from 0"
                )
            duration_s = durations_s[recording]
            if segment.end_s > duration_s + _ROUNDING_S or segment.start_s >= duration_s:
                raise ValueError(
                    f"segment {segment} is not within recording {recording}, which is "
                    f"{duration_s:g} s long; is the table of another recording, or are its times "
                    "not in seconds?"
                )
            placed = replace(segment, end_s=min(segment.end_s, duration_s), recording=recording)
            rows[recording].append(placed)
    return [sorted(row, key=lambda segment: (segment.start_s, segment.end_s)) for row in rows]


def read_csv(text: str) -> Iterator[Segment]:
    """Segments of a table with a header, separated by commas, semicolons or tabs."""
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    found = [str(name).strip() for name in rows.fieldnames or ()]
    missing = [name for name in _COLUMNS if name not in found]
    if missing:
        lacking = (
            f"the column {missing[0]} is"
            if len(missing) == 1
            else f"the columns {', '.join(missing[:-1])} and {missing[-1]} are"
        )
        raise ValueError(
            f"{lacking} missing; expected a first line with name, "
            f"start_s, end_s (and perhaps tier, recording), found {', '.join(found) or 'nothing'}"
        )
    rows.fieldnames = found
    for row in rows:
        cells = {key: (row.get(key) or "").strip() for key in (*_COLUMNS, "tier", "recording")}
        if not any(cells.values()):
            continue
        place = f"line {rows.line_num}"
        start_s, end_s = (parse_number(cells[key], f"{place}, {key}") for key in _COLUMNS[1:])
        recording = cells["recording"]
        if recording and not (recording.isascii() and recording.isdigit() and len(recording) < 7):
            raise ValueError(
                f"{place}, recording: expected a whole number from 0, found {recording!r}"
            )
        yield Segment(
            cells["name"], start_s, end_s, cells["tier"], int(recording) if recording else None
        )


def read_rttm(text: str) -> Iterator[Segment]:
    """Turns of speakers: ``SPEAKER file channel start duration <NA> <NA> speaker``."""
    files: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        cells = line.split()
        if not cells or cells[0] != "SPEAKER":
            continue
        if len(cells) < 8:
            raise ValueError(
                f"line {number} has {len(cells)} columns; expected SPEAKER file channel start "
                "duration <NA> <NA> speaker"
            )
        files[cells[1]] = None
        if len(files) > 1:
            raise ValueError(
                f"it holds turns of several files ({', '.join(files)}); keep the lines of the "
                "recording that the posterior is of"
            )
        start_s = parse_number(cells[3], f"line {number}, start")
        duration_s = parse_number(cells[4], f"line {number}, duration")
        yield Segment(cells[7], start_s, round(start_s + duration_s, 6), cells[7])


def read_text_grid(text: str) -> Iterator[Segment]:
    """Interval tiers of a Praat TextGrid, in the long or the short text format."""
    if not text.lstrip().startswith(("File type", '"ooTextFile')):
        raise ValueError(
            "it is no TextGrid in one of Praat's text formats; in Praat, choose Save as text file"
        )
    tokens = iter_praat_tokens(text)
    try:
        expect_texts(tokens, "ooTextFile", "TextGrid")
        take_number(tokens)
        take_number(tokens)
        next(tokens)  # whether there are tiers
        for _ in range(take_count(tokens)):
            kind, tier = next(tokens), next(tokens)
            take_number(tokens)
            take_number(tokens)
            for _ in range(take_count(tokens)):
                start_s = take_number(tokens)
                end_s = take_number(tokens) if kind == '"IntervalTier' else start_s
                name = str(next(tokens))[1:].strip()
                if kind == '"IntervalTier' and name:
                    yield Segment(name, start_s, end_s, str(tier)[1:])
    except StopIteration:
        raise ValueError("the TextGrid is cut short; save it again") from None


def iter_praat_tokens(text: str) -> Iterator[float | str]:
    r"""Free-standing numbers, flags, and texts, which begin with a quotation mark.

    Examples
    --------
    >>> list(iter_praat_tokens('xmin = 0.5 ! begin\n intervals [1]: text = "bin" <exists>'))
    [0.5, '"bin', '<exists>']
    """
    for quoted, comment, flag, word in (m.groups() for m in _TOKEN.finditer(text)):
        if flag:
            yield flag
        elif word:
            try:
                number = float(word)
            except ValueError:
                continue
            if math.isfinite(number):
                yield number
        elif not comment:
            yield '"' + quoted.replace('""', '"')


def expect_texts(tokens: Iterator[float | str], *texts: str) -> None:
    """Raise ``ValueError`` unless these texts come next."""
    for text in texts:
        found = next(tokens)
        if found != f'"{text}':
            raise ValueError(f"expected a {text} here, found {found!r}; it is no TextGrid")


def take_number(tokens: Iterator[float | str]) -> float:
    """Next token, which has to be a number."""
    token = next(tokens)
    if not isinstance(token, float):
        raise ValueError(f"the TextGrid is damaged: expected a number, found {token!r}")
    return token


def take_count(tokens: Iterator[float | str]) -> int:
    """Next token, which has to be a count."""
    number = take_number(tokens)
    if number != int(number) or not 0 <= number < 1e7:
        raise ValueError(f"the TextGrid is damaged: expected a count, found {number:g}")
    return int(number)


def parse_number(text: str, place: str) -> float:
    """Parse a number of seconds, with a point or a comma."""
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{place}: expected a number of seconds, found {text!r}")
    return number


READERS: Mapping = MappingProxyType(
    {".csv": read_csv, ".tsv": read_csv, ".textgrid": read_text_grid, ".rttm": read_rttm}
)
