"""Manifests of corpora: Kaldi ``wav.scp``, CSV, and JSON lines as of NeMo and lhotse.

A manifest lists recordings, or spans of them, for other programs. One is read into items, and one
of the same kind is written that lists the enhanced recordings instead. They are read here and not
by those programs' libraries, which bring a whole toolkit each; what cannot be honoured is refused.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from types import MappingProxyType
from typing import Any

from avse_ppl.utils.files import atomic_path

AUDIO_FIELDS = ("audio", "path", "audio_filepath")
_SPAN_FIELDS = ("start", "start_s", "start_time", "begin", "end", "end_s", "end_time")
_OF_OTHER_AUDIO = ("features", "temporal_array")  # of a cut: made from the noisy recording
_LONGEST_ID = 200  # bytes: a file name may have 255, and a temporary one is longer


@dataclass(frozen=True)
class ManifestItem:
    """A recording of a manifest, or a span of one.

    Parameters
    ----------
    id
        Names it within the manifest, and its files.
    audio
        Where the recording is.
    row
        What the manifest says of it, as it stands there.
    line
        Where that stands, from 1.
    video
        Video of its speaker.
    start_s, duration_s
        The span, seconds; a duration of None goes to the end.
    absolute
        Whether the manifest gives the recording's place from the root on.
    """

    id: str
    audio: Path
    row: Any
    line: int
    video: Path | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    absolute: bool = False


@dataclass(frozen=True)
class CorpusManifest:
    """A manifest that was read.

    Parameters
    ----------
    path
        The file.
    kind
        Key of `WRITERS`.
    items
        In the order of the file.
    columns, separator
        Of a CSV: its header, and what stands between cells.
    """

    path: Path
    kind: str
    items: tuple[ManifestItem, ...]
    columns: tuple[str, ...] = ()
    separator: str = ","


@dataclass(frozen=True)
class EnhancedFile:
    """File that an enhanced recording was written to.

    Parameters
    ----------
    path
        Where it is.
    n_samples, sample_rate_hz
        Its length, and its sampling rate.
    """

    path: Path
    n_samples: int
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sample_rate_hz


# --- reading -------------------------------------------------------------------------------------


def read_corpus_manifest(path: str | Path) -> CorpusManifest:
    r"""Read a manifest of recordings: by its ending Kaldi ``.scp``, CSV or JSON lines.

    Relative paths are relative to the folder of the manifest. Whether the files exist is not
    looked at.

    Parameters
    ----------
    path
        ``.scp`` with ``utterance path`` a line; ``.csv`` or ``.tsv`` with one column of `audio`,
        `path` and `audio_filepath`, and perhaps `id`, `video`, `offset` and `duration`; ``.jsonl``
        or ``.json`` with an object a line: of NeMo (`audio_filepath`, `offset`, `duration`, and
        perhaps `id` and `video`) or lhotse (recordings, or cuts of one recording). Each may be
        compressed, with ``.gz`` at its end.

    Returns
    -------
    CorpusManifest
        Ids are those of the manifest, or the names of the recordings without their endings.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is of another kind, damaged or empty, asks for what cannot be honoured (a command
        in place of a file, an archive, a mixture of cuts), or ids repeat or are no file names.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "wav.scp"
    ...     _ = path.write_text("utt1 a/1.wav\nutt2 /corpus/2.flac\n")
    ...     [(item.id, item.audio.name) for item in read_corpus_manifest(path).items]
    [('utt1', '1.wav'), ('utt2', '2.flac')]
    """
    path = Path(path)
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in READERS:
        raise ValueError(
            f"expected a manifest ending in {', '.join(READERS)} (or that and .gz), found '{path}'"
        )
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise FileNotFoundError(f"no manifest at '{path}': {what}")
    try:
        manifest = READERS[suffix](path, decode_manifest(path.read_bytes(), path.name))
        if not manifest.items:
            raise ValueError("it lists no recording")
        check_ids(manifest.items)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None
    return manifest


def decode_manifest(data: bytes, name: str) -> str:
    """Text of a manifest: decompressed, without a byte order mark."""
    try:
        text = gzip.decompress(data) if name.lower().endswith(".gz") else data
        return text.decode("utf-8-sig")
    except (EOFError, OSError, ValueError) as error:
        what = "text in UTF-8" if isinstance(error, UnicodeDecodeError) else "a whole .gz file"
        raise ValueError(f"it is not {what}; save it again as that") from None


def check_ids(items: Iterable[ManifestItem]) -> None:
    """Raise ``ValueError`` for an id that is no file name, or is there twice."""
    lines: dict[str, int] = {}
    for item in items:
        name = item.id
        if (
            not name
            or name.startswith(".")
            or any(letter in "/\\" or not letter.isprintable() for letter in name)
            or len(os.fsencode(name)) > _LONGEST_ID
        ):
            raise ValueError(
                f"line {item.line}: the id {shorten(repr(name), 80)} cannot name a file; expected "
                f"1 to {_LONGEST_ID} printable characters without a slash, and no dot before them"
            )
        if name in lines:
            raise ValueError(
                f"lines {lines[name]} and {item.line} have the same id {name!r}, so that both "
                f"would go to '{name}.wav'; give each an id of its own (without ids, the names "
                "of the recordings are taken)"
            )
        lines[name] = item.line


def make_item(
    manifest: Path, line: int, row: Any, given: Any, name: Any = None, video: Any = None,
    start_s: float = 0.0, duration_s: float | None = None,
) -> ManifestItem:  # fmt: skip
    """Item of a manifest, with its paths found from the manifest on."""
    for what, text in (("path", given), ("video", video)):
        if what == "video" and text in (None, ""):
            continue
        if not isinstance(text, str) or not text or "\0" in text:
            raise ValueError(
                f"line {line}: expected the path of a {'video' if what == 'video' else 'recording'}"
                f", found {shorten(repr(text), 80)}"
            )
        if "://" in text:
            raise ValueError(f"line {line}: '{text}' is an address; download it, and give the file")
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if name is not None and not isinstance(name, str):
        raise ValueError(f"line {line}: expected a text as id, found {shorten(repr(name), 80)}")
    audio = manifest.parent / given
    lips = manifest.parent / video if video else None
    absolute = Path(given).is_absolute()
    name = name or audio.stem
    return ManifestItem(name, audio, row, line, lips, start_s, duration_s, absolute)


def read_scp(path: Path, text: str) -> CorpusManifest:
    """Kaldi's ``wav.scp``: an utterance and its file a line; commands and archives are refused."""
    items = []
    for line, row in list_lines(text):
        name, *rest = row.split(None, 1)
        given = rest[0].strip() if rest else ""
        if not given:
            raise ValueError(f"line {line}: expected 'utterance path', found {shorten(row, 80)!r}")
        if given.endswith("|") or given.startswith("|"):
            raise ValueError(
                f"line {line}: '{shorten(given, 80)}' is a command, and no command is run from a "
                "manifest; write its output to a file, and give that"
            )
        end = given.rpartition(":")[2]
        if given == "-" or given.endswith("]") or (end.isdigit() and ":" in given):
            raise ValueError(
                f"line {line}: '{shorten(given, 80)}' is no recording but a part of an archive or "
                "a stream; write it to a file (wav-copy does), and give that"
            )
        items.append(make_item(path, line, name, given, name))
    return CorpusManifest(path, "kaldi", tuple(items))


def read_table(path: Path, text: str) -> CorpusManifest:
    """CSV with a header, separated by commas, semicolons or tabs."""
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns = [name.strip() for name in rows.fieldnames or ()]
    rows.fieldnames = columns
    found = [name for name in AUDIO_FIELDS if name in columns]
    if len(found) != 1:
        raise ValueError(
            f"expected a first line with one of the columns {', '.join(AUDIO_FIELDS)} (and "
            f"perhaps id, video, offset, duration), found {', '.join(columns) or 'nothing'}"
        )
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise ValueError(f"the column {repeated[0]!r} is there twice; keep one")
    items = []
    for row in rows:
        line = rows.line_num
        if None in row or None in row.values():
            raise ValueError(f"line {line} has not the {len(columns)} cells of the first line")
        if not any(cell.strip() for cell in row.values()):
            continue
        cells: dict[str, Any] = {name: cell.strip() or None for name, cell in row.items()}
        span = read_span(line, cells)
        name = cells.get("id")
        items.append(make_item(path, line, row, cells[found[0]], name, cells.get("video"), *span))
    return CorpusManifest(path, "csv", tuple(items), tuple(columns), separator)


def read_json_lines(path: Path, text: str) -> CorpusManifest:
    """JSON lines, all of one kind: of NeMo, or recordings or cuts of lhotse."""
    items, kinds = [], {}
    for line, content in list_lines(text):
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deep" if isinstance(error, RecursionError) else error
            raise ValueError(
                f"line {line} is not JSON: {reason}; expected one object a line"
            ) from None
        if not isinstance(row, dict):
            raise ValueError(f"line {line} is a {type(row).__name__}, expected an object a line")
        if "audio_filepath" in row:
            kind, read = "nemo", read_nemo
        elif "recording" in row or "tracks" in row:
            kind, read = "lhotse-cuts", read_cut
        elif "sources" in row:
            kind, read = "lhotse-recordings", read_recording
        else:
            raise ValueError(
                f"line {line}: expected audio_filepath (NeMo), sources (a lhotse recording) or "
                f"recording (a lhotse cut), found {', '.join(map(repr, row)) or 'nothing'}"
            )
        kinds.setdefault(kind, line)
        if len(kinds) > 1:
            texts = " and ".join(f"{one} (line {at})" for one, at in kinds.items())
            raise ValueError(f"it mixes kinds, {texts}; part it into a file each")
        items.append(read(path, line, row))
    return CorpusManifest(path, next(iter(kinds), "nemo"), tuple(items))


def read_nemo(path: Path, line: int, row: dict[str, Any]) -> ManifestItem:
    """Line of a manifest of NeMo."""
    if row.get("channel_selector") is not None:
        raise ValueError(f"line {line}: a channel_selector cannot be honoured; write a file of it")
    span = read_span(line, row)
    return make_item(path, line, row, row["audio_filepath"], row.get("id"), row.get("video"), *span)


def read_recording(path: Path, line: int, row: dict[str, Any]) -> ManifestItem:
    """Recording of lhotse: one file, as it is."""
    return make_item(path, line, row, find_source(line, row), row.get("id"))


def read_cut(path: Path, line: int, row: dict[str, Any]) -> ManifestItem:
    """Cut of lhotse: a span of one recording, with all its channels."""
    recording = row.get("recording")
    if row.get("type") in ("MixedCut", "PaddingCut") or "tracks" in row:
        raise ValueError(
            f"line {line}: a {row.get('type', 'MixedCut')} is no recording; save its audio "
            "(cuts.save_audios), and list that"
        )
    if not isinstance(recording, dict):
        raise ValueError(f"line {line}: expected an object as recording, found {recording!r}")
    source = find_source(line, recording)
    channels = recording["sources"][0].get("channels", [0])
    asked = row.get("channel", channels)
    if (asked if isinstance(asked, list) else [asked]) != channels:
        raise ValueError(
            f"line {line}: the cut takes channel {asked} of {channels}, which cannot be honoured; "
            "write a file of it"
        )
    start_s = read_seconds(line, "start", row.get("start")) or 0.0
    duration_s = read_seconds(line, "duration", row.get("duration"))
    return make_item(path, line, row, source, row.get("id"), None, start_s, duration_s)


def find_source(line: int, recording: Mapping[str, Any]) -> Any:
    """Path of a lhotse recording that is one file, and no more is to be done to it."""
    sources = recording.get("sources")
    if not isinstance(sources, list) or not all(isinstance(one, dict) for one in sources):
        raise ValueError(f"line {line}: expected a list of objects as sources, found {sources!r}")
    if len(sources) != 1 or sources[0].get("type", "file") != "file":
        kinds = ", ".join(str(one.get("type")) for one in sources) or "nothing"
        raise ValueError(
            f"line {line}: expected one source of the type 'file', found {kinds}; write the "
            "recording to one file, and list that"
        )
    if recording.get("transforms"):
        raise ValueError(
            f"line {line}: the recording has transforms (a change of speed, level or the like), "
            "which are not applied; save its audio, and list that"
        )
    return sources[0].get("source")


def read_span(line: int, fields: Mapping[str, Any]) -> tuple[float, float | None]:
    """Span of a recording by `offset` and `duration`; other names of spans are refused."""
    others = [name for name in _SPAN_FIELDS if fields.get(name) is not None]
    if others:
        raise ValueError(
            f"line {line}: {others[0]!r} looks like a span; say offset and duration, in seconds"
        )
    start_s = read_seconds(line, "offset", fields.get("offset")) or 0.0
    return start_s, read_seconds(line, "duration", fields.get("duration"))


def read_seconds(line: int, name: str, value: Any) -> float | None:
    """Seconds from a number or a text, not negative, a duration not 0; None where there is none."""
    if value is None:
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0 or (name == "duration" and seconds == 0):
        raise ValueError(f"line {line}, {name}: expected seconds, found {shorten(repr(value), 80)}")
    return seconds


def list_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with their numbers; only line feeds part lines."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.strip()


READERS: Mapping[str, Callable[[Path, str], CorpusManifest]] = MappingProxyType(
    {
        ".scp": read_scp,
        ".csv": read_table,
        ".tsv": read_table,
        ".jsonl": read_json_lines,
        ".json": read_json_lines,
    }
)


# --- writing -------------------------------------------------------------------------------------


def write_corpus_manifest(
    manifest: CorpusManifest, files: Mapping[str, EnhancedFile], path: str | Path
) -> Path:
    """Write a manifest of the same kind that lists enhanced recordings instead.

    All else that a row says stays, but spans: an enhanced file is the span, from its begin. Paths
    are relative to the new manifest where those of the old were to it, and absolute elsewhere.

    Parameters
    ----------
    manifest
        The manifest of what was enhanced.
    files
        Of ids: enhanced recordings. What is not in it is left out.
    path
        Where to; written atomically.

    Returns
    -------
    Path
        The same path.
    """
    path = Path(path)
    out = io.StringIO(newline="")
    table = csv.DictWriter(out, manifest.columns, delimiter=manifest.separator, lineterminator="\n")
    if manifest.columns:
        table.writeheader()
    for item in manifest.items:
        file = files.get(item.id)
        if file is None:
            continue
        place = file.path.resolve() if item.absolute else relate_path(file.path, path.parent)
        row = WRITERS[manifest.kind](item, file, str(place))
        if isinstance(row, dict) and item.video is not None:
            row = {**row, "video": str(relate_path(item.video, path.parent, row["video"]))}
        if manifest.columns:
            table.writerow(row)
        else:
            line = row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)
            out.write(f"{line}\n")
    data = out.getvalue().encode()
    if path.name.lower().endswith(".gz"):
        data = gzip.compress(data, mtime=0)  # the same bytes for the same content
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


def relate_path(path: Path, folder: Path, given: str = "") -> Path:
    """Path relative to a folder; one that was given absolute stays as it is."""
    if Path(given.strip()).is_absolute():
        return Path(given.strip())
    return Path(os.path.relpath(path.resolve(), folder.resolve()))


def describe_utterance(item: ManifestItem, file: EnhancedFile, place: str) -> str:
    """Line of a ``wav.scp``."""
    return f"{item.id} {place}"


def describe_row(item: ManifestItem, file: EnhancedFile, place: str) -> dict[str, Any]:
    """Row of a CSV: its path, offset and duration are those of the enhanced file."""
    row = dict(item.row)
    (audio,) = [name for name in AUDIO_FIELDS if name in row]
    row[audio] = place
    if "offset" in row:
        row["offset"] = 0
    if "duration" in row:
        row["duration"] = round(file.duration_s, 6)
    return row


def describe_nemo(item: ManifestItem, file: EnhancedFile, place: str) -> dict[str, Any]:
    """Line of NeMo, which wants a duration."""
    row = {**item.row, "audio_filepath": place, "duration": round(file.duration_s, 6)}
    return {**row, "offset": 0.0} if "offset" in row else row


def describe_recording(item: ManifestItem, file: EnhancedFile, place: str) -> dict[str, Any]:
    """Recording of lhotse: the enhanced file with its length and rate."""
    recording = item.row.get("recording", item.row)
    source = {**recording["sources"][0], "type": "file", "source": place}
    return {
        **recording, "id": item.id, "sources": [source], "sampling_rate": file.sample_rate_hz,
        "num_samples": file.n_samples, "duration": file.duration_s,
    }  # fmt: skip


def describe_cut(item: ManifestItem, file: EnhancedFile, place: str) -> dict[str, Any]:
    """Cut of lhotse: the whole of a recording that is named as the cut.

    Supervisions stay, as their times count from the begin of the cut; features go, as they are
    those of the noisy recording.
    """
    row = {name: value for name, value in item.row.items() if name not in _OF_OTHER_AUDIO}
    row |= {"id": item.id, "start": 0.0, "duration": file.duration_s}
    if isinstance(row.get("supervisions"), list):
        row["supervisions"] = [
            {**one, "recording_id": item.id} if isinstance(one, dict) else one
            for one in row["supervisions"]
        ]
    return {**row, "recording": describe_recording(item, file, place)}


WRITERS: Mapping[str, Callable[[ManifestItem, EnhancedFile, str], Any]] = MappingProxyType(
    {
        "kaldi": describe_utterance,
        "csv": describe_row,
        "nemo": describe_nemo,
        "lhotse-recordings": describe_recording,
        "lhotse-cuts": describe_cut,
    }
)
