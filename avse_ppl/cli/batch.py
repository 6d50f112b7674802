"""Recordings on disk in, enhanced recordings on disk out: in batches, and resumable.

One recording goes to one file. Several, or a folder of them, go to a folder, which also gets
``enhance.jsonl``: one line for each finished recording, with what it was made from and how. A
second run with the same settings leaves those recordings alone.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avse_ppl.cli.jobs import RECORDING_SUFFIXES, Job, Plan, plan
from avse_ppl.cli.resume import ResumeLog, file_signature
from avse_ppl.pipeline.video_input import VideoOptions, prepare_lips, speech_for, video_of
from avse_ppl.signal.audio import Audio, check_audio, convert_rate, load_audio, save_audio

if TYPE_CHECKING:
    from avse_ppl.pipeline.enhance import Enhanced
    from avse_ppl.video import Lips

__all__ = ["RECORDING_SUFFIXES", "Job", "Outcome", "Plan", "enhance_files", "plan"]

LEDGER = "enhance.jsonl"
BATCH_RECORDINGS = 16
_SEEN = VideoOptions(offset_s=0.0)  # lips that were looked at, and brought in time, already
BATCH_S = 60.0  # of audio in a batch, padding included: bounds the memory


@dataclass(frozen=True)
class Outcome:
    """What became of one recording.

    Parameters
    ----------
    job
        The recording.
    status
        ``"enhanced"``; ``"kept"`` if it was finished before; ``"failed"``.
    details
        ``kind`` of the posterior, ``sample_rate_hz``, ``duration_s``, ``cost``, ``posterior``
        (file or None), ``silent`` (then there is none); empty where it failed.
    warnings
        What was remarked about it.
    error
        Why it failed.
    """

    job: Job
    status: str
    details: dict[str, Any]
    warnings: tuple[str, ...] = ()
    error: Exception | None = None


def enhance_files(
    plan: Plan,
    *,
    speech: Any = None,
    noise: Any = "nmf",
    inference: Any = None,
    seed: int = 0,
    draws: int = 50,
    device: str = "auto",
    force: bool = False,
    recalibrate: bool = False,
    video: Path | None = None,
    viewing: VideoOptions | None = None,
    picture: Path | None = None,
    reliability: Any = None,
) -> Iterator[Outcome]:
    """Enhance recordings, shortest first, and yield what became of each as soon as it is known.

    A recording that fails does not stop the others. Batches are cut from all recordings, finished
    or not, so that a resumed run batches, and therefore draws, as an uninterrupted one.

    Parameters
    ----------
    plan
        From `plan`.
    speech, noise, inference, seed, draws, device, reliability
        As in ``avse_ppl.enhance``.
    force
        Whether to redo what is finished, and to overwrite files that this library did not write.
    recalibrate
        As in ``avse_ppl.enhance``; needs posteriors in the plan.
    video
        Video of the speaker, for a single recording; by default recordings that are videos
        themselves are looked at, if the prior sees.
    viewing
        As in ``avse_ppl.enhance``.
    picture
        File for a picture of the lips that were tracked, for a single recording.

    Yields
    ------
    Outcome
        One for each job.

    Raises
    ------
    ValueError
        If a name is unknown, or an output exists that another program wrote.
    """
    from avse_ppl.inference.core.setup import resolve_device
    from avse_ppl.models.validation import name_of
    from avse_ppl.pipeline import catalog as names

    videos = _videos(plan, video)
    sees = any(path is not None for path in videos.values())
    prior, videos = speech_for(speech, videos, video)
    noise_model = names.resolve_noise(noise)
    viewing = viewing or VideoOptions()
    if picture is not None:
        _check_picture(plan, videos)
    inference = inference or names.default_inference(prior)
    names.resolve_inference(inference)
    resolve_device(device)
    believed = names.resolve_reliability(reliability)
    named = name_of(prior) if speech is None else _label(speech)
    settings = {"speech": named, "noise": _label(noise), "inference": _label(inference),
                "seed": seed, "draws": draws}  # fmt: skip
    settings |= {"recalibrate": True} if recalibrate else {}  # old ledgers do not have it
    settings |= {"viewing": repr(viewing), "reliability": _label(believed)} if sees else {}
    settings |= {} if video is None else {"video": [str(video), file_signature(video)]}
    ledger = ResumeLog(
        plan.folder / LEDGER if plan.folder else None, settings, (prior, noise_model)
    )
    if not force:
        ledger.refuse_foreign(plan.jobs)
    options = {"speech": prior, "noise": noise_model, "inference": inference, "seed": seed,
               "draws": draws, "device": device, "recalibrate": recalibrate,
               "reliability": believed}  # fmt: skip
    for group in _groups(plan.jobs):
        kept = {} if force else {job: record for job in group if (record := ledger.find(job))}
        for job, record in kept.items():
            yield Outcome(job, "kept", record["details"], tuple(record["warnings"]))
        fresh = {job: videos[job] for job in group if job not in kept}
        for outcome in _enhance_group(fresh, options, viewing, picture):
            if outcome.status == "enhanced":
                ledger.add(outcome.job, outcome.details, outcome.warnings)
            yield outcome


def _label(given: object) -> str:
    return given.__name__ if inspect.isfunction(given) else str(given)


def _groups(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Put recordings of like length together, so that little is padded."""
    group: list[Job] = []
    for seconds, _, job in sorted((_size_s(job.input), i, job) for i, job in enumerate(jobs)):
        if group and (len(group) == BATCH_RECORDINGS or (len(group) + 1) * seconds > BATCH_S):
            yield group
            group = []
        group.append(job)
    if group:
        yield group


def _size_s(path: Path) -> float:
    """Seconds of sound, channels added up; 0 for what cannot be read, which then says why."""
    import soundfile

    try:
        info = soundfile.info(str(path))
        return info.duration * info.channels
    except (soundfile.LibsndfileError, OSError):
        pass
    from av import open as open_media
    from av.error import FFmpegError

    try:
        with open_media(str(path)) as container:
            return (container.duration or 0) / 1e6
    except (FFmpegError, OSError, IndexError):
        return 0.0


def _videos(plan: Plan, video: Path | None) -> dict[Job, Path | None]:
    """The video of each recording: the one given, or the recording itself if it is one."""
    if video is not None and len(plan.jobs) != 1:
        raise ValueError(
            f"one video for {len(plan.jobs)} recordings; give --video with a single recording, or "
            "recordings that are videos themselves"
        )
    return {job: video_of(job.input, video) for job in plan.jobs}


def _check_picture(plan: Plan, videos: Mapping[Job, Path | None]) -> None:
    """Raise unless there is one video to make a picture of."""
    if len(plan.jobs) != 1 or videos[plan.jobs[0]] is None:
        raise ValueError(
            "a picture of the lips needs a single recording with video and a prior that sees, such "
            "as 'av-dkf'"
        )


def _enhance_group(
    jobs: Mapping[Job, Path | None],
    options: dict[str, Any],
    viewing: VideoOptions,
    picture: Path | None,
) -> Iterator[Outcome]:
    from avse_ppl.pipeline.enhance import enhance_batch

    loaded: dict[Job, tuple[Audio, list[str]]] = {}
    lips: dict[Job, Lips | None] = {}
    for job, video in jobs.items():
        try:
            audio, remarks = _load(job.input, options["speech"].stft)
            with _remarks_into(remarks):
                lips[job] = prepare_lips(video, audio, viewing)
                _draw(lips[job], picture)
            loaded[job] = audio, remarks
        except (ValueError, OSError, ModuleNotFoundError) as error:
            yield Outcome(job, "failed", {}, error=error)
    if not loaded:
        return
    keep = any(job.posterior for job in loaded)
    remarks: list[str] = []
    try:
        with _remarks_into(remarks):
            audios = [audio for audio, _ in loaded.values()]
            shown = [lips[job] for job in loaded]
            video = shown if any(one is not None for one in shown) else None
            results = enhance_batch(
                audios, video=video, keep_posterior=keep, viewing=_SEEN, **options
            )
    except Exception as error:
        if len(loaded) == 1:
            yield Outcome(next(iter(loaded)), "failed", {}, error=error)
            return
        for job in loaded:  # one by one, to find out which of them it was
            yield from _enhance_group({job: jobs[job]}, options, viewing, picture)
        return
    said = {text for _, own in loaded.values() for text in own}  # and repeated by enhance_batch
    common = [text for text in remarks if text not in said]
    for (job, (_, own)), result in zip(loaded.items(), results, strict=True):
        yield _written(job, result, own + common)


def _draw(lips: Lips | None, picture: Path | None) -> None:
    """Picture of what was tracked."""
    if picture is not None and lips is not None:
        from avse_ppl.plotting.lips import save_lips_picture

        save_lips_picture(lips, picture)


def _load(path: Path, stft: Any) -> tuple[Audio, list[str]]:
    """Read and check one recording, so that what is wrong with it is said of it alone."""
    remarks: list[str] = []
    with _remarks_into(remarks):
        audio = convert_rate(load_audio(path), stft.sample_rate_hz)
        return check_audio(audio, min_samples=stft.n_fft), remarks


def _written(job: Job, result: Enhanced, remarks: list[str]) -> Outcome:
    posterior = result.posterior
    remarks = [*remarks, *getattr(result, "warnings", ())]
    nc = job.posterior if posterior is not None else None
    try:
        with _remarks_into(remarks):
            if posterior is not None and nc is not None:
                nc.parent.mkdir(parents=True, exist_ok=True)
                posterior.save(nc)
            job.output.parent.mkdir(parents=True, exist_ok=True)
            save_audio(job.output, result.speech)  # last: where it is, all is
    except (ValueError, OSError) as error:
        return Outcome(job, "failed", {}, tuple(remarks), error)
    details = {
        "kind": getattr(result, "kind", None) or (posterior.kind if posterior else None),
        "sample_rate_hz": result.speech.sample_rate_hz,
        "duration_s": round(result.speech.duration_s, 3),
        "cost": dict(result.cost),
        "posterior": str(nc) if nc else None,
        "silent": result.speech.peak == 0.0,
    }
    return Outcome(job, "enhanced", details, tuple(remarks))


@contextmanager
def _remarks_into(texts: list[str]) -> Iterator[None]:
    """Collect what is remarked to the user, once each, instead of showing it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        finally:
            new = [str(item.message) for item in caught if item.category is UserWarning]
            texts += [text for text in dict.fromkeys(new) if text not in texts]
