"""Files that a run of enhancement reads and writes, planned and checked before it starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avse_ppl.pipeline.batching import BATCH_S, group_by_length
from avse_ppl.pipeline.corpus_manifest import CorpusManifest, read_corpus_manifest
from avse_ppl.signal.audio import SAVE_SUBTYPES
from avse_ppl.signal.demuxer import open_container
from avse_ppl.signal.media import open_media
from avse_ppl.utils.files import check_apart, check_folder, check_writable

_AUDIO = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
_VIDEO = (".m4a", ".aac", ".mkv", ".mp4", ".m4v", ".mov", ".webm", ".avi", ".mpg", ".mpeg")
RESUME_LOG = "enhance.jsonl"
RECORDING_SUFFIXES = frozenset((*_AUDIO, *_VIDEO))


@dataclass(frozen=True)
class Job:
    """One recording: where it is, and where its enhancement and posterior go.

    Parameters
    ----------
    input, output, posterior
        The recording, what it is enhanced to, and where the posterior goes.
    video
        Video of the speaker; None: the recording itself, if it is one.
    start_s, duration_s
        Span of the recording, seconds; a duration of None goes to its end.
    """

    input: Path
    output: Path
    posterior: Path | None = None
    video: Path | None = None
    start_s: float = 0.0
    duration_s: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the whole recording is meant, and not a span of it."""
        return self.start_s == 0.0 and self.duration_s is None


@dataclass(frozen=True)
class JobPlan:
    """Recordings to enhance.

    Parameters
    ----------
    jobs
        One a recording.
    folder
        Where several recordings go and the resume log is kept; None for one recording to one file.
    manifest
        What lists the recordings, if anything does. One of the same kind and name is written into
        the folder.
    """

    jobs: tuple[Job, ...]
    folder: Path | None = None
    manifest: CorpusManifest | None = None

    @property
    def enhanced_manifest(self) -> Path | None:
        """Where the manifest of the enhanced recordings goes."""
        if self.manifest is None or self.folder is None:
            return None
        return self.folder / self.manifest.path.name


def plan_jobs(
    inputs: Sequence[str | Path], output: str | Path, posterior: str | Path | None = None
) -> JobPlan:
    """Assign output files to recordings, and refuse what cannot work before anything is done.

    Parameters
    ----------
    inputs
        Recordings, or folders of them (not searched in depth).
    output
        A file for one recording. For several, or a folder of them, a folder: ``a/b.flac`` goes to
        ``output/b.wav``.
    posterior
        A file ending in ``.nc``, or for several recordings a folder; None to keep no posterior.

    Raises
    ------
    ValueError
        If nothing is given, a folder holds no recording, two recordings would go to one file or one
        over its own input, or a name does not fit.
    OSError
        If an input is missing or an output cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     _ = Path(name, "b.flac").touch(), Path(name, "c.wav").touch()
    ...     [job.output.name for job in plan_jobs([name], Path(name, "enhanced")).jobs]
    ['b.wav', 'c.wav']
    """
    if not inputs:
        raise ValueError("expected one recording or more, found none")
    nc = None if posterior is None else Path(posterior)
    several = len(inputs) > 1 or Path(inputs[0]).is_dir()
    slashed = str(output).endswith(("/", os.sep))
    output = Path(output)

    # One recording to one file.
    if not several and not slashed and not output.is_dir():
        source = Path(inputs[0])
        check_writable(output, suffixes=SAVE_SUBTYPES)
        if nc is not None:
            check_writable(nc, suffixes=[".nc"])
        check_apart([output, nc], [source])
        return JobPlan((Job(source, output, nc),))

    # Several to a folder.
    check_output_folders(output, nc)
    sources = [path for given in inputs for path in list_recordings(Path(given))]
    names: dict[str, Path] = {}
    for source in sources:
        if source.stem in names:
            raise ValueError(
                f"'{names[source.stem]}' and '{source}' would both go to "
                f"'{output / source.stem}.wav'; rename one, or enhance them into two folders"
            )
        names[source.stem] = source
    jobs = tuple(
        Job(source, output / f"{stem}.wav", nc / f"{stem}.nc" if nc else None)
        for stem, source in names.items()
    )
    check_apart((job.output for job in jobs), sources)
    return JobPlan(jobs, output)


def plan_manifest(
    manifest: str | Path, output: str | Path, posterior: str | Path | None = None
) -> JobPlan:
    """Assign output files to the recordings of a manifest, named by their ids.

    Parameters
    ----------
    manifest
        See `read_corpus_manifest`.
    output
        A folder; the recording ``utt1`` goes to ``output/utt1.wav``.
    posterior
        A folder, or None to keep no posterior.

    Raises
    ------
    ValueError
        If the manifest cannot be honoured, or an output would overwrite it or a recording.
    OSError
        If it is missing, an output cannot be written, or no recording of it is there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     _ = Path(name, "b.flac").touch(), Path(name, "wav.scp").write_text("utt1 b.flac")
    ...     [job.output.name for job in plan_manifest(f"{name}/wav.scp", f"{name}/out").jobs]
    ['utt1.wav']
    """
    found = read_corpus_manifest(manifest)
    folder, nc = Path(output), None if posterior is None else Path(posterior)
    check_output_folders(folder, nc)
    jobs = tuple(
        Job(
            item.audio, folder / f"{item.id}.wav", nc / f"{item.id}.nc" if nc else None,
            item.video, item.start_s, item.duration_s,
        )
        for item in found.items
    )  # fmt: skip
    plan = JobPlan(jobs, folder, found)
    videos = [job.video for job in jobs if job.video is not None]
    outputs = [plan.enhanced_manifest, *(job.output for job in jobs)]
    check_apart(
        [*outputs, folder / RESUME_LOG], [found.path, *(job.input for job in jobs), *videos]
    )
    missing = list_missing(plan)
    if len(missing) == len(jobs):
        raise FileNotFoundError(
            f"none of the {len(jobs)} recordings of '{found.path}' is there, for instance "
            f"'{missing[0].input}'; relative paths are relative to the folder of the manifest"
        )
    return plan


def list_missing(plan: JobPlan) -> list[Job]:
    """Jobs whose recording is not there, or is no file."""
    return [job for job in plan.jobs if not job.input.is_file()]


def check_output_folders(*folders: Path | None) -> None:
    """Make sure that files can be written into folders that need not exist; see `check_folder`."""
    for folder in folders:
        if folder is None:
            continue
        if folder.suffix.lower() in (*SAVE_SUBTYPES, ".nc") and not folder.is_dir():
            raise ValueError(f"several recordings go to a folder, but '{folder}' names a file")
        check_folder(folder)


def list_recordings(path: Path) -> list[Path]:
    """Recordings in a folder, by name; a file stands for itself.

    Raises
    ------
    ValueError
        If the folder holds none.
    """
    if not path.is_dir():
        return [path]
    recordings = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in RECORDING_SUFFIXES
        and file.is_file()
        and not file.name.startswith(".")
    )
    if not recordings:
        raise ValueError(
            f"no recording in '{path}': expected files ending in .wav, .flac, .ogg, .mp3, .mp4 or "
            "the like; folders in it are not searched"
        )
    return recordings


def measure_jobs(jobs: Iterable[Job]) -> dict[Job, float]:
    """Seconds of audio that each job takes, by the headers; 0 where one cannot be read."""
    totals_s: dict[Path, float] = {}
    lengths_s = {}
    for job in jobs:
        if job.input not in totals_s:
            totals_s[job.input] = measure_duration(job.input)
        rest_s = max(0.0, totals_s[job.input] - job.start_s)
        lengths_s[job] = rest_s if job.duration_s is None else min(rest_s, job.duration_s)
    return lengths_s


def group_jobs(lengths_s: Mapping[Job, float]) -> list[list[Job]]:
    """Batches of jobs of like length, the shortest first.

    Spans of one recording that add up to more than a batch come after the others, in batches of
    their own: it is read once then, and no other is held beside it.

    Parameters
    ----------
    lengths_s
        Of each job, seconds.

    Examples
    --------
    >>> def cut(name, start_s):
    ...     return Job(Path(name), Path("out"), start_s=start_s, duration_s=9.0)
    >>> jobs = [cut(name, float(t)) for t in range(8) for name in "ab"]
    >>> batches = group_jobs({**{job: 9.0 for job in jobs}, Job(Path("c"), Path("d")): 10.0})
    >>> [sorted({job.input.name for job in batch}) for batch in batches]
    [['c'], ['a'], ['a'], ['b'], ['b']]
    """
    spans: dict[tuple[Path, Path | None], list[Job]] = {}
    for job in lengths_s:
        if not job.is_whole:
            spans.setdefault((job.input, job.video), []).append(job)
    long = [jobs for jobs in spans.values() if sum(map(lengths_s.__getitem__, jobs)) > BATCH_S]
    apart = {job for jobs in long for job in jobs}
    batches = []
    for jobs in [[job for job in lengths_s if job not in apart], *long]:
        parts = reversed(group_by_length(reversed(jobs), lengths_s.__getitem__))
        batches += [part[::-1] for part in parts]
    return batches


def measure_duration(path: Path) -> float:
    """Seconds of audio by the header, channels added up; 0 where it cannot be read."""
    import soundfile

    try:
        info = soundfile.info(str(path))
        if info.frames < 2**62:  # more: a FLAC file that was written to a pipe
            return info.duration * info.channels
    except (soundfile.LibsndfileError, OSError):
        pass
    try:
        with open_media(path) as (handle, name), open_container(handle, name, "audio") as media:
            return (media.container.duration or 0) / 1e6
    except (ValueError, OSError):
        return 0.0
