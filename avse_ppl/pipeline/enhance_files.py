"""Recordings enhanced from files to files, with a log from which an interrupted run goes on.

`enhance_files` loads recordings, writes the results, and keeps ``enhance.jsonl`` in the folder of
several: one line for each finished recording, with what it was made from and how, so that a second
run with the same settings leaves those recordings alone.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avse_ppl.inference.base import Progress
from avse_ppl.models.protocols import name_of
from avse_ppl.pipeline.corpus_manifest import EnhancedFile, write_corpus_manifest
from avse_ppl.pipeline.enhance import Enhanced, Enhancer
from avse_ppl.pipeline.inputs import (
    Observation,
    VideoOptions,
    find_video,
    match_prior_to_videos,
)
from avse_ppl.pipeline.jobs import RESUME_LOG, Job, JobPlan, group_jobs, measure_jobs
from avse_ppl.pipeline.predictions import list_parts
from avse_ppl.pipeline.resume_log import ResumeLog, file_signature
from avse_ppl.pipeline.spans import SpanReader
from avse_ppl.signal.audio import save_audio
from avse_ppl.utils.files import lock_folder
from avse_ppl.utils.run_time import LongRunWarning

if TYPE_CHECKING:
    from avse_ppl.video import Lips


@dataclass(frozen=True)
class Outcome:
    """Result of one job.

    Parameters
    ----------
    job
        The recording.
    status
        ``"enhanced"``; ``"kept"`` if it was finished before; ``"failed"``.
    details
        ``kind`` of the posterior, ``sample_rate_hz``, ``duration_s``, ``cost``, ``posterior``
        (file or None), ``silent`` (then there is none), ``predictor`` (name or None); empty where
        it failed.
    warnings
        Remarks about it.
    error
        Why it failed.
    """

    job: Job
    status: str
    details: dict[str, Any]
    warnings: tuple[str, ...] = ()
    error: Exception | None = None


def enhance_files(
    plan: JobPlan,
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
    video_options: VideoOptions | None = None,
    on_lips: Callable[[Lips], object] | None = None,
    reliability: Any = None,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
    predictor: Any = None,
    predictor_optional: bool = False,
) -> Iterator[Outcome]:
    """Enhance recordings, shortest first, and yield the outcome of each as soon as it is known.

    A recording that fails does not stop the others. Spans of one long recording come together,
    after the others. Batches are cut from all recordings, finished
    or not, so that a resumed run batches as an uninterrupted one.

    Parameters
    ----------
    plan
        From `plan_jobs` or `plan_manifest`. The manifest of what is enhanced is written when all
        outcomes were asked for.
    speech, noise, inference, seed, draws, device, reliability, video_options
        As in `enhance`.
    time_limit_s, progress, predictor, predictor_optional
        As in `enhance`.
    force
        Whether to redo what is finished, and to overwrite files that this library did not write.
    recalibrate
        As in `enhance`; needs posteriors in the plan.
    video
        Video of the speaker, for a single recording; by default recordings that are videos
        themselves condition an audio-visual prior.
    on_lips
        Called with the lips that were tracked, for instance to plot them; for a single recording.

    Yields
    ------
    Outcome
        One for each job.

    Raises
    ------
    ValueError
        If a name is unknown, or an output exists that another program wrote.
    BlockingIOError
        If another run is writing into the folder.
    """
    # Check the arguments, and match videos to recordings.
    if video is not None and len(plan.jobs) != 1:
        raise ValueError(
            f"one video for {len(plan.jobs)} recordings; give --video with a single recording, or "
            "recordings that are videos themselves"
        )
    videos = {job: find_video(job.input, video or job.video) for job in plan.jobs}
    with_video = any(path is not None for path in videos.values())
    asked = video or next((job.video for job in plan.jobs if job.video is not None), None)
    prior, videos = match_prior_to_videos(speech, videos, asked)
    if on_lips is not None and (len(plan.jobs) != 1 or videos[plan.jobs[0]] is None):
        raise ValueError(
            "a figure of the lips needs a single recording with video and an audio-visual prior, "
            "such as 'av-dkf'"
        )
    video_options = video_options or VideoOptions()
    enhancer = Enhancer.of(
        prior, noise, reliability, inference, seed=seed, device=device, draws=draws,
        keep_posterior=any(job.posterior for job in plan.jobs), recalibrate=recalibrate,
        time_limit_s=time_limit_s, progress=progress, predictor=predictor,
        predictor_optional=predictor_optional,
    )  # fmt: skip

    # Find what is finished.
    given = {"speech": name_of(prior) if speech is None else speech, "noise": noise,
             "inference": enhancer.inference}  # fmt: skip
    if with_video:
        given["reliability"] = enhancer.scene.reliability
    settings: dict[str, Any] = {
        name: one.__name__ if inspect.isfunction(one) else str(one) for name, one in given.items()
    }
    settings |= {"seed": seed, "draws": draws, "recalibrate": recalibrate}
    evidence = enhancer.scene.predictor
    if evidence is not None or enhancer.remarks:
        settings["predictor"] = None if evidence is None else evidence.name
        settings["predictor_optional"] = predictor_optional
    if time_limit_s is not None:
        settings["time_limit_s"] = time_limit_s
    if with_video:
        settings["video_options"] = repr(video_options)
    elif video_options.audio_track is not None:
        settings["audio_track"] = video_options.audio_track
    if video is not None:
        settings["video"] = [str(video), file_signature(video)]
    with ExitStack() as stack:
        if plan.folder is not None:
            posteriors = [job.posterior for job in plan.jobs if job.posterior is not None]
            folders = {plan.folder.resolve(), *(path.parent.resolve() for path in posteriors)}
            for folder in sorted(folders):
                stack.enter_context(lock_folder(folder))
        path = plan.folder / RESUME_LOG if plan.folder else None
        models = (prior, enhancer.scene.noise, *list_parts(evidence))
        log = ResumeLog(path, settings, models)
        if not force:
            log.refuse_foreign(plan.jobs, plan.enhanced_manifest)

        # Enhance the rest, the shortest batch first.
        reader = stack.enter_context(SpanReader())
        done: set[Job] = set()
        for batch in group_jobs(measure_jobs(plan.jobs)):
            kept = {} if force else {job: record for job in batch if (record := log.find(job))}
            done |= kept.keys()
            for job, record in kept.items():
                yield Outcome(job, "kept", record["details"], tuple(record["warnings"]))
            remaining = {job: videos[job] for job in batch if job not in kept}
            for outcome in enhance_jobs(
                enhancer, remaining, video_options, reader, on_lips, log.begin
            ):
                if outcome.status == "enhanced":
                    log.add(outcome.job, outcome.details, outcome.warnings)
                    done.add(outcome.job)
                yield outcome
        list_enhanced(plan, done)


def list_enhanced(plan: JobPlan, done: Collection[Job]) -> Path | None:
    """Write the manifest of what is enhanced, where a manifest listed the recordings.

    Where nothing is, none is begun.
    """
    import soundfile

    if plan.manifest is None or plan.enhanced_manifest is None:
        return None
    if not done and not plan.enhanced_manifest.exists():
        return None
    files = {}
    for job, item in zip(plan.jobs, plan.manifest.items, strict=True):
        if job in done:
            info = soundfile.info(str(job.output))
            files[item.id] = EnhancedFile(job.output, info.frames, info.samplerate)
    return write_corpus_manifest(plan.manifest, files, plan.enhanced_manifest)


def enhance_jobs(
    enhancer: Enhancer,
    videos: Mapping[Job, Path | None],
    video_options: VideoOptions,
    reader: SpanReader,
    on_lips: Callable[[Lips], object] | None = None,
    on_results: Callable[[Sequence[Job]], object] = lambda jobs: None,
) -> Iterator[Outcome]:
    """Load, enhance and write one batch of recordings; where it fails, one after the other.

    Parameters
    ----------
    enhancer
        Models and inference method.
    videos
        Video of each job, or None.
    video_options, on_lips
        As in `enhance_files`.
    reader
        Reads the recordings, and spans of them.
    on_results
        Called with the jobs of a batch before their results are written.
    """
    observations: dict[Job, Observation] = {}
    remarks: dict[Job, list[str]] = {job: [] for job in videos}
    for job in sorted(videos, key=lambda job: (str(job.input), job.start_s)):  # each read once
        video = videos[job]
        try:
            with collect_warnings(remarks[job]):
                one = reader.observe(
                    job.input, enhancer.scene.stft, video, video_options,
                    start_s=job.start_s, duration_s=job.duration_s,
                )  # fmt: skip
                if on_lips is not None and one.lips is not None:
                    on_lips(one.lips)
            observations[job] = one
        except (ValueError, OSError, ModuleNotFoundError) as error:
            yield Outcome(job, "failed", {}, error=error)
    # A batch that fails is done again one by one, to find the recording that it failed for.
    batches: list[list[Job]] = [[job for job in videos if job in observations]]
    batches = batches if observations else []
    while batches:
        batch = batches.pop(0)
        common: list[str] = []
        try:
            with collect_warnings(common):
                results = enhancer.enhance([observations[job] for job in batch])
        except Exception as error:
            if len(batch) == 1 or isinstance(error, TimeoutError):  # alone it would be as slow
                yield from (Outcome(job, "failed", {}, error=error) for job in batch)
            else:
                batches = [[job] for job in batch]
            continue
        on_results(batch)
        for job, result in zip(batch, results, strict=True):
            yield write_result(job, result, [*remarks[job], *common, *result.warnings])


def write_result(job: Job, result: Enhanced, remarks: Sequence[str] = ()) -> Outcome:
    """Write the posterior and the speech of a job.

    Where the posterior cannot be written, the speech is, and the job failed all the same.
    """
    posterior, texts = result.posterior, list(remarks)
    nc = job.posterior if posterior is not None else None
    if posterior is not None:
        posterior = replace(posterior, attrs={**posterior.attrs, "recording": job.input.name})
    unsaved: Exception | None = None
    try:
        with collect_warnings(texts):
            if posterior is not None and nc is not None:
                try:
                    nc.parent.mkdir(parents=True, exist_ok=True)
                    posterior.save(nc)
                except (ValueError, OSError) as error:
                    unsaved = error
            job.output.parent.mkdir(parents=True, exist_ok=True)
            save_audio(job.output, result.speech)  # last: where it is, all is
    except (ValueError, OSError) as error:
        return Outcome(job, "failed", {}, tuple(texts), unsaved or error)
    if unsaved is not None:
        texts.append(f"the posterior was not written; the enhanced speech is in {job.output}")
        return Outcome(job, "failed", {}, tuple(texts), unsaved)
    details = {
        "kind": result.kind,
        "sample_rate_hz": result.speech.sample_rate_hz,
        "duration_s": round(result.speech.duration_s, 3),
        "cost": dict(result.cost),
        "posterior": str(nc) if nc else None,
        "silent": result.speech.peak == 0.0,
        "predictor": result.predictor,
    }
    return Outcome(job, "enhanced", details, tuple(texts))


@contextmanager
def collect_warnings(texts: list[str]) -> Iterator[None]:
    """Collect warnings meant for the user, once each, instead of showing them.

    That a run takes long is shown at once, as it is of no use afterwards.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        show_outside = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if issubclass(category, LongRunWarning):
                show_outside(message, category, *place)
            elif category is UserWarning and str(message) not in texts:
                texts.append(str(message))

        warnings.showwarning = show
        yield
