"""Recordings enhanced from files to files, with a log from which an interrupted run goes on.

`enhance_files` loads recordings, writes the results, and keeps ``enhance.jsonl`` in the folder of
several: one line for each finished recording, with what it was made from and how, so that a second
run with the same settings leaves those recordings alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avse_ppl.inference.base import Progress
from avse_ppl.models.protocols import name_of
from avse_ppl.pipeline.catalog import default_predictor
from avse_ppl.pipeline.cluster import (
    WorkerSetup,
    check_cluster,
    connect_cluster,
    enhance_on_cluster,
)
from avse_ppl.pipeline.corpus_manifest import EnhancedFile, write_corpus_manifest
from avse_ppl.pipeline.enhance import Enhancer
from avse_ppl.pipeline.enhance_jobs import Outcome, enhance_jobs
from avse_ppl.pipeline.inputs import (
    VideoOptions,
    find_video,
    match_prior_to_videos,
)
from avse_ppl.pipeline.jobs import RESUME_LOG, Job, JobPlan, group_jobs, measure_jobs
from avse_ppl.pipeline.predictions import list_parts
from avse_ppl.pipeline.resume_log import ResumeLog, file_signature
from avse_ppl.pipeline.spans import SpanReader
from avse_ppl.utils.files import lock_folder, remove_abandoned

if TYPE_CHECKING:
    from avse_ppl.video import Lips


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
    cluster: str | None = None,
    workers: int | None = None,
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
    cluster
        Where batches are enhanced by several processes at once, the longest first: ``"local"``, on
        this machine; ``"auto"``, on the Ray cluster that it belongs to; or the ``HOST:PORT`` of
        one. See `avse_ppl.pipeline.cluster`. None: in this process. ``progress`` is not called
        there.
    workers
        How many batches at once, at most, with ``cluster``.

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
    ImportError, OSError
        If Ray is not installed, or no cluster answers.
    """
    # Check the arguments, and match videos to recordings.
    if cluster is not None:
        if plan.folder is None:
            raise ValueError(
                "a cluster is for several recordings, and here is one; leave the cluster out"
            )
        check_cluster(cluster, workers)
    elif workers is not None:
        raise ValueError("workers are those of a cluster; name one, such as 'local', as well")
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
    options = {"noise": noise, "reliability": reliability, "inference": inference, "seed": seed,
               "draws": draws, "recalibrate": recalibrate, "time_limit_s": time_limit_s,
               "keep_posterior": any(job.posterior for job in plan.jobs)}  # fmt: skip
    enhancer = Enhancer.of(
        prior, device="cpu" if cluster else device, progress=progress, predictor=predictor,
        predictor_optional=predictor_optional, **options,
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
                stack.callback(remove_abandoned, folder)
        path = plan.folder / RESUME_LOG if plan.folder else None
        models = (prior, enhancer.scene.noise, *list_parts(evidence))
        log = ResumeLog(path, settings, models)
        if not force:
            log.refuse_foreign(plan.jobs, plan.enhanced_manifest)

        # Enhance the rest, the shortest batch first.
        done: set[Job] = set()
        batches: list[dict[Job, Path | None]] = []
        for batch in group_jobs(measure_jobs(plan.jobs)):
            kept = {} if force else {job: record for job in batch if (record := log.find(job))}
            done |= kept.keys()
            for job, record in kept.items():
                yield Outcome(job, "kept", record["details"], tuple(record["warnings"]))
            batches.append({job: videos[job] for job in batch if job not in kept})
        batches = [batch for batch in batches if batch]
        if cluster is None or not batches:
            reader = stack.enter_context(SpanReader())
            outcomes = (
                outcome
                for batch in batches
                for outcome in enhance_jobs(
                    enhancer, batch, video_options, reader, on_lips, log.begin
                )
            )
        else:
            # Names, not models, as these do not all go into another process.
            named = default_predictor(enhancer.inference) if predictor is None else predictor
            options |= {"predictor": named, "predictor_optional": enhancer.predictor_optional}
            setup = WorkerSetup(given["speech"], options, video_options, Path.cwd())
            ray = stack.enter_context(connect_cluster(cluster, workers))
            sent = enhance_on_cluster(ray, batches[::-1], setup, device, workers, log.begin)
            outcomes = stack.enter_context(closing(sent))
        for outcome in outcomes:
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
