"""Log of finished recordings, by which an interrupted run resumes."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avse_ppl.models.protocols import network_of
from avse_ppl.utils.version import __version__

if TYPE_CHECKING:
    from avse_ppl.pipeline.jobs import Job


class ResumeLog:
    """One JSON object a line: outputs that were begun, recordings that were finished.

    The last one of a name counts. A line is appended in one write, and a torn one costs only its
    own recording.

    Parameters
    ----------
    path
        The file; None keeps nothing and knows of nothing.
    settings
        What the recordings are enhanced with; another value of any of them means: not finished.
    models
        Speech prior and noise model, whose weights and source text count as settings.
    """

    def __init__(
        self, path: Path | None, settings: Mapping[str, Any], models: Sequence[object] = ()
    ) -> None:
        self.path = path
        fingerprint = " ".join(fingerprint_model(model) for model in models)
        self.settings = {**settings, "version": __version__, "fingerprint": fingerprint}
        self.records: dict[str, dict[str, Any]] = {}
        self.begun: set[str] = set()
        text = path.read_bytes() if path and path.is_file() else b""
        for line in text.splitlines():
            record = parse_record(line)
            if record is None:
                continue
            if "begun" in record:
                self.begun |= set(record["begun"])
                for name in record["begun"]:  # from here on, its files are of two runs
                    self.records.pop(name, None)
            else:
                self.records[record["output"]] = record
        self._torn = bool(text) and not text.endswith(b"\n")

    def refuse_foreign(self, jobs: Iterable[Job], manifest: Path | None = None) -> None:
        """Raise ``ValueError`` if an output is there that this log does not know.

        A manifest is known where the log knows of anything.
        """
        if self.path is None:
            return
        known = {*self.records, *self.begun}
        foreign = [
            job.output for job in jobs if job.output.exists() and job.output.name not in known
        ]
        if manifest is not None and manifest.exists() and not known:
            foreign.append(manifest)
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise ValueError(
                f"'{foreign[0]}'{more} exist but were not written by this command; choose another "
                "folder, or overwrite them with --force (force=True)"
            )

    def find(self, job: Job) -> dict[str, Any] | None:
        """Record of a recording that is finished: same input, same settings, files in place."""
        record = self.records.get(job.output.name)
        if record is None or not job.output.is_file():
            return None
        if record["made_with"] != self.settings or record["made_from"] != sign_job(job):
            return None
        if job.posterior and not (record["details"].get("silent") or job.posterior.is_file()):
            return None
        return record

    def begin(self, jobs: Iterable[Job]) -> None:
        """Note that outputs are about to be written: they are of this command, and not finished.

        A run that is killed between writing an output and adding its record is known by this note.
        """
        names = [job.output.name for job in jobs]
        if names:
            self._append({"begun": names})

    def add(self, job: Job, details: Mapping[str, Any], warnings: Sequence[str]) -> None:
        """Append the record of a recording that is finished."""
        record = {
            "output": job.output.name,
            "input": str(job.input),
            "details": dict(details),
            "warnings": list(warnings),
            "made_with": self.settings,
            "made_from": sign_job(job),
        }
        self._append(record)

    def _append(self, record: Mapping[str, Any]) -> None:
        """Append a line in one write, and see it to the disk."""
        if self.path is None:
            return
        with self.path.open("ab", buffering=0) as file:
            file.write(b"\n" * self._torn + json.dumps(record).encode() + b"\n")
            os.fsync(file.fileno())
        self._torn = False


def parse_record(line: bytes) -> dict[str, Any] | None:
    """Parse a line of the log; None for one that is none, such as one the power went out on.

    Examples
    --------
    >>> parse_record(b'{"output": "a.w') is None
    True
    """
    kinds = {"output": str, "details": dict, "warnings": list, "made_with": dict}
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if set(record) == {"begun"}:
        names = record["begun"]
        right = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return record if right else None
    if not {*kinds, "made_from"} <= set(record):
        return None
    right = all(isinstance(record[name], kind) for name, kind in kinds.items())
    texts = right and all(isinstance(text, str) for text in record["warnings"])
    return record if texts else None


def sign_job(job: Job) -> list[Any] | None:
    """Signature of a recording, and of the span and the video that a manifest gives with it."""
    signature: list[Any] | None = file_signature(job.input)
    if signature is None:
        return None
    span = [] if job.is_whole else [job.start_s, job.duration_s]
    return signature + span + ([] if job.video is None else [file_signature(job.video)])


def file_signature(path: Path) -> list[int] | None:
    """Size and modification time of a file; None where it cannot be read."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def fingerprint_model(model: object) -> str:
    """Hash of weights, settings and source text, which tells models of one name apart."""
    digest = hashlib.sha256()
    module: Any = model
    network = module if hasattr(module, "state_dict") else network_of(model)
    if network is not None:
        for name, value in sorted(network.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    elif dataclasses.is_dataclass(model):
        digest.update(repr(model).encode())
    source: Any = model if inspect.isfunction(model) else type(model)
    try:
        digest.update(Path(inspect.getfile(source)).read_bytes())
    except (TypeError, OSError):
        digest.update(repr(source).encode())
    return digest.hexdigest()[:16]
